-- What the canary decided.
select
    answer as canary_answer,
    decided_at as decided_date,
    n_canary as canary_count,
    n_champion as champion_count,
    case when n_canary + n_champion = 0 then 0 else n_canary / (n_canary + n_champion) end as canary_share,
    expired as expired_flag,
    simulated
from brief_decisions
where release = $release
