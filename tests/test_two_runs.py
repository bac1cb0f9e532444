"""Rows that compare two runs of one task, and rows to imitate: what is prompt, whose is what, what is still refused."""

import random
from typing import Any

import pytest

from agentrl_resources.files import digest_json
from agentrl_resources.preferences import CleaningRules, RawRow, Reason, clean, pairs_from

SYSTEM = {"role": "system", "content": "You are the desk."}
RULES = CleaningRules(max_characters=40_000, near_duplicate_similarity=1.0)


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def call(name: str, number: int, **arguments: Any) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": arguments}
    return [
        {"role": "assistant", "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": '{"found": true}'},
    ]


def run(number: int, success: bool | None, messages: list[Any], task: str = "t", **trace: Any) -> dict[str, Any]:
    return {"run_id": f"r{number}", "task_id": task, "task_type": None, "success": success, "human_override": None,
            "trace": {"messages": messages, **trace}}  # fmt: skip


def cleaned(rows: list[dict[str, Any]]) -> Any:
    return clean([RawRow(number, "runs", row) for number, row in enumerate(rows, start=1)], RULES)


GOOD = [SYSTEM, said("user", "cancel my trip"), *call("find", 1, trip="a"), said("user", "yes, that one"),
        said("assistant", "It is cancelled.")]  # fmt: skip
BAD = [SYSTEM, said("user", "please undo the booking"), said("assistant", "I cannot."), said("user", "why?"),
       said("assistant", "I just cannot.")]  # fmt: skip


def test_each_side_keeps_its_own_customer_and_the_shared_beginning_is_the_prompt() -> None:
    found = pairs_from([run(1, True, GOOD), run(2, False, BAD)])
    (pair,) = cleaned(found.rows).clean
    assert found.apart == 1
    assert pair.prompt == [SYSTEM]
    assert [turn["role"] for turn in pair.chosen] == ["user", "assistant", "tool", "user", "assistant"]
    assert [turn["content"] for turn in pair.rejected] == [turn["content"] for turn in BAD[1:]]
    assert pair.metadata["runs"] == {"chosen": "r1", "rejected": "r2"}


def test_without_instructions_the_prompt_is_empty_and_the_row_stands() -> None:
    (pair,) = cleaned(pairs_from([run(1, True, GOOD[1:]), run(2, False, BAD[1:])]).rows).clean
    assert pair.prompt == []
    assert pair.chosen[0] == said("user", "cancel my trip")


def test_what_the_agents_wrote_alike_stays_in_both_sides() -> None:
    """A greeting that both runs open with is the agent's, and is imitated."""
    hello = [said("user", "hi"), said("assistant", "How can I help?")]
    (pair,) = cleaned(pairs_from([run(1, True, [*hello, *GOOD[1:]]), run(2, False, [*hello, *BAD[1:]])]).rows).clean
    assert pair.prompt == hello[:1]
    assert pair.chosen[0] == pair.rejected[0] == hello[1]


def test_two_different_requests_are_refused_unless_the_row_says_that_they_are_runs_of_a_task() -> None:
    sides = {"chosen": GOOD, "rejected": BAD}
    for row, kept in (
        (sides, False),
        ({**sides, "task_id": "t"}, False),
        ({**sides, "compares": "runs"}, False),  # of which task?
        ({**sides, "compares": "apples", "task_id": "t"}, False),
        ({**sides, "compares": "runs", "task_id": "t"}, True),
    ):
        result = cleaned([row])
        assert bool(result.clean) is kept, row.keys()
        assert kept or result.quarantine[0].reason == Reason.UNREADABLE


def test_a_task_on_both_sides_is_a_leak_for_runs_and_demonstrations_alike() -> None:
    rows = [
        {**pairs_from([run(1, True, GOOD), run(2, False, BAD)]).rows[0], "split": "holdout"},
        {**pairs_from([run(3, True, [*GOOD, said("user", "bye")])]).rows[0], "split": "train"},
    ]
    result = cleaned(rows)
    assert [one.reason for one in result.quarantine] == [Reason.SPLIT_LEAK]
    assert [pair.split for pair in result.clean] == ["holdout"]


def test_a_success_without_a_failure_is_to_be_imitated_and_has_no_other_side() -> None:
    found = pairs_from([run(1, True, GOOD), run(2, True, BAD, task="other"), run(3, False, BAD, task="third")])
    assert (found.pairs, found.demonstrations, found.one_sided) == (0, 2, 3)
    first, _ = sorted(cleaned(found.rows).clean, key=lambda pair: pair.metadata["runs"]["chosen"])
    assert first.is_demonstration
    assert (first.prompt, first.rejected) == (GOOD[:2], [])
    assert cleaned([{**found.rows[0], "rejected": BAD}]).quarantine[0].reason == Reason.MISSING_SIDE
    assert cleaned([{**found.rows[0], "chosen": [said("user", "hi")]}]).quarantine[0].reason == Reason.MISSING_SIDE


def test_a_persons_correction_stands_against_the_answer_whatever_became_of_the_run() -> None:
    found = pairs_from([run(1, None, BAD, correction="It is cancelled, you get 20 EUR back."), run(2, None, GOOD)])
    (pair,) = cleaned(found.rows).clean
    assert (found.corrections, found.unknown) == (1, 1)
    assert pair.prompt == BAD[:-1]
    assert pair.chosen == [said("assistant", "It is cancelled, you get 20 EUR back.")]
    assert pair.rejected == BAD[-1:]
    assert pair.annotator == "correction by a person"


@pytest.mark.parametrize("seed", range(20))
def test_prompt_and_sides_are_the_two_runs_and_cleaning_again_changes_nothing(seed: int) -> None:
    """Whatever two runs of a task hold: nothing is lost, doubled, or counted as the agent's that a customer said."""
    dice = random.Random(seed)

    def turns(number: int) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = [SYSTEM] if shared_system else []
        for place in range(dice.randint(1, 4)):
            made.append(said("user", dice.choice(["hi", "yes", f"order {dice.randint(1, 3)}"])))
            if dice.random() < 0.5:
                made += call("find", place, trip=str(dice.randint(1, 3)))
            made.append(said("assistant", dice.choice(["fine", f"answer {number}"])))
        return made

    shared_system = dice.random() < 0.5
    good, bad = turns(1), turns(2)
    result = cleaned(pairs_from([run(1, True, good), run(2, False, bad)]).rows)
    if not result.clean:
        assert result.quarantine[0].reason == Reason.TIE, f"seed {seed}"
        return
    (pair,) = result.clean
    for side, whole in ((pair.chosen, good), (pair.rejected, bad)):
        assert [turn["role"] for turn in [*pair.prompt, *side]] == [turn["role"] for turn in whole], f"seed {seed}"
        texts = [turn.get("content") for turn in [*pair.prompt, *side] if turn["role"] != "tool"]
        assert texts == [turn.get("content") for turn in whole if turn["role"] != "tool"], f"seed {seed}"
    assert not any(turn["role"] == "assistant" for turn in pair.prompt), f"seed {seed}"
    again = cleaned([pair.to_dict()]).clean
    assert [digest_json({**one.to_dict(), "source": ""}) for one in again] == [
        digest_json({**pair.to_dict(), "source": ""})
    ]
