"""The warehouse on real DuckDB files, with other real processes where another process matters."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from telemetry_samples import random_record, random_records, random_seed

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import COLUMNS, IngestReport, RejectedLine, Warehouse

TEN_NAMES = [
    "model_version",
    "reward_model_version",
    "policy_version",
    "tool_calls_count",
    "tool_error_count",
    "tokens_in",
    "tokens_out",
    "duration_ms",
    "human_override",
    "release_channel",
]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


def rows(warehouse: Warehouse, table: str = "agent_runs") -> list[dict]:
    return warehouse.query(f"SELECT * FROM {table} ORDER BY ALL")


def test_the_ten_fixed_names_come_first_and_every_field_survives_the_way_through(warehouse: Warehouse) -> None:
    record = random_record(random_seed(), success=True, policy_kl=-0.25, canary_percent=5.0)
    warehouse.ingest([record])
    assert list(COLUMNS)[:10] == TEN_NAMES
    (row,) = rows(warehouse)
    started_at = f"{row['started_at']:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert row | {"trace": json.loads(row["trace"]), "started_at": started_at} == dataclasses.asdict(record)


def test_ingest_in_any_order_and_any_batches_gives_the_same_rows(tmp_path: Path) -> None:
    rng = random_seed()
    records = random_records(rng, 60)
    whole, pieces = Warehouse(tmp_path / "whole.duckdb"), Warehouse(tmp_path / "pieces.duckdb")
    whole.ingest(records)
    shuffled = rng.sample(records, len(records)) + rng.sample(records, 10)
    while shuffled:
        size = rng.randrange(1, 20)
        pieces.ingest(shuffled[:size])
        shuffled = shuffled[size:]
    assert rows(whole) == rows(pieces)


def test_ingest_again_changes_nothing(warehouse: Warehouse) -> None:
    records = random_records(random_seed(), 30)
    assert warehouse.ingest(records) == IngestReport(inserted=30, updated=0, unchanged=0)
    before = rows(warehouse)
    assert warehouse.ingest(records * 2) == IngestReport(inserted=0, updated=0, unchanged=30)
    assert rows(warehouse) == before


def test_a_newer_report_corrects_a_run_its_week_too_and_an_older_one_that_comes_later_does_not(
    warehouse: Warehouse,
) -> None:
    record = random_record(random_seed(), started_at="2026-11-20T10:00:00+02:00", cost=1.0, tokens_in=7)
    newer = dataclasses.replace(
        record, started_at="2026-11-02T00:00:00Z", cost=2.0, tokens_in=None, reported_at="2026-11-21T00:00:00Z"
    )
    warehouse.ingest([record])
    assert warehouse.ingest([newer]) == IngestReport(inserted=0, updated=1, unchanged=0)
    assert warehouse.ingest([record]) == IngestReport(inserted=0, updated=0, unchanged=1)
    (row,) = rows(warehouse)
    assert (row["cost"], str(row["started_at"])) == (2.0, "2026-11-02 00:00:00")
    assert row["tokens_in"] == 7, "what the newer report does not say is still known"


@pytest.mark.parametrize("label_first", [True, False])
def test_a_late_label_finds_its_run_and_outlives_a_second_report(warehouse: Warehouse, label_first: bool) -> None:
    record = random_record(random_seed(), run_id="run-1", human_override=False, success=True)
    steps = [
        lambda: warehouse.ingest([record]),
        lambda: warehouse.label("run-1", human_override=True, labelled_at="2026-11-22T10:00:00Z"),
    ]
    for step in reversed(steps) if label_first else steps:
        step()
    warehouse.ingest([record])
    (row,) = rows(warehouse)
    assert (row["human_override"], row["success"]) == (True, True)


def test_of_several_labels_the_latest_counts_in_whatever_order_they_arrive(tmp_path: Path) -> None:
    rng = random_seed()
    record = random_record(rng, run_id="run-1")
    latest = rng.random() < 0.5
    labels = [
        # Two people who disagree at the same moment: an override and a success are believed.
        ("2026-11-20", True, False),
        ("2026-11-20", False, True),
        ("2026-11-21", not latest, None),
        ("2026-11-22", latest, None),
    ]
    for number in range(3):
        warehouse = Warehouse(tmp_path / f"{number}.duckdb")
        warehouse.ingest([record])
        for day, override, success in rng.sample(labels, len(labels)):
            warehouse.label("run-1", human_override=override, success=success, labelled_at=day)
        (row,) = rows(warehouse)
        assert (row["human_override"], row["success"]) == (latest, True)


def test_a_label_of_the_future_is_refused_since_it_would_count_for_ever(warehouse: Warehouse) -> None:
    with pytest.raises(AgentRLError, match=r"labelled_at is .* lies in the future"):
        warehouse.label("run-1", success=True, labelled_at="2099-01-01T00:00:00Z")


def test_a_late_label_is_charged_as_if_it_had_been_known_at_once(tmp_path: Path) -> None:
    rng = random_seed()
    states = list(itertools.product((True, False, None), repeat=2))

    def cost(override: bool | None, success: bool | None) -> float:
        return 0.25 + 2.5 * (override is True) + 5.0 * (success is False)

    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    expected = {}
    records = []
    for number, (reported, said) in enumerate(itertools.product(states, repeat=2)):
        run = f"run-{number}"
        records.append(
            random_record(
                rng, run_id=run, human_override=reported[0], success=reported[1], cost=cost(*reported),
                hand_over_price=2.5, failure_price=5.0,
            )
        )  # fmt: skip
        known = [now if now is not None else before for before, now in zip(reported, said, strict=True)]
        expected[run] = pytest.approx(cost(*known))
        warehouse.label(run, human_override=said[0], success=said[1], labelled_at="2026-11-22")
    warehouse.ingest(rng.sample(records, len(records)))
    assert {row["run_id"]: row["cost"] for row in rows(warehouse)} == expected
    unpriced = random_record(rng, cost=1.0, success=None)
    warehouse.ingest([unpriced])
    warehouse.label(unpriced.run_id, success=False, labelled_at="2026-11-22")
    assert {row["run_id"]: row["cost"] for row in rows(warehouse)} == expected | {unpriced.run_id: 1.0}


def test_personal_data_never_reaches_the_file(warehouse: Warehouse) -> None:
    address = "maria.keller@example.org"
    record = random_record(
        random_seed(),
        trace={
            "messages": [{"role": "user", "content": f"I am {address}, order 4711, 129.90 EUR, 30 days"}],
            "tool_calls": [{"name": "mail", "arguments": {"to": [address], address: 1}, "result": None, "error": None}],
        },
    )
    line = RejectedLine("traces.jsonl", 3, f"no messages for {address}", f'{{"user": "{address}"')
    report = warehouse.ingest([record], [line])
    assert report.redacted == {"email": 3}
    assert address.encode() not in b"".join(path.read_bytes() for path in warehouse.path.parent.iterdir())
    ((said,),) = [row.values() for row in warehouse.query("SELECT trace ->> '$.messages[0].content' FROM agent_runs")]
    assert "order 4711, 129.90 EUR, 30 days" in said


def test_rejected_lines_are_kept_once(warehouse: Warehouse) -> None:
    line = RejectedLine("traces.jsonl", 3, "not valid JSON", '{"traj": [')
    warehouse.ingest([], [line])
    warehouse.ingest([], [line, line])
    (row,) = rows(warehouse, "import_quarantine")
    assert row == line.redacted()
    assert (row["line"], row["reason"]) == (3, "not valid JSON")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"release_channel": "beta"}, "release_channel is 'beta'; it must be one of offline_eval, canary, general"),
        ({"tool_calls_count": 1, "tool_error_count": 2}, "tool_error_count is 2; it must be at most tool_calls_count"),
        ({"cost": float("nan")}, "cost is nan; it must be a finite number"),
        ({"duration_ms": -1.0}, "duration_ms is -1.0; it must be zero or more"),
        ({"quality": 1.5}, "quality is 1.5"),
        ({"canary_percent": 100.5}, "canary_percent is 100.5; it must be between 0 and 100"),
        ({"canary_percent": -1}, "canary_percent is -1; it must be zero or more"),
        ({"cost": 10**400}, "it must be a finite number"),
        ({"workflow": 7}, "workflow is 7; it must be text"),
        ({"success": 1}, "success is 1; it must be true or false"),
        ({"fallback": None}, "fallback is None; it must be true or false"),
        ({"trace": []}, "trace is []; it must be an object"),
        ({"tokens_in": 2**63}, "tokens_in"),
        ({"tokens_in": True}, "tokens_in is True"),
        ({"started_at": "yesterday"}, "'yesterday' is not an ISO 8601 time"),
    ],
)
def test_a_record_that_cannot_be_is_refused_by_name(values: dict, message: str) -> None:
    with pytest.raises(AgentRLError) as error:
        random_record(random_seed(), **values)
    assert message in str(error.value)


def test_stored_rows_replace_the_table_and_keep_their_types(warehouse: Warehouse) -> None:
    warehouse.store_rows(
        "quarantine",
        [{"row": 1, "data": {"a": [1]}, "score": 1, "reason": None}, {"row": 2, "score": 0.5, "reason": "tie"}],
    )
    assert warehouse.query("SELECT row, data ->> '$.a[0]' AS a, score, reason FROM quarantine ORDER BY row") == [
        {"row": 1, "a": "1", "score": 1.0, "reason": None},
        {"row": 2, "a": None, "score": 0.5, "reason": "tie"},
    ]
    assert warehouse.store_rows("quarantine", [], {"row": "BIGINT"}) == 0
    assert warehouse.query("SELECT row FROM quarantine") == []
    with pytest.raises(AgentRLError, match="columns"):
        warehouse.store_rows("quarantine", [])


def test_a_warehouse_of_an_earlier_version_gains_the_new_column_when_it_is_next_written(warehouse: Warehouse) -> None:
    import duckdb

    rng = random_seed()
    earlier = {name: kind for name, kind in COLUMNS.items() if name != "canary_percent"}
    with duckdb.connect(str(warehouse.path)) as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in earlier.items())
        connection.execute(f"CREATE TABLE reported_runs ({columns}, PRIMARY KEY (run_id))")
        connection.execute("CREATE VIEW agent_runs AS SELECT reported_runs.* FROM reported_runs")
        old = random_record(rng, canary_percent=None)
        values = [
            json.dumps(value) if name == "trace" else value for name, value in vars(old).items() if name in earlier
        ]
        connection.execute(f"INSERT INTO reported_runs VALUES ({', '.join('?' * len(values))})", values)
    (before,) = rows(warehouse)
    assert warehouse.spool_offsets() == {}
    new = random_record(rng, canary_percent=5.0)
    assert warehouse.ingest([new]) == IngestReport(inserted=1, updated=0, unchanged=0)
    after = {row["run_id"]: row for row in rows(warehouse)}
    assert list(after[new.run_id]) == list(COLUMNS)
    assert after[new.run_id]["canary_percent"] == 5.0
    assert after[old.run_id] == before | {"canary_percent": None}


def test_what_an_earlier_version_stored_is_known_already(warehouse: Warehouse) -> None:
    records = random_records(random_seed(), 5)
    warehouse.ingest(records)
    with warehouse.connect() as connection:
        connection.execute("DROP VIEW agent_runs; DROP TABLE run_reports;")
        connection.execute("ALTER TABLE reported_runs DROP start_known; ALTER TABLE reported_runs DROP reported_at;")
    assert warehouse.ingest(records) == IngestReport(inserted=0, updated=0, unchanged=5)


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the file open for writing."""
    script = f"import duckdb, time; c = duckdb.connect({str(path)!r}); print('held', flush=True); time.sleep({seconds})"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_file_that_another_process_holds_is_waited_for_and_then_refused_by_name(warehouse: Warehouse) -> None:
    records = random_records(random_seed(), 5)
    warehouse.ingest(records[:3])
    holder = hold(warehouse.path, 60)
    try:
        for attempt in (
            lambda: dataclasses.replace(warehouse, wait_seconds=0.5).ingest(records),
            lambda: warehouse.connect(read_only=True, wait_seconds=0.5).__enter__(),
        ):
            start = time.monotonic()
            with pytest.raises(AgentRLError) as error:
                attempt()
            assert 0.5 <= time.monotonic() - start < 30, "long before the other lets go"
            assert f"{warehouse.path} is held by process {holder.pid}" in str(error.value)
            assert "run the same command again" in str(error.value)
    finally:
        holder.kill()
        holder.wait()
    assert warehouse.ingest(records) == IngestReport(inserted=2, updated=0, unchanged=3)


def test_a_file_that_is_let_go_in_time_is_written(warehouse: Warehouse) -> None:
    holder = hold(warehouse.path, 0.5)
    assert warehouse.ingest(random_records(random_seed(), 2)).inserted == 2
    holder.wait()


def test_a_connection_of_this_process_in_another_mode_is_named(warehouse: Warehouse) -> None:
    with warehouse.connect(), pytest.raises(AgentRLError, match="held by this process"):
        warehouse.connect(read_only=True, wait_seconds=0).__enter__()


def test_a_killed_ingest_leaves_all_that_was_there_and_nothing_of_itself(warehouse: Warehouse) -> None:
    records = random_records(random_seed(), 3)
    warehouse.ingest(records)
    before = rows(warehouse)
    script = f"""
import dataclasses, os, signal
from pathlib import Path
from telemetry_samples import random_records, random_seed
from agentrl_resources.telemetry import Warehouse, importer
def die(self):
    os.kill(os.getpid(), signal.SIGKILL)
importer.RejectedLine.redacted = die  # inside the transaction, after the runs were merged
line = importer.RejectedLine("traces.jsonl", 1, "reason", "content")
Warehouse(Path({str(warehouse.path)!r})).ingest(random_records(random_seed(), 200), [line])
"""
    died = run_python(script)
    assert died.returncode == -signal.SIGKILL
    assert rows(warehouse) == before
    assert warehouse.ingest(random_records(random_seed(), 2)).inserted == 2


def test_a_disk_without_room_is_told_and_loses_nothing(warehouse: Warehouse) -> None:
    warehouse.ingest(random_records(random_seed(), 3))
    before = rows(warehouse)
    script = f"""
import resource, signal
from pathlib import Path
from telemetry_samples import random_records, random_seed
from agentrl_resources.telemetry import Warehouse
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
Warehouse(Path({str(warehouse.path)!r})).ingest(random_records(random_seed(), 2000))
"""
    failed = run_python(script)
    last = failed.stderr.strip().splitlines()[-1]
    assert failed.returncode == 1
    assert last.startswith(f"agentrl_resources.errors.AgentRLError: {warehouse.path}")
    assert rows(warehouse) == before


def test_a_file_that_is_no_duckdb_file_is_refused_and_left_alone(warehouse: Warehouse) -> None:
    warehouse.path.write_text("not a database " * 1000)
    before = warehouse.path.read_bytes()
    with pytest.raises(AgentRLError, match="not a valid DuckDB database"):
        warehouse.ingest([])
    assert warehouse.path.read_bytes() == before


def test_reading_a_warehouse_that_is_not_there_does_not_make_one(warehouse: Warehouse) -> None:
    with pytest.raises(AgentRLError, match="there is no warehouse yet"):
        warehouse.query("SELECT 1")
    assert not warehouse.path.exists()


def test_counts_add_up_however_runs_arrive(warehouse: Warehouse) -> None:
    rng = random_seed()
    records = random_records(rng, 40)
    changed = [
        dataclasses.replace(record, cost=(record.cost or 0) + 1, reported_at="2026-11-20")
        for record in rng.sample(records, 15)
    ]
    total: Counter[str] = Counter()
    for batch in (records[:25], records, changed):
        report = warehouse.ingest(batch)
        assert report.inserted + report.updated + report.unchanged == len(batch)
        total.update({"inserted": report.inserted, "updated": report.updated})
    assert total == {"inserted": 40, "updated": 15}


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import sys, agentrl_resources.telemetry, agentrl_resources.evaluation; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"duckdb", "pandas", "scipy", "sqlglot", "torch", "dagster", "numpy"} & set(loaded)
