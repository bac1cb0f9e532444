-- What the canary decided.
select
    answer as canary_answer,
    decided_at as decided_date,
    n_canary as canary_count,
    n_champion as champion_count,
    expired as expired_flag,
    simulated
from brief_decisions
where release = $release
