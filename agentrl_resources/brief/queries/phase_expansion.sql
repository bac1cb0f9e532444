-- Two gates that break in one ISO week stop expansion.
select
    not expansion_stopped as holds_flag,
    expansion_gates as gates_count,
    false as simulated
from brief_releases
where release = $release
