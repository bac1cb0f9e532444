"""Supervised fine-tuning: the tokenizer and the baseline, whose frozen copy is PPO's reference."""

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import SAMPLE, conversation, materialized, numbers, percent, table, with_interval
from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.evaluation import wilson

SUCCESS_FLOOR = 0.10
"""Share of hold-out tasks of a type that the baseline must solve: PPO cannot reinforce what is never sampled."""
_WRITTEN = ("model.base", "model.renderer", "model.renderer_options")
"""What decides how conversations are written."""


@dg.asset(
    group_name="training",
    owners=["team:ml"],
    kinds={"huggingface"},
    deps=["cleaned_preference_data"],
    code_version=code_version(stage_code("tokenizer"), *_WRITTEN, "model.vocabulary", workflow=True),
    pool="training",
)
def tokenizer(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """The tokenizer with the format of its conversations: trained on the cleaned pairs, or the base model's."""
    artifact = training.run(context)
    return materialized(artifact, **numbers(artifact.report))


@dg.asset(
    group_name="training",
    owners=["team:ml"],
    kinds={"pytorch", "huggingface"},
    deps=["cleaned_preference_data", "tokenizer"],
    code_version=code_version(
        stage_code("sft_checkpoint"),
        *("model", "policy", "sft", "engine.kind", "seed", "evaluation.temperature", "evaluation.concurrency"),
        workflow=True,
    ),
    pool="training",
)
def sft_checkpoint(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """The stable baseline: a model trained on the preferred answers, with loss on the agent's tokens only."""
    artifact = training.run(context)
    report, entries = artifact.report, artifact.report["success_by_task_type"]
    shown = {
        "success_by_task_type": table(_success(kind, **entry) for kind, entry in entries.items()),
        "safety_criteria": ", ".join(report["safety_criteria"]) or "none: unsafe answers were learned from too",
    }
    in_short = f"hold-out loss {report['holdout_loss']:.3f}"
    if entries:
        n = sum(entry["n"] for entry in entries.values())
        solved = sum(entry["successes"] for entry in entries.values())
        in_short += f", solves {percent(solved / n)} of {n} hold-out tasks"
    if sample := report.get("sample"):
        shown[SAMPLE] = conversation(sample["messages"])
    return materialized(artifact, **numbers(report), in_short=in_short, **shown)


@dg.asset_check(asset="sft_checkpoint", metadata={"owner": "team:ml"})
def every_task_type_is_learned(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The baseline solves some hold-out tasks of every type: PPO cannot reinforce what is never sampled."""
    by_type = workspace.latest(context, "sft_checkpoint").report["success_by_task_type"]
    missed = [kind for kind, entry in by_type.items() if entry["successes"] < SUCCESS_FLOOR * entry["n"]]
    if missed:
        said = f"Solved in fewer than {100 * SUCCESS_FLOOR:.0f} % of the tasks: {', '.join(missed)}."
    elif by_type:
        said = f"All {len(by_type)} types of task are solved at least sometimes."
    else:
        said = "The data hold no conversation with tools, so there is no task to try."
    return dg.AssetCheckResult(
        passed=not missed,
        description=said,
        metadata={"success_by_task_type": table(_success(kind, **entry) for kind, entry in by_type.items())},
    )


def _success(kind: str, successes: int, n: int) -> dict[str, str | int]:
    return {"task_type": kind, "n": n, "success": with_interval(successes / n, wilson(successes, n))}
