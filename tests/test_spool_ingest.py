"""From spool to warehouse: nothing lost, nothing twice, whatever dies or is cut off."""

import json
import os
import random
import runpy
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from spools import AT, line_of, open_segment, some_lines
from telemetry_samples import random_record, random_records, random_seed

from agentrl_resources.telemetry import SpoolReport, Warehouse, missing_runs, prune, read_new, segment_sizes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


def content(warehouse: Warehouse) -> list[list[dict]]:
    tables = ("agent_runs", "run_labels", "gateway_events", "import_quarantine")
    return [warehouse.query(f"SELECT * FROM {table} ORDER BY ALL") for table in tables]


def ids(warehouse: Warehouse) -> list[str]:
    return [row["run_id"] for row in warehouse.query("SELECT run_id FROM agent_runs ORDER BY run_id")]


def test_half_a_line_waits_for_its_rest_while_its_writer_lives(folder: Path, warehouse: Warehouse) -> None:
    rng = random_seed()
    first, second = random_records(rng, 2)
    whole = line_of(second)
    cut = rng.randrange(1, len(whole))
    descriptor = open_segment(folder)
    os.write(descriptor, line_of(first) + whole[:cut])
    assert warehouse.ingest_spool(folder) == SpoolReport(inserted=1)
    assert warehouse.ingest_spool(folder) == SpoolReport()
    os.write(descriptor, whole[cut:])
    assert warehouse.ingest_spool(folder) == SpoolReport(inserted=1)
    assert ids(warehouse) == sorted([first.run_id, second.run_id])
    os.close(descriptor)


def test_half_a_line_whose_writer_was_killed_is_counted_once_and_kept_in_quarantine(
    folder: Path, warehouse: Warehouse
) -> None:
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from telemetry_samples import random_record, random_seed
from agentrl_resources.telemetry import Spool
real, spool = os.write, Spool(Path({str(folder)!r}))
spool.append_run(random_record(random_seed(), run_id="whole"))
def write(descriptor, data):
    real(descriptor, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = write
spool.append_run(random_record(random_seed(), run_id="half"))
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True).returncode == -9
    assert warehouse.ingest_spool(folder) == SpoolReport(inserted=1, rejected=1, torn=1)
    assert warehouse.ingest_spool(folder) == SpoolReport()
    assert ids(warehouse) == ["whole"]
    (row,) = warehouse.query("SELECT source, line, reason FROM import_quarantine")
    assert (row["source"], row["line"]) == (next(iter(segment_sizes(folder))), 2)
    assert "half a line" in row["reason"]


GARBAGE = [
    b"",
    b"\0" * 40,
    b"\xff\xfe",
    b"\r",
    b"[1]",
    b"17",
    b'{"kind": "run"}',
    b'{"kind": "run", "record": []}',
    b'{"kind": "run", "record": {"run_id": "a"}}',
    b'{"kind": "other", "at": "2026-11-22"}',
    b'{"kind": "label", "run_id": "a", "labelled_at": "2026-11-22"}',
    b'{"kind": "label", "run_id": "a", "labelled_at": "soon", "success": true}',
    b'{"kind": "label", "run_id": "a", "labelled_at": "2099-01-01", "success": true}',
    b'{"kind": "label", "run_id": "a", "labelled_at": "2026-11-22", "success": "yes"}',
    b'{"kind": "event", "event": "a", "at": "never"}',
    b'{"kind": "event", "event": "a", "at": "2026-11-22", "x": NaN}',
    b'{"kind": "event", "event": "a", "at": "2026-11-22", "x": "\\ud800"}',
    b"[" * 100_000,
]


def spoilt(rng: random.Random) -> bytes:
    """A line that is no run: known garbage, a run of wrong types, or a run that has lost or changed some bytes."""
    line = {"kind": "run", "record": vars(random_record(rng))}
    match rng.randrange(3):
        case 0:
            return rng.choice(GARBAGE)
        case 1:
            field = rng.choice(["run_id", "workflow", "started_at", "release_channel", "fallback", "cost", "trace"])
            line["record"] |= {field: rng.choice([[1], 10**400, {"a": None}] if field != "trace" else [[1], None, "x"])}
            return json.dumps(line).encode()
        case _:
            data = json.dumps(line).encode()
            cut = rng.randrange(len(data))
            return data[:cut]


def test_whatever_stands_in_a_line_costs_that_line_only(folder: Path, warehouse: Warehouse) -> None:
    rng = random_seed()
    folder.mkdir()
    good, bad = [], []
    for name in ("a.jsonl", "b.jsonl"):
        lines = []
        for number in range(1, 80):
            if rng.random() < 0.5:
                started_at = rng.choice(["0001-01-01", "9999-12-31T23:59:59", AT])
                trace = {"n": 10**30, "": {"text": ["\0 \u2028", {}, None]}}
                good.append(random_record(rng, trace=trace, started_at=started_at))
                lines.append(line_of(good[-1]))
            else:
                bad.append((name, number))
                lines.append(spoilt(rng) + b"\n")
        descriptor = open_segment(folder, name)
        for part in (lines[:30], lines[30:]):
            os.write(descriptor, b"".join(part))
            warehouse.ingest_spool(folder)
        os.close(descriptor)
    assert ids(warehouse) == sorted(record.run_id for record in good)
    quarantine = warehouse.query("SELECT source, line FROM import_quarantine ORDER BY ALL")
    assert [(row["source"], row["line"]) for row in quarantine] == bad
    assert missing_runs(folder, segment_sizes(folder), set(ids(warehouse))) == set()
    lost = rng.choice(good).run_id
    assert missing_runs(folder, segment_sizes(folder), set(ids(warehouse)) - {lost}) == {lost}


def test_segments_in_any_order_and_lines_in_any_pieces_give_the_same_tables(folder: Path, tmp_path: Path) -> None:
    rng = random_seed()
    lines = some_lines(rng, 40)
    segments = {f"{number}.jsonl": lines[number::5] for number in range(5)}
    results = []
    for attempt in range(3):
        spool, warehouse = tmp_path / f"spool-{attempt}", Warehouse(tmp_path / f"{attempt}.duckdb")
        held = {name: open_segment(spool, name) for name in rng.sample(sorted(segments), 5)}
        waiting = {name: b"".join(part) for name, part in segments.items()}
        before: dict[str, int] = {}
        while waiting:
            name = rng.choice(sorted(waiting))
            size = rng.randrange(1, 8_000)  # also in the middle of a line
            os.write(held[name], waiting[name][:size])
            waiting[name] = waiting[name][size:]
            if not waiting[name]:
                del waiting[name]
            warehouse.ingest_spool(spool)
            offsets = warehouse.spool_offsets()
            assert all(offsets[name] >= size for name, size in before.items())
            before = offsets
        assert before == segment_sizes(spool)
        for descriptor in held.values():
            os.close(descriptor)
        results.append(content(warehouse))
    assert results[0] == results[1] == results[2]
    assert [len(table) for table in results[0]] == [40, 80, 40, 0]
    assert all(row["success"] for row in results[0][0])


def test_reading_everything_again_changes_nothing(folder: Path, warehouse: Warehouse) -> None:
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"".join([*some_lines(random_seed(), 20), b"garbage\n"]))
    assert warehouse.ingest_spool(folder) == SpoolReport(inserted=20, labels=40, events=20, rejected=1)
    before = content(warehouse)
    with warehouse.connect() as connection:
        connection.execute("DELETE FROM spool_offsets")
    assert warehouse.ingest_spool(folder) == SpoolReport(unchanged=20, labels=40, events=20, rejected=1)
    assert content(warehouse) == before


def test_a_large_spool_is_taken_in_pieces(folder: Path) -> None:
    folder.mkdir()
    lines = some_lines(random_seed(), 30)
    (folder / "a.jsonl").write_bytes(b"".join(lines[:50]))
    (folder / "b.jsonl").write_bytes(b"".join(lines[50:]))
    offsets: dict[str, int] = {}
    read = Counter()
    pieces = 0
    while (found := read_new(folder, offsets, max_bytes=3_000)).offsets != offsets:
        offsets, pieces = found.offsets, pieces + 1
        read.update(runs=len(found.runs), labels=len(found.labels), events=len(found.events))
    assert read == {"runs": 30, "labels": 60, "events": 30}
    assert pieces > 5


@pytest.mark.parametrize("step", range(1, 5))
def test_an_ingest_that_dies_between_two_tables_has_stored_nothing(
    folder: Path, warehouse: Warehouse, step: int
) -> None:
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"".join(some_lines(random_seed(), 10)))
    warehouse.ingest([])
    script = f"""
import os, signal
from pathlib import Path
from agentrl_resources.telemetry import Warehouse, warehouse
insert, remaining = warehouse._insert, {step}
def insert_and_die(*arguments):
    global remaining
    insert(*arguments)
    remaining -= 1
    if remaining == 0:
        os.kill(os.getpid(), signal.SIGKILL)
warehouse._insert = insert_and_die
Warehouse(Path({str(warehouse.path)!r})).ingest_spool(Path({str(folder)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == -9
    assert (content(warehouse), warehouse.spool_offsets()) == ([[], [], [], []], {})
    assert warehouse.ingest_spool(folder) == SpoolReport(inserted=10, labels=20, events=10)


def test_writers_and_ingest_killed_at_random_moments_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    rng = random_seed()
    crashes = runpy.run_path(str(ROOT / "benchmarks" / "crashes.py"))
    rows = crashes["spool_and_ingest"](tmp_path, 4, rng)
    assert [(row.lost, row.doubled) for row in rows] == [(0, 0)] * 3
    assert sum(row.accepted for row in rows[:2]) > 0


def test_what_ingest_has_left_behind_is_all_that_pruning_may_take(folder: Path, warehouse: Warehouse) -> None:
    folder.mkdir()
    lines = some_lines(random_seed(), 5)
    (folder / "a.jsonl").write_bytes(b"".join(lines[:8]))
    warehouse.ingest_spool(folder)
    (folder / "b.jsonl").write_bytes(b"".join(lines[8:]))
    assert prune(folder, warehouse.spool_offsets(), timedelta(seconds=-1)) == ["a.jsonl"]
    warehouse.ingest_spool(folder)
    assert len(ids(warehouse)) == 5
