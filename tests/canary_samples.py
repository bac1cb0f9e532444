"""Traffic of a canary and its champion, and a look at it."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from agentrl_resources.canary import CanaryRules, CanaryRun, Decision, MetricDecision, decide

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
RULES = CanaryRules()
CHAMPION = {"success": 0.86, "override": 0.04, "violation": 0.03, "tool_error": 0.05, "ms": 1000.0, "cost": 0.01}
BETTER = {"success": 0.97, "override": 0.01, "violation": 0.0, "tool_error": 0.03, "ms": 900.0, "cost": 0.006}
"""By so much in every metric that a thousand of its sessions always show it."""


def seeded() -> np.random.Generator:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def traffic(
    rng: np.random.Generator, n: int, percent: float, canary: dict[str, float], champion: dict[str, float] = CHAMPION
) -> list[CanaryRun]:
    """Sessions of one run, one a second; costs spread little, so that they are decided soon."""
    runs = []
    for second in range(n):
        in_canary = bool(rng.random() < percent / 100)
        arm = canary if in_canary else champion
        runs.append(
            CanaryRun(
                session=f"s{second}",
                canary=in_canary,
                started_at=START + timedelta(seconds=second),
                success=bool(rng.random() < arm["success"]),
                human_override=bool(rng.random() < arm["override"]),
                safety_violation=bool(rng.random() < arm["violation"]),
                tool_calls=3,
                tool_errors=int(rng.binomial(3, arm["tool_error"])),
                duration_ms=float(arm["ms"] * rng.lognormal(0, 0.4)),
                cost=float(arm["cost"] * rng.lognormal(0, 0.2)),
                canary_percent=percent,
            )
        )
    return runs


def look(runs: Sequence[CanaryRun], rules: CanaryRules = RULES, hours: float = 1) -> Decision:
    return decide(runs, rules, now=START + timedelta(hours=hours), started_at=START)


def metric(decision: Decision, name: str) -> MetricDecision:
    return next(metric for metric in decision.metrics if metric.metric == name)
