"""Content blocks of Anthropic's Messages API: `tool_use` in an assistant's turn, `tool_result` in the user's next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.telemetry.dialects.calls import Event, Result, first, new_call
from agentrl_resources.telemetry.dialects.failures import marked

Part = Mapping[str, Any]


def _call(part: Part) -> Iterator[Event]:
    yield new_call(part, part.get("name"), first(part, "input", "arguments"), "id")


def _result(part: Part) -> Iterator[Event]:
    failed, error = marked(part)
    yield Result(part.get("content"), first(part, "tool_use_id", "tool_call_id", "id"), part.get("name"), failed, error)


PARTS: dict[str, Callable[[Part], Iterator[Event]]] = {
    **dict.fromkeys(("tool_use", "server_tool_use", "mcp_tool_use"), _call),
    **dict.fromkeys(
        (
            "tool_result", "mcp_tool_result", "web_search_tool_result", "web_fetch_tool_result",
            "code_execution_tool_result", "bash_code_execution_tool_result",
            "text_editor_code_execution_tool_result", "tool_search_tool_result", "advisor_tool_result",
        ),
        _result,
    ),
}  # fmt: skip
SILENT = frozenset({
    "thinking", "redacted_thinking", "document", "search_result", "container_upload", "tool_reference", "compaction",
    "fallback",
})  # fmt: skip
"""Blocks that neither call a tool nor answer a call."""
