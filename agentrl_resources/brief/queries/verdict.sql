-- What the release may do, and what decided it: first what forbids it, then what is not proven yet. With every gate and
-- the canary at GO it serves everybody, unless expansion is stopped or it was taken back.
with facts as (

    select
        r.promoted,
        coalesce(r.expansion_stopped, false) as stopped,
        d.answer as canary,
        coalesce(d.expired, false) as expired,
        coalesce(d.simulated, false) as canary_simulated,
        (select count(*) from brief_verdicts as v where v.release = r.release) as gates,
        (
            select arg_min(v.kind, v.position) from brief_verdicts as v
            where v.release = r.release and v.answer = 'NO-GO'
        ) as failed_gate,
        (
            select arg_min(v.kind, v.position) from brief_verdicts as v
            where v.release = r.release and v.answer = 'HOLD'
        ) as open_gate,
        (
            select arg_min(m.metric, m.position) from brief_decision_metrics as m
            where m.release = r.release and m.answer = 'NO-GO'
        ) as failed_metric,
        coalesce((select bool_or(v.simulated) from brief_verdicts as v where v.release = r.release), false)
            as gates_simulated
    from brief_releases as r
    left join brief_decisions as d on r.release = d.release
    where r.release = $release

),

decided as (

    select
        *,
        case
            when failed_gate is not null then 'gate_failed'
            when canary = 'NO-GO' and failed_metric is not null then 'metric_failed'
            when canary = 'NO-GO' then 'canary_ended'
            when gates = 0 then 'gates_missing'
            when open_gate is not null then 'gate_open'
            when expired then 'canary_expired'
            when coalesce(canary, 'HOLD') = 'HOLD' then 'canary_open'
            when not promoted and stopped then 'stopped'
            when not promoted then 'unpromoted'
            else 'go'
        end as reason
    from facts

)

select
    case
        when reason in ('gate_failed', 'metric_failed', 'canary_ended') then 'NO-GO'
        when reason = 'go' then 'GO'
        else 'HOLD'
    end as release_answer,
    reason as reason_name,
    coalesce(failed_gate, open_gate) as deciding_gate,
    failed_metric as deciding_metric,
    gates_simulated or canary_simulated as simulated
from decided
