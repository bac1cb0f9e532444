"""Traces of agents that ran elsewhere, read into run records.

One JSON object a line, plain or gzipped. Only the messages are required; every other key is used when it is there:

    traj | messages                  chat messages, with `tool_calls` and `tool` results
    reward | success | outcome       1.0, true or "success" is a success; none of them: not labelled yet
    run_id                           unique over all workflows; without it the digest of workflow and line
    task_id, task_type, session_id, model, policy_version, release_id, quality, safety_violation, cost (EUR)
    started_at | timestamp           ISO 8601 or Unix seconds; without it the time of the import
    duration_ms, usage {prompt_tokens, completion_tokens} | tokens_in, tokens_out
    human_override                   without it, a call of a hand-over tool counts as one
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_bytes, digest_json
from agentrl_resources.redaction import Redactor, pseudonym
from agentrl_resources.telemetry.run_records import RunRecord

HAND_OVER_TOOLS = frozenset({"transfer_to_human_agents", "hand_over"})
_SUCCESS_WORDS = {"success": True, "succeeded": True, "pass": True, "passed": True, "resolved": True} | {
    "failure": False, "failed": False, "fail": False, "error": False, "unresolved": False
}  # fmt: skip
_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class RejectedLine:
    """A line that is no run, and why. `line` counts from 1."""

    source: str
    line: int
    reason: str
    content: str

    def redacted(self) -> dict[str, Any]:
        """The row for the table `import_quarantine`."""
        redactor = Redactor([self.content, self.reason])
        row = {"source": self.source, "line": self.line, "digest": digest_bytes(self.content.encode())}
        return row | {"content": redactor.redact(self.content), "reason": redactor.redact(self.reason)}


@dataclass(frozen=True)
class ImportResult:
    """Each line that is not blank is in exactly one of the two."""

    records: list[RunRecord]
    rejected: list[RejectedLine]


def import_traces(path: Path, workflow: str, channel: str = "general", now: datetime | None = None) -> ImportResult:
    """Read a trace file; store the result with `Warehouse.ingest(result.records, result.rejected)`.

    The id of a run is the digest of the workflow's name and the line's content unless the line has a `run_id`, so
    importing a file again changes nothing. Raises `AgentRLError` when the file is missing or empty.
    """
    started_at = (now or datetime.now(UTC)).isoformat()
    records: dict[str, RunRecord] = {}
    first_line: dict[str, int] = {}
    rejected: list[RejectedLine] = []
    for number, data in _lines(path, rejected):
        text = data.decode("utf-8", errors="backslashreplace")
        try:
            record = _run_record(_parse(data), workflow, channel, started_at)
            if record.run_id in records:
                raise AgentRLError(f"the same run as line {first_line[record.run_id]}")
        except AgentRLError as error:
            rejected.append(RejectedLine(path.name, number, str(error), text))
            continue
        records[record.run_id] = record
        first_line[record.run_id] = number
    if not records and not rejected:
        raise AgentRLError(f"{path} is empty. It must hold one run a line, as JSON.")
    return ImportResult(list(records.values()), rejected)


def _lines(path: Path, rejected: list[RejectedLine]) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.removeprefix(b"\xef\xbb\xbf").strip()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        reason = "from here on the file is not valid gzip; copy it again and repeat the import"
        rejected.append(RejectedLine(path.name, number + 1, reason, ""))
    except OSError as error:
        raise AgentRLError(f"{path} cannot be read: {error.strerror}. Check the path.") from error


def _parse(data: bytes) -> dict[str, Any]:
    try:
        line = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        # A lone surrogate is legal JSON and no legal text.
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise AgentRLError(f"not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise AgentRLError("holds half of a character (a lone surrogate)") from error
    except RecursionError as error:
        raise AgentRLError("nested too deeply") from error
    except ValueError as error:
        raise AgentRLError(f"not valid JSON, perhaps half a line: {error}") from error
    if not isinstance(line, dict):
        raise AgentRLError(f"a JSON {type(line).__name__} where an object is needed")
    return line


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _run_record(line: dict[str, Any], workflow: str, channel: str, default_start: str) -> RunRecord:
    messages = _messages(line)
    calls = _tool_calls(messages)
    handed_over = any(call["name"] in HAND_OVER_TOOLS for call in calls)
    override = _flag(line, "human_override")
    usage = line.get("usage") or {}
    if not isinstance(usage, dict):
        raise AgentRLError("usage must be an object with prompt_tokens and completion_tokens")
    session = line.get("session_id")
    model = _text(line, "model")
    content = {"workflow": workflow, "line": line}
    return RunRecord(
        model_version=model,
        policy_version=_text(line, "policy_version") or model,
        tool_calls_count=len(calls),
        tool_error_count=sum(call["error"] is not None for call in calls),
        tokens_in=line.get("tokens_in", usage.get("prompt_tokens")),
        tokens_out=line.get("tokens_out", usage.get("completion_tokens")),
        duration_ms=line.get("duration_ms"),
        human_override=handed_over if override is None else override,
        release_channel=channel,
        run_id=pseudonym(_text(line, "run_id") or digest_json(content)),
        workflow=workflow,
        task_id=pseudonym(_text(line, "task_id") or digest_json(content)),
        task_type=_text(line, "task_type"),
        started_at=_started_at(line) or default_start,
        session_key_hash=None if session is None else digest_json(session),
        release_id=_text(line, "release_id"),
        assigned_channel=channel,
        served_channel=channel,
        success=_success(line),
        safety_violation=_flag(line, "safety_violation"),
        quality=line.get("quality"),
        cost=line.get("cost"),
        trace={"messages": messages, "tool_calls": calls},
    )


def _messages(line: dict[str, Any]) -> list[dict[str, Any]]:
    key = "traj" if "traj" in line else "messages"
    messages = line.get(key)
    if not isinstance(messages, list) or not messages:
        raise AgentRLError("no messages: `traj` or `messages` must be a list of chat messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise AgentRLError(f"{key}[{position}] must be an object whose role is one of {', '.join(_ROLES)}")
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or not all(_is_call(call) for call in calls):
            raise AgentRLError(f"{key}[{position}].tool_calls must be a list of calls that name a function")
    return messages


def _is_call(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _tool_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each call with its result: the one that has the call's id, otherwise the next in the order of the messages."""
    calls: list[dict[str, Any]] = []
    waiting: deque[tuple[Any, dict[str, Any]]] = deque()
    for message in messages:
        for call in message.get("tool_calls") or []:
            function = call["function"]
            calls.append(_call(function["name"], _decoded(function.get("arguments"))))
            waiting.append((call.get("id"), calls[-1]))
        if message["role"] == "tool":
            wanted = message.get("tool_call_id")
            found = next((item for item in waiting if wanted is not None and item[0] == wanted), None)
            if found is None and waiting:
                found = waiting[0]
            if found is None:
                calls.append(_call(str(message.get("name") or "unknown"), None))
            else:
                waiting.remove(found)
            answered = calls[-1] if found is None else found[1]
            answered["result"] = message.get("content")
            answered["error"] = _error(message.get("content"))
    return calls


def _call(name: str, arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments, "result": None, "error": None, "ms": None}


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return value


def _error(content: Any) -> str | None:
    """The error in a tool's result: text that begins with `Error`, or an object whose `error` is not empty."""
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    if isinstance(content, str) and content.startswith("Error"):
        return content
    result = _decoded(content)
    return str(result["error"]) if isinstance(result, dict) and result.get("error") else None


def _success(line: Mapping[str, Any]) -> bool | None:
    for name in ("success", "outcome", "reward"):
        value = line.get(name)
        if isinstance(value, str) and value.lower() in _SUCCESS_WORDS:
            return _SUCCESS_WORDS[value.lower()]
        if isinstance(value, bool | int | float) and math.isfinite(value):
            return value >= 1
        if value is not None:
            words = ", ".join(_SUCCESS_WORDS)
            raise AgentRLError(f"{name} is {value!r}; it must be true, false, a number, or one of {words}")
    return None


def _started_at(line: Mapping[str, Any]) -> str | None:
    value = line.get("started_at", line.get("timestamp"))
    if value is None or isinstance(value, str):
        return value
    try:
        return datetime.fromtimestamp(value, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise AgentRLError(f"started_at is {value!r}; it must be an ISO 8601 time or Unix seconds") from error


def _text(line: Mapping[str, Any], name: str) -> str | None:
    value = line.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise AgentRLError(f"{name} is {value!r}; it must be text or a whole number")


def _flag(line: Mapping[str, Any], name: str) -> bool | None:
    value = line.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise AgentRLError(f"{name} is {value!r}; it must be true or false")
