"""How many sessions does the canary's decision take, and how often is it wrong? A table, and a picture with --picture.

    .venv/bin/python benchmarks/canary_statistics.py --picture canary.png
    .venv/bin/python benchmarks/canary_statistics.py --only tails
    .venv/bin/python benchmarks/canary_statistics.py --only tails --without latency_tail latency_far_tail
    .venv/bin/python benchmarks/canary_statistics.py --only margins --times 300

Simulated sessions of one run each, with the workflow's prices; the decision is looked at after every comparison, which
is the most often one can look. Takes some minutes on one core.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from agentrl_resources.canary import CanaryRules
from agentrl_resources.canary.metrics import METRICS, Metric
from agentrl_resources.canary.sessions import Sessions, compare
from agentrl_resources.evaluation import log_e_process
from agentrl_resources.workflow import Prices


@dataclass(frozen=True)
class Arm:
    """What the sessions of an arm are drawn from. The defaults are near what the default workflow's baseline does."""

    success: float = 0.86
    human_override: float = 0.08
    tool_error: float = 0.05
    violation: float = 0.045
    duration: float = 1.0
    sigma: float = 0.5
    slow: float = 0.0
    """Share of the sessions that take `slow_times` as long; the others are then faster, so that the mean stays."""
    slow_times: float = 4.0
    prices: Prices = field(default_factory=Prices)

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
        """Values of n sessions: 3 tool calls each, durations and tokens log-normal."""
        success, override = rng.random(n) < self.success, rng.random(n) < self.human_override
        tokens = 1500 * rng.lognormal(0, 0.5, n)
        prices = self.prices
        times = np.where(rng.random(n) < self.slow, self.slow_times, 1.0) / (1 + self.slow * (self.slow_times - 1))
        return {
            "success": success.astype(float),
            "human_override": override.astype(float),
            "safety_violation": (rng.random(n) < self.violation).astype(float),
            "tool_error": rng.binomial(3, self.tool_error, n) / 3,
            "duration_ms": 1000 * self.duration * times * rng.lognormal(0, self.sigma, n),
            "cost": tokens * prices.per_token_in
            + 3 * prices.per_tool_call
            + override * prices.per_hand_over
            + ~success * prices.per_failure,
        }


CHAMPION = Arm()
BETTER = replace(CHAMPION, success=0.91, violation=0.007)
CHEAP = Prices(per_failure=0, per_hand_over=0)
"""Of runs alone, so that a failure does not show in the costs."""
CANARIES = {
    "equal": CHAMPION,
    "better (as measured)": BETTER,
    "2 points worse": replace(CHAMPION, success=0.84),
    "5 points worse": replace(CHAMPION, success=0.81),
    "10 points worse": replace(CHAMPION, success=0.76),
    "20 points worse": replace(CHAMPION, success=0.66),
    "unsafe (+10 points)": replace(CHAMPION, violation=0.145),
    "twice as slow": replace(CHAMPION, duration=2.0),
    "15 % slower, else better": replace(BETTER, duration=1.15),
}
"""The last is worse by exactly a margin, in one metric only: it must not be let through."""
THIN = replace(CHAMPION, sigma=0.1)
"""A champion whose sessions take nearly the same time each."""
TAILS = {
    "better, equally fast": (CHAMPION, BETTER),
    "better, equally fast, nearly constant": (THIN, replace(BETTER, sigma=0.1)),
    "better, equally fast, sigma 1": (replace(CHAMPION, sigma=1.0), replace(BETTER, sigma=1.0)),
    "better, 10 % slower": (CHAMPION, replace(BETTER, duration=1.1)),
    "better, 30 % slower": (CHAMPION, replace(BETTER, duration=1.3)),
    "better, same mean, 2 % take 4 times": (CHAMPION, replace(BETTER, slow=0.02)),
    "better, same mean, 5 % take 4 times": (CHAMPION, replace(BETTER, slow=0.05)),
    "better, same mean, 8 % take 4 times": (CHAMPION, replace(BETTER, slow=0.08)),
    "better, same mean, 2 % take 10 times": (CHAMPION, replace(BETTER, slow=0.02, slow_times=10)),
    "better, same mean, 3 % take 10 times": (CHAMPION, replace(BETTER, slow=0.03, slow_times=10)),
    "better, same mean, 8 % take 4 times, nearly constant": (THIN, replace(BETTER, sigma=0.1, slow=0.08)),
}
"""Champion and canary: better, as measured, but for the durations."""
MARGINS = {
    "equal": (CHAMPION, CHAMPION),
    "success": (CHAMPION, replace(BETTER, success=0.81)),
    "human_override": (CHAMPION, replace(BETTER, human_override=0.18)),
    "tool_error": (CHAMPION, replace(BETTER, tool_error=0.1)),
    "latency": (CHAMPION, replace(BETTER, duration=1.15)),
    "latency_tail": (THIN, replace(BETTER, sigma=0.1, slow=0.05, slow_times=1.9)),
    "latency_far_tail": (THIN, replace(BETTER, sigma=0.1, slow=0.025, slow_times=5)),
    "safety": (CHAMPION, replace(BETTER, violation=0.065)),
}
"""Equal, or better as measured but worse by exactly one margin in one metric."""
TABLES = ("all", "tails", "margins")
CHEAP_CANARIES = {
    "equal, no price of failures": CHAMPION,
    "5 points worse, no price of failures": replace(CHAMPION, success=0.81, violation=0.007),
    "twice the price of tokens and calls": CHAMPION,
}
RAMPED = {
    "equal",
    "better (as measured)",
    "better, equally fast",
    "2 points worse",
    "5 points worse",
    "10 points worse",
    "20 points worse",
}
RAMP = ((0, 5.0), (50, 20.0), (100, 50.0))
"""Canary sessions from which on a share (percent) is in force, by default."""
STEADY = ((0, 5.0),)


@dataclass(frozen=True)
class Outcome:
    answer: str
    canary_sessions: int
    sessions: int


def decided(
    champion: Arm,
    canary: Arm,
    shares: tuple[tuple[int, float], ...],
    most: int,
    rng: np.random.Generator,
    metrics: Sequence[Metric] = METRICS,
) -> Outcome:
    """The first look at which the answer is not HOLD, or HOLD after `most` canary sessions."""
    percent = drawn_percent(shares, most)
    in_canary = rng.random(len(percent)) < percent / 100
    values: dict[str, np.ndarray] = {}
    n = 0
    outcome = Outcome("HOLD", 0, 0)
    while outcome.answer == "HOLD" and n < len(percent):
        arms = in_canary[n : max(2000, 2 * n)]
        n += len(arms)
        ours, theirs = canary.draw(rng, int(arms.sum())), champion.draw(rng, int((~arms).sum()))
        for name in ours:
            new = np.empty(len(arms))
            new[arms], new[~arms] = ours[name], theirs[name]
            values[name] = np.concatenate([values.get(name, []), new])
        outcome = answered(Sessions(in_canary[:n], percent[:n], values, 0, 0), metrics=metrics)
    return outcome


def drawn_percent(shares: tuple[tuple[int, float], ...], most: int) -> np.ndarray:
    """The share in force at each session, with ramps where they are expected to be reached."""
    ends = [*(sessions for sessions, _ in shares[1:]), most]
    lengths = [math.ceil((end - begin) * 100 / percent) for (begin, percent), end in zip(shares, ends, strict=True)]
    return np.repeat([percent for _, percent in shares], lengths)


def answered(
    sessions: Sessions,
    rules: CanaryRules = CanaryRules(),  # noqa: B008
    metrics: Sequence[Metric] = METRICS,
) -> Outcome:
    """As `decide` would at each look, from the processes whose last values it reads."""
    good, harm = [], []
    for metric in metrics:
        bets = metric.compared(sessions, rules).bets
        assert bets is not None
        good.append(log_e_process(bets.below(metric.parameter(metric.margin(rules)))))
        harm.append(log_e_process(bets.above(metric.parameter(metric.harm(rules)))))
    harmful = np.logaddexp.reduce(harm) - math.log(len(metrics)) >= -math.log(rules.harm_alpha)
    proven = np.min(good, axis=0) >= -math.log(rules.alpha)
    pairs = compare(sessions.canary)
    last = np.zeros(pairs.n, dtype=int)
    np.maximum.at(last, pairs.group, np.maximum(pairs.canary, pairs.champion))
    n_canary = np.cumsum(sessions.canary)[last]
    done = np.flatnonzero(harmful | proven & (n_canary >= rules.minimum_sessions))
    if not len(done):
        return Outcome("HOLD", int(n_canary[-1]), int(last[-1]) + 1)
    at = done[0]
    return Outcome("NO-GO" if harmful[at] else "GO", int(n_canary[at]), int(last[at]) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="simulations of each canary")
    parser.add_argument("--most", type=int, default=2000, help="canary sessions until one that is not decided expires")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=TABLES, help="which table; all of them without it")
    parser.add_argument("--without", nargs="*", default=[], help="metrics to leave out, to see what they change")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    metrics = [metric for metric in METRICS if metric.name not in options.without]
    cheap = replace(CHAMPION, prices=CHEAP)
    dear = replace(CHEAP, per_token_in=2 * CHEAP.per_token_in, per_tool_call=2 * CHEAP.per_tool_call)
    cases = {name: (CHAMPION, canary) for name, canary in CANARIES.items()}
    cases |= {name: (cheap, replace(canary, prices=CHEAP)) for name, canary in CHEAP_CANARIES.items()}
    cases["twice the price of tokens and calls"] = (cheap, replace(cheap, prices=dear))
    drawn = {}
    for which, table in zip(TABLES, (cases, TAILS, MARGINS), strict=True):
        if options.only in (None, which):
            taken = "canary sessions until then: p10, p50, p90"
            print(f"\n| canary | share | GO | NO-GO | HOLD | {taken} | all sessions, p50 |")
            print("|---|---|--:|--:|--:|---|--:|")
            for name, (champion, canary) in table.items():
                for share, shares in [("5 %", STEADY)] + [("5, 20, 50 %", RAMP)] * (name in RAMPED):
                    outcomes = [
                        decided(champion, canary, shares, options.most, rng, metrics) for _ in range(options.times)
                    ]
                    print(row(name, share, outcomes), flush=True)
                    drawn[name, share] = outcomes
    if options.picture:
        steady = {name: outcomes for (name, share), outcomes in drawn.items() if share == "5 %"}
        draw(steady, options.most, options.picture)


def row(name: str, share: str, outcomes: list[Outcome]) -> str:
    counts = [sum(outcome.answer == answer for outcome in outcomes) for answer in ("GO", "NO-GO", "HOLD")]
    done = [outcome for outcome in outcomes if outcome.answer != "HOLD"]
    took = "-, -, -"
    total = "-"
    if done:
        took = ", ".join(
            f"{value:.0f}" for value in np.quantile([one.canary_sessions for one in done], [0.1, 0.5, 0.9])
        )
        total = f"{np.median([one.sessions for one in done]):.0f}"
    percents = " | ".join(f"{100 * count / len(outcomes):.0f} %" for count in counts)
    return f"| {name} | {share} | {percents} | {took} | {total} |"


def draw(outcomes: dict[str, list[Outcome]], most: int, path: Path) -> None:
    """Share of the simulations that are decided by then, one panel a canary."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(outcomes), 1, figsize=(7, 1.2 * len(outcomes) + 1), sharex=True)
    for panel, (name, of_canary) in zip(panels, outcomes.items(), strict=True):
        for answer, colour in (("GO", "#2a7f4f"), ("NO-GO", "#b3392f")):
            at = sorted(outcome.canary_sessions for outcome in of_canary if outcome.answer == answer)
            share = 100 * np.arange(1, len(at) + 1) / len(of_canary)
            panel.step([10, *at, most], [0, *share, share[-1] if at else 0], where="post", color=colour, label=answer)
        panel.set(xscale="log", ylim=(-3, 103), yticks=(0, 50, 100))
        panel.set_title(name, loc="left", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8, loc="center left")
    panels[-1].set_xlabel("canary sessions (5 % of the traffic)")
    figure.suptitle("Decided by then, % of the simulations", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
