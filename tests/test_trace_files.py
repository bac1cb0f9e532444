"""Files of traces: the same rows out of every kind, and a clear word about the kinds that are not read."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import import_traces
from agentrl_resources.telemetry.trace_files import read_rows

MESSAGES = [{"role": "user", "content": 'so, "where" is\nit?'}, {"role": "assistant", "content": "hello"}]
ROWS: list[dict[str, Any]] = [
    {"run_id": "a", "started_at": "2026-11-17T09:00:00Z", "success": True, "cost": 0.25, "messages": MESSAGES},
    {"run_id": "b", "started_at": "2026-11-18T09:00:00Z", "success": None, "cost": None, "messages": MESSAGES},
    {"run_id": "c", "started_at": "2026-11-19T09:00:00Z", "success": False, "cost": 2, "messages": MESSAGES[:1]},
]


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({**row, "messages": json.dumps(row["messages"])} for row in rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), data)
    return data.getvalue()


FILES = {
    "lines.jsonl": as_lines(ROWS),
    "named_otherwise.txt": as_lines(ROWS),
    "marked_windows.jsonl": b"\xef\xbb\xbf" + as_lines(ROWS).replace(b"\n", b"\r\n"),
    "blank_lines.jsonl": b"\n" + as_lines(ROWS).replace(b"\n", b"\n\n \n"),
    "no_last_newline.jsonl": as_lines(ROWS).rstrip(),
    "packed.jsonl.gz": gzip.compress(as_lines(ROWS)),
    "packed_in_two.jsonl.gz": gzip.compress(as_lines(ROWS[:1])) + gzip.compress(as_lines(ROWS[1:])),
    "packed_and_not_named_so.jsonl": gzip.compress(as_lines(ROWS)),
    "array.json": json.dumps(ROWS).encode(),
    "array_in_lines.json": json.dumps(ROWS, indent=2).encode(),
    "array_packed.json.gz": gzip.compress(json.dumps(ROWS, indent=1).encode()),
    "table.csv": as_csv(ROWS),
    "table_marked.csv": b"\xef\xbb\xbf" + as_csv(ROWS),
    "table.tsv": as_csv(ROWS, "\t"),
    "table.csv.gz": gzip.compress(as_csv(ROWS)),
    "table.parquet": as_parquet(ROWS),
    "messages_as_text.parquet": as_parquet([{**row, "messages": json.dumps(row["messages"])} for row in ROWS]),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    found = import_traces(tmp_path / name, "desk")
    assert found.rejected == []
    expected = [
        ("a", True, 0.25, "2026-11-17T09:00:00.000000Z", MESSAGES),
        ("b", None, None, "2026-11-18T09:00:00.000000Z", MESSAGES),
        ("c", False, 2.0, "2026-11-19T09:00:00.000000Z", MESSAGES[:1]),
    ]
    records = found.records
    assert [(one.run_id, one.success, one.cost, one.started_at, one.trace["messages"]) for one in records] == expected


def test_a_table_keeps_its_kinds_of_times_and_numbers(tmp_path: Path) -> None:
    times = pa.array([datetime(2026, 11, 17, 9, tzinfo=UTC), None], pa.timestamp("ns", "UTC"))
    columns = {
        "started_at": times,
        "timestamp": pa.array([None, 1763370000000], pa.int64()),
        "success": pa.array([1.0, float("nan")]),
        "reward": pa.array([None, 0.5]),
        "cost": pa.array([Decimal("0.25"), None], pa.decimal128(9, 2)),
        "tokens_in": pa.array([12.0, None]),
        "messages": pa.array([MESSAGES, MESSAGES]),
    }
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    found = import_traces(tmp_path / "table.parquet", "desk")
    assert found.rejected == []
    assert [(one.started_at, one.success, one.cost, one.tokens_in) for one in found.records] == [
        ("2026-11-17T09:00:00.000000Z", True, 0.25, 12),
        ("2025-11-17T09:00:00.000000Z", False, None, None),
    ]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("[]".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04rest", "Excel"),
        (b"BZh9rest", "bzip2"),
        (b"\x28\xb5\x2f\xfdrest", "Zstandard"),
        (b"PAR1 and no more", "not a whole Parquet file"),
        (b"\x1f\x8b and no more", "not a whole gzip file"),
        (b"", "is empty"),
    ],
)
def test_a_file_of_another_kind_is_one_clear_message(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(data)
    with pytest.raises(AgentRLError, match=what) as error:
        import_traces(path, "desk")
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "bad",
    ['{"a": NaN}', '{"a": ' + "[" * 5_000 + "]" * 5_000 + "}", "7" * 5_000, "{1}", '"[,{"', '{"a": "\\ud800"}', ""],
    ids=["NaN", "deep", "long", "no JSON", "text", "surrogate", "nothing"],
)
def test_a_bad_item_of_an_array_costs_itself(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "traces.json"
    path.write_text(f"[{json.dumps(ROWS[0])},\n{bad},\n{json.dumps(ROWS[2])}\n]\n")
    rows = list(read_rows(path))
    assert [row.number for row in rows] == [1, 2, 3]
    assert [row.data is not None for row in rows] == [True, False, True]
    assert rows[1].problem


@pytest.mark.parametrize(("end", "said"), [("", "breaks off"), ('] {"a": 1}', "behind the end")])
def test_an_array_that_does_not_end_well_keeps_what_is_whole(tmp_path: Path, end: str, said: str) -> None:
    path = tmp_path / "traces.json"
    path.write_text(f"[\n{json.dumps(ROWS[0])},\n{json.dumps(ROWS[1])}\n{end}")
    rows = list(read_rows(path))
    assert rows[0].data == ROWS[0]
    assert said in rows[-1].problem


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv.gz"])
def test_a_packed_file_that_breaks_off_keeps_what_came_before(tmp_path: Path, name: str) -> None:
    rows = [ROWS[0] | {"run_id": f"r{number}"} for number in range(5)]
    data = as_csv(rows) if "csv" in name else as_lines(rows) if "jsonl" in name else json.dumps(rows, indent=1).encode()
    whole = gzip.compress(data, 0)
    cut = whole.index(b"r3")
    (tmp_path / name).write_bytes(whole[:cut])
    found = import_traces(tmp_path / name, "desk")
    assert [record.run_id for record in found.records] == ["r0", "r1", "r2"]
    assert found.rejected[-1].line >= 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b"x,y", "2 cells where the header names 5"), (b"\xff,,,,", "not UTF-8"), (b"a,b,c,d,e,f", "6 ")],
)
def test_a_bad_row_of_a_csv_costs_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "traces.csv"
    path.write_bytes(as_csv(ROWS[:1]) + line + b"\r\n" + as_csv(ROWS[1:]).split(b"\r\n", 1)[1])
    rows = list(read_rows(path))
    assert [row.data is not None for row in rows] == [True, False, True, True]
    assert reason in rows[1].problem
