"""The interval of the weekly score: whether it covers the truth as often as it says."""

import random

import pytest

from agentrl_resources.telemetry.score import TaskTotals, score_interval


def simulate(
    rng: random.Random, tasks: int, runs: int, success: float, override: float, error: float, spread: float
) -> list[TaskTotals]:
    """Runs of one task share luck (`spread`), and a run that fails is overridden more often."""
    totals = []
    for _ in range(tasks):
        chance = success + spread * rng.choice([-1, 1])
        won = [rng.random() < chance for _ in range(runs)]
        overrides = sum(rng.random() < override * (0.5 if win else 1.5) for win in won)
        calls = sum(rng.randrange(1, 9) for _ in won)
        totals.append(TaskTotals(runs, sum(won), overrides, calls, sum(rng.random() < error for _ in range(calls))))
    return totals


@pytest.mark.parametrize(
    ("tasks", "runs", "success", "override", "error", "spread"),
    [
        (30, 4, 0.5, 0.15, 0.08, 0.3),
        (300, 1, 0.85, 0.05, 0.03, 0.0),
        (600, 1, 0.97, 0.01, 0.005, 0.0),
        (60, 10, 0.7, 0.1, 0.05, 0.25),
    ],
)
def test_the_interval_covers_the_true_score(
    tasks: int, runs: int, success: float, override: float, error: float, spread: float
) -> None:
    rng = random.Random(20261122)
    mean_override = override * (success * 0.5 + (1 - success) * 1.5)
    truth = success * (1 - mean_override) * (1 - error)
    trials = 400
    hits = 0
    for _ in range(trials):
        low, high = score_interval(simulate(rng, tasks, runs, success, override, error, spread))
        hits += low <= truth <= high
    assert 0.92 <= hits / trials <= 0.985


def test_runs_of_the_same_task_tell_less_than_runs_of_different_tasks() -> None:
    together = [TaskTotals(4, 4, 0, 8, 0)] * 10 + [TaskTotals(4, 0, 0, 8, 0)] * 10
    apart = [TaskTotals(1, 1, 0, 2, 0)] * 40 + [TaskTotals(1, 0, 0, 2, 0)] * 40
    wide, narrow = score_interval(together), score_interval(apart)
    assert wide[1] - wide[0] > 1.8 * (narrow[1] - narrow[0])


@pytest.mark.parametrize(
    ("task", "at"),
    [(TaskTotals(1, 1, 0, 2, 0), 1.0), (TaskTotals(1, 0, 0, 0, 0), 0.0), (TaskTotals(1, 1, 1, 2, 0), 0.0)],
)
@pytest.mark.parametrize("tasks", [1, 2, 50])
def test_a_week_in_which_nothing_varied_is_not_certain(task: TaskTotals, at: float, tasks: int) -> None:
    low, high = score_interval([task] * tasks)
    assert 0 <= low <= at <= high <= 1
    assert high - low > 1 / (tasks + 4)
