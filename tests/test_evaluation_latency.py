"""The latency gate on the tail: what it lets through, what it holds, and how seldom it is wrong."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from canary_samples import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, quantile_test

from agentrl_resources.evaluation import (
    EpisodeFacts,
    Evidence,
    Pair,
    Verdict,
    judge,
    parse_gate,
    ratio_of_quantiles,
)

GATE = parse_gate("latency_delta_lt_15_percent")
Times = np.ndarray


def pairs(baseline: Times, candidate: Times, suite: str = "capability", runs_a_task: int = 1) -> list[Pair]:
    """NaN is an unknown duration. Each task has so many runs, one after the other."""

    def facts(ms: float) -> EpisodeFacts:
        return EpisodeFacts(True, False, 1.0, None if math.isnan(ms) else ms)

    return [
        Pair(f"{suite}-{number // runs_a_task}", suite, facts(before), facts(after))
        for number, (before, after) in enumerate(zip(baseline.tolist(), candidate.tolist(), strict=True))
    ]


def latency(*arms: list[Pair]) -> Verdict:
    verdict = judge(GATE, Evidence([pair for arm in arms for pair in arm]))
    json.dumps(verdict.to_dict(), allow_nan=False)
    return verdict


def even(rng: np.random.Generator, n: int) -> Times:
    """All about 600 ms."""
    return rng.uniform(540, 660, n)


def some(rng: np.random.Generator, times: Times, share: float, factor: float) -> Times:
    """The same times, of which exactly a share takes so many times as long: without luck in their number."""
    return np.where(rng.permutation(len(times)) < share * len(times), factor * times, times)


def of_the_same_mean(times: Times, as_that: Times) -> Times:
    return times * as_that.mean() / times.mean()


# What is let through, and what is not


@pytest.mark.parametrize("n", [300, 1000])
@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.05])
def test_who_is_about_as_fast_or_faster_passes(n: int, factor: float) -> None:
    rng = seeded()
    verdict = latency(pairs(even(rng, n), factor * even(rng, n)))
    assert verdict.answer == "GO", verdict.reason
    assert list(verdict.details) == ["p95", "very_slow_capability"]
    assert verdict.details["p95"]["estimate"] == pytest.approx(100 * (factor - 1), abs=3)


@pytest.mark.parametrize(
    ("share", "factor", "answer", "named"),
    [
        (0.08, 4.0, "NO-GO", "p95"),
        (0.2, 1.6, "NO-GO", "p95"),
        (0.04, 4.0, "NO-GO", "very slow"),
        (0.02, 10.0, "HOLD", "very slow"),
        (0.02, 1000.0, "HOLD", "very slow"),
    ],
)
def test_slow_answers_do_not_pass_at_the_same_mean(share: float, factor: float, answer: str, named: str) -> None:
    rng = seeded()
    before = even(rng, 1000)
    # the slow ones are drawn without luck in their number
    after = of_the_same_mean(rng.permutation(np.where(np.arange(1000) < 1000 * share, factor, 1.0) * before), before)
    verdict = latency(pairs(before, after))
    assert verdict.estimate == pytest.approx(0, abs=0.1)
    assert verdict.answer == answer
    whole = {name for name, change in verdict.details.items() if change["interval"][1] >= change["threshold"]}
    assert any(named.replace(" ", "_") in name for name in whole)
    assert named in verdict.reason.lower()


def test_a_better_tail_does_not_make_up_for_a_worse_mean() -> None:
    rng = seeded()
    before = some(rng, even(rng, 1000), 0.08, 4.0)
    after = np.full(1000, 1.3 * before.mean())
    verdict = latency(pairs(before, after))
    assert verdict.details["p95"]["interval"][1] < -20
    assert verdict.answer == "NO-GO"


def test_what_another_suite_proves_is_not_hidden_by_the_capability_tasks() -> None:
    rng = seeded()
    capability = pairs(even(rng, 1000), 0.9 * even(rng, 1000))
    before = even(rng, 300)
    assert latency(capability, pairs(before, 1.5 * before, "adversarial")).answer == "GO"
    verdict = latency(capability, pairs(before, some(rng, before, 0.1, 4.0), "adversarial"))
    assert verdict.answer == "NO-GO"
    assert "very_slow_adversarial" in verdict.details


@pytest.mark.parametrize("share", [0.03, 0.1, 0.8])
def test_what_never_ended_does_not_look_fast(share: float) -> None:
    """A candidate whose slow runs were given up without a duration is none that has no slow runs."""
    rng = seeded()
    before = even(rng, 1000)
    after = np.where(rng.permutation(1000) < 1000 * share, np.nan, 0.8 * before)
    verdict = latency(pairs(before, after))
    assert verdict.answer != "GO"
    assert f"Of {1000 * share:.0f} runs of the candidate the duration is unknown" in verdict.reason
    # of the baseline it only takes evidence away
    assert latency(pairs(after, 0.8 * before)).answer == ("GO" if share < 0.5 else "HOLD")


def test_several_runs_of_a_task_do_not_hide_the_slow_one_among_them() -> None:
    rng = seeded()
    before = even(rng, 3000)
    after = of_the_same_mean(np.where(np.arange(3000) % 10 == 0, 5.0, 1.0) * even(rng, 3000), before)
    assert latency(pairs(before, after, runs_a_task=10)).answer == "NO-GO"
    assert latency(pairs(before, even(rng, 3000), runs_a_task=10)).answer == "GO"


def test_runs_of_one_task_say_less_than_runs_of_many() -> None:
    """Tasks that differ: a tenth of the runs are slow because a tenth of the tasks are."""
    rng = seeded()
    times = some(rng, even(rng, 120), 0.1, 3.0).repeat(10) * rng.uniform(0.99, 1.01, 1200)
    other = some(rng, even(rng, 120), 0.1, 3.0).repeat(10) * rng.uniform(0.99, 1.01, 1200)
    tasks = [str(number // 10) for number in range(1200)]
    low, high = ratio_of_quantiles(times.tolist(), other.tolist(), tasks, 0.95).interval
    apart, together = ratio_of_quantiles(times.tolist(), other.tolist(), [str(n) for n in range(1200)], 0.95).interval
    assert low <= apart <= together <= high
    assert high / low > together / apart


@pytest.mark.parametrize("candidate", ["cached", "untimed", "all zero"])
@pytest.mark.parametrize("swapped", [False, True])
def test_zeros_are_no_times(candidate: str, swapped: bool) -> None:
    rng = seeded()
    before = even(rng, 500)
    after = {
        "cached": np.where(rng.permutation(500) < 450, 1.0, 4 * before),
        "untimed": np.where(rng.permutation(500) < 480, 0.0, before),
        "all zero": np.zeros(500),
    }[candidate]
    verdict = latency(pairs(after, before) if swapped else pairs(before, after))
    assert verdict.answer == ("NO-GO" if candidate == "cached" else "HOLD")


def test_rounded_times_are_as_good_as_others() -> None:
    rng, missed = seeded(), 0
    for _ in range(100):
        before, after = (np.round(rng.lognormal(0, 0.3, 1000), 1) * 1000 for _ in range(2))
        low, high = latency(pairs(before, after)).details["p95"]["interval"]
        assert low < high
        missed += not low <= 0 <= high
    assert missed <= binom.ppf(1 - 1e-6, 100, 0.05)
    assert latency(pairs(before, before)).answer == "GO"


def test_few_tasks_say_nothing_of_the_tail() -> None:
    rng = seeded()
    for n in (100, 200):
        times = even(rng, n)
        verdict = latency(pairs(times, 0.7 * times))
        assert verdict.answer == "HOLD"
        assert "evaluate more tasks" in verdict.reason


def test_a_verdict_without_anything_besides_is_stored_as_it_was() -> None:
    assert "details" not in judge(parse_gate("no_safety_regression"), Evidence()).to_dict()
    assert "details" not in judge(GATE, Evidence()).to_dict()


# What the numbers are


def intervals(verdict: Verdict) -> list[Any]:
    return [[change["estimate"], *change["interval"]] for change in verdict.details.values()]


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.5, 1000.0]))
def test_neither_unit_nor_order_of_the_tasks_matters(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.lognormal(6, 0.5, 150), rng.lognormal(6, 0.7, 150)
    expected, order = latency(pairs(before, after)), rng.permutation(150)
    scaled = latency(pairs(unit * before[order], unit * after[order]))
    assert scaled.answer == expected.answer
    assert np.array(intervals(scaled)) == pytest.approx(np.array(intervals(expected)), rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None, print_blob=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 10.0]), st.integers(1, 4))
def test_swapping_the_arms_inverts_the_ratio_and_copies_change_nothing(seed: int, step: float, copies: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (np.ceil(step * rng.lognormal(0, 0.6, 200)).tolist() for _ in range(2))
    tasks = [str(number) for number in range(200)]
    there, back = ratio_of_quantiles(first, second, tasks, 0.95), ratio_of_quantiles(second, first, tasks, 0.95)
    assert there.estimate == pytest.approx(1 / back.estimate)
    assert there.interval == pytest.approx((1 / back.interval[1], 1 / back.interval[0]))
    copied = ratio_of_quantiles(copies * first, copies * second, copies * tasks, 0.95)
    assert copied.estimate == there.estimate
    assert copied.interval == pytest.approx(there.interval)


@pytest.mark.parametrize(("n", "share"), [(100, 0.95), (300, 0.9), (1000, 0.95)])
def test_against_a_constant_it_is_the_interval_of_one_quantile(n: int, share: float) -> None:
    """SciPy has that one, by the same binomial argument."""
    values = seeded().lognormal(0, 1, n)
    tasks = [str(number) for number in range(n)]
    reference = quantile_test(values, p=share).confidence_interval(0.95)
    found = ratio_of_quantiles(values.tolist(), [1.0] * n, tasks, share)
    assert found.interval == pytest.approx((reference.low, reference.high))
    assert found.estimate == np.quantile(values, share, method="inverted_cdf")


def test_below_72_tasks_a_95th_percentile_has_no_upper_end() -> None:
    for n, known in ((71, False), (72, True)):
        times = seeded().lognormal(0, 1, n).tolist()
        high = ratio_of_quantiles(times, [1.0] * n, [str(number) for number in range(n)], 0.95).interval[1]
        assert math.isfinite(high) is known


# How seldom it is wrong, and how often right


def correlated(rng: np.random.Generator, n: int, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both arms on the same tasks, uniform between 0 and 1."""
    from scipy.special import ndtr

    common, own, others = rng.normal(size=(3, n))
    other = math.sqrt(correlation) * common
    return ndtr(other + math.sqrt(1 - correlation) * own), ndtr(other + math.sqrt(1 - correlation) * others)


def lognormal(rank: np.ndarray, sigma: float = 0.5) -> Times:
    from scipy.special import ndtri

    return np.exp(sigma * ndtri(rank))


SHAPES: dict[str, Callable[[np.ndarray], Times]] = {
    "even": lambda rank: 0.9 + 0.2 * rank,
    "log-normal": lognormal,
    "heavy": lambda rank: (1 - rank) ** (-1 / 1.5),
    "rounded": lambda rank: np.ceil(20 * lognormal(rank)) / 20,
    "two kinds": lambda rank: np.where(rank < 0.9, 0.9 + 0.2 * rank, 3.0 + 10 * (rank - 0.9)),
}


@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("n", [100, 400])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_end_of_the_interval_is_on_the_wrong_side_in_one_of_forty(shape: str, n: int, correlation: float) -> None:
    rng = seeded()
    missed = np.zeros((250, 2), dtype=bool)
    tasks = [str(number) for number in range(n)]
    for trial in missed:
        before, after = (SHAPES[shape](rank) for rank in correlated(rng, n, correlation))
        low, high = ratio_of_quantiles((1.15 * after).tolist(), before.tolist(), tasks, 0.95).interval
        trial[:] = low > 1.15 * (1 + 1e-9), high < 1.15 * (1 - 1e-9)
    print(missed.mean(axis=0))
    assert missed.sum(axis=0).max() <= binom.ppf(1 - 1e-6, len(missed), 0.025)


@pytest.mark.parametrize(("sigma", "n", "trials"), [(0.3, 300, 400), (0.5, 1000, 60)])
def test_an_equal_candidate_mostly_passes(sigma: float, n: int, trials: int) -> None:
    """Durations as spread as an agent's, a candidate that is nothing like the baseline on each single task. It passes
    in 63 % and 80 % of 500 such trials: so many trials that half of them fail by luck in less than one of a million."""
    rng = seeded()
    answers = [
        latency(pairs(*(lognormal(rank, sigma) for rank in correlated(rng, n, 0.0)))).answer for _ in range(trials)
    ]
    assert answers.count("NO-GO") <= binom.ppf(1 - 1e-6, trials, 0.05)
    assert answers.count("GO") >= trials / 2
