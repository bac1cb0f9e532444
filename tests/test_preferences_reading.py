"""Every row of every kind of file comes back, readable or with its problem."""

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl_resources.errors import AgentRLError
from agentrl_resources.preferences import CleaningRules, RawRow, Reason, clean, read_pairs

PAIR = {"prompt": "Where is order 1234?", "chosen": "On its way.", "rejected": "No idea."}
CALL = {
    "prompt": [{"role": "user", "content": "Refund order 1234."}],
    "chosen": [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "a", "arguments": {"x": 1}}}]},
        {"role": "tool", "name": "a", "content": "done"},
        {"role": "assistant", "content": "Refunded."},
    ],
    "rejected": [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "b", "arguments": {"y": "z"}}}]},
        {"role": "tool", "name": "b", "content": "failed"},
        {"role": "assistant", "content": "Refunded."},
    ],
}


def write_parquet(path: Path, rows: list[dict]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def data_of(path: Path) -> list[dict]:
    return [row.data for row in read_pairs(path)]


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    import datasets

    rows = [{**PAIR, "annotator": "é"}, {**PAIR, "prompt": "And order 5678?"}]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    write_parquet(tmp_path / "a.parquet", rows)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "folder")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet", "a.parquet.gz", "folder"):
        assert data_of(tmp_path / name) == rows, name
        assert [(row.row, row.source, row.problem) for row in read_pairs(tmp_path / name)] == [
            (1, name, None),
            (2, name, None),
        ]


def test_arguments_of_different_tools_do_not_mix_in_parquet(tmp_path: Path) -> None:
    assert data_of(write_parquet(tmp_path / "a.parquet", [CALL])) == [CALL]


def test_splits_of_a_dataset_dict_become_splits_of_the_rows(tmp_path: Path) -> None:
    import datasets

    parts = {name: datasets.Dataset.from_list([{**PAIR, "prompt": name}]) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "folder")
    pairs = clean(read_pairs(tmp_path / "folder"), CleaningRules()).clean
    assert {(pair.prompt[0]["content"], pair.split) for pair in pairs} == {("train", "train"), ("test", "holdout")}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"chosen": "half a li', "not JSON"),
        (b'{"chosen": "caf\xe9", "rejected": "b"}', "not UTF-8: byte 0xe9 at position 16"),
        (b'["a", "b"]', "a list, not a JSON object"),
        (b"null", "a NoneType, not a JSON object"),
        (b'{"chosen": NaN}', "NaN is not JSON"),
        (b'{"chosen": 1e999}', "too large a number"),
        (b'{"chosen": "\\ud83d"}', "surrogate"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        (b'{"a": ' * 300 + b"1" + b"}" * 300, "nested too deeply"),
        (b"\x00\x01\x02", "not JSON"),
    ],
)
def test_a_bad_line_is_kept_with_its_number_and_problem(tmp_path: Path, line: bytes, words: str) -> None:
    good = json.dumps(PAIR).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(good + b"\n\n" + line + b"\n" + good)
    rows = list(read_pairs(path))
    assert [row.row for row in rows] == [1, 3, 4]
    assert words in (rows[1].problem or "")
    assert rows[0].data == rows[2].data == PAIR
    [bad] = [row for row in clean(rows, CleaningRules()).quarantine if row.row == 3]
    assert bad.reason == Reason.UNREADABLE
    assert words in bad.detail


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "a.jsonl"
    path.write_bytes(json.dumps(PAIR).encode() + b"\n" + noise)
    rows = list(read_pairs(path))
    result = clean(rows, CleaningRules())
    assert rows[0].data == PAIR
    assert len(rows) == len(result.clean) + len(result.quarantine)
    json.dumps([row.to_dict() for row in result.quarantine], ensure_ascii=False).encode()


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(PAIR), encoding="utf-8-sig")
    assert data_of(tmp_path / "a.jsonl") == [PAIR]


def test_a_gzip_file_that_breaks_off_keeps_its_rows(tmp_path: Path) -> None:
    source = random.Random(3)
    noise = [{**PAIR, "prompt": str(source.random())} for _ in range(3000)]
    whole = gzip.compress("\n".join(json.dumps(row) for row in noise).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    *rows, last = read_pairs(tmp_path / "a.jsonl.gz")
    assert [row.data for row in rows] == noise[: len(rows)]
    assert len(rows) > 500
    assert last.row == len(rows) + 1
    assert "breaks off" in (last.problem or "")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.jsonl", None, "does not exist"),
        ("empty.jsonl", b"", "holds no rows"),
        ("blank.jsonl", b"\n \n", "holds no rows"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "holds no rows"),
        ("plain.jsonl.gz", b'{"chosen": "a"}', "not a whole gzip file"),
        ("wide.jsonl", json.dumps(PAIR).encode("utf-16"), "iconv -f UTF-16"),
        ("pairs.csv", b"chosen,rejected", "type that is not known"),
        ("broken.parquet", b"PAR1 no more", "not a whole Parquet file"),
        ("empty.parquet", b"", "not a whole Parquet file"),
    ],
)
def test_nothing_to_read_is_one_clear_message(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AgentRLError, match=words) as caught:
        list(read_pairs(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AgentRLError, match="save_to_disk"):
        read_pairs(tmp_path)


def test_raw_rows_survive_being_stored() -> None:
    for row in (RawRow(1, "a", {"chosen": "x"}), RawRow(2, "a", {"line": "{"}, "not JSON")):
        assert RawRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row
