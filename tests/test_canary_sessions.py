"""What the canary's statistics compare with what, and what counts as what."""

import json
import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from canary_samples import BETTER, CHAMPION, START, look, metric, seeded, traffic

from agentrl_resources.canary import CanaryRules, CanaryRun
from agentrl_resources.canary.sessions import compare, gather


def test_comparisons_are_disjoint_and_have_one_session_of_one_arm_and_a_row_of_the_other() -> None:
    rng = seeded()
    for share in (0.05, 0.5, 0.9):
        arms = rng.random(300) < share
        pairs = compare(arms)
        # The rule, word for word.
        expected: list[list[int]] = []
        opened: list[int] = []
        for position, arm in enumerate(arms):
            opened.append(position)
            if arm != arms[opened[0]]:
                expected.append(opened)
                opened = []
        found = [sorted({*pairs.canary[pairs.group == n], *pairs.champion[pairs.group == n]}) for n in range(pairs.n)]
        assert found == expected
        assert arms[pairs.canary].all()
        assert not arms[pairs.champion].any()
        values = rng.random(300)
        for n, group in enumerate(expected):
            difference = values[group][arms[group]].mean() - values[group][~arms[group]].mean()
            assert pairs.mean(values[pairs.canary] - values[pairs.champion])[n] == pytest.approx(difference)


@pytest.mark.parametrize("arms", [[], [True], [False] * 5, [True] * 5])
def test_one_arm_alone_is_never_compared(arms: list[bool]) -> None:
    assert compare(np.array(arms, dtype=bool)).n == 0


def test_swapping_the_arms_mirrors_the_evidence() -> None:
    runs = traffic(seeded(), 600, 50, BETTER)
    swapped = [replace(run, canary=not run.canary) for run in runs]
    forth, back = look(runs), look(swapped)
    for name in ("success", "human_override", "tool_error", "safety"):
        ours, theirs = metric(forth, name), metric(back, name)
        assert ours.estimate == pytest.approx(-theirs.estimate, abs=1e-3)
        assert ours.interval == pytest.approx((-theirs.interval[1], -theirs.interval[0]), abs=1e-3)
    for name in ("latency", "cost_per_success"):
        ours, theirs = metric(forth, name), metric(back, name)
        # Costs are cut by what the champion's were, so they mirror only nearly.
        assert 1 + ours.estimate / 100 == pytest.approx(1 / (1 + theirs.estimate / 100), rel=0.05)


def test_the_order_in_which_runs_are_given_does_not_matter() -> None:
    rng = seeded()
    runs = traffic(rng, 800, 20, BETTER)
    shuffled = [runs[place] for place in rng.permutation(len(runs))]
    assert look(runs).to_dict() == look(shuffled).to_dict()


def test_a_session_counts_once_however_many_runs_it_has() -> None:
    runs = traffic(seeded(), 500, 20, BETTER)
    repeated = [replace(run, started_at=run.started_at + timedelta(days=n)) for run in runs for n in range(5)]
    once, often = look(runs), look(repeated)
    assert often.n_canary == once.n_canary
    for ours, theirs in zip(once.metrics, often.metrics, strict=True):
        assert theirs.e_good == pytest.approx(ours.e_good)
        assert theirs.e_harm == pytest.approx(ours.e_harm)


def test_a_sessions_value_is_the_mean_over_its_runs_that_are_known() -> None:
    def run(session: str, **values: Any) -> CanaryRun:
        return CanaryRun(session=session, canary=True, started_at=START, **values)

    sessions = gather(
        [
            run("a", success=True, tool_calls=4, tool_errors=1, cost=1.0),
            run("a", success=None, tool_calls=0, cost=3.0),
            run("a", success=False, duration_ms=5.0),
            run("b", human_override=True),
        ]
    )
    assert sessions.values["success"].tolist() == [0.5, pytest.approx(math.nan, nan_ok=True)]
    assert sessions.values["tool_error"].tolist() == pytest.approx([1 / 12, 0])
    assert sessions.values["cost"].tolist() == [2.0, pytest.approx(math.nan, nan_ok=True)]
    assert sessions.values["duration_ms"][0] == 5.0
    assert sessions.values["human_override"].tolist() == [0, 1]
    assert np.isnan(sessions.values["safety_violation"]).all()
    assert sessions.unlabelled == 2


def test_a_session_belongs_to_the_arm_in_which_it_began() -> None:
    runs = traffic(seeded(), 300, 20, BETTER)
    moved = [
        replace(run, canary=True, success=False, started_at=run.started_at + timedelta(days=1), canary_percent=50.0)
        for run in runs
        if not run.canary
    ]
    before, after = look(runs).to_dict(), look(runs + moved).to_dict()
    assert after.pop("switched") == len(moved)
    assert before.pop("switched") == 0
    assert after == before


def test_runs_from_before_the_canary_do_not_count() -> None:
    runs = traffic(seeded(), 300, 20, BETTER)
    early = [replace(run, session=f"early {run.session}", started_at=START - timedelta(seconds=1)) for run in runs]
    assert look(early + runs).to_dict() == look(runs).to_dict()


# What counts as what


def test_a_fallback_or_failure_counts_against_the_arm_that_was_assigned() -> None:
    runs = traffic(seeded(), 1000, 20, CHAMPION)
    rescued = [replace(run, failed=True, success=True) if run.canary else run for run in runs]
    failed = [replace(run, success=False) if run.canary else run for run in runs]
    unknown = [replace(run, failed=True, success=None) if run.canary else run for run in runs]
    assert look(rescued).to_dict() == look(failed).to_dict() == look(unknown).to_dict()
    assert look(rescued).answer == "NO-GO"
    assert metric(look(rescued), "success").answer == "NO-GO"
    champions = [run if run.canary else replace(run, failed=True) for run in runs[:100]] + runs[100:]
    assert metric(look(champions), "success").estimate > metric(look(runs), "success").estimate


def test_where_outcomes_come_late_failures_do_not_come_before_them() -> None:
    """Of the same success rate, with a tenth labelled: an arm that fails now and then looks no worse than it is."""
    rng = seeded()
    runs = []
    for run in traffic(rng, 6000, 50, CHAMPION):
        # as the gateway writes them: a canary's failure is answered by the champion, a champion's by nobody
        failed, labelled = rng.random() < 0.05, rng.random() < 0.1
        told = run.success if labelled and not failed else False if labelled or (failed and not run.canary) else None
        runs.append(replace(run, failed=failed, success=told, labelled=labelled))
    labelled = gather([run for run in runs if run.labelled])
    late, at_once = gather(runs, outcomes_at_once=False), gather(runs)
    for arm in (True, False):
        expected = labelled.values["success"][labelled.canary == arm].mean()
        assert np.nanmean(late.values["success"][late.canary == arm]) == pytest.approx(expected)
    for arm in (True, False):
        true = labelled.values["success"][labelled.canary == arm].mean()
        assert np.nanmean(at_once.values["success"][at_once.canary == arm]) < true - 0.05


def test_unknown_outcomes_wait_and_late_ones_change_the_next_look() -> None:
    rng = seeded()
    runs = traffic(rng, 1000, 20, BETTER)
    hidden = [replace(run, success=None) if rng.random() < 0.5 else run for run in runs]
    first, second = look(hidden), look(runs)
    assert first.unlabelled == sum(run.success is None for run in hidden)
    assert second.unlabelled == 0
    assert metric(first, "success").n_canary < metric(second, "success").n_canary == second.n_canary
    known = [run for run in hidden if run.success is not None]
    assert metric(first, "success") == metric(look(known), "success")
    assert metric(first, "latency") == metric(second, "latency")


def test_without_labels_failures_alone_do_not_prove_that_the_success_is_the_same() -> None:
    rng = seeded()
    runs = [
        replace(run, success=None, failed=bool(rng.random() < (0.3 if run.canary else 0.1)))
        for run in traffic(rng, 3000, 20, CHAMPION)
    ]
    success = metric(look(runs), "success")
    assert success.answer == "HOLD"
    assert success.e_good == 1
    assert success.interval is None


@pytest.mark.parametrize(
    ("field", "name"),
    [("success", "success"), ("safety_violation", "safety"), ("duration_ms", "latency"), ("cost", "cost_per_success")],
)
def test_a_metric_that_nobody_measures_is_hold_and_holds_the_whole(field: str, name: str) -> None:
    decision = look([replace(run, **{field: None}) for run in traffic(seeded(), 4000, 20, BETTER)])
    assert decision.answer == "HOLD"
    assert name in decision.reason
    missing = metric(decision, name)
    assert (missing.answer, missing.estimate, missing.interval) == ("HOLD", None, None)
    others = [other.answer for other in decision.metrics if other.estimate is not None]
    assert set(others) == {"GO"}


def test_no_traffic_at_all_or_in_one_arm_is_hold() -> None:
    runs = traffic(seeded(), 200, 50, BETTER)
    canary = [run for run in runs if run.canary]
    champion = [run for run in runs if not run.canary]
    for seen in ([], canary, champion):
        decision = look(seen)
        assert decision.answer == "HOLD"
        assert {each.answer for each in decision.metrics} == {"HOLD"}
        assert {each.interval for each in decision.metrics} == {None}
        json.dumps(decision.to_dict(), allow_nan=False)


def test_prices_of_zero_are_no_prices() -> None:
    runs = traffic(seeded(), 2000, 20, BETTER)
    for unpriced in (True, False):
        cost = metric(
            look([replace(run, cost=0.0) if run.canary is unpriced else run for run in runs]), "cost_per_success"
        )
        assert cost.answer == "HOLD"
        assert "priced" in cost.reason


def test_ties_in_latency_say_nothing_at_the_limit_itself() -> None:
    runs = [replace(run, duration_ms=1000.0) for run in traffic(seeded(), 1500, 20, BETTER)]
    same = metric(look(runs), "latency")
    assert same.answer == "GO"
    assert same.estimate == pytest.approx(0, abs=0.01)
    at_limit = [replace(run, duration_ms=2000.0) if run.canary else run for run in runs]
    tied = metric(look(at_limit, CanaryRules(latency_percent=100.0)), "latency")
    assert tied.e_good == tied.e_harm == pytest.approx(1)
    assert metric(look(at_limit, CanaryRules(latency_percent=99.0)), "latency").answer == "NO-GO"
    assert metric(look(at_limit, CanaryRules(latency_percent=101.0)), "latency").answer == "GO"


def test_costs_beyond_the_cut_do_not_slip_through() -> None:
    """One run in 100 that costs 100 times as much is twice the cost, of which the cut leaves next to nothing."""
    rng = seeded()
    runs = [
        replace(run, cost=100 * run.cost) if run.canary and rng.random() < 0.01 else run
        for run in traffic(rng, 4000, 50, CHAMPION | {"success": 0.95})
    ]
    cost = metric(look(runs), "cost_per_success")
    assert cost.e_good >= 20
    assert cost.answer == "HOLD"
    assert "cut" in cost.reason


def test_cost_per_success_is_the_ratio_it_says() -> None:
    runs = traffic(seeded(), 12_000, 30, BETTER)
    estimate = metric(look(runs), "cost_per_success").estimate

    def price(of_canary: bool) -> float:
        arm = [run for run in runs if run.canary == of_canary]
        return sum(run.cost for run in arm) / sum(run.success for run in arm)

    assert estimate == pytest.approx(100 * (price(True) / price(False) - 1), abs=3)
