"""How often does the latency gate say GO, NO-GO or HOLD, by how durations differ and how many tasks there are?

    .venv/bin/python benchmarks/latency_gate.py

Simulated durations: log-normal, half of the logarithm's variance shared by both arms of a task, as an agent's mostly
follow from the task. Takes about two minutes on one core.
"""

import argparse
import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from agentrl_resources.evaluation import EpisodeFacts, Evidence, Pair, judge, parse_gate

Candidate = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def times(factor: float) -> Candidate:
    return lambda rng, ms: factor * ms


def slow(share: float, factor: float) -> Candidate:
    """A share takes so many times as long, the others are faster, so that the mean stays."""
    return lambda rng, ms: ms * np.where(rng.random(len(ms)) < share, factor, 1.0) / (1 + share * (factor - 1))


CANDIDATES: dict[str, Candidate] = {
    "equal": times(1.0),
    "5 % faster": times(0.95),
    "10 % slower": times(1.1),
    "15 % slower: exactly the limit": times(1.15),
    "30 % slower": times(1.3),
    "same mean, 2 % take 4 times": slow(0.02, 4),
    "same mean, 5 % take 4 times": slow(0.05, 4),
    "same mean, 8 % take 4 times": slow(0.08, 4),
    "same mean, 1 % take 10 times": slow(0.01, 10),
    "same mean, 2 % take 10 times": slow(0.02, 10),
}


def verdict(
    rng: np.random.Generator, candidate: Candidate, n: int, sigma: float, correlation: float
) -> tuple[str, bool]:
    """The answer, and whether the mean alone would have been let through."""
    common, own, other = rng.normal(size=(3, n))
    arms = (math.sqrt(correlation) * common + math.sqrt(1 - correlation) * noise for noise in (own, other))
    before, after = (1000 * np.exp(sigma * arm) for arm in arms)
    pairs = [
        Pair(str(task), "capability", EpisodeFacts(True, False, 1.0, one), EpisodeFacts(True, False, 1.0, another))
        for task, (one, another) in enumerate(zip(before.tolist(), candidate(rng, after).tolist(), strict=True))
    ]
    found = judge(parse_gate("latency_delta_lt_15_percent"), Evidence(pairs))
    return found.answer, found.interval is not None and found.interval[1] < found.threshold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=300, help="evaluations of each candidate")
    parser.add_argument("--tasks", type=int, nargs="*", default=[300, 1000])
    parser.add_argument("--sigmas", type=float, nargs="*", default=[0.3, 0.5])
    parser.add_argument("--correlation", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cases = [(n, sigma) for n in options.tasks for sigma in options.sigmas]
    print("GO / NO-GO / HOLD in % (of which the mean alone would let through)")
    print("| candidate |", " | ".join(f"{n} tasks, sigma {sigma:g}" for n, sigma in cases), "|")
    print("|---|", "|".join("---" for _ in cases), "|")
    for name, candidate in CANDIDATES.items():
        cells = []
        for n, sigma in cases:
            found = [verdict(rng, candidate, n, sigma, options.correlation) for _ in range(options.times)]
            answers = Counter(answer for answer, _ in found)
            shares = [100 * answers[answer] / len(found) for answer in ("GO", "NO-GO", "HOLD")]
            mean = 100 * sum(passes for _, passes in found) / len(found)
            cells.append(f"{' / '.join(f'{share:.0f}' for share in shares)} ({mean:.0f})")
        print("|", name, "|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
