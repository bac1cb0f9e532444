-- The last eight weeks that have a score of the same kind of evidence as the latest one. A week has none where nothing
-- says of some call whether it failed.
with latest as (

    select * from brief_scores
    where
        release = $release
        and score is not null
        and (basis, simulated) = (
            select (arg_max(l.basis, l.iso_week), arg_max(l.simulated, l.iso_week))
            from brief_scores as l
            where l.release = $release and l.score is not null
        )
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
