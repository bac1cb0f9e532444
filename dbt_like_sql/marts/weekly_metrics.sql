-- The monitoring metrics, one row each.
with reliability as (

    select * from weekly_reliability

),

runs as (

    select * from stg_counted_runs

),

averages as (

    select
        workflow,
        iso_week,
        basis,
        bool_or(simulated) as simulated,
        avg(policy_kl) as policy_kl,
        count(policy_kl) as policy_kl_n,
        avg(quality) as quality,
        count(quality) as quality_n
    from runs
    group by workflow, iso_week, basis

),

metrics as (

    select workflow, iso_week, basis, simulated, 'human_override_rate' as metric, human_override_rate as value, n
    from reliability

    union all

    select workflow, iso_week, basis, simulated, 'tool_error_rate' as metric, tool_error_rate as value, tool_calls as n
    from reliability

    union all

    select workflow, iso_week, basis, simulated, 'policy_kl_drift' as metric, policy_kl as value, policy_kl_n as n
    from averages

    union all

    select workflow, iso_week, basis, simulated, 'task_completion_quality' as metric, quality as value, quality_n as n
    from averages

)

select * from metrics
order by workflow, iso_week, metric
