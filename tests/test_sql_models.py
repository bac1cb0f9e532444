"""The SQL models: built on real DuckDB files from random runs, compared with plain Python; and how they are parsed."""

import subprocess
import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from telemetry_samples import SQL_FOLDER, random_record, random_records, random_seed

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import (
    METRICS,
    ColumnSource,
    RunRecord,
    Warehouse,
    build_models,
    check_model,
    load_models,
    weekly_score,
)
from agentrl_resources.telemetry.score import TaskTotals, score_interval

MODELS = load_models(SQL_FOLDER)


def built(tmp_path: Path, records: list[RunRecord]) -> Warehouse:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.ingest(records)
    with warehouse.connect() as connection:
        build_models(connection, MODELS)
    return warehouse


def columns_of(warehouse: Warehouse, table: str) -> list[tuple[str, str]]:
    return [(row["column_name"], row["column_type"]) for row in warehouse.query(f"DESCRIBE {table}")]


def iso_week(record: RunRecord) -> str:
    year, week, _ = datetime.fromisoformat(record.started_at).isocalendar()
    return f"{year}-W{week:02}"


def by_task(runs: list[RunRecord]) -> list[TaskTotals]:
    tasks = defaultdict(list)
    for run in runs:
        tasks[run.task_id].append(run)
    return [
        TaskTotals(
            runs=len(task),
            successes=sum(run.success is True for run in task),
            overrides=sum(run.human_override is True for run in task),
            calls=sum(run.tool_calls_count for run in task),
            errors=sum(run.tool_error_count for run in task),
        )
        for task in tasks.values()
    ]


def counted(records: list[RunRecord]) -> dict[tuple[str, str], tuple[str, list[RunRecord]]]:
    """The rules in words of Python: by workflow and week, the basis and the runs that count."""
    weeks = defaultdict(list)
    for record in records:
        weeks[record.workflow, iso_week(record)].append(record)
    chosen = {}
    for week, runs in weeks.items():
        traffic = [run for run in runs if run.release_channel != "offline_eval"]
        offline = [run for run in runs if (run.arm, run.suite, run.temperature) == ("candidate", "capability", 0.7)]
        if traffic:
            chosen[week] = "traffic", [run for run in traffic if not run.simulated] or traffic
        elif offline:
            latest = max(offline, key=lambda run: (run.started_at, run.policy_version or "unknown")).policy_version
            chosen[week] = "offline_eval", [run for run in offline if run.policy_version == latest]
    return chosen


def test_the_score_is_what_plain_python_computes(tmp_path: Path) -> None:
    rng = random_seed()
    # Weeks with traffic, and a workflow that has none.
    records = random_records(rng, 150)
    others = random_records(rng, 150, workflow="offline_only")
    records += [record for record in others if record.release_channel == "offline_eval"]
    warehouse = built(tmp_path, records)
    mart = {(row["workflow"], row["iso_week"]): row for row in warehouse.query("SELECT * FROM weekly_reliability")}
    expected = counted(records)
    assert mart.keys() == expected.keys()
    assert {"offline_eval", "traffic"} == {basis for basis, _ in expected.values()}
    for key, (basis, runs) in expected.items():
        row = mart[key]
        labelled = [run for run in runs if run.success is not None]
        n, calls = len(labelled), sum(run.tool_calls_count for run in labelled)
        assert (row["basis"], row["n"], row["unlabelled"]) == (basis, n, len(runs) - n)
        assert row["simulated"] == any(run.simulated for run in runs)
        if n == 0:
            assert row["reliability_score"] is None
            continue
        success = sum(run.success is True for run in labelled) / n
        override = sum(run.human_override is True for run in labelled) / n
        error = sum(run.tool_error_count for run in labelled) / calls if calls else 0.0
        score = success * (1 - override) * (1 - error)
        assert row["reliability_score"] == pytest.approx(score, abs=1e-12)
        costs = [run.cost for run in labelled]
        if success and None not in costs:
            assert row["cost_per_success"] == pytest.approx(sum(cost or 0 for cost in costs) / (success * n))
        else:
            assert row["cost_per_success"] is None
        with warehouse.connect(read_only=True) as connection:
            weekly = weekly_score(connection, *key)
        assert (weekly.success, weekly.human_override, weekly.tool_error) == pytest.approx((success, override, error))
        assert weekly.reliability_score == pytest.approx(score)
        assert weekly.interval == pytest.approx(score_interval(by_task(labelled)))


def test_no_run_and_no_count_is_lost_between_the_tables(tmp_path: Path) -> None:
    records = random_records(random_seed(), 200)
    warehouse = built(tmp_path, records)
    sums = "count(*) AS runs, sum(tool_calls_count) AS calls, sum(tool_error_count) AS errors"
    tables = ("agent_runs", "stg_runs", "stg_counted_runs")
    totals = {table: warehouse.query(f"SELECT {sums} FROM {table}") for table in tables}
    calls = sum(record.tool_calls_count for record in records)
    errors = sum(record.tool_error_count for record in records)
    assert totals["agent_runs"] == totals["stg_runs"] == [{"runs": 200, "calls": calls, "errors": errors}]
    assert warehouse.query("SELECT count(*) AS calls, count(error) AS errors FROM stg_tool_calls") == [
        {"calls": calls, "errors": errors}
    ]
    mart = warehouse.query("SELECT sum(n + unlabelled) AS runs FROM weekly_reliability")
    assert mart == [{"runs": totals["stg_counted_runs"][0]["runs"]}]
    by_tool = warehouse.query("SELECT sum(calls) AS calls, sum(errors) AS errors FROM weekly_tool_errors")
    by_week = warehouse.query("SELECT sum(tool_calls) AS calls, sum(tool_errors) AS errors FROM weekly_reliability")
    assert by_tool == by_week
    production = [
        record
        for record in records
        if record.success is not None
        and (record.release_channel != "offline_eval" or (record.suite == "capability" and record.temperature == 0.7))
    ]
    assert warehouse.query("SELECT sum(n) AS n, sum(successes) AS successes FROM cost_per_success") == [
        {"n": len(production), "successes": sum(bool(record.success) for record in production)}
    ]
    arms = [record for record in records if record.arm and record.success is not None]
    assert warehouse.query("SELECT sum(n) AS n, sum(safety_violations) AS violations FROM arm_comparison") == [
        {"n": len(arms), "violations": sum(record.safety_violation is True for record in arms)}
    ]


def test_tables_do_not_depend_on_the_order_of_ingest(tmp_path: Path) -> None:
    rng = random_seed()
    records = random_records(rng, 120)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = built(tmp_path / "a", records), built(tmp_path / "b", rng.sample(records, len(records)))
    for model in MODELS:
        # Sums of floats depend on their order in the last bits.
        columns = ", ".join(
            f"round({column}, 9)" if kind == "DOUBLE" else column for column, kind in columns_of(first, model.name)
        )
        query = f"SELECT {columns} FROM {model.name} ORDER BY ALL"
        assert first.query(query) == second.query(query)


def test_every_model_passes_its_own_tests(tmp_path: Path) -> None:
    warehouse = built(tmp_path, random_records(random_seed(), 200))
    with warehouse.connect(read_only=True) as connection:
        checks = [check for model in MODELS for check in check_model(connection, model)]
    assert [check for check in checks if not check.passed] == []
    assert len(checks) >= 2 * len(MODELS)


def test_a_broken_table_fails_its_tests_with_the_number_of_rows(tmp_path: Path) -> None:
    warehouse = built(tmp_path, random_records(random_seed(), 20))
    (model,) = [model for model in MODELS if model.name == "stg_runs"]
    with warehouse.connect() as connection:
        connection.execute("UPDATE stg_runs SET iso_week = NULL, release_channel = 'beta'")
        connection.execute("INSERT INTO stg_runs SELECT * FROM stg_runs LIMIT 3")
        failures = {check.rule: check.failures for check in check_model(connection, model) if not check.passed}
    assert failures == {
        "grain (run_id)": 3,
        "iso_week not null": 23,
        "release_channel in ('offline_eval', 'canary', 'general')": 23,
    }


def test_the_metrics_of_the_mart_are_those_that_workflow_yaml_may_name(tmp_path: Path) -> None:
    warehouse = built(tmp_path, random_records(random_seed(), 100))
    rows = warehouse.query("SELECT DISTINCT metric FROM weekly_metrics")
    assert {row["metric"] for row in rows} == set(METRICS)


def test_each_file_runs_as_it_stands_in_a_plain_duckdb_process(tmp_path: Path) -> None:
    warehouse = built(tmp_path, random_records(random_seed(), 50))
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n" + "\n".join(
        f"print(len(c.execute(open({str(model.path)!r}).read()).fetchall()))" for model in MODELS
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(warehouse.path)], capture_output=True, text=True, check=True
    )
    built_rows = [warehouse.query(f"SELECT count(*) AS n FROM {model.name}")[0]["n"] for model in MODELS]
    assert [int(row) for row in done.stdout.split()] == built_rows


def test_the_columns_that_were_parsed_are_those_that_duckdb_builds(tmp_path: Path) -> None:
    warehouse = built(tmp_path, random_records(random_seed(), 10))
    for model in MODELS:
        assert list(model.columns) == [column for column, _ in columns_of(warehouse, model.name)]


def test_dependencies_and_lineage() -> None:
    models = {model.name: model for model in MODELS}
    order = list(models)
    for model in MODELS:
        assert all(table not in models or order.index(table) < order.index(model.name) for table in model.depends_on)
        assert {source.table for sources in model.columns.values() for source in sources} <= set(model.depends_on)
    assert models["weekly_reliability"].depends_on == ("stg_counted_runs",)
    assert models["weekly_metrics"].depends_on == ("stg_counted_runs", "stg_runs", "weekly_reliability")
    assert models["stg_runs"].columns["iso_week"] == (ColumnSource("agent_runs", "started_at"),)
    assert models["weekly_reliability"].columns["tool_error_rate"] == (
        ColumnSource("stg_counted_runs", "success"),
        ColumnSource("stg_counted_runs", "tool_calls_count"),
        ColumnSource("stg_counted_runs", "tool_error_count"),
    )
    assert {model.name: model.layer for model in MODELS}["weekly_metrics"] == "marts"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "select run_id from agent_run"}, "reads an unknown table 'agent_run'; did you mean 'agent_runs'?"),
        ({"a": "select run_id from agent_runs; select 1"}, "must hold one SELECT"),
        ({"a": "drop table agent_runs"}, "must hold one SELECT"),
        ({"a": "select run_id frm ((agent_runs"}, "cannot be read as SQL"),
        ({"a": "select x.run_idd as run_id from (select run_id from agent_runs) as x"}, "run_idd"),
        ({"a": "select run_id from b", "b": "select run_id from a"}, "read each other in a circle"),
        ({"a": "select task_id from agent_runs"}, "a has no column 'run_id'"),
        ({}, "do not agree on a"),
        ({"a": "select run_id from agent_runs", "c": "select 1 as run_id"}, "do not agree on c"),
    ],
)
def test_a_folder_that_cannot_be_built_is_refused_by_name(tmp_path: Path, files: dict[str, str], message: str) -> None:
    (tmp_path / "marts").mkdir()
    for name, sql in files.items():
        (tmp_path / "marts" / f"{name}.sql").write_text(sql)
    entries = "".join(f"  - {{name: {name}, description: d, grain: [run_id]}}\n" for name in {"a", *files} - {"c"})
    (tmp_path / "models.yml").write_text(f"models:\n{entries}")
    with pytest.raises(AgentRLError) as error:
        load_models(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_failing_build_leaves_the_tables_of_the_last_one(tmp_path: Path) -> None:
    warehouse = built(tmp_path, random_records(random_seed(), 20))
    before = warehouse.query("SELECT * FROM stg_runs ORDER BY ALL")
    warehouse.ingest(random_records(random_seed(), 5))
    broken = tmp_path / "broken.sql"
    broken.write_text("select * from stg_runs where error('no')")
    (model,) = [model for model in MODELS if model.name == "weekly_reliability"]
    failing = [*MODELS[:-1], type(model)(**(model.__dict__ | {"sql": broken.read_text()}))]
    with pytest.raises(AgentRLError), warehouse.connect() as connection:
        build_models(connection, failing)
    assert warehouse.query("SELECT * FROM stg_runs ORDER BY ALL") == before


def test_real_traffic_is_never_mixed_with_simulated(tmp_path: Path) -> None:
    common = {"workflow": "desk", "release_channel": "canary", "started_at": "2026-11-20T10:00:00Z", "arm": None}
    real = [random_record(random_seed(), **common, simulated=False, success=False) for _ in range(2)]
    simulated = [random_record(random_seed(), **common, simulated=True, success=True) for _ in range(9)]
    (row,) = built(tmp_path, real + simulated).query("SELECT n, success_rate, simulated FROM weekly_reliability")
    assert row == {"n": 2, "success_rate": 0.0, "simulated": False}


def test_scores_that_cannot_be_given_say_why(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    common = {"workflow": "desk", "release_channel": "general", "arm": None, "suite": None, "temperature": None}
    waiting = random_record(random_seed(), **common, started_at="2026-11-20T10:00:00Z", success=None)
    done = random_record(random_seed(), **common, started_at="2026-11-10T10:00:00Z", success=True)
    warehouse.ingest([waiting])
    with warehouse.connect() as connection:
        with pytest.raises(AgentRLError, match="not built yet"):
            weekly_score(connection, "desk")
        build_models(connection, MODELS)
        with pytest.raises(AgentRLError, match="no run with an outcome, 1 without"):
            weekly_score(connection, "desk")
    warehouse.ingest([done])
    with warehouse.connect() as connection:
        build_models(connection, MODELS)
        assert weekly_score(connection, "desk").iso_week == "2026-W46"
        with pytest.raises(AgentRLError, match=r"no score for week 2026-W47\. Weeks that have: 2026-W46"):
            weekly_score(connection, "desk", "2026-W47")


def test_duckdb_and_python_agree_on_iso_weeks() -> None:
    rng = random_seed()
    connection = duckdb.connect()
    for _ in range(300):
        record = random_record(
            rng,
            started_at=f"{rng.randrange(1990, 2060)}-{rng.choice(['01', '12'])}-{rng.randrange(1, 32):02}T23:59:59Z",
        )
        ((week,),) = connection.execute("SELECT strftime(?::TIMESTAMP, '%G-W%V')", [record.started_at]).fetchall()
        assert week == iso_week(record)
