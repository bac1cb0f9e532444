"""Rollbacks that are really done, and timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agentrl_resources.release.registry import Registry

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class RollbackTiming:
    """One rollback from the decision to the first right answer of the release that is back."""

    swap_seconds: float
    load_seconds: float
    answer_seconds: float

    @property
    def total_seconds(self) -> float:
        return self.swap_seconds + self.load_seconds + self.answer_seconds


def measure_rollbacks(
    registry: Registry, load: Callable[[str], Loaded], answer: Callable[[Loaded], None], n: int
) -> list[RollbackTiming]:
    """Roll the champion back n times, and forth again each time, also when it fails.

    `load` makes the release with this digest ready to serve; `answer` returns once it has answered a task rightly.
    AgentRLError when there is no previous release. The pointers are really moved: time a candidate that gates have
    not judged in a registry of its own, not in the one that serves traffic.
    """
    timings = []
    for number in range(1, n + 1):
        why = f"rollback {number} of {n}"
        before = registry.pointers()
        started = time.perf_counter()
        back = registry.rollback(who="rollback drill", why=why, seen=before)
        swapped = time.perf_counter()
        try:
            loaded = load(str(back.champion))
            ready = time.perf_counter()
            answer(loaded)
            answered = time.perf_counter()
        finally:
            restored = {"champions": before.champions, "canary": before.canary}
            registry.swap("end of drill", who="rollback drill", why=why, seen=back, **restored)
        timings.append(RollbackTiming(swapped - started, ready - swapped, answered - ready))
    return timings
