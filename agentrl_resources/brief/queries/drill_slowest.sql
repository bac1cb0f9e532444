-- The kind of failure that took longest to recover from.
select
    kind as failure_kind,
    count(*) as failures_count,
    median(total_seconds) as p50_seconds,
    max(total_seconds) as max_seconds,
    bool_or(simulated) as simulated
from brief_drill_failures
where release = $release
group by kind
order by median(total_seconds) desc, kind
limit 1
