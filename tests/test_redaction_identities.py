"""Who is who stays visible: as many placeholders as there are people, the same one for the same person, ever after."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telemetry_samples import random_record, random_seed

from agentrl_resources.preferences import CleaningRules, RawRow, clean
from agentrl_resources.preferences.pairs import Reason
from agentrl_resources.redaction import Redactor, pseudonym, redact
from agentrl_resources.telemetry import Spool, Warehouse, read_new
from agentrl_resources.telemetry.importer import RejectedLine

PLACEHOLDER = re.compile(r"\[(?:email|phone|iban|card|social_security|secret) \d+\]")


def card(number: int) -> str:
    """A card number with its check digit."""
    body = f"4{number:014}"
    digits = [int(digit) for digit in body[::-1]]
    total = sum(digits[1::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[0::2])
    return f"{body}{-total % 10}"


def iban(number: int) -> str:
    """A German IBAN with its check digits."""
    account = f"{number:018}"
    return f"DE{98 - int(account + '131400') % 97:02}{account}"


MAKERS = {
    "email": lambda number: f"person.{number}@example.org",
    "phone": lambda number: f"+336{number:08}",
    "iban": iban,
    "card": card,
    "social_security": lambda number: f"{100 + number % 800}-{10 + number // 800 % 90}-{1000 + number // 72000}",
    "secret": lambda number: f"sk-{number:020}",
}
SPELLINGS = {
    "email": [str.upper, str.title],
    "phone": [
        lambda value: f"{value[:3]} {value[3]} {value[4:6]} {value[6:8]} {value[8:10]} {value[10:]}",
        lambda value: f"{value[:3]}-{value[3:7]}-{value[7:]}",
        lambda value: value.replace("+", "00"),
        lambda value: f"{value[:3]} (0){value[3:]}",
    ],
    "iban": [lambda value: " ".join(value[start : start + 4] for start in range(0, len(value), 4))],
    "card": [
        lambda value: " ".join(value[start : start + 4] for start in range(0, 16, 4)),
        lambda value: "-".join(value[start : start + 4] for start in range(0, 16, 4)),
    ],
    "social_security": [],
    "secret": [],
}
PEOPLE = st.lists(st.tuples(st.sampled_from(sorted(MAKERS)), st.integers(0, 10**6)), min_size=1, max_size=8)


def as_text(value: str) -> object:
    return f"so it is {value}, she said"


def as_key(value: str) -> object:
    return {value: True}


def as_json(value: str) -> object:
    return json.dumps({"note": f"new line\n{value}\nand a tab\t{value}", "to": [value]})


def as_json_twice(value: str) -> object:
    return json.dumps({"arguments": json.dumps({"to": value, "note": f"é\n{value}"})}, indent=1)


def as_arguments(value: str) -> object:
    return {"name": "send", "arguments": {"to": value, "cc": [value, {"also": value}]}}


PLACES = st.sampled_from([as_text, as_key, as_json, as_json_twice, as_arguments])


@given(PEOPLE, st.lists(PLACES, min_size=8, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_people_are_conserved(people: list[tuple[str, int]], places: list, rng: random.Random) -> None:
    values = [(kind, MAKERS[kind](number)) for kind, number in people]
    trace = [place(value) for (_, value), place in zip(values, places, strict=False)]
    trace += [rng.choice([as_text, as_json])(rng.choice([str, *SPELLINGS[kind]])(value)) for kind, value in values]
    redacted, _ = redact(trace)
    text = json.dumps(redacted, ensure_ascii=False)
    for _, value in values:
        assert value not in text
    named = [set(PLACEHOLDER.findall(json.dumps(part))) for part in redacted]
    first, later = named[: len(values)], named[len(values) :]
    assert first == later, "a person is not the same in another place or spelling"
    assert all(len(names) == 1 for names in first)
    assert len(set(map(frozenset, first))) == len(set(values))
    assert redact(redacted) == (redacted, {})
    for part in redacted:
        if isinstance(part, str) and part.startswith("{"):
            json.loads(part)


@given(PEOPLE, st.lists(st.integers(1, 6), max_size=5))
@settings(max_examples=80, deadline=None)
def test_a_placeholder_that_somebody_typed_is_nobody_else(people: list[tuple[str, int]], typed: list[int]) -> None:
    forged = [f"[{kind} {number}]" for number in typed for kind in MAKERS]
    nested = json.dumps({"text": json.dumps(forged)}).replace("[", "\\u005b")
    values = [MAKERS[kind](number) for kind, number in people]
    for typed_in in ([forged], [nested], [dict.fromkeys(forged, 1)], [f"see {' '.join(forged)}"]):
        redacted, _ = redact([values, *typed_in])
        assert redacted[1:] == typed_in
        assert not set(redacted[0]) & set(forged)
        assert len(set(redacted[0])) == len(set(values))


def test_numbers_follow_the_order_of_appearance_and_start_anew_in_each_scope() -> None:
    assert redact("b@x.org a@x.org b@x.org")[0] == "[email 1] [email 2] [email 1]"
    assert redact("a@x.org")[0] == "[email 1]"
    redactor = Redactor(["a@x.org", "[email 1] b@x.org"])
    assert [redactor.redact("a@x.org"), redactor.redact("[email 1] b@x.org")] == ["[email 2]", "[email 1] [email 3]"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Kim@Example.com", "kim@example.com", True),
        ("kim@example.com", "kim@example.org", False),
        ("kim+a@example.com", "kim+b@example.com", False),
        ("straße@example.com", "strasse@example.com", False),
        ("+44 (0)20 7946 0958", "+442079460958", True),
        ("0044 20 7946 0958", "+44-20-7946-0958", True),
        ("(415) 555-0123", "+1 415 555 0123", True),
        ("1-415-555-0123", "415-555-0123", True),
        ("020 7946 0958", "020 7946 0959", False),
        ("06 12 34 56 78", "+32 6 12 34 56 78", False),  # of which country the first one is, nothing says
        ("password=ada@x.org", "ada@x.org", True),
        ("password=hunter22", "password=hunter23", False),
        ("DE89 3704 0044 0532 0130 00", "DE89370400440532013000", True),
    ],
)
def test_when_two_are_the_same(one: str, other: str, same: bool) -> None:
    first, second = (PLACEHOLDER.findall(text) for text in redact([one, other])[0])
    assert len(first) == len(second) == 1
    assert (first == second) is same


def test_numbers_of_json_and_what_their_keys_say() -> None:
    trace = {
        "card": 4111111111111111,
        "again": "4111 1111 1111 1111",
        "text": '{"card": 4111111111111111, "amount": 12.5}',
        "phone": 14155550123,
        "mobileNumber": "14155550124",
        "said": "(415) 555-0123",
        "password": "hunter22",
        "arguments": '{"password": "hunter22", "pin": null}',
        "order": 4111111111111112,  # its checksum is wrong
        "at": 1763805600000,
        "tweet": 2026111709000000005,
        "count": 3,
        "yes": True,
    }
    redacted, _ = redact(trace)
    assert redacted == trace | {
        "card": "[card 1]",
        "again": "[card 1]",
        "text": '{"card": "[card 1]", "amount": 12.5}',
        "phone": "[phone 1]",
        "mobileNumber": "[phone 2]",
        "said": "[phone 1]",
        "password": "[secret 1]",
        "arguments": '{"password": "[secret 1]", "pin": null}',
    }
    assert redact(redacted) == (redacted, {})


def test_no_entry_is_lost_when_two_keys_are_one_person() -> None:
    redacted, _ = redact({"Ada@x.org": 1, "ada@x.org": 2, "bob@x.org": 3})
    assert redacted == {"[email 1]": 1, "[email 1] (again)": 2, "[email 2]": 3}


def test_an_identifier_is_kept_or_becomes_a_digest_of_its_own() -> None:
    assert pseudonym("refund-1") == "refund-1"
    digests = {pseudonym(f"{name}@x.org") for name in ("ada", "bob")}
    assert len(digests) == 2
    assert not any("@" in digest for digest in digests)


# --- who else redacts -------------------------------------------------------------------------------------------------


def test_a_record_that_was_spooled_is_stored_as_it_was_spooled(tmp_path) -> None:
    rng = random_seed()
    people = [MAKERS[kind](number) for kind in MAKERS for number in range(3)]
    trace = {"messages": [{"role": "user", "content": f"{people} [email 2]"}], "tool_calls": [{"arguments": people}]}
    spool = Spool(tmp_path / "spool")
    spool.append_run(random_record(rng, run_id="r", trace=trace))
    spool.close()
    (record,) = read_new(tmp_path / "spool", {}).runs
    assert record.redacted() == (record.redacted()[0] | {"trace": record.trace}, {})
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.ingest_spool(tmp_path / "spool")
    (row,) = warehouse.query("SELECT trace FROM agent_runs")
    stored = json.loads(row["trace"])
    assert stored == record.trace
    assert len(set(PLACEHOLDER.findall(json.dumps(stored["tool_calls"])))) == len(people)


def test_what_a_client_calls_its_task_is_no_address(tmp_path) -> None:
    kinds = {"task_id": "ada@x.org", "task_type": "refund for ada@x.org"}
    row = random_record(random_seed(), **kinds).redacted()[0]
    assert row["task_id"] == pseudonym("ada@x.org") != pseudonym("bob@x.org")
    assert row["task_type"] == "refund for [email 1]"


def test_a_line_in_quarantine_and_its_reason_name_people_alike() -> None:
    line = RejectedLine("t.jsonl", 1, "success is 'bob@x.org'; it must be true", '{"a": "ada@x.org", "b": "bob@x.org"}')
    row = line.redacted()
    assert row["content"] == '{"a": "[email 1]", "b": "[email 2]"}'
    assert row["reason"] == "success is '[email 2]'; it must be true"


def rows(*sides: tuple[str, str, str]) -> list[RawRow]:
    return [
        RawRow(number, "rows.jsonl", {"prompt": prompt, "chosen": chosen, "rejected": rejected})
        for number, (prompt, chosen, rejected) in enumerate(sides, start=1)
    ]


def test_two_answers_that_name_two_customers_are_a_pair() -> None:
    result = clean(rows(("I am kim@x.org", "Sent to kim@x.org", "Sent to lee@x.org")), CleaningRules())
    (pair,) = result.clean
    assert pair.prompt[0]["content"] == "I am [email 1]"
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("Sent to [email 1]", "Sent to [email 2]")


def test_rows_that_differ_only_in_whose_data_they_hold_are_one() -> None:
    result = clean(
        rows(
            ("I am kim@x.org", "Sent to kim@x.org", "Sent to lee@x.org"),
            ("I am zoe@x.org", "Sent to zoe@x.org", "Sent to adam@x.org"),
            ("I am zoe@x.org", "Sent to adam@x.org", "Sent to adam@x.org, zoe@x.org"),
        ),
        CleaningRules(),
    )
    assert [row.reason for row in result.quarantine] == [Reason.EXACT_DUPLICATE]
    assert len(result.clean) == 2


@given(st.permutations(["ada@x.org", "bob@x.org", "cat@x.org"]), st.booleans())
def test_the_same_two_answers_labelled_both_ways_are_found_whoever_they_name(names: list[str], prompted: bool) -> None:
    prompt = f"I am {names[0]}" if prompted else "Whom do I write to?"
    result = clean(rows((prompt, names[1], names[2]), (prompt, names[2], names[1])), CleaningRules())
    assert [row.reason for row in result.quarantine] == [Reason.CONTRADICTORY_LABEL] * 2


@given(st.permutations(["ada@x.org", "bob@x.org", "cat@x.org"]), st.booleans())
def test_which_side_is_preferred_does_not_show_in_the_numbers(names: list[str], prompted: bool) -> None:
    prompt = f"I am {names[0]}" if prompted else "Whom do I write to?"
    (one,), (other,) = (clean(rows((prompt, *sides)), CleaningRules()).clean for sides in (names[1:], names[:0:-1]))
    assert (one.chosen, one.rejected) == (other.rejected, other.chosen)
