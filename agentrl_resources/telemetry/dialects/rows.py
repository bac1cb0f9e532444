"""A row of a trace file, whoever wrote it, as messages and tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects.calls import ToolCall, add_executions, decoded, pair, union
from agentrl_resources.telemetry.dialects.exports import (
    is_langfuse,
    is_langsmith,
    langfuse_spans,
    read_langfuse,
    read_langsmith,
)
from agentrl_resources.telemetry.dialects.messages import is_message, read_messages
from agentrl_resources.telemetry.dialects.otel_spans import has_spans, read_spans


@dataclass(frozen=True)
class Trace:
    """What happened in one run: its messages as they were recorded, and every tool call with its result."""

    messages: list[Any]
    calls: list[ToolCall]
    error: str | None = None
    """What ended the run, where the recorder says that something did."""

    @property
    def failed_calls(self) -> int | None:
        """How many calls failed; None when of any call nothing says whether it did."""
        states = [call.status for call in self.calls]
        return None if "unknown" in states else states.count("error")

    def called(self, names: frozenset[str]) -> bool:
        """Whether one of these tools was called, and nothing says that the call failed."""
        return any(call.name in names and call.status != "error" for call in self.calls)

    def row(self) -> dict[str, Any]:
        """As a run record holds it."""
        return {"messages": self.messages, "tool_calls": [call.row() for call in self.calls]}


_BESIDE = ("tool_calls", "toolCalls", "tool_results", "toolResults", "function_calls", "steps", "intermediate_steps")
_ANSWERS = ("output", "choices", "response", "candidates", "completion")
_HOLDERS = (
    "messages", "traj", "contents", "items", "input", "output", "generations", "choices", "message", "content",
    "response", "candidates", "completion",
)  # fmt: skip


def holds_trace(row: Mapping[str, Any]) -> bool:
    """Whether a row says what happened in a run, in whatever dialect; else it can only be about a run."""
    known = "traj" in row or "messages" in row or is_langfuse(row) or is_langsmith(row) or has_spans(row)
    return known or bool(_found_in(row))


def _found_in(row: Mapping[str, Any]) -> list[Any]:
    return find_messages({name: row[name] for name in _HOLDERS if name in row})


def read_trace(row: Mapping[str, Any]) -> Trace:
    """The trace in a row. AgentRLError when it has none, or what may be tool calls in a form that is not read."""
    key = "traj" if "traj" in row else "messages"
    if key in row:
        return _read_chat(row, key)
    if is_langfuse(row):
        requests, executions = read_langfuse(row, find_messages)
    elif is_langsmith(row):
        requests, executions = read_langsmith(row, find_messages)
    elif has_spans(row):
        requests, executions = read_spans(row)
    else:
        requests, executions = [_found_in(row)], []
    requests = [messages for messages in requests if messages]
    if not requests and not executions:
        keys = ", ".join(str(name) for name in row) or "nothing"
        raise AgentRLError(f"no messages: `traj` or `messages` must be a list of chat messages; there is {keys[:200]}")
    calls = union([pair(read_messages(messages, "messages")) for messages in requests])
    if is_langfuse(row) and not executions:
        executions = langfuse_spans(row, {call.name for call in calls})
    messages = (
        max(reversed(requests), key=len)
        if requests
        else [{"role": "user", "content": row.get("input", row.get("inputs"))}]
    )
    ended = str(row["error"]) if is_langsmith(row) and row.get("error") else None
    return _trace(messages, add_executions(calls, executions), row, ended)


def _read_chat(row: Mapping[str, Any], key: str) -> Trace:
    messages = decoded(row[key])
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], list):
        (messages,) = messages  # LangChain's batches
    if not isinstance(messages, list) or not messages:
        raise AgentRLError("no messages: `traj` or `messages` must be a list of chat messages")
    answers = [answer for name in _ANSWERS for answer in find_messages(row.get(name))]
    messages = [*messages, *(answer for answer in answers if answer not in messages)]
    calls = pair(read_messages(messages, key))
    executions: list[ToolCall] = []
    if is_langfuse(row):
        executions = read_langfuse(row, lambda value: [])[1]
    elif "child_runs" in row:
        executions = read_langsmith(row, lambda value: [])[1]
    return _trace(messages, add_executions(calls, executions), row)


def _trace(messages: list[Any], calls: list[ToolCall], row: Mapping[str, Any], error: str | None = None) -> Trace:
    if not calls:
        for name in _BESIDE:
            if isinstance(decoded(row.get(name)), list) and decoded(row[name]):
                raise AgentRLError(f"`{name}` stands beside the messages and may hold tool calls; it is not read")
    for call in calls:
        try:
            call.row()
        except AgentRLError as unreadable:
            raise AgentRLError(f"the result of {call.name}: {unreadable}") from unreadable
    return Trace(messages, calls, error)


def find_messages(value: Any) -> list[Any]:
    """The messages in what somebody recorded as input, output or response of a model; none in plain text."""
    value = decoded(value)
    if isinstance(value, list):
        if value and all(is_message(one) for one in value):
            return value
        return find_messages(value[0]) if len(value) == 1 else []
    if is_message(value):
        return [value]
    if isinstance(value, dict):
        return [message for name in _HOLDERS if name in value for message in find_messages(value[name])]
    return []
