-- Promoted after the canary said GO; not known before it decided, or while it says HOLD.
select
    case when d.answer in ('GO', 'NO-GO') then d.answer = 'GO' and r.promoted end as holds_flag,
    d.answer as canary_answer,
    d.n_canary as canary_count,
    coalesce(d.simulated, false) as simulated
from brief_releases as r
left join brief_decisions as d on r.release = d.release
where r.release = $release
