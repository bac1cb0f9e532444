"""Values as tables hold them: what is clear is read, what is not is refused."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.values import (
    is_empty,
    read_count,
    read_flag,
    read_number,
    read_success,
    read_text,
    read_time,
)

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NINE = "2026-11-17T09:00:00.000000Z"
MIDNIGHT = "2026-11-17T00:00:00.000000Z"
SECONDS = int(datetime(2026, 11, 17, 9, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-17T09:00:00Z", NINE),
        ("2026-11-17t09:00:00z", NINE),
        ("2026-11-17 09:00:00", NINE),
        ("2026-11-17 09:00", NINE),
        ("2026-11-17T10:00:00+01:00", NINE),
        ("2026-11-17 14:30:00 +0530", NINE),
        ("2026-11-17 09:00:00+00", NINE),
        ("2026-11-17 09:00:00 UTC", NINE),
        ("2026-11-17T10:00:00+01:00[Europe/Paris]", NINE),
        ("2026-11-17 10:00:00 GMT+01:00", NINE),
        ("2026-11-17 10:00:00.000000123 +0100 CET m=+0.5", NINE),
        ("17/Nov/2026:10:00:00 +0100", NINE),
        ("2026-11-17T09:00:00.0000000+00:00", NINE),
        ("2026-11-17T09:00:00.000000000", NINE),
        ("2026-11-17T09:00:00,000Z", NINE),
        ("2026-11-17T09:00:00.25Z", "2026-11-17T09:00:00.250000Z"),
        ("2026/11/17 09:00:00", NINE),
        ("20261117T090000Z", NINE),
        ("20261117090000", NINE),
        (' "2026-11-17T09:00:00Z" ', NINE),
        ("Timestamp('2026-11-17 09:00:00+0000', tz='UTC')", NINE),
        ("Timestamp('2026-11-17 09:00:00')", NINE),
        ("Tue, 17 Nov 2026 09:00:00 GMT", NINE),
        ("Tue, 17 Nov 2026 10:00:00 +0100", NINE),
        ("17 Nov 2026 09:00:00 -0000", NINE),
        ("Tue, 17 Nov 2026 04:00:00 EST", NINE),
        ("Tuesday, 17-Nov-26 09:00:00 GMT", NINE),
        ("Tue Nov 17 09:00:00 2026", NINE),
        ("Tue Nov 17 09:00:00 UTC 2026", NINE),
        ("Tue Nov 17 2026 10:00:00 GMT+0100 (Central European Standard Time)", NINE),
        ("2026-11-17", MIDNIGHT),
        ("2026-W47-2", MIDNIGHT),
        ("20261117", MIDNIGHT),
        (20261117, MIDNIGHT),
        (SECONDS, NINE),
        (float(SECONDS), NINE),
        (SECONDS + 0.25, "2026-11-17T09:00:00.250000Z"),
        (str(SECONDS), NINE),
        (f"{SECONDS}.0", NINE),
        (SECONDS * 10**3, NINE),
        (str(SECONDS * 10**3), NINE),
        (SECONDS * 10**6, NINE),
        (SECONDS * 10**9, NINE),
        (float(SECONDS * 10**9), NINE),
        (f"{SECONDS / 1e9}e9", NINE),
        ({"$date": {"$numberLong": str(SECONDS * 1000)}}, NINE),
        ({"$date": "2026-11-17T09:00:00Z"}, NINE),
    ],
)
def test_times(value: Any, moment: str) -> None:
    assert read_time({"at": value}, NOW, "at") == moment


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("soon", "must be an ISO 8601 time"),
        ("11/17/2026", "must be"),
        ("17.11.2026", "must be"),
        ("17 Nov 2026 09:00 CET", "must be"),
        ("2026-13-01", "must be"),
        ("2026-11-17T10:00:00[Europe/Paris]", "must be"),
        ("2026-11-17T10:00:00 CET", "must be"),
        ("2026-11-17 09:00 AM", "must be"),
        ("2026-11", "must be"),
        ("12:00", "must be"),
        (True, "must be"),
        ([5], "must be"),
        (10**25, "must be"),
        (1e300, "must be"),
        ("1e9999", "must be"),
        (0, "is before 2015-01-05"),
        ("0", "is before 2015-01-05"),
        (-1, "is before 2015-01-05"),
        (46343, "is before 2015-01-05"),  # Excel's days
        ("1970-01-01", "is before 2015-01-05"),
        ("0001-01-01", "is before 2015-01-05"),
        ("2015-01-04T23:59:59Z", "is before 2015-01-05"),
        ("2099-01-01", "lies in the future"),
        ("2026-11-26T12:06:00Z", "lies in the future"),
        (int(NOW.timestamp()) + 3600, "lies in the future"),
        ("2026-11-27T02:01:00", "lies in the future"),
        ("9999-12-31T23:59:59-12:00", "must be"),
    ],
)
def test_what_is_no_time_of_a_run_is_refused_with_column_and_value(value: Any, reason: str) -> None:
    with pytest.raises(AgentRLError, match=reason) as error:
        read_time({"at": value}, NOW, "at")
    assert str(error.value).startswith(f"at is {value!r}"[:40])


def test_a_clock_may_be_a_little_ahead_and_a_time_without_a_zone_may_be_of_any() -> None:
    assert read_time({"at": "2026-11-26T12:04:00Z"}, NOW, "at") is not None
    assert read_time({"at": "2026-11-27T01:59:00"}, NOW, "at") is not None


MOMENTS = st.datetimes(datetime(2015, 1, 5), datetime(2026, 11, 26, 11)).map(lambda moment: moment.replace(tzinfo=UTC))


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_one_moment_is_the_same_however_it_is_written(moment: datetime, minutes: int) -> None:
    there = moment.astimezone(timezone(timedelta(minutes=minutes)))
    exact = f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
    whole = f"{moment:%Y-%m-%dT%H:%M:%S}.000000Z"
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for value in (there.isoformat(), there.isoformat(" "), micros, str(micros), micros * 1000):
        assert read_time({"at": value}, NOW, "at") == exact
    for value in (format_datetime(there), micros // 10**6, there.strftime("%a %b %d %Y %H:%M:%S GMT%z (There)")):
        assert read_time({"at": value}, NOW, "at") == whole


@pytest.mark.parametrize(
    "empty", [None, "", " ", "null", "NULL", "None", "nan", "NaN", "NaT", "N/A", "<NA>", "\\N", [], {}]
)
def test_an_empty_column_does_not_hide_the_next(empty: Any) -> None:
    assert is_empty(empty)
    assert read_time({"started_at": empty, "timestamp": SECONDS}, NOW, "started_at", "timestamp") == NINE
    assert read_success({"success": empty, "reward": 1}, "success", "reward") is True
    assert read_flag({"a": empty, "b": "no"}, "a", "b") is False
    assert read_number({"a": empty, "b": 2}, "a", "b") == 2
    assert read_count({"a": empty, "b": 2}, "a", "b") == 2
    assert read_text({"a": empty, "b": "x"}, "a", "b") == "x"
    for read in (read_flag, read_number, read_count, read_text, read_success):
        assert read({"a": empty}, "a") is None


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", "no"])
def test_what_says_no_is_not_empty(value: Any) -> None:
    assert read_flag({"a": value, "b": True}, "a", "b") is False
    assert read_success({"a": value, "b": True}, "a", "b") is False


FLAGS = {True: [True, 1, 1.0, "true", "True", "TRUE", "t", "yes", "Y", "on", "1", "1.0", " true "]}
FLAGS[False] = [False, 0, 0.0, "false", "False", "f", "no", "N", "off", "0", "0.0"]


@pytest.mark.parametrize(("value", "flag"), [(value, flag) for flag, values in FLAGS.items() for value in values])
def test_flags(value: Any, flag: bool) -> None:
    assert read_flag({"a": value}, "a") is flag
    assert read_success({"a": value}, "a") is flag


@pytest.mark.parametrize("value", [12.0, 2, -1, 0.5, "12", "maybe", [True], {"a": 1}, 10**400, "1e400"])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(AgentRLError, match=r"a is .*; it must be true or false"):
        read_flag({"a": value}, "a")


@pytest.mark.parametrize(
    ("value", "success"),
    [
        (12.0, True),
        ("12", True),
        (0.99, False),
        ("0.5", False),
        (-3, False),
        (10**300, True),
        ("Resolved", True),
        ("failed", False),
        ("pending", None),
        ("unknown", None),
    ],
)
def test_outcomes(value: Any, success: bool | None) -> None:
    assert read_success({"reward": value}, "reward") is success


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2, 2.0),
        (0.25, 0.25),
        ("0.25", 0.25),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1,234.50", 1234.5),
        ("1,234,567", 1234567.0),
        ({"$numberDouble": "0.5"}, 0.5),
        (" 7 ", 7.0),
        ("-3", -3.0),
    ],
)
def test_numbers(value: Any, number: float) -> None:
    assert read_number({"a": value}, "a") == number


@pytest.mark.parametrize(
    "value", [True, "cheap", "1,234", "0,5", "$3", "1_000", "٣", "1e999", 10**400, float("inf"), [1]]
)
def test_what_is_no_clear_number_is_refused(value: Any) -> None:
    with pytest.raises(AgentRLError, match=r"a is .*; it must be a finite number"):
        read_number({"a": value}, "a")


@pytest.mark.parametrize(
    ("value", "count"), [(2, 2), (12.0, 12), ("123", 123), ("1,234", 1234), ("12.0", 12), ("1e3", 1000)]
)
def test_counts(value: Any, count: int) -> None:
    assert read_count({"a": value}, "a") == count


@pytest.mark.parametrize("value", [True, -1, 12.5, "12.5", "many", "1e400", "1e9999", [2]])
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(AgentRLError, match=r"a is .*; it must be a whole number"):
        read_count({"a": value}, "a")


@pytest.mark.parametrize(
    ("value", "text"), [("r1", "r1"), (7, "7"), (7.0, "7"), ({"$oid": "65f"}, "65f"), (2**70, str(2**70))]
)
def test_names(value: Any, text: str) -> None:
    assert read_text({"a": value}, "a") == text


@pytest.mark.parametrize("value", [True, 7.5, [1], {"a": 1}])
def test_what_is_no_name_is_refused(value: Any) -> None:
    with pytest.raises(AgentRLError, match=r"a is .*; it must be text or a whole number"):
        read_text({"a": value}, "a")
