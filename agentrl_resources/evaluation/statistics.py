"""Statistics that evaluation and gates rest on: scipy's where it has the test, short formulas with their source where
not.

Rates and probabilities are between 0 and 1; intervals are two-sided `(low, high)` unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Interval = tuple[float, float]

CONFIDENCE = 0.95


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's interval of a rate. `n` may be a fraction (an effective number), which scipy's version does not take."""
    if n == 0:
        return 0.0, 1.0
    z, rate = _z(confidence), successes / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At a rate of 0 or 1 rounding may put a bound a hair on the wrong side of it.
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def wilson_of_tasks(shares: Sequence[float], runs: int) -> Interval:
    """Wilson's interval of the mean of what share of each task's runs succeeded, `runs` of all tasks together.

    Runs of one task are alike: they count as so many independent ones as the spread between tasks says, and as no fewer
    than there are tasks.
    """
    n, rate = len(shares), math.fsum(shares) / len(shares)
    spread = math.fsum((share - rate) ** 2 for share in shares) / (n * max(1, n - 1))
    independent = min(float(runs), max(float(n), rate * (1 - rate) / spread)) if spread else float(n)
    return wilson(rate * independent, independent)


def upper_bound(successes: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson bound: with this confidence the rate is no higher. For 0 of n about 3 / n at 95 %."""
    from scipy.stats import binomtest

    return float(binomtest(successes, n, alternative="less").proportion_ci(confidence).high) if n else 1.0


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that two arms succeed equally often, from the tasks on which just one of them did."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_difference(
    only_a: float, only_b: float, n: int, confidence: float = CONFIDENCE, within: float = 0.0
) -> Interval:
    """Interval of rate(a) - rate(b) over n pairs, from the pairs in which just one of them happened.

    Bonett & Price 2012, which adds one to either count; never of width zero, and swapping the arms turns its sign.
    Of tasks that were run several times `only_a` and `only_b` add up the shares of the runs by which an arm was ahead,
    and `within` is the sum of share - share squared: such differences spread less than ones of 0 and 1.
    """
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((a + b - within / (n + 2) - (a - b) ** 2) / (n + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def paired_bootstrap(
    values_a: Sequence[float],
    values_b: Sequence[float],
    statistic: Callable[..., np.ndarray],
    seed: int,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Percentile bootstrap over pairs, one pair a task. `statistic(a, b, axis)` is vectorised over `axis`."""
    from scipy.stats import bootstrap

    result = bootstrap(
        (values_a, values_b),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=2000,
        batch=200,
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


class Ratio(NamedTuple):
    """An estimated ratio and its interval."""

    estimate: float
    interval: Interval


def product_of_sums(factors: Sequence[tuple[Sequence[float], int]], confidence: float = CONFIDENCE) -> Ratio:
    """The product of sum(values) ** power over `factors`, such as (cost, 1), (successes, -1), all over the same
    tasks.

    Delta method on the logarithm, Student's t: deterministic, and swapping numerator and denominator inverts it
    exactly. Every sum must be above zero, and there must be two tasks or more.
    """
    import numpy as np
    from scipy.stats import t

    columns = [(np.asarray(values, dtype=float), power) for values, power in factors]
    n = len(columns[0][0])
    log_ratio = sum(power * math.log(values.sum()) for values, power in columns)
    influence = sum((power * values / values.mean() for values, power in columns), np.zeros(n))
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * float(influence.std(ddof=1)) / math.sqrt(n)
    return Ratio(math.exp(log_ratio), (math.exp(log_ratio - half), math.exp(log_ratio + half)))


def ratio_of_quantiles(
    numerator: Sequence[float] | np.ndarray,
    denominator: Sequence[float] | np.ndarray,
    tasks: Sequence[str] | np.ndarray,
    share: float,
    confidence: float = CONFIDENCE,
) -> Ratio:
    """A high quantile of one arm over the same quantile of the other, both measured on the same tasks.

    Each sequence has one entry a run; `tasks` says of which task it is. Values are not negative; infinity is a run of
    which only is known that it was longer than the others. A quantile is the smallest value that a `share` of the runs
    does not exceed, and both must be above zero and finite.

    The interval of each quantile lies between two order statistics (exact, by the binomial distribution, with as many
    independent runs as the spread between tasks says: Korn & Graubard 1998). Both become the interval of the ratio, on
    the logarithm and with the correlation of what exceeds the quantiles (MOVER: Zou & Donner 2008). An end is 0 or
    infinite where there are too few runs for it; at a share of 0.95 that is below 72.
    """
    import numpy as np

    _, task = np.unique(np.array(tasks), return_inverse=True)
    above, below = (
        _quantile(np.asarray(arm, dtype=float), task, share, confidence) for arm in (numerator, denominator)
    )
    spread = float(np.linalg.norm(above.excess) * np.linalg.norm(below.excess))
    correlation = float(above.excess @ below.excess) / spread if spread else 0.0

    def together(one: float, other: float) -> float:
        """How far the difference reaches, given how far its two parts do."""
        if math.isinf(one) or math.isinf(other):
            return math.inf
        return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))

    centre = math.log(above.value / below.value)
    down = together(above.down, below.up)
    up = together(above.up, below.down)
    return Ratio(math.exp(centre), (math.exp(centre - down), math.exp(centre + up) if up < math.inf else math.inf))


class _Quantile(NamedTuple):
    value: float
    down: float
    """How far below the value its interval begins, and above it ends, on the logarithm."""
    up: float
    excess: np.ndarray
    """By task: how many more of its runs exceed the value than of the others' on average, `(tasks,)`."""


def _quantile(values: np.ndarray, task: np.ndarray, share: float, confidence: float) -> _Quantile:
    import numpy as np
    from scipy.stats import binom

    ordered, runs = np.sort(values), len(values)

    def at(rank: float) -> float:
        """The value at a rank between 0 and 1; 1e-9 is for what dividing leaves."""
        return float(ordered[max(0, math.ceil(rank * runs - 1e-9) - 1)])

    value = at(share)
    exceeds = values > value
    rate = float(exceeds.mean())
    excess = np.bincount(task, exceeds - rate)
    variance = float((excess**2).sum()) / runs**2
    n = min(runs, round(rate * (1 - rate) / variance)) if variance else len(excess)
    tail = (1 - confidence) / 2
    first, last = int(binom.ppf(tail, n, share)), int(binom.ppf(1 - tail, n, share)) + 1
    low, high = at(first / n) if first else 0.0, at(last / n) if last <= n else math.inf
    down = math.log(value / low) if low > 0 else math.inf
    return _Quantile(value, down, math.log(high / value) if high < math.inf else math.inf, excess)


def minimum_detectable_effect(
    only_a: float, only_b: float, n: int, confidence: float = CONFIDENCE, power: float = 0.8, within: float = 0.0
) -> float:
    """Smallest difference in rate that a paired test over n tasks would have found with this power.

    It rests on how often the arms disagreed (as `paired_difference`), and is to be told beside every "no difference".
    """
    disagreement = (only_a + only_b + 2 - within) / (n + 2)
    return min(1.0, (_z(confidence) + NormalDist().inv_cdf(power)) * math.sqrt(disagreement / n))


def pass_hat_k(trials: Sequence[Sequence[bool]], k: int) -> float:
    """pass^k (tau-bench): the chance that k independent runs of a task all succeed, averaged over tasks.

    `trials`: the outcomes of each task, at least k of them.
    """
    return math.fsum(math.comb(sum(task), k) / math.comb(len(task), k) for task in trials) / len(trials)


class Bin(NamedTuple):
    """Predictions from `low` to `high`: how many, what they said on average, and how often they came true."""

    low: float
    high: float
    n: int
    mean_probability: float
    observed_rate: float


def reliability_bins(probabilities: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> list[Bin]:
    """The calibration diagram: bins of equal width, empty ones left out."""
    members: dict[int, list[tuple[float, bool]]] = {}
    for probability, outcome in zip(probabilities, outcomes, strict=True):
        members.setdefault(min(int(probability * bins), bins - 1), []).append((probability, outcome))
    return [
        Bin(
            index / bins,
            (index + 1) / bins,
            len(pairs),
            math.fsum(probability for probability, _ in pairs) / len(pairs),
            sum(outcome for _, outcome in pairs) / len(pairs),
        )
        for index, pairs in sorted(members.items())
    ]


def ece(probabilities: Sequence[float], outcomes: Sequence[bool], bins: int = 10) -> float:
    """Expected calibration error: mean distance between what was said and what came true, over bins of equal width."""
    diagram = reliability_bins(probabilities, outcomes, bins)
    return math.fsum(bin.n * abs(bin.mean_probability - bin.observed_rate) for bin in diagram) / len(probabilities)


def brier(probabilities: Sequence[float], outcomes: Sequence[bool]) -> float:
    """Mean squared distance between probability and outcome; 0 is perfect, always saying one half gives 0.25."""
    return math.fsum((p - o) ** 2 for p, o in zip(probabilities, outcomes, strict=True)) / len(probabilities)


def auc(positive_scores: Sequence[float], negative_scores: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann-Whitney U)."""
    from scipy.stats import mannwhitneyu

    u = mannwhitneyu(positive_scores, negative_scores).statistic
    return float(u) / (len(positive_scores) * len(negative_scores))


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
