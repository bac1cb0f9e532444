"""The circuit breaker: ends a canary within a few bad answers, without ending a good one by bad luck.

It watches for a change, since a canary may be fine for a week and break then. A likelihood ratio of "the rate is p"
against "the rate is at the limit" is multiplied up answer by answer and never falls below one (CUSUM); the mean over
several p is an e-detector (Shin, Ramdas & Rinaldo 2023): as long as the true rate stays within the limit, it takes on
average at least `PATIENCE` answers until it trips, and vastly more when the rate is well below.
"""

from dataclasses import dataclass, field

PATIENCE = 10_000
"""Canary answers until a false alarm, on average at least, for a canary that is exactly at its limit."""


@dataclass
class Detector:
    """Trips when events come more often than `limit` (a share of answers, below 0.5)."""

    limit: float
    evidence: list[float] = field(default_factory=list)
    events: int = 0
    answers: int = 0

    def __post_init__(self) -> None:
        # between the limit and always: three times as often, and halfway and nearly all the way to always
        self._rates = [min(3 * self.limit, 0.5), (1 + self.limit) / 2, 0.95]
        self.evidence = [1.0] * len(self._rates)

    def update(self, event: bool) -> bool:
        """Takes one answer in; says whether it has tripped."""
        self.answers += 1
        self.events += event
        for index, rate in enumerate(self._rates):
            ratio = rate / self.limit if event else (1 - rate) / (1 - self.limit)
            self.evidence[index] = max(self.evidence[index], 1.0) * ratio
        return self.tripped

    @property
    def value(self) -> float:
        """The evidence for a rate above the limit; `PATIENCE` trips."""
        return sum(self.evidence) / len(self.evidence)

    @property
    def tripped(self) -> bool:
        return self.value >= PATIENCE


@dataclass(frozen=True)
class Trip:
    """Why the breaker opened. Times in seconds since the epoch."""

    cause: str
    said: str
    first_event_at: float
    decided_at: float


class Breaker:
    """Watches one canary: failures (errors and timeouts) and safety violations."""

    def __init__(self, failure_limit: float, violation_limit: float) -> None:
        self.detectors = {"failures": Detector(failure_limit), "safety violations": Detector(violation_limit)}
        self._first_events: dict[str, float] = {}

    def update(self, *, failed: bool, violated: bool, at: float) -> Trip | None:
        """Takes one canary answer in; `at` is when it was over, in seconds since the epoch."""
        for cause, event in (("failures", failed), ("safety violations", violated)):
            detector = self.detectors[cause]
            if event:
                # evidence that has fallen to nothing says that what was seen before belongs to no change
                if detector.value <= 1:
                    self._first_events.pop(cause, None)
                self._first_events.setdefault(cause, at)
            if detector.update(event):
                said = (
                    f"{detector.events} {cause} in {detector.answers} canary answers, "
                    f"the limit is {100 * detector.limit:g} %"
                )
                return Trip(cause, said, self._first_events[cause], at)
        return None
