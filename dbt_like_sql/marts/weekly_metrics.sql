-- The monitoring metrics, one row each.
with reliability as (

    select * from weekly_reliability

),

runs as (

    select * from stg_counted_runs

),

all_runs as (

    select * from stg_runs

),

averages as (

    select
        workflow,
        iso_week,
        basis,
        bool_or(simulated) as simulated,
        avg(quality) as quality,
        count(quality) as quality_n
    from runs
    group by workflow, iso_week, basis

),

-- A gateway does not run the reference beside the policy, so the KL of a week is that of its evaluated candidates.
drifts as (

    select
        workflow,
        iso_week,
        avg(policy_kl) as policy_kl,
        count(policy_kl) as policy_kl_n
    from all_runs
    where production_like and (arm is null or arm = 'candidate')
    group by workflow, iso_week

),

metrics as (

    select workflow, iso_week, basis, simulated, 'human_override_rate' as metric, human_override_rate as value, n
    from reliability

    union all

    select workflow, iso_week, basis, simulated, 'tool_error_rate' as metric, tool_error_rate as value, tool_calls as n
    from reliability

    union all

    select
        averages.workflow,
        averages.iso_week,
        averages.basis,
        averages.simulated,
        'policy_kl_drift' as metric,
        drifts.policy_kl as value,
        coalesce(drifts.policy_kl_n, 0) as n
    from averages
    left join drifts
        on averages.workflow = drifts.workflow and averages.iso_week = drifts.iso_week

    union all

    select workflow, iso_week, basis, simulated, 'task_completion_quality' as metric, quality as value, quality_n as n
    from averages

)

select * from metrics
order by workflow, iso_week, metric
