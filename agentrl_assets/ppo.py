"""The policy, and whether its training can be believed."""

from typing import Any

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import materialized, numbers, percent, table
from agentrl_resources.dagster_resources import Training, Workspace

ENDS = 3
"""Iterations at either end of training whose mean is compared: one rollout alone says little."""
REFUSAL_DRIFT = 0.10
"""Share of episodes, beyond the baseline's, that end without any action: the earliest sign of reward hacking."""


@dg.asset(
    group_name="training",
    owners=["team:ml"],
    kinds={"pytorch", "huggingface"},
    deps=["sft_checkpoint", "reward_model"],
    code_version=code_version(
        stage_code("ppo_policy"), "ppo", "workflow.policy_training", "engine.kind", "seed", workflow=True
    ),
    pool="training",
)
def ppo_policy(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """The policy after multi-turn PPO on the reward model alone, held to the SFT checkpoint by a KL penalty."""
    artifact = training.run(context)
    report = artifact.report
    rollouts = _rollouts_of_kept_policies(report)
    in_short = f"KL {report['kl']:.2f} nats an episode"
    if rollouts:
        rates = " -> ".join(percent(rollouts[end]["success"]) for end in (0, -1))
        in_short = f"success in rollouts {rates}, {in_short}"
    return materialized(artifact, **numbers(report), in_short=in_short, iterations=table(report["history"]))


@dg.asset_check(asset="ppo_policy", blocking=True, metadata={"owner": "team:ml"})
def training_was_finite(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """No loss, gradient or reward of any iteration was infinite or not a number."""
    history = workspace.latest(context, "ppo_policy").report["history"]
    broken = [entry["iteration"] for entry in history if not entry.get("finite", 1)]
    said = (
        f"Iterations with values that are not finite: {broken}."
        if broken
        else f"{len(history)} iterations, all finite."
    )
    return dg.AssetCheckResult(passed=not broken, description=said)


@dg.asset_check(asset="ppo_policy", blocking=True, metadata={"owner": "team:ml"})
def kl_stayed_below_the_ceiling(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The policy that is kept is no further from the SFT checkpoint than the ceiling allows."""
    ceiling = workspace.settings.ppo.kl_ceiling
    report = workspace.latest(context, "ppo_policy").report
    return dg.AssetCheckResult(
        passed=report["kl"] <= ceiling,
        description=f"KL is {report['kl']:.1f} nats an episode, {ceiling:g} are allowed; {report['why_it_ended']}.",
        metadata={"kl": report["kl"], "ceiling": ceiling},
    )


@dg.asset_check(asset="ppo_policy", metadata={"owner": "team:product"})
def refusals_did_not_drift(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The policy refuses about as often as the baseline, with which its first rollout was made."""
    history = _rollouts_of_kept_policies(workspace.latest(context, "ppo_policy").report)
    if not history:
        return _NOTHING_KEPT
    first, last = history[0]["no_action"], history[-1]["no_action"]
    return dg.AssetCheckResult(
        passed=last - first <= REFUSAL_DRIFT,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Episodes without any action went from {percent(first)} to {percent(last)}.",
        metadata={"first": first, "last": last, "allowed_drift": REFUSAL_DRIFT},
    )


@dg.asset_check(asset="ppo_policy", metadata={"owner": "team:ml"})
def success_followed_the_reward(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """Reward and true success did not part: reward that rises while success falls is hacked."""
    history = _rollouts_of_kept_policies(workspace.latest(context, "ppo_policy").report)
    if not history:
        return _NOTHING_KEPT
    ends = min(ENDS, max(1, len(history) // 2))
    gained = {name: _mean(history[-ends:], name) - _mean(history[:ends], name) for name in ("score", "success")}
    return dg.AssetCheckResult(
        passed=gained["score"] <= 0 or gained["success"] >= 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"From the first {ends} to the last {ends} rollouts, the reward (-2 to 2) changed by "
        f"{gained['score']:+.2f} and true success by {100 * gained['success']:+.1f} points.",
        metadata=gained,
    )


_NOTHING_KEPT = dg.AssetCheckResult(
    passed=False, severity=dg.AssetCheckSeverity.WARN, description="Training stopped in its first rollout."
)


def _rollouts_of_kept_policies(report: dict[str, Any]) -> list[dict[str, float]]:
    """The history without the rollout that made training stop: it is of a policy that was not kept."""
    return report["history"][:-1] if report["stopped"] else report["history"]


def _mean(history: list[dict[str, float]], name: str) -> float:
    return sum(entry[name] for entry in history) / len(history)
