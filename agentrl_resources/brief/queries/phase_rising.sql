-- The change of the score over the last weeks of one kind of evidence, with its 95 % interval from the two weeks'
-- intervals (MOVER: Newcombe 1998; Zou & Donner 2008). Rising: the whole interval is above zero. Falling: all below.
with scores as (

    select
        s.*,
        row_number() over (order by s.iso_week desc) as age
    from brief_scores as s
    where
        s.release = $release
        and s.score is not null
        and (s.basis, s.simulated) = (
            select (arg_max(l.basis, l.iso_week), arg_max(l.simulated, l.iso_week))
            from brief_scores as l
            where l.release = $release and l.score is not null
        )

),

ends as (

    select
        arg_max(s.score, s.iso_week) - arg_min(s.score, s.iso_week) as change,
        sqrt(
            power(arg_max(s.score - s.low, s.iso_week), 2) + power(arg_min(s.high - s.score, s.iso_week), 2)
        ) as below,
        sqrt(
            power(arg_max(s.high - s.score, s.iso_week), 2) + power(arg_min(s.score - s.low, s.iso_week), 2)
        ) as above,
        min(s.iso_week) as since,
        count(*) as weeks,
        bool_or(s.simulated) as simulated
    from scores as s
    inner join brief_rules as rules on s.release = rules.release
    where s.age <= rules.trend_weeks

)

select
    case
        when weeks < 2 then null
        when change - below > 0 then true
        when change + above < 0 then false
    end as holds_flag,
    case when weeks > 1 then 100 * change end as change_points,
    case when weeks > 1 then 100 * (change - below) end as low_points,
    case when weeks > 1 then 100 * (change + above) end as high_points,
    since as since_week,
    weeks as weeks_count,
    coalesce(simulated, false) as simulated
from ends
