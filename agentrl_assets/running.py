"""Brings assets up to date in this process, with the Dagster history that the UI shows."""

import os
import sys
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import dagster as dg

from agentrl_assets.definitions import defs
from agentrl_assets.plan import Plan, make_plan
from agentrl_assets.progress import ProgressReport
from agentrl_assets.reliability import outdated_weeks, partition_of, weeks_without_score
from agentrl_assets.traces_only import END, only_traces
from agentrl_resources.dagster_history import latest_build
from agentrl_resources.dagster_resources import Workspace, write_dagster_yaml
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import locked
from agentrl_resources.forkserver import warm_up

_OURS = {"agentrl/command": "run"}
_GATES = dg.AssetKey("gate_evidence")
_REWARD = dg.AssetKey(END)
_TRAFFIC = "agent_runs"
_UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@dataclass(frozen=True)
class RunReport:
    """What a run did. `built` and `held_back` are assets; `failures` are sentences; a gate's verdict is no failure."""

    plan: Plan
    built: list[str] = field(default_factory=list)
    held_back: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def dagster_instance(workspace: Workspace) -> Iterator[dg.DagsterInstance]:
    """Dagster's own history below the state folder, made when it is missing."""
    folder = write_dagster_yaml(workspace.root)
    os.environ["DAGSTER_HOME"] = str(folder)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


def bring_up_to_date(workspace: Workspace, selected: Collection[str], terminal: TextIO) -> RunReport:
    """Builds what is missing or out of date among the selected assets (by default all) and upstream of them.

    AgentRLError for an unknown asset, and while another run is busy in the same state folder.
    """
    with locked(workspace.root / "run.lock", wait_seconds=1), dagster_instance(workspace) as instance:
        _settle_dead_runs(instance)
        (workspace.root / "run.log").write_bytes(b"")
        report = RunReport(make_plan(defs, instance, workspace, selected))
        if _is_trained(report.plan):
            warm_up()
        else:
            terminal.write("Nothing to train: everything that is learned or sampled is up to date.\n")
        _announce(report.plan, workspace, terminal)
        _carry_out(report.plan, instance, workspace, report, terminal)
        # Traffic that the canary brought has changed what the first pass read of the warehouse.
        again = make_plan(defs, instance, workspace, selected)
        if report.built and not report.failures and _TRAFFIC in again.reasons:
            _carry_out(again, instance, workspace, report, terminal)
        if "weekly_reliability" in report.plan.wanted and (not selected or "reliability_score" in selected):
            _score_weeks(instance, workspace, report, terminal)
        report.held_back.extend(name for name in report.plan.reasons if name not in report.built)
        return report


def _carry_out(
    plan: Plan, instance: dg.DagsterInstance, workspace: Workspace, report: RunReport, terminal: TextIO
) -> None:
    if plan.reasons or plan.checks:
        assets = {dg.AssetKey(name) for name in plan.reasons}
        job = defs.resolve_implicit_global_asset_job_def()
        job = job.get_subset(asset_selection=assets, asset_check_selection=set(plan.checks))
        _execute(instance, workspace, job, report, terminal)


def _is_trained(plan: Plan) -> bool:
    """Whether something that is learned or sampled is planned."""
    assets = defs.resolve_asset_graph()
    return any("training" in (assets.get(dg.AssetKey(name)).pools or ()) for name in plan.reasons)


def _announce(plan: Plan, workspace: Workspace, terminal: TextIO) -> None:
    if plan.reasons:
        for part, said in getattr(workspace.workflow, "derived", {}).items():
            terminal.write(f"  {part} of the workflow, which it does not give itself: {said}\n")
        terminal.write(f"{len(plan.reasons)} of {len(plan.wanted)} assets are out of date:\n")
    for reason in dict.fromkeys(plan.reasons.values()):
        names = [name for name in plan.reasons if plan.reasons[name] == reason]
        terminal.write(f"  {reason}: {', '.join(names)}\n")
    terminal.flush()


def _score_weeks(instance: dg.DagsterInstance, workspace: Workspace, report: RunReport, terminal: TextIO) -> None:
    """The score of every week whose numbers are others than the stored ones: the latest, and the others with it."""
    if latest_build(instance, "weekly_reliability") is None:
        return
    for week, why in weeks_without_score(workspace).items():
        terminal.write(f"{week} has runs and no score: {why}\n")
    if not (outdated := outdated_weeks(instance, workspace)):
        return
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey("reliability_score")}, asset_check_selection=set()
    )
    _execute(instance, workspace, job, report, terminal, partition_of(outdated[-1]))


def _execute(
    instance: dg.DagsterInstance,
    workspace: Workspace,
    job: dg.JobDefinition,
    report: RunReport,
    terminal: TextIO,
    partition: str | None = None,
) -> None:
    run_id = str(uuid.uuid4())
    progress = ProgressReport(instance, run_id, workspace.progress_file, terminal, _purposes())
    with progress, _output_in(workspace.root / "run.log"):
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            partition_key=partition,
            run_id=run_id,
            # Only this command knows how to start its runs again, by being run again.
            tags={**_OURS, "dagster/max_retries": "0"},
        )
    # nothing learns from a reward model where nothing is played: what is said of it is a result
    results = (_GATES, _REWARD) if only_traces(workspace) else (_GATES,)
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            report.built.append(event.asset_key.to_user_string())
        elif said := _failure(event, results):
            report.failures.append(said)
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            with (workspace.root / "run.log").open("a") as log:
                log.write(f"{event.step_key}: {event.step_failure_data.error_display_string}\n")


def _purposes() -> dict[str, str]:
    """What the stages that take long are for: the first sentence of their description."""
    graph = defs.resolve_asset_graph()
    long = [key for key in graph.get_all_asset_keys() if "training" in (graph.get(key).pools or ())]
    return {key.to_user_string(): (graph.get(key).description or "").partition(".")[0] for key in long}


def _failure(event: dg.DagsterEvent, results: Collection[dg.AssetKey] = (_GATES,)) -> str | None:
    """One sentence for people; None for what is no failure, among it a gate that does not say GO: that is a result, as
    all checks of the assets in `results` are."""
    if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        stops = check.blocking and not check.passed and check.asset_key not in results
        return f"{check.asset_key.to_user_string()}: {check.check_name}: {check.description}" if stops else None
    if event.event_type != dg.DagsterEventType.STEP_FAILURE:
        return None
    data: Any = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return f"{event.step_key}: {data.user_failure_data.description}"
    error = data.error
    if error.cls_name == "DagsterExecutionInterruptedError":
        return f"{event.step_key}: interrupted. Run again: what is finished is kept."
    while error.cause is not None and error.cls_name != AgentRLError.__name__:  # what is said to people is enough
        error = error.cause
    if error.cls_name == "DagsterAssetCheckFailedError":
        return None
    message = error.message.strip()
    if error.cls_name == AgentRLError.__name__:
        message = message.partition(f"{error.cls_name}: ")[2]
    return f"{event.step_key}: {message}"


def _settle_dead_runs(instance: dg.DagsterInstance) -> None:
    """Ends runs of this command that were killed (the lock says that none is alive), and frees what runs still hold of
    pools after their end: otherwise the next step of the pool would wait for ever.
    """
    for run in instance.get_runs(dg.RunsFilter(tags=_OURS, statuses=_UNFINISHED)):
        instance.report_run_failed(run, "The process was killed.")
    storage = instance.event_log_storage
    for run_id in storage.get_concurrency_run_ids():
        holder = instance.get_run_by_id(run_id)
        if holder is None or holder.is_finished:
            storage.free_concurrency_slots_for_run(run_id)


@contextmanager
def _output_in(path: Path) -> Iterator[None]:
    """Sends what this process and its children write to stdout and stderr, which is a lot, to a file."""
    saved = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as log:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)
