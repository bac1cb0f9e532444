"""Traces of agents that ran elsewhere, read into run records.

A row of a table, such as a JSON object a line (`trace_files` says which files). Only the messages are required; every
other column is used when it is there and not empty, and of alternatives the first that is not empty:

    traj | messages                  chat messages of any dialect that `dialects` reads; or a row of a tracing product
    success | outcome | reward       true, "success" or 1.0 and more is a success; none of them: not labelled yet
    run_id                           unique over all workflows; without it the digest of workflow and row
    task_id, task_type, session_id, model, policy_version, release_id, quality, safety_violation, cost (EUR)
    started_at | timestamp | start_time | created_at      without any of them, the time of the first import
    duration_ms, usage {prompt_tokens | input_tokens, completion_tokens | output_tokens} | tokens_in, tokens_out
    human_override                   without it, a call of a hand-over tool counts as one unless the call failed
    updated_at | exported_at         when the row was as it says: of rows of one run the newest counts
    tools                            schemas of the tools that the agent had, as OpenAI, Anthropic or MCP write them
    tokens                           what the gateway kept of each turn: token ids and log-probabilities
    correction                       what a person wrote in place of the agent's last answer: text, or messages
    trace                            a run's trace as AgentRL stores it, with all of these and the messages
    labelled_at                      when success, human_override and safety_violation were said; without it as above

How times, flags and numbers may be written says `values`. A row without messages that has a `run_id`, `labelled_at` and
one of the three labels says afterwards what became of that run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_bytes, digest_json
from agentrl_resources.redaction import Redactor, pseudonym
from agentrl_resources.strict_json import MAX_DEPTH, depth
from agentrl_resources.telemetry.dialects import holds_trace, read_trace
from agentrl_resources.telemetry.dialects.calls import decoded
from agentrl_resources.telemetry.run_records import RunRecord
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
"""By what names a hand-over is known in traces of a workflow that says nothing of its own."""


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
    hand_over_tools: frozenset[str] = HAND_OVER_TOOLS,
) -> ImportResult:
    """Read a trace file; store the result with `Warehouse.ingest(result.records, result.rejected, result.labels)`.

    The id of a run is the digest of the workflow's name and the row's content unless the row has a `run_id`, so
    importing a file again changes nothing. `exported_at`: when the file was written, for rows that do not say it.
    `hand_over_tools`: by what names the workflow hands over to a person.
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
            record, labels = _read_row(row.data, workflow, channel, now, said_at, hand_over_tools)
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
    row: dict[str, Any],
    workflow: str,
    channel: str,
    now: datetime,
    exported_at: str | None,
    hand_over_tools: frozenset[str],
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
    run_id = pseudonym(stated_id or digest_json({"workflow": workflow, "line": row}))
    only_labels = stated_id and said and label_time and not holds_trace(line)
    record = None
    if not only_labels:
        record = _run_record(line, run_id, said, now, workflow, channel, reported_at, hand_over_tools)
    label = {"run_id": run_id, "labelled_at": label_time or reported_at}
    labels = [{**label, "field": name, "value": value} for name, value in said.items() if label["labelled_at"]]
    return record, labels


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that say something; tables keep what is no single value as JSON text."""
    filled = {name: value for name, value in row.items() if not is_empty(value)}
    inner = decoded(filled.get("trace"))
    if isinstance(inner, dict) and "messages" in inner and not {"traj", "messages"} & filled.keys():
        # how each call went is read from the messages again
        filled |= {name: inner[name] for name in ("messages", *_KEPT) if not is_empty(inner.get(name))}
    return filled | {name: decoded(filled[name]) for name in ("traj", "messages", "usage", *_KEPT) if name in filled}


_KEPT: Mapping[str, type | tuple[type, ...]] = {"tools": list, "tokens": list, "correction": (str, list)}
"""What a trace keeps beside its messages and calls, and what it has to be."""


def _kept(line: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: line[name] for name in _KEPT if name in line}
    for name, value in kept.items():
        listed = value if isinstance(value, list) else ()
        if not isinstance(value, _KEPT[name]) or not all(isinstance(one, dict) for one in listed):
            raise AgentRLError(f"{name} must be a list of objects{', or text' if name == 'correction' else ''}")
    return kept


def _run_record(
    line: dict[str, Any],
    run_id: str,
    said: Mapping[str, bool],
    now: datetime,
    workflow: str,
    channel: str,
    reported_at: str | None,
    hand_over_tools: frozenset[str],
) -> RunRecord:
    trace = read_trace(line)
    kept = trace.row() | _kept(line)
    if depth(kept) > 2 * MAX_DEPTH:
        raise AgentRLError("nested too deeply")
    usage = line.get("usage", {})
    if not isinstance(usage, dict):
        raise AgentRLError("usage must be an object with prompt_tokens and completion_tokens")
    session = line.get("session_id")
    model = read_text(line, "model")
    started_at = read_time(line, now, "started_at", "timestamp", "start_time", "created_at")
    return RunRecord(
        model_version=model,
        policy_version=read_text(line, "policy_version") or model,
        tool_calls_count=len(trace.calls),
        tool_error_count=trace.failed_calls,
        tokens_in=_first(read_count(line, "tokens_in"), read_count(usage, "prompt_tokens", "input_tokens")),
        tokens_out=_first(read_count(line, "tokens_out"), read_count(usage, "completion_tokens", "output_tokens")),
        duration_ms=read_number(line, "duration_ms"),
        human_override=said.get("human_override", trace.called(hand_over_tools) or None),
        release_channel=channel,
        run_id=run_id,
        workflow=workflow,
        task_id=pseudonym(read_text(line, "task_id") or run_id),
        task_type=read_text(line, "task_type"),
        started_at=started_at or now.isoformat(),
        start_known=started_at is not None,
        reported_at=reported_at,
        session_key_hash=None if session is None else digest_json(session),
        release_id=read_text(line, "release_id"),
        assigned_channel=channel,
        served_channel=channel,
        success=said.get("success", False if trace.error else None),
        safety_violation=said.get("safety_violation"),
        quality=read_number(line, "quality"),
        cost=read_number(line, "cost"),
        trace=kept,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
