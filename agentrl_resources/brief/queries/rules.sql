-- The numbers that confidence and phases are judged by.
select
    drill_failures as limit_failures_count,
    drill_chance as limit_chance_share,
    false as simulated
from brief_rules
where release = $release
