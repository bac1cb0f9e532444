-- What every champion so far and this release have saved: successes in traffic, each worth what it costs less than a
-- success of the release before, in the weeks in which both served; minus what the programme has cost. A week with an
-- unknown cost on either side says nothing. Not known without traffic of both sides of each, or without that cost.
with weeks as (

    select
        pair,
        iso_week,
        any_value(successes) filter (where role = 'release') as release_successes,
        any_value(cost) filter (where role = 'release') as release_cost,
        any_value(successes) filter (where role = 'reference') as reference_successes,
        any_value(cost) filter (where role = 'reference') as reference_cost,
        bool_or(simulated) as simulated
    from brief_costs
    where release = $release and basis = 'traffic'
    group by pair, iso_week

),

savings as (

    select
        pair,
        sum(reference_cost) / nullif(sum(reference_successes), 0)
        - sum(release_cost) / nullif(sum(release_successes), 0) as saving
    from weeks
    where
        release_successes is not null and reference_successes is not null
        and release_cost is not null and reference_cost is not null
    group by pair

),

totals as (

    select
        cast(sum(weeks.release_successes) as bigint) as successes,
        case
            when count(weeks.release_successes) = count(weeks.release_successes + savings.saving)
                then sum(weeks.release_successes * savings.saving)
        end as saved,
        coalesce(bool_or(weeks.simulated), false) as simulated
    from weeks
    left join savings on weeks.pair = savings.pair

)

select
    totals.saved - r.programme_cost > 0 as holds_flag,
    totals.saved - r.programme_cost as net_eur,
    totals.successes as successes_count,
    totals.saved / nullif(totals.successes, 0) as saving_eur,
    totals.simulated
from brief_releases as r
cross join totals
where r.release = $release
