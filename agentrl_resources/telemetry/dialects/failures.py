"""What a tool's result says of itself: whether the call failed.

Only fields whose meaning is clear count. Text that mentions an error, a lookup that finds a failed payment and a linter
that lists errors are results like others.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.strict_json import parse_json

FAILED_WORDS = frozenset({"error", "errored", "failed", "failure", "fail", "timeout", "denied"})
DONE_WORDS = frozenset({"success", "succeeded", "ok", "completed", "complete", "done"})
_NOTHING = frozenset({"", "none", "null", "no", "no error", "no errors", "ok", "false", "0", "n/a"})
# Beside a status these explain it; beside anything else the status is that of an order or a payment.
_ENVELOPE = frozenset({
    "status", "success", "ok", "message", "msg", "reason", "error", "errors", "error_message", "error_code", "code",
    "detail", "details", "description", "data", "type", "title", "timestamp", "request_id", "trace_id", "is_error",
    "isError",
})  # fmt: skip
_ERROR_TEXT = re.compile(
    r"\s*(?:Error|ERROR|error(?=:))(?![\w-])(?!\s+(?:counts?|rates?|logs?|reports?|margins?|handling|budgets?|bars?|summary)\b)"
    r"(?!(?:\s+(?:code|message)s?)?\s*[:=]?\s*(?:0|none|null|n/a|false)\s*\.?\s*$)"
)


def marked(envelope: Mapping[str, Any]) -> tuple[bool | None, str | None]:
    """Whether a message or part that carries a result marks it as failed (None: it says nothing), and the error."""
    failed: bool | None = None
    error = _error_of(envelope.get("error"))
    for name in ("is_error", "isError"):
        if (flag := _flag(name, envelope.get(name))) is not None:
            failed = bool(failed) or flag
    status = envelope.get("status")
    word = status.lower() if isinstance(status, str) else ""
    if word in FAILED_WORDS or error is not None:
        failed = True
    elif word in DONE_WORDS and failed is None:
        failed = False
    return failed, error


def _flag(name: str, value: Any) -> bool | None:
    """A mark as people write it: true, 1, "true". What is none of it is refused, since it may mean a failure."""
    known = {"": None, "none": None, "null": None, "true": True, "1": True, "false": False, "0": False}
    if (word := str(value).strip().lower()) not in known:
        raise AgentRLError(f"{name} is {str(value)[:80]!r}; it must be true or false")
    return known[word]


def failure_in(content: Any) -> str | None:
    """The failure that a result itself states as an object, in words; None where it states none."""
    result = _as_object(content)
    if not isinstance(result, dict):
        return None
    failed, error = marked({key: value for key, value in result.items() if key != "status"})
    for name in ("exception", "traceback"):
        error = error or _error_of(result.get(name))
    if error is None and str(result.get("type", "")).endswith("_error") and result.get("error_code"):
        error = str(result["error_code"])
    if error is None and result.get("type") == "error" and isinstance(result.get("message"), str):
        error = result["message"]
    if error is None and _is_list_of_errors(result):
        error = "; ".join(str(one.get("message")) for one in result["errors"])
    word = result["status"].lower() if isinstance(result.get("status"), str) else ""
    refused = result.get("success") is False or result.get("ok") is False
    if failed or error or refused or word == "error" or (word in FAILED_WORDS and result.keys() <= _ENVELOPE):
        said = next((result[name] for name in ("message", "msg", "reason", "detail") if result.get(name)), None)
        return error or (text_of(result["content"]) if result.get("content") else None) or str(said or word or "failed")
    return None


def reads_as_error(content: Any) -> bool:
    """Whether a result is text that begins as an error message does, such as `Error: no such order`."""
    return _ERROR_TEXT.match(text_of(content)) is not None


def text_of(content: Any) -> str:
    """The text of a result: itself, or that of its text parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text_of_part(part) for part in content)
    if isinstance(content, dict) and isinstance(content.get("content"), str | list):
        return text_of(content["content"])
    return "" if content is None or isinstance(content, dict) else str(content)


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") not in ("text", "input_text", "output_text"):
        return ""
    text = next((part[name] for name in ("text", "content") if name in part), "")
    if not isinstance(text, str):
        raise AgentRLError(f"a text part whose text is {str(text)[:80]}, of type {type(text).__name__}")
    return text


def _as_object(content: Any) -> Any:
    if isinstance(content, list):
        objects = [part["json"] for part in content if isinstance(part, dict) and "json" in part]  # Bedrock
        content = objects[0] if objects else text_of(content)
    if isinstance(content, str) and content.lstrip().startswith("{"):
        try:
            return parse_json(content)
        except ValueError:
            return _python_object(content)
    return content


def _python_object(text: str) -> Any:
    """An object as Python prints it, which many a tool returns for JSON."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _error_of(value: Any) -> str | None:
    """An error in words. A number with a fraction is a measure that is called error."""
    if isinstance(value, dict):
        said = next((value[name] for name in ("message", "detail", "type", "code") if value.get(name)), None)
        return str(said or value) if value else None
    if value is None or value is False or isinstance(value, float) or value == []:
        return None
    if value is True:
        return "failed"
    return None if str(value).strip().lower() in _NOTHING else str(value)


def _is_list_of_errors(result: Mapping[str, Any]) -> bool:
    """GraphQL's way: errors with messages beside the data, and nothing else."""
    errors = result.get("errors")
    return (
        isinstance(errors, list)
        and bool(errors)
        and all(isinstance(one, dict) and "message" in one for one in errors)
        and result.keys() <= {"errors", "data", "extensions"}
    )
