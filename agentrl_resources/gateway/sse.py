"""Server-sent events, from the bytes of a stream as they come."""

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True)
class Event:
    """`name` is empty where the stream gives none, `data` where the event carries nothing."""

    name: str
    data: bytes


class EventReader:
    """Bytes in, events out, however the bytes are cut; lines end with CR, LF or both, as the HTML standard has it.

    More than the standard takes: an event whose closing empty line is missing, an object that stands on a line of its
    own without `data:`, and llama.cpp's field `error:`. A byte order mark is the caller's to take off.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        """A line that has not ended yet."""
        self._after_cr = False
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """The events that end with these bytes."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        *whole, rest = _LINE_END.split(data)
        if whole:
            whole[0] = bytes(self._rest) + whole[0]
            self._rest.clear()
        self._rest += rest
        return [event for line in whole for event in self._take(line)]

    def end(self) -> list[Event]:
        """What is left when no more bytes come."""
        last, self._rest = bytes(self._rest), bytearray()
        return [*self._take(last), *self._dispatch()] if last else self._dispatch()

    def _take(self, line: bytes) -> list[Event]:
        if not line:
            return self._dispatch()
        if line[:1] in (b"{", b"["):
            self._data.append(line)
            return []
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value.decode(errors="replace").strip()
        elif field in (b"data", b"error"):
            self._data.append(value)
            self._name = "error" if field == b"error" else self._name
        return []

    def _dispatch(self) -> list[Event]:
        if not self._name and not self._data:
            return []
        event = Event(self._name, b"\n".join(self._data))
        self._name, self._data = "", []
        return [event]
