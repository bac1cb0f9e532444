-- One row a metric of the canary's decision.
select
    metric as key,
    owner,
    unit,
    answer as metric_answer,
    estimate as estimate_value,
    low as low_value,
    high as high_value,
    threshold as limit_value,
    simulated
from brief_decision_metrics
where release = $release
order by position
