"""The canary on slow runs: what is called slow, who is let through and who is not, and how seldom that is wrong."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from canary_samples import BETTER, RULES, look, metric, seeded, traffic
from scipy.stats import binom

from agentrl_resources.canary import CanaryRun, MetricDecision
from agentrl_resources.canary.metrics import METRICS
from agentrl_resources.canary.sessions import Durations, Sessions, compare, gather
from agentrl_resources.canary.tails import slower
from agentrl_resources.evaluation import FAR, log_e_process

TAILS = ("latency_tail", "latency_far_tail")
LIMIT = 1 + RULES.latency_percent / 100
Draw = Callable[[np.random.Generator, int], np.ndarray]


def timed(rng: np.random.Generator, arms: np.ndarray, canary: Draw, champion: Draw) -> Sessions:
    """Sessions of one run each of which only the duration is known."""
    ms = np.where(arms, canary(rng, len(arms)), champion(rng, len(arms)))
    return Sessions(arms, np.full(len(arms), 50.0), {"duration_ms": ms}, 0, 0)


def slow_share(share: float, factor: float = 4.0, fast: float = 1.0) -> Draw:
    """About 600 ms, of which a share takes so many times as long."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.uniform(540, 660, n) * np.where(rng.random(n) < share, factor, fast)

    return draw


def spread(sigma: float, factor: float = 1.0) -> Draw:
    return lambda rng, n: 600 * factor * rng.lognormal(0, sigma, n)


def with_durations(runs: list[CanaryRun], canary: Draw, champion: Draw, rng: np.random.Generator) -> list[CanaryRun]:
    ours, theirs = canary(rng, len(runs)), champion(rng, len(runs))
    return [
        replace(run, duration_ms=float(one if run.canary else other))
        for run, one, other in zip(runs, ours, theirs, strict=True)
    ]


def tails(runs: list[CanaryRun]) -> list[MetricDecision]:
    decision = look(runs)
    return [metric(decision, name) for name in TAILS]


# Who is let through


@pytest.mark.parametrize(
    ("canary", "champion"),
    [
        (slow_share(0), slow_share(0)),
        (slow_share(0, fast=0.7), slow_share(0)),
        (slow_share(0, fast=1.05), slow_share(0)),
        (slow_share(0.01), slow_share(0.01)),
        (slow_share(0.1), slow_share(0.1)),
        (slow_share(0), slow_share(0.3)),
        (spread(0.4), spread(0.4)),
        (lambda rng, n: np.round(spread(0.3)(rng, n), -2), lambda rng, n: np.round(spread(0.3)(rng, n), -2)),
    ],
    ids=["equal", "faster", "within", "one in a hundred", "two kinds", "without their tail", "spread", "rounded"],
)
def test_who_is_no_slower_is_let_through(canary: Draw, champion: Draw) -> None:
    rng = seeded()
    decision = look(with_durations(traffic(rng, 8000, 20, BETTER), canary, champion, rng))
    assert decision.answer == "GO", decision.reason


@pytest.mark.parametrize(
    ("canary", "champion", "answer"),
    [
        (slow_share(0.08, 6.0, 2 / 3), slow_share(0), "NO-GO"),
        (slow_share(0.04, 20.0, 0.5), slow_share(0), "HOLD"),
        (slow_share(0.06, 100.0), slow_share(0.01, 100.0), "HOLD"),  # harm is mostly proven by then, not surely
        (slow_share(0.3, 1.4, 0.8), slow_share(0), "NO-GO"),
        (spread(0.9, 0.6), spread(0.3), "HOLD"),
    ],
    ids=["92 of 100 are faster", "four in a hundred are lost", "more are lost", "a third is slower", "spreads more"],
)
def test_a_slow_tail_is_not_let_through_however_good_the_rest(canary: Draw, champion: Draw, answer: str) -> None:
    rng = seeded()
    decision = look(with_durations(traffic(rng, 8000, 20, BETTER), canary, champion, rng))
    assert decision.answer in ("NO-GO", answer)
    open_or_harmful = {each.metric for each in decision.metrics if each.answer != "GO"}
    assert open_or_harmful & set(TAILS)
    assert open_or_harmful <= {"latency", *TAILS}
    assert "tail" in decision.reason


def test_where_most_are_slower_the_better_tail_does_not_help() -> None:
    rng = seeded()
    runs = with_durations(traffic(rng, 8000, 20, BETTER), slow_share(0, fast=1.5), slow_share(0.2, 9.0), rng)
    decision = look(runs)
    assert [metric(decision, name).answer for name in TAILS] == ["GO", "GO"]
    assert decision.answer == "NO-GO"
    assert metric(decision, "latency").answer == "NO-GO"


def test_a_session_of_many_runs_does_not_hide_its_slow_one() -> None:
    """Every tenth run takes ten times as long; the sessions' means are the same."""
    rng = seeded()
    runs = []
    for run in traffic(rng, 4000, 20, BETTER):
        times = slow_share(0)(rng, 10)
        if run.canary:
            times *= np.where(np.arange(10) == 0, 10.0, 1.0) / 1.9
        runs += [
            replace(run, started_at=run.started_at + timedelta(hours=2 * n), duration_ms=float(ms))
            for n, ms in enumerate(times)
        ]
    decision = look(runs)
    assert decision.answer == "NO-GO"
    assert metric(decision, "latency_tail").estimate == pytest.approx(10, abs=1)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_what_never_ended_is_not_fast_and_no_proof_of_harm(share: float) -> None:
    rng = seeded()
    runs = [
        replace(run, duration_ms=None) if run.canary and rng.random() < share else run
        for run in traffic(rng, 8000, 20, BETTER)
    ]
    decision = look(runs)
    assert decision.answer == "HOLD"
    for name in TAILS:
        assert metric(decision, name).answer == "HOLD"
        assert metric(decision, name).e_harm < 20
        assert "no duration" in metric(decision, name).reason or share == 1
    # of the champion it only takes evidence away
    flipped = [replace(run, duration_ms=None) if not run.canary and rng.random() < 0.5 else run for run in runs[:4000]]
    assert all(each.e_harm < 20 for each in tails(flipped))


@pytest.mark.parametrize(("ms", "answer"), [(0.0, "HOLD"), (1.0, "NO-GO")])
def test_a_champion_that_is_cached_is_compared_and_one_that_is_not_timed_is_not(ms: float, answer: str) -> None:
    rng = seeded()
    runs = traffic(rng, 3000, 20, BETTER)
    runs = [run if run.canary or rng.random() < 0.02 else replace(run, duration_ms=ms) for run in runs]
    for each in tails(runs):
        assert each.answer == answer
        assert (each.interval is None) is (answer == "HOLD")


def test_nothing_is_slow_before_a_hundred_sessions_of_the_champion() -> None:
    rng = seeded()
    runs = traffic(rng, 140, 50, BETTER)
    for each in tails(runs):
        assert (each.answer, each.estimate, each.e_good, each.e_harm) == ("HOLD", None, 1.0, 1.0)
        assert "champion" in each.reason


# What is called slow


def test_what_is_called_slow_is_known_before() -> None:
    """Whatever comes later, what was won and lost until then stays."""
    rng = seeded()
    for _ in range(5):
        arms = rng.random(1200) < rng.uniform(0.1, 0.6)
        sessions = timed(rng, arms, spread(0.5), spread(0.5))
        kept = int(rng.integers(400, 1100))
        changed = sessions.values["duration_ms"].copy()
        changed[kept:] *= rng.choice([0.0, 0.01, 100.0], len(changed) - kept)
        pairs = compare(arms)
        closed = compare(arms[:kept]).n
        assert closed < pairs.n
        for times in (LIMIT, LIMIT * FAR):
            whole = slower(sessions, times)
            other = slower(replace(sessions, values={"duration_ms": changed}), times)
            early = slower(replace(sessions, canary=arms[:kept], values={"duration_ms": changed[:kept]}), times)
            assert whole is not None
            assert other is not None
            assert early is not None
            for more in (-0.1, 0.0, 0.05):
                assert whole.above(more)[:closed].tolist() == other.above(more)[:closed].tolist()
                assert whole.below(more)[:closed].tolist() == early.below(more)[:closed].tolist()


def test_neither_the_unit_nor_copies_of_a_run_matter() -> None:
    rng = seeded()
    sessions = timed(rng, rng.random(900) < 0.3, spread(0.5, 1.1), spread(0.5))
    ms = sessions.values["duration_ms"]
    copies = rng.integers(1, 6, len(ms))
    whose = rng.permutation(np.repeat(np.arange(len(ms)), copies))
    expected = slower(sessions, LIMIT)
    assert expected is not None
    for other in (
        replace(sessions, values={"duration_ms": 0.001 * ms}),
        replace(sessions, durations=Durations(np.arange(len(ms)), ms)),
        replace(sessions, durations=Durations(whose, ms[whose])),
    ):
        found = slower(other, LIMIT)
        assert found is not None
        assert found.above(0.05) == pytest.approx(expected.above(0.05), abs=1e-12)
        assert found.below(0.05) == pytest.approx(expected.below(0.05), abs=1e-12)


def test_the_difference_of_the_shares_is_the_one_it_says() -> None:
    rng = seeded()
    runs = with_durations(traffic(rng, 20_000, 40, BETTER), slow_share(0.12), slow_share(0.03), rng)
    for each in tails(runs):
        assert each.estimate == pytest.approx(9, abs=1.5)
        low, high = each.interval
        assert low < 9 < high


def test_what_slows_down_both_arms_at_once_is_nobodys_tail() -> None:
    """A busy hour, and then a quiet one in which what was slow before is fast."""
    rng = seeded()
    hours = np.repeat([1.0, 8.0, 0.2], [3000, 3000, 3000])

    def through(canary: Draw) -> list[MetricDecision]:
        runs = with_durations(traffic(rng, 9000, 20, BETTER), canary, spread(0.3), rng)
        return tails(
            [
                replace(run, duration_ms=run.duration_ms * hour if run.duration_ms else None)
                for run, hour in zip(runs, hours.tolist(), strict=True)
            ]
        )

    for each in through(spread(0.3)):
        assert each.answer == "GO"
        assert abs(each.estimate) < 2
    slow = through(lambda rng, n: spread(0.3)(rng, n) * np.where(rng.random(n) < 0.09, 6.0, 0.8))
    assert "GO" not in {each.answer for each in slow}


# How seldom it is wrong. Looked at after every comparison.


def evidence(sessions: Sessions, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The largest e_good and e_harm of a metric at any look, in logarithms."""
    found = next(each for each in METRICS if each.name == name)
    bets = found.compared(sessions).bets
    assert bets is not None
    good = log_e_process(bets.below(found.parameter(found.margin(RULES))))
    harm = log_e_process(bets.above(found.parameter(found.harm(RULES))))
    return good, harm


AT_THE_MARGIN: dict[str, tuple[str, Draw, Draw]] = {
    # beyond the limit are 5 (2.5) points more of the canary's
    "five in a hundred are slow": ("latency_tail", slow_share(0.05), slow_share(0)),
    "five more are slow": ("latency_tail", slow_share(0.09), slow_share(0.04)),
    "one in forty is very slow": ("latency_far_tail", slow_share(0.025), slow_share(0)),
    "one in forty more is very slow": ("latency_far_tail", slow_share(0.04), slow_share(0.015)),
}


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("case", AT_THE_MARGIN)
def test_a_tail_that_is_worse_by_the_margin_is_hardly_ever_let_through(case: str, share: float) -> None:
    rng = seeded()
    name, canary, champion = AT_THE_MARGIN[case]
    passed = []
    for _ in range(80):
        arms = rng.random(int(500 / share)) < share
        passed.append(evidence(timed(rng, arms, canary, champion), name)[0].max() >= -math.log(RULES.alpha))
    print(np.mean(passed))
    assert sum(passed) <= binom.ppf(1 - 1e-6, len(passed), RULES.alpha)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize(
    "champion", [slow_share(0), slow_share(0.03), spread(0.5), spread(1.2)], ids=["even", "two kinds", "spread", "wide"]
)
@pytest.mark.parametrize("factor", [1.0, LIMIT])
def test_a_canary_that_is_slower_by_what_is_allowed_is_hardly_ever_stopped_for_its_tail(
    factor: float, champion: Draw, share: float
) -> None:
    rng = seeded()
    stopped = []
    for _ in range(40):
        arms = rng.random(int(300 / share)) < share
        sessions = timed(rng, arms, lambda rng, n: factor * champion(rng, n), champion)
        stopped.append([evidence(sessions, name)[1].max() >= -math.log(RULES.harm_alpha) for name in TAILS])
    print(np.mean(stopped, axis=0))
    assert np.sum(stopped, axis=0).max() <= binom.ppf(1 - 1e-6, len(stopped), RULES.harm_alpha)


def test_slow_answers_are_stopped_and_equal_ones_are_proven_within_some_hundred_canary_sessions() -> None:
    rng = seeded()
    for canary, process, known in ((slow_share(0.08), 1, 400), (spread(0.3), 0, 400), (spread(0.5), 0, 400)):
        champion = slow_share(0) if process else canary
        taken = []
        for _ in range(20):
            arms = rng.random(16_000) < 0.05
            sessions = timed(rng, arms, canary, champion)
            logs = [evidence(sessions, name)[process] for name in TAILS]
            rich = np.flatnonzero((np.max if process else np.min)(logs, axis=0) >= math.log(20))
            pairs = compare(arms)
            closed = int(rich[0]) if len(rich) else pairs.n - 1
            taken.append(arms[: max(pairs.canary[pairs.group == closed])].sum() + 1)
        print(np.median(taken))
        assert np.median(taken) < known


def test_gathering_keeps_every_runs_duration() -> None:
    runs = traffic(seeded(), 50, 50, BETTER)
    repeated = [replace(run, started_at=run.started_at + timedelta(days=n)) for run in runs for n in range(3)]
    sessions = gather(repeated)
    assert sessions.durations is not None
    assert np.bincount(sessions.durations.session).tolist() == [3] * 50
    assert sessions.durations.ms[sessions.durations.session == 7].tolist() == [runs[7].duration_ms] * 3
