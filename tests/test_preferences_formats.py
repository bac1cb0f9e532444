"""The same pair written in any of the known formats is the same pair."""

import json
from typing import Any

import pytest

from agentrl_resources.preferences import CleaningRules, Pair, RawRow, Reason, clean


def result_of(data: dict[str, Any]) -> Any:
    return clean([RawRow(1, "test", data)], CleaningRules())


def pair_of(data: dict[str, Any]) -> Pair:
    result = result_of(data)
    assert [row.detail for row in result.quarantine] == []
    return result.clean[0]


def refusal_of(data: dict[str, Any]) -> tuple[Reason, str]:
    [row] = result_of(data).quarantine
    return row.reason, row.detail


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


ASK, YES, NO = user("Is it late?"), assistant("Yes, two days."), assistant("No.")


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": [ASK], "chosen": [YES], "rejected": [NO]},
        {"chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "Is it late?", "chosen": [ASK, YES], "rejected": [ASK, NO]},
        {"prompt": "Is it late?", "chosen": "Yes, two days.", "rejected": "No."},
        {"prompt": "\n\nHuman: Is it late?\n\nAssistant:", "chosen": " Yes, two days.", "rejected": " No."},
        {
            "chosen": "\n\nHuman: Is it late?\n\nAssistant: Yes, two days.",
            "rejected": "\n\nHuman: Is it late?\n\nAssistant: No.",
        },
        {
            "prompt": [ASK],
            "chosen": [{**YES, "content": [{"type": "text", "text": YES["content"]}]}],
            "rejected": "No.",
        },
    ],
)
def test_every_format_is_the_same_pair(data: dict[str, Any]) -> None:
    pair = pair_of(data)
    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], [YES], [NO])
    assert pair.pair_id == pair_of({"prompt": [ASK], "chosen": [YES], "rejected": [NO]}).pair_id
    assert pair.task_id == pair_of({"prompt": [ASK], "chosen": [NO], "rejected": [YES]}).task_id


def test_the_implicit_prompt_ends_where_the_answers_part() -> None:
    pair = pair_of({"chosen": [ASK, NO, ASK, YES, ASK], "rejected": [ASK, NO, ASK, NO, user("Thanks")]})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK, NO, ASK], [YES, ASK], [NO, user("Thanks")])


def test_a_side_that_ends_where_the_other_goes_on_keeps_its_answer() -> None:
    pair = pair_of({"chosen": [ASK, NO], "rejected": [ASK, NO, ASK, YES]})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], [NO], [NO, ASK, YES])


def test_plain_text_shares_its_beginning_up_to_a_blank() -> None:
    pair = pair_of({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert (pair.prompt, pair.chosen, pair.rejected) == (
        [user("The sky is")],
        [assistant("blue.")],
        [assistant("black.")],
    )
    assert not pair.conversational


def test_tool_calls_in_openai_style_become_objects() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "refund", "arguments": '{"order_id": "1234"}'}}
    pair = pair_of(
        {
            "prompt": [user("Refund order 1234.")],
            "chosen": [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"status": "done"}'},
                assistant("Done."),
            ],
            "rejected": "No.",
        }
    )
    assert pair.chosen == [
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "function": {"name": "refund", "arguments": {"order_id": "1234"}}}],
        },
        {"role": "tool", "name": "refund", "content": {"status": "done"}},
        assistant("Done."),
    ]


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        ({"prompt": "a", "chosen": "b"}, Reason.MISSING_SIDE, "no rejected side"),
        ({"prompt": "a", "rejected": "b", "chosen": None}, Reason.MISSING_SIDE, "no chosen side"),
        ({"prompt": "a", "rejected": [], "chosen": "b"}, Reason.MISSING_SIDE, "no rejected side"),
        ({"prompt": "a", "rejected": "  ", "chosen": "b"}, Reason.MISSING_SIDE, "rejected side holds no answer"),
        ({"chosen": "Human: a\n\nAssistant:", "rejected": "Human: a\n\nAssistant: b"}, Reason.MISSING_SIDE, "chosen"),
        ({"prompt": "a", "chosen": 5, "rejected": "b"}, Reason.UNREADABLE, "not int"),
        ({"prompt": "a", "chosen": [{"content": "x"}], "rejected": "b"}, Reason.UNREADABLE, "role"),
        ({"prompt": "a", "chosen": ["x"], "rejected": "b"}, Reason.UNREADABLE, "role"),
        ({"prompt": "a", "chosen": [{"role": "assistant", "content": 5}], "rejected": "b"}, Reason.UNREADABLE, "text"),
        ({"chosen": [user("a"), YES], "rejected": [user("b"), YES]}, Reason.UNREADABLE, "same prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "split": "blue"}, Reason.UNREADABLE, "split 'blue'"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "label": "maybe"}, Reason.UNREADABLE, "label is 'maybe'"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "metadata": 5}, Reason.UNREADABLE, "metadata"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_scores": {"x": "high"}, "rejected_scores": {}},
            Reason.UNREADABLE,
            "score x is not a number",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_scores": {"x": 1}},
            Reason.UNREADABLE,
            "rejected side",
        ),
        ({}, Reason.MISSING_SIDE, "no chosen side"),
        ({"question": "a", "answer": "b"}, Reason.MISSING_SIDE, "only question, answer"),
    ],
)
def test_what_is_no_pair_is_refused_with_a_sentence(data: dict[str, Any], reason: Reason, words: str) -> None:
    found, detail = refusal_of(data)
    assert found == reason
    assert words in detail


def test_pairs_survive_being_stored() -> None:
    pair = pair_of({"prompt": [ASK], "chosen": [YES], "rejected": [NO], "metadata": {"agent": "b"}, "task_id": 7})
    assert Pair.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
    assert pair.task_id == "7"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("train_prefs", "train"),
        ("test", "holdout"),
        ("Validation", "holdout"),
        ("hold-out", "holdout"),
    ],
)
def test_split_names_are_understood(name: str, split: str) -> None:
    assert pair_of({"prompt": "a", "chosen": "b", "rejected": "c", "split": name}).split == split


def test_the_share_held_out_is_what_was_asked_and_whole_tasks() -> None:
    rows = [
        RawRow(n, "test", {"prompt": "a", "chosen": f"word{n}", "rejected": "c", "task_id": n // 2})
        for n in range(4000)
    ]
    pairs = clean(rows, CleaningRules(holdout_percent=20)).clean
    held_out = [pair for pair in pairs if pair.split == "holdout"]
    assert 0.17 < len(held_out) / len(pairs) < 0.23
    assert not {pair.task_id for pair in held_out} & {pair.task_id for pair in pairs if pair.split == "train"}
