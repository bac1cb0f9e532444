-- Successes in traffic, each worth what it saves against the parent release in the weeks in which both served,
-- minus what the programme has cost. A week with an unknown cost on either side says nothing. Not known without traffic
-- of both, or without the programme's cost.
with weeks as (

    select
        iso_week,
        any_value(successes) filter (where role = 'release') as release_successes,
        any_value(cost) filter (where role = 'release') as release_cost,
        any_value(successes) filter (where role = 'reference') as reference_successes,
        any_value(cost) filter (where role = 'reference') as reference_cost,
        bool_or(simulated) as simulated
    from brief_costs
    where release = $release and basis = 'traffic'
    group by iso_week

),

shared as (

    select
        sum(reference_cost) / nullif(sum(reference_successes), 0)
        - sum(release_cost) / nullif(sum(release_successes), 0) as saving
    from weeks
    where
        release_successes is not null and reference_successes is not null
        and release_cost is not null and reference_cost is not null

),

totals as (

    select
        cast(sum(release_successes) as bigint) as successes,
        coalesce(bool_or(simulated), false) as simulated
    from weeks

)

select
    totals.successes * shared.saving - r.programme_cost > 0 as holds_flag,
    totals.successes * shared.saving - r.programme_cost as net_eur,
    totals.successes as successes_count,
    shared.saving as saving_eur,
    totals.simulated
from brief_releases as r
cross join shared
cross join totals
where r.release = $release
