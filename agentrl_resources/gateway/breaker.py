"""The circuit breaker: ends a canary within a few bad answers, without ending a good one by bad luck.

It gathers evidence against "failures, or safety violations, are no more than the limit" answer by answer, of the kind
that may be looked at each time (`evaluation.BernoulliEProcess`). A canary that breaks after a quiet week is found
nearly as soon as one that was broken from the start.

What the champion suffers as well, an overloaded machine or a database that is away, is not the canary's failure: while
the champion's answers would fail under the canary's rules, the canary is allowed to fail as often, and half as often
again.
"""

import math
from dataclasses import dataclass, field

from agentrl_resources.evaluation import BernoulliEProcess

ALPHA = 0.01
"""Chance at most that a canary which stays within a limit is ever ended for it."""
ALLOWANCE = 1.5
"""How many times as often as the champion the canary may fail, where that is more than its limit."""
LARGEST_ALLOWED = 0.8
"""A canary that fails nearly always is ended whatever the champion suffers."""
MEMORY = 50
"""Of so many of the champion's latest answers it is known how often they would have failed."""


@dataclass
class Recent:
    """How often something was so in the latest of a row of answers."""

    share: float = 0.0
    answers: int = 0

    def update(self, event: bool) -> None:
        """Takes one answer in."""
        self.answers += 1
        self.share += (event - self.share) / min(self.answers, MEMORY)


@dataclass
class Watched:
    """One kind of event: how often it may happen, how often it did, and the evidence that this is too often."""

    limit: float
    champion: Recent = field(default_factory=Recent)
    """How often the same could be said of the champion's answers."""
    events: int = 0
    answers: int = 0
    evidence: float = 1.0
    first_event_at: float | None = None
    """Of the present run of evidence, in seconds since the epoch."""
    process: BernoulliEProcess = field(init=False)

    def __post_init__(self) -> None:
        self.process = BernoulliEProcess(self.limit)

    def update(self, event: bool, at: float) -> bool:
        """Takes one answer in; says whether it is enough."""
        if event and (self.first_event_at is None or self.evidence <= 1):
            self.first_event_at = at
        self.answers += 1
        self.events += event
        self.evidence = self.process.update(event, self.allowed)
        return self.evidence >= 1 / ALPHA

    @property
    def allowed(self) -> float:
        """The limit in force, in steps of a percent."""
        relative = min(ALLOWANCE * self.champion.share, LARGEST_ALLOWED)
        return max(self.limit, math.floor(100 * relative) / 100)


@dataclass(frozen=True)
class Trip:
    """Why the breaker opened. Times in seconds since the epoch."""

    cause: str
    said: str
    first_event_at: float
    decided_at: float


class Breaker:
    """Watches one canary: failures (errors and timeouts) and safety violations."""

    def __init__(self, failure_limit: float, violation_limit: float, champion: Recent | None = None) -> None:
        """`champion`: which of its answers would be failures by the canary's rules, its time limit among them."""
        self.watched = {
            "failures": Watched(failure_limit, champion or Recent()),
            "safety violations": Watched(violation_limit),
        }

    def update(self, *, failed: bool, violated: bool, at: float) -> Trip | None:
        """Takes one canary answer in; `at` is when it was over, in seconds since the epoch."""
        trip = None
        for cause, event in (("failures", failed), ("safety violations", violated)):
            watched = self.watched[cause]
            if watched.update(event, at) and watched.first_event_at is not None:
                said = (
                    f"{watched.events} {cause} in {watched.answers} canary answers, "
                    f"the limit is {100 * watched.allowed:g} %"
                )
                trip = trip or Trip(cause, said, watched.first_event_at, at)
        return trip
