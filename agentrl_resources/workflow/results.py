"""What a tool returned, as text or JSON: turned into it once, when the tool returns, so that every policy, local or
remote, and every stored trace has the same. It is a copy: what the environment changes later does not change it.
"""

import dataclasses
import io
import json
import math
import re
from collections import UserString
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from datetime import date, time
from enum import Enum
from types import SimpleNamespace
from typing import Any

DONE = "done"
"""What the agent sees of a tool that returns None."""
CUT = "... (cut)"
"""Stands where a result was too long, nested too deeply, or holds itself."""
MAX_DEPTH = 40
_LONGEST_KEY = 1000
_ADDRESS = re.compile(r"<.* at 0x[0-9a-fA-F]+.*>", re.DOTALL)
"""A text that says nothing but where in memory something lies."""


class NoTextError(Exception):
    """There is no text for a value."""


def snapshot(value: Any, limit: int) -> Any:
    """A tool's result as the agent sees it: text, or what JSON has.

    Numbers, texts, lists and objects stay what they are. Sets are sorted; keys that are no text become text; what has
    fields (dataclass, named tuple, pydantic, attrs) becomes an object, tables a list of rows, arrays lists, an Enum its
    value, bytes their text, and everything else (Decimal, date, UUID, Path, exception, ...) its own text. NaN and
    infinities, which JSON does not have, are texts, as pydantic writes them. None is `DONE`.

    Args:
        value: what the tool returned.
        limit: characters after which the rest is left out.

    Raises:
        NoTextError: it has no text (a function, an object without one).
    """
    return DONE if value is None else _Copy(limit).of(value, ())


def clean(text: str) -> str:
    """A text that can be encoded: half surrogate pairs become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class _Copy:
    def __init__(self, limit: int) -> None:
        self._left = limit

    def of(self, value: Any, inside: tuple[int, ...]) -> Any:
        """`inside`: ids of the containers around the value."""
        kind = type(value)
        if kind is str:
            return self._text(value)
        if value is None or kind is bool:
            self._left -= 4
            return value
        if kind is int:
            return self._whole(value)
        if kind is float:
            return self._number(value)
        if id(value) in inside or len(inside) > MAX_DEPTH:
            return self._text(CUT)
        inside = (*inside, id(value))
        if kind is dict:
            return self._object(value.items(), inside)
        if kind is list or kind is tuple:
            return self._list(value, inside)
        return self._other(value, inside)

    def _other(self, value: Any, inside: tuple[int, ...]) -> Any:
        if isinstance(value, Enum):
            return self.of(value.value, inside)
        if isinstance(value, str | UserString):
            return self._text(str.__str__(value) if isinstance(value, str) else value.data)
        if isinstance(value, int):
            return self._whole(int(value))
        if isinstance(value, float):
            return self._number(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(bytes(value).decode("utf-8", "backslashreplace"))
        if isinstance(value, date | time):
            return self._text(value.isoformat())
        if isinstance(value, BaseException):
            return self._text(f"{type(value).__name__}: {value}".removesuffix(": "))
        if not isinstance(value, type | io.IOBase):  # a file would be read to its end
            if (fields := _fields(value)) is not None:
                return self._object(fields, inside)
            if (items := _items(value)) is not None:
                return self._list(items, inside)
            if (plain := _plain(value)) is not value:
                return self.of(plain, inside)
        text = str(value)
        if not _ADDRESS.fullmatch(text):
            return self._text(text)
        attributes = {name: one for name, one in getattr(value, "__dict__", {}).items() if name[0] != "_"}
        if not attributes or callable(value):
            raise NoTextError(type(value).__name__)
        return self._object(attributes.items(), inside)

    def _text(self, text: str) -> str:
        text = clean(text)
        left, self._left = self._left, self._left - len(text) - 2
        return text if len(text) <= left or text == CUT else text[: max(left, 0)] + CUT

    def _whole(self, value: int) -> Any:
        self._left -= 8
        if value.bit_length() < 64:
            return value
        # Python writes no more than some thousand digits, and few readers of JSON read more than twenty
        return self._text(str(value) if value.bit_length() < 10_000 else hex(value))

    def _number(self, value: float) -> Any:
        self._left -= 8
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _list(self, items: Iterable[Any], inside: tuple[int, ...]) -> list[Any]:
        copied: list[Any] = []
        for item in items:
            if self._left <= 0:
                copied.append(CUT)
                break
            self._left -= 2
            copied.append(self.of(item, inside))
        return copied

    def _object(self, fields: Iterable[tuple[Any, Any]], inside: tuple[int, ...]) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, item in fields:
            if self._left <= 0:
                copied["..."] = CUT
                break
            name = key if type(key) is str and len(key) < _LONGEST_KEY and key.isascii() else _name(key)
            self._left -= len(name) + 4
            while name in copied:  # 1 and "1" are two keys in Python
                name = f"{name} ({type(key).__name__})"
            copied[name] = self.of(item, inside)
        return copied


def _name(key: Any) -> str:
    """A key as JSON's text: as `json.dumps` writes it where it does."""
    plain = _Copy(_LONGEST_KEY).of(key, ())
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, sort_keys=True)


def _fields(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """The fields of what has any, by name; None for what has none."""
    kind = type(value)
    if isinstance(value, Mapping):
        return value.items()
    if callable(getattr(kind, "_asdict", None)):
        return dict(value._asdict()).items()
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, SimpleNamespace):
        return vars(value).items()
    if hasattr(kind, "__attrs_attrs__"):
        return [(field.name, getattr(value, field.name)) for field in kind.__attrs_attrs__]
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__") and not hasattr(kind, "to_dict"):  # a database's row
        return [(key, value[key]) for key in value.keys()]  # noqa: SIM118
    return None


def _items(value: Any) -> Iterable[Any] | None:
    """What is in a collection, in an order that does not change from process to process; None for what is none."""
    if isinstance(value, Sequence | Iterator | MappingView):
        return value  # type: ignore[return-value]
    return sorted(value, key=_order) if isinstance(value, Set) else None


def _order(item: Any) -> tuple[str, Any]:
    """Numbers by size, everything else by its text."""
    if isinstance(item, int | float) and item == item:
        return ("", item)
    return (type(item).__name__, json.dumps(_Copy(_LONGEST_KEY).of(item, ()), ensure_ascii=False, sort_keys=True))


def _plain(value: Any) -> Any:
    """A table, array, number or model of a library (pandas, polars, pyarrow, numpy, torch, pydantic, ...) as Python's
    own; the value itself when it is none. Only the class is asked: an instance may answer to any name."""
    kind = type(value)
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):  # numpy's times: as text, not nanoseconds
        return str(value) if getattr(value, "shape", None) == () else value.astype(str).tolist()
    if kind.__module__.partition(".")[0] == "pandas" and hasattr(kind, "to_dict"):
        unnamed = type(value.index).__name__ == "RangeIndex"
        if kind.__name__ == "Series":
            return value.tolist() if unnamed else value.to_dict()
        return (value if unnamed else value.reset_index()).to_dict("records")
    for method in ("model_dump", "to_dicts", "to_pylist", "tolist"):
        if callable(getattr(kind, method, None)):
            return getattr(value, method)()
    return value
