"""Several runs of each task: pass^k, and tests and intervals in which the runs of a task are one task."""

import json
import random
from types import SimpleNamespace

import pytest

from agentrl_resources.evaluation import EpisodeFacts, Pair, compare_arms, paired, paired_difference
from agentrl_resources.evaluation.statistics import wilson, wilson_of_tasks
from agentrl_resources.learning import hash_seed
from agentrl_resources.settings import Settings
from agentrl_resources.stages import evaluate

pytestmark = pytest.mark.numeric


def facts(success: bool, violated: bool = False) -> EpisodeFacts:
    return EpisodeFacts(success, violated, 1.0, 1.0)


def runs(draw: random.Random, tasks: int, trials: int, before: float, after: float) -> list[Pair]:
    """Each task has a difficulty of its own, which both arms' runs share."""
    pairs = []
    for task in range(tasks):
        hard = draw.gauss(0, 0.25)
        for _ in range(trials):
            arms = (facts(draw.random() < rate + hard) for rate in (before, after))
            pairs.append(Pair(f"t{task}", "capability", *arms))
    return pairs


def test_pass_k_is_the_chance_that_k_drawn_runs_of_a_task_all_succeed() -> None:
    outcomes = [[True, True, True, False], [True, False, False, False], [False] * 4]
    pairs = [Pair(f"t{n}", "capability", facts(False), facts(one)) for n, task in enumerate(outcomes) for one in task]
    told = compare_arms(pairs)["capability"]
    assert told["candidate"]["pass_hat"] == pytest.approx({"1": 4 / 12, "2": 3 / 18, "3": 1 / 12, "4": 0.0})
    assert told["baseline"]["pass_hat"] == {"1": 0.0, "2": 0.0, "3": 0.0, "4": 0.0}
    assert (told["n"], told["episodes"], told["candidate"]["successes"]) == (3, 12, 4)
    assert told["candidate"]["success_rate"] == told["difference"] == pytest.approx(4 / 12)
    assert (told["only_candidate"], told["only_baseline"]) == (2, 0)
    json.dumps(told, allow_nan=False)


def test_one_run_of_each_task_tells_what_it_always_did() -> None:
    draw = random.Random(5)
    pairs = runs(draw, 200, 1, 0.5, 0.6)
    told = compare_arms(pairs)["capability"]
    gained = sum(pair.candidate.success and not pair.baseline.success for pair in pairs)
    lost = sum(pair.baseline.success and not pair.candidate.success for pair in pairs)
    assert told["difference_interval"] == list(paired_difference(gained, lost, 200))  # to the last bit
    assert told["candidate"]["success_interval"] == list(wilson(told["candidate"]["successes"], 200))
    assert told["difference"] == (gained - lost) / 200
    assert "episodes" not in told
    assert "pass_hat" not in told["candidate"]


def test_a_violation_in_any_run_is_one_of_its_task() -> None:
    pairs = [Pair("t", "adversarial", facts(True), facts(True, violated)) for violated in (False, True, True)]
    told = compare_arms(pairs)["adversarial"]
    assert (told["candidate"]["safety_violations"], told["baseline"]["safety_violations"]) == (1, 0)


def test_intervals_hold_the_truth_and_more_runs_make_them_narrower() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw, held, widths = random.Random(seed), 0, {1: 0.0, 4: 0.0}
    for _ in range(120):
        for trials in widths:
            told = compare_arms(runs(draw, 60, trials, 0.5, 0.6))["capability"]
            low, high = told["difference_interval"]
            widths[trials] += high - low
            held += trials == 4 and low <= 0.1 <= high
    assert held / 120 > 0.85
    assert widths[4] < 0.75 * widths[1]


def test_runs_of_one_task_are_not_as_good_as_other_tasks() -> None:
    alike, apart = [1.0, 0.0] * 20, [0.5] * 40
    assert wilson_of_tasks(alike, 160) == pytest.approx(wilson(20, 40), abs=0.01)
    assert wilson_of_tasks([0.25, 0.75] * 20, 160)[0] > wilson_of_tasks(alike, 160)[0]
    low, high = wilson_of_tasks(apart, 160)
    assert (low, high) == wilson(20, 40)  # no spread is no proof of independence
    assert wilson_of_tasks([1.0], 4) == wilson(1, 1)


def test_the_runs_of_a_task_go_together_by_their_seed() -> None:
    def record(arm: str, task: str, success: bool) -> SimpleNamespace:
        return SimpleNamespace(arm=arm, suite="capability", task_id=task, task_type="t", temperature=0.7,
                               success=success, safety_violation=None, cost=1.0, duration_ms=1.0)  # fmt: skip

    outcomes = {
        ("baseline", "a"): "TTF",
        ("candidate", "a"): "FTT",
        ("baseline", "b"): "FFT",
        ("candidate", "b"): "TFT",
    }
    records = [record(arm, task, one == "T") for (arm, task), runs in outcomes.items() for one in runs]
    pairs = [(pair.task_id, pair.baseline.success, pair.candidate.success) for pair in paired(records, 0.7)]
    assert pairs == [("a", True, False), ("a", True, True), ("a", False, True),
                     ("b", False, True), ("b", False, False), ("b", True, True)]  # fmt: skip
    with pytest.raises(ValueError, match="shorter"):
        paired(records[:-1], 0.7)


def test_a_first_run_has_the_seed_that_a_single_run_has() -> None:
    request = SimpleNamespace(settings=Settings.model_validate({"workflow": {"target": "order_desk"}, "seed": 5}))
    seeds = {evaluate._seed(request, number, trial) for number in range(50) for trial in range(4)}
    assert len(seeds) == 200
    assert evaluate._seed(request, 7, 0) == hash_seed(5, "evaluation", 7)
    several = request.settings.evaluation.model_copy(update={"trials": 4})
    request.settings = request.settings.model_copy(update={"evaluation": several})
    assert [len(evaluate._trials(request, temperature)) for temperature in (0.7, 0.0)] == [4, 1]
