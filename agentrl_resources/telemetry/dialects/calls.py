"""What every dialect is read into: calls of tools, each with what came back.

A message is read into events, a `ToolCall` where a tool is called and a `Result` where one answers; `pair` brings them
together. Whether a call failed is known when there is a result: a format either marks failures, or it hands the result
to the model as it is, and then the result says so itself (`failures`). A call without any result is neither a success
nor a failure; its status is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentrl_resources.errors import AgentRLError
from agentrl_resources.strict_json import parse_json
from agentrl_resources.telemetry.dialects.failures import failure_in, reads_as_error, text_of

Status = Literal["ok", "error", "unknown"]


@dataclass
class Result:
    """What came back from a call. `failed` is what the format says of it, None where it says nothing."""

    content: Any
    call_id: Any = None
    name: str | None = None
    failed: bool | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        self.call_id = _comparable(self.call_id)

    def judged(self) -> tuple[Status, str | None]:
        """Whether the call failed, and the error in words.

        A mark of the format counts, and so does an object that says of itself that it is an error. Text that reads as
        one (`Error: ...`) counts only where nothing is marked.
        """
        if self.failed:
            return "error", self.error or text_of(self.content) or "failed"
        said = failure_in(self.content)
        if said is None and self.failed is None and reads_as_error(self.content):
            said = text_of(self.content)
        return ("ok", None) if said is None else ("error", said)


@dataclass
class ToolCall:
    """A call of a tool by the agent."""

    name: str
    arguments: Any = None
    call_id: Any = None
    result: Result | None = None

    def __post_init__(self) -> None:
        self.call_id = _comparable(self.call_id)

    @property
    def status(self) -> Status:
        return "unknown" if self.result is None else self.result.judged()[0]

    def row(self) -> dict[str, Any]:
        """As a run's trace holds it; `ms` is how long it took, which messages do not tell."""
        status, error = ("unknown", None) if self.result is None else self.result.judged()
        content = None if self.result is None else self.result.content
        call = {"name": self.name, "arguments": self.arguments, "result": content, "error": error}
        return call | {"ms": None, "status": status}


Event = ToolCall | Result


def _comparable(call_id: Any) -> str | None:
    return None if call_id is None else str(call_id)


def new_call(part: Mapping[str, Any], name: Any, arguments: Any, *ids: str) -> ToolCall:
    """A call that `part` holds; its id stands under the first of `ids` that is there. AgentRLError without a name."""
    if not isinstance(name, str) or not name:
        raise AgentRLError(f"a call of type {part.get('type', 'function')!r} that names no tool")
    return ToolCall(name, decoded(arguments), first(part, *ids))


def first(part: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these keys that is there and not null."""
    return next((part[name] for name in names if part.get(name) is not None), None)


def as_list(holder: Mapping[str, Any], name: str) -> list[Any]:
    """The list under a key, which may be absent or empty, or be kept as JSON text. AgentRLError when it is no list."""
    value = decoded(holder.get(name)) or []
    if not isinstance(value, list):
        raise AgentRLError(f"{name} must be a list")
    return value


def decoded(value: Any) -> Any:
    """JSON that is kept as text, as what it stands for; other text as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


def pair(events: Iterable[Event]) -> list[ToolCall]:
    """The calls in their order, each with its result.

    A result belongs to the call that has its id; without one to the next call of its tool that waits, then to the next
    without an id, then to the next that waits at all.
    A result that no call waits for is a call of which only that is known.
    """
    calls: list[ToolCall] = []
    for event in events:
        if isinstance(event, ToolCall):
            calls.append(event)
            continue
        call = _called(calls, event)
        if call is None:
            calls.append(call := ToolCall(event.name or "unknown", None, event.call_id))
        call.result = event
    return calls


def _called(calls: Sequence[ToolCall], result: Result) -> ToolCall | None:
    waiting = [call for call in calls if call.result is None]
    if result.call_id is not None:
        same = [call for call in calls if call.call_id == result.call_id]
        if same:  # ids may be used again, and a result may come in parts of which the last is whole
            return next((call for call in same if call.result is None), same[-1])
    named = [call for call in waiting if result.name is not None and call.name == result.name]
    without_id = [call for call in waiting if call.call_id is None]
    return next(iter(named or without_id or waiting), None)


def add_executions(calls: list[ToolCall], executions: Iterable[ToolCall]) -> list[ToolCall]:
    """Calls that the messages show, with what is recorded of their executions beside the messages.

    An execution that failed counts, whatever the model was told; one that no message shows is a call as well.
    """
    found = list(calls)
    open_calls = list(calls)
    for execution in executions:
        same_id = [one for one in open_calls if execution.call_id is not None and one.call_id == execution.call_id]
        named = [one for one in open_calls if one.name == execution.name]
        alike = [one for one in named if one.arguments == execution.arguments]
        call = next(iter(same_id or alike or named), None)
        if call is None:
            found.append(execution)
            continue
        open_calls.remove(call)
        if execution.status == "error" or call.result is None:
            call.result = execution.result
    return found


def union(readings: Sequence[list[ToolCall]]) -> list[ToolCall]:
    """The calls of several requests of one run, each of which repeats what went before, told apart by their ids.

    AgentRLError when calls have no ids and the last request does not show as many of them as one before it.
    """
    if not readings:
        return []
    *earlier, last = readings
    known = {call.call_id: call for call in last if call.call_id is not None}
    without_id = sum(call.call_id is None for call in last)
    missing: list[ToolCall] = []
    for reading in earlier:
        if sum(call.call_id is None for call in reading) > without_id:
            raise AgentRLError("tool calls without ids in several requests of one run cannot be told apart")
        for call in reading:
            if call.call_id is None:
                continue
            same = known.setdefault(call.call_id, call)
            if same is call:
                missing.append(call)
            elif same.result is None:
                same.result = call.result
    return missing + last
