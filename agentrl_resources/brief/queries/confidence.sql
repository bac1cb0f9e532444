-- High: every gate and the canary say GO, the rollback is drilled, and canary and score are of real traffic. Tests and
-- drill are trials by nature.
-- Low: a gate does not say GO, or the canary says NO-GO. Moderate: everything between.
with facts as (

    select
        (select count(*) from brief_verdicts as v where v.release = r.release) as gates,
        (select count(*) from brief_verdicts as v where v.release = r.release and v.answer = 'GO') as gates_go,
        (select any_value(d.answer) from brief_decisions as d where d.release = r.release) as canary,
        coalesce(
            (
                select bool_and(d.n >= rules.drill_failures and d.chance_over_limit_upper <= rules.drill_chance)
                from brief_drills as d
                where d.release = r.release
            ),
            false
        ) as drilled,
        coalesce((select bool_or(d.simulated) from brief_decisions as d where d.release = r.release), false)
        or coalesce(
            (select arg_max(s.simulated, s.iso_week) from brief_scores as s where s.release = r.release), false
        ) as simulated
    from brief_releases as r
    inner join brief_rules as rules on r.release = rules.release
    where r.release = $release

)

select
    case
        when gates_go < gates or gates = 0 or coalesce(canary, '') = 'NO-GO' then 'low'
        when coalesce(canary, '') = 'GO' and drilled and not simulated then 'high'
        else 'moderate'
    end as confidence_level,
    gates = gates_go and gates > 0 as gates_flag,
    case coalesce(canary, 'HOLD') when 'GO' then true when 'NO-GO' then false end as canary_flag,
    drilled as drilled_flag,
    not simulated as real_flag,
    false as simulated
from facts
