"""Statistics against scipy, against published numbers, and against simulation."""

import math
import random

import pytest
from scipy.stats import binom, binomtest

from agentrl_resources.evaluation import (
    auc,
    brier,
    ece,
    mcnemar_exact,
    minimum_detectable_effect,
    paired_bootstrap,
    paired_difference,
    pass_hat_k,
    product_of_sums,
    reliability_bins,
    upper_bound,
    wilson,
)

pytestmark = pytest.mark.numeric


def seeded() -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_wilson_is_scipys_where_scipy_has_it() -> None:
    rng = seeded()
    for _ in range(200):
        n = rng.randrange(1, 500)
        successes = rng.randrange(n + 1)
        theirs = binomtest(successes, n).proportion_ci(0.9, method="wilson")
        assert wilson(successes, n, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_upper_bound_is_where_so_few_would_be_seen_one_time_in_twenty() -> None:
    rng = seeded()
    for _ in range(50):
        n = rng.randrange(1, 400)
        seen = rng.randrange(n)
        assert binom.cdf(seen, n, upper_bound(seen, n)) == pytest.approx(0.05, abs=1e-6)
    assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert upper_bound(0, 0) == upper_bound(5, 5) == 1.0


def test_mcnemar() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar_exact(10, 25) == mcnemar_exact(25, 10) == pytest.approx(2 * binom.cdf(10, 35, 0.5))


def test_a_paired_difference_turns_its_sign_with_the_arms_and_is_never_certain() -> None:
    rng = seeded()
    for _ in range(200):
        n = rng.randrange(1, 500)
        a = rng.randrange(n + 1)
        b = rng.randrange(n - a + 1)
        low, high = paired_difference(a, b, n)
        assert paired_difference(b, a, n) == pytest.approx((-high, -low))
        assert -1 <= low < high <= 1
        assert low - 2 / (n + 2) <= (a - b) / n <= high + 2 / (n + 2)


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"), [(150, 0.01, 0.01), (300, 0.08, 0.03), (600, 0.05, 0.12), (100, 0.2, 0.2)]
)
def test_a_paired_difference_covers_the_truth_and_errs_evenly(n: int, only_a: float, only_b: float) -> None:
    rng = random.Random(20261122)
    trials = 3000
    below = above = 0
    for _ in range(trials):
        draws = [rng.random() for _ in range(n)]
        a = sum(draw < only_a for draw in draws)
        b = sum(only_a <= draw < only_a + only_b for draw in draws)
        low, high = paired_difference(a, b, n)
        below += high < only_a - only_b
        above += low > only_a - only_b
    assert 1 - (below + above) / trials >= 0.93
    assert max(below, above) / trials <= 0.045


def test_a_ratio_inverts_exactly_when_its_arms_are_swapped() -> None:
    rng = seeded()
    a = [rng.lognormvariate(0, 0.5) for _ in range(120)]
    b = [value * rng.lognormvariate(0.1, 0.2) for value in a]
    forth, back = product_of_sums([(b, 1), (a, -1)]), product_of_sums([(a, 1), (b, -1)])
    assert forth.estimate == pytest.approx(sum(b) / sum(a))
    assert back.estimate == pytest.approx(1 / forth.estimate)
    assert back.interval == pytest.approx((1 / forth.interval[1], 1 / forth.interval[0]))


def test_the_ratio_interval_agrees_with_the_bootstrap() -> None:
    rng = random.Random(1)
    a = [rng.lognormvariate(0, 0.5) for _ in range(300)]
    b = [value * rng.lognormvariate(0.1, 0.3) for value in a]
    resampled = paired_bootstrap(b, a, lambda x, y, axis: x.sum(axis) / y.sum(axis), seed=1)
    assert product_of_sums([(b, 1), (a, -1)]).interval == pytest.approx(resampled, abs=0.01)
    assert paired_bootstrap(b, a, lambda x, y, axis: x.sum(axis) / y.sum(axis), seed=1) == resampled


def test_the_interval_of_cost_per_success_covers_the_truth() -> None:
    rng = random.Random(20261122)
    truth = (1.1 / 0.8) / (1.0 / 0.7)
    trials, n, hits = 1000, 150, 0
    for _ in range(trials):
        difficulty = [rng.gammavariate(2, 0.5) for _ in range(n)]
        candidate = [1.1 * d * rng.uniform(0.5, 1.5) for d in difficulty]
        baseline = [d * rng.uniform(0.5, 1.5) for d in difficulty]
        luck = [rng.random() for _ in range(n)]
        factors = [
            (candidate, 1),
            ([float(value < 0.8) for value in luck], -1),
            (baseline, -1),
            ([float(value < 0.7) for value in luck], 1),
        ]
        low, high = product_of_sums(factors).interval
        hits += low <= truth <= high
    assert 0.93 <= hits / trials <= 0.97


def test_the_minimum_detectable_effect_is_found_as_often_as_it_says() -> None:
    rng = random.Random(20261122)
    n, disagreement = 600, 0.2
    effect = minimum_detectable_effect(60, 60, n)
    trials, found = 1000, 0
    for _ in range(trials):
        draws = [rng.random() for _ in range(n)]
        a = sum(draw < (disagreement + effect) / 2 for draw in draws)
        b = sum((disagreement + effect) / 2 <= draw < disagreement for draw in draws)
        found += mcnemar_exact(a, b) < 0.05
    assert 0.75 <= found / trials <= 0.88
    assert minimum_detectable_effect(0, 0, 600) > 0


def test_pass_hat_k_is_the_share_of_draws_that_all_succeed() -> None:
    tasks = [[True, True, False, False], [True, True, True, True], [False, False, False, True]]
    assert pass_hat_k(tasks, 1) == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert pass_hat_k(tasks, 2) == pytest.approx((1 / 6 + 1 + 0) / 3)
    assert pass_hat_k(tasks, 4) == pytest.approx(1 / 3)


def test_calibration_numbers() -> None:
    rng = seeded()
    probabilities = [rng.random() for _ in range(4000)]
    outcomes = [rng.random() < p for p in probabilities]
    diagram = reliability_bins(probabilities, outcomes)
    assert sum(bin.n for bin in diagram) == 4000
    assert all(bin.low <= bin.mean_probability <= bin.high for bin in diagram)
    assert ece(probabilities, outcomes) < 0.06
    assert ece([0.9] * 10, [True] * 5 + [False] * 5) == pytest.approx(0.4)
    edges = reliability_bins([0.0, 1.0, 0.1], [False, True, False])
    assert [(bin.low, bin.n) for bin in edges] == [(0.0, 1), (0.1, 1), (0.9, 1)]
    assert brier([0.5, 0.5], [True, False]) == 0.25
    assert brier([1.0, 0.0], [True, False]) == 0.0


def test_auc_is_the_chance_that_a_positive_wins() -> None:
    rng = seeded()
    positive = [rng.randrange(10) + 0.0 for _ in range(30)]
    negative = [rng.randrange(8) + 0.0 for _ in range(40)]
    wins = math.fsum((p > q) + 0.5 * (p == q) for p in positive for q in negative)
    assert auc(positive, negative) == pytest.approx(wins / (30 * 40))
    assert auc(negative, positive) == pytest.approx(1 - auc(positive, negative))
