"""The weekly reliability score and its interval, read from the built marts.

reliability_score = success_rate * (1 - human_override_rate) * (1 - tool_error_rate)

A week in which of some call nothing says whether it failed has no tool error rate, and no score: unknown is not zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl_resources.errors import AgentRLError

if TYPE_CHECKING:
    import duckdb

_CONFIDENCE = 0.95

_TASK_TOTALS = """
SELECT
    count(*),
    count(*) FILTER (WHERE success),
    count(*) FILTER (WHERE human_override),
    sum(tool_calls_count)::BIGINT,
    sum(tool_error_count)::BIGINT
FROM stg_counted_runs
WHERE workflow = ? AND iso_week = ? AND success IS NOT NULL
GROUP BY task_id
ORDER BY ALL
"""


@dataclass(frozen=True)
class Score:
    """A week of one workflow. `n` counts runs whose outcome is known, `unlabelled` those whose outcome is not.

    `interval` is the 95 % interval of `reliability_score`. `basis` is `traffic`, or `offline_eval` in a week without
    any. `tool_error_unknown` is the share of the `n` runs in which of some call nothing says whether it failed; unless
    it is 0, `tool_error`, `reliability_score` and `interval` are unknown, which is None.
    """

    workflow: str
    iso_week: str
    basis: str
    simulated: bool
    n: int
    unlabelled: int
    tool_calls: int
    success: float
    human_override: float
    tool_error: float | None
    tool_error_unknown: float
    reliability_score: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class TaskTotals:
    """What the runs of one task add up to."""

    runs: int
    successes: int
    overrides: int
    calls: int
    errors: int


def weekly_score(connection: duckdb.DuckDBPyConnection, workflow: str, week: str | None = None) -> Score:
    """The score of a week such as `2026-W47`, by default the latest that has one.

    Needs the marts to be built. Raises `AgentRLError` when they are not, or when no run counts in that week.
    """
    import duckdb

    try:
        mart = connection.execute("SELECT * FROM weekly_reliability WHERE workflow = ? ORDER BY iso_week", [workflow])
        names = [column[0] for column in mart.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in mart.fetchall()]
    except duckdb.CatalogException as error:
        raise AgentRLError(
            "The weekly marts are not built yet. `agentrl run` or `agentrl import` builds them."
        ) from error
    weeks = {row["iso_week"]: row for row in rows}
    scored = [iso_week for iso_week, row in weeks.items() if row["n"] > 0]
    if not scored:
        waiting = sum(row["unlabelled"] for row in weeks.values())
        raise AgentRLError(f"Workflow '{workflow}' has no score: no run with an outcome, {waiting} without.")
    week = week or max(scored)
    if week not in scored:
        raise AgentRLError(f"Workflow '{workflow}' has no score for week {week}. Weeks that have: {', '.join(scored)}.")
    row = weeks[week]
    tasks = connection.execute(_TASK_TOTALS, [workflow, week]).fetchall()
    return Score(
        workflow=workflow,
        iso_week=week,
        basis=row["basis"],
        simulated=row["simulated"],
        n=row["n"],
        unlabelled=row["unlabelled"],
        tool_calls=row["tool_calls"],
        success=row["success_rate"],
        human_override=row["human_override_rate"],
        tool_error=row["tool_error_rate"],
        tool_error_unknown=row["tool_errors_unknown"] / row["n"],
        reliability_score=row["reliability_score"],
        interval=None if row["tool_errors_unknown"] else score_interval([TaskTotals(*task) for task in tasks]),
    )


def score_interval(tasks: list[TaskTotals]) -> tuple[float, float]:
    """95 % interval of the score: Wilson's, at the number of independent runs that would tell as much.

    Runs of one task resemble each other and the three factors move together, so the variance is that of the score's
    linearisation summed by task. The effective number of runs is then score * (1 - score) / variance, shrunk to
    Student's t at tasks - 1 degrees of freedom (Korn & Graubard 1998; Wilson's in its place as in Dean & Pagano
    2015). Where nothing varies, each task counts as one run.
    """
    from scipy.stats import norm, t

    # Not at the top: evaluation reads run records, so the two packages would import each other.
    from agentrl_resources.evaluation import wilson

    runs = sum(task.runs for task in tasks)
    calls = sum(task.calls for task in tasks)
    success = sum(task.successes for task in tasks) / runs
    override = sum(task.overrides for task in tasks) / runs
    error = sum(task.errors for task in tasks) / calls if calls else 0.0
    score = success * (1 - override) * (1 - error)

    def influence(task: TaskTotals) -> float:
        success_part = (task.successes - success * task.runs) / runs * (1 - override) * (1 - error)
        override_part = (task.overrides - override * task.runs) / runs * success * (1 - error)
        error_part = (task.errors - error * task.calls) / calls * success * (1 - override) if calls else 0.0
        return success_part - override_part - error_part

    effective = float(len(tasks))
    if len(tasks) > 1 and 0 < score < 1:
        variance = math.fsum(influence(task) ** 2 for task in tasks) * len(tasks) / (len(tasks) - 1)
        if variance > 0:
            tail = 0.5 + _CONFIDENCE / 2
            effective = score * (1 - score) / variance * float(norm.ppf(tail) / t.ppf(tail, len(tasks) - 1)) ** 2
    return wilson(score * effective, effective, _CONFIDENCE)
