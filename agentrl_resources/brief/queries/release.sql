-- What the release is.
select
    release as release_digest,
    parent as parent_digest,
    rollback_target as rollback_target_digest,
    code_commit as commit_digest,
    code_dirty as dirty_flag,
    gate_configuration as gate_configuration_digest,
    workflow as workflow_name,
    policy_version as policy_name,
    baseline_version as baseline_name,
    reward_model_version as reward_model_name,
    made_at as made_date,
    canary_percent / 100 as limit_canary_share,
    tools as limit_tools_count,
    max_calls as limit_calls_count,
    max_seconds as limit_run_seconds,
    programme_cost as programme_eur,
    false as simulated
from brief_releases
where release = $release
