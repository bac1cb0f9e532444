-- Which tools fail, in the runs that the week's score counts.
with tool_calls as (

    select * from stg_tool_calls

),

runs as (

    select * from stg_counted_runs

),

totals as (

    select
        runs.workflow,
        runs.iso_week,
        runs.basis,
        tool_calls.tool,
        bool_or(runs.simulated) as simulated,
        count(*) as calls,
        count(*) filter (where tool_calls.status = 'error') as errors,
        count(*) filter (where tool_calls.status = 'unknown') as unknown,
        avg(tool_calls.ms) as mean_ms
    from tool_calls
    inner join runs on tool_calls.run_id = runs.run_id
    where runs.success is not null
    group by runs.workflow, runs.iso_week, runs.basis, tool_calls.tool

)

select
    *,
    case when unknown = 0 then errors / calls end as error_rate
from totals
order by workflow, iso_week, errors desc, tool
