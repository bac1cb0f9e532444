"""Values as people export them: the same time, flag or number is written in many ways, and a column may be empty.

Each reader takes a row and the names of the columns that may hold the value, the first one first. It returns the value
of the first column that is not empty, or None; what is not clear is refused, never guessed, with an `AgentRLError` that
says which column holds what.

    empty     null, "", "null", "none", "nan", "nat", "n/a", "na", "<na>", "\\N", [], {}, in any case
    times     ISO 8601 in its usual variants, RFC 2822 and HTTP dates, 20261117, Unix time in s, ms, us or ns
    flags     true, 1, 1.0, "yes", "on" and their opposites
    numbers   12, "12", "1.2e-3", "1,234.50"; of counts also 12.0 and "1,234"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_tz
from typing import Any, TypeVar

from agentrl_resources.errors import AgentRLError

EARLIEST = datetime(2015, 1, 5, tzinfo=UTC)
"""A Monday. A run that is dated before it was not made by an agent: its time is a zero, or in another unit."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far a clock may be ahead of ours."""

ANY_ZONE = timedelta(hours=14)
"""How far a time that names no zone (it is taken as UTC) may be ahead: that of the first zone on earth."""

SUCCESS_WORDS = dict.fromkeys(
    ("success", "successful", "succeeded", "pass", "passed", "resolved", "solved", "completed", "correct", "ok"), True
) | dict.fromkeys(
    ("failure", "failed", "fail", "error", "unresolved", "unsolved", "incorrect", "aborted", "timeout"), False
)  # fmt: skip
_FLAG_WORDS = dict.fromkeys(("true", "t", "yes", "y", "on"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "off"), False
)
_NOT_KNOWN_YET = {"unknown", "pending"}
_EMPTY = {"", "null", "none", "nan", "nat", "n/a", "na", "<na>", "\\n"}

Read = TypeVar("Read")


def is_empty(value: Any) -> bool:
    """Whether a column says nothing."""
    if isinstance(value, str):
        return value.strip().lower() in _EMPTY
    return value is None or value == [] or value == {}


def read_time(row: Mapping[str, Any], now: datetime, *names: str) -> str | None:
    """The moment as `utc_iso` writes it. Refused when it is in the future, or before `EARLIEST`."""
    wanted = "an ISO 8601 time such as 2026-11-22T10:00:00Z, or Unix time"
    return _read(row, names, lambda value: plausible(*_moment(value), now), wanted)


def read_flag(row: Mapping[str, Any], *names: str) -> bool | None:
    return _read(row, names, _flag, "true or false")


def read_success(row: Mapping[str, Any], *names: str) -> bool | None:
    """Whether the task was done: a flag, a word, or a reward, of which 1 and more is a success."""
    said = {name: row.get(name) for name in names}
    known = {name: value for name, value in said.items() if _word(value) not in _NOT_KNOWN_YET}
    return _read(known, names, _success, f"true, false, a number, or one of {', '.join(SUCCESS_WORDS)}")


def read_number(row: Mapping[str, Any], *names: str) -> float | None:
    return _read(row, names, _number, "a finite number")


def read_count(row: Mapping[str, Any], *names: str) -> int | None:
    return _read(row, names, _count, "a whole number, zero or more")


def read_text(row: Mapping[str, Any], *names: str) -> str | None:
    """Text; a whole number is a name, too."""
    return _read(row, names, _text, "text or a whole number")


def plausible(moment: datetime, zone_known: bool, now: datetime) -> str:
    """`moment` in UTC as text, such as `2026-11-22T10:00:00.000000Z`.

    Raises `AgentRLError` for what lies before `EARLIEST`, or after `now` by more than a clock may be ahead.
    """
    text = f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    if moment < EARLIEST:
        raise AgentRLError(f"{text[:10]} is before {EARLIEST:%Y-%m-%d}: is it a zero, or in another unit?")
    if moment > now + (CLOCK_SKEW if zone_known else ANY_ZONE):
        raise AgentRLError(f"{text[:19]}Z lies in the future, now is {now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return text


def past_time(name: str, stated: str, now: datetime | None = None) -> str:
    """A time that somebody states, such as that of a label, by the rules of `read_time`; `name` is for the message."""
    moment = read_time({name: stated}, now or datetime.now(UTC), name)
    if moment is None:
        raise AgentRLError(f"{name} is {shown(stated)}; it must be a time such as 2026-11-22T10:00:00Z")
    return moment


def shown(value: Any) -> str:
    """A value in an error message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(row: Mapping[str, Any], names: tuple[str, ...], convert: Callable[[Any], Read], wanted: str) -> Read | None:
    for name in names:
        value = _unwrapped(row.get(name))
        if is_empty(value):
            continue
        try:
            return convert(value)
        except AgentRLError as error:
            raise AgentRLError(f"{name} is {shown(value)}: {error}") from error
        except (ValueError, TypeError, ArithmeticError) as error:
            raise AgentRLError(f"{name} is {shown(value)}; it must be {wanted}") from error
    return None


def _unwrapped(value: Any) -> Any:
    """The value inside of MongoDB's extended JSON: {"$date": {"$numberLong": "1763805600000"}}."""
    while isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _WRAPPERS:
        (value,) = value.values()
    return value


_WRAPPERS = ("$date", "$oid", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal")


def _word(value: Any) -> str | None:
    return value.strip().lower() if isinstance(value, str) else None


# --- numbers and flags ------------------------------------------------------------------------------------------------

_PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_GROUPED_NUMBER = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_MOST_DIGITS = 300


def _decimal(value: Any) -> Decimal:
    """A number, or a text that is one and nothing else."""
    if isinstance(value, str):
        value = value.strip()
        if len(value) > _MOST_DIGITS or not _PLAIN_NUMBER.fullmatch(value):
            raise ValueError("not a number")
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        raise ValueError("not finite")
    return number


def _number(value: Any) -> float:
    if isinstance(value, str) and _GROUPED_NUMBER.fullmatch(value.strip()):
        # 1,234 may be a thousand or one and a bit; 1,234,567 and 1,234.50 may not.
        if value.count(",") < 2 and "." not in value:
            raise ValueError("a comma that may be a decimal one")
        value = value.replace(",", "")
    number = float(_decimal(value))
    if number in (float("inf"), float("-inf")):
        raise ValueError("not finite")
    return number


def _count(value: Any) -> int:
    if isinstance(value, str) and _GROUPED_NUMBER.fullmatch(value.strip()):
        value = value.replace(",", "")
    number = _decimal(value)
    if abs(number.adjusted()) > _MOST_DIGITS or number != (whole := int(number)) or whole < 0:
        raise ValueError("not a whole number")
    return whole


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if (word := _word(value)) in _FLAG_WORDS:
        return _FLAG_WORDS[word]
    number = _decimal(value)
    if number not in (0, 1):
        raise ValueError("neither true nor false")
    return number == 1


def _success(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = SUCCESS_WORDS | _FLAG_WORDS
    if (word := _word(value)) in words:
        return words[word]
    return _decimal(value) >= 1


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps, as pandas keeps it
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("neither text nor a whole number")


# --- times ------------------------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))
"""Below the first number the time is in units of which the second make a second: for dates from 1973 to 5138."""
_COMPACT = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}

_PANDAS = re.compile(r"""(?:\w+\.)*Timestamp\(\s*['"]([^'"]+)['"][^)]*\)""")
_YEAR_FIRST = re.compile(r"(\d{4})([/.-])(\d{1,2})\2(\d{1,2})(?!\d)(.*)", re.DOTALL)
_ZONE_NAME = re.compile(  # behind an offset: [Europe/Paris] as Java has it, CET as Go has it
    r"(?:(?<=[+-]\d\d:\d\d)|(?<=[+-]\d{4})|(?<=[Zz]))(?:\[[\w/+-]+\]| [A-Z]{3,5}(?: m=\S+)?)$"
)
_NAMED_OFFSET = re.compile(r"\s*(?:UTC|GMT)([+-]\d\d:?\d\d)$", re.IGNORECASE)
_UTC_SUFFIX = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
_JAVASCRIPT = re.compile(r"(\w{3}) (\w{3}) (\d{1,2}) (\d{4}) ([\d:]{8}) (?:GMT|UTC)([+-]\d{4})(?: \(.*\))?")
_APACHE = re.compile(r"(\d{1,2})/(\w{3})/(\d{4}):([\d:]{8}) ([+-]\d{4})")
_ASCTIME = re.compile(r"\w{3} (\w{3}) +(\d{1,2}) ([\d:]{8})( UTC| GMT|) (\d{4})")
_MAIL = re.compile(
    r"""(?:[A-Za-z]{3,9},?\ +)? \d{1,2}[\ -][A-Za-z]{3}[\ -](?:\d{4}|\d\d) \ +\d{1,2}:\d\d(?::\d\d)?
        (?P<zone>\ *[+-]\d{4} | \ +(?:GMT|UTC|UT|Z|[ECMP][SD]T))? (?:\ +\([^)]*\))?""",
    re.VERBOSE,
)


def _moment(value: Any) -> tuple[datetime, bool]:
    """The moment in UTC, and whether its zone was given. Raises ValueError or ArithmeticError."""
    if isinstance(value, datetime):
        return _in_utc(value)
    text = value.strip().strip("'\"").strip() if isinstance(value, str) else value
    try:
        number = _decimal(text)
    except ValueError:
        if not isinstance(text, str):
            raise
        return _moment_of_text(text)
    digits = str(text)
    if len(digits) in _COMPACT and digits.isdecimal() and digits[:2] in ("19", "20"):
        return _in_utc(datetime.strptime(digits, _COMPACT[len(digits)]))
    for below, in_a_second in _UNITS:
        if abs(number) < below:
            return _EPOCH + timedelta(microseconds=int(number * 1_000_000 / in_a_second)), True
    raise ValueError("no time")


def _moment_of_text(text: str) -> tuple[datetime, bool]:
    if pandas := _PANDAS.fullmatch(text):
        text = pandas[1]
    if year_first := _YEAR_FIRST.fullmatch(text):
        year, _, month, day, rest = year_first.groups()
        rest = _UTC_SUFFIX.sub("+00:00", _NAMED_OFFSET.sub(r"\1", _ZONE_NAME.sub("", rest)))
        return _in_utc(datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}{rest}"))
    if text[:4].isdecimal():  # 20261117T090000Z, 2026-W47-2
        return _in_utc(datetime.fromisoformat(_UTC_SUFFIX.sub("+00:00", text)))
    text = _JAVASCRIPT.sub(r"\1, \3 \2 \4 \5 \6", text)
    text = _APACHE.sub(r"\1 \2 \3 \4 \5", text)
    text = _ASCTIME.sub(r"\2 \1 \5 \3\4", text)
    mail = _MAIL.fullmatch(text)
    parts = parsedate_tz(text) if mail else None
    if mail is None or parts is None:
        raise ValueError("no time")
    offset = timedelta(seconds=parts[9] or 0)
    return datetime(*parts[:6], tzinfo=UTC) - offset, mail["zone"] is not None


def _in_utc(moment: datetime) -> tuple[datetime, bool]:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC), False
    return moment.astimezone(UTC), True
