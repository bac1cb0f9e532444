"""Tests and intervals that hold however often one looks at them (anytime-valid), by betting.

A gambler who starts with 1 bets against a null hypothesis at odds that are fair or worse for him when it is true. His
wealth is an *e-process*: under the null it ever reaches `1 / alpha` with probability `alpha` at most (Ville's
inequality). So one may look after every session, stop at any look, and call the null rejected once the wealth is
there. An interval that holds at all times is the set of values against which nobody has become rich.

Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting (JRSS B 86). How much to stake is
not guessed from the data here: the wealth is shared out among many fixed stakes, which makes it independent of the
order of the observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from agentrl_resources.evaluation.statistics import Interval

if TYPE_CHECKING:
    import numpy as np

STAKES = tuple(0.01 * 97 ** (step / 23) for step in range(24))
"""Shares of the wealth that are bet each time: 24 from 1 % to 97 %, in equal ratios."""

WEIGHTS = tuple(stake / sum(STAKES) for stake in STAKES)
"""Share of the first wealth behind each stake: in proportion to it, which on this grid is a uniform prior on stakes."""

_LARGEST_LOG = 600.0
"""e-values stop at e^600, so that they stay finite numbers."""


def log_e_process(payoffs: np.ndarray) -> np.ndarray:
    """The logarithm of the wealth after each bet, along the last axis.

    A payoff is what one unit of stake wins: never below -1, and 0 or less on average given the past when the null
    hypothesis is true.
    """
    import numpy as np

    wealth = np.full(np.shape(payoffs), -np.inf)
    for stake, weight in zip(STAKES, WEIGHTS, strict=True):
        np.logaddexp(wealth, math.log(weight) + np.cumsum(np.log1p(stake * payoffs), axis=-1), out=wealth)
    return wealth


def log_e_value(payoffs: np.ndarray) -> float:
    """The last value of `log_e_process`; 0 without payoffs."""
    import numpy as np

    logs = np.log1p(np.multiply.outer(np.array(STAKES), payoffs)).sum(axis=-1)
    return float(np.logaddexp.reduce(np.log(WEIGHTS) + logs))


@dataclass(frozen=True)
class Bets:
    """Bets on an unknown parameter between `low` and `high`, against each of its values.

    `above(value)` are the payoffs, one a comparison, of a bet that the parameter is above the value: on average 0 or
    less when it is not. They fall as the value rises. `below` is the mirror image.
    """

    above: Callable[[float], np.ndarray]
    below: Callable[[float], np.ndarray]
    low: float
    high: float

    def e_above(self, value: float) -> float:
        """e-value against "the parameter is at most `value`"."""
        return math.exp(min(log_e_value(self.above(value)), _LARGEST_LOG))

    def e_below(self, value: float) -> float:
        """e-value against "the parameter is at least `value`"."""
        return math.exp(min(log_e_value(self.below(value)), _LARGEST_LOG))

    def interval(self, alpha: float) -> Interval:
        """Confidence sequence: each end is ever on the wrong side of the parameter with probability `alpha` at most.

        A value lies outside exactly when `e_above` or `e_below` of it has reached `1 / alpha`.
        """
        rich = -math.log(alpha)
        return (
            self._falls_to_zero(lambda value: log_e_value(self.above(value)) - rich),
            self._falls_to_zero(lambda value: rich - log_e_value(self.below(value))),
        )

    def estimate(self) -> float:
        """The value at which a bet pays nothing on average; it lies within every interval."""
        return self._falls_to_zero(lambda value: float(self.above(value).mean()))

    def _falls_to_zero(self, falling: Callable[[float], float]) -> float:
        from scipy.optimize import brentq

        if falling(self.low) <= 0:
            return self.low
        if falling(self.high) >= 0:
            return self.high
        return float(brentq(falling, self.low, self.high, xtol=1e-6))


def bets_on_mean(values: np.ndarray, low: float, high: float) -> Bets:
    """Bets on the mean of values that are never below `low` nor above `high`."""
    hair = 1e-9 * (high - low)
    return Bets(
        above=lambda mean: (values - mean) / (mean - low),
        below=lambda mean: (mean - values) / (high - mean),
        low=low + hair,
        high=high - hair,
    )


class BernoulliEProcess:
    """e-process against "the rate of an event is `limit` or less", for a stream that may change at any time.

    With each observation new bets begin, together a share `1 / (t (t + 1))` of the first wealth at the t-th: a rate
    that jumps after 10,000 quiet observations is found almost as soon as one that was high from the start, and still
    the wealth ever reaches `1 / alpha` with probability `alpha` at most as long as the rate stays within the limit.
    """

    RATES = 8

    def __init__(self, limit: float) -> None:
        """`limit` is between 0 and 1."""
        self.limit = limit
        self._wealth = [0.0] * self.RATES
        self._n = 0

    def update(self, event: bool, limit: float | None = None) -> float:
        """Takes one observation in; gives the new `e_value`.

        `limit` is the one that this observation is held against, if it is another. It must not depend on this
        observation or a later one: then a bet at its odds is fair, whatever the limits before it were.
        """
        self._n += 1
        new = 1 / (self._n * (self._n + 1) * self.RATES)
        factors = _factors(self.limit if limit is None else limit, self.RATES)[event]
        self._wealth = [
            min((wealth + new) * factor, 1e300) for wealth, factor in zip(self._wealth, factors, strict=True)
        ]
        return self.e_value

    @property
    def e_value(self) -> float:
        """The wealth of the bets, and what has not been bet yet."""
        return sum(self._wealth) + 1 / (self._n + 1)


@lru_cache(maxsize=256)
def _factors(limit: float, count: int) -> tuple[list[float], list[float]]:
    """What bets on rates above a limit, in equal ratios of the odds, are multiplied by without and with an event."""
    odds = [limit / (1 - limit) * 2 ** (step + 1) for step in range(count)]
    rates = [each / (1 + each) for each in odds]
    return [(1 - rate) / (1 - limit) for rate in rates], [rate / limit for rate in rates]


def sample_ratio_e_value(counts: Iterable[tuple[float, int, int]]) -> float:
    """e-value against "each session went to the canary with the share that was in force".

    `counts` has a share (above 0, below 1) and the sessions of the canary and of the champion that were assigned under
    it. Under each share there are bets on odds that are off by a factor of 1.05 to 8, in either direction.
    """
    import numpy as np

    factors = np.geomspace(1.05, 8, 12)
    factors = np.concatenate([factors, 1 / factors])
    log_e = 0.0
    for share, canary, champion in counts:
        wealth = canary * np.log(factors) - (canary + champion) * np.log(1 - share + share * factors)
        log_e += float(np.logaddexp.reduce(wealth)) - math.log(len(factors))
    return math.exp(min(log_e, _LARGEST_LOG))
