-- The latest week's score and its three factors.
select
    iso_week as iso_week,
    score as reliability_score,
    low as low_score,
    high as high_score,
    success as success_share,
    human_override as override_share,
    tool_error as tool_error_share,
    n as n_count,
    basis as runs_basis,
    simulated
from brief_scores
where release = $release
order by iso_week desc
limit 1
