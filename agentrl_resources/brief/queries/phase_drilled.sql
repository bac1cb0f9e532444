-- Enough failures drilled, and the chance of a rollback beyond the gate's time bounded low enough.
select
    d.n >= rules.drill_failures and d.chance_over_limit_upper <= rules.drill_chance as holds_flag,
    d.n as failures_count,
    d.chance_over_limit_upper as bound_share,
    d.limit_seconds as limit_seconds,
    coalesce(d.simulated, false) as simulated
from brief_rules as rules
left join brief_drills as d on rules.release = d.release
where rules.release = $release
