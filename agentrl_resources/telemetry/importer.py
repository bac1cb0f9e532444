"""Traces of agents that ran elsewhere, read into run records.

A row of a table, such as a JSON object a line (`trace_files` says which files). Only the messages are required; every
other column is used when it is there and not empty, and of alternatives the first that is not empty:

    traj | messages                  chat messages, with `tool_calls` and `tool` results
    success | outcome | reward       true, "success" or 1.0 and more is a success; none of them: not labelled yet
    run_id                           unique over all workflows; without it the digest of workflow and row
    task_id, task_type, session_id, model, policy_version, release_id, quality, safety_violation, cost (EUR)
    started_at | timestamp | start_time | created_at      without any of them, the time of the first import
    duration_ms, usage {prompt_tokens | input_tokens, completion_tokens | output_tokens} | tokens_in, tokens_out
    human_override                   without it, a call of a hand-over tool counts as one
    updated_at | exported_at         when the row was as it says: of rows of one run the newest counts
    labelled_at                      when success, human_override and safety_violation were said; without it as above

How times, flags and numbers may be written says `values`. A row without messages that has a `run_id`, `labelled_at` and
one of the three labels says afterwards what became of that run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_bytes, digest_json
from agentrl_resources.redaction import redact
from agentrl_resources.strict_json import MAX_DEPTH, depth, parse_json
from agentrl_resources.telemetry.run_records import RunRecord, redact_value
from agentrl_resources.telemetry.trace_files import KINDS, read_rows, source_name
from agentrl_resources.telemetry.values import (
    is_empty,
    past_time,
    read_count,
    read_flag,
    read_number,
    read_success,
    read_text,
    read_time,
    shown,
)

HAND_OVER_TOOLS = frozenset({"transfer_to_human_agents", "hand_over"})
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
        found: Counter[str] = Counter()
        row = {"source": self.source, "line": self.line, "digest": digest_bytes(self.content.encode())}
        return row | {"reason": redact_value(self.reason, found), "content": redact_value(self.content, found)}


@dataclass(frozen=True)
class ImportResult:
    """Each row is in exactly one of `records` (two rows may be reports of one run), `rejected`, and `label_rows`.

    `labels` are rows of the table `run_labels`: what those rows, and runs whose labels have a time, say.
    """

    records: list[RunRecord]
    rejected: list[RejectedLine]
    labels: list[dict[str, Any]] = field(default_factory=list)
    label_rows: int = 0


LINE_ERRORS = (AgentRLError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What reading one line may end in, whatever stands there; it costs that line and no other."""


def reason_of(error: BaseException) -> str:
    """Why a line is no run, in a sentence."""
    if isinstance(error, AgentRLError):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"it cannot be read ({type(error).__name__}: {shown(str(error))})"


def import_traces(
    path: Path,
    workflow: str,
    channel: str = "general",
    now: datetime | None = None,
    exported_at: str | None = None,
) -> ImportResult:
    """Read a trace file; store the result with `Warehouse.ingest(result.records, result.rejected, result.labels)`.

    The id of a run is the digest of the workflow's name and the row's content unless the row has a `run_id`, so
    importing a file again changes nothing. `exported_at`: when the file was written, for rows that do not say it.
    Raises `AgentRLError` when the file is missing, empty or of an unknown kind.
    """
    now = now or datetime.now(UTC)
    said_at = past_time("exported_at", exported_at, now) if exported_at else None
    found = ImportResult([], [])
    first: dict[str, int] = {}
    label_rows = 0
    for row in read_rows(path):
        try:
            if row.data is None:
                raise AgentRLError(row.problem)
            record, labels = _read_row(row.data, workflow, channel, now, said_at)
            digest = digest_bytes(canonical_json([record and vars(record), labels]))
            if digest in first:
                raise AgentRLError(f"the same {'run' if record else 'label'} as line {first[digest]}")
        except LINE_ERRORS as error:
            found.rejected.append(RejectedLine(source_name(path), row.number, reason_of(error), row.content))
            continue
        first[digest] = row.number
        found.labels.extend(labels)
        if record is None:
            label_rows += 1
        else:
            found.records.append(record)
    if not (found.records or found.rejected or label_rows):
        raise AgentRLError(f"{path} is empty. It must hold {KINDS}.")
    return ImportResult(found.records, found.rejected, found.labels, label_rows)


def _read_row(
    row: dict[str, Any], workflow: str, channel: str, now: datetime, exported_at: str | None
) -> tuple[RunRecord | None, list[dict[str, Any]]]:
    """The run of a row (None where it is only about labels), and its labels that have a time."""
    line = _filled(row)
    reported_at = read_time(line, now, "updated_at", "exported_at") or exported_at
    label_time = read_time(line, now, "labelled_at", "labeled_at")
    values = {
        "human_override": read_flag(line, "human_override"),
        "success": read_success(line, "success", "outcome", "reward"),
        "safety_violation": read_flag(line, "safety_violation"),
    }
    said = {name: value for name, value in values.items() if value is not None}
    stated_id = read_text(line, "run_id")
    run_id = stated_id or digest_json({"workflow": workflow, "line": row})
    only_labels = stated_id and said and label_time and not ("traj" in line or "messages" in line)
    record = None if only_labels else _run_record(line, run_id, said, now, workflow, channel, reported_at)
    label = {"run_id": run_id, "labelled_at": label_time or reported_at}
    labels = [{**label, "field": name, "value": value} for name, value in said.items() if label["labelled_at"]]
    return record, labels


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say something; tables keep what is no single value as JSON text."""
    filled = {name: value for name, value in row.items() if not is_empty(value)}
    return filled | {name: _decoded(filled[name]) for name in ("traj", "messages", "usage") if name in filled}


def _run_record(
    line: dict[str, Any],
    run_id: str,
    said: Mapping[str, bool],
    now: datetime,
    workflow: str,
    channel: str,
    reported_at: str | None,
) -> RunRecord:
    messages = _messages(line)
    calls = _tool_calls(messages)
    trace = {"messages": messages, "tool_calls": calls}
    if depth(trace) > 2 * MAX_DEPTH:
        raise AgentRLError("nested too deeply")
    handed_over = any(call["name"] in HAND_OVER_TOOLS for call in calls)
    usage = line.get("usage", {})
    if not isinstance(usage, dict):
        raise AgentRLError("usage must be an object with prompt_tokens and completion_tokens")
    session = line.get("session_id")
    model = read_text(line, "model")
    started_at = read_time(line, now, "started_at", "timestamp", "start_time", "created_at")
    return RunRecord(
        model_version=model,
        policy_version=read_text(line, "policy_version") or model,
        tool_calls_count=len(calls),
        tool_error_count=sum(call["error"] is not None for call in calls),
        tokens_in=_first(read_count(line, "tokens_in"), read_count(usage, "prompt_tokens", "input_tokens")),
        tokens_out=_first(read_count(line, "tokens_out"), read_count(usage, "completion_tokens", "output_tokens")),
        duration_ms=read_number(line, "duration_ms"),
        human_override=said.get("human_override", handed_over or None),
        release_channel=channel,
        run_id=run_id,
        workflow=workflow,
        task_id=_task_id(line, run_id),
        task_type=read_text(line, "task_type"),
        started_at=started_at or now.isoformat(),
        start_known=started_at is not None,
        reported_at=reported_at,
        session_key_hash=None if session is None else digest_json(session),
        release_id=read_text(line, "release_id"),
        assigned_channel=channel,
        served_channel=channel,
        success=said.get("success"),
        safety_violation=said.get("safety_violation"),
        quality=read_number(line, "quality"),
        cost=read_number(line, "cost"),
        trace=trace,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _task_id(line: Mapping[str, Any], run_id: str) -> str:
    """Without one a run is a task of its own. A task id from outside may be somebody's address; it is then replaced by
    its digest, which keeps tasks apart.
    """
    task = read_text(line, "task_id")
    if task is None:
        return run_id
    return digest_bytes(task.encode()) if redact(task)[1] else task


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
        return parse_json(value)
    except ValueError:
        return value


def _error(content: Any) -> str | None:
    """The error in a tool's result: text that begins with `Error`, or an object whose `error` is not empty."""
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    if isinstance(content, str) and content.startswith("Error"):
        return content
    result = _decoded(content)
    return str(result["error"]) if isinstance(result, dict) and result.get("error") else None
