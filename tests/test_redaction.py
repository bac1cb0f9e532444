"""Personal data goes, numbers that a shop lives on stay."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl_resources.redaction import redact

IBAN = "GB82 WEST 1234 5698 7654 32"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ada.b+c@ex-ample.co.uk now", "write to [email 1] now"),
        ("call (555) 123-4567, or 1-800-555-1234.", "call [phone 1], or [phone 2]."),
        ("+33 6 12 34 56 78 within 4 days", "[phone 1] within 4 days"),
        ("+33612345678 14 days", "[phone 1] 14 days"),
        ("+44 20 7946 0958 14 days", "[phone 1] 14 days"),
        ("0033 6 12 34 56 78", "[phone 1]"),
        ("06.12.34.56.78 or 07911 123456", "[phone 1] or [phone 2]"),
        (f"{IBAN} PLEASE", "[iban 1] PLEASE"),
        ("iban DE89370400440532013000.", "iban [iban 1]."),
        ("4111 1111 1111 1111, 378282246310005", "[card 1], [card 2]"),
        ("ssn 123-45-6789", "ssn [social_security 1]"),
        ('{"password": "hunter22"}', '{"password": "[secret 1]"}'),
        ("api_key=abc123def and Bearer abcdefghijklmnop123", "api_key=[secret 1] and Bearer [secret 2]"),
        ("sk-abcdefghijklmnopqrstuv", "[secret 1]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nok", "[secret 1]\nok"),
    ],
)
def test_personal_data_is_replaced_by_its_kind_and_a_number(text: str, expected: str) -> None:
    assert redact(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "orders 4111, 1111 and 1111 for 59.90 EUR",
        "order 1234 5678 9012 3456",  # no card: its checksum is wrong
        "orders 0612 3456 7890 and 0012 3456 7890 1234",
        "GB82 WEST 1234 5698 7654 33",  # no IBAN: its checksum is wrong
        "2026-11-22 10:30, 2026-11-22T10:30:00+00:00, 1700000000",
        "$10,000,000.00, 0.0612345678, 1 000 000",
        "flight HAT001, order-555-123-4567, version 1.2.3.4",
        "the key: patience. A token of thanks, password reset.",
    ],
)
def test_other_numbers_and_words_stay(text: str) -> None:
    assert redact(text) == (text, Counter())


@given(
    order=st.integers(0, 9999).map("{:04}".format),
    amount=st.decimals(0, 99999, places=2),
    days=st.integers(0, 400),
    date=st.dates(),
)
def test_order_ids_amounts_dates_and_day_counts_are_never_touched(order, amount, days, date) -> None:
    text = f"Order {order} of {date} for {amount} EUR, returned after {days} days; see {order}, {order} and #{order}."
    assert redact(text)[0] == text


PIECES = st.sampled_from(
    [
        "ada@x.org",
        IBAN,
        "4111 1111 1111 1111",
        "+33 6 12 34 56 78",
        "password=",
        "hunter22",
        "sk-" + "a1" * 10,
        "order 1234",
    ]
)


@given(st.lists(PIECES | st.text(max_size=8), max_size=8), st.sampled_from(["", " ", ", ", "\n"]))
def test_redacting_twice_changes_nothing_more(pieces: list[str], glue: str) -> None:
    once, _ = redact(glue.join(pieces))
    assert redact(once) == (once, Counter())


@given(st.text(alphabet="abc .,;\n", max_size=30), st.text(alphabet="abc .,;\n", max_size=30))
def test_only_the_personal_data_itself_is_lost(before: str, after: str) -> None:
    text, found = redact(f"{before} ada@example.org {after}")
    assert (text, found) == (f"{before} [email 1] {after}", Counter(email=1))


def test_json_keeps_its_shape_and_everything_is_counted() -> None:
    value = {"a": ["ada@x.org", 5, None, {"b": "bob@x.org, +14155550123"}], "ada@x.org": True}
    expected = {"a": ["[email 1]", 5, None, {"b": "[email 2], [phone 1]"}], "[email 1]": True}
    assert redact(value) == (expected, Counter(email=3, phone=1))


def test_long_text_without_blanks_is_quick() -> None:
    for unit in ("a", "1", "A1", "a.", "a@", "+1", "-", "0 ", "eyJ."):
        redact(unit * 20_000)


def test_numbers_that_touch_are_all_found() -> None:
    assert redact("+33 6 12 34 56 78" * 200)[1] == Counter(phone=200)


def test_kinds_are_words_that_survive_a_tokenizer() -> None:
    _, found = redact(f"ada@x.org {IBAN} 4111111111111111 +14155550123 123-45-6789 password: hunter22")
    assert all(re.fullmatch("[a-z_]+", kind) for kind in found)
    assert len(found) == 6
