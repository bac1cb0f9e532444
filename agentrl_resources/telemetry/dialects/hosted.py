"""Parts that have no type and are told apart by their key: Gemini's, and those of Bedrock's Converse API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects.calls import Event, Result, first, new_call
from agentrl_resources.telemetry.dialects.failures import marked

Part = Mapping[str, Any]


def _gemini_call(call: Part) -> Iterator[Event]:
    yield new_call(call, call.get("name"), first(call, "args", "arguments"), "id")


def _gemini_result(answer: Part) -> Iterator[Event]:
    yield Result(answer.get("response"), answer.get("id"), answer.get("name"))


def _gemini_code(code: Part) -> Iterator[Event]:
    yield new_call(code, "code_execution", code.get("code"), "id")


def _gemini_code_result(answer: Part) -> Iterator[Event]:
    outcome = str(answer.get("outcome") or "")
    failed = None if outcome in ("", "OUTCOME_UNSPECIFIED") else outcome != "OUTCOME_OK"
    yield Result(answer.get("output"), answer.get("id"), "code_execution", failed, outcome if failed else None)


def _bedrock_call(call: Part) -> Iterator[Event]:
    yield new_call(call, call.get("name"), call.get("input"), "toolUseId")


def _bedrock_result(answer: Part) -> Iterator[Event]:
    failed, error = marked(answer)
    yield Result(answer.get("content"), answer.get("toolUseId"), None, failed, error)


_KEYS: dict[str, Callable[[Part], Iterator[Event]]] = {
    "functionCall": _gemini_call,
    "functionResponse": _gemini_result,
    "executableCode": _gemini_code,
    "codeExecutionResult": _gemini_code_result,
    "toolUse": _bedrock_call,
    "toolResult": _bedrock_result,
}
_SILENT = frozenset({
    "text", "inlineData", "fileData", "thought", "thoughtSignature", "videoMetadata", "mediaResolution",
    "partMetadata", "image", "document", "video", "audio", "reasoningContent", "cachePoint", "guardContent",
    "citationsContent", "searchResult", "json", "cacheControl",
})  # fmt: skip


def is_untyped_part(value: Mapping[str, Any]) -> bool:
    """Whether an object without a type may be a part, and is not data."""
    return any(_camel(key) in _KEYS or _camel(key) in _SILENT for key in value)


def read_untyped(part: Part) -> list[Event]:
    """The events of a part without a type. AgentRLError when nothing in it is known."""
    there = {_camel(key): value for key, value in part.items() if value is not None}
    known = [key for key in there if key in _KEYS]
    if not known and (unknown := [key for key in there if key not in _SILENT]):
        raise AgentRLError(f"a part without a type that holds {', '.join(unknown)}, which is not known")
    for key in known:
        if not isinstance(there[key], dict):
            raise AgentRLError(f"a {key} that is no object")
    return [event for key in known for event in _KEYS[key](there[key])]


def _camel(key: str) -> str:
    """`function_call` as `functionCall`: Google's libraries write both."""
    head, *rest = str(key).split("_")
    return head + "".join(word.capitalize() for word in rest)
