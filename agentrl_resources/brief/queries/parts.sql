-- One row a part of the bundle.
select
    part as key,
    digest as part_digest,
    changed as changed_flag,
    false as simulated
from brief_parts
where release = $release
order by part
