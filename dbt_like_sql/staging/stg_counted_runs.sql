-- The runs that a week's score counts: the best evidence there is of that week, and only that.
-- Real traffic comes before simulated traffic, and any traffic before the latest candidate in offline evaluation.
with runs as (

    select * from stg_runs

),

ranked as (

    select
        *,
        case
            when release_channel <> 'offline_eval' and not simulated then 1
            when release_channel <> 'offline_eval' then 2
            when production_like and arm = 'candidate' then 3
        end as evidence_rank
    from runs

),

best_evidence as (

    select
        workflow,
        iso_week,
        min(evidence_rank) as evidence_rank,
        arg_max(policy_version, (started_at, policy_version)) filter (where evidence_rank = 3) as latest_candidate
    from ranked
    group by workflow, iso_week

),

counted as (

    select
        ranked.run_id,
        ranked.workflow,
        ranked.iso_week,
        case when ranked.evidence_rank = 3 then 'offline_eval' else 'traffic' end as basis,
        ranked.task_id,
        ranked.task_type,
        ranked.policy_version,
        ranked.simulated,
        ranked.success,
        ranked.human_override,
        ranked.tool_calls_count,
        ranked.tool_error_count,
        ranked.cost,
        ranked.quality,
        ranked.policy_kl
    from ranked
    inner join best_evidence
        on
            ranked.workflow = best_evidence.workflow
            and ranked.iso_week = best_evidence.iso_week
            and ranked.evidence_rank = best_evidence.evidence_rank
    where ranked.evidence_rank < 3 or ranked.policy_version = best_evidence.latest_candidate

)

select * from counted
