"""Vercel's AI SDK: model messages (`tool-call`, `tool-result`) and UI messages (`tool-NAME` parts with a state)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects.calls import Event, Result, ToolCall, first, new_call
from agentrl_resources.telemetry.dialects.failures import marked

Part = Mapping[str, Any]

_WAITING = frozenset({
    "partial-call", "call", "input-streaming", "input-available", "approval-requested", "approval-responded",
})  # fmt: skip
_DENIED = "the call was denied"


def _call(part: Part) -> Iterator[Event]:
    yield new_call(part, first(part, "toolName", "name"), first(part, "input", "args"), "toolCallId", "id")


def _result(part: Part) -> Iterator[Event]:
    call_id, name = first(part, "toolCallId", "id"), part.get("toolName")
    output = part.get("output")
    typed = output.get("type") if isinstance(output, dict) else None
    if output is None or typed not in _OUTPUTS:  # version 4, or a result that was stored as the tool returned it
        failed, error = marked(part)
        content = first(part, "result", "output", "experimental_content", "content")
        yield Result(content, call_id, name, failed, error)
    elif typed == "execution-denied":
        yield Result(None, call_id, name, True, str(output.get("reason") or _DENIED))
    else:
        yield Result(output.get("value"), call_id, name, typed in ("error-text", "error-json"))


_OUTPUTS = ("text", "json", "content", "error-text", "error-json", "execution-denied")


def _error(part: Part) -> Iterator[Event]:
    said = part.get("error")
    error = said.get("message") if isinstance(said, dict) else said
    yield Result(said, part.get("toolCallId"), part.get("toolName"), True, str(error or "failed"))


def _denied(part: Part) -> Iterator[Event]:
    yield Result(None, part.get("toolCallId"), part.get("toolName"), True, _DENIED)


def _invocation(part: Part) -> Iterator[Event]:
    yield read_invocation(part.get("toolInvocation"))


PARTS: dict[str, Callable[[Part], Iterator[Event]]] = {
    "tool-call": _call,
    "tool-result": _result,
    "tool-error": _error,
    "tool-output-denied": _denied,
    "tool-invocation": _invocation,
}
SILENT = frozenset({
    "reasoning", "redacted-reasoning", "reasoning-file", "file", "source", "source-url", "source-document",
    "step-start", "tool-approval-request", "tool-approval-response", "custom",
})  # fmt: skip


def is_ui_call(kind: str, part: Part) -> bool:
    """Whether the part of a UI message is a call: its type names the tool, and it has a state."""
    return kind == "dynamic-tool" or (kind.startswith("tool-") and "state" in part)


def read_invocation(part: Any, name: str | None = None) -> ToolCall:
    """A call of a UI message with what became of it. AgentRLError when its state is not known."""
    if not isinstance(part, dict):
        raise AgentRLError("a tool invocation that is no object")
    call = new_call(part, name or part.get("toolName"), first(part, "input", "args", "rawInput"), "toolCallId")
    state = part.get("state")
    if state == "output-available":
        call.result = Result(first(part, "output", "result"), failed=False)
    elif state == "result":  # version 4, which had no state for an error
        call.result = Result(first(part, "result", "output"))
    elif state in ("output-error", "error"):
        call.result = Result(part.get("output"), failed=True, error=str(part.get("errorText") or "failed"))
    elif state == "output-denied":
        approval = part.get("approval")
        reason = approval.get("reason") if isinstance(approval, dict) else None
        call.result = Result(None, failed=True, error=str(reason or _DENIED))
    elif str(state) not in _WAITING:
        raise AgentRLError(f"a tool call in the state {state!r}, which is not known")
    return call
