-- Every tool call in the runs' traces.
with agent_runs_source as (

    select * from agent_runs

),

calls as (

    select
        run_id,
        unnest(cast(trace -> '$.tool_calls' as json[])) as call,
        generate_subscripts(cast(trace -> '$.tool_calls' as json[]), 1) as position
    from agent_runs_source

),

tool_calls as (

    select
        run_id,
        position,
        call ->> '$.name' as tool,
        call ->> '$.error' as error,
        -- Imported calls may be unknown; any other without an error was right.
        coalesce(call ->> '$.status', case when call ->> '$.error' is null then 'ok' else 'error' end) as status,
        cast(call ->> '$.ms' as double) as ms
    from calls

)

select * from tool_calls
