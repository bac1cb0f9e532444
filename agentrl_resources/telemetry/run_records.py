"""The run record: one row for each run of the agent, whoever produced it.

This file is the one place that says which columns a run has; the warehouse table, the importer and the SQL models
follow it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

from agentrl_resources.errors import AgentRLError
from agentrl_resources.redaction import Redactor, pseudonym, redact
from agentrl_resources.telemetry.values import shown

METRICS = ("human_override_rate", "tool_error_rate", "policy_kl_drift", "task_completion_quality")
"""Names that `monitoring:` in workflow.yaml may hold; each is computed weekly in the mart `weekly_metrics`."""

LABELS = ("human_override", "success", "safety_violation")
"""What people may say of a run afterwards."""

LARGEST = 10**12
"""The most that a count, a cost or a duration may be: sums over a million runs still fit into 64 bits."""

ALLOWED: dict[str, tuple[str, ...]] = {
    "release_channel": ("offline_eval", "canary", "general"),
    "arm": ("baseline", "candidate"),
    "suite": ("capability", "adversarial"),
}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run. `None` means unknown, and is stored as NULL; it never stands for zero.

    `release_channel` is the channel that the run counts for. A canary request that was answered by the stable policy
    keeps `canary` there, with `served_channel="general"` and `fallback=True`.

    Raises `AgentRLError` when a value is out of its range; the message names the run and the field.
    """

    model_version: str | None = None
    reward_model_version: str | None = None
    policy_version: str | None = None
    tool_calls_count: int = 0
    tool_error_count: int | None = None
    """None when of any call nothing says whether it failed. A run without calls has no errors."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    duration_ms: float | None = None
    human_override: bool | None = None
    release_channel: str

    run_id: str
    workflow: str
    task_id: str
    task_type: str | None = None
    started_at: str
    """ISO 8601; stored in UTC. A time without a zone is taken as UTC."""
    session_key_hash: str | None = None
    release_id: str | None = None
    assigned_channel: str | None = None
    served_channel: str | None = None
    fallback: bool = False
    canary_percent: float | None = None
    """Share of sessions, 0 to 100, that went to the canary when this run was routed."""
    simulated: bool = False
    arm: str | None = None
    suite: str | None = None
    temperature: float | None = None
    success: bool | None = None
    safety_violation: bool | None = None
    quality: float | None = None
    """Rubric score, 0 to 1."""
    policy_kl: float | None = None
    """KL of the policy from its frozen reference, nats per episode."""
    clarifying_questions: int | None = None
    cost: float | None = None
    """EUR, by what was known when the run was reported."""
    hand_over_price: float | None = None
    """EUR that a human override costs; what a later label changes about the override changes `cost` by it."""
    failure_price: float | None = None
    """EUR that a failure costs, in the same way."""
    trace: dict[str, Any] = field(default_factory=dict)
    """`messages`, and `tool_calls`: a list of {name, arguments, result, error, ms}.

    Imported calls have a `status` as well: ok, error or unknown. Without it, one without an error was right.
    """
    start_known: bool = True
    """False: nobody said when the run was, and `started_at` is when it was first imported."""
    reported_at: str | None = None
    """When this was said of the run, as `started_at`; of reports that disagree, the newest counts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "started_at", utc_iso(self.started_at))
        if self.reported_at is not None:
            object.__setattr__(self, "reported_at", utc_iso(self.reported_at))
        if self.tool_error_count is None and self.tool_calls_count == 0:
            object.__setattr__(self, "tool_error_count", 0)
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed and not (value is None and name != "release_channel"):
                raise self._refuse(name, f"one of {', '.join(allowed)}")
        for name, kind in COLUMNS.items():
            value = getattr(self, name)
            if value is None and name not in _NEVER_UNKNOWN:
                continue
            if kind == "BIGINT" and not (_is_number(value, int) and value >= 0):
                raise self._refuse(name, "a whole number, zero or more")
            if kind == "DOUBLE" and not (_is_number(value, int | float) and abs(value) <= sys.float_info.max):
                raise self._refuse(name, "a finite number")
            if kind in ("BIGINT", "DOUBLE") and abs(value) > LARGEST:
                raise self._refuse(name, f"at most {LARGEST:,}")
            if kind == "BOOLEAN" and not isinstance(value, bool):
                raise self._refuse(name, "true or false")
            if kind == "VARCHAR" and not isinstance(value, dict if name == "trace" else str):
                raise self._refuse(name, "an object" if name == "trace" else "text")
        calls = self.trace.get("tool_calls", [])
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise self._refuse("trace", "an object whose tool_calls are a list of objects")
        for name in _NEVER_NEGATIVE:
            if (getattr(self, name) or 0) < 0:
                raise self._refuse(name, "zero or more")
        if self.tool_error_count is not None and self.tool_error_count > self.tool_calls_count:
            raise self._refuse("tool_error_count", f"at most tool_calls_count ({self.tool_calls_count})")
        if self.quality is not None and self.quality > 1:
            raise self._refuse("quality", "between 0 and 1")
        if self.canary_percent is not None and self.canary_percent > 100:
            raise self._refuse("canary_percent", "between 0 and 100")

    def _refuse(self, name: str, wanted: str) -> AgentRLError:
        run = self.run_id if isinstance(self.run_id, str) and len(self.run_id) <= 80 else shown(self.run_id)
        return AgentRLError(f"Run {run}: {name} is {shown(getattr(self, name))}; it must be {wanted}.")

    def redacted(self) -> tuple[dict[str, Any], Counter[str]]:
        """The record as a row with personal data taken out of its trace, and how often each kind was found."""
        redactor = Redactor(self.trace)
        row = {column.name: getattr(self, column.name) for column in dataclasses.fields(self)}
        row |= {"task_id": pseudonym(self.task_id), "task_type": redact(self.task_type)[0]}  # clients name them
        return row | {"trace": redactor.redact(self.trace)}, redactor.found


def version_name(name: str, digest: str) -> str:
    """What run records call a model: its name in the workflow file, and the digest that tells builds apart."""
    return f"{name}@{digest[:12]}"


def utc_iso(time: str) -> str:
    """`time` (ISO 8601) in UTC, as `2026-11-22T10:00:00.000000Z`. Raises `AgentRLError` when it is no time."""
    try:
        moment = datetime.fromisoformat(time)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise AgentRLError(f"{time!r} is not an ISO 8601 time such as 2026-11-22T10:00:00Z.") from error
    return f"{moment.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def _is_number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _columns() -> dict[str, str]:
    """Column name -> DuckDB type, read off the type of each field."""
    types: dict[Any, str] = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}
    hints = get_type_hints(RunRecord)
    plain = {name: next((arg for arg in get_args(hint) if arg in types), hint) for name, hint in hints.items()}
    return {name: types.get(kind, "JSON") for name, kind in plain.items()} | {
        "started_at": "TIMESTAMP",
        "reported_at": "TIMESTAMP",
    }


COLUMNS = _columns()
_NEVER_NEGATIVE = (
    "duration_ms",
    "temperature",
    "quality",
    "canary_percent",
    "cost",
    "hand_over_price",
    "failure_price",
)
_NEVER_UNKNOWN = {column.name for column in dataclasses.fields(RunRecord) if column.default is not None}
