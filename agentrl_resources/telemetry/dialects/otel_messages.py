"""Parts of OpenTelemetry's GenAI messages. Their `tool_call` is LangChain's as well, with `args` for `arguments`.

The convention has no mark for a failed call in a message; the span of the execution has one (`otel_spans`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.telemetry.dialects.calls import Event, Result, first, new_call
from agentrl_resources.telemetry.dialects.failures import marked

Part = Mapping[str, Any]


def _call(part: Part) -> Iterator[Event]:
    inner = part.get("server_tool_call")
    asked = inner if isinstance(inner, dict) else first(part, "arguments", "args", "input")
    yield new_call(part, part.get("name"), asked, "id", "call_id", "tool_call_id")


def _invalid_call(part: Part) -> Iterator[Event]:
    call = new_call(part, part.get("name"), first(part, "args", "arguments"), "id")
    call.result = Result(None, failed=True, error=str(part.get("error") or "invalid arguments"))
    yield call


def _result(part: Part) -> Iterator[Event]:
    failed, error = marked(part)
    content = first(part, "response", "result", "server_tool_call_response", "output", "content")
    call_id = first(part, "id", "tool_call_id", "call_id")
    yield Result(content, call_id, part.get("name"), failed, error)


PARTS: dict[str, Callable[[Part], Iterator[Event]]] = {
    "tool_call": _call,
    "server_tool_call": _call,
    "invalid_tool_call": _invalid_call,
    "tool_call_response": _result,
    "server_tool_call_response": _result,
    "server_tool_result": _result,
}
SILENT = frozenset({
    "blob", "uri", "binary", "image-url", "audio-url", "video-url", "document-url",
    "text-plain", "citation", "non_standard_annotation",
})  # fmt: skip
