-- One row a gate.
select
    gate as key,
    kind,
    owner,
    unit,
    answer as verdict_answer,
    estimate as estimate_value,
    low as low_value,
    high as high_value,
    threshold as limit_value,
    n as n_count,
    simulated
from brief_verdicts
where release = $release
order by position
