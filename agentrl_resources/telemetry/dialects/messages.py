"""Messages of any dialect, read into events; nothing that could be a call is passed over in silence.

A message says by itself of which dialect it is, and a list may mix them. A type of part that is in none of the tables,
and a key that sounds like calls and is not known, refuse the trace by name: unknown is not the same as none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects import ai_sdk, anthropic, otel_messages
from agentrl_resources.telemetry.dialects.calls import Event, Result, ToolCall, as_list, decoded
from agentrl_resources.telemetry.dialects.failures import text_of
from agentrl_resources.telemetry.dialects.hosted import is_untyped_part, read_untyped
from agentrl_resources.telemetry.dialects.langchain import is_langchain, unwrapped
from agentrl_resources.telemetry.dialects.openai_chat import calls_of, result_of
from agentrl_resources.telemetry.dialects.openai_responses import ITEMS, is_item, read_item

ROLES = ("system", "developer", "user", "assistant", "tool")
"""The roles of chat messages; what others call them stands in `_OTHER_ROLES`."""

_OTHER_ROLES = {
    "model": "assistant", "ai": "assistant", "human": "user", "function": "tool", "data": "user", "remove": "remove",
}  # fmt: skip
_PARTS = ITEMS | anthropic.PARTS | ai_sdk.PARTS | otel_messages.PARTS
_SILENT = (
    frozenset({
        "text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "image", "image_url", "audio",
        "video", "file", "input_image", "input_file", "input_audio", "output_audio", "resource", "resource_link",
        "media", "json",
    })
    | anthropic.SILENT | ai_sdk.SILENT | otel_messages.SILENT
)  # fmt: skip
_SOUNDS_LIKE_CALLS = re.compile(r"tool|function|invocation|^actions?$", re.IGNORECASE)
_KINDS = ("type", "kind", "block_type", "part_kind")
_READ_KEYS = frozenset({
    "content", "parts",
    "tool_calls", "toolCalls", "function_call", "toolInvocations", "invalid_tool_calls", "tool_call_id", "function",
    "tool_call_chunks", "tools", "functions", "tool_choice", "tool_definitions", "available_tools",
})  # fmt: skip
_WRITTEN_CALL = re.compile(
    r"<tool_call>|<function_calls>|<invoke name=|<function=|\[TOOL_CALLS\]|<\|tool_call|<\|python_tag|^Action Input:",
    re.MULTILINE,
)


def is_message(value: Any) -> bool:
    """Whether this may be a message, or an item beside messages, of a dialect that is read here."""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role"), str) or is_langchain(value) or is_item(value) or _holds_message(value)


def _holds_message(value: Mapping[str, Any]) -> bool:
    """Whether this is an event around a message, as Google's Agent Development Kit keeps them."""
    inner = value.get("content")
    return value.get("role") is None and isinstance(inner, dict) and isinstance(inner.get("role"), str)


def read_messages(messages: Sequence[Any], key: str) -> list[Event]:
    """The events of the messages under `key`, in order. AgentRLError names the place that cannot be read."""
    return [event for position, one in enumerate(messages) for event in _read_message(one, f"{key}[{position}]")]


def _read_message(message: Any, place: str) -> list[Event]:
    if isinstance(message, dict) and is_langchain(message):
        message = unwrapped(message)
    if isinstance(message, dict) and _holds_message(message):
        message = message["content"]
    if isinstance(message, dict) and is_item(message):
        return _placed(place, lambda: read_item(message))
    role = message.get("role") if isinstance(message, dict) else None
    role = _OTHER_ROLES.get(role, role) if isinstance(role, str) else None
    if role == "remove":
        return []
    if role not in ROLES:
        raise AgentRLError(f"{place} must be an object whose role is one of {', '.join(ROLES)}")
    for name, value in message.items():
        if name not in _READ_KEYS and _may_hold_calls(name, value):
            raise AgentRLError(f"{place}.{name} may hold tool calls, and this key is not known")
    return _placed(place, lambda: _read_result(message, place) if role == "tool" else _read_turn(message, role, place))


def _may_hold_calls(name: str, value: Any) -> bool:
    """Whether a key that is not read sounds like calls, or holds a list of what does."""
    if not value or not isinstance(value, dict | list):
        return False
    return _SOUNDS_LIKE_CALLS.search(name) is not None or any(
        isinstance(one, dict) and any(_SOUNDS_LIKE_CALLS.search(str(said)) for said in [*one, *map(one.get, _KINDS)])
        for one in (value if isinstance(value, list) else ())
    )


def _read_turn(message: Mapping[str, Any], role: str, place: str) -> list[Event]:
    calls = list(calls_of(message, place))
    parts = _read_parts(message, place)
    # the AI SDK keeps them beside the parts that repeat them
    calls.extend(map(ai_sdk.read_invocation, as_list(message, "toolInvocations")))
    events: list[Event] = [*_once(calls, parts)]
    if role == "assistant" and not events and _WRITTEN_CALL.search(_written(message)):
        raise AgentRLError(f"{place} has tool calls written into its text, which are not read")
    return events


def _read_parts(message: Mapping[str, Any], place: str) -> list[Event]:
    """The events of a message's content and parts, in order."""
    events: list[Event] = []
    for key in ("content", "parts"):
        parts = message.get(key)
        if isinstance(parts, str):
            parts = _parts_in_text(parts)
        if isinstance(parts, dict) and ("type" in parts or message.get("role") == "assistant"):
            parts = [parts]
        if isinstance(parts, list):
            for position, part in enumerate(parts):
                events += _read_part(part, f"{place}.{key}[{position}]")
    return events


def _parts_in_text(text: str) -> Any:
    """Parts that somebody stored as JSON text; any other text as it is."""
    parts = decoded(text) if text.lstrip().startswith("[") else text
    kinds = [part.get("type") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    known = any(isinstance(kind, str) and (kind in _PARTS or kind.startswith("tool")) for kind in kinds)
    return parts if known and len(kinds) == len(parts) else text


def _read_part(part: Any, place: str) -> list[Event]:
    if isinstance(part, str):
        return []
    if not isinstance(part, dict):
        raise AgentRLError(f"{place} is {str(part)[:80]!r}; a part must be an object or text")
    kind = part.get("type")
    if kind is None:
        return _placed(place, lambda: read_untyped(part))
    if isinstance(kind, str):
        if ai_sdk.is_ui_call(kind, part):
            name = None if kind == "dynamic-tool" else kind.removeprefix("tool-")
            return _placed(place, lambda: [ai_sdk.read_invocation(part, name)])
        if kind in _PARTS:
            return _placed(place, lambda: list(_PARTS[kind](part)))
        if kind in _SILENT or kind.startswith("data-"):
            return []
        if kind == "non_standard" and isinstance(part.get("value"), dict):  # LangChain's wrapper
            return _read_part(part["value"], f"{place}.value")
    raise AgentRLError(f"{place} is of the type {kind!r}, which is not known")


def _read_result(message: Mapping[str, Any], place: str) -> list[Event]:
    """What a tool's message holds: parts that are results, or else all of it is one."""
    content = message.get("content")
    in_parts = isinstance(message.get("parts"), str | list) or (
        isinstance(content, list) and all(map(_is_part, content))
    )
    in_parts = in_parts or (isinstance(content, str) and _parts_in_text(content) is not content)
    events = _read_parts(message, place) if in_parts else []
    result = result_of(message)
    if events:
        return [_with_id(event, result) for event in events]
    text_of(content)  # which refuses a text part that is none
    if content is None and isinstance(message.get("parts"), list):
        result.content = message["parts"]
    return [result]


def _is_part(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and ("type" in value or is_untyped_part(value)))


def _with_id(event: Event, message: Result) -> Event:
    """A part that does not say to which call it belongs, in a message that does."""
    if isinstance(event, Result) and event.call_id is None and event.name is None:
        event.call_id, event.name = message.call_id, message.name
    return event


def _once(calls: Sequence[ToolCall], parts: Sequence[Event]) -> list[Event]:
    """The calls of a message that says them in two ways, each once; results stay."""
    ids = {call.call_id for call in calls if call.call_id is not None}
    left = [(call.name, call.arguments) for call in calls if call.call_id is None]
    events: list[Event] = list(calls)
    for event in parts:
        if isinstance(event, ToolCall):
            if event.call_id is not None and event.call_id in ids:
                continue
            if (event.name, event.arguments) in left:
                left.remove((event.name, event.arguments))
                continue
            if event.call_id is not None:
                ids.add(event.call_id)
        events.append(event)
    return events


def _written(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return text_of(content) if isinstance(content, str | list) else ""


def _placed(place: str, read: Any) -> list[Event]:
    """What `read` gives; its complaint names the place."""
    try:
        return list(read())
    except AgentRLError as error:
        said = str(error)
        raise AgentRLError(said if said.startswith(place) else f"{place}: {said}") from error
