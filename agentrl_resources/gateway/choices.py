"""One choice of a chat completion, and what it cost in tokens, as far as they have come."""

from collections.abc import Iterable, Mapping
from typing import Any

from agentrl_resources.gateway.tool_calls import Calls, Malformed

THINKING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""What servers call the thoughts beside an answer. The last is OpenRouter's list of them."""


class Choice:
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
        self.logprobs: dict[str, list[Any]] = {}
        self._empty = True
        """No delta and no message has come."""

    def add(self, choice: Mapping[str, Any]) -> str:
        """Takes a choice of a chunk or of a whole answer; returns the text that is new."""
        new = ""
        delta = choice.get("delta")
        if isinstance(text := choice.get("text") if delta is None else delta, str):
            delta = {"content": text}
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
                    self.logprobs.setdefault(name, []).extend(tokens)
        return new

    @property
    def _says_something(self) -> bool:
        return bool(self._text or self._refusal or self._thoughts or self._calls or self._old_call)

    def _add(self, part: Mapping[str, Any], whole: bool) -> str:
        self._empty = False
        for name in THINKING:
            if (thoughts := part.get(name)) and isinstance(thoughts, str | list):
                self._think(name, thoughts)
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

    def _think(self, name: str, thoughts: Any) -> None:
        before = self._thoughts.get(name)
        if before is None or type(before) is type(thoughts):
            self._thoughts[name] = thoughts if before is None else before + thoughts

    @property
    def message(self) -> dict[str, Any]:
        """As the protocol has it, with `content` as text. Malformed when something is missing."""
        if self._empty:
            raise Malformed("there is no message in it")
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text), **self._thoughts}
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        if calls := (self._calls or self._old_call).to_list():
            message["tool_calls"] = calls
        elif self.finish in ("tool_calls", "function_call") and not (self._text or self._refusal):
            raise Malformed("it ends for a tool call that it does not have")
        return message

    @property
    def thinking(self) -> str:
        """The text of the thoughts, whatever they are called."""
        for name in THINKING:
            if thoughts := self._thoughts.get(name):
                return thoughts if isinstance(thoughts, str) else _details(thoughts)
        return "".join(self._thought_parts)


Counts = tuple[int | None, int | None]
"""Tokens read and written; None is unknown."""


class Usage:
    """Counts of tokens: what a stream has counted so far only grows. What nobody has counted is unknown."""

    def __init__(self) -> None:
        self._counted: Counts = (None, None)
        self._timed: Counts = (None, None)

    def add(self, *usages: Any) -> None:
        """Malformed when these are no counts."""
        for usage in usages:
            if isinstance(usage, Mapping):
                given = _count(usage, "prompt_tokens", "input_tokens")
                written = _count(usage, "completion_tokens", "output_tokens")
                if written is None and given is not None and (total := _count(usage, "total_tokens")) is not None:
                    written = max(0, total - given)
                self._counted = _larger(self._counted, (given, written))

    def add_timings(self, timings: Any) -> None:
        """llama.cpp's, which count a prompt's cached tokens by themselves."""
        if isinstance(timings, Mapping):
            given = _count(timings, "prompt_n")
            if given is not None:
                given += _count(timings, "cache_n") or 0
            self._timed = _larger(self._timed, (given, _count(timings, "predicted_n")))

    @property
    def tokens(self) -> Counts:
        """Read and written; None is unknown. No prompt has no tokens: a server that says so has not counted."""
        tokens_in, tokens_out = self._counted if any(self._counted) else self._timed
        return (tokens_in, tokens_out) if tokens_in or tokens_out else (None, None)


def _larger(old: Counts, new: Counts) -> Counts:
    tokens_in, tokens_out = (
        max((n for n in pair if n is not None), default=None) for pair in zip(old, new, strict=True)
    )
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
