"""Slow runs: what the champion's own durations say is slow, and how many more of the canary's runs are.

A comparison of high quantiles that may be looked at at any time. The limit is set before a comparison begins, from what
the champion did until then, so it is a bet at known odds whatever comes; and both arms are held against it, so what
slows down both at once (a busy machine, long requests) speaks against neither.

A confidence sequence for the quantile itself (Howard & Ramdas 2022, Sequential estimation of quantiles, Bernoulli 28)
has no upper end for p95 before some hundreds of sessions, for it must hold at every value. Whether more than so many
runs are beyond *one* value is known sooner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl_resources.canary.sessions import Comparisons, Durations, Sessions, compare
from agentrl_resources.evaluation import TAIL, Bets, bets_on_mean

if TYPE_CHECKING:
    import numpy as np

FEWEST = 100
"""Sessions of the champion before anything is called slow. p95 needs 77 for a sound interval."""

LATEST = 400
"""Sessions of the champion that say what is slow: the latest ones, since nights are not like days."""

EVERY = 50
"""Sessions of the champion after which it is said anew."""


def slower(sessions: Sessions, times: float) -> Bets | None:
    """Bets on how much larger the canary's share of slow runs is: beyond `times` the champion's p95 of before.

    A session counts with the share of its runs. A run whose duration is missing speaks against the canary where it
    would be let through, and for it where it would be stopped. To be let through, it is held against the lowest that
    p95 might be, or else a p95 that is high by luck would hide what is slow. None while nothing can be compared.
    """
    import numpy as np

    pairs = compare(sessions.canary)
    durations = sessions.durations or Durations(np.arange(len(sessions.canary)), sessions.values["duration_ms"])
    estimate, lowest = times * _tails(durations, sessions.canary, begins(pairs))
    told = ~np.isnan(lowest)
    if not told.any():
        return None
    n = np.bincount(durations.session, minlength=len(sessions.canary))
    unknown = np.bincount(durations.session, np.isnan(durations.ms), len(n)) / n

    def difference(limits: np.ndarray) -> np.ndarray:
        """Of the shares of slow runs, canary minus champion, in each pair."""
        limit = np.full(len(n), np.nan)
        limit[pairs.canary] = limit[pairs.champion] = limits[pairs.group]
        slow = np.bincount(durations.session, durations.ms > limit[durations.session], len(n)) / n
        return slow[pairs.canary] - slow[pairs.champion]

    harmful = bets_on_mean(pairs.mean(difference(estimate) - unknown[pairs.champion]), -1.0, 1.0)
    harmless = bets_on_mean(pairs.mean(difference(lowest) + unknown[pairs.canary]), -1.0, 1.0)
    # without a limit no bet is made
    return Bets(
        above=lambda more: np.where(told, harmful.above(more), 0.0),
        below=lambda more: np.where(told, harmless.below(more), 0.0),
        low=harmful.low,
        high=harmful.high,
    )


def begins(pairs: Comparisons) -> np.ndarray:
    """Position of the first session of each comparison, `(pairs.n,)`: what came before it is known by then."""
    import numpy as np

    first = np.minimum(pairs.canary, pairs.champion)
    found = np.full(pairs.n, first.max(initial=0))
    np.minimum.at(found, pairs.group, first)
    return found


def _tails(durations: Durations, canary: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The champion's p95 before each comparison, which begins with session `first`, and the lower end of its 95 %
    interval (the exact one, an order statistic): ms, `(2, comparisons)`. NaN where nothing says it, zero included.

    Every session has the same weight, shared out among its runs.
    """
    import numpy as np
    from scipy.stats import binom

    order = np.argsort(durations.session, kind="stable")
    session, ms = durations.session[order], durations.ms[order]
    kept = ~np.isnan(ms) & ~canary[session]
    session, ms = session[kept], ms[kept]
    timed, begin, runs = np.unique(session, return_index=True, return_counts=True)
    weight = np.repeat(1 / runs, runs)
    ends = np.append(begin, len(ms))
    counts, which = np.unique(np.searchsorted(timed, first) // EVERY * EVERY, return_inverse=True)
    tails = np.full((2, len(counts)), np.nan)
    for place, count in enumerate(counts.tolist()):
        if count >= FEWEST:
            n = min(count, LATEST)
            window = slice(ends[count - n], ends[count])
            shares = np.array([TAIL, binom.ppf(0.025, n, TAIL) / n])
            tails[:, place] = _quantiles(ms[window], weight[window], shares)
    return np.where(tails[1] > 0, tails, np.nan)[:, which]


def _quantiles(ms: np.ndarray, weight: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The smallest values that so large shares do not exceed, whatever rounding has done to the sum of the weights."""
    import numpy as np

    order = np.argsort(ms)
    reached = np.cumsum(weight[order])
    found: np.ndarray = ms[order][np.searchsorted(reached, (shares - 1e-9) * reached[-1])]
    return found
