"""Whether RL is worth it here: PPO beside what can be had without it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import materialized, table, with_interval
from agentrl_resources.dagster_resources import Training


@dg.asset(
    group_name="evaluation",
    owners=["team:product"],
    kinds={"json"},
    deps=["eval_suite", "sft_checkpoint", "reward_model", "offline_eval_suite", "rubric"],
    code_version=code_version(
        stage_code("rl_alternatives"),
        "alternatives",
        "evaluation.temperature",
        "evaluation.concurrency",
        "engine.kind",
        "seed",
        workflow=True,
    ),
    pool="training",
)
def rl_alternatives(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """Cost per success of PPO, SFT alone, the best of several samples, and other instructions, on the same tasks."""
    artifact = training.run(context)
    report = artifact.report
    return materialized(
        artifact,
        in_short=f"RL is {report['answer']}: {report['reason']}",
        alternatives=table(map(row, report["alternatives"])),
    )


def row(one: Mapping[str, Any]) -> dict[str, Any]:
    """One alternative for people."""
    ratio, interval = one["ratio"], one["interval"]
    return {
        "way": one["name"],
        "success": with_interval(one["success_rate"], one["success_interval"]),
        "cost_per_success": "no success" if one["cost_per_success"] is None else f"{one['cost_per_success']:.4f} EUR",
        "ppo_costs": "" if ratio is None else f"{ratio:.2f} times as much ({interval[0]:.2f} to {interval[1]:.2f})",
    }
