-- Every drilled failure's time to recover, and the median of its four steps.
select
    list(total_seconds order by total_seconds) as totals_list,
    median(detected_seconds) as detected_seconds,
    median(decided_seconds) as decided_seconds,
    median(swapped_seconds) as swapped_seconds,
    median(drained_seconds) as drained_seconds,
    bool_or(simulated) as simulated
from brief_drill_failures
where release = $release
having count(*) > 0
