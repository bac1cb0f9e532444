"""Canary and champion side by side: runs, their sessions, and the comparisons that the statistics rest on.

The unit is the session, since a session's runs share a customer. Its value of a metric is the mean over its runs.
Sessions are taken in the order of their start and cut into *comparisons*: one closes as soon as both arms have a
session in it, so that it holds one session of one arm and a row of the other arm's. No session is in two comparisons.
Which session is in which arm was drawn by chance, so a comparison's mean difference is on average the true difference
whatever came before; and since both sides are of the same minutes, a drift in time (other customers, slower machines)
touches both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry import RunRecord

if TYPE_CHECKING:
    import numpy as np

_ARMS = {"canary": True, "general": False}


@dataclass(frozen=True, kw_only=True)
class CanaryRun:
    """One run of either arm; `None` is unknown.

    `canary` says which arm was assigned, whoever answered in the end. `failed` is a fallback or a failure of that arm:
    such a run is no success of it, whatever the other arm then did.
    """

    session: str
    canary: bool
    started_at: datetime
    """With a time zone."""
    failed: bool = False
    success: bool | None = None
    labelled: bool = False
    """Whether somebody said afterwards whether it succeeded."""
    human_override: bool | None = None
    """None is "no override was reported", as in the weekly score."""
    safety_violation: bool | None = None
    tool_calls: int = 0
    tool_errors: int | None = 0
    duration_ms: float | None = None
    cost: float | None = None
    """EUR."""
    canary_percent: float | None = None
    """Share of sessions, 0 to 100, that went to the canary when this run was routed."""

    @classmethod
    def from_record(cls, record: RunRecord) -> CanaryRun:
        """From a record of traffic. AgentRLError when it is of no arm."""
        return cls.from_row({**vars(record), "failure": record.trace.get("failure")})

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> CanaryRun:
        """From a row of `agent_runs` with its columns' names, and `failure`: `trace->>'$.failure.kind'` or None.

        A run without a session is a session of its own. AgentRLError when the row has no arm.
        """
        if row["assigned_channel"] not in _ARMS:
            raise AgentRLError(
                f"Run {row['run_id']} was assigned to {row['assigned_channel']!r}, which is no arm of a canary; "
                f"select the runs of {' and '.join(_ARMS)}."
            )
        return cls(
            session=row["session_key_hash"] or row["run_id"],
            canary=_ARMS[row["assigned_channel"]],
            started_at=_moment(row["started_at"]),
            failed=bool(row["fallback"] or row["failure"]),
            success=row["success"],
            labelled=bool(row.get("labelled")),
            human_override=row["human_override"],
            safety_violation=row["safety_violation"],
            tool_calls=row["tool_calls_count"],
            tool_errors=row["tool_error_count"],
            duration_ms=row["duration_ms"],
            cost=row["cost"],
            canary_percent=row["canary_percent"],
        )


def _moment(time: str | datetime) -> datetime:
    """As the warehouse has it (a datetime without a zone, in UTC) or as a record has it (ISO 8601)."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Durations:
    """How long each run took: the mean over a session hides the slow runs in it. Arrays are `(runs,)`."""

    session: np.ndarray
    """Position of the run's session."""
    ms: np.ndarray
    """NaN is unknown."""


@dataclass(frozen=True)
class Sessions:
    """Sessions in the order of their start. Arrays are `(sessions,)`; NaN is unknown."""

    canary: np.ndarray
    percent: np.ndarray
    """The canary's share in force at the session's first run, 0 to 100."""
    values: dict[str, np.ndarray]
    """success, human_override, safety_violation, tool_error (0 to 1), duration_ms, cost (EUR): means over its runs."""
    unlabelled: int
    """Runs whose success is not known yet."""
    switched: int
    """Runs that were left out because their session had begun in the other arm (it moved when the share rose)."""
    durations: Durations | None = None
    """Of each run, where a session may have several."""

    def known(self, *names: str) -> Sessions:
        """Those whose value is known in each of the names, with these values only."""
        import numpy as np

        there = ~np.any([np.isnan(self.values[name]) for name in names], axis=0)
        values = {name: self.values[name][there] for name in names}
        return dataclasses.replace(self, canary=self.canary[there], percent=self.percent[there], values=values)

    @property
    def counts(self) -> tuple[int, int]:
        """Sessions of the canary, and of the champion."""
        of_canary = int(self.canary.sum())
        return of_canary, len(self.canary) - of_canary


def gather(runs: Iterable[CanaryRun], outcomes_at_once: bool = True) -> Sessions:
    """The sessions of the runs, which may come in any order.

    `outcomes_at_once`: whether the workflow judges a run as it ends. If not, success is what labels say, of failed runs
    too: failures that are known at once beside successes that are known later would make the arm with more of them look
    worse than it is.
    """
    import numpy as np

    ordered = sorted(runs, key=lambda run: (run.started_at, run.session))
    index: dict[str, int] = {}
    arms: list[bool] = []
    percents: list[float] = []
    kept: list[CanaryRun] = []
    owners: list[int] = []
    for run in ordered:
        owner = index.setdefault(run.session, len(arms))
        if owner == len(arms):
            arms.append(run.canary)
            percents.append(np.nan if run.canary_percent is None else run.canary_percent)
        if arms[owner] == run.canary:
            kept.append(run)
            owners.append(owner)

    def means(values: Sequence[float | None]) -> np.ndarray:
        known = np.array(values, dtype=float)
        there = ~np.isnan(known)
        n = np.bincount(np.array(owners, dtype=int)[there], minlength=len(arms))
        total = np.bincount(np.array(owners, dtype=int)[there], known[there], minlength=len(arms))
        return np.where(n > 0, total / np.maximum(n, 1), np.nan)

    def success(run: CanaryRun) -> bool | None:
        known = outcomes_at_once or run.labelled
        return None if not known else False if run.failed else run.success

    successes = [success(run) for run in kept]
    return Sessions(
        canary=np.array(arms, dtype=bool),
        percent=np.array(percents, dtype=float),
        values={
            "success": means(successes),
            "human_override": means([bool(run.human_override) for run in kept]),
            "safety_violation": means([run.safety_violation for run in kept]),
            "tool_error": means([_error_rate(run) for run in kept]),
            "duration_ms": means([run.duration_ms for run in kept]),
            "cost": means([run.cost for run in kept]),
        },
        unlabelled=successes.count(None),
        switched=len(ordered) - len(kept),
        durations=Durations(np.array(owners, dtype=int), np.array([run.duration_ms for run in kept], dtype=float)),
    )


def _error_rate(run: CanaryRun) -> float | None:
    return None if run.tool_errors is None else run.tool_errors / max(run.tool_calls, 1)


@dataclass(frozen=True)
class Comparisons:
    """Pairs of a canary and a champion session, grouped into comparisons. Arrays are `(pairs,)`."""

    canary: np.ndarray
    """Position of the pair's canary session."""
    champion: np.ndarray
    group: np.ndarray
    """The comparison that the pair is in, 0 to n - 1."""
    n: int

    def mean(self, of_pairs: np.ndarray) -> np.ndarray:
        """Mean over each comparison's pairs, `(n,)`."""
        import numpy as np

        return np.bincount(self.group, of_pairs, self.n) / np.bincount(self.group, minlength=self.n)


def compare(canary: np.ndarray) -> Comparisons:
    """The comparisons of sessions in the order of their start; `canary` says which are the canary's.

    The sessions after the last comparison that closed wait for the next look.
    """
    import numpy as np

    begins = [*(np.flatnonzero(np.diff(canary)) + 1).tolist(), len(canary)]  # of each row of one arm but the first
    closings = []
    row = 0
    while row + 1 < len(begins):
        closings.append(begins[row])
        # What is left of the row that closed a comparison opens the next one.
        row += 1 if begins[row + 1] - begins[row] > 1 else 2
    closing = np.array(closings, dtype=int)
    compared = np.arange(len(canary)) < (closings[-1] if closings else 0)
    compared[closing] = False
    others = np.flatnonzero(compared)
    group = np.searchsorted(closing, others)
    partner = closing[group]
    return Comparisons(
        canary=np.where(canary[others], others, partner),
        champion=np.where(canary[others], partner, others),
        group=group,
        n=len(closings),
    )
