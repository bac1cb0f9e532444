-- The last eight weeks that have a score.
with latest as (

    select * from brief_scores
    where release = $release
    order by iso_week desc
    limit 8

)

select
    iso_week as key,
    score as reliability_score,
    low as low_score,
    high as high_score,
    simulated
from latest
order by iso_week
