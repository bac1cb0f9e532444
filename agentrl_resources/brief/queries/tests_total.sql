-- All suites together: tasks passed and failed, and tasks that only one arm solved.
select
    sum(n) as n_count,
    sum(n - candidate_successes) as failed_count,
    sum(only_baseline) as lost_count,
    sum(only_candidate) as won_count,
    sum(candidate_violations) as violations_count,
    sum(baseline_violations) as baseline_violations_count,
    bool_or(simulated) as simulated
from brief_comparison
where release = $release and task_type is null
having count(*) > 0
