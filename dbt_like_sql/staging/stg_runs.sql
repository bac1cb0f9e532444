-- Every run, with the week it counts in and what is unknown spelled out.
with agent_runs_source as (

    select * from agent_runs

),

runs as (

    select
        run_id,
        workflow,
        task_id,
        coalesce(task_type, 'unknown') as task_type,
        release_id,
        coalesce(policy_version, 'unknown') as policy_version,
        release_channel,
        arm,
        suite,
        temperature,
        simulated,
        started_at,
        -- The ISO year, not the calendar year: 1 January may belong to week 53 of the year before.
        strftime(started_at, '%G-W%V') as iso_week,
        success,
        safety_violation,
        -- An override that nobody reported did not happen.
        coalesce(human_override, false) as human_override,
        tool_calls_count,
        tool_error_count,
        tokens_in,
        tokens_out,
        duration_ms,
        cost,
        quality,
        policy_kl,
        clarifying_questions,
        -- Runs that show how the workflow does in production: traffic, or the capability suite sampled as production samples.
        -- Greedy decoding (temperature 0) and adversarial tasks are controls.
        release_channel <> 'offline_eval'
        or (coalesce(suite, '') = 'capability' and coalesce(temperature, 0) > 0) as production_like
    from agent_runs_source

)

select * from runs
