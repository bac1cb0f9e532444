"""JSON as the standard has it. What Python's own reader takes beyond that cannot be written again later."""

import json
import math
from typing import Any

MAX_DEPTH = 100
"""How deep JSON may be nested: far above any chat message, far below what Python can walk through."""


def parse_json(text: str, halves: bool = False) -> Any:
    """`json.loads` without what JSON does not have: NaN, infinities, half surrogate pairs. Raises ValueError.

    `halves`: half a pair is taken, for a caller that puts pieces together.
    """
    try:
        value = json.loads(text, parse_constant=_not_json, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not halves and "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value


def _not_json(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large a number")
    return number


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [child for node in level for child in _children(node)]:
        depth += 1
    return depth


def _children(node: Any) -> list[Any]:
    return node if isinstance(node, list) else list(node.values()) if isinstance(node, dict) else []
