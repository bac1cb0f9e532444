"""Runs, marts and the weekly score as assets."""

import io
import os
import time
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from agentrl_assets import automation, running
from agentrl_assets.automation import weekly_reliability_schedule
from agentrl_assets.definitions import defs
from agentrl_assets.plan import Plan
from agentrl_assets.reliability import outdated_weeks, partition_of, reliability_score, weeks_without_score
from agentrl_assets.telemetry import MODELS, agent_runs, no_run_is_lost, sql_checks, sql_models
from agentrl_resources.dagster_history import latest_build
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.telemetry import RunRecord, Spool, SpoolReport, Warehouse

MARTS = [agent_runs, *sql_models]


def run_of(number: int, week_day: str = "2026-11-18", **other) -> RunRecord:
    return RunRecord(
        run_id=f"{week_day}-{number}",
        workflow="order_desk",
        task_id=f"task-{number}",
        started_at=f"{week_day}T12:00:00Z",
        release_channel="general",
        tool_calls_count=4,
        tool_error_count=int(number == 0),
        **{"success": number % 2 == 0, "human_override": False, "quality": 0.5, **other},
    )


def spool(workspace: Workspace, records: list[RunRecord]) -> None:
    """A segment of their own, as a gateway that was started and stopped leaves it."""
    spool = Spool(workspace.spool)
    for record in records:
        spool.append_run(record)
    spool.close()


def build(assets: list, workspace: Workspace, instance: dg.DagsterInstance, **other) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, instance=instance, resources={"workspace": workspace}, **other)


def test_spooled_runs_become_a_weekly_score_and_a_late_one_makes_its_week_outdated(workspace, instance):
    spool(workspace, [run_of(number) for number in range(10)])
    assert build([*MARTS, no_run_is_lost, *sql_checks], workspace, instance).success
    assert outdated_weeks(instance, workspace) == ["2026-W47"]
    assert build(
        [*MARTS, reliability_score], workspace, instance, selection=[reliability_score], partition_key="2026-11-16"
    ).success
    built = latest_build(instance, "reliability_score", "2026-11-16")
    assert built.metadata["reliability_score"] == pytest.approx(0.5 * (1 - 1 / 40))
    assert str(built.metadata["trend"]).startswith("![trend](data:image/png;base64,")
    assert outdated_weeks(instance, workspace) == []

    spool(workspace, [run_of(10), run_of(1, "2026-11-25")])
    assert build(MARTS, workspace, instance).success
    assert outdated_weeks(instance, workspace) == ["2026-W47", "2026-W48"]


def test_the_same_runs_again_are_the_same_data_versions(workspace, instance):
    versions = []
    for _ in range(2):
        spool(workspace, [run_of(number) for number in range(5)])
        assert build(MARTS, workspace, instance).success
        names = ["agent_runs", *(model.name for model in MODELS)]
        versions.append([latest_build(instance, asset).data_version for asset in names])
    assert versions[0] == versions[1]
    spool(workspace, [run_of(5)])
    assert build(MARTS, workspace, instance).success
    assert latest_build(instance, "stg_runs").data_version != versions[0][1]


def test_an_import_beside_dagster_is_noticed(workspace, instance):
    assert build([agent_runs], workspace, instance).success
    noticed = str(latest_build(instance, "agent_runs").metadata["source_digest"])
    assert workspace.source_digest("agent_runs") == noticed
    workspace.warehouse.ingest([run_of(1)])
    assert workspace.source_digest("agent_runs") != noticed


def source_of(instance: dg.DagsterInstance) -> str:
    return str(latest_build(instance, "agent_runs").metadata["source_digest"])


def test_the_spool_is_a_source_that_changes_when_it_grows_and_only_then(workspace, instance):
    spool(workspace, [run_of(1)])
    assert build([agent_runs], workspace, instance).success
    assert workspace.source_digest("agent_runs") == source_of(instance)
    label = {"run_id": run_of(1).run_id, "labelled_at": "2026-11-20", "human_override": True}
    gateway = Spool(workspace.spool)
    gateway.append("label", label)
    assert workspace.source_digest("agent_runs") != source_of(instance)
    assert build([agent_runs], workspace, instance).success
    assert workspace.source_digest("agent_runs") == source_of(instance)
    gateway.append("label", label)
    gateway.close()
    assert workspace.source_digest("agent_runs") != source_of(instance)


def test_what_arrives_while_runs_are_read_is_still_new_afterwards(workspace, instance, monkeypatch):
    late = Spool(workspace.spool)
    read = Warehouse.ingest_spool

    def and_then_another_arrives(warehouse: Warehouse, folder: Path) -> SpoolReport:
        report = read(warehouse, folder)
        late.append_run(run_of(2))
        return report

    monkeypatch.setattr(Warehouse, "ingest_spool", and_then_another_arrives)
    assert build([agent_runs, no_run_is_lost], workspace, instance).success
    assert workspace.source_digest("agent_runs") != source_of(instance)
    late.close()


def test_read_segments_are_deleted_after_a_month_and_unread_ones_never(workspace, instance):
    spool(workspace, [run_of(1)])
    spool(workspace, [run_of(2)])
    first, second = sorted(workspace.spool.iterdir())
    old = time.time() - 31 * 86_400
    os.utime(first, (old, old))
    assert build([agent_runs, no_run_is_lost], workspace, instance).success
    assert list(workspace.spool.iterdir()) == [second]
    assert latest_build(instance, "agent_runs").metadata["segments_deleted"] == 1
    assert build([agent_runs, no_run_is_lost], workspace, instance).success
    assert len(workspace.warehouse.query("SELECT run_id FROM agent_runs")) == 2


def test_a_run_that_is_missing_in_the_warehouse_is_noticed(workspace, instance):
    spool(workspace, [run_of(number) for number in range(3)])
    assert build([agent_runs], workspace, instance).success
    with workspace.warehouse.connect() as connection:
        connection.execute("DELETE FROM reported_runs WHERE run_id = ?", [run_of(1).run_id])
    project = dg.Definitions([agent_runs], asset_checks=[no_run_is_lost], resources={"workspace": workspace})
    job = project.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=no_run_is_lost.check_keys)
    assert not job.execute_in_process(instance=instance, raise_on_error=False).success


def test_each_sql_file_is_an_asset_with_its_dependencies_and_column_lineage():
    graph = defs.resolve_asset_graph()
    for model in MODELS:
        node = graph.get(dg.AssetKey(model.name))
        assert {parent.to_user_string() for parent in node.parent_keys} == set(model.depends_on)
        lineage = node.metadata["dagster/column_lineage"].deps_by_column
        assert lineage.keys() == model.columns.keys()
    score = graph.get(dg.AssetKey("weekly_reliability")).metadata["dagster/column_lineage"].deps_by_column
    assert dg.TableColumnDep(dg.AssetKey("stg_counted_runs"), "success") in score["reliability_score"]


def label(workspace: Workspace, run_id: str, at: str, **said: bool) -> None:
    late = Spool(workspace.spool)
    late.append("label", {"run_id": run_id, "labelled_at": at, **said})
    late.close()


def scheduled(workspace: Workspace, instance: dg.DagsterInstance, monday: str) -> dg.ExecuteInProcessResult:
    """What the weekly schedule asks for on a Monday, carried out."""
    at = datetime.fromisoformat(f"{monday}T06:00:00+00:00")
    request = weekly_reliability_schedule(dg.build_schedule_context(scheduled_execution_time=at))
    project = dg.Definitions(
        [*MARTS, reliability_score], jobs=[automation.reliability], resources={"workspace": workspace}
    )
    job = project.resolve_job_def(request.job_name or "reliability")
    return job.execute_in_process(instance=instance, partition_key=request.partition_key, raise_on_error=False)


def score_of(instance: dg.DagsterInstance, week: str) -> float | None:
    built = latest_build(instance, "reliability_score", partition_of(week))
    return None if built is None else float(built.metadata["success"])


def test_the_weekly_run_scores_every_week_that_a_late_label_has_changed(workspace, instance):
    days, weeks = ("2026-10-21", "2026-11-04", "2026-11-18"), ("2026-W43", "2026-W45", "2026-W47")
    spool(workspace, [run_of(number, day, success=None) for day in days for number in (1, 2)])
    for day in days:
        label(workspace, f"{day}-1", "2026-11-19", success=True)
    assert scheduled(workspace, instance, "2026-11-23").success
    assert [score_of(instance, week) for week in weeks] == [1.0, 1.0, 1.0]
    before = {week: latest_build(instance, "reliability_score", partition_of(week)).event for week in weeks}

    label(workspace, "2026-11-04-2", "2026-11-24", success=False)
    spool(workspace, [run_of(1, "2026-11-24")])
    assert scheduled(workspace, instance, "2026-11-30").success
    assert [score_of(instance, week) for week in (*weeks, "2026-W48")] == [1.0, 0.5, 1.0, 0.0]
    after = {week: latest_build(instance, "reliability_score", partition_of(week)).event for week in weeks}
    assert [week for week in weeks if after[week] != before[week]] == ["2026-W45"]
    assert outdated_weeks(instance, workspace) == []


def test_a_week_without_runs_of_its_own_does_not_keep_late_labels_from_theirs(workspace, instance):
    spool(workspace, [run_of(1, "2026-11-02")])
    assert not scheduled(workspace, instance, "2026-11-23").success, "the week before that Monday has no score"
    assert score_of(instance, "2026-W45") == 0.0


def test_weeks_that_cannot_be_scored_are_told_and_cost_the_others_nothing(workspace, instance, monkeypatch):
    project = dg.Definitions([*MARTS, reliability_score], resources={"workspace": workspace})
    monkeypatch.setattr(running, "defs", project)
    days = ("0001-01-01", "2014-12-30", "2015-01-05", "2023-10-04", "2026-11-18", "2098-12-31", "9999-12-31")
    spool(workspace, [run_of(0, day) for day in days])
    assert build(MARTS, workspace, instance).success
    assert outdated_weeks(instance, workspace) == ["2015-W02", "2023-W40", "2026-W47"]
    without = weeks_without_score(workspace)
    assert list(without) == ["0001-W01", "2015-W01", "2099-W01", "9999-W52"]
    report, terminal = running.RunReport(Plan([], {}, [])), io.StringIO()
    running._score_weeks(instance, workspace, report, terminal)
    assert report.failures == []
    assert all(week in terminal.getvalue() for week in without)
    assert [score_of(instance, week) for week in ("2015-W02", "2023-W40", "2026-W47")] == [1.0, 1.0, 1.0]
    assert outdated_weeks(instance, workspace) == []
