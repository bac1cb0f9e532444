"""Sticky routing on a million sessions: the canary's share, both arms sticky, ramps that only add, salts that differ.

    .venv/bin/python benchmarks/routing.py

Takes about ten seconds on one core.
"""

import argparse
import itertools
import math
import time

import numpy as np
from scipy.stats import binomtest, chi2_contingency, chisquare

from agentrl_resources.gateway import bucket, goes_to_canary
from agentrl_resources.release import BUCKETS

RAMP = (5.0, 20.0, 50.0)
SALT, OTHER = "3f1c0a", "3f1c0b"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    options = parser.parse_args()
    started = time.perf_counter()
    sessions = [f"customer-{number}" for number in range(options.sessions)]
    arms = {percent: arm_of_each(sessions, percent) for percent in RAMP}
    again = arm_of_each(sessions, RAMP[0])
    first, other = buckets(SALT, sessions), buckets(OTHER, sessions)

    print(f"| {options.sessions:,} sessions | | |\n|---|--:|---|")
    for percent, arm in arms.items():
        n, share = int(arm.sum()), percent / 100
        low, high = binomtest(n, len(arm)).proportion_ci(0.99, "wilson")
        row(f"share at {percent:g} %", f"{100 * n / len(arm):.3f} %", f"99 %: {100 * low:.3f} to {100 * high:.3f} %",
            low <= share <= high)  # fmt: skip
    moved = int((again != arms[RAMP[0]]).sum())
    row("asked twice, another arm", f"{moved}", "must be none", moved == 0)
    for lower, higher in itertools.pairwise(RAMP):
        lost = int((arms[lower] & ~arms[higher]).sum())
        row(f"ramp {lower:g} to {higher:g} %, left the canary", f"{lost}", "must be none", lost == 0)
    spread = chisquare(np.bincount(first, minlength=BUCKETS))
    row("buckets evenly filled", f"p = {spread.pvalue:.2f}", f"chi-square, {BUCKETS - 1:,} degrees of freedom",
        spread.pvalue > 0.001)  # fmt: skip
    both, _, _ = np.histogram2d(first, other, bins=10, range=[[0, BUCKETS], [0, BUCKETS]])
    independent = chi2_contingency(both)
    freedom = f"chi-square, {independent.dof} degrees of freedom"
    row("another salt, independent", f"p = {independent.pvalue:.2f}", freedom,
        independent.pvalue > 0.001)  # fmt: skip
    twice = int((arms[RAMP[0]] & (other < RAMP[0] * BUCKETS / 100)).sum())
    expected = len(sessions) * (RAMP[0] / 100) ** 2
    row("in the canary of both salts", f"{twice:,}", f"expected {expected:,.0f} ± {math.sqrt(expected):.0f}",
        abs(twice - expected) < 4 * math.sqrt(expected))  # fmt: skip
    print(f"\n{time.perf_counter() - started:.1f} s; {1e6 * per_session(sessions):.1f} µs for each decision.")


def arm_of_each(sessions: list[str], percent: float) -> np.ndarray:
    """Whether each session goes to the canary."""
    return np.fromiter((goes_to_canary(SALT, session, percent) for session in sessions), bool, len(sessions))


def buckets(salt: str, sessions: list[str]) -> np.ndarray:
    return np.fromiter((bucket(salt, session) for session in sessions), np.int64, len(sessions))


def per_session(sessions: list[str]) -> float:
    some = sessions[:20_000]
    started = time.perf_counter()
    for session in some:
        goes_to_canary(SALT, session, RAMP[0])
    return (time.perf_counter() - started) / len(some)


def row(name: str, found: str, wanted: str, holds: bool) -> None:
    print(f"| {name} | {found} | {wanted}{'' if holds else ' **FAILED**'} |")
    if not holds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
