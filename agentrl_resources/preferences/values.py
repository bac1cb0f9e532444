"""Single values of a table as people export them: what counts as given, and numbers, flags and objects in disguise."""

import ast
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json
from agentrl_resources.preferences.pairs import Reason, Refused
from agentrl_resources.strict_json import parse_json

_WORDS = {"true": True, "yes": True, "false": False, "no": False}
_NO_NUMBER = ("", "nan", "none", "null", "n/a", "na", "-")
_LONGEST_LITERAL = 1_000_000


def given(value: Any) -> bool:
    """Whether a column says anything: null, NaN, empty text and empty lists do not."""
    return not (value is None or value == "" or value == [] or value == {} or value != value)


def plain(value: Any) -> Any:
    """A value of Arrow, pandas or NumPy as JSON has it: bytes as text, dates as ISO text, arrays as lists.

    Arrow fills every struct with all keys of the column, so an empty key counts as one that was not there. Raises
    UnicodeDecodeError on bytes that are no text.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if not _is_null(item)}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, float):
        return None if _is_null(value) else value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode()
    if hasattr(value, "tolist"):  # NumPy: arrays and scalars
        return plain(value.tolist())
    return str(value)


def storable(data: Any) -> Any:
    """The row, or where it is no JSON (half a surrogate pair, NaN, an object, too deep) its text under `line`."""
    try:
        parse_json(canonical_json(data).decode())
    except (AgentRLError, ValueError, RecursionError):
        try:
            text = repr(data)
        except (RecursionError, ValueError):  # Python prints no number of more than 4,300 digits
            text = "(too deep or too long to be shown)"
        return {"line": storable_text(text)[:100_000]}
    return data


def storable_text(text: str) -> str:
    """The text with what is no character (half a surrogate pair) as its number."""
    return text.encode(errors="backslashreplace").decode()


def number(value: Any, what: str) -> float | None:
    """A score; None where there is none. Numbers come as numbers, as text, or as true and false."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            text = value.strip().lower()
            if text in _NO_NUMBER:
                return None
            found = float(_WORDS.get(text, text))
        elif isinstance(value, bool | int | float):
            found = float(value)
        else:
            raise ValueError
        if not math.isfinite(found):
            raise OverflowError
    except (ValueError, OverflowError) as error:
        raise Refused(Reason.UNREADABLE, f"The {what} is not a number: {_short(value)}") from error
    return found


def flag(value: Any) -> bool:
    """True and false, also as text or number."""
    return _WORDS.get(value.strip().lower(), bool(value.strip())) if isinstance(value, str) else bool(value)


def json_object(value: Any, what: str) -> dict[str, Any] | None:
    """An object, also as JSON text; None where there is none."""
    if not given(value):
        return {} if isinstance(value, dict) else None
    found = parsed(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise Refused(Reason.UNREADABLE, f"{what} must be an object: {_short(value)}")
    return found


def parsed(text: str) -> Any:
    """The list or object that a text holds as JSON or as Python writes it; None where it holds none.

    Tables without nested columns (CSV, spreadsheets, databases) hold lists of messages as such texts.
    """
    text = text.strip()
    if text[:1] not in ("[", "{") or text[-1:] not in ("]", "}"):
        return None
    try:
        return parse_json(text)
    except ValueError:
        pass
    if len(text) > _LONGEST_LITERAL:
        return None
    try:
        return parse_json(json.dumps(ast.literal_eval(text)))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def leaves(value: Any) -> Iterator[str]:
    """Every text that a conversation says; keys, and who wrote a message, do not count."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            if key not in ("role", "from", "type"):
                yield from leaves(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from leaves(child)


def words(value: Any) -> Iterator[str]:
    """Every text inside a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for child in value.values():
            yield from words(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from words(child)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no number of more than 4,300 digits
        text = "a number of more than 4,300 digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
