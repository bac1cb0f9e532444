"""What a server says when it fails or refuses, in the shapes in which servers say it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentrl_resources.strict_json import parse_json

REFUSED = (400, 413, 422)
"""Statuses with which a server does not accept what it was sent."""

_THE_MODELS = ("tool_use_failed", "json_validate_failed", "output_parse_failed")
"""What Groq says, with status 400, when its model wrote a call or an answer that cannot be read."""
_FAILURE = re.compile("error|fail|invalid|denied|limit|exceed|unavailable")
_LABEL = re.compile(r"[A-Za-z][\w.-]{0,63}")
_MOST_TEXT = 20_000


@dataclass(frozen=True)
class ServerError:
    """An error of a server.

    `status` is the HTTP status, also where the error stands in an answer with status 200; `code` names its kind, and
    `param` the field that is at fault, where the server says so. `text` is all of its words, for looking up which
    fields it names: it may hold what a customer said, and is not to be shown.
    """

    status: int | None
    code: str | None
    param: str | None
    text: str

    @property
    def label(self) -> str:
        """Its kind in brackets, for the end of a sentence; empty without one."""
        return f" ({self.code or self.status})" if self.code or self.status else ""

    @property
    def refuses(self) -> bool:
        """Whether it is what was sent that is at fault, and not what the model wrote."""
        return self.status in REFUSED and self.code not in _THE_MODELS


def error_in(chunk: Mapping[str, Any]) -> Any:
    """The error that an answer, or a chunk of a stream, is in place of content; None when it is none."""
    groq = chunk.get("x_groq")
    for place in (chunk, groq if isinstance(groq, Mapping) else {}):
        if error := place.get("error"):
            return error
    if "error" in (str(chunk.get(name)).lower() for name in ("object", "type")):
        return chunk
    if chunk.get("choices") is None:
        failed = any(_is_failure(chunk.get(name)) for name in ("code", "status_code", "status"))
        if chunk.get("detail") or (chunk.get("message") and failed):
            return chunk
    return None


def _is_failure(code: Any) -> bool:
    """Whether a code or a status speaks of a failure; one that tells of progress does not."""
    if isinstance(code, int | str) and str(code).isdecimal():
        return int(code) >= 300
    return (
        isinstance(code, str)
        and re.search("error|fail|invalid|denied|limit|exceed|unavailable", code.lower()) is not None
    )


def server_error(said: Any, status: int | None = None) -> ServerError:
    """Reads an error: an object, possibly inside `error`, `detail` or a list, or plain text."""
    levels = list(_levels(said))
    codes = [level.get(name) for name in ("code", "type", "status") for level in levels]
    label = next((code for code in codes if isinstance(code, str) and _LABEL.fullmatch(code)), None)
    if status is None:
        numbers = (int(code) for code in codes if isinstance(code, int | str) and str(code).isdecimal())
        status = next((number for number in numbers if 400 <= number < 600), None)
    param = next((level["param"] for level in levels if isinstance(level.get("param"), str)), None)
    return ServerError(status, label, param, " ".join(_words(said))[:_MOST_TEXT])


def read_error(status: int, body: bytes) -> ServerError:
    """The error in an answer with a status that says so, whatever its body is."""
    text = body[:_MOST_TEXT].decode(errors="replace")
    try:
        return server_error(parse_json(text), status)
    except ValueError:
        return server_error(text, status)


def _levels(said: Any) -> Iterator[Mapping[str, Any]]:
    """The objects in which an error's code may stand, from the inside out."""
    if isinstance(said, list):
        for one in said[:1]:
            yield from _levels(one)
    if isinstance(said, Mapping):
        for name in ("error", "detail"):
            yield from _levels(said.get(name))
        yield said


def _words(said: Any) -> Iterator[str]:
    """All that is said, without what was sent, which pydantic repeats, and without lists of what would be right."""
    if isinstance(said, str):
        yield re.split(r"['\"]input['\"]:|expected one of", said)[0]
    elif isinstance(said, Mapping):
        for name, value in said.items():
            if name not in ("input", "ctx", "url"):
                yield from _words(value)
    elif isinstance(said, list):
        for one in said:
            yield from _words(one)
