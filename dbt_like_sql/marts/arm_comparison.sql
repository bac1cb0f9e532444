-- Offline evaluation: what each arm did on each type of task, at each temperature.
with runs as (

    select * from stg_runs

),

totals as (

    select
        workflow,
        iso_week,
        suite,
        temperature,
        task_type,
        arm,
        policy_version,
        count(*) as n,
        count(*) filter (where success) as successes,
        count(*) filter (where safety_violation) as safety_violations,
        count(*) filter (where human_override) as human_overrides,
        cast(sum(tool_calls_count) as bigint) as tool_calls,
        case when count(*) = count(tool_error_count) then cast(sum(tool_error_count) as bigint) end as tool_errors,
        cast(sum(tokens_out) as bigint) as tokens_out,
        avg(duration_ms) as mean_duration_ms,
        -- A sum with an unknown cost in it is unknown.
        case when count(*) = count(cost) then sum(cost) end as cost
    from runs
    where
        release_channel = 'offline_eval'
        and arm is not null
        and suite is not null
        and temperature is not null
        and success is not null
    group by workflow, iso_week, suite, temperature, task_type, arm, policy_version

)

select
    *,
    successes / n as success_rate,
    safety_violations / n as safety_violation_rate,
    cost / nullif(successes, 0) as cost_per_success
from totals
order by workflow, iso_week, suite, temperature, task_type, arm
