"""Outside traces: real ones where they are there, and every kind of bad line."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from telemetry_samples import SQL_FOLDER

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import (
    ImportResult,
    RunRecord,
    Warehouse,
    build_models,
    import_traces,
    load_models,
    weekly_score,
)

TAU_BENCH = Path(__file__).parents[2] / "shared" / "data" / "tau_bench_airline_gpt4o_traces.jsonl.gz"


def call(name: str = "look_up", arguments: object = '{"order": 4711}', id: str | None = "call-1") -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def line(**keys: object) -> dict:
    messages = [{"role": "user", "content": "Where is order 4711?"}, {"role": "assistant", "content": "On its way."}]
    return {"messages": messages, "success": True} | keys


def import_lines(tmp_path: Path, *lines: object) -> ImportResult:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b"\n".join(part if isinstance(part, bytes) else json.dumps(part).encode() for part in lines))
    return import_traces(path, "desk")


def import_one(tmp_path: Path, **keys: object) -> RunRecord:
    result = import_lines(tmp_path, line(**keys))
    assert result.rejected == []
    (record,) = result.records
    return record


@pytest.mark.skipif(not TAU_BENCH.exists(), reason=f"{TAU_BENCH} is not on this machine")
def test_tau_bench_gives_its_known_score(tmp_path: Path) -> None:
    result = import_traces(TAU_BENCH, "airline")
    assert (len(result.records), len(result.rejected)) == (120, 0)
    assert sum(bool(record.success) for record in result.records) == 36
    assert sum(bool(record.human_override) for record in result.records) == 20
    assert sum(record.tool_calls_count for record in result.records) == 810
    assert sum(record.tool_error_count for record in result.records) == 67

    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    assert warehouse.ingest(result.records).inserted == 120
    again = import_traces(TAU_BENCH, "airline", now=datetime(2030, 1, 1, tzinfo=UTC))
    assert warehouse.ingest(again.records).unchanged == 120
    with warehouse.connect() as connection:
        build_models(connection, load_models(SQL_FOLDER))
        score = weekly_score(connection, "airline")
    assert (score.n, score.success, score.human_override, score.tool_error) == (120, 0.30, 20 / 120, 67 / 810)
    assert round(score.reliability_score, 4) == 0.2293
    assert score.interval[0] < score.reliability_score < score.interval[1]
    assert (score.basis, score.simulated) == ("traffic", False)


@pytest.mark.parametrize(
    ("content", "is_error"),
    [
        ("Error: no such order", True),
        ({"error": "no such order"}, True),
        ('{"error": "no such order"}', True),
        ([{"type": "text", "text": "Error: no such order"}], True),
        ({"error": None, "order": 4711}, False),
        ("No Error here", False),
        ("", False),
        (None, False),
    ],
)
def test_what_counts_as_a_tool_error(tmp_path: Path, content: object, is_error: bool) -> None:
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "call-1", "content": content},
    ]
    record = import_one(tmp_path, messages=messages)
    assert (record.tool_calls_count, record.tool_error_count) == (1, int(is_error))


def test_results_find_their_calls_out_of_order_and_without_ids(tmp_path: Path) -> None:
    parallel = [call("first", id="a"), call("second", {"order": 1}, id="b")]
    messages = [
        {"role": "assistant", "tool_calls": parallel},
        {"role": "tool", "tool_call_id": "b", "content": "Error: b"},
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "assistant", "tool_calls": [call("third", "{half", id=None)]},
        {"role": "tool", "content": "Error: c"},
        {"role": "tool", "name": "stray", "content": "nobody called"},
    ]
    record = import_one(tmp_path, traj=messages)
    calls = [(call["name"], call["arguments"], call["error"]) for call in record.trace["tool_calls"]]
    assert calls == [
        ("first", {"order": 4711}, None),
        ("second", {"order": 1}, "Error: b"),
        ("third", "{half", "Error: c"),
        ("stray", None, None),
    ]
    assert (record.tool_calls_count, record.tool_error_count) == (4, 2)


@pytest.mark.parametrize("tool", ["transfer_to_human_agents", "hand_over"])
def test_a_hand_over_is_an_override_unless_the_line_says_otherwise(tmp_path: Path, tool: str) -> None:
    messages = [{"role": "assistant", "tool_calls": [call(tool)]}]
    assert import_one(tmp_path, messages=messages).human_override is True
    assert import_one(tmp_path, messages=messages, human_override=False).human_override is False
    assert import_one(tmp_path).human_override is None, "nobody said so: another file may"
    assert import_one(tmp_path, human_override=True).human_override is True


@pytest.mark.parametrize(
    ("keys", "success"),
    [
        ({"success": None, "reward": 1.0}, True),
        ({"success": None, "reward": 0.5}, False),
        ({"success": False, "reward": 1.0}, False),
        ({"success": None, "outcome": "Resolved"}, True),
        ({"success": None, "outcome": "failed"}, False),
        ({"success": None}, None),
    ],
)
def test_outcomes(tmp_path: Path, keys: dict, success: bool | None) -> None:
    assert import_one(tmp_path, **keys).success is success


def test_optional_keys_are_taken_and_missing_ones_stay_unknown(tmp_path: Path) -> None:
    record = import_one(
        tmp_path,
        run_id="r1",
        task_id=7,
        session_id="maria@example.org",
        model="gpt-4o",
        started_at=1763805600,
        usage={"prompt_tokens": 10, "completion_tokens": 3},
        cost=0.02,
        duration_ms=1200,
    )
    assert (record.run_id, record.task_id, record.model_version, record.policy_version) == (
        "r1",
        "7",
        "gpt-4o",
        "gpt-4o",
    )
    assert (record.tokens_in, record.tokens_out, record.cost, record.duration_ms) == (10, 3, 0.02, 1200)
    assert record.started_at == "2025-11-22T10:00:00.000000Z"
    assert record.session_key_hash is not None
    assert "maria" not in record.session_key_hash
    bare = import_one(tmp_path)
    assert (bare.tokens_in, bare.tokens_out, bare.cost, bare.duration_ms, bare.session_key_hash) == (None,) * 5


def test_a_task_id_that_is_an_address_becomes_a_digest(tmp_path: Path) -> None:
    tasks = [import_one(tmp_path, task_id=name).task_id for name in ("maria@example.org", "jo@example.org", "refund-1")]
    assert "@" not in "".join(tasks)
    assert len(set(tasks)) == 3
    assert tasks[2] == "refund-1"


def test_the_same_content_is_the_same_run_in_one_workflow_only(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(line()))
    (desk,), (again,) = import_traces(path, "desk").records, import_traces(path, "desk").records
    (other,) = import_traces(path, "shop").records
    assert desk.run_id == again.run_id != other.run_id


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"messages": [{"role": "us', "not valid JSON, perhaps half a line"),
        (b'{"messages": "\xe9t\xe9"}', "not UTF-8 at byte 14"),
        (b"[1, 2]", "a JSON list where an object is needed"),
        (b'{"reward": NaN, "messages": [{"role": "user", "content": "x"}]}', "NaN is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "half of a character"),
        ({"success": True}, "no messages"),
        ({"messages": []}, "no messages"),
        (line(messages=[{"role": "robot"}]), "messages[0] must be an object whose role is one of"),
        (line(messages=[{"role": "assistant", "tool_calls": [{"function": {}}]}]), "messages[0].tool_calls"),
        (line(success="maybe"), "success is 'maybe'; it must be true, false, a number, or one of"),
        (line(human_override="perhaps"), "human_override is 'perhaps'; it must be true or false"),
        (line(started_at="soon"), "started_at is 'soon'; it must be an ISO 8601 time"),
        (line(started_at=1e300), "started_at is 1e+300"),
        (line(cost="cheap"), "cost is 'cheap'; it must be a finite number"),
        (line(tokens_in=-1), "tokens_in is -1; it must be a whole number"),
        (line(usage=[1]), "usage must be an object"),
        (line(task_id={"a": 1}), "task_id is {'a': 1}; it must be text"),
        (line(task_id="good"), "the same run as line 1"),
    ],
)
def test_a_bad_line_is_quarantined_with_its_number_and_the_good_ones_are_kept(
    tmp_path: Path, bad: object, reason: str
) -> None:
    result = import_lines(tmp_path, line(task_id="good"), b"", bad, line(task_id="good too"))
    assert [record.task_id for record in result.records] == ["good", "good too"]
    (rejected,) = result.rejected
    assert (rejected.source, rejected.line) == ("traces.jsonl", 3)
    assert rejected.reason.startswith(reason) or reason in rejected.reason
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    assert warehouse.ingest(result.records, result.rejected).inserted == 2
    assert warehouse.query("SELECT count(*) AS n FROM import_quarantine") == [{"n": 1}]


def test_a_byte_order_mark_and_a_nul_character_do_no_harm(tmp_path: Path) -> None:
    text = json.dumps(line(messages=[{"role": "user", "content": "a\0b"}]))
    result = import_lines(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert len(result.records) == 1
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.ingest(result.records)
    assert warehouse.ingest(result.records).unchanged == 1


def test_a_compressed_file_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl.gz"
    whole = gzip.compress(b"\n".join(json.dumps(line(task_id=number)).encode() for number in range(2000)))
    path.write_bytes(whole[: len(whole) // 2])
    result = import_traces(path, "desk")
    assert 0 < len(result.records) < 2000
    (rejected,) = result.rejected
    assert rejected.line == len(result.records) + 1
    assert "not valid gzip" in rejected.reason


@pytest.mark.parametrize("content", [None, b"", b"\n \n"])
def test_a_missing_or_empty_file_is_one_clear_message(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "traces.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AgentRLError) as error:
        import_traces(path, "desk")
    assert str(path) in str(error.value)
