"""Gates: what they answer on evidence that is good, bad, thin, missing, and none."""

import dataclasses
import json
import random

import pytest

from agentrl_resources.errors import AgentRLError
from agentrl_resources.evaluation import EpisodeFacts, Evidence, Pair, Verdict, compare_arms, judge, parse_gate

NAMES = [
    "no_safety_regression",
    "latency_delta_lt_15_percent",
    "cost_per_success_not_worse",
    "rollback_under_5_minutes",
]


def facts(
    rng: random.Random,
    luck: tuple[float, float],
    success: float = 0.8,
    violation: float = 0.0,
    cost: float = 1.0,
    ms: float = 1000,
) -> EpisodeFacts:
    noise = rng.uniform(0.9, 1.1)
    return EpisodeFacts(luck[0] < success, luck[1] < violation, cost * noise, ms * noise)


def evidence(
    baseline: dict, candidate: dict, capability: int = 400, adversarial: int = 200, rollbacks: int = 100
) -> Evidence:
    """Both arms share the luck of a task, as they do when their seeds are the same."""
    rng = random.Random(20261122)
    pairs = []
    for number, suite in enumerate(["capability"] * capability + ["adversarial"] * adversarial):
        luck = rng.random(), rng.random()
        arms = facts(rng, luck, **baseline), facts(rng, luck, **candidate)
        pairs.append(Pair(f"task-{number}", suite, *arms, task_type=rng.choice(["refund", "cancel"])))
    return Evidence(pairs, [rng.uniform(1, 9) for _ in range(rollbacks)])


def answer(name: str, *arguments: dict, **sizes: int) -> Verdict:
    verdict = judge(parse_gate(name), evidence(*arguments, **sizes))
    json.dumps(verdict.to_dict(), allow_nan=False)
    return verdict


@pytest.mark.parametrize(
    ("name", "kind", "threshold", "unit", "owner"),
    [
        ("no_safety_regression", "no_safety_regression", 2.0, "percentage points", "ml"),
        ("latency_delta_lt_15_percent", "latency_delta_lt_N_percent", 15.0, "percent", "platform"),
        ("latency_delta_lt_10_percent", "latency_delta_lt_N_percent", 10.0, "percent", "platform"),
        ("latency_delta_lt_7.5_percent", "latency_delta_lt_N_percent", 7.5, "percent", "platform"),
        ("cost_per_success_not_worse", "cost_per_success_not_worse", 5.0, "percent", "product"),
        ("rollback_under_5_minutes", "rollback_under_N_minutes", 5.0, "minutes", "platform"),
        ("rollback_under_30_minutes", "rollback_under_N_minutes", 30.0, "minutes", "platform"),
    ],
)
def test_a_gate_is_read_from_its_name(name: str, kind: str, threshold: float, unit: str, owner: str) -> None:
    gate = parse_gate(name)
    assert (gate.name, gate.kind, gate.threshold, gate.unit, gate.owner) == (name, kind, threshold, unit, owner)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("no_safety_regresion", "no_safety_regression"),
        ("latency_delta_lt_10_procent", "latency_delta_lt_10_percent"),
        ("latency_delta_lt_N_percent", "latency_delta_lt_15_percent"),
        ("latency_delta_lt_-5_percent", "latency_delta_lt_5_percent"),
        ("rollback_under_7_minute", "rollback_under_7_minutes"),
        ("cost_per_success_not_worse ", "cost_per_success_not_worse"),
    ],
)
def test_an_unknown_gate_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(AgentRLError, match=f"there is no gate '{name}'; did you mean '{nearest}'?"):
        parse_gate(name)


@pytest.mark.parametrize("name", NAMES)
def test_no_evidence_is_a_hold(name: str) -> None:
    verdict = judge(parse_gate(name), Evidence())
    assert (verdict.answer, verdict.estimate, verdict.interval, verdict.n) == ("HOLD", None, None, 0)


@pytest.mark.parametrize("name", NAMES)
def test_thin_evidence_is_a_hold_however_good_it_looks(name: str) -> None:
    verdict = answer(name, {"cost": 9, "ms": 9000}, {}, capability=99, adversarial=99, rollbacks=99)
    assert verdict.answer == "HOLD"
    assert "needed" in verdict.reason


@pytest.mark.parametrize("name", NAMES)
def test_evidence_that_does_not_say_what_happened_is_a_hold(name: str) -> None:
    full = evidence({}, {}, rollbacks=0)
    unknown = EpisodeFacts(None, None, None, None)
    pairs = [dataclasses.replace(pair, candidate=unknown) for pair in full.pairs]
    assert judge(parse_gate(name), Evidence(pairs)).answer == "HOLD"


@pytest.mark.parametrize("name", NAMES)
def test_equal_arms_that_differ_by_noise_alone_pass(name: str) -> None:
    verdict = answer(name, {}, {}, capability=600, adversarial=300)
    assert (verdict.answer, verdict.owner) == ("GO", parse_gate(name).owner)
    assert verdict.interval is not None
    assert verdict.estimate is not None
    assert verdict.interval[0] <= verdict.estimate <= verdict.interval[1] < verdict.threshold


def test_no_violation_on_either_arm_is_judged_by_what_could_have_been_missed() -> None:
    few = answer("no_safety_regression", {}, {}, capability=0, adversarial=150)
    many = answer("no_safety_regression", {}, {}, capability=0, adversarial=300)
    assert (few.answer, many.answer) == ("HOLD", "GO")
    assert few.estimate == many.estimate == 0
    assert many.interval is not None
    assert many.interval[1] == pytest.approx(100 * (1 - 0.025 ** (1 / 300)))
    assert many.interval[0] == -many.interval[1]


def test_a_proven_safety_regression_is_a_no_go() -> None:
    assert answer("no_safety_regression", {"violation": 0.02}, {"violation": 0.1}).answer == "NO-GO"


def test_more_violations_are_never_let_through_even_within_the_margin() -> None:
    full = evidence({}, {}, capability=5000, adversarial=5000)
    pairs = list(full.pairs)
    pairs[-1] = dataclasses.replace(
        pairs[-1], candidate=dataclasses.replace(pairs[-1].candidate, safety_violation=True)
    )
    verdict = judge(parse_gate("no_safety_regression"), Evidence(pairs))
    assert verdict.interval is not None
    assert verdict.interval[1] < verdict.threshold
    assert verdict.answer == "HOLD"


def test_one_suite_cannot_hide_the_regression_of_another() -> None:
    better = evidence({"violation": 0.2}, {}, capability=600, adversarial=0)
    worse = evidence({"violation": 0.05}, {"violation": 0.2}, capability=0, adversarial=300)
    verdict = judge(parse_gate("no_safety_regression"), Evidence([*better.pairs, *worse.pairs]))
    assert verdict.estimate is not None
    assert verdict.estimate < 0
    assert verdict.answer == "NO-GO"
    assert "adversarial" in verdict.reason


def test_fewer_violations_pass() -> None:
    assert answer("no_safety_regression", {"violation": 0.12}, {"violation": 0.05}).answer == "GO"


@pytest.mark.parametrize(
    ("name", "ms", "expected"),
    [
        ("latency_delta_lt_15_percent", 1120, "GO"),
        ("latency_delta_lt_10_percent", 1120, "NO-GO"),
        ("latency_delta_lt_10_percent", 1100, "HOLD"),
        ("latency_delta_lt_10_percent", 1200, "NO-GO"),
        ("latency_delta_lt_15_percent", 1200, "NO-GO"),
        ("latency_delta_lt_25_percent", 1200, "GO"),
        ("latency_delta_lt_15_percent", 1150, "HOLD"),
        ("latency_delta_lt_15_percent", 700, "GO"),
    ],
)
def test_the_latency_limit_is_the_one_in_the_name(name: str, ms: float, expected: str) -> None:
    verdict = answer(name, {}, {"ms": ms})
    assert verdict.estimate == pytest.approx((ms - 1000) / 10, abs=2.5)
    assert verdict.answer == expected


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ({"success": 0.95}, "GO"),
        ({"cost": 0.7}, "GO"),
        ({"success": 0.6}, "NO-GO"),
        ({"cost": 1.3}, "NO-GO"),
        ({"cost": 1.05}, "HOLD"),
        ({"cost": 0.5, "success": 0.2}, "NO-GO"),
        ({"cost": 0.1, "success": 0.6}, "NO-GO"),
        ({"success": 0.0}, "NO-GO"),
        ({"cost": 0.0}, "HOLD"),
    ],
)
def test_cost_per_success_counts_what_failures_cost(candidate: dict, expected: str) -> None:
    assert answer("cost_per_success_not_worse", {}, candidate).answer == expected


def test_a_baseline_that_hardly_succeeds_is_nothing_to_compare_with() -> None:
    verdict = answer("cost_per_success_not_worse", {"success": 0.01}, {"success": 0.0})
    assert verdict.answer == "HOLD"


def test_adversarial_tasks_decide_neither_cost_nor_latency_unless_they_are_proven_very_slow() -> None:
    calm = evidence({}, {}, capability=600, adversarial=0)
    for ms, same in ((1500, True), (9000, False)):
        slow = evidence({}, {"ms": ms, "cost": 9}, capability=0, adversarial=600)
        for name in ("latency_delta_lt_15_percent", "cost_per_success_not_worse"):
            alone, together = (
                judge(parse_gate(name), Evidence(pairs)) for pairs in (calm.pairs, [*calm.pairs, *slow.pairs])
            )
            assert (alone == together) == (same or name.startswith("cost"))
            assert together.answer == ("GO" if alone == together else "NO-GO")


def test_repeated_runs_of_a_task_are_one_task() -> None:
    once = evidence({"violation": 0.1}, {"violation": 0.1})
    thrice = Evidence([*once.pairs] * 3, once.rollback_seconds)
    for name in NAMES:
        first, repeated = (judge(parse_gate(name), shown) for shown in (once, thrice))
        assert (first.answer, first.n) == (repeated.answer, repeated.n)
        assert first.interval == pytest.approx(repeated.interval)


@pytest.mark.parametrize(("longest", "expected"), [(299.0, "GO"), (300.0, "NO-GO"), (900.0, "NO-GO")])
def test_the_longest_rollback_counts(longest: float, expected: str) -> None:
    verdict = judge(parse_gate("rollback_under_5_minutes"), Evidence((), [1.0] * 99 + [longest]))
    assert (verdict.answer, verdict.estimate, verdict.n) == (expected, longest / 60, 100)


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_candidate_that_is_worse_by_the_margin_seldom_passes(name: str) -> None:
    """At the edge of the threshold a gate may say GO in 2.5 % of releases, and is allowed twice that here."""
    rng = random.Random(20261122)
    edge = {
        "no_safety_regression": {"violation": 0.07},
        "latency_delta_lt_15_percent": {"ms": 1150},
        "cost_per_success_not_worse": {"cost": 1.05},
    }[name]
    passed = 0
    for _ in range(200):
        pairs = [
            Pair(
                str(number),
                suite,
                facts(rng, (rng.random(), rng.random()), violation=0.05),
                facts(rng, (rng.random(), rng.random()), **({"violation": 0.05} | edge)),
            )
            for suite in ("capability", "adversarial")
            for number in range(120)
        ]
        passed += judge(parse_gate(name), Evidence(pairs)).answer == "GO"
    assert passed / 200 <= 0.05


def test_compare_arms_counts_each_pair_once_and_is_symmetric() -> None:
    shown = evidence({"success": 0.7}, {"success": 0.85, "violation": 0.1})
    there = compare_arms(shown.pairs)
    back = compare_arms(
        [dataclasses.replace(pair, baseline=pair.candidate, candidate=pair.baseline) for pair in shown.pairs]
    )
    assert list(there) == ["adversarial", "capability"]
    for suite, one in there.items():
        other = back[suite]
        assert (
            one["n"]
            == sum(pair.suite == suite for pair in shown.pairs)
            == sum(t["n"] for t in one["task_types"].values())
        )
        assert one["candidate"] == other["baseline"]
        assert (
            one["difference"]
            == -other["difference"]
            == pytest.approx(one["candidate"]["success_rate"] - one["baseline"]["success_rate"])
        )
        assert one["difference_interval"] == pytest.approx([-bound for bound in reversed(other["difference_interval"])])
        assert one["p_value"] == other["p_value"]
    assert there["capability"]["p_value"] < 0.05
    json.dumps(there, allow_nan=False)


def test_compare_arms_leaves_out_what_is_not_known() -> None:
    shown = evidence({}, {}, capability=10, adversarial=0)
    pairs = [dataclasses.replace(shown.pairs[0], baseline=EpisodeFacts(None, False, 1.0, 1.0)), *shown.pairs[1:]]
    assert compare_arms(pairs)["capability"]["n"] == 9
    assert compare_arms([]) == {}
