"""A chat completion put together from what a server answers, in the dialect in which it does.

The protocol is OpenAI's; vLLM, llama.cpp, Ollama, Azure, OpenRouter and the others each write it a little differently.
What carries no content is passed over, what carries it in another shape is read, and what cannot be read is one
`CompletionError`: never half an answer.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentrl_resources.gateway.server_errors import ServerError, error_in, server_error
from agentrl_resources.gateway.sse import Event, EventReader
from agentrl_resources.gateway.tool_calls import Calls, Malformed
from agentrl_resources.strict_json import parse_json

MAX_BYTES = 32 * 2**20
"""Larger answers are not read to their end."""

THINKING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""What servers call the thoughts beside an answer. The last is OpenRouter's list of them."""

_CUT = frozenset({
    "length", "max_tokens", "max_length", "max_output_tokens", "model_length", "model_context_window_exceeded",
    "context_length_exceeded", "incomplete", "content_filter", "sensitive", "safety", "guardrail_intervened",
})  # fmt: skip
"""Why a server ends an answer before the model did."""
_FAILED = frozenset({
    "error", "abort", "aborted", "cancelled", "canceled", "failed", "network_error", "insufficient_system_resource",
    "malformed_function_call",
})  # fmt: skip
"""How a server says that there is no answer."""


class CompletionError(Exception):
    """What a server wrote is no chat completion. `error` is the server's own, where it says that it failed."""

    def __init__(self, said: str, error: ServerError | None = None) -> None:
        super().__init__(said)
        self.error = error


@dataclass(frozen=True)
class Completion:
    """A server's answer.

    `message` is as the protocol has it: `content` is text, each call in `tool_calls` has an id (which may be empty), a
    name and arguments as text. It holds thoughts under the server's own name for them; `thinking` is their text.
    """

    message: dict[str, Any]
    thinking: str
    finish: str | None
    tokens_in: int
    tokens_out: int
    logprobs: dict[str, Any] | None

    @property
    def cut_off(self) -> bool:
        """Whether something else than the model ended it: a limit, or a filter."""
        return self.finish in _CUT


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
        self._choices: dict[int, _Choice] = {}
        self._usage = _Usage()
        self._whole = False
        """The answer was one object."""
        self._noise = False
        """Something came that is no JSON."""
        self.done = False
        """Whether a stream has said that nothing more comes."""
        self.told = False
        """Whether `on_text` got something."""

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
            data = data.lstrip(
                b"\xef\xbb\xbf \t\r\n"
            )  # byte order mark; OpenRouter keeps connections alive with blanks
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
        completion: Completion = self._guarded(choice.completion, *self._usage.tokens)
        text = completion.message["content"]
        if not self.told and text:
            self._tell(text)
        return completion

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
                self._take(parse_json(data.decode()))
            except ValueError:
                if b"\n" not in data:
                    raise
                for line in data.splitlines():  # no empty line between two events
                    self._event(Event(event.name, line))
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
        into = self._choices.setdefault(index, _Choice())
        new = into.add(choice)
        if into.finish in _FAILED:
            raise _failed(choice)
        if index == 0 and new:
            self._tell(new)

    def _tell(self, text: str) -> None:
        self.told = True
        if self._on_text is not None:
            self._on_text(text)


class _Choice:
    """One choice, as far as it has come."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._thoughts: dict[str, Any] = {}
        """By the server's name for them."""
        self._thought_parts: list[str] = []
        self._calls = Calls()
        self._old_call = Calls()
        """What calls were before there was more than one a turn: `function_call`. Some servers write both."""
        self._logprobs: dict[str, list[Any]] = {}
        self._empty = True
        """No delta and no message has come."""

    def add(self, choice: Mapping[str, Any]) -> str:
        """Takes a choice of a chunk or of a whole answer; returns the text that is new."""
        new = ""
        delta = choice.get("delta")
        delta = {"content": delta} if isinstance(delta, str) else delta
        if isinstance(delta, Mapping):
            new += self._add(delta, whole=False)
        elif delta is not None:
            raise Malformed("a delta is no object")
        # Perplexity writes all that has come so far beside each delta
        if isinstance(message := choice.get("message"), Mapping) and not self._says_something:
            new += self._add(message, whole=True)
        elif message is not None and not isinstance(message, Mapping):
            raise Malformed("a message is no object")
        finish = choice.get("finish_reason")
        finish = finish.get("type") if isinstance(finish, Mapping) else finish
        if isinstance(finish, str) and finish not in ("", "null"):
            self.finish = finish.lower().partition(":")[0]
        if isinstance(logprobs := choice.get("logprobs"), Mapping):
            for name, tokens in logprobs.items():
                if isinstance(tokens, list):
                    self._logprobs.setdefault(name, []).extend(tokens)
        return new

    @property
    def _says_something(self) -> bool:
        return bool(self._text or self._refusal or self._thoughts or self._calls or self._old_call)

    def _add(self, part: Mapping[str, Any], whole: bool) -> str:
        self._empty = False
        for name in THINKING:
            value: Any = part.get(name)
            before: Any = self._thoughts.get(name)
            if value and isinstance(value, str | list) and isinstance(before, type(value) | None):
                self._thoughts[name] = value if before is None else before + value
        texts, thoughts, refusals = _content(part.get("content"))
        if isinstance(refusal := part.get("refusal"), str):
            refusals.append(refusal)
        self._text += texts
        self._thought_parts += thoughts
        self._refusal += [refusal for refusal in refusals if refusal]
        calls = part.get("tool_calls")
        calls = [calls] if isinstance(calls, Mapping) else calls
        if calls is not None and not isinstance(calls, list):
            raise Malformed("`tool_calls` is no list")
        self._calls.add(calls or (), whole)
        if isinstance(call := part.get("function_call"), Mapping):
            self._old_call.add([{"index": 0, "function": call}], whole)
        return "".join(texts)

    def completion(self, tokens_in: int, tokens_out: int) -> Completion:
        """Malformed when something is missing."""
        if self._empty:
            raise Malformed("there is no message in it")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text), **self._thoughts}
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        if calls := (self._calls or self._old_call).to_list():
            message["tool_calls"] = calls
        elif self.finish in ("tool_calls", "function_call") and not (self._text or self._refusal):
            raise Malformed("it ends for a tool call that it does not have")
        return Completion(message, self._thinking, self.finish, tokens_in, tokens_out, self._logprobs or None)

    @property
    def _thinking(self) -> str:
        for name in THINKING:
            if thoughts := self._thoughts.get(name):
                return thoughts if isinstance(thoughts, str) else _details(thoughts)
        return "".join(self._thought_parts)


class _Usage:
    """Counts of tokens: what a stream has counted so far only grows."""

    def __init__(self) -> None:
        self._counted = [0, 0]
        self._timed = [0, 0]

    def add(self, *usages: Any) -> None:
        """Malformed when these are no counts."""
        for usage in usages:
            if isinstance(usage, Mapping):
                given = _count(usage, "prompt_tokens", "input_tokens")
                written = _count(usage, "completion_tokens", "output_tokens")
                if written is None and given is not None and (total := _count(usage, "total_tokens")) is not None:
                    written = max(0, total - given)
                self._counted = [max(self._counted[0], given or 0), max(self._counted[1], written or 0)]

    def add_timings(self, timings: Any) -> None:
        """llama.cpp's, which count a prompt's cached tokens by themselves."""
        if isinstance(timings, Mapping):
            given = (_count(timings, "prompt_n") or 0) + (_count(timings, "cache_n") or 0)
            self._timed = [max(self._timed[0], given), max(self._timed[1], _count(timings, "predicted_n") or 0)]

    @property
    def tokens(self) -> tuple[int, int]:
        """Read and written."""
        tokens_in, tokens_out = self._counted if any(self._counted) else self._timed
        return tokens_in, tokens_out


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 <= value < 2**31:
                raise Malformed("these are no counts of tokens")
            return int(value)
    return None


def _content(content: Any) -> tuple[list[str], list[str], list[str]]:
    """Texts, thoughts and refusals of a content, which may come in parts."""
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    if content is not None and not isinstance(content, str | Mapping | list):
        raise Malformed("`content` is no text")
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            if isinstance(text := part.get("text"), str):
                texts.append(text)
            if isinstance(refusal := part.get("refusal"), str):
                refusals.append(refusal)
            if thinking := part.get("thinking"):  # Mistral's, in parts again
                thoughts += _content(thinking)[0]
    return [text for text in texts if text], thoughts, refusals


def _details(details: Iterable[Any]) -> str:
    texts = (part.get("text") or part.get("summary") for part in details if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def _failed(error: Any) -> CompletionError:
    found = server_error(error)
    return CompletionError(f"an error{found.label}", found)


def _lenient(data: bytes) -> Any:
    text = data.decode(errors="replace")
    try:
        return parse_json(text)
    except ValueError:
        return text
