"""Two arms on the same tasks: what a pair of episodes is, how the arms compare, and what a change of a number is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentrl_resources.evaluation.statistics import (
    Interval,
    Ratio,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_difference,
    pass_hat_k,
    wilson,
    wilson_of_tasks,
)

Answer = Literal["GO", "NO-GO", "HOLD"]


@dataclass(frozen=True)
class EpisodeFacts:
    """What a gate needs to know of one episode; `None` is unknown. `cost` in EUR, `duration_ms` in ms."""

    success: bool | None
    safety_violation: bool | None
    cost: float | None
    duration_ms: float | None


@dataclass(frozen=True)
class Pair:
    """Both arms on one task. `suite` is `capability` or `adversarial`."""

    task_id: str
    suite: str
    baseline: EpisodeFacts
    candidate: EpisodeFacts
    task_type: str = "unknown"


def paired(records: Iterable[Any], temperature: float) -> list[Pair]:
    """Both arms' episodes on each task at one temperature, from run records. Of a task that was run several times the
    arms' runs go together in their order, which is that of their seeds."""
    arms: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for record in records:
        if record.temperature == temperature:
            both = arms.setdefault((record.suite, record.task_id), {"baseline": [], "candidate": []})
            both[record.arm].append(record)
    return [
        Pair(task_id, suite, _facts(baseline), _facts(candidate), baseline.task_type)
        for (suite, task_id), both in arms.items()
        for baseline, candidate in zip(both["baseline"], both["candidate"], strict=True)
    ]


def _facts(record: Any) -> EpisodeFacts:
    return EpisodeFacts(record.success, record.safety_violation, record.cost, record.duration_ms)


@dataclass(frozen=True)
class Change:
    """One number that changed from baseline to candidate, and below what it has to stay, in `unit`. Lower is better.

    The end of the 95 % interval may be infinite: nothing says how high it is.
    """

    name: str
    estimate: float
    interval: Interval
    threshold: float
    unit: str
    said: str
    """In words, one sentence without its end."""

    @property
    def answer(self) -> Answer:
        """GO or NO-GO when the whole interval is on one side of the threshold."""
        low, high = self.interval
        return "GO" if high < self.threshold else "NO-GO" if low >= self.threshold else "HOLD"

    @property
    def reason(self) -> str:
        unit = "%" if self.unit == "percent" else "point" if self.threshold == 1 else "points"
        limit = f"{self.threshold:g} {unit}"
        if self.answer != "HOLD":
            return f"{self.said}, all of it {'below' if self.answer == 'GO' else 'above'} {limit}."
        if math.isinf(self.interval[1]):
            return f"{self.said}; too few runs say that it is below {limit}: evaluate more tasks."
        return f"{self.said}, on both sides of {limit}: evaluate more tasks."

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, where an end of None is infinite."""
        low, high = self.interval
        return {
            "estimate": self.estimate,
            "interval": [low, high if math.isfinite(high) else None],
            "threshold": self.threshold,
            "unit": self.unit,
        }


def change_in_percent(what: str, ratio: Ratio, threshold: float, name: str = "") -> Change:
    """A ratio of candidate to baseline as a change. `what` begins a sentence."""
    estimate, low, high = (100 * (value - 1) for value in (ratio.estimate, *ratio.interval))
    said = f"{what} changed by {estimate:+.1f} % ({low:+.1f} to {high:+.1f} %)"
    return Change(name or what, estimate, (low, high), threshold, "percent", said)


def compare_arms(pairs: Sequence[Pair]) -> dict[str, Any]:
    """By suite: both success rates, their difference, McNemar's exact test, and what that test could have found.

    `task_types` holds the same for each type of task. Pairs with an unknown outcome are left out. `n` counts tasks. Of
    tasks with several pairs, which are several runs of each arm, the arm that succeeded in more of them is ahead, and
    `pass_hat` tells of each arm, by k, how likely k runs of a task all succeed; `episodes` counts an arm's runs.
    """
    known = [pair for pair in pairs if pair.baseline.success is not None and pair.candidate.success is not None]
    suites = sorted({pair.suite for pair in known})
    return {suite: _compare_suite([pair for pair in known if pair.suite == suite]) for suite in suites}


def _compare_suite(pairs: list[Pair]) -> dict[str, Any]:
    types = sorted({pair.task_type for pair in pairs})
    by_type = {name: _compare([pair for pair in pairs if pair.task_type == name]) for name in types}
    return _compare(pairs) | {"task_types": by_type}


def _compare(pairs: list[Pair]) -> dict[str, Any]:
    by_task: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_task.setdefault(pair.task_id, []).append(pair)
    tasks, n = list(by_task.values()), len(by_task)
    ahead = [
        sum(bool(one.candidate.success) - bool(one.baseline.success) for one in runs) / len(runs) for runs in tasks
    ]
    gained, lost = sum(share > 0 for share in ahead), sum(share < 0 for share in ahead)
    up, down = (math.fsum(max(sign * share, 0) for share in ahead) for sign in (1, -1))
    within = math.fsum(abs(share) - share**2 for share in ahead)
    return {
        "n": n,
        **({"episodes": len(pairs)} if len(pairs) > n else {}),
        "baseline": _rate([[one.baseline for one in runs] for runs in tasks]),
        "candidate": _rate([[one.candidate for one in runs] for runs in tasks]),
        "only_baseline": lost,
        "only_candidate": gained,
        "difference": (up - down) / n,
        "difference_interval": list(paired_difference(up, down, n, within=within)),
        "p_value": mcnemar_exact(gained, lost),
        "minimum_detectable_effect": minimum_detectable_effect(up, down, n, within=within),
    }


def _judged(runs: list[EpisodeFacts]) -> list[bool]:
    """Of the runs of a task whose safety is known, whether something forbidden was done."""
    return [facts.safety_violation for facts in runs if facts.safety_violation is not None]


def _rate(tasks: list[list[EpisodeFacts]]) -> dict[str, Any]:
    """Of one arm; its runs by task. `safety_violations` counts tasks with one in any of their runs."""
    trials = [[bool(facts.success) for facts in runs] for runs in tasks]
    shares = [sum(runs) / len(runs) for runs in trials]
    runs = sum(map(len, trials))
    judged = [any(known) for one in tasks if (known := _judged(one))]
    repeated = runs > len(tasks)
    return {
        "successes": sum(map(sum, trials)),
        "success_rate": math.fsum(shares) / len(shares),
        "success_interval": list(wilson_of_tasks(shares, runs) if repeated else wilson(sum(shares), len(shares))),
        "safety_violations": sum(judged) if judged else None,
        **({"pass_hat": _pass_hat(trials)} if repeated else {}),
    }


def _pass_hat(trials: list[list[bool]]) -> dict[str, float]:
    """By k, up to the runs that every task has."""
    return {str(k): pass_hat_k(trials, k) for k in range(1, min(map(len, trials)) + 1)}
