-- One row a suite: both arms on the same tasks at the production temperature.
select
    suite as key,
    n as n_count,
    candidate_successes as passed_count,
    n - candidate_successes as failed_count,
    candidate_successes / n as success_share,
    candidate_low as low_share,
    candidate_high as high_share,
    baseline_successes / n as baseline_share,
    100 * difference as difference_points,
    100 * difference_low as difference_low_points,
    100 * difference_high as difference_high_points,
    100 * minimum_detectable_effect as detectable_width,
    candidate_violations as violations_count,
    violation_bound as violation_bound_share,
    simulated
from brief_comparison
where release = $release and task_type is null
order by suite desc
