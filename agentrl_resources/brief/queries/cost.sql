-- What a success costs in the offline evaluation, failed runs paid for too.
select
    any_value(cost / nullif(successes, 0)) filter (where role = 'release') as release_eur,
    any_value(cost / nullif(successes, 0)) filter (where role = 'reference') as baseline_eur,
    bool_or(simulated) as simulated
from brief_costs
where release = $release and basis = 'offline_eval'
having count(*) > 0
