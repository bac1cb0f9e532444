-- What one successful completion costs (EUR), failed runs paid for too.
with runs as (

    select * from stg_runs

),

totals as (

    select
        workflow,
        iso_week,
        release_channel,
        simulated,
        policy_version,
        count(*) as n,
        count(*) filter (where success) as successes,
        -- A sum with an unknown cost in it is unknown.
        case when count(*) = count(cost) then sum(cost) end as cost
    from runs
    where production_like and success is not null
    group by workflow, iso_week, release_channel, simulated, policy_version

)

select
    *,
    cost / nullif(successes, 0) as cost_per_success
from totals
order by workflow, iso_week, release_channel, policy_version
