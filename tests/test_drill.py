"""The drill, on real gateways with scripted policies: each failure is noticed, by the rules of a real canary."""

from functools import partial
from types import SimpleNamespace

import pytest
from gateways import WORKFLOW, expert_policy, settings_with

from agentrl_resources.canary import DrillPlan, drill, kinds_for, rules_of
from agentrl_resources.canary.drill import MIX, _in_turn, _Lane
from agentrl_resources.workflow import load_workflow


def scripted_arms():
    workflow = load_workflow("order_desk")
    return workflow, {"champion": expert_policy(workflow), "canary": expert_policy(workflow)}


def plan_in(folder, settings, injections, lanes=2, arms=scripted_arms):
    return DrillPlan(
        folder, settings, arms, injections=injections, percent=50.0, at_once=8, lanes=lanes, limit_seconds=300.0
    )


def test_every_failure_is_over_and_nobody_is_left_without_an_answer(tmp_path):
    kinds = ["crashing", "unsafe", "wrong", "garbled"]
    told = []
    report = drill(plan_in(tmp_path, settings_with(), 12), kinds, lambda done, of, said: told.append((done, of)))
    assert report["n"] == len(report["failures"]) == 12
    assert told == [(number, 12) for number in range(1, 13)]
    wanted = [kind for kind, _ in zip(_in_turn(kinds), range(12), strict=False)]
    assert {kind: report["kinds"][kind]["n"] for kind in kinds} == {kind: wanted.count(kind) for kind in kinds}
    by = {one["kind"]: one["by"] for one in report["failures"]}
    assert by["crashing"] == by["unsafe"] == "breaker"
    for one in report["failures"]:
        parts = [one[f"{part}_seconds"] for part in ("detected", "decided", "swapped", "drained")]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(one["total_seconds"])
    assert set(report["statuses"]) == {"200"}
    assert report["success_before"]["rate"] == report["success_after"]["rate"] == 1.0
    assert report["success_during"]["rate"] < 1.0
    assert report["gateways"] == 2


@pytest.mark.parametrize("percent", [5, 30])
def test_the_drill_judges_by_the_canarys_own_rules(tmp_path, percent):
    settings = settings_with()
    gates = (f"latency_delta_lt_{percent}_percent", "rollback_under_5_minutes")
    settings = settings.model_copy(update={"release": settings.release.model_copy(update={"gates": gates})})
    blind = load_workflow("order_desk")
    blind.judges_traffic = False
    lane = _Lane(plan_in(tmp_path, settings, 1), blind, {}, 0)
    assert lane.rules == rules_of(settings, blind)
    assert (lane.rules.latency_percent, lane.rules.outcomes_at_once) == (percent, False)


def test_only_what_can_be_noticed_at_once_is_injected():
    assert kinds_for(WORKFLOW, 1) == list(MIX)

    def like(judges_traffic, agents):
        return SimpleNamespace(
            judges_traffic=judges_traffic,
            tasks=WORKFLOW.tasks,
            scripted_agents=lambda task: dict.fromkeys(agents),
        )

    assert "unsafe" not in kinds_for(like(True, ["expert", "does_nothing"]), 1)
    assert kinds_for(like(False, ["expert", "does_nothing", "harmful"]), 1) == ["crashing", "garbled", "hanging"]


def test_kinds_take_turns_as_often_as_the_mix_wants():
    hundred = [kind for kind, _ in zip(_in_turn(list(MIX)), range(100), strict=False)]
    assert {kind: hundred.count(kind) for kind in MIX} == MIX


def no_model():
    raise RuntimeError("the weights cannot be read")


@pytest.mark.parametrize("arms", [no_model, partial(no_model)])
def test_a_policy_that_cannot_be_loaded_is_one_error(tmp_path, arms):
    from agentrl_resources.errors import AgentRLError

    with pytest.raises((AgentRLError, RuntimeError), match="the weights cannot be read"):
        drill(plan_in(tmp_path, settings_with(), 2, lanes=2, arms=arms), list(MIX), lambda *_: None)
