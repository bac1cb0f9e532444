"""The run record of one answer, or of none: what was asked of which arm, what it did, and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from agentrl_resources.gateway.channels import Channel
from agentrl_resources.gateway.runs import Attempt, Job, total
from agentrl_resources.telemetry import RunRecord, Spool
from agentrl_resources.workflow import Prices, Workflow


@dataclass(frozen=True)
class Run:
    """One request and what the arms did for it, first the one of its session. `served` made the last attempt.

    `session` is hashed; `percent` is the canary's share of sessions at the time.
    """

    run_id: str
    session: str
    job: Job
    assigned: Channel
    served: Channel
    attempts: Sequence[Attempt]
    percent: float
    simulated: bool
    started_at: datetime
    duration_ms: float


def record_of(run: Run, workflow: Workflow, keep_tokens: bool = False) -> RunRecord:
    """The record of a run. Outcomes and prices that are none are left out: what happened is on record all the same.

    `keep_tokens`: with what the policy that answered read and wrote, as token ids, which nothing is redacted of.
    """
    if not keep_tokens:
        run = replace(run, attempts=[replace(attempt, tokens=[]) for attempt in run.attempts])
    try:
        return _record(run, workflow.name, workflow.prices)
    except Exception:  # both are the user's own, and may say anything
        attempts = [replace(attempt, outcome=None) for attempt in run.attempts]
        return _record(replace(run, attempts=attempts), workflow.name, None)


def write_down(record: RunRecord, spool: Spool) -> None:
    """Appends a run to the spool. AgentRLError when the disk does not take it.

    A second time is tried: the spool tells once that earlier lines may be lost and goes on in a new segment; and a
    trace may hold what is no JSON, which is written as text then, since that a tool acted must be on record.
    """
    try:
        spool.append_run(record)
    except Exception:
        spool.append_run(replace(record, trace=_as_json(record.trace)))


def _record(run: Run, workflow: str, prices: Prices | None) -> RunRecord:
    attempts, job, assigned = run.attempts, run.job, run.assigned
    last = attempts[-1]
    answered = last.turn is not None
    outcome = last.outcome
    success = False if not answered else outcome.success if outcome else None
    calls = [call for attempt in attempts for call in attempt.tool_calls]
    tokens_in = total(attempt.tokens_in for attempt in attempts)
    tokens_out = total(attempt.tokens_out for attempt in attempts)
    handed_over = any(attempt.handed_over for attempt in attempts)
    told = [attempt.outcome.safety_violation for attempt in attempts if attempt.outcome]
    violations = [violated for violated in told if violated is not None]
    trace: dict[str, Any] = {"messages": last.messages, "tool_calls": calls}
    if last.tokens:
        trace["tokens"] = [asdict(turn) for turn in last.tokens]
    failures = [asdict(attempt.failure) for attempt in attempts if attempt.failure]
    if failures:
        trace["failure"] = {name: value for name, value in failures[0].items() if value is not None}
    return RunRecord(
        **assigned.versions,
        tool_calls_count=len(calls),
        tool_error_count=sum(attempt.tool_errors for attempt in attempts),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        duration_ms=run.duration_ms,
        human_override=handed_over or None,
        release_channel=assigned.name,
        run_id=run.run_id,
        workflow=workflow,
        task_id=job.task_id,
        task_type=job.task_type,
        started_at=run.started_at.isoformat(),
        session_key_hash=run.session,
        release_id=assigned.release,
        assigned_channel=assigned.name,
        served_channel=run.served.name if answered else None,
        fallback=run.served is not assigned,
        canary_percent=run.percent,
        simulated=run.simulated,
        temperature=job.sampling.temperature,
        success=success,
        safety_violation=any(violations) if violations else None,
        quality=outcome.quality if outcome else None,
        clarifying_questions=sum(attempt.clarifying_questions for attempt in attempts),
        # what is not known to have failed is not charged for failing; feedback charges it later
        cost=prices.of(tokens_in, tokens_out, len(calls), handed_over, success is not False) if prices else None,
        hand_over_price=prices.per_hand_over if prices else None,
        failure_price=prices.per_failure if prices else None,
        trace=trace,
    )


def _as_json(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """JSON as it is, and a text for everything else; `inside` holds the ids of the objects that the value is in."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if len(inside) < _DEPTH and id(value) not in inside:
        inside = (*inside, id(value))
        if isinstance(value, dict):
            return {_text(key): _as_json(item, inside) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_as_json(item, inside) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value).encode(errors="replace").decode()
    except Exception:
        return f"<{type(value).__name__}>"


_DEPTH = 50
"""What is nested deeper is written as one text."""
