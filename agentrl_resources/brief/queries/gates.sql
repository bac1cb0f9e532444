-- How many gates there are, and how many say GO.
select
    count(*) as gates_count,
    count(*) filter (where answer = 'GO') as go_count,
    bool_or(simulated) as simulated
from brief_verdicts
where release = $release
having count(*) > 0
