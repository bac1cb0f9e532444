"""Tool calls put together from the pieces in which servers stream them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.strict_json import parse_json


class Malformed(ValueError):
    """An answer that is not of the protocol's form; says how, without what stands in it."""


@dataclass(eq=False)
class Call:
    """One call. `id` is empty until the server gives one; `arguments` is JSON as text, as far as it has come."""

    id: str = ""
    index: int | None = None
    name: str = ""
    arguments: str = ""
    others: dict[str, Any] = field(default_factory=dict)
    """A vendor's own fields (a signature of the thought behind it), which some want back."""

    @property
    def finished(self) -> bool:
        """Whether its arguments are an object that has come to its end."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            return isinstance(parse_json(self.arguments), dict)
        except ValueError:
            return False

    def to_dict(self) -> dict[str, Any]:
        """The call as the protocol has it; without arguments, it has an empty object."""
        arguments = "{}" if self.arguments.strip() in ("", "null") else self.arguments
        function = {"name": self.name, "arguments": arguments}
        return {**self.others, "id": self.id, "type": "function", "function": function}


class Calls:
    """The calls of one message.

    The protocol tells calls apart by `index`. Servers leave it out, give each call index 0, give an id with the first
    piece, with each or with none, repeat the name with each piece, or write arguments as the object that they are.
    What a piece continues is therefore decided by all of these.
    """

    def __init__(self) -> None:
        self._calls: list[Call] = []

    def add(self, pieces: Sequence[Any], whole: bool = False) -> None:
        """Takes the `tool_calls` of a delta or, with `whole`, of a message. Malformed when a piece is no object."""
        before = list(self._calls)
        for position, piece in enumerate(pieces):
            if piece is None:
                continue
            if not isinstance(piece, Mapping):
                raise Malformed("a tool call is no object")
            function = piece.get("function")
            if function is not None and not isinstance(function, Mapping):
                raise Malformed("the function of a tool call is no object")
            if function is None:
                function = piece if isinstance(piece.get("name"), str) else {}
            call_id, index = _text(piece.get("id")), _number(piece.get("index"))
            name, arguments = _text(function.get("name")), _text(function.get("arguments"))
            call = None
            if not whole:
                behind = len(pieces) - position
                call = self._meant(before, behind, call_id, index, name)
                begun_just_now = bool(name) and call not in before
                if call is not None and (begun_just_now or not _continues(call, call_id, index, name, arguments)):
                    call = None
            if call is None:
                if not (call_id or name or arguments.strip()):
                    continue
                call = Call(call_id, index)
                self._calls.append(call)
            _extend(call, call_id, index, name, arguments)
            known = ("id", "index", "type", "function", "name", "arguments")
            call.others |= {key: value for key, value in piece.items() if key not in known and value is not None}

    def _meant(self, before: list[Call], behind: int, call_id: str, index: int | None, name: str) -> Call | None:
        """The call that a piece may belong to: of its index, of its id, in its place, or the last one.

        `before` are the calls before this delta, of which the piece is the `behind`-th from the end.
        """
        if index is not None and (found := [call for call in self._calls if call.index == index]):
            return found[-1]
        if call_id and (found := [call for call in self._calls if call.id == call_id and None in (index, call.index)]):
            return found[-1]
        if index is not None and (call_id or name):
            return None
        if len(before) >= behind:
            return before[-behind]
        return before[-1] if before else None

    def to_list(self) -> list[dict[str, Any]]:
        """The calls as the protocol has them, in the order of their index. Malformed when one has no name."""
        if not all(call.name for call in self._calls):
            raise Malformed("a tool call without a name")
        indices = [call.index for call in self._calls if call.index is not None]
        calls = self._calls
        if len(set(indices)) == len(calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.to_dict() for call in calls]

    def __bool__(self) -> bool:
        return bool(self._calls)


def _continues(call: Call, call_id: str, index: int | None, name: str, arguments: str) -> bool:
    """Whether a piece goes on with this call, rather than beginning the next one."""
    other_id = bool(call_id and call.id and call_id != call.id)
    if not name:  # there are servers that invent an id for each piece
        return not (other_id and call.finished and arguments.strip())
    if other_id:
        return False
    same_id = bool(call_id and call_id == call.id)
    if call.finished and arguments.strip() and call.arguments.strip() != "{}":
        return same_id and arguments == call.arguments  # the whole call once more
    if name == call.name:
        return same_id or not call.finished or not arguments.strip()
    linked = same_id or (index is not None and index == call.index)  # a name may come in pieces
    return not call.name or (linked and not call.arguments.strip())


def _extend(call: Call, call_id: str, index: int | None, name: str, arguments: str) -> None:
    call.id = call.id or call_id
    call.index = index if call.index is None else call.index
    call.name = name if name.startswith(call.name) else call.name + name
    if call.arguments.strip() == "{}" and arguments.strip():
        call.arguments = ""  # stood for arguments that had yet to come
    if arguments != call.arguments or not call.finished:
        call.arguments += arguments


def _text(value: Any) -> str:
    """Ids may be numbers, arguments may be the object that they describe."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
