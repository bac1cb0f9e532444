"""Unknown is never zero: where nothing says whether a call failed, there is no tool error rate and no score."""

import dataclasses
import json
import re
from pathlib import Path

import brief_evidence
import duckdb
import pytest
from telemetry_samples import SQL_FOLDER, random_records, random_seed
from trace_dialects import DIALECTS, NAME

from agentrl_assets.reliability import week_report
from agentrl_assets.summary import summary
from agentrl_assets.telemetry import hand_over_tools
from agentrl_resources.brief import collect
from agentrl_resources.canary.sessions import CanaryRun, gather
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import (
    RunRecord,
    Warehouse,
    build_models,
    import_traces,
    load_models,
    weekly_score,
)


def imported(tmp_path: Path, rows: list[dict], **options: object) -> list[RunRecord]:
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    found = import_traces(path, "desk", **options)  # type: ignore[arg-type]
    assert found.rejected == []
    return found.records


def built(tmp_path: Path, records: list[RunRecord]) -> Warehouse:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.ingest(records)
    with warehouse.connect() as connection:
        build_models(connection, load_models(SQL_FOLDER))
    return warehouse


def test_a_record_says_unknown_and_no_call_is_no_error() -> None:
    known = {"run_id": "r", "workflow": "w", "task_id": "t", "started_at": "2026-11-17", "release_channel": "general"}
    assert RunRecord(**known).tool_error_count == 0
    assert RunRecord(**known, tool_calls_count=2).tool_error_count is None
    assert RunRecord(**known, tool_calls_count=2, tool_error_count=0).tool_error_count == 0
    with pytest.raises(AgentRLError, match="at most tool_calls_count"):
        RunRecord(**known, tool_calls_count=2, tool_error_count=3)


def test_a_week_with_an_unknown_run_has_no_rate_and_the_others_keep_theirs(tmp_path: Path) -> None:
    rng = random_seed()
    records = random_records(rng, 120)
    (tmp_path / "known").mkdir()
    (tmp_path / "unknown").mkdir()
    before = built(tmp_path / "known", records)
    counted = "SELECT * FROM stg_counted_runs WHERE success IS NOT NULL ORDER BY run_id"
    with_calls = [row["run_id"] for row in before.query(counted) if row["tool_calls_count"]]
    hidden = set(rng.sample(with_calls, 2))
    after = built(
        tmp_path / "unknown",
        [dataclasses.replace(one, tool_error_count=None) if one.run_id in hidden else one for one in records],
    )
    counted_rows = after.query(counted)
    assert [row["run_id"] for row in counted_rows] == [row["run_id"] for row in before.query(counted)]
    weeks = {(row["workflow"], row["iso_week"]) for row in counted_rows}
    for week in sorted(weeks):
        runs = [row["run_id"] for row in counted_rows if (row["workflow"], row["iso_week"]) == week]
        share = len(hidden & set(runs)) / len(runs)
        with before.connect(read_only=True) as one, after.connect(read_only=True) as other:
            known, now = weekly_score(one, *week), weekly_score(other, *week)
        assert now.tool_error_unknown == pytest.approx(share)
        if share:
            wanted = {"tool_error": None, "reliability_score": None, "interval": None, "tool_error_unknown": share}
            assert now == dataclasses.replace(known, **wanted)
        else:
            assert now == known
    metrics = "SELECT value FROM weekly_metrics WHERE metric = 'tool_error_rate' AND workflow = ? AND iso_week = ?"
    with after.connect(read_only=True) as connection:
        for week in sorted(weeks):
            assert after.query(metrics, week) == [{"value": weekly_score(connection, *week).tool_error}]


def test_calls_of_each_tool_are_ok_failed_or_unknown(tmp_path: Path) -> None:
    outcomes = ("ok", "error", "unknown")
    rows = [DIALECTS["anthropic"](one) | {"run_id": one, "success": True, "started_at": 1763805600} for one in outcomes]
    warehouse = built(tmp_path, imported(tmp_path, rows))
    assert warehouse.query("SELECT run_id, status FROM stg_tool_calls ORDER BY run_id") == [
        {"run_id": one, "status": one} for one in sorted(outcomes)
    ]
    (row,) = warehouse.query("SELECT tool, calls, errors, unknown, error_rate FROM weekly_tool_errors")
    assert row == {"tool": NAME, "calls": 3, "errors": 1, "unknown": 1, "error_rate": None}
    assert warehouse.query("SELECT tool_error_count AS n FROM agent_runs ORDER BY run_id") == [
        {"n": 1}, {"n": 0}, {"n": None}
    ]  # fmt: skip


def test_a_warehouse_of_an_earlier_version_takes_what_is_unknown(tmp_path: Path) -> None:
    (known,) = random_records(random_seed(), 1)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.ingest([known])
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("ALTER TABLE reported_runs ALTER tool_error_count SET NOT NULL")
        connection.execute("COMMENT ON VIEW agent_runs IS 'an earlier one'")
    unknown = dataclasses.replace(known, run_id="unknown", tool_calls_count=1, tool_error_count=None)
    assert warehouse.ingest([unknown]).inserted == 1
    assert len(warehouse.query("SELECT run_id FROM agent_runs")) == 2


def test_the_command_says_unknown_and_of_how_many(here, tmp_path: Path) -> None:
    rows = [DIALECTS["openai_text"](one) | {"success": True, "started_at": "2026-11-17"} for one in ("ok", "unknown")]
    traces = tmp_path / "traces.jsonl"
    traces.write_text("\n".join(map(json.dumps, rows)))
    assert here("import", str(traces), "--workflow", "desk").returncode == 0
    score = json.loads(here("score", "--workflow", "desk", "--json").stdout)
    assert (score["tool_calls"], score["tool_error_unknown"]) == (2, 0.5)
    assert score["tool_error"] is score["reliability_score"] is score["interval"] is None
    said = here("score", "--workflow", "desk").stdout
    assert "tool_error: unknown" in said
    assert "reliability_score: unknown" in said


def test_a_report_and_the_screen_of_a_run_say_unknown(workspace, instance) -> None:
    for week, unknown in (("2026-11-10", False), ("2026-11-17", True)):
        records = random_records(random_seed(), 6, workflow="order_desk", started_at=week, success=True,
                                 release_channel="general", arm=None, suite=None, simulated=False)  # fmt: skip
        if unknown:
            records = [dataclasses.replace(one, tool_calls_count=1, tool_error_count=None) for one in records]
        workspace.warehouse.ingest(records)
    with workspace.warehouse.connect() as connection:
        build_models(connection, load_models(SQL_FOLDER))
    report = week_report(workspace, "2026-W47")
    assert report["score"]["reliability_score"] is None
    assert report["changed"]["tool_error"] is report["changed"]["reliability_score"] is None
    assert report["changed"]["success"] == 0
    screen = summary(instance, workspace)
    assert re.search(r"RELIABILITY SCORE 2026-W47: unknown, traffic", screen)
    assert "(1 - tool error unknown of 100.0 % of the runs), n = 6" in screen


def test_a_brief_says_that_the_latest_week_has_no_score(tmp_path: Path) -> None:
    records = brief_evidence.records(simulated=True)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    brief_evidence.warehouse(warehouse.path, records)
    latest = brief_evidence.traffic(52, "release", 20, 0.9)
    warehouse.ingest(dataclasses.replace(record, tool_error_count=None) for record in latest)
    brief_evidence.build(warehouse)
    brief_evidence.store(warehouse, records)
    brief = collect(warehouse, brief_evidence.RELEASE)
    (paragraph,) = brief.annex["score"].items
    assert [sentence.key for sentence in paragraph.sentences] == ["score.unknown"]
    assert brief.figures["score.iso_week"].value.endswith("-W52")
    assert brief.tiles["score"].value.key == "cell.none"


def test_an_unknown_run_says_nothing_of_tool_errors_in_a_canary() -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 11, 17, tzinfo=UTC)
    runs = [
        CanaryRun(session="a", canary=True, started_at=at, tool_calls=2, tool_errors=None),
        CanaryRun(session="a", canary=True, started_at=at, tool_calls=2, tool_errors=1),
        CanaryRun(session="b", canary=True, started_at=at, tool_calls=2, tool_errors=None),
    ]
    values = gather(runs).values["tool_error"].tolist()
    assert values[0] == 0.5
    assert values[1] != values[1]  # NaN


# --- hand-overs -------------------------------------------------------------------------------------------------------

OWN_WORKFLOW = """\
from agentrl_resources.workflow.order_desk import OrderDeskWorkflow

class Desk(OrderDeskWorkflow):
    name = "desk"
    hand_over_tools = frozenset({"escalate_to_agent"})
"""


def escalation(outcome: str, tool: str = "escalate_to_agent") -> dict:
    return json.loads(json.dumps(DIALECTS["openai_text"](outcome)).replace(NAME, tool))


def test_a_workflow_names_its_own_hand_over_tools(tmp_path: Path) -> None:
    own = frozenset({"escalate_to_agent"})
    rows = [escalation("ok"), escalation("error"), escalation("unknown"), escalation("ok", "hand_over")]
    overridden = [record.human_override for record in imported(tmp_path, rows, hand_over_tools=own)]
    assert [bool(one) for one in overridden] == [True, False, True, False]
    assert [bool(record.human_override) for record in imported(tmp_path, rows)] == [False, False, False, True]


def test_the_command_takes_them_from_the_workflow_that_is_named(here, tmp_path: Path) -> None:
    (tmp_path / "own_desk.py").write_text(OWN_WORKFLOW)
    traces = tmp_path / "traces.jsonl"
    traces.write_text(json.dumps(escalation("ok") | {"success": True}))
    for name, overrides in (("elsewhere", 0), ("own_desk:Desk", 1)):
        done = here("import", str(traces), "--workflow", name)
        assert done.returncode == 0
        assert ("is no workflow of this project" in done.stderr) is (overrides == 0)
        score = json.loads(here("score", "--workflow", name, "--json").stdout)
        assert score["human_override"] == overrides


def test_a_workflow_is_found_by_its_name_or_its_place(workspace, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own_desk.py").write_text(OWN_WORKFLOW)
    monkeypatch.syspath_prepend(tmp_path)
    assert hand_over_tools(workspace, "order_desk") == {"hand_over"}
    assert hand_over_tools(workspace, "own_desk:Desk") == {"escalate_to_agent"}
    assert hand_over_tools(workspace, "airline") is None
    assert hand_over_tools(workspace, "nowhere:Desk") is None
    for target, name, wanted in (
        ("own_desk:Desk", "desk", {"escalate_to_agent"}),
        ("own_desk:Desk", "airline", None),
        ("nowhere:Desk", "airline", None),
        ("nowhere:Desk", "order_desk", {"hand_over"}),
    ):
        file = tmp_path / f"{target.replace(':', '_')}.yaml"
        file.write_text(Path(workspace.workflow_file).read_text().replace("order_desk", target, 1))
        assert hand_over_tools(Workspace(home=workspace.home, workflow_file=str(file)), name) == wanted
