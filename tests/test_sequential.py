"""Anytime-valid statistics: against the formula, against the paper's own package, by enumeration, and by simulation."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from canary_samples import seeded
from scipy.stats import binom

from agentrl_resources.evaluation import (
    BernoulliEProcess,
    bets_on_mean,
    log_e_process,
    log_e_value,
    sample_ratio_e_value,
)
from agentrl_resources.evaluation.sequential import STAKES, WEIGHTS
from agentrl_resources.gateway import breaker
from agentrl_resources.gateway.breaker import Breaker, Recent

pytestmark = pytest.mark.numeric

REFERENCE = json.loads((Path(__file__).parent / "confseq_reference.json").read_text())
SAMPLES = [name for name in REFERENCE if name != "made_by"]
ALPHA = 0.05


def at_most_alpha(rejected: np.ndarray) -> None:
    """A test of level 5 % rejects so often with a chance below one in a million."""
    assert rejected.sum() <= binom.ppf(1 - 1e-6, len(rejected), ALPHA), rejected.mean()


def ever_rich(payoffs: np.ndarray) -> np.ndarray:
    """Whether 1 / alpha is reached at any look, looking after each bet."""
    return log_e_process(payoffs).max(axis=-1) >= -math.log(ALPHA)


def test_the_wealth_is_what_the_gamblers_have_together() -> None:
    payoffs = seeded().uniform(-1, 1.5, 60)
    capitals = list(WEIGHTS)
    for bet, logarithm in zip(payoffs, log_e_process(payoffs), strict=True):
        capitals = [capital * (1 + stake * bet) for capital, stake in zip(capitals, STAKES, strict=True)]
        assert math.exp(logarithm) == pytest.approx(sum(capitals))
    assert math.exp(log_e_value(payoffs)) == pytest.approx(sum(capitals))
    assert log_e_value(np.array([])) == pytest.approx(0)


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_papers_own_package_has_the_same_capital(sample: str) -> None:
    reference = REFERENCE[sample]
    bets = bets_on_mean(np.array(reference["values"]), 0, 1)
    for place, mean in enumerate(reference["null_means"]):
        assert bets.e_above(mean) == pytest.approx(reference["capital_above"][place], rel=1e-9)
        assert bets.e_below(mean) == pytest.approx(reference["capital_below"][place], rel=1e-9)


@pytest.mark.parametrize("sample", SAMPLES)
def test_intervals_are_about_as_narrow_as_the_packages(sample: str) -> None:
    """Its stakes follow the data's variance, ours are a fixed mixture."""
    reference = REFERENCE[sample]
    values = np.array(reference["values"])
    low, high = bets_on_mean(values, 0, 1).interval(ALPHA / 2)
    their_low, their_high = reference["interval"]
    assert low < values.mean() < high
    assert high - low < 1.1 * (their_high - their_low)


def test_a_fair_game_leaves_the_gambler_what_he_had() -> None:
    """Over all outcomes of eight flips, weighted by their chance: exactly 1 at the null's edge, less inside it."""
    flips = np.array(list(itertools.product([0.0, 1.0], repeat=8)))
    for rate, below in ((0.3, 0.2), (0.8, 0.5)):
        payoffs = bets_on_mean(flips, 0, 1).above(rate)
        wealth = np.exp(log_e_process(payoffs))
        for truth, expected in ((rate, pytest.approx(1)), (below, None)):
            chance = np.prod(np.where(flips == 1, truth, 1 - truth), axis=1)
            means = chance @ wealth
            assert means[-1] < 1 if expected is None else all(mean == expected for mean in means)


@pytest.mark.parametrize("kind", ["coin", "rare event", "beta", "uniform", "a gambler's enemy"])
def test_looking_after_every_observation_does_not_inflate_the_error(kind: str) -> None:
    rng = seeded()
    shape = (1000, 600)
    if kind == "a gambler's enemy":
        # The mean stays, but after a good run for the gambler come large swings and after a bad one small ones.
        uniform = rng.random(shape)
        values = np.empty(shape)
        swing = np.full(shape[0], 0.5)
        total = np.zeros(shape[0])
        for step in range(shape[1]):
            values[:, step] = np.where(uniform[:, step] < 0.5, 0.5 - swing, 0.5 + swing)
            total += values[:, step] - 0.5
            swing = np.where(total > 0, 0.5, 0.05)
        mean = 0.5
    else:
        mean, values = {
            "coin": (0.5, (rng.random(shape) < 0.5).astype(float)),
            "rare event": (0.01, (rng.random(shape) < 0.01).astype(float)),
            "beta": (0.8, rng.beta(8, 2, shape)),
            "uniform": (0.5, rng.random(shape)),
        }[kind]
    bets = bets_on_mean(values, 0, 1)
    at_most_alpha(ever_rich(bets.above(mean)))
    at_most_alpha(ever_rich(bets.below(mean)))


def test_an_interval_is_what_has_not_been_rejected_and_covers_at_all_times() -> None:
    rng = seeded()
    missed = []
    for _ in range(60):
        values = rng.beta(2, 3, 300)
        looks = [bets_on_mean(values[:n], 0, 1).interval(ALPHA) for n in range(10, 301, 29)]
        missed += [[low > 0.4 for low, _ in looks], [high < 0.4 for _, high in looks]]
        bets = bets_on_mean(values, 0, 1)
        low, high = bets.interval(ALPHA)
        assert bets.e_above(low - 1e-4) > 1 / ALPHA > bets.e_above(low + 1e-4)
        assert bets.e_below(high + 1e-4) > 1 / ALPHA > bets.e_below(high - 1e-4)
        assert bets.estimate() == pytest.approx(values.mean(), abs=1e-5)
        assert low < bets.estimate() < high
    at_most_alpha(np.any(missed, axis=1))


def test_intervals_become_narrow() -> None:
    low, high = bets_on_mean((seeded().random(20_000) < 0.8).astype(float), 0, 1).interval(ALPHA)
    assert high - low < 0.025


def test_the_order_of_the_observations_does_not_matter_in_the_end() -> None:
    rng = seeded()
    for _ in range(20):
        values = rng.normal(0, 0.4, rng.integers(1, 200)).clip(-1, 1)
        shuffled = rng.permutation(values)
        bets, others = bets_on_mean(values, -1, 1), bets_on_mean(shuffled, -1, 1)
        assert bets.e_above(0.1) == pytest.approx(others.e_above(0.1))
        assert bets.interval(ALPHA) == pytest.approx(others.interval(ALPHA), abs=1e-5)


def test_evidence_falls_as_the_claim_grows_and_turns_with_the_values() -> None:
    rng = seeded()
    for _ in range(20):
        values = rng.uniform(-1, 1, rng.integers(1, 300)) ** 3
        bets, mirrored = bets_on_mean(values, -1, 1), bets_on_mean(-values, -1, 1)
        means = np.linspace(-0.95, 0.95, 39)
        above = [bets.e_above(mean) for mean in means]
        assert above == sorted(above, reverse=True)
        assert above == pytest.approx([mirrored.e_below(-mean) for mean in means])
        low, high = bets.interval(ALPHA)
        assert (low, high) == pytest.approx(tuple(-end for end in reversed(mirrored.interval(ALPHA))), abs=1e-5)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("n", [1, 10, 50_000])
def test_constant_values_give_finite_numbers_however_many(value: float, n: int) -> None:
    bets = bets_on_mean(np.full(n, value), -1, 1)
    low, high = bets.interval(ALPHA)
    assert -1 <= low <= value + 1e-6
    assert value - 1e-6 <= high <= 1
    assert bets.estimate() == pytest.approx(value, abs=1e-5)
    for mean in (-0.9, 0.0, 0.9):
        assert 0 <= bets.e_above(mean) < math.inf
        assert 0 <= bets.e_below(mean) < math.inf
    if n == 50_000:
        assert high - low < 0.02


def run_through(process: BernoulliEProcess, events: np.ndarray) -> list[float]:
    return [process.update(bool(event)) for event in events]


@pytest.mark.parametrize("limit", [0.01, 0.2, 0.5])
def test_a_rate_at_its_limit_is_a_fair_game(limit: float) -> None:
    for truth, expected in ((limit, pytest.approx(1)), (limit / 2, None)):
        means = np.zeros(8)
        for events in itertools.product([False, True], repeat=8):
            chance = math.prod(truth if event else 1 - truth for event in events)
            means += chance * np.array(run_through(BernoulliEProcess(limit), np.array(events)))
        assert means[-1] < 1 if expected is None else all(mean == expected for mean in means)


def test_a_limit_that_changes_is_a_fair_game_too() -> None:
    """Each observation at the limit that it is held against, which may follow from the ones before it."""
    means = np.zeros(8)
    for events in itertools.product([False, True], repeat=8):
        process, limit, chance, path = BernoulliEProcess(0.05), 0.05, 1.0, []
        for event in events:
            chance *= limit if event else 1 - limit
            path.append(process.update(event, limit))
            limit = min(0.8, 2 * limit) if event else max(0.05, limit / 2)
        means += chance * np.array(path)
    assert means == pytest.approx(np.ones(8))


def answers_until_ended(rng: np.random.Generator, canary_fails: float, champion_fails: float) -> list[int]:
    """Of 200 canaries that get every tenth answer, after 50 of the champion's alone: how many each ended one gave."""
    ended = []
    for _ in range(200):
        champion = Recent()
        watching = Breaker(0.05, 0.1, champion)
        for number in range(2000):
            if number % 10 or number < 50:
                champion.update(bool(rng.random() < champion_fails))
            elif watching.update(failed=bool(rng.random() < canary_fails), violated=False, at=float(number)):
                ended.append(watching.watched["failures"].answers)
                break
    return ended


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_a_canary_is_not_ended_for_what_the_champion_suffers_as_well(rate: float) -> None:
    assert len(answers_until_ended(seeded(), rate, rate)) <= binom.ppf(1 - 1e-6, 200, breaker.ALPHA)


@pytest.mark.parametrize(("champion_fails", "within"), [(0.0, 3), (0.3, 15)])
def test_a_canary_that_always_fails_is_ended_soon_also_beside_an_ailing_champion(
    champion_fails: float, within: int
) -> None:
    answers = answers_until_ended(seeded(), 1.0, champion_fails)
    assert len(answers) == 200
    assert np.median(answers) <= within


def test_a_rate_at_its_limit_hardly_ever_trips() -> None:
    rng = seeded()
    tripped = [max(run_through(BernoulliEProcess(0.05), rng.random(1000) < 0.05)) >= 20 for _ in range(200)]
    at_most_alpha(np.array(tripped))


@pytest.mark.parametrize(("quiet", "rate", "within"), [(0, 1.0, 3), (0, 0.5, 20), (10_000, 1.0, 10), (10_000, 0.5, 60)])
def test_a_rate_that_jumps_is_found_soon_also_after_a_long_quiet_time(quiet: int, rate: float, within: int) -> None:
    rng = seeded()
    taken = []
    for _ in range(20):
        process = BernoulliEProcess(0.05)
        run_through(process, rng.random(quiet) < 0.01)
        after = run_through(process, rng.random(500) < rate)
        taken.append(next(place for place, wealth in enumerate(after, 1) if wealth >= 20))
    print(sorted(taken))
    assert np.median(taken) <= within


def test_a_breaker_keeps_its_numbers_finite() -> None:
    assert all(math.isfinite(wealth) for wealth in run_through(BernoulliEProcess(0.01), np.ones(2000)))
    assert min(run_through(BernoulliEProcess(0.01), np.zeros(20_000))) > 0


def split(rng: np.random.Generator, share: float, truth: float, n: int) -> tuple[float, int, int]:
    canary = int(rng.binomial(n, truth))
    return share, canary, n - canary


def test_a_right_split_is_a_fair_game_also_with_two_shares() -> None:
    expected = sum(
        binom.pmf(few, 12, 0.05)
        * binom.pmf(many, 9, 0.5)
        * sample_ratio_e_value([(0.05, few, 12 - few), (0.5, many, 9 - many)])
        for few in range(13)
        for many in range(10)
    )
    assert expected == pytest.approx(1)
    assert sample_ratio_e_value([]) == pytest.approx(1)


def test_a_wrong_split_is_found_in_either_direction() -> None:
    rng = seeded()
    for truth in (0.07, 0.03):
        found = [sample_ratio_e_value([split(rng, 0.05, truth, 8000)]) >= 1000 for _ in range(50)]
        assert sum(found) >= 45
    assert sample_ratio_e_value([(0.05, 400, 7600)]) < 1 < sample_ratio_e_value([(0.05, 0, 800)])
    # Too many under one share and too few under another do not make up for each other.
    assert sample_ratio_e_value([(0.05, 300, 2200), (0.5, 1000, 1500)]) >= 1000
    assert math.isfinite(sample_ratio_e_value([(0.05, 10**9, 0)]))
