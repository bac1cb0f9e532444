"""Rows of two tracing products: LangSmith's runs and Langfuse's traces. Beside the messages they record executions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects.calls import Result, ToolCall, as_list, decoded, first
from agentrl_resources.telemetry.dialects.failures import marked
from agentrl_resources.telemetry.dialects.langchain import is_langchain, unwrapped

Find = Callable[[Any], list[Any]]
"""Finds the messages in what a product recorded as input or output."""


def is_langsmith(row: Mapping[str, Any]) -> bool:
    return "run_type" in row or ("inputs" in row and "outputs" in row)


def is_langfuse(row: Mapping[str, Any]) -> bool:
    return isinstance(decoded(row.get("observations")), list)


def read_langsmith(row: Mapping[str, Any], find: Find) -> tuple[list[list[Any]], list[ToolCall]]:
    """The messages of each request, those of the root last, and the executions of tools."""
    if row.get("parent_run_id") is not None:
        raise AgentRLError("a part of a LangSmith trace (it has a parent_run_id); export whole traces, one root a line")
    children = list(_children(row))
    executions = [_langsmith_tool(run) for run in children if run.get("run_type") == "tool"]
    requests = [_conversation(run, find) for run in children if run.get("run_type") == "llm"]
    requests.append(_conversation(row, find))
    return [messages for messages in requests if messages], executions


def _children(run: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for child in as_list(run, "child_runs"):
        if isinstance(child, dict):
            yield child
            yield from _children(child)


def _conversation(run: Mapping[str, Any], find: Find) -> list[Any]:
    """Input and output; a graph's output repeats its input."""
    before, after = find(decoded(run.get("inputs"))), find(decoded(run.get("outputs")))
    repeats = len(after) >= len(before) and all(_same(one, other) for one, other in zip(before, after, strict=False))
    return after if repeats else before + after


def _same(one: Any, other: Any) -> bool:
    if one == other:
        return True
    one, other = (unwrapped(part) if isinstance(part, dict) and is_langchain(part) else part for part in (one, other))
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    role = {"human": "user", "ai": "assistant"}
    roles = [role.get(str(part.get("role")), part.get("role")) for part in (one, other)]
    return roles[0] == roles[1] and one.get("content") == other.get("content")


def _langsmith_tool(run: Mapping[str, Any]) -> ToolCall:
    asked, came = decoded(run.get("inputs")), decoded(run.get("outputs"))
    if isinstance(asked, dict) and set(asked) == {"input"}:
        asked = decoded(asked["input"])
    call = ToolCall(str(run.get("name") or "unknown"), asked)
    if isinstance(came, dict) and set(came) == {"output"}:
        came = came["output"]
    if isinstance(came, dict) and is_langchain(came):
        came = unwrapped(came)
    failed, error = None, None
    if isinstance(came, dict) and came.get("role") == "tool":
        failed, error = marked(came)
        call.call_id, came = came.get("tool_call_id"), came.get("content")
    if run.get("error") or run.get("status") == "error":
        failed, error = True, str(run.get("error") or "failed")
    if failed or came is not None:
        call.result = Result(came, failed=failed, error=error)
    return call


def read_langfuse(row: Mapping[str, Any], find: Find) -> tuple[list[list[Any]], list[ToolCall]]:
    """The messages of each generation in the order of time, those of the trace where there are none; and executions."""
    observations = [one for one in decoded(row["observations"]) if isinstance(one, dict)]
    observations.sort(key=lambda one: str(first(one, "startTime", "start_time") or ""))
    requests: list[list[Any]] = []
    executions: list[ToolCall] = []
    for one in observations:
        if str(one.get("type")).upper() == "TOOL":
            executions.append(_langfuse_tool(one))
        elif messages := _exchange(one, find):
            requests.append(messages)
    return requests or [messages for messages in [_exchange(row, find)] if messages], executions


def langfuse_spans(row: Mapping[str, Any], names: set[str]) -> list[ToolCall]:
    """Spans that have the name of a tool: how executions were kept before there was a type for them."""
    observations = [one for one in decoded(row["observations"]) if isinstance(one, dict)]
    spans = [one for one in observations if str(one.get("type")).upper() == "SPAN" and str(one.get("name")) in names]
    return [_langfuse_tool(one) for one in spans]


def _exchange(holder: Mapping[str, Any], find: Find) -> list[Any]:
    before, after = (find(decoded(holder.get(key))) for key in ("input", "output"))
    return after if before and after[: len(before)] == before else before + after


def _langfuse_tool(observation: Mapping[str, Any]) -> ToolCall:
    failed = str(observation.get("level")).upper() == "ERROR"
    said = first(observation, "statusMessage", "status_message")
    call = ToolCall(str(observation.get("name") or "unknown"), decoded(observation.get("input")))
    came = decoded(observation.get("output"))
    if failed or came is not None:
        call.result = Result(came, failed=failed or None, error=str(said) if failed and said else None)
    return call
