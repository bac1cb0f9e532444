-- How many parts the bundle has, and how many of them the parent release does not have.
select
    count(*) as parts_count,
    count(*) filter (where changed) as changed_count,
    false as simulated
from brief_parts
where release = $release
