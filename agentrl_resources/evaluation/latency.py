"""The tail of the durations of two arms on the same tasks: the slow answers are what people notice.

A candidate that answers 92 of 100 requests in two thirds of the time and the others in four times of it has the mean of
its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from agentrl_resources.evaluation.comparison import Change, Pair, change_in_percent
from agentrl_resources.evaluation.statistics import Ratio, paired_difference, ratio_of_quantiles

if TYPE_CHECKING:
    import numpy as np

TAIL = 0.95
"""Which quantile is the tail: one run in twenty takes longer."""

FAR = 2.0
"""Times the limit of the tail. What takes longer is very slow, and one run in fifty may be without moving p95."""

FAR_MARGIN = 1.25
"""Percentage points of the tasks by which more might at most be very slow, for all the evidence says: one in eighty.
It takes 220 tasks of which none is very slow to say so."""


class Durations(NamedTuple):
    """The runs of a suite whose duration is known of the baseline, one entry a run.

    A run of the candidate whose duration is unknown counts as longer than any other: what never ended, or was given up,
    must not make an arm look fast.
    """

    tasks: list[str]
    baseline: np.ndarray
    """ms, `(runs,)`."""
    candidate: np.ndarray
    """ms, `(runs,)`; infinite where it is unknown."""

    @classmethod
    def of(cls, pairs: Iterable[Pair], suite: str) -> Durations:
        import numpy as np

        timed = [pair for pair in pairs if pair.suite == suite and pair.baseline.duration_ms is not None]
        candidate = [pair.candidate.duration_ms for pair in timed]
        return cls(
            [pair.task_id for pair in timed],
            np.array([pair.baseline.duration_ms for pair in timed], dtype=float),
            np.array([math.inf if ms is None else ms for ms in candidate], dtype=float),
        )

    @property
    def unknown(self) -> int:
        """Runs of the candidate whose duration is unknown."""
        import numpy as np

        return int(np.isinf(self.candidate).sum())

    def tails(self) -> tuple[float, float]:
        """p95 of baseline and candidate in ms. There must be runs."""
        import numpy as np

        before, after = (float(np.quantile(arm, TAIL, method="inverted_cdf")) for arm in self[1:])
        return before, after

    def tail_change(self, percent: float) -> Change:
        """Of p95 over all runs, which must be above zero in both arms."""
        if math.isinf(self.tails()[1]):
            ratio = Ratio(math.inf, (0.0, math.inf))
        else:
            ratio = ratio_of_quantiles(self.candidate.tolist(), self.baseline.tolist(), self.tasks, TAIL)
        return change_in_percent("The tail (p95)", ratio, percent, "p95")

    def far_change(self, percent: float, suite: str) -> Change:
        """Of the share of tasks with a very slow run: one beyond `FAR` times what p95 might be, given what it was."""
        limit = FAR * (1 + percent / 100)
        slow = limit * self.tails()[0]
        n = len(set(self.tasks))
        before, after = (
            {task for task, late in zip(self.tasks, (arm > slow).tolist(), strict=True) if late} for arm in self[1:]
        )
        low, high = (100 * end for end in paired_difference(len(after - before), len(before - after), n))
        said = (
            f"Very slow {suite} tasks, over {limit:g} times the baseline's p95: {len(after)} of {n}, {len(before)} of "
            f"the baseline's, a difference of {low:+.1f} to {high:+.1f} points"
        )
        estimate = 100 * (len(after) - len(before)) / n
        return Change(f"very_slow_{suite}", estimate, (low, high), FAR_MARGIN, "percentage points", said)
