"""The canary's metrics: what each compares, what it tolerates, and whose it is.

Of every comparison of sessions a metric makes a payoff of a bet (`evaluation.Bets`). Its parameter says how much worse
the canary is: higher is worse for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl_resources.canary.sessions import Comparisons, Sessions, compare
from agentrl_resources.canary.tails import begins, slower
from agentrl_resources.evaluation import COST_MARGIN, FAR, SAFETY_MARGIN, Bets, bets_on_mean

if TYPE_CHECKING:
    import numpy as np

RATIOS = (0.01, 100.0)
"""Within which a ratio of canary to champion is looked for: from 99 % less to a hundred times."""

_NO_SUCCESS = "no success of the champion is known"


@dataclass(frozen=True)
class CanaryRules:
    """When a canary is let through, stopped, or given up. Margins are in the units of their metrics."""

    alpha: float = 0.05
    """Chance at most that a canary that is worse by a margin is ever let through."""
    harm_alpha: float = 0.05
    """Chance at most that a harmless canary is ever stopped."""
    success_margin: float = 5.0
    """Percentage points by which the success rate might at most be lower, for all the evidence says."""
    human_override_margin: float = 10.0
    """Percentage points. Up to here more hand-overs are no harm by themselves: their price is in the cost per success,
    and a policy that no longer decides what a person must decide hands over more."""
    tool_error_margin: float = 5.0
    """Percentage points of the calls. Up to here more errors are no harm: if they matter, success falls."""
    safety_margin: float = SAFETY_MARGIN
    cost_margin: float = COST_MARGIN
    """Percent by which a success might at most cost more, for all the evidence says."""
    latency_percent: float = 15.0
    """Percent by which a run may take longer. Up to here is no harm, since the gate's name allows it."""
    latency_tail_margin: float = 5.0
    """Percentage points of the runs. Of the champion's at most one in twenty is slow, that is beyond its own 95th
    percentile (p95) plus `latency_percent`; so at most one in ten of the canary's may be, for all the evidence says."""
    latency_far_tail_margin: float = 2.5
    """The same for runs that are very slow, beyond half as much again: at most one in forty more."""
    minimum_sessions: int = 50
    """Sessions of the canary before it may be let through, however good they look."""
    expires_after_hours: float = 72.0
    expires_after_sessions: int | None = None
    """Sessions of the canary after which it is given up when nothing is proven; None is never."""
    outcomes_at_once: bool = True
    """Whether the workflow judges a run as it ends; otherwise its outcome comes as feedback."""
    sample_ratio_alpha: float = 0.001
    """Chance at most that a right split of the sessions is ever called wrong."""


@dataclass(frozen=True)
class Compared:
    """One metric on the sessions whose value is known in it."""

    sessions: tuple[int, int]
    """How many of the canary and of the champion."""
    bets: Bets | None
    """None when the sessions cannot be compared, for the reason in `missing`."""
    missing: str = ""
    uncut: float | None = None
    """The parameter as plain means have it, where bets do not see all of it."""
    note: str = ""
    """What else there is to know, as a sentence."""


@dataclass(frozen=True)
class Metric:
    """What is compared, whose it is, and from where on worse is too much (in `unit`, canary minus champion).

    `margin(rules)` is what the canary may be worse by at most; beyond `harm(rules)` it is harmful.
    """

    name: str
    owner: str
    unit: str
    margin: Callable[[CanaryRules], float]
    comparing: Callable[[Sessions, CanaryRules], Compared]
    harm: Callable[[CanaryRules], float] = lambda rules: 0.0
    sign: int = 1
    """-1 where higher is better."""

    def compared(self, sessions: Sessions, rules: CanaryRules | None = None) -> Compared:
        """The metric on these sessions, by the rules (the default ones if none are given)."""
        return self.comparing(sessions, rules or CanaryRules())

    def shown(self, parameter: float) -> float:
        """A value of the bets' parameter, in `unit`."""
        return 100 * (parameter - 1) if self.unit == "percent" else 100 * self.sign * parameter

    def parameter(self, worse: float) -> float:
        """The bets' parameter at which the canary is worse by so much."""
        return 1 + worse / 100 if self.unit == "percent" else worse / 100


def _difference(name: str, sign: int = 1) -> Callable[[Sessions, CanaryRules], Compared]:
    """Mean of a session's value in the canary minus that in the champion."""

    def compared(sessions: Sessions, rules: CanaryRules) -> Compared:
        known = sessions.known(name)
        pairs, values = compare(known.canary), known.values[name]
        if not pairs.n:
            return _not_compared(known)
        worse = pairs.mean(sign * (values[pairs.canary] - values[pairs.champion]))
        return Compared(known.counts, bets_on_mean(worse, -1.0, 1.0))

    return compared


def _success(sessions: Sessions, rules: CanaryRules) -> Compared:
    """Failures are known at once, successes only with their label: without labels all that is known is failures."""
    known = sessions.known("success")
    if known.counts[1] and not known.values["success"][~known.canary].any():
        return Compared(known.counts, None, _NO_SUCCESS)
    return _difference("success", -1)(sessions, rules)


def _latency(sessions: Sessions, rules: CanaryRules) -> Compared:
    """How many times as long a session of the canary takes, in the sense of Mann and Whitney: against the champion's
    durations times this ratio it is as often the slower as the faster one.

    Durations are heavy-tailed and have no bound, so their mean cannot be bet on. The price: a tail that is slower while
    most sessions are not is not seen here. That is what `_tail` is for.
    """
    import numpy as np

    known = sessions.known("duration_ms")
    pairs, ms = compare(known.canary), known.values["duration_ms"]
    if (missing := _not_timed(known)) is not None:
        return missing
    canary, champion = ms[pairs.canary], ms[pairs.champion]
    bets = Bets(
        above=lambda ratio: pairs.mean(np.sign(canary - ratio * champion)),
        below=lambda ratio: pairs.mean(np.sign(ratio * champion - canary)),
        low=RATIOS[0],
        high=RATIOS[1],
    )
    return Compared(known.counts, bets)


def _tail(times: float) -> Callable[[Sessions, CanaryRules], Compared]:
    """Share of a session's runs that are slow, `times` the limit: the canary's mean minus the champion's."""

    def compared(sessions: Sessions, rules: CanaryRules) -> Compared:
        known = sessions.known("duration_ms")
        if (missing := _not_timed(known)) is not None:
            return missing
        bets = slower(sessions, times * (1 + rules.latency_percent / 100))
        if bets is None:
            return Compared(known.counts, None, "too few sessions of the champion say yet what is slow")
        untimed = sessions.counts[0] - known.counts[0]
        note = f"{untimed} canary sessions have no duration and count as slow." if untimed else ""
        return Compared(known.counts, bets, note=note)

    return compared


def _cost(sessions: Sessions, rules: CanaryRules) -> Compared:
    """Ratio of the arms' costs per success.

    The cost of one arm times the success of the other, canary's minus ratio times champion's, is 0 on average exactly
    at that ratio, since two sessions are independent. A bet needs a bound: costs are cut at twice the 99th percentile
    of the champion's costs before the comparison. `uncut` is the ratio with nothing cut.
    """
    import numpy as np

    known = sessions.known("cost", "success")
    pairs, costs, successes = compare(known.canary), known.values["cost"], known.values["success"]
    if not pairs.n:
        return _not_compared(known)
    in_canary, in_champion = known.canary, ~known.canary
    if not (costs[in_canary].any() and costs[in_champion].any()):
        return Compared(known.counts, None, "every cost of an arm is zero, so nothing was priced")
    if not successes[in_champion].any():
        return Compared(known.counts, None, _NO_SUCCESS)
    cap = _caps(costs, known.canary, pairs)[pairs.group]
    scale = np.divide(1.0, cap, out=np.zeros_like(cap), where=cap > 0)
    spent = pairs.mean(np.minimum(costs[pairs.canary], cap) * successes[pairs.champion] * scale)
    allowed = pairs.mean(np.minimum(costs[pairs.champion], cap) * successes[pairs.canary] * scale)
    bets = Bets(
        above=lambda ratio: spent / ratio - allowed,
        below=lambda ratio: ratio * allowed - spent,
        low=RATIOS[0],
        high=RATIOS[1],
    )
    champion_price = costs[in_champion].sum() / successes[in_champion].sum()
    solved = successes[in_canary].sum()
    uncut = costs[in_canary].sum() / solved / champion_price if solved else float("inf")
    return Compared(known.counts, bets, uncut=float(uncut))


def _caps(costs: np.ndarray, canary: np.ndarray, pairs: Comparisons) -> np.ndarray:
    """Where costs are cut in each comparison, `(pairs.n,)` EUR; known before it, anew whenever their number doubles.

    0 in the first comparison, which has nothing before it.
    """
    import numpy as np

    first_sessions = begins(pairs)
    caps = np.zeros(pairs.n)
    first = 1
    while first < pairs.n:
        before = slice(first_sessions[first])
        caps[first : 2 * first] = 2 * np.quantile(costs[before][~canary[before]], 0.99)
        first *= 2
    return caps


def _not_timed(known: Sessions) -> Compared | None:
    """Why durations cannot be compared, if they cannot."""
    ms, canary = known.values["duration_ms"], known.canary
    if not compare(canary).n:
        return _not_compared(known)
    if not (ms[canary].any() and ms[~canary].any()):
        return Compared(known.counts, None, "every duration of an arm is zero, so nothing was timed")
    return None


def _not_compared(known: Sessions) -> Compared:
    of_canary, of_champion = known.counts
    return Compared(known.counts, None, f"it is known of {of_canary} canary and {of_champion} champion sessions")


METRICS = (
    Metric(
        "success",
        "product",
        "percentage points",
        margin=lambda rules: rules.success_margin,
        comparing=_success,
        sign=-1,
    ),
    Metric(
        "human_override",
        "product",
        "percentage points",
        margin=lambda rules: rules.human_override_margin,
        harm=lambda rules: rules.human_override_margin,
        comparing=_difference("human_override"),
    ),
    Metric(
        "tool_error",
        "platform",
        "percentage points",
        margin=lambda rules: rules.tool_error_margin,
        harm=lambda rules: rules.tool_error_margin,
        comparing=_difference("tool_error"),
    ),
    Metric(
        "latency",
        "platform",
        "percent",
        margin=lambda rules: rules.latency_percent,
        harm=lambda rules: rules.latency_percent,
        comparing=_latency,
    ),
    Metric(
        "latency_tail",
        "platform",
        "percentage points",
        margin=lambda rules: rules.latency_tail_margin,
        harm=lambda rules: rules.latency_tail_margin,
        comparing=_tail(1.0),
    ),
    Metric(
        "latency_far_tail",
        "platform",
        "percentage points",
        margin=lambda rules: rules.latency_far_tail_margin,
        harm=lambda rules: rules.latency_far_tail_margin,
        comparing=_tail(FAR),
    ),
    Metric(
        "cost_per_success",
        "product",
        "percent",
        margin=lambda rules: rules.cost_margin,
        comparing=_cost,
    ),
    Metric(
        "safety",
        "ml",
        "percentage points",
        margin=lambda rules: rules.safety_margin,
        comparing=_difference("safety_violation"),
    ),
)
