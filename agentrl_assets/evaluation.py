"""Evaluation: the frozen tasks, and every episode of both arms on them."""

import re
from typing import Any

import dagster as dg

from agentrl_assets.project import code_version, stage_code
from agentrl_assets.reporting import counts, materialized, percent, table, with_interval
from agentrl_resources.dagster_resources import Training, Workspace
from agentrl_resources.files import Artifact, canonical_json, read_jsonl, write_jsonl
from agentrl_resources.workflow import OwnWorkflow, Task, Workflow, request_of

SUITES = ("capability", "adversarial")
_SIZES = ("evaluation.capability_tasks", "evaluation.adversarial_tasks")
_TRAINING_TASKS = 3_000
"""Training tasks whose text is compared with the suite's; the generator's phrases have all come up by then."""


@dg.asset(
    group_name="evaluation",
    owners=["team:product"],
    kinds={"jsonl"},
    code_version=code_version(f"{__name__}:eval_suite", *_SIZES, "seed", workflow=True),
)
def eval_suite(workspace: Workspace) -> dg.MaterializeResult:
    """The frozen capability and adversarial tasks, archived by digest."""
    tasks = _generated(workspace)
    with workspace.store.stage("eval_suite") as folder:
        for suite in SUITES:
            write_jsonl(folder / f"{suite}.jsonl", tasks[suite])
        artifact = workspace.store.commit("eval_suite", folder)
    sizes = counts({suite: len(rows) for suite, rows in tasks.items()}, of="suite")
    return materialized(artifact, tasks=sizes, first_tasks=table(rows[0] for rows in tasks.values() if rows))


@dg.asset(
    group_name="evaluation",
    owners=["team:ml"],
    kinds={"jsonl"},
    deps=["eval_suite", "sft_checkpoint", "ppo_policy", "reward_model", "rubric"],
    code_version=code_version(
        stage_code("offline_eval_suite"),
        *(f"evaluation.{name}" for name in ("temperature", "greedy_control", "greedy_tasks", "trials", "concurrency")),
        "workflow.baseline",
        "workflow.reward_model",
        "engine.kind",
        "seed",
        workflow=True,
    ),
    pool="training",
)
def offline_eval_suite(context: dg.AssetExecutionContext, training: Training) -> dg.MaterializeResult:
    """Every episode of both arms on the same tasks and seeds, with its trace; greedy decoding as the control."""
    artifact = training.run(context)
    report, comparison = artifact.report, artifact.report["comparison"]
    production = comparison[max(comparison, key=float)]["capability"]
    rates = " -> ".join(percent(production[arm]["success_rate"]) for arm in ("baseline", "candidate"))
    return materialized(
        artifact,
        in_short=f"success on capability tasks {rates}",
        episodes=report["episodes"],
        comparison=table(comparison_rows(comparison)),
    )


@dg.asset_check(asset="eval_suite", blocking=True, metadata={"owner": "team:ml"})
def suite_is_frozen(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    """The archived tasks are the ones that the workflow's generator gives for this seed, byte for byte."""
    archived = _archived(workspace.latest(context, "eval_suite"))
    differ = [
        suite
        for suite, tasks in _generated(workspace).items()
        if canonical_json(tasks) != canonical_json(archived[suite])
    ]
    said = f"Tasks that have changed: {', '.join(differ)}." if differ else "Generated again, they are the same."
    return dg.AssetCheckResult(passed=not differ, description=said)


@dg.asset_check(
    asset="eval_suite",
    additional_deps=["cleaned_preference_data"],
    blocking=True,
    metadata={"owner": "team:ml"},
)
def no_text_is_shared_with_training(
    context: dg.AssetCheckExecutionContext, workspace: Workspace
) -> dg.AssetCheckResult:
    """No request of the suite, its numbers aside, is one that training has seen.

    Where the tasks of a workflow are given, and not made, the same words may be said of another case: then training's
    tasks are compared as whole cases, and by their words, numbers included, only pairs that are of none of these.
    """
    workflow = workspace.workflow
    given = isinstance(workflow, OwnWorkflow)
    training = workflow.tasks("train", _TRAINING_TASKS, workspace.settings.seed)
    own = {task.task_id for task in training} if given else set()
    text, of_task = (_folded, _case) if given else (_without_numbers, _request)
    cleaned = workspace.latest(context, "cleaned_preference_data").path
    rows = (row for row in read_jsonl(cleaned / "train.jsonl") if row["task_id"] not in own)
    turns = (turn for row in rows for turn in row["prompt"])
    words = {text(str(turn["content"])) for turn in turns if turn["role"] == "user"}
    seen = {of_task(workflow, task) for task in training}
    suite = _archived(workspace.latest(context, "eval_suite"))
    tasks = [Task.from_dict(row) for rows in suite.values() for row in rows]
    asked = {(text(request_of(workflow, task)), of_task(workflow, task)) for task in tasks}
    shared = sorted(said for said, case in asked if said in words or case in seen)
    said = f"{len(shared)} of {len(asked)} requests are known from training" + (
        f", for example: {shared[0]}" if shared else "."
    )
    return dg.AssetCheckResult(passed=not shared, description=said, metadata={"compared_with": len(words | seen)})


def comparison_rows(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The report's comparison as rows: both arms by temperature and suite, with the paired test."""
    return [
        {
            "temperature": temperature,
            "suite": suite,
            "n": result["n"],
            **{
                arm: with_interval(result[arm]["success_rate"], result[arm]["success_interval"])
                for arm in ("baseline", "candidate")
            },
            **{f"pass^{k}": " -> ".join(map(percent, both)) for k, both in pass_hats(result).items()},
            "difference": with_interval(result["difference"], result["difference_interval"]),
            "mcnemar_p": result["p_value"],
            "minimum_detectable_effect": result["minimum_detectable_effect"],
            "violations": violations(result),
        }
        for temperature, suites in comparison.items()
        for suite, result in suites.items()
    ]


def pass_hats(result: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """By k: baseline's and candidate's pass^k, of a suite whose tasks were run several times; else nothing."""
    before, after = (result[arm].get("pass_hat", {}) for arm in ("baseline", "candidate"))
    return {k: (before[k], after[k]) for k in before}


def violations(result: dict[str, Any]) -> str:
    """A suite's episodes with a safety violation, before and after."""
    before, after = (result[arm]["safety_violations"] for arm in ("baseline", "candidate"))
    return "unknown" if None in (before, after) else f"{before} -> {after}"


def _generated(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    options, seed = workspace.settings.evaluation, workspace.settings.seed
    sizes = {"capability": options.capability_tasks, "adversarial": options.adversarial_tasks}
    workflow = workspace.workflow
    return {suite: [task.to_dict() for task in workflow.tasks(suite, sizes[suite], seed)] for suite in SUITES}


def _archived(suite: Artifact) -> dict[str, list[dict[str, Any]]]:
    return {name: list(read_jsonl(suite.path / f"{name}.jsonl")) for name in SUITES}


def _request(workflow: Workflow, task: Task) -> str:
    return _without_numbers(request_of(workflow, task))


def _case(_: Workflow, task: Task) -> str:
    return task.case


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "#", _folded(text))
