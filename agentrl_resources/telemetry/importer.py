"""Traces of agents that ran elsewhere, read into run records.

One JSON object a line, plain or gzipped. Only the messages are required; every other key is used when it is there:

    traj | messages                  chat messages of any dialect that `dialects` reads; or a row of a tracing product
    reward | success | outcome       1.0, true or "success" is a success; none of them: not labelled yet
    run_id                           unique over all workflows; without it the digest of workflow and line
    task_id, task_type, session_id, model, policy_version, release_id, quality, safety_violation, cost (EUR)
    started_at | timestamp           ISO 8601 or Unix seconds; without it the time of the import
    duration_ms, usage {prompt_tokens, completion_tokens} | tokens_in, tokens_out
    human_override                   without it, a call of a hand-over tool counts as one unless the call failed
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_bytes, digest_json
from agentrl_resources.redaction import Redactor, pseudonym
from agentrl_resources.telemetry.dialects import read_trace
from agentrl_resources.telemetry.run_records import RunRecord

HAND_OVER_TOOLS = frozenset({"transfer_to_human_agents", "hand_over"})
"""By what names a hand-over is known in traces of a workflow that says nothing of its own."""

_SUCCESS_WORDS = {"success": True, "succeeded": True, "pass": True, "passed": True, "resolved": True} | {
    "failure": False, "failed": False, "fail": False, "error": False, "unresolved": False
}  # fmt: skip


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


def import_traces(
    path: Path,
    workflow: str,
    channel: str = "general",
    now: datetime | None = None,
    hand_over_tools: frozenset[str] = HAND_OVER_TOOLS,
) -> ImportResult:
    """Read a trace file; store the result with `Warehouse.ingest(result.records, result.rejected)`.

    The id of a run is the digest of the workflow's name and the line's content unless the line has a `run_id`, so
    importing a file again changes nothing. `hand_over_tools`: by what names the workflow hands over to a person. Raises
    `AgentRLError` when the file is missing or empty.
    """
    started_at = (now or datetime.now(UTC)).isoformat()
    records: dict[str, RunRecord] = {}
    first_line: dict[str, int] = {}
    rejected: list[RejectedLine] = []
    for number, data in _lines(path, rejected):
        text = data.decode("utf-8", errors="backslashreplace")
        try:
            record = _run_record(_parse(data), workflow, channel, started_at, hand_over_tools)
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


def _run_record(
    line: dict[str, Any], workflow: str, channel: str, default_start: str, hand_over_tools: frozenset[str]
) -> RunRecord:
    trace = read_trace(line)
    success = _success(line)
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
        tool_calls_count=len(trace.calls),
        tool_error_count=trace.failed_calls,
        tokens_in=line.get("tokens_in", usage.get("prompt_tokens")),
        tokens_out=line.get("tokens_out", usage.get("completion_tokens")),
        duration_ms=line.get("duration_ms"),
        human_override=trace.called(hand_over_tools) if override is None else override,
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
        success=False if success is None and trace.error else success,
        safety_violation=_flag(line, "safety_violation"),
        quality=line.get("quality"),
        cost=line.get("cost"),
        trace=trace.row(),
    )


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
