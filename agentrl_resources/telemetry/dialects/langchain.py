"""LangChain's messages: serialised objects (`lc`), dicts with a `type` in place of a role, and `messages_to_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROLES = {
    "human": "user", "ai": "assistant", "system": "system", "developer": "developer", "tool": "tool",
    "function": "function", "chat": "user", "remove": "remove",
}  # fmt: skip


def is_langchain(message: Mapping[str, Any]) -> bool:
    """Whether this is a message of LangChain that has not been unwrapped yet."""
    if message.get("role") is not None:
        return False
    return _constructed(message) is not None or _kind(message.get("type")) is not None


def unwrapped(message: Mapping[str, Any]) -> dict[str, Any]:
    """The same message with a role, and its fields beside it."""
    name = _constructed(message)
    if name is not None:
        fields = message.get("kwargs") or {}
        kind = _kind(name)
    else:
        inner = message.get("data")
        fields = inner if isinstance(inner, dict) else message
        kind = _kind(message.get("type"))
    role = _ROLES[kind or "chat"]
    if kind == "chat":
        role = {"human": "user", "ai": "assistant"}.get(str(fields.get("role")), str(fields.get("role") or "user"))
    return {**fields, "role": role}


def _constructed(message: Mapping[str, Any]) -> str | None:
    """The class of a serialised message, such as `AIMessage`."""
    path = message.get("id")
    if isinstance(path, list) and path and _kind(path[-1]) and isinstance(message.get("kwargs"), dict):
        return str(path[-1])
    return None


def _kind(name: Any) -> str | None:
    """`ai` of ai, AIMessage, AIMessageChunk; None of what is no message."""
    if not isinstance(name, str):
        return None
    short = name.removesuffix("Chunk").removesuffix("Message").lower()
    return short if short in _ROLES else None
