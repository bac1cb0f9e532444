"""The tail of the durations of two arms on the same tasks: the slow answers are what people notice.

A candidate that answers 92 of 100 requests in two thirds of the time and the others in four times of it has the mean of
its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from agentrl_resources.evaluation.comparison import Change, Pair, change_in_percent
from agentrl_resources.evaluation.statistics import Interval, Ratio, paired_difference, ratio_of_quantiles

if TYPE_CHECKING:
    import numpy as np

TAIL = 0.95
"""Which quantile is the tail: one run in twenty takes longer."""

FAR = 1.5
"""Times the limit of the tail. What takes longer is very slow, and one run in fifty may be without moving p95."""

FAR_MARGIN = 1.25
"""Percentage points of the tasks by which more might at most be very slow, for all the evidence says: one in eighty.
It takes 220 tasks of which none is very slow to say so."""


class Durations(NamedTuple):
    """The runs of a suite whose duration is known of the baseline, one entry a run.

    What never ended, or was given up, must not make a candidate look fast: where its duration is unknown, a run counts
    as longer than any other for GO, and is left out for NO-GO.
    """

    tasks: np.ndarray
    """Names, `(runs,)`."""
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
            np.array([pair.task_id for pair in timed]),
            np.array([pair.baseline.duration_ms for pair in timed], dtype=float),
            np.array([math.inf if ms is None else ms for ms in candidate], dtype=float),
        )

    @property
    def known(self) -> Durations:
        """Without the runs whose duration is unknown of the candidate."""
        import numpy as np

        known = np.isfinite(self.candidate)
        return Durations(self.tasks[known], self.baseline[known], self.candidate[known])

    @property
    def tails(self) -> tuple[float, float]:
        """p95 of baseline and candidate in ms. There must be runs."""
        import numpy as np

        before, after = (float(np.quantile(arm, TAIL, method="inverted_cdf")) for arm in self[1:])
        return before, after

    def tail_change(self, percent: float) -> Change:
        """Of p95 over all runs, which must be above zero in both arms of those that are known."""
        known = self.known
        ratio = ratio_of_quantiles(known.candidate, known.baseline, known.tasks, TAIL)
        if len(known.tasks) < len(self.tasks):
            high = math.inf
            if math.isfinite(self.tails[1]):
                high = ratio_of_quantiles(self.candidate, self.baseline, self.tasks, TAIL).interval[1]
            ratio = Ratio(ratio.estimate, (ratio.interval[0], high))
        return change_in_percent("The tail (p95)", ratio, percent, "p95")

    def far_change(self, percent: float, suite: str) -> Change:
        """Of the share of tasks with a very slow run: one beyond `FAR` times what p95 might be, given what it was."""
        limit = FAR * (1 + percent / 100)
        slow = limit * self.tails[0]
        before, after, estimate, (low, _) = self.known._slower_than(slow)
        high = self._slower_than(slow)[3][1]
        said = (
            f"Very slow {suite} tasks, over {limit:g} times the baseline's p95: {after} (baseline: {before}), a "
            f"difference of {low:+.1f} to {high:+.1f} points"
        )
        return Change(f"very_slow_{suite}", estimate, (low, high), FAR_MARGIN, "percentage points", said)

    def _slower_than(self, ms: float) -> tuple[int, int, float, Interval]:
        """Tasks with a run that took longer, of baseline and candidate; their difference in points, with interval."""
        import numpy as np

        before, after = (set(self.tasks[arm > ms].tolist()) for arm in self[1:])
        n = len(np.unique(self.tasks))
        low, high = paired_difference(len(after - before), len(before - after), n)
        return len(before), len(after), 100 * (len(after) - len(before)) / max(n, 1), (100 * low, 100 * high)
