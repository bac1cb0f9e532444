"""A chat completion put together from what a server answers, in the dialect in which it does.

The protocol is OpenAI's; vLLM, llama.cpp, Ollama, Azure, OpenRouter and the others each write it a little differently.
What carries no content is passed over, what carries it in another shape is read, and what cannot be read is one
`CompletionError`: never half an answer.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentrl_resources.gateway.choices import Choice, Usage
from agentrl_resources.gateway.server_errors import ServerError, error_in, server_error
from agentrl_resources.gateway.sse import Event, EventReader
from agentrl_resources.gateway.tool_calls import Malformed
from agentrl_resources.strict_json import parse_json

MAX_BYTES = 32 * 2**20
"""Larger answers are not read to their end."""

_FILTERED = frozenset({"content_filter", "sensitive", "safety", "guardrail_intervened"})
_CUT = _FILTERED | {
    "length", "max_tokens", "max_length", "max_output_tokens", "model_length", "model_context_window_exceeded",
    "context_length_exceeded", "incomplete",
}  # fmt: skip
"""Why a server ends an answer before the model did."""
_FAILED = frozenset({
    "error", "abort", "aborted", "cancelled", "canceled", "failed", "network_error", "insufficient_system_resource",
    "malformed_function_call",
})  # fmt: skip
"""How a server says that there is no answer."""


_BEFORE = b"\xef\xbb\xbf \t\r\n"
"""A byte order mark, and the blanks with which some keep a connection alive until they answer."""


class CompletionError(Exception):
    """What a server wrote is no chat completion. `error` is the server's own, where it says that it failed."""

    def __init__(self, said: str, error: ServerError | None = None) -> None:
        super().__init__(said)
        self.error = error


@dataclass(frozen=True)
class Completion:
    """A server's answer.

    `message` is as the protocol has it: `content` is text, each call in `tool_calls` has an id (which may be empty), a
    name and arguments as text. It holds thoughts under the server's own name for them; `thinking` is their text. Tokens
    that the server did not count are None.
    """

    message: dict[str, Any]
    thinking: str
    finish: str | None
    tokens_in: int | None
    tokens_out: int | None
    logprobs: dict[str, Any] | None

    @property
    def cut_off(self) -> bool:
        """Whether something else than the model ended it: a limit, or a filter."""
        return self.finish in _CUT

    @property
    def filtered(self) -> bool:
        """Whether it was a filter."""
        return self.finish in _FILTERED


class CompletionReader:
    """Bytes in, a completion out, however they are cut and whether they are one object or a stream of events.

    `on_text` gets the text of a stream as it comes. Which of the two an answer is shows in its first byte: content
    types are not to be relied on.
    """

    def __init__(self, on_text: Callable[[str], None] | None = None) -> None:
        self._on_text = on_text
        self._stream: EventReader | None = None
        self._body: bytearray | None = None
        self._size = 0
        self._choices: dict[int, Choice] = {}
        self._usage = Usage()
        self._whole = False
        """The answer was one object."""
        self._noise = False
        """Something came that is no JSON."""
        self.done = False
        """Whether a stream has said that nothing more comes."""
        self.told = False
        """Whether `on_text` got something."""
        self._held = ""
        """Half a character outside the basic plane, of which the other half comes with the next piece."""

    @property
    def ended(self) -> bool:
        """Whether nothing is missing, even when the connection breaks now."""
        return self.done or any(choice.finish for choice in self._choices.values())

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. CompletionError when they cannot be read."""
        self._size += len(data)
        if self._size > MAX_BYTES:
            raise CompletionError(f"it is larger than {MAX_BYTES} bytes")
        if self._stream is None and self._body is None:
            data = data.lstrip(_BEFORE)
            if not data:
                return
            if data[:1] in (b"{", b"["):
                self._body = bytearray()
            else:
                self._stream = EventReader()
        if self._body is not None:
            self._body += data
        elif self._stream is not None:
            self._guarded(self._read_stream, self._stream.feed, data)

    def end(self, broken: bool = False) -> Completion:
        """The completion, when no more bytes come. CompletionError when there is none, or half of one.

        `broken`: the connection was, so that the last event may be half of one; to be asked for when all has `ended`.
        """
        if self._body is not None:
            self._guarded(self._read_body)
        elif self._stream is not None and not broken:
            self._guarded(self._read_stream, self._stream.end)
        if not self._choices:
            raise CompletionError("there is no `choices` in it")
        choice = self._choices[min(self._choices)]
        if not (self._whole or choice.finish or (self.done and not self._noise)):
            raise CompletionError("it ends early")
        completion: Completion = self._guarded(self._completion, choice)
        text = completion.message["content"]
        if not self.told and text:
            self._tell(text)
        return completion

    def _completion(self, choice: Choice) -> Completion:
        message, thinking, logprobs = _joined([choice.message, choice.thinking, choice.logprobs or None])
        tokens_in, tokens_out = self._usage.tokens
        return Completion(message, thinking, choice.finish, tokens_in, tokens_out, logprobs)

    def _guarded(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """A server may write anything: what that raises is one kind of error, without what the server wrote."""
        try:
            return work(*arguments)
        except CompletionError:
            raise
        except UnicodeDecodeError as error:
            raise CompletionError("it is not UTF-8") from error
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise CompletionError(str(error) if isinstance(error, Malformed) else "it cannot be read") from error

    def _read_body(self) -> None:
        data = bytes(self._body or b"")
        try:
            document = parse_json(data.decode())
        except ValueError:  # objects line by line, perhaps: read like events
            lines = EventReader()
            self._read_stream(lines.feed, data)
            self._read_stream(lines.end)
            return
        self._take(document)
        self._whole = True

    def _read_stream(self, read: Callable[..., list[Event]], *data: bytes) -> None:
        for event in read(*data):
            self._event(event)

    def _event(self, event: Event) -> None:
        if self.done:
            return
        data = event.data.strip()
        if event.name.lower() in ("error", "exception"):
            raise _failed(_lenient(data))
        if data.strip(b'"') == b"[DONE]":
            self.done = True
        elif data[:1] in (b"{", b"["):
            try:
                chunk = parse_json(data.decode(), halves=True)
            except ValueError:
                if b"\n" not in data:
                    raise
                for line in data.splitlines():  # no empty line between two events
                    self._event(Event(event.name, line))
            else:
                self._take(chunk)
        elif data:
            self._noise = True

    def _take(self, chunk: Any) -> None:
        if isinstance(chunk, list):  # Gemini wraps its errors in one
            for part in chunk:
                self._take(part)
        if not isinstance(chunk, Mapping):
            return
        if (error := error_in(chunk)) is not None:
            raise _failed(error)
        groq = chunk.get("x_groq")
        self._usage.add(chunk.get("usage"), groq.get("usage") if isinstance(groq, Mapping) else None)
        self._usage.add_timings(chunk.get("timings"))
        choices = chunk.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise Malformed("`choices` is no list")
        for position, choice in enumerate(choices or ()):
            if choice is not None:
                self._take_choice(choice, position)

    def _take_choice(self, choice: Mapping[str, Any], position: int) -> None:
        if not isinstance(choice, Mapping):
            raise Malformed("a choice is no object")
        if error := choice.get("error"):
            raise _failed(error)
        self._usage.add(choice.get("usage"))  # Moonshot's
        index = choice.get("index")
        index = int(index) if isinstance(index, int) or (isinstance(index, str) and index.isdecimal()) else position
        into = self._choices.setdefault(index, Choice())
        new = into.add(choice)
        if into.finish in _FAILED:
            raise _failed(choice)
        if index == 0 and new:
            self._tell(new)

    def _tell(self, text: str) -> None:
        text = self._held + text
        self._held = text[-1] if "\ud800" <= text[-1] < "\udc00" else ""
        text = text.removesuffix(self._held)
        self.told = True
        if self._on_text is not None and text:
            self._on_text(_joined(text))


def _joined(value: Any) -> Any:
    """The value with its halves of characters put together. Malformed when one has no other half.

    Servers that count text in UTF-16 cut it between them.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        value = json.loads(json.dumps(value))
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Malformed("half a character in it") from error
    return value


def _failed(error: Any) -> CompletionError:
    found = server_error(error)
    return CompletionError(f"an error{found.label}", found)


def _lenient(data: bytes) -> Any:
    text = data.decode(errors="replace")
    try:
        return parse_json(text)
    except ValueError:
        return text
