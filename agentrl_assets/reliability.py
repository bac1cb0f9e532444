"""The weekly reliability score: success_rate * (1 - human_override_rate) * (1 - tool_error_rate), and what moved it."""

import tempfile
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from agentrl_assets.project import code_version
from agentrl_assets.reporting import materialized, picture, table
from agentrl_resources.dagster_history import CODE_VERSION, DATA_VERSION, latest_build
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.files import canonical_json, digest_bytes, digest_of_files, write_atomic
from agentrl_resources.telemetry import EARLIEST, weekly_score

WEEKS = dg.WeeklyPartitionsDefinition(
    start_date=EARLIEST.date().isoformat(), day_offset=1, timezone="UTC", end_offset=1
)
"""Weeks from Monday, named by their Monday; the present week is among them. No imported run is older than the first."""

FACTORS = ("success", "human_override", "tool_error")

_SHOWN_WEEKS = 52


@dg.asset(
    group_name="reliability",
    owners=["team:product"],
    kinds={"duckdb"},
    deps=["weekly_reliability", "weekly_metrics", "stg_counted_runs"],
    partitions_def=WEEKS,
    code_version=code_version(f"{__name__}:reliability_score", "monitoring", "workflow.target"),
    pool="warehouse",
)
def reliability_score(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
    """The week's score with its interval, its three factors, the monitoring metrics, and what has changed.

    Labels and runs come late: every other week whose numbers are no longer those of its score is scored along with it.
    """
    trend = _trend(workspace)
    own = iso_week(context.partition_key)
    for week in outdated_weeks(context.instance, workspace):
        if week != own:
            late = _scored(workspace, week, trend)
            assert late.data_version is not None
            versions = {DATA_VERSION: late.data_version.value, CODE_VERSION: _code_version()}
            context.log_event(
                dg.AssetMaterialization(
                    "reliability_score", partition=partition_of(week), metadata=late.metadata, tags=versions
                )
            )
    for week, why in weeks_without_score(workspace).items():
        context.log.warning(f"{week} has runs and no score: {why}")
    return _scored(workspace, own, trend)


def _scored(workspace: Workspace, week: str, trend: dg.MetadataValue) -> dg.MaterializeResult:
    report = week_report(workspace, week)
    with workspace.store.stage("reliability_score") as folder:
        write_atomic(folder / "score.json", canonical_json(report))
        artifact = workspace.store.commit("reliability_score", folder)
    score = report["score"]
    shown = (
        "iso_week",
        "basis",
        "simulated",
        "n",
        "unlabelled",
        "tool_calls",
        "reliability_score",
        *FACTORS,
        "tool_error_unknown",
    )
    return materialized(
        artifact,
        **{name: "unknown" if score[name] is None else score[name] for name in shown},
        interval=" to ".join(f"{end:.4f}" for end in score["interval"] or ()) or "unknown",
        metrics=table(report["metrics"]),
        changed=table({"factor": name, "change": change} for name, change in report["changed"].items()),
        trend=trend,
    )


def _code_version() -> str:
    version = reliability_score.code_versions_by_key[reliability_score.key]
    assert version is not None
    return version


def iso_week(partition_key: str) -> str:
    """The ISO week, such as 2026-W47, of the partition that is named by its Monday."""
    return date.fromisoformat(partition_key).strftime("%G-W%V")


def partition_of(week: str) -> str:
    """The partition of an ISO week: its Monday."""
    return date.fromisoformat(f"{week}-1").isoformat()


def week_report(workspace: Workspace, week: str) -> dict[str, Any]:
    """The score of a week of the target workflow, its metrics, and the change of each factor since the week before."""
    name, weeks = workspace.workflow.name, _weeks(workspace)
    before = (date.fromisoformat(f"{week}-1") - timedelta(days=7)).strftime("%G-W%V")
    with workspace.warehouse.connect(read_only=True) as connection:
        score = asdict(weekly_score(connection, name, week))
        earlier = asdict(weekly_score(connection, name, before)) if before in weeks else None
    metrics = [row for row in _metrics(workspace) if row.pop("iso_week") == week]
    names = ("reliability_score", *FACTORS)
    return {
        "score": score,
        "metrics": metrics,
        "changed": {factor: _change(score[factor], earlier[factor]) for factor in names} if earlier else {},
    }


def _change(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value - before


def outdated_weeks(instance: dg.DagsterInstance, workspace: Workspace) -> list[str]:
    """Weeks of the target workflow whose score was never stored, or is another one by now, in order.

    Weeks without a partition are not among them: see `weeks_without_score`.
    """
    weeks, without = _weeks(workspace), weeks_without_score(workspace)
    outdated = []
    for week in weeks:
        if week in without:
            continue
        report = canonical_json(week_report(workspace, week))
        built = latest_build(instance, "reliability_score", partition_of(week))
        version = digest_of_files({"score.json": digest_bytes(report)})
        if built is None or built.code_version != _code_version() or built.data_version != version:
            outdated.append(week)
    return outdated


def weeks_without_score(workspace: Workspace) -> dict[str, str]:
    """Weeks of the target workflow that have runs and cannot be scored, each with the reason."""
    first, last = (iso_week(key) for key in (WEEKS.get_first_partition_key(), WEEKS.get_last_partition_key()) if key)
    without = {}
    for week in _weeks(workspace):
        if not first <= week <= last:
            without[week] = f"it is before {first}, the first week" if week < first else "it has not begun yet"
    return without


def _weeks(workspace: Workspace) -> list[str]:
    """Weeks of the target workflow in which the outcome of a run is known."""
    rows = workspace.warehouse.query(
        "SELECT iso_week FROM weekly_reliability WHERE workflow = ? AND n > 0 ORDER BY iso_week",
        [workspace.workflow.name],
    )
    return [row["iso_week"] for row in rows]


def _metrics(workspace: Workspace) -> list[dict[str, Any]]:
    """The metrics that the workflow file names, by week."""
    rows = workspace.warehouse.query(
        "SELECT iso_week, metric, value, n FROM weekly_metrics WHERE workflow = ? ORDER BY iso_week, metric",
        [workspace.workflow.name],
    )
    return [row for row in rows if row["metric"] in workspace.settings.monitoring]


def _trend(workspace: Workspace) -> dg.MetadataValue:
    from agentrl_resources import plotting

    name, monitored = workspace.workflow.name, workspace.settings.monitoring
    shown = [week for week in _weeks(workspace) if week not in weeks_without_score(workspace)][-_SHOWN_WEEKS:]
    with workspace.warehouse.connect(read_only=True) as connection:
        scores = [weekly_score(connection, name, week) for week in shown]
    weeks = [score.iso_week for score in scores]
    values = {(row["iso_week"], row["metric"]): row["value"] for row in _metrics(workspace)}
    unknown = float("nan")  # a gap in the line
    points = [unknown if score.reliability_score is None else score.reliability_score for score in scores]
    ends = [score.interval or (unknown, unknown) for score in scores]
    lows = [point - low for point, (low, _) in zip(points, ends, strict=True)]
    highs = [high - point for point, (_, high) in zip(points, ends, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trend.png"
        with plotting.picture(path, columns=1 + len(monitored), width=3.4) as axes:
            panels = list(axes) if monitored else [axes]
            panels[0].errorbar(weeks, points, yerr=[lows, highs], fmt="o-", capsize=3, color=plotting.CANDIDATE)
            panels[0].set(title="reliability_score", ylim=(0, 1))
            for panel, metric in zip(panels[1:], monitored, strict=True):
                panel.plot(weeks, [values.get((week, metric)) for week in weeks], "o-", color=plotting.BASELINE)
                panel.set(title=metric)
                panel.set_ylim(bottom=0)
            for panel in panels:
                panel.tick_params(axis="x", rotation=45)
        return picture(path)
