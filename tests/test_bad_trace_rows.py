"""One bad row costs one row: whatever stands in a file, the good rows go all the way to the weekly score."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telemetry_samples import SQL_FOLDER

from agentrl_resources.telemetry import Warehouse, build_models, check_model, import_traces, load_models, weekly_score

MODELS = load_models(SQL_FOLDER)
MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
LONG = "1" * 400
MARK = b"\xef\xbb\xbf"


def good(name: str, **more: Any) -> dict[str, Any]:
    return {"run_id": name, "task_id": name, "started_at": "2026-11-17T09:00:00Z", "success": True} | {
        "messages": MESSAGES,
        **more,
    }


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def through(folder: Path, lines: list[bytes]) -> tuple[set[str], int, int]:
    """Imports the lines between good rows, and builds and scores everything: runs stored, rows kept, rows rejected."""
    rows = [json.dumps(good("first")).encode(), *lines, json.dumps(good("last")).encode()]
    path = folder / "traces.jsonl"
    path.write_bytes(b"\n".join(rows) + b"\n")
    found = import_traces(path, "desk")
    warehouse = Warehouse(folder / "warehouse.duckdb")
    warehouse.ingest(found.records, found.rejected, found.labels)
    stored = {row["run_id"] for row in warehouse.query("SELECT run_id FROM agent_runs")}
    with warehouse.connect() as connection:
        build_models(connection, MODELS)
        broken = [rule for model in MODELS for rule in check_model(connection, model) if not rule.passed]
        weeks = connection.execute("SELECT iso_week FROM weekly_reliability WHERE n > 0").fetchall()
        scores = [weekly_score(connection, "desk", week) for (week,) in weeks]
    assert not broken
    assert "2026-W47" in {score.iso_week for score in scores}
    assert all(0 <= score.reliability_score <= 1 for score in scores)
    assert {"first", "last"} <= stored
    assert len(stored) == len({record.run_id for record in found.records})
    assert all(line.reason for line in found.rejected)
    assert len(rows) == len(found.records) + len(found.rejected) + found.label_rows
    return stored, len(found.records) + found.label_rows, len(found.rejected)


ODD = {
    "null text part": json.dumps(good("odd", messages=[{"role": "tool", "content": [{"type": "text", "text": None}]}])),
    "number as text part": json.dumps(good("odd", messages=[{"role": "tool", "content": [{"text": 7}]}])),
    "reward of 400 digits": json.dumps(good("odd", success=None, reward=0)).replace('"reward": 0', f'"reward": {LONG}'),
    "cost of 400 digits": json.dumps(good("odd", cost=0)).replace('"cost": 0', f'"cost": {LONG}'),
    "tokens beyond 64 bits": json.dumps(good("odd", tokens_in=2**63)),
    "cost of 10**300": json.dumps(good("odd", cost=1e300)),
    "1e999": json.dumps(good("odd", cost=0)).replace('"cost": 0', '"cost": 1e999'),
    "5000 digits": json.dumps(good("odd", cost=0)).replace('"cost": 0', f'"cost": {"7" * 5000}'),
    "digits in a message": json.dumps(good("odd", x=0)).replace('"x": 0', f'"x": {LONG}'),
    "NaN": json.dumps(good("odd", cost=float("nan"))),
    "-Infinity": json.dumps(good("odd", cost=float("-inf"))),
    "lone surrogate": json.dumps(good("odd", task_type="\ud800")),
    "lone surrogate inside of JSON text": json.dumps(
        good("odd", messages=[*MESSAGES, {"role": "tool", "content": '{"a": "\\ud800"}'}])
    ),
    "infinity inside of JSON text": json.dumps(
        good("odd", messages=[*MESSAGES, {"role": "tool", "content": '{"a": 1e999}'}])
    ),
    "600 levels inside of JSON text": json.dumps(
        good("odd", messages=[*MESSAGES, {"role": "tool", "content": deep(600)}])
    ),
    **{
        f"{levels} levels": json.dumps(good("odd", messages="X")).replace('"X"', deep(levels))
        for levels in (90, 600, 950, 5_000, 100_000)
    },
    "levels of lists": "[" * 100_000,
    "two values for a key": '{"success": true, "success": false}',
    "NUL byte": '\0{"a": 1}',
    "NUL character in an id": json.dumps(good("odd\0")),
    "carriage return": json.dumps(good("odd")) + "\r",
    "UTF-8 mark": "\ufeff" + json.dumps(good("odd")),
    "MiBs": json.dumps(good("odd", messages=[{"role": "user", "content": "word " * 500_000}])),
    "half a line": json.dumps(good("odd"))[:-3],
    "of 1970": json.dumps(good("odd", started_at=0)),
    "of 1899": json.dumps(good("odd", started_at="1899-12-30T00:00:00Z")),
    "of 2099": json.dumps(good("odd", started_at="2099-01-01T00:00:00Z")),
    "of the year 9999": json.dumps(good("odd", started_at="9999-12-31T23:59:59-12:00")),
    "of 2023": json.dumps(good("odd", started_at="2023-10-04T09:00:00Z")),
    "a label of 2099": json.dumps({"run_id": "first", "success": False, "labelled_at": "2099-01-01"}),
    "a label without a time": json.dumps({"run_id": "first", "success": False}),
    "updated in 2099": json.dumps(good("odd", updated_at="2099-01-01")),
}
KEPT = {"90 levels": False, "NUL character in an id": True, "carriage return": True, "UTF-8 mark": True, "MiBs": True}
KEPT |= {"of 2023": True}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_row_is_kept_or_in_quarantine_and_its_neighbours_are_scored(tmp_path: Path, name: str) -> None:
    _, kept, rejected = through(tmp_path, [ODD[name].encode(errors="surrogatepass")])
    if name in KEPT:
        assert (kept, rejected) == ((3, 0) if KEPT[name] else (2, 1))
    assert kept + rejected == 3


def test_all_odd_rows_at_once(tmp_path: Path) -> None:
    through(tmp_path, [row.encode(errors="surrogatepass") for row in ODD.values()] + [b"", b"\xff\xfe", b" \t"][1:2])


FIELDS = (
    "run_id", "task_id", "task_type", "session_id", "model", "policy_version", "release_id", "quality", "cost",
    "safety_violation", "human_override", "success", "outcome", "reward", "started_at", "timestamp", "start_time",
    "created_at", "updated_at", "exported_at", "labelled_at", "labeled_at", "duration_ms", "usage", "tokens_in",
    "tokens_out", "traj", "messages",
)  # fmt: skip
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 0.0, 1.0, 12.0, 0.5, 2**31, 2**53 + 1, 2**63, 10**30, 10**308, 1e308, -1e308, 5e-324]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", " ", "null", "NaN", "0", "1.0", "yes", "1,234", "1e999", "٣", "²", "2026-11-17", "\0"]),
    st.text(max_size=8),
    st.sampled_from([[], {}, [None], [[]], {"": None}, {"error": "x"}, [1, "a"], {"$date": {"$oid": []}}]),
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2)),
)  # fmt: skip
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "robot", None])},
    optional=dict.fromkeys(("content", "tool_calls", "tool_call_id", "name", "function_call"), ODD_VALUES),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(FIELDS), ODD_VALUES, min_size=1, max_size=3),
            st.none() | st.lists(MESSAGE, min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_whatever_the_fields_hold_rows_in_are_runs_and_quarantined_rows(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[dict[str, Any], list[Any] | None]]
) -> None:
    rows = [
        good(f"odd-{number}") | ({} if messages is None else {"messages": messages}) | changed
        for number, (changed, messages) in enumerate(changes)
    ]
    through(tmp_path_factory.mktemp("odd"), [json.dumps(row).encode() for row in rows])


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.binary(max_size=40).filter(lambda data: b"\n" not in data and data.removeprefix(MARK).strip()),
        min_size=1,
        max_size=20,
    )
)
def test_lines_of_bytes_cost_nothing_but_themselves(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    _, kept, rejected = through(tmp_path_factory.mktemp("bytes"), lines)
    assert (kept, rejected) == (2, len(lines))
