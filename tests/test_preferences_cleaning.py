"""Conservation, idempotence, order invariance, no leaks; and each reason where it belongs and nowhere else."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_resources.preferences import CleaningRules, CleanResult, RawRow, Reason, clean, profile

SCHEMAS = {
    "refund": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "amount": {"type": "integer"}},
        "required": ["order_id", "amount"],
        "additionalProperties": False,
    }
}
RULES = CleaningRules(rubric_weights={"outcome": 5, "style": 1}, tool_schemas=SCHEMAS, max_characters=600)


def rows_of(*data: dict[str, Any]) -> list[RawRow]:
    return [RawRow(number, "test.jsonl", one) for number, one in enumerate(data, start=1)]


def reasons(*data: dict[str, Any], rules: CleaningRules = RULES) -> list[str]:
    """What became of each row: `clean` or the reason of its quarantine."""
    result = clean(rows_of(*data), rules)
    found = {row.row: row.reason.value for row in result.quarantine}
    assert len(result.clean) == len(data) - len(found)
    return [found.get(number, "clean") for number in range(1, len(data) + 1)]


def pair(chosen: Any = "Yes, it is.", rejected: Any = "No.", **more: Any) -> dict[str, Any]:
    return {"prompt": "Is order 1234 late?", "chosen": chosen, "rejected": rejected, **more}


def call(name: str, arguments: Any) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": arguments}
    return [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "name": "refund", "content": "x"},
        {"role": "assistant", "content": "Done."},
    ]


# --- properties over arbitrary mixtures of good and bad rows ----------------------------------------------------------

ANSWERS = st.sampled_from(
    [
        "Yes, it is.",
        "No.",
        "Write to ada@example.org",
        "Write to bob@example.org",
        "word " * 200,
        call("refund", {"order_id": "1234", "amount": 5}),
        call("refund", '{"order_id": "1234", "amount": 5}'),
        call("refund", {"order_id": 1234}),
        call("refund", "{half"),
        [{"role": "user", "content": "Human here"}],
        "one two three four five six seven eight nine ten " * 4,
        "one two three four five six seven eight nine ten " * 4 + "eleven",
        None,
        7,
    ]
)
SCORES = st.fixed_dictionaries({"outcome": st.sampled_from([0, 0.5, 1.0])})
DATA = st.fixed_dictionaries(
    {"chosen": ANSWERS, "rejected": ANSWERS},
    optional={
        "prompt": st.sampled_from(
            ["Is order 1234 late?", "Is order 5678 late?", "", [{"role": "user", "content": "Hi"}]]
        ),
        "task_id": st.sampled_from(["a", "b", 3]),
        "split": st.sampled_from(["train", "test", "?"]),
        "label": st.sampled_from(["chosen", "tie"]),
        "annotator": st.sampled_from(["ann", "ada@example.org"]),
        "rubric_scores": st.fixed_dictionaries({"chosen": SCORES, "rejected": SCORES}),
        "metadata": st.just({"note": "call +14155550123"}),
    },
)
ROWS = st.lists(DATA, max_size=25).map(lambda data: rows_of(*data))
PROPERTY = settings(max_examples=60, deadline=None)


@PROPERTY
@given(ROWS)
def test_every_row_is_in_exactly_one_place(rows: list[RawRow]) -> None:
    result = clean(rows, RULES)
    refused = [row.row for row in result.quarantine]
    assert len(refused) == len(set(refused))
    assert len(rows) == len(result.clean) + len(refused)
    assert profile(result)["raw"] == len(rows)
    for row in result.quarantine:
        assert row.detail


@PROPERTY
@given(ROWS)
def test_cleaning_clean_pairs_changes_nothing(rows: list[RawRow]) -> None:
    first = clean(rows, RULES)
    again = clean([RawRow(n, one.source, one.to_dict()) for n, one in enumerate(first.clean)], RULES)
    assert again == CleanResult(first.clean, [], again.redactions)
    assert not again.redactions


@PROPERTY
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[RawRow], random_source: random.Random) -> None:
    shuffled = random_source.sample(rows, len(rows))
    expected, found = clean(rows, RULES), clean(shuffled, RULES)
    assert found.clean == expected.clean
    assert found.quarantine == expected.quarantine


@PROPERTY
@given(ROWS)
def test_no_task_is_on_both_sides_of_the_split(rows: list[RawRow]) -> None:
    pairs = clean(rows, RULES).clean
    tasks = {split: {one.task_id for one in pairs if one.split == split} for split in ("train", "holdout")}
    assert not tasks["train"] & tasks["holdout"]


@PROPERTY
@given(ROWS)
def test_no_personal_data_is_left_on_either_side(rows: list[RawRow]) -> None:
    result = clean(rows, RULES)
    for stored in (*result.clean, *result.quarantine):
        assert "@example.org" not in str(stored)
        assert "+1415" not in str(stored)


@PROPERTY
@given(ROWS)
def test_raw_rows_are_never_changed(rows: list[RawRow]) -> None:
    before = str(rows)
    clean(rows, RULES)
    assert str(rows) == before


# --- each reason ------------------------------------------------------------------------------------------------------


def test_exact_duplicates_keep_one() -> None:
    assert reasons(pair(), pair(), pair()) == ["clean", "exact_duplicate", "exact_duplicate"]


def test_duplicates_are_found_through_formats_and_personal_data() -> None:
    messages = [{"role": "assistant", "content": "Mail bob@example.org."}]
    assert sorted(reasons(pair("Mail ada@example.org."), pair(messages))) == ["clean", "exact_duplicate"]


def test_the_same_sides_labelled_both_ways_all_go() -> None:
    found = reasons(pair("A.", "B."), pair("A.", "B."), pair("B.", "A."), pair("A.", "C."))
    assert found == ["contradictory_label"] * 3 + ["clean"]


def test_the_same_sides_under_another_prompt_are_no_contradiction() -> None:
    assert reasons(pair("A.", "B."), pair("B.", "A.", prompt="Is order 5678 late?")) == ["clean", "clean"]


def test_ties_by_label_and_by_equal_sides() -> None:
    assert reasons(pair(label="tie"), pair("Same.", "Same."), pair(label="chosen")) == ["tie", "tie", "clean"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ({"outcome": 1, "style": 0}, {"outcome": 0, "style": 1}, "clean"),
        ({"outcome": 0, "style": 1}, {"outcome": 1, "style": 0}, "label_disagrees_with_scores"),
        ({"outcome": 0.5}, {"outcome": 0.54}, "clean"),  # not clearly
        ({"outcome": 0.5}, {"outcome": 0.56}, "label_disagrees_with_scores"),
        ({"outcome": 1}, {"outcome": 1, "style": 1}, "clean"),  # only what both sides have is compared
        ({"unknown": 0}, {"unknown": 1}, "clean"),
    ],
)
def test_labels_are_held_against_the_weighted_scores(chosen: Any, rejected: Any, expected: str) -> None:
    assert reasons(pair(rubric_scores={"chosen": chosen, "rejected": rejected})) == [expected]
    assert reasons(pair(chosen_scores=chosen, rejected_scores=rejected)) == [expected]


@pytest.mark.parametrize(
    ("arguments", "when_chosen", "when_rejected"),
    [
        ({"order_id": "1234", "amount": 5}, "clean", "clean"),
        ('{"order_id": "1234", "amount": 5}', "clean", "clean"),
        ({"order_id": "1234", "amount": "5"}, "malformed_tool_call", "clean"),
        ({"order_id": "1234"}, "malformed_tool_call", "clean"),
        ({"order_id": "1234", "amount": 5, "why": "x"}, "malformed_tool_call", "clean"),
        ('{"order_id": "12', "malformed_tool_call", "malformed_tool_call"),
        ("[1]", "malformed_tool_call", "malformed_tool_call"),
        ('{"amount": NaN}', "malformed_tool_call", "malformed_tool_call"),
    ],
)
def test_a_wrong_call_is_a_fault_when_chosen_and_signal_when_rejected(
    arguments: Any, when_chosen: str, when_rejected: str
) -> None:
    assert reasons(pair(chosen=call("refund", arguments))) == [when_chosen]
    assert reasons(pair(rejected=call("refund", arguments))) == [when_rejected]


def test_an_unknown_tool_is_a_fault_only_where_tools_are_known() -> None:
    unknown = pair(chosen=call("launch", {}))
    assert reasons(unknown) == ["malformed_tool_call"]
    assert reasons(unknown, rules=CleaningRules()) == ["clean"]


def test_length_is_that_of_the_prompt_with_the_longer_side() -> None:
    room = 600 - len(pair()["prompt"])
    assert reasons(pair("a" * room), pair(rejected="b" * (room + 1))) == ["clean", "too_long"]


def test_a_task_on_both_sides_leaves_training() -> None:
    found = reasons(
        pair("A.", task_id="t", split="train"),
        pair("B.", task_id="t", split="test"),
        pair("C.", task_id="u", split="train"),
    )
    assert found == ["split_leak", "clean", "clean"]


LONG = "I looked the order up and it left the warehouse on Monday so it should be with you by the end of the week. " * 2


def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return sorted(reasons(one, other)) == ["clean", "near_duplicate"]


def test_case_punctuation_and_a_word_more_are_near_duplicates() -> None:
    assert near(pair(LONG), pair(LONG.upper().replace(".", " !")))
    assert near(pair(LONG), pair(LONG + "Thanks"))


def test_another_order_is_another_task() -> None:
    assert not near(pair(LONG), pair(LONG, prompt="Is order 1235 late?"))
    assert not near(pair(LONG + "Code 12."), pair(LONG + "Code 13."))


def test_another_tool_is_another_answer() -> None:
    assert not near(pair(LONG, call("refund", {})), pair(LONG, call("cancel", {})))


def test_another_short_answer_to_a_long_prompt_is_another_pair() -> None:
    prompt = LONG * 2
    assert not near(pair("Yes.", prompt=prompt), pair("Certainly not.", prompt=prompt))


def test_swapped_sides_are_no_near_duplicates() -> None:
    other = "Nobody here knows anything about it and you had better ask the carrier, who never answers the phone. " * 2
    assert near(pair(LONG, other), pair(LONG, other + "Sorry"))
    assert not near(pair(LONG, other), pair(other + "Sorry", LONG))


def test_near_duplicates_are_those_that_comparing_all_with_all_finds() -> None:
    seed = 20261122
    print(f"seed {seed}")
    source = random.Random(seed)
    texts = []
    for _ in range(12):
        words = [source.choice("abcdefghij") * source.randint(1, 3) for _ in range(60)]
        for _ in range(6):
            words[source.randrange(60)] = source.choice("klmn")
            texts.append(list(words))
    for similarity in (0.6, 0.8, 0.9, 1.0):
        rules = CleaningRules(near_duplicate_similarity=similarity)
        rows = rows_of(*({"prompt": "Q", "chosen": " ".join(words), "rejected": "x"} for words in texts))
        result = clean(rows, rules)
        kept = [triples(one.chosen[0]["content"]) for one in result.clean]
        for position, one in enumerate(kept):
            assert all(jaccard(one, other) < similarity for other in kept[:position])
        for row in result.quarantine:
            if row.reason == Reason.NEAR_DUPLICATE:
                assert max(jaccard(triples(row.data["chosen"]), other) for other in kept) >= similarity
    assert {row.reason for row in result.quarantine} <= {Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE}


def triples(text: str) -> set[tuple[Any, ...]]:
    """Word triples of a row whose prompt and rejected side are one word each."""
    words = text.split()
    return {("chosen", *triple) for triple in zip(words, words[1:], words[2:], strict=False)} | {("Q",), ("x",)}


def jaccard(one: set[tuple[Any, ...]], other: set[tuple[Any, ...]]) -> float:
    return len(one & other) / len(one | other)


def test_redactions_are_counted_over_what_may_train() -> None:
    result = clean(rows_of(pair("Mail ada@example.org."), pair("Mail bob@x.org.", label="tie")), RULES)
    assert profile(result)["redactions"] == {"email": 1}


def test_an_annotator_known_by_mail_address_stays_one_person() -> None:
    result = clean(rows_of(*(pair(f"{n}.", annotator="ada@example.org") for n in "AB"), pair(annotator="ann")), RULES)
    assert sorted(profile(result)["by_annotator"].values()) == [1, 2]
