"""Whether cleaning preferences and deciding on a canary grow in proportion to the data, as a table.

    .venv/bin/python benchmarks/scaling.py

Made-up data of two sizes, one four times the other; the sizes take turns, round by round.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from agentrl_resources.canary import CanaryRules, CanaryRun, decide
from agentrl_resources.preferences import CleaningRules, RawRow, clean

TIMES = 4
START = datetime(2026, 11, 23, tzinfo=UTC)


def pairs(count: int) -> list[RawRow]:
    """Preference pairs of 80 words a side, no two of which are alike."""
    source = random.Random(5)
    words = ["".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(3000)]
    sides = ("prompt", "chosen", "rejected")
    made = ({side: " ".join(source.choices(words, k=80)) for side in sides} for _ in range(count))
    return [RawRow(number, "made up", row) for number, row in enumerate(made, start=1)]


def runs(count: int) -> list[CanaryRun]:
    """One run a session, half of them the canary's, both arms alike."""
    rng = np.random.default_rng(5)
    return [
        CanaryRun(
            session=f"s{number}", canary=bool(rng.random() < 0.5), started_at=START + timedelta(seconds=number),
            success=bool(rng.random() < 0.9), human_override=bool(rng.random() < 0.05), safety_violation=False,
            tool_calls=3, tool_errors=int(rng.binomial(3, 0.05)), duration_ms=float(rng.lognormal(7, 0.4)),
            cost=float(rng.lognormal(-4, 0.2)), canary_percent=50.0,
        )
        for number in range(count)
    ]  # fmt: skip


def judge(made: list[CanaryRun]) -> object:
    return decide(made, CanaryRules(), now=START + timedelta(hours=48), started_at=START)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(name: str, work: Callable[[Any], object], make: Callable[[int], Any], size: int, rounds: int) -> None:
    small, large = make(size), make(TIMES * size)
    took = [(seconds(lambda: work(small)), seconds(lambda: work(large))) for _ in range(rounds)]
    less, more = (statistics.median(column) for column in zip(*took, strict=True))
    ratio = statistics.median(more / less for less, more in took)
    print(f"| {name} | {size:,} | {less:.2f} | {TIMES * size:,} | {more:.2f} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"| work | n | seconds | {TIMES} n | seconds | ratio, median of {rounds} |")
    print("|---|--:|--:|--:|--:|--:|")
    report("clean preference pairs", lambda rows: clean(rows, CleaningRules()), pairs, 1_500, rounds)
    report("decide on a canary's runs", judge, runs, 20_000, rounds)


if __name__ == "__main__":
    main()
