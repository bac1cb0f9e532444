"""One bad row costs one row, in whatever field it is bad; and tables as people export them are read."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_assets import preference_data
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import read_jsonl, write_jsonl
from agentrl_resources.preferences import CleaningRules, Pair, RawRow, Reason, clean, read_pairs

LONG = "1" * 400


def good(number: int) -> dict[str, Any]:
    return {"prompt": f"question {number}", "chosen": f"yes {number}", "rejected": f"no {number}"}


def deep(depth: int, mark: str = "{}") -> str:
    return ('{"a":' if mark == "{}" else "[") * depth + "1" + mark[1] * depth


def with_text(field: str, text: str) -> str:
    """The JSON of a good row, in which `field` stands as it is given."""
    return json.dumps({**good(2), field: "X"}).replace('"X"', text)


WRONG = ["null", "7", "true", "[]", "{}", '""', '"text"', "[null]", "[[]]", '[{"role": ["assistant"]}]', '{"role": 7}',
         "1e308", LONG, f"-{LONG}", "9" * 5000, "1e999", "NaN", "-Infinity", '"\\ud83d"', '"\\u0000"', '"a\\u0000b"',
         deep(50), deep(90), deep(600), deep(950), deep(600, "[]"), deep(100_000), '["\\udc00", {"a": "\\ud800"}]',
         '[{"role": "assistant", "content": [{"type": "text", "text": null}]}]',
         '[{"role": "assistant", "content": [{"type": "text", "text": 7}]}]',
         '[{"role": "assistant", "tool_calls": [{"id": ["c"], "function": {"name": "a", "arguments": "{}"}}]},'
         ' {"role": "tool", "tool_call_id": {"c": 1}, "content": 1}, {"role": "assistant", "content": "done"}]',
         '[{"role": "assistant", "tool_calls": "x"}]', '[{"role": "assistant", "tool_calls": [[]]}]',
         f'{{"chosen": {{"x": {LONG}}}, "rejected": {{"x": 1}}}}', '{"chosen": 1, "rejected": [2]}']  # fmt: skip
FIELDS = ["prompt", "chosen", "rejected", "question", "messages", "input", "system", "tools", "label", "split",
          "task_id", "task_type", "annotator", "rubric_version", "rubric_scores", "chosen_scores", "score_chosen",
          "metadata", "conversational", "context", "history", "winner", "unknown"]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_value_in_any_field_costs_its_own_row_only(field: str, tmp_path: Path) -> None:
    lines = [json.dumps(good(1)), *(with_text(field, text) for text in WRONG), json.dumps(good(3))]
    for name, content in (("a.jsonl", "\n".join(lines)), ("a.json", f"[{','.join(lines)}]")):
        (tmp_path / name).write_text(content)
        rows = list(read_pairs(tmp_path / name))
        assert [row.row for row in rows] == list(range(1, len(lines) + 1))
        survives(rows, tmp_path)
        result = clean(rows, CleaningRules(near_duplicate_similarity=1.0, tool_schemas={"a": {}}))
        assert len(result.clean) + len(result.quarantine) == len(rows)
        prompts = [pair.prompt[0].get("content") for pair in result.clean if pair.prompt]
        assert {"question 1", "question 3"} <= set(prompts)


def survives(rows: list[RawRow], folder: Path) -> None:
    """Rows are stored as they came and read back."""
    write_jsonl(folder / "stored.jsonl", (row.to_dict() for row in rows))
    assert [RawRow.from_dict(row) for row in read_jsonl(folder / "stored.jsonl")] == rows


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
        st.text(st.characters(categories=["Cs", "Cc", "L"]), max_size=4), st.dates(), st.just(10**400),
        st.sampled_from(["assistant", "user", "tool", "chosen", "tie", "model_a", "1", "nan", "[{'role': 'user'}]"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "function", "name", "arguments", "id", "type", "text",
                             "from", "value", "messages", "chosen", "rejected", "thinking", "tool_call_id"]),
            inner, max_size=4,
        ),
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from([*FIELDS, "chosen", "rejected", "response_a", "response_b"]), VALUES,
                                max_size=5), max_size=4))  # fmt: skip
def test_whatever_rows_hold_each_is_in_one_place_and_can_be_stored(
    tmp_path_factory: pytest.TempPathFactory, data: list[dict[str, Any]]
) -> None:
    rows = [RawRow(number, "test", row) for number, row in enumerate([good(1), *data, good(3)], start=1)]
    result = clean(rows, CleaningRules(near_duplicate_similarity=1.0))
    refused = [row.row for row in result.quarantine]
    assert len(result.clean) + len(refused) == len(rows)
    assert not {1, len(rows)} & set(refused)
    json.dumps([one.to_dict() for one in (*result.clean, *result.quarantine)], ensure_ascii=False).encode()
    write_jsonl(tmp_path_factory.getbasetemp() / "x.jsonl", [one.to_dict() for one in result.quarantine])


def test_bad_rows_survive_a_run(workspace: Workspace, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    lines = [json.dumps(good(number)) for number in range(60)]
    bad = [with_text(field, text) for field in ("metadata", "task_id", "label", "chosen") for text in WRONG]
    (tmp_path / "mine.jsonl").write_text("\n".join([*lines[:30], *bad, *lines[30:]]))
    source = str(tmp_path / "mine.jsonl")
    project = Workspace(home=workspace.home, workflow_file=workspace.workflow_file, preferences=source)
    assets = [preference_data.rubric, preference_data.raw_preference_data, preference_data.cleaned_preference_data]
    checks = [preference_data.raw_equals_clean_plus_quarantined]
    result = dg.materialize([*assets, *checks], instance=instance, resources={"workspace": project})
    assert result.success
    report = project.find(instance, "cleaned_preference_data").report
    assert report["raw"] == len(lines) + len(bad)
    assert report["clean"] >= len(lines)
    kept = project.warehouse.query("SELECT count(*) AS n FROM preference_quarantine")
    assert kept == [{"n": report["quarantined"]}]


# --- tables as people export them -------------------------------------------------------------------------------------


def pairs_of(path: Path) -> list[Pair]:
    result = clean(read_pairs(path), CleaningRules(near_duplicate_similarity=1.0))
    assert [row.detail for row in result.quarantine] == []
    return sorted(result.clean, key=lambda pair: str(pair.prompt))


def test_a_json_array_is_as_good_as_json_lines(tmp_path: Path) -> None:
    rows = [{**good(number), "metadata": {"note": 'a ] , } " \\ [ é'}} for number in range(5)]
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    expected = [row.data for row in read_pairs(tmp_path / "lines.jsonl")]
    for name, text in (
        ("a.json", json.dumps(rows)),
        ("b.json", json.dumps(rows, indent=2)),
        ("c.jsonl", json.dumps(rows)),
        ("d.json", "\ufeff\r\n " + json.dumps(rows, indent=1).replace("\n", "\r\n")),
        ("e.json", "\n".join(json.dumps(row) for row in rows)),
        ("f.jsonl", "\ufeff" + "\r\n".join(json.dumps(row) for row in rows)),
    ):
        (tmp_path / name).write_bytes(text.encode())
        assert [row.data for row in read_pairs(tmp_path / name)] == expected, name


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), min_size=1, max_size=5),
       st.sampled_from([None, 1, 4]))  # fmt: skip
def test_an_array_is_cut_where_its_elements_end(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert [row.data for row in read_pairs(path)] == rows


def test_an_array_that_breaks_off_keeps_its_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([good(1), good(2), good(3)])[:-20])
    *rows, last = read_pairs(tmp_path / "a.json")
    assert [row.data for row in rows] == [good(1), good(2)]
    assert last.row == 3
    assert last.problem is not None


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "prompt,chosen,rejected\na,b,c", "to_json"),
        ("a.tsv", "prompt\tchosen", "to_json"),
        ("a.json", '{\n "prompt": "a"\n}', "one JSON object over many lines"),
        ("a.json", "[]", "holds no rows"),
        ("a.json", "", "holds no rows"),
    ],
)
def test_what_is_not_read_is_refused_with_what_is(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AgentRLError, match=words):
        list(read_pairs(tmp_path / name))


TABLE = {
    "prompt": [None, "b?"],
    "question": ["a?", None],
    "chosen": [b"yes", b"aye"],
    "rejected": ["no", "nay"],
    "chosen_rating": [float("nan"), 4.0],
    "rejected_rating": [1.0, 2.0],
    "label": ["True", None],
    "at": [datetime(2026, 1, 1, tzinfo=UTC), None],
    "day": [date(2026, 1, 1), None],
    "price": [Decimal("1.5"), None],
    "metadata": [{"at": datetime(2026, 1, 1), "n": None, "x": [1.0, float("nan")]}, None],
}


def test_a_parquet_table_with_nulls_dates_and_bytes(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(TABLE), tmp_path / "a.parquet")
    first, second = pairs_of(tmp_path / "a.parquet")
    assert (first.prompt[0]["content"], first.chosen[0]["content"], first.rubric_scores) == ("a?", "yes", None)
    assert first.metadata == {"at": "2026-01-01 00:00:00", "x": [1.0, None]}
    assert second.rubric_scores == {"chosen": {"overall": 4.0}, "rejected": {"overall": 2.0}}


def test_a_folder_that_was_to_give_numpy(tmp_path: Path) -> None:
    import datasets

    made = datasets.Dataset.from_list([{**good(1), "score_chosen": 0.5, "score_rejected": 0.25, "task_id": 7}])
    made.with_format("numpy", columns=["prompt", "score_chosen"]).save_to_disk(tmp_path / "folder")
    [pair] = pairs_of(tmp_path / "folder")
    assert pair.rubric_scores == {"chosen": {"overall": 0.5}, "rejected": {"overall": 0.25}}
    assert pair.task_id == "7"


def test_a_row_of_a_table_that_is_no_text_costs_its_own_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary())
    table = pa.table({"prompt": texts, "chosen": ["x", "y", "z"], "rejected": ["p", "q", "r"]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = list(read_pairs(tmp_path / "a.parquet"))
    assert [row.problem is None for row in rows] == [True, False, True]
    assert "UTF-8" in str(rows[1].problem)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0.8", 0.8), (" 3 ", 3.0), (True, 1.0), ("false", 0.0), (7, 7.0), ("nan", None), (None, None), ("n/a", None)],
)
def test_scores_are_numbers_in_whatever_form(value: Any, expected: float | None) -> None:
    scores = {"chosen": {"x": 9, "y": value}, "rejected": {"x": 1}}
    for row in ({"rubric_scores": scores}, {"rubric_scores": json.dumps(scores)},
                {"chosen_scores": scores["chosen"], "rejected_scores": json.dumps(scores["rejected"])}):  # fmt: skip
        [pair] = clean([RawRow(1, "t", {**good(1), **row})], CleaningRules()).clean
        assert pair.rubric_scores is not None
        assert pair.rubric_scores["chosen"].get("y") == expected


@pytest.mark.parametrize(
    ("label", "clean_rows"), [("chosen", 1), (True, 1), ("TRUE", 1), (1, 1), ("1", 1), (None, 1), ("", 1), (False, 0),
                              ("no", 0), (0, 0), ("Tie", 0)],
)  # fmt: skip
def test_labels_in_whatever_form(label: Any, clean_rows: int) -> None:
    result = clean([RawRow(1, "t", {**good(1), "label": label})], CleaningRules())
    assert len(result.clean) == clean_rows
    assert {row.reason for row in result.quarantine} <= {Reason.TIE, Reason.UNREADABLE}


def test_numbers_of_numpy_are_numbers() -> None:
    from agentrl_resources.preferences.values import plain

    found = plain({"a": np.float32(0.5), "b": np.array([[1, 2]]), "c": np.bool_(True), "d": np.str_("x"), "e": np.nan})
    assert json.loads(json.dumps(found)) == {"a": 0.5, "b": [[1, 2]], "c": True, "d": "x"}
