"""JSON as the standard has it. What Python's own reader takes beyond that cannot be written again later."""

import json
import math
from typing import Any

MAX_DEPTH = 100
"""How deep JSON may be nested: far above any chat message, far below what Python can walk through."""


def parse_json(text: str, *, unique_keys: bool = False, halves: bool = False) -> Any:
    """`json.loads` without what JSON does not have: NaN, infinities, half surrogate pairs.

    Also refused: what is nested deeper than `MAX_DEPTH`, numbers that no 64-bit float can hold, and, with
    `unique_keys`, an object that says two things of one key. With `halves` half a pair is taken, for a caller that puts
    pieces together. Raises ValueError, whatever the text is.
    """
    pairs = _one_value_a_key if unique_keys else None
    try:
        value = json.loads(
            text, parse_constant=_not_json, parse_float=_finite, parse_int=_whole, object_pairs_hook=pairs
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if text.count("{") + text.count("[") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if not halves and "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def depth(value: Any) -> int:
    """How many levels of lists and objects lie in each other: 0 for a number, 1 for `[7]`."""
    levels, level = 0, [value]
    while level := [node for node in level if isinstance(node, list | dict)]:
        levels += 1
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    return levels


def _not_json(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{_short(digits)} is too large a number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 300 and not math.isfinite(float(digits)):
        raise ValueError(f"{_short(digits)} is too large a number")
    return int(digits)


def _short(digits: str) -> str:
    return digits if len(digits) <= 40 else f"{digits[:20]}... ({len(digits)} digits)"


def _one_value_a_key(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, value in pairs:
            if value != found[name]:
                raise ValueError(f"it says two things of the key {_short(name)!r}")
    return found
