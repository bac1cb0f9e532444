"""Spans and events of OpenTelemetry's GenAI conventions: messages in attributes, executions of tools as spans.

Attributes may be a plain object or OTLP's list of `{key, value: {stringValue}}`, and messages JSON as text. Each
request of a run repeats the messages before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects.calls import Result, ToolCall, as_list, decoded, first

_INPUT = "gen_ai.input.messages"
_OUTPUT = "gen_ai.output.messages"
_DETAILS = "gen_ai.client.inference.operation.details"
_ROLE_OF_EVENT = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool", "gen_ai.choice": "assistant",
}  # fmt: skip
_FLATTENED = ("gen_ai.prompt.", "gen_ai.completion.", "llm.input_messages.", "llm.output_messages.")


def has_spans(row: Mapping[str, Any]) -> bool:
    """Whether a row is made of spans, or is one."""
    if any(key in row for key in ("resourceSpans", "resource_spans", "spans", "scopeSpans")):
        return True
    if any(_name(event).startswith("gen_ai.") for event in _events(row)):
        return True
    return any(str(key).startswith(("gen_ai.", "llm.input_messages.")) for key in [*row, *_attributes(row)])


def read_spans(row: Mapping[str, Any]) -> tuple[list[list[Any]], list[ToolCall]]:
    """The messages of each request in the order of time, and the executions of tools."""
    requests: list[list[Any]] = []
    executions: list[ToolCall] = []
    spans = sorted(_spans(row), key=lambda span: str(first(span, "startTimeUnixNano", "start_time_unix_nano") or ""))
    for span in spans:
        attributes = {**{key: value for key, value in span.items() if "." in str(key)}, **_attributes(span)}
        if attributes.get("gen_ai.operation.name") == "execute_tool":
            executions.append(_execution(span, attributes))
            continue
        flattened = next((key for key in attributes if key.startswith(_FLATTENED)), None)
        messages = [*_messages(attributes, _INPUT), *_messages(attributes, _OUTPUT)]
        for event in _events(span):
            messages += _messages_of_event(event)
        if messages:
            requests.append(messages)
        elif flattened:
            raise AgentRLError(f"messages flattened into attributes ({flattened}), which are not read")
    return requests, executions


def _spans(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All spans below a row; the row itself where it holds none."""
    below = [first(row, one, two) for one, two in (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"))]
    below.append(row.get("spans"))
    if not any(isinstance(spans, list) for spans in below):
        yield row
    for spans in below:
        for span in spans if isinstance(spans, list) else []:
            if isinstance(span, dict):
                yield from _spans(span)


def _execution(span: Mapping[str, Any], attributes: Mapping[str, Any]) -> ToolCall:
    """The span says that it failed by its status or the type of its error; saying nothing is to have ended well."""
    status = span.get("status")
    code = first(status, "code", "status_code") if isinstance(status, dict) else first(span, "status_code", "status")
    error = attributes.get("error.type")
    failed = error is not None or str(code).rpartition("_")[2].upper() in ("ERROR", "2")
    said = first(status, "message", "description") if isinstance(status, dict) else None
    result = decoded(attributes.get("gen_ai.tool.call.result"))
    return ToolCall(
        str(attributes.get("gen_ai.tool.name") or "unknown"),
        decoded(attributes.get("gen_ai.tool.call.arguments")),
        attributes.get("gen_ai.tool.call.id"),
        Result(result, failed=failed or None, error=str(said or error) if said or error else None),
    )


def _messages(attributes: Mapping[str, Any], key: str) -> list[Any]:
    messages = decoded(attributes.get(key))
    if messages is None:
        return []
    if not isinstance(messages, list):
        raise AgentRLError(f"{key} must be a list of messages")
    return messages


def _events(span: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    events = first(span, "events", "logs")
    return [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []


def _name(event: Mapping[str, Any]) -> str:
    return str(first(event, "event.name", "event_name", "eventName", "name") or _attributes(event).get("event.name"))


def _messages_of_event(event: Mapping[str, Any]) -> list[Any]:
    attributes, name = _attributes(event), _name(event)
    if name == _DETAILS:
        body = decoded(event.get("body"))
        attributes = attributes | body if isinstance(body, dict) else attributes
        return [*_messages(attributes, _INPUT), *_messages(attributes, _OUTPUT)]
    if name not in _ROLE_OF_EVENT:
        return []
    body = decoded(event.get("body"))
    if not isinstance(body, dict):
        body = {key.removeprefix("gen_ai."): decoded(value) for key, value in attributes.items()}
        inner = first(body, "event.body", "event.content")
        body = inner if isinstance(inner, dict) else body
    message = decoded(body.get("message")) if name == "gen_ai.choice" and body.get("message") is not None else body
    message = message if isinstance(message, dict) else {"content": message}
    return [{"role": _ROLE_OF_EVENT[name], **message}]


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    attributes = holder.get("attributes")
    if isinstance(attributes, list):
        return {str(one.get("key")): _value(one.get("value")) for one in attributes if isinstance(one, dict)}
    return dict(attributes) if isinstance(attributes, dict) else {}


def _value(value: Any) -> Any:
    """A value of OTLP's JSON."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    if kind in ("arrayValue", "kvlistValue") and isinstance(inner, dict):
        values = [one for one in as_list(inner, "values") if isinstance(one, dict)]
        if kind == "arrayValue":
            return [_value(one) for one in values]
        return {str(one.get("key")): _value(one.get("value")) for one in values}
    return inner if kind.endswith("Value") else value
