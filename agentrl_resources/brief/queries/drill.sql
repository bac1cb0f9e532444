-- The rollback drill as a whole.
select
    n as failures_count,
    p50_seconds as p50_seconds,
    p95_seconds as p95_seconds,
    max_seconds as max_seconds,
    limit_seconds as limit_seconds,
    chance_over_limit_upper as bound_share,
    canary_percent / 100 as canary_share,
    cast(round(traffic_per_second) as bigint) as traffic_count,
    success_before as before_share,
    success_after as after_share,
    success_after_low as after_low_share,
    success_after_high as after_high_share,
    simulated
from brief_drills
where release = $release
