"""Items of OpenAI's Responses API: calls and their outputs are items beside the messages.

What OpenAI's own tools did is one item with a status. That of a `function_call` only says whether the model finished
writing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.telemetry.dialects.calls import Event, Result, first, new_call
from agentrl_resources.telemetry.dialects.failures import DONE_WORDS, marked

Item = Mapping[str, Any]


def _function_call(item: Item) -> Iterator[Event]:
    yield new_call(item, item.get("name"), first(item, "arguments", "input"), "call_id", "id")


def _client_tool(name: str) -> Callable[[Item], Iterator[Event]]:
    """A tool of OpenAI that the client runs: its output is an item of its own."""

    def read(item: Item) -> Iterator[Event]:
        yield new_call(item, name, first(item, "action", "actions", "operation"), "call_id", "id")

    return read


def _output(item: Item) -> Iterator[Event]:
    failed, error = marked(item)
    outputs = item.get("output")
    if failed is None and isinstance(outputs, list):  # of a shell: an outcome for each command
        codes = [one["outcome"].get("exit_code") for one in outputs if isinstance(one, dict) and _is_outcome(one)]
        timeouts = [one for one in outputs if isinstance(one, dict) and _is_outcome(one, "timeout")]
        failed = True if timeouts else False if codes else None
        error = "timeout" if timeouts else error
    yield Result(outputs, first(item, "call_id", "id"), None, failed, error)


def _is_outcome(output: Item, kind: str = "") -> bool:
    outcome = output.get("outcome")
    return isinstance(outcome, dict) and (not kind or outcome.get("type") == kind)


def _hosted_tool(name: str) -> Callable[[Item], Iterator[Event]]:
    """A tool that OpenAI runs: one item is the call and what became of it."""

    def read(item: Item) -> Iterator[Event]:
        asked = first(item, "action", "queries", "code", "arguments", "input")
        call = new_call(item, name or item.get("name"), asked, "id", "call_id")
        call.result = _hosted_result(item)
        yield call

    return read


def _hosted_result(item: Item) -> Result | None:
    failed, error = marked(item)
    content = first(item, "output", "outputs", "results", "result")
    status = str(item.get("status") or "").lower()
    if failed is None and content is None and status not in DONE_WORDS:
        return None  # still running, cut off, or nobody says
    return Result(content, None, None, failed, error)


def _nothing(item: Item) -> Iterator[Event]:
    return iter(())


ITEMS: dict[str, Callable[[Item], Iterator[Event]]] = {
    "function_call": _function_call,
    "custom_tool_call": _function_call,
    "function_call_output": _output,
    "custom_tool_call_output": _output,
    "mcp_call": _hosted_tool(""),
    **{
        kind: _client_tool(kind.removesuffix("_call"))
        for kind in ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
    },
    **{
        f"{kind}_output": _output
        for kind in ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
    },
    **{
        kind: _hosted_tool(kind.removesuffix("_call"))
        for kind in (
            "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "tool_search_call",
        )
    },
    **dict.fromkeys(
        (
            "reasoning", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "compaction",
            "item_reference", "tool_search_output",
        ),
        _nothing,
    ),
}  # fmt: skip
"""How an item of each type is read. One of the type `message` is a chat message."""


def is_item(message: Item) -> bool:
    """Whether this is an item beside the messages."""
    kind = message.get("type")
    return message.get("role") is None and isinstance(kind, str) and kind in ITEMS


def read_item(item: Item) -> list[Event]:
    """The events of an item; it must be one."""
    return list(ITEMS[item["type"]](item))
