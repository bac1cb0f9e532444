"""The canary's decision: what it says, how soon, and how seldom it is wrong."""

import itertools
import json
import math
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from canary_samples import BETTER, CHAMPION, RULES, START, look, metric, seeded, traffic
from scipy.stats import binom

from agentrl_resources.canary import CanaryRules, CanaryRun
from agentrl_resources.canary.metrics import METRICS
from agentrl_resources.canary.sessions import Sessions, compare, gather
from agentrl_resources.errors import AgentRLError
from agentrl_resources.evaluation import log_e_process
from agentrl_resources.telemetry import RunRecord, Warehouse


def test_a_better_canary_is_let_through_and_says_by_how_much() -> None:
    decision = look(traffic(seeded(), 8000, 20, BETTER))
    assert decision.answer == "GO"
    assert not decision.expired
    success = metric(decision, "success")
    assert success.estimate == pytest.approx(11, abs=6)
    assert success.threshold == -RULES.success_margin
    for each in decision.metrics:
        low, high = each.interval
        assert low <= each.estimate <= high
        assert each.answer == "GO"
        assert low > each.threshold if each.metric == "success" else high < each.threshold


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        ({"success": 0.6}, "success"),
        ({"override": 0.5}, "human_override"),
        ({"tool_error": 0.4}, "tool_error"),
        ({"ms": 2000.0}, "latency"),
        ({"cost": 0.03}, "cost_per_success"),
        ({"violation": 0.3}, "safety"),
    ],
)
def test_each_kind_of_harm_is_stopped_and_named_however_good_the_rest(harm: dict[str, float], name: str) -> None:
    rng = seeded()
    for _ in range(3):
        decision = look(traffic(rng, 5000, 10, BETTER | harm), hours=1000)
        assert decision.answer == "NO-GO"
        assert not decision.expired
        blamed = [each.metric for each in decision.metrics if each.answer == "NO-GO"]
        # Failed runs also cost, so cost per success goes with success; who is twice as slow is so in the tail as well.
        assert name in blamed
        tails = {"latency_tail", "latency_far_tail"} if name == "latency" else set()
        assert set(blamed) <= {name, "cost_per_success"} | tails
        assert metric(decision, name).reason in decision.reason


def test_a_metric_goes_when_it_is_proven_and_no_look_sooner() -> None:
    runs = traffic(seeded(), 1500, 20, BETTER)
    likely = []
    for seen in range(50, 1500, 50):
        for each in look(runs[:seen]).metrics:
            assert each.answer == ("GO" if each.e_good >= 20 else "HOLD")
            likely.append(1 < each.e_good < 20)
    assert any(likely)


def test_all_metrics_together_have_one_chance_of_a_false_alarm() -> None:
    """What would stop a canary that is judged by one metric alone is not enough among many."""
    runs = traffic(seeded(), 6000, 20, CHAMPION | {"success": 0.72, "cost": 0.005})
    alone = []
    for seen in range(20, 6000, 20):
        decision = look(runs[:seen])
        evidence = [each.e_harm for each in decision.metrics]
        assert (decision.answer == "NO-GO") == (np.mean(evidence) >= 20)
        assert any(each.answer == "NO-GO" for each in decision.metrics) == (decision.answer == "NO-GO")
        alone.append(max(evidence) >= 20 and decision.answer == "HOLD")
        if decision.answer == "NO-GO":
            break
    assert decision.answer == "NO-GO"
    assert any(alone)


def test_a_wrong_split_holds_what_would_go_and_not_what_must_stop() -> None:
    rng = seeded()

    def told_wrong(runs: list[CanaryRun]) -> list[CanaryRun]:
        return [replace(run, canary_percent=10.0) for run in runs]

    good = traffic(rng, 8000, 20, BETTER)
    assert look(good).answer == "GO"
    decision = look(told_wrong(good))
    assert decision.answer == decision.sample_ratio.answer == "HOLD"
    assert "mismatch" in decision.reason
    assert look(told_wrong(traffic(rng, 2500, 20, BETTER | {"success": 0.5}))).answer == "NO-GO"
    unsaid = look([replace(run, canary_percent=None) for run in good])
    assert unsaid.answer == "HOLD"
    assert unsaid.sample_ratio.n == 0


def test_few_sessions_wait_and_long_waits_expire() -> None:
    runs = traffic(seeded(), 8000, 20, BETTER)
    patient = CanaryRules(minimum_sessions=100_000)
    assert look(runs, patient).answer == "HOLD"
    assert not look(runs, patient, hours=71.9).expired
    assert look(runs, patient, hours=72).expired
    of_canary = look(runs).n_canary
    for limit, expired in ((of_canary, True), (of_canary + 1, False)):
        assert look(runs, replace(patient, expires_after_sessions=limit)).expired is expired
    assert not look(runs, hours=1000).expired, "what is decided does not expire"
    assert look([], hours=1000).expired


def test_a_drift_in_time_touches_both_arms() -> None:
    """The share rises while the customers become harder: pooled, an equal canary looks 20 points worse."""
    rng = seeded()
    runs: list[CanaryRun] = []
    for percent, success, ms in ((5.0, 0.95, 500.0), (20.0, 0.8, 900.0), (80.0, 0.55, 3000.0)):
        now = CHAMPION | {"success": success, "ms": ms}
        later = timedelta(seconds=len(runs))
        runs += [
            replace(run, session=f"{percent} {run.session}", started_at=run.started_at + later)
            for run in traffic(rng, 2000, percent, now, now)
        ]

    def rate(of_canary: bool) -> float:
        return float(np.mean([run.success for run in runs if run.canary == of_canary]))

    assert rate(True) < rate(False) - 0.15
    decision = look(runs)
    assert abs(metric(decision, "success").estimate) < 9
    assert abs(metric(decision, "latency").estimate) < 15
    assert decision.sample_ratio.answer == "GO"


def test_the_decision_is_plain_json() -> None:
    decision = look(traffic(seeded(), 1000, 20, BETTER | {"success": 0.2}))
    told = decision.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert {"answer", "reason", "metrics", "sample_ratio", "expired", "started_at", "decided_at"} < set(told)
    assert [each["metric"] for each in told["metrics"]] == [each.name for each in METRICS]
    assert {each["owner"] for each in told["metrics"]} == {"ml", "platform", "product"}
    assert datetime.fromisoformat(told["started_at"]) == START


def test_records_and_rows_of_the_warehouse_say_the_same(tmp_path: Path) -> None:
    rng = seeded()
    records = [
        RunRecord(
            run_id=f"r{place}",
            workflow="order_desk",
            task_id="t",
            release_channel="canary" if run.canary else "general",
            assigned_channel="canary" if run.canary else "general",
            session_key_hash=run.session if place % 7 else None,
            started_at=run.started_at.isoformat(),
            fallback=place % 11 == 0,
            trace={"failure": {"kind": "timeout"}} if place % 13 == 0 else {},
            success=run.success,
            safety_violation=run.safety_violation,
            tool_calls_count=run.tool_calls,
            tool_error_count=run.tool_errors,
            duration_ms=run.duration_ms,
            cost=run.cost,
            canary_percent=run.canary_percent,
        )
        for place, run in enumerate(traffic(rng, 300, 30, CHAMPION))
    ]
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.ingest(records)
    rows = warehouse.query("SELECT * EXCLUDE (trace), trace->>'$.failure.kind' AS failure FROM agent_runs")
    stored = [CanaryRun.from_row(row) for row in rows]
    assert look(stored).to_dict() == look([CanaryRun.from_record(record) for record in records]).to_dict()
    assert sum(run.failed for run in stored) == len({*range(0, 300, 11), *range(0, 300, 13)})
    with pytest.raises(AgentRLError, match="r1 was assigned to None"):
        CanaryRun.from_record(replace(records[1], assigned_channel=None))


# How soon, and how seldom wrong. Everything is looked at after every comparison.


def drawn(rng: np.random.Generator, n: int, share: float, canary: dict[str, float]) -> Sessions:
    arms = rng.random(n) < share

    def event(name: str) -> np.ndarray:
        return (rng.random(n) < np.where(arms, canary[name], CHAMPION[name])).astype(float)

    values = {
        "success": event("success"),
        "human_override": event("override"),
        "safety_violation": event("violation"),
        "tool_error": event("tool_error"),
        "duration_ms": np.where(arms, canary["ms"], CHAMPION["ms"]) * rng.lognormal(0, 0.4, n),
        "cost": np.where(arms, canary["cost"], CHAMPION["cost"]) * rng.lognormal(0, 0.2, n),
    }
    return Sessions(arms, np.full(n, 100 * share), values, 0, 0)


def processes(sessions: Sessions) -> tuple[np.ndarray, np.ndarray]:
    """e_good and e_harm of each metric after each comparison, in logarithms."""
    good, harm = [], []
    for each in METRICS:
        bets = each.compared(sessions).bets
        assert bets is not None
        good.append(log_e_process(bets.below(each.parameter(each.margin(RULES)))))
        harm.append(log_e_process(bets.above(each.parameter(each.harm(RULES)))))
    return np.array(good), np.array(harm)


def test_a_look_reads_the_process_where_it_stands() -> None:
    rng = seeded()
    runs = traffic(rng, 900, 30, BETTER)
    good, harm = processes(gather(runs))
    sessions = gather(runs)
    pairs = compare(sessions.canary)
    for n in rng.integers(5, pairs.n, 5):
        seen = 1 + int(max(pairs.canary[pairs.group == n - 1].max(), pairs.champion[pairs.group == n - 1].max()))
        decision = look(runs[:seen])
        assert [each.e_good for each in decision.metrics] == pytest.approx(np.exp(good[:, n - 1]))
        assert [each.e_harm for each in decision.metrics] == pytest.approx(np.exp(harm[:, n - 1]))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_an_equal_canary_is_hardly_ever_stopped(share: float) -> None:
    rng = seeded()
    stopped = []
    for _ in range(150):
        _, harm = processes(drawn(rng, int(200 / share), share, CHAMPION))
        stopped.append(np.logaddexp.reduce(harm).max() >= math.log(len(METRICS) / RULES.harm_alpha))
    assert sum(stopped) <= binom.ppf(1 - 1e-6, len(stopped), RULES.harm_alpha)


@pytest.mark.parametrize(
    ("worse", "name"),
    [
        ({"success": CHAMPION["success"] - RULES.success_margin / 100}, "success"),
        ({"override": CHAMPION["override"] + RULES.human_override_margin / 100}, "human_override"),
        ({"tool_error": CHAMPION["tool_error"] + RULES.tool_error_margin / 100}, "tool_error"),
        ({"ms": CHAMPION["ms"] * (1 + RULES.latency_percent / 100)}, "latency"),
        ({"cost": CHAMPION["cost"] * (1 + RULES.cost_margin / 100)}, "cost_per_success"),
        ({"violation": CHAMPION["violation"] + RULES.safety_margin / 100}, "safety"),
    ],
)
def test_what_is_worse_by_the_margin_is_hardly_ever_certified(worse: dict[str, float], name: str) -> None:
    rng = seeded()
    place = [each.name for each in METRICS].index(name)
    certified = []
    for _ in range(100):
        good, _ = processes(drawn(rng, 1500, 0.2, CHAMPION | worse))
        certified.append(good[place].max() >= -math.log(RULES.alpha))
    assert sum(certified) <= binom.ppf(1 - 1e-6, len(certified), RULES.alpha)


@pytest.mark.parametrize(
    ("canary", "process", "known"),
    [(0.8, "good", 612), (0.7, "harm", 124), (0.6, "harm", 43)],
)
def test_success_alone_is_decided_as_soon_as_betting_is_known_to(canary: float, process: str, known: int) -> None:
    """80 % success of the champion, 5 % of the sessions to the canary; medians of canary sessions. Published practice
    with predictable stakes takes `known`."""
    rng = seeded()
    taken = []
    for _ in range(150):
        arms = rng.random(60_000 if process == "good" else 20_000) < 0.05
        success = (rng.random(len(arms)) < np.where(arms, canary, 0.8)).astype(float)
        pairs = compare(arms)
        worse = pairs.mean(success[pairs.champion] - success[pairs.canary])
        payoffs = (0.05 - worse) / 0.95 if process == "good" else worse
        rich = np.flatnonzero(log_e_process(payoffs) >= -math.log(RULES.alpha))
        closed = rich[0] if len(rich) else pairs.n - 1
        taken.append(arms[: max(pairs.canary[pairs.group == closed])].sum() + 1)
    print(f"median {np.median(taken)}")
    assert np.median(taken) < 1.35 * known


def test_a_ramp_is_judged_by_the_shares_that_were_in_force() -> None:
    rng = seeded()
    runs: list[CanaryRun] = []
    for percent in (5.0, 20.0, 50.0):
        later = timedelta(seconds=len(runs))
        runs += [
            replace(run, session=f"{percent} {run.session}", started_at=run.started_at + later)
            for run in traffic(rng, 2500, percent, BETTER)
        ]
    decision = look(runs)
    assert decision.answer == "GO"
    assert decision.sample_ratio.expected_percent == pytest.approx(25)
    # A router that stays at a quarter of the sessions is right on average only.
    unmoved = look([replace(run, canary=place % 4 == 0) for place, run in enumerate(runs)])
    assert unmoved.sample_ratio.observed_percent == pytest.approx(25)
    assert unmoved.sample_ratio.answer == "HOLD"


def test_every_small_history_has_an_answer() -> None:
    """All traffic of up to four sessions of the two arms with either outcome: always HOLD, always plain JSON."""
    for n in range(5):
        for kinds in itertools.product([(True, True), (True, False), (False, True), (False, False)], repeat=n):
            runs = [
                CanaryRun(
                    session=str(place),
                    canary=arm,
                    started_at=START + timedelta(seconds=place),
                    success=good,
                    safety_violation=not good,
                    duration_ms=1.0,
                    cost=1.0,
                    canary_percent=50.0,
                )
                for place, (arm, good) in enumerate(kinds)
            ]
            decision = look(runs)
            assert decision.answer == "HOLD"
            assert decision.n_canary + decision.n_champion == n
            json.dumps(decision.to_dict(), allow_nan=False)
