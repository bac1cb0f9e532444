"""The reward model, and whether a policy may learn from it."""

from typing import Any

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import materialized, numbers, percent, table, with_interval
from agentrl_resources.dagster_resources import Training, Workspace


@dg.asset(
    group_name="training",
    owners=["team:ml"],
    kinds={"pytorch", "huggingface"},
    deps=["cleaned_preference_data", "on_policy_preference_data", "sft_checkpoint"],
    code_version=code_version(stage_code("reward_model"), "reward", "seed", workflow=True),
    pool="training",
)
def reward_model(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """Bradley-Terry reward model with its calibration on tasks that it has not seen."""
    artifact = training.run(context)
    return materialized(artifact, in_short=_in_short(artifact.report), **_shown(artifact.report))


@dg.asset_check(asset="reward_model", blocking=True, metadata={"owner": "team:ml"})
def reward_is_calibrated(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """Better than chance, calibrated, and right where the outcome differs: otherwise no policy may learn from it. Where
    none does (`ppo.model_weight: 0`), nothing is blocked."""
    report = workspace.latest(context, "reward_model").report
    said = "; ".join(report["blocks"]) or "A policy may learn from it."
    if report["not_measured"]:
        said += f" Too few to say anything of: {', '.join(report['not_measured'])}."
    unused = workspace.settings.ppo.model_weight == 0
    if unused:
        said = f"No policy learns from it: ppo.model_weight is 0. {said}"
    return dg.AssetCheckResult(
        passed=not report["blocks"] or unused,
        description=said,
        metadata=_shown(report),
    )


def _in_short(report: dict[str, Any]) -> str:
    accuracy, auc = report["holdout"]["accuracy"], report["own_samples"]["auc"]
    said = f"ranks {percent(accuracy)} of the hold-out pairs rightly"
    return said if auc is None else f"{said}, AUC {auc:.2f} on the checkpoint's own episodes"


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    accuracies = {
        "all hold-out pairs": report["holdout"],
        **{f"hold-out pairs, {source}": entry for source, entry in report["holdout_by_source"].items()},
        "pairs whose outcome differs": report["outcome_differs"],
        "wrong refusals": report["wrong_refusals"],
    }
    rows = (
        {"pairs": name, "n": entry["n"], "accuracy": with_interval(entry["accuracy"], entry["interval"])}
        for name, entry in accuracies.items()
    )
    shown = {**numbers(report), "accuracy": table(rows), "calibration_bins": table(report["bins"])}
    if report["own_samples"]["auc"] is not None:
        shown["auc_on_own_samples"] = report["own_samples"]["auc"]
    return shown
