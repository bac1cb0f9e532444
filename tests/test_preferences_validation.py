"""A suite that passes on clean data and names each planted fault."""

import dataclasses
from typing import Any

import pytest

from agentrl_resources.errors import AgentRLError
from agentrl_resources.preferences import CleaningRules, Pair, RawRow, clean, validate
from agentrl_resources.preferences import validation as validation_module


def raw_rows(count: int = 60) -> list[RawRow]:
    def answer(number: int, longer: bool) -> str:
        return f"Answer number {number}." + " More words." * longer

    return [
        RawRow(
            number,
            "test",
            {
                "prompt": f"Question number {number}?",
                "chosen": answer(2 * number, number % 2 == 0),
                "rejected": answer(2 * number + 1, number % 2 == 1),
                "annotator": "ann",
                "split": "test" if number % 5 == 0 else "train",
            },
        )
        for number in range(1, count + 1)
    ]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return clean(raw_rows(), CleaningRules()).clean


def failed(rows: Any, suite: Any) -> set[str]:
    return {result.name for result in validate(rows, suite) if not result.passed}


def test_good_data_passes_everything(pairs: list[Pair]) -> None:
    assert failed(raw_rows(), "raw") == set()
    assert failed(pairs, "clean") == set()


def planted(pairs: list[Pair], **changes: Any) -> list[Pair]:
    return [dataclasses.replace(pairs[0], **changes), *pairs[1:]]


@pytest.mark.parametrize(
    ("expectation", "plant"),
    [
        ("pairs_present", lambda pairs: []),
        ("pairs_unique", lambda pairs: [*pairs, pairs[0]]),
        (
            "labels_consistent",
            lambda pairs: [
                *pairs,
                dataclasses.replace(pairs[0], chosen=pairs[0].rejected, rejected=pairs[0].chosen, pair_id="x"),
            ],
        ),
        ("sides_answer", lambda pairs: planted(pairs, rejected=[])),
        ("sides_differ", lambda pairs: planted(pairs, rejected=pairs[0].chosen)),
        ("splits_known", lambda pairs: planted(pairs, split="dev")),
        ("splits_present", lambda pairs: [pair for pair in pairs if pair.split == "train"]),
        (
            "tasks_in_one_split",
            lambda pairs: planted(
                pairs, task_id=pairs[1].task_id, split="train" if pairs[1].split == "holdout" else "holdout"
            ),
        ),
        ("personal_data_absent", lambda pairs: planted(pairs, metadata={"mail": "ada@example.org"})),
    ],
)
def test_each_planted_fault_blocks(pairs: list[Pair], expectation: str, plant: Any) -> None:
    results = {result.name: result for result in validate(plant(pairs), "clean")}
    assert not results[expectation].passed
    assert results[expectation].severity == "critical"


def test_a_tell_tale_length_warns(pairs: list[Pair]) -> None:
    long = [{"role": "assistant", "content": "word " * 50}]
    results = {
        result.name: result for result in validate([dataclasses.replace(p, chosen=long) for p in pairs], "clean")
    }
    assert not results["length_balanced"].passed
    assert results["length_balanced"].severity == "warning"
    assert results["length_balanced"].observed == 1.0


def test_one_bad_line_warns_and_a_file_of_them_blocks() -> None:
    bad = [RawRow(1000 + number, "test", {"line": "{"}, "not JSON") for number in range(100)]
    assert failed([*raw_rows(), *bad[:1]], "raw") == {"all_readable", "all_paired"}
    assert failed([*raw_rows(), *bad], "raw") == {"mostly_readable", "mostly_paired", "all_readable", "all_paired"}
    [result] = [result for result in validate([*raw_rows(), *bad[:1]], "raw") if result.name == "all_readable"]
    assert (result.severity, result.observed) == ("warning", 1)
    assert "1 of 61" in result.detail


def test_a_crashed_expectation_is_no_answer(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = validation_module._clean_frame
    monkeypatch.setattr(validation_module, "_clean_frame", lambda rows: whole(rows).drop(columns="differs"))
    with pytest.raises(AgentRLError, match="sides_differ could not be evaluated"):
        validate(pairs, "clean")


def test_nothing_is_printed(pairs: list[Pair], capfd: pytest.CaptureFixture[str]) -> None:
    validate(pairs, "clean")
    assert capfd.readouterr() == ("", "")


def test_other_layouts_count_as_paired_and_unknown_ones_are_told_what_is_known() -> None:
    verdicts = [RawRow(n, "t", {"prompt": "a", "response_a": "b", "response_b": "c", "winner": "a"}) for n in (1, 2)]
    assert failed(verdicts, "raw") == set()
    unknown = [RawRow(n, "t", {"prompt": "a", "completion": "b", "label": True}) for n in (1, 2)]
    [paired] = [result for result in validate(unknown, "raw") if result.name == "mostly_paired"]
    assert not paired.passed
    assert "response_a and response_b" in paired.detail
