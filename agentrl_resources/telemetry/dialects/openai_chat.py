"""OpenAI's chat messages, and what others made of them: Mistral, Ollama, vLLM, inspect, LangChain's `tool_calls`.

Calls stand under `tool_calls` (long ago one under `function_call`), results are messages of the role `tool` (or
`function`). The protocol has no mark for a failed call: the tool's text is all that the model sees. A result is
therefore no error unless it says so itself, or its message carries a mark that some recorders add (`is_error`,
`status`, `error`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects.calls import Result, ToolCall, as_list, decoded, first, new_call
from agentrl_resources.telemetry.dialects.failures import marked

_CALL_IDS = ("id", "toolCallId", "tool_call_id", "call_id")


def calls_of(message: Mapping[str, Any], place: str) -> Iterator[ToolCall]:
    """The calls under `tool_calls`, those that could not be parsed, and the one under `function_call`."""
    extra = message.get("additional_kwargs")
    holders = [(message, place)] + ([(extra, f"{place}.additional_kwargs")] if isinstance(extra, dict) else [])
    for holder, where in holders:
        calls = decoded(first(holder, "tool_calls", "toolCalls") or [])
        if not isinstance(calls, list):
            raise _not_calls(where)
        found = [_call(call, where) for call in calls]
        yield from found
        function = holder.get("function_call")
        if isinstance(function, dict) and function and not found:
            yield _call(function, where)
        if found:
            return  # what LangChain keeps in `additional_kwargs` are the same calls
    for call in as_list(message, "invalid_tool_calls"):
        invalid = _call(call, place)
        invalid.result = Result(None, failed=True, error=str(call.get("error") or "invalid arguments"))
        yield invalid


def result_of(message: Mapping[str, Any]) -> Result:
    """The result that a message of the role `tool` or `function` is."""
    failed, error = marked(message)
    call_id = first(message, "tool_call_id", "toolCallId", "call_id", "tool_use_id", "id")
    name = first(message, "name", "tool_name", "toolName")
    name = name if isinstance(name, str) else message.get("function")
    return Result(message.get("content"), call_id, name if isinstance(name, str) else None, failed, error)


def _call(call: Any, place: str) -> ToolCall:
    if not isinstance(call, dict):
        raise _not_calls(place)
    function = first(call, "function", "custom")
    if isinstance(function, dict):
        name, arguments = function.get("name"), first(function, "arguments", "input", "args", "parameters")
    else:
        name = function if isinstance(function, str) else first(call, "name", "toolName", "tool_name")
        arguments = first(call, "arguments", "args", "input", "parameters")
    try:
        return new_call(call, name, arguments, *_CALL_IDS)
    except AgentRLError as error:
        raise _not_calls(place) from error


def _not_calls(place: str) -> AgentRLError:
    return AgentRLError(f"{place}.tool_calls must be a list of calls that name a function")
