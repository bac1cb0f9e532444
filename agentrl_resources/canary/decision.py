"""Whether a canary is promoted, failed back, or watched on.

`GO`: on every metric it is proven not to be worse by the margin or more. `NO-GO`: it is proven to be harmful.
`HOLD`: anything else, also when sessions did not go to the two arms in the share that was set. Evidence is of the kind
that may be looked at as often as one likes (`evaluation/sequential.py`):

- A harmless canary is ever stopped with chance `harm_alpha` at most: the *mean* of the metrics' e-values is an e-value
  against "harmful in none", which is never weaker than Bonferroni's correction.
- A canary that is worse by a margin in any metric is ever let through with chance `alpha` at most. This needs no
  correction, as every metric has to be proven (intersection-union).

Each look starts from the runs as they are known then. That is exact when a session's runs and labels are known in the
order of the sessions. What comes late (a label, another run of a session) changes comparisons that earlier looks have
seen: each look by itself stays valid, as long as it does not depend on arm and outcome what comes late, but the promise
over all looks together is then an approximation. An override that is only reported after days looks like none until
then, in both arms.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agentrl_resources.canary.metrics import METRICS, CanaryRules, Metric
from agentrl_resources.canary.sessions import CanaryRun, Sessions, gather
from agentrl_resources.evaluation import Answer, Interval, sample_ratio_e_value

__all__ = ["CanaryRules", "CanaryRun", "Decision", "MetricDecision", "SampleRatio", "decide"]


@dataclass(frozen=True)
class MetricDecision:
    """One metric. `estimate`, `interval`, `threshold` and `harm_threshold` are in `unit`, canary minus champion.

    Each end of the interval holds at all times with 95 % (1 - `alpha`), both together with 90 %. The answer is GO when
    the whole interval is on the good side of `threshold`. `e_good` and `e_harm` are the e-values against "worse by the
    threshold or more" and "no worse than the harm threshold". `n_canary` and `n_champion` count sessions.
    """

    metric: str
    owner: str
    answer: Answer
    estimate: float | None
    interval: Interval | None
    n_canary: int
    n_champion: int
    threshold: float
    harm_threshold: float
    unit: str
    e_harm: float
    e_good: float
    reason: str


@dataclass(frozen=True)
class SampleRatio:
    """Whether sessions went to the canary in the share that was in force. Percentages of sessions; `n` counts them."""

    answer: Answer
    expected_percent: float | None
    observed_percent: float | None
    n: int
    e_value: float
    reason: str


@dataclass(frozen=True)
class Decision:
    """`n_canary` and `n_champion` count sessions, `unlabelled` and `switched` runs that do not count (yet)."""

    answer: Answer
    reason: str
    metrics: tuple[MetricDecision, ...]
    sample_ratio: SampleRatio
    expired: bool
    """HOLD for longer than the rules allow: the canary is to be failed back."""
    started_at: datetime
    decided_at: datetime
    n_canary: int
    n_champion: int
    unlabelled: int
    switched: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        told = dataclasses.asdict(self)
        for metric in told["metrics"]:
            metric["interval"] = metric["interval"] and list(metric["interval"])
        times = {"started_at": self.started_at.isoformat(), "decided_at": self.decided_at.isoformat()}
        return told | {"metrics": list(told["metrics"])} | times


def decide(runs: Iterable[CanaryRun], rules: CanaryRules, *, now: datetime, started_at: datetime) -> Decision:
    """What the runs of canary and champion say. Runs from before `started_at`, when the canary began, do not count."""
    sessions = gather((run for run in runs if run.started_at >= started_at), rules.outcomes_at_once)
    n_canary, n_champion = sessions.counts
    metrics = tuple(_evidence(metric, sessions, rules) for metric in METRICS)
    ratio = _sample_ratio(sessions, rules)
    harmful = sum(metric.e_harm for metric in metrics) / len(metrics) >= 1 / rules.harm_alpha
    if harmful:
        metrics = tuple(_blamed(metric, rules) for metric in metrics)
    open_metrics = [metric.metric for metric in metrics if metric.answer != "GO"]
    answer: Answer = "HOLD"
    if harmful:
        answer = "NO-GO"
        reason = " ".join(metric.reason for metric in metrics if metric.answer == "NO-GO")
    elif ratio.answer != "GO":
        reason = ratio.reason
    elif open_metrics:
        reason = f"Not proven yet: {', '.join(open_metrics)} ({n_canary} canary, {n_champion} champion sessions)."
    elif n_canary < rules.minimum_sessions:
        reason = f"All is proven, but on {n_canary} canary sessions; {rules.minimum_sessions} are needed."
    else:
        answer, reason = "GO", f"Every metric is proven to be within its margin on {n_canary} canary sessions."
    out_of_time = now - started_at >= timedelta(hours=rules.expires_after_hours)
    out_of_sessions = rules.expires_after_sessions is not None and n_canary >= rules.expires_after_sessions
    expired = answer == "HOLD" and (out_of_time or out_of_sessions)
    return Decision(
        answer,
        f"Expired. {reason}" if expired else reason,
        metrics,
        ratio,
        expired,
        started_at,
        now,
        n_canary,
        n_champion,
        sessions.unlabelled,
        sessions.switched,
    )


def _blamed(metric: MetricDecision, rules: CanaryRules) -> MetricDecision:
    """NO-GO on what is proven by itself. A mean as high as that needs at least one metric that is as high."""
    if metric.e_harm < 1 / rules.harm_alpha:
        return metric
    return dataclasses.replace(metric, answer="NO-GO", reason=f"{_changed(metric)}: proven harm.")


def _evidence(metric: Metric, sessions: Sessions, rules: CanaryRules) -> MetricDecision:
    """The metric's evidence, with GO or HOLD for an answer: harm is judged over all metrics together."""
    compared = metric.compared(sessions, rules)
    margin, harm = metric.margin(rules), metric.harm(rules)
    missing = MetricDecision(
        metric=metric.name,
        owner=metric.owner,
        answer="HOLD",
        estimate=None,
        interval=None,
        n_canary=compared.sessions[0],
        n_champion=compared.sessions[1],
        threshold=metric.sign * margin,
        harm_threshold=metric.sign * harm + 0.0,  # never -0.0
        unit=metric.unit,
        e_harm=1.0,
        e_good=1.0,
        reason=f"Nothing to compare: {compared.missing}.",
    )
    if compared.bets is None:
        return missing
    low, high = sorted(metric.shown(end) for end in compared.bets.interval(rules.alpha))
    evidence = dataclasses.replace(
        missing,
        estimate=metric.shown(compared.bets.estimate()),
        interval=(low, high),
        e_harm=compared.bets.e_above(metric.parameter(harm)),
        e_good=compared.bets.e_below(metric.parameter(margin)),
    )
    answer: Answer
    if evidence.e_good < 1 / rules.alpha:
        answer, said = "HOLD", f"{_changed(evidence)}; {_allowed(evidence)}, which is not proven yet."
    elif compared.uncut is not None and compared.uncut > metric.parameter(margin):
        whole = metric.shown(compared.uncut)
        answer, said = "HOLD", f"{_changed(evidence)} with the highest costs cut off, {whole:+.1f} % with all of them."
    else:
        answer, said = "GO", f"{_changed(evidence)}; {_allowed(evidence)}."
    return dataclasses.replace(evidence, answer=answer, reason=f"{said} {compared.note}".rstrip())


def _changed(metric: MetricDecision) -> str:
    assert metric.interval is not None
    low, high = metric.interval
    name = metric.metric.replace("_", " ").capitalize()
    unit = "%" if metric.unit == "percent" else "points"
    return f"{name} changed by {metric.estimate:+.1f} {unit} ({low:+.1f} to {high:+.1f})"


def _allowed(metric: MetricDecision) -> str:
    unit = "%" if metric.unit == "percent" else "points"
    return f"{metric.threshold:+g} {unit} is the limit"


def _sample_ratio(sessions: Sessions, rules: CanaryRules) -> SampleRatio:
    """By the share in force at each session's first run; at a share of 0 or 100 nothing is drawn by chance."""
    drawn = [
        (percent, canary)
        for percent, canary in zip(sessions.percent.tolist(), sessions.canary.tolist(), strict=True)
        if 0 < percent < 100
    ]
    if not drawn:
        return SampleRatio("HOLD", None, None, 0, 1.0, "No session says which share was in force when it began.")
    counts = Counter(drawn)
    shares = {percent for percent, _ in drawn}
    e_value = sample_ratio_e_value(
        (percent / 100, counts[percent, True], counts[percent, False]) for percent in sorted(shares)
    )
    n = len(drawn)
    expected, observed = math.fsum(percent for percent, _ in drawn) / n, 100 * sum(canary for _, canary in drawn) / n
    said = f"{observed:.2f} % of {n} sessions went to the canary, {expected:.2f} % were to"
    if e_value >= 1 / rules.sample_ratio_alpha:
        reason = f"{said}: the split is wrong (sample-ratio mismatch), so the arms cannot be compared."
        return SampleRatio("HOLD", expected, observed, n, e_value, reason)
    return SampleRatio("GO", expected, observed, n, e_value, f"{said}.")
