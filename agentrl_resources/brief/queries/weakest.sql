-- The kind of task that the release solves least often.
select
    task_type as task_type_name,
    n as n_count,
    candidate_successes / n as success_share,
    candidate_low as low_share,
    candidate_high as high_share,
    simulated
from brief_comparison
where release = $release and task_type is not null
order by candidate_successes / n, n desc, task_type
limit 1
