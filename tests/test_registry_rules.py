"""What a release has to earn before it gets traffic, and that the way back is always open."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from small_releases import GATES, GO, WHO, add_changed, promote_through_canary, release_of

from agentrl_resources.errors import AgentRLError
from agentrl_resources.release import Pointers, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


@pytest.mark.parametrize("answer", ["NO-GO", "HOLD", "go", ""])
def test_only_go_on_every_gate_goes_to_traffic(registry: Registry, answer: str) -> None:
    release = release_of(registry, "bad", **{**GO, "cost_per_success_not_worse": answer})
    with pytest.raises(AgentRLError, match=f"cost_per_success_not_worse says {answer}"):
        registry.promote(release, **WHO, seen=registry.pointers())
    assert registry.pointers() == Pointers()
    pointers = promote_through_canary(registry, release_of(registry, "baseline"))
    with pytest.raises(AgentRLError, match=f"cost_per_success_not_worse says {answer}"):
        registry.start_canary(release, 5, **WHO, seen=pointers)
    assert registry.pointers() == pointers


def test_a_gate_without_a_verdict_holds(registry: Registry) -> None:
    release = registry.add({"gates": ["safety", "cost"], "verdicts": {"safety": {"answer": "GO"}}})
    with pytest.raises(AgentRLError, match="cost says HOLD"):
        registry.promote(release, **WHO, seen=registry.pointers())


def test_only_the_first_champion_needs_no_gates_and_no_canary(registry: Registry) -> None:
    first, second = release_of(registry, "baseline"), release_of(registry, "another")
    pointers = registry.promote(first, **WHO, seen=registry.pointers())
    for refused in (
        lambda: registry.promote(second, **WHO, seen=pointers),
        lambda: registry.start_canary(second, 5, **WHO, seen=pointers),
    ):
        with pytest.raises(AgentRLError, match="no gate has judged it"):
            refused()
    assert registry.pointers() == pointers


def test_a_bundle_of_which_one_byte_has_changed_gets_no_traffic(registry: Registry) -> None:
    parts = registry.root.parent / "artifacts/part"
    champion = release_of(registry, "baseline")
    (baselines,) = parts.glob("*/weights")
    release = release_of(registry, "one", **GO)
    (weights,) = {*parts.glob("*/weights")} - {baselines}
    baselines.write_text("Baseline")
    with pytest.raises(AgentRLError, match=f"does not verify: {baselines} has changed"):
        registry.promote(champion, **WHO, seen=registry.pointers())
    baselines.write_text("baseline")
    promote_through_canary(registry, champion)
    weights.write_text("One")
    with pytest.raises(AgentRLError, match=f"does not verify: {weights} has changed"):
        registry.start_canary(release, 5, **WHO, seen=registry.pointers())
    weights.write_text("one")
    registry.start_canary(release, 5, **WHO, seen=registry.pointers())
    registry.record_decision(release, {"answer": "GO"})
    weights.write_text("One")
    with pytest.raises(AgentRLError, match=f"does not verify: {weights} has changed"):
        registry.promote(release, **WHO, seen=registry.pointers())
    assert registry.pointers().champion == champion
    assert registry.fail_back(**WHO, seen=registry.pointers()).canary is None


@pytest.mark.parametrize("percent", [0, -1, 100.01, float("nan"), float("inf")])
def test_a_share_is_a_share(registry: Registry, percent: float) -> None:
    seen = promote_through_canary(registry, release_of(registry, "baseline"))
    release = release_of(registry, "one", **GO)
    with pytest.raises(AgentRLError, match="at most 100 %"):
        registry.start_canary(release, percent, **WHO, seen=seen)
    seen = registry.start_canary(release, 5, **WHO, seen=seen)
    with pytest.raises(AgentRLError, match="at most 100 %"):
        registry.ramp(percent, **WHO, seen=seen)
    with pytest.raises(AgentRLError, match="a ramp to 5 % is refused, it only goes up"):
        registry.ramp(5, **WHO, seen=seen)


def again(registry: Registry, release: str, **changes: Any) -> str:
    """The same release with new evidence, as a bundle that goes back where that one does."""
    way_back = {"rollback_target": registry.pointers().previous}
    return add_changed(registry, {**registry.manifest(release), **way_back, **changes})


def test_a_release_with_the_champions_own_policy_needs_no_canary(registry: Registry) -> None:
    baseline, champion = release_of(registry, "baseline"), release_of(registry, "one", **GO)
    for release in (baseline, champion):
        promote_through_canary(registry, release)
    settings = registry.manifest(champion)["settings"]
    elsewhere = {**settings, "gateway": {**settings["gateway"], "canary_url": "http://127.0.0.1:8000/v1"}}
    for needs_one in (
        release_of(registry, "two", **GO),
        again(registry, champion, settings=elsewhere),
        again(registry, champion, workflow="another"),
    ):
        with pytest.raises(AgentRLError, match="it is not the canary"):
            registry.promote(needs_one, **WHO, seen=registry.pointers())
    refused = {**registry.manifest(champion)["verdicts"], GATES[0]: {"answer": "HOLD"}}
    with pytest.raises(AgentRLError, match=f"{GATES[0]} says HOLD"):
        registry.promote(again(registry, champion, verdicts=refused), **WHO, seen=registry.pointers())
    same = again(registry, champion)
    other, seen = release_of(registry, "three", **GO), registry.pointers()
    on_trial = registry.start_canary(other, 5, **WHO, seen=seen)
    with pytest.raises(AgentRLError, match="it is not the canary"):
        registry.promote(same, **WHO, seen=on_trial)
    seen = registry.fail_back(**WHO, seen=on_trial)
    with pytest.raises(AgentRLError, match="bundled to go back to"):
        registry.promote(again(registry, champion, rollback_target=champion), **WHO, seen=seen)
    after = registry.promote(same, **WHO, seen=seen)
    assert after.champions == (baseline, same), "a rollback goes to another policy"
    assert registry.rollback(**WHO, seen=after).champion == baseline
    assert registry.champions() == {baseline, champion, same}


def test_go_for_an_earlier_canary_does_not_promote_the_next_one(registry: Registry) -> None:
    promote_through_canary(registry, release_of(registry, "baseline"))
    release = release_of(registry, "one", **GO)
    registry.start_canary(release, 5, **WHO, seen=registry.pointers())
    registry.record_decision(release, {"answer": "GO"})
    registry.fail_back(**WHO, seen=registry.pointers())
    with pytest.raises(AgentRLError, match="it is not the canary"):
        registry.promote(release, **WHO, seen=registry.pointers())
    start = registry.start_canary(release, 5, **WHO, seen=registry.pointers())
    seen = registry.ramp(50, **WHO, seen=start)
    assert registry.canary_start() == start
    with pytest.raises(AgentRLError, match="the decision on its canary is not taken yet"):
        registry.promote(release, **WHO, seen=seen)
    for answer in ("GO", "HOLD"):
        registry.record_decision(release, {"answer": answer, "n_canary": 7})
    with pytest.raises(AgentRLError, match="the decision on its canary is HOLD"):
        registry.promote(release, **WHO, seen=seen)
    registry.record_decision(release, {"answer": "GO"})
    after = registry.promote(release, **WHO, seen=seen)
    assert (after.champion, after.canary, after.canary_percent) == (release, None, 0)
    assert registry.canary_start() is None
    assert [one["answer"] for one in registry.decisions(release)] == ["GO", "GO", "HOLD", "GO"]
    assert registry.decisions(release)[1]["n_canary"] == 7


def test_while_expansion_is_stopped_only_the_way_back_is_open(registry: Registry) -> None:
    first, second, third = (release_of(registry, name, **GO) for name in ("one", "two", "three"))
    promote_through_canary(registry, first)
    promote_through_canary(registry, second)

    def stop(day: int) -> None:
        for gate in GATES:
            at = datetime(2026, 11, day, tzinfo=UTC)
            registry.expansion.record_break(gate=gate, at=at, release=second, said="worse")

    stop(17)
    with pytest.raises(AgentRLError, match="stopped: cost_per_success_not_worse and no_safety_regression broke in 202"):
        registry.start_canary(third, 5, **WHO, seen=registry.pointers())
    registry.expansion.clear(who="ada", reason="a wrong price list")
    seen = registry.start_canary(third, 5, **WHO, seen=registry.pointers())
    registry.record_decision(third, {"answer": "GO"})
    stop(18)
    for refused in (partial(registry.ramp, 50), partial(registry.promote, third)):
        with pytest.raises(AgentRLError, match="Expansion is stopped"):
            refused(**WHO, seen=seen)
    assert registry.pointers() == seen
    seen = registry.fail_back(**WHO, seen=seen)
    assert registry.rollback(**WHO, seen=seen).champion == first


def test_a_canary_is_failed_back_whatever_state_the_manifests_are_in(registry: Registry) -> None:
    promote_through_canary(registry, release_of(registry, "one"))
    registry.start_canary(release_of(registry, "two", **GO), 5, **WHO, seen=registry.pointers())
    for path in registry.folder.iterdir():
        path.write_text("{}")
    assert registry.fail_back(**WHO, seen=registry.pointers()).canary is None


def test_a_decision_has_one_of_three_answers_and_a_release(registry: Registry) -> None:
    release = release_of(registry, "one")
    for decision in ({}, {"answer": "go"}, {"answer": None}):
        with pytest.raises(AgentRLError, match="GO, NO-GO, HOLD"):
            registry.record_decision(release, decision)
    with pytest.raises(AgentRLError, match="there is no release"):
        registry.record_decision("f" * 64, {"answer": "GO"})
    assert registry.decisions(release) == []


class Expanding(RuleBasedStateMachine):
    """Any steps in any order, each beside what a few lines of a model say it may do."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.registry = Registry(Path(self.folder.name) / "registry")
        self.releases = {name: release_of(self.registry, name, **GO) for name in "abc"}
        self.champions = [release_of(self.registry, "baseline")]
        self.registry.promote(self.champions[0], **WHO, seen=self.registry.pointers())
        self.canary: str | None = None
        self.percent = 0.0
        self.decided: str | None = None
        self.broken: set[str] = set()
        self.settled: set[str] = set()

    def teardown(self) -> None:
        states = list(self.registry.history())
        assert [state.revision for state in states] == list(range(len(states), 0, -1))
        self.folder.cleanup()

    def done(self, allowed: bool, act: Callable[..., Any]) -> bool:
        """Whether the step was done; a step that is not allowed is refused and changes nothing."""
        before = Registry(self.registry.root).pointers()
        if allowed:
            act(**WHO, seen=before)
            return True
        with pytest.raises(AgentRLError):
            act(**WHO, seen=before)
        assert self.registry.pointers() == before
        return False

    @property
    def open(self) -> bool:
        return len(self.broken) < 2

    @rule(name=st.sampled_from("abc"))
    def start(self, name: str) -> None:
        release = self.releases[name]
        allowed = self.open and self.canary is None and release != self.champions[-1]
        if self.done(allowed, partial(self.registry.start_canary, release, 5)):
            self.canary, self.percent, self.decided = release, 5.0, None

    @rule(percent=st.sampled_from([1.0, 5.0, 50.0, 100.0]))
    def ramp(self, percent: float) -> None:
        allowed = self.open and self.canary is not None and percent > self.percent
        if self.done(allowed, partial(self.registry.ramp, percent)):
            self.percent = percent

    @rule(name=st.sampled_from("abc"), answer=st.sampled_from(["GO", "NO-GO", "HOLD"]))
    def decide(self, name: str, answer: str) -> None:
        self.registry.record_decision(self.releases[name], {"answer": answer})
        if self.releases[name] == self.canary:
            self.decided = answer

    @rule()
    def decide_go(self) -> None:
        self.decide(next((name for name in "abc" if self.releases[name] == self.canary), "a"), "GO")

    @rule(name=st.sampled_from("abc"))
    def promote(self, name: str) -> None:
        release = self.releases[name]
        already = release == self.champions[-1]
        allowed = already or (self.open and release == self.canary and self.decided == "GO")
        if self.done(allowed, partial(self.registry.promote, release)) and not already:
            self.champions, self.canary, self.percent = [*self.champions, release], None, 0.0

    @rule()
    def fail_back(self) -> None:
        if self.done(self.canary is not None, self.registry.fail_back):
            self.canary, self.percent = None, 0.0

    @rule()
    def rollback(self) -> None:
        if self.done(len(self.champions) > 1, self.registry.rollback):
            self.champions, self.canary, self.percent = self.champions[:-1], None, 0.0

    @rule()
    def propose(self) -> None:
        assert self.done(True, partial(self.registry.propose, self.releases["a"]))

    @rule(gate=st.sampled_from(GATES))
    def break_gate(self, gate: str) -> None:
        at = datetime(2026, 11, 18, tzinfo=UTC)
        self.registry.expansion.record_break(gate=gate, at=at, release=self.releases["a"], said="worse")
        self.broken |= {gate} - self.settled

    @rule()
    def clear(self) -> None:
        if self.open:
            with pytest.raises(AgentRLError, match="nothing to clear"):
                self.registry.expansion.clear(who="ada", reason="mended")
        else:
            assert not self.registry.expansion.clear(who="ada", reason="mended").stopped
            self.settled, self.broken = self.settled | self.broken, set()

    @invariant()
    def pointers_are_as_the_model_says(self) -> None:
        now = self.registry.pointers()
        assert (now.champions, now.canary, now.canary_percent) == (tuple(self.champions), self.canary, self.percent)
        assert now.previous == (self.champions[-2] if len(self.champions) > 1 else None)
        assert self.registry.expansion.state().stopped != self.open


TestExpansionIsEarnedAndTheWayBackIsOpen = Expanding.TestCase
TestExpansionIsEarnedAndTheWayBackIsOpen.settings = settings(max_examples=50, deadline=None, print_blob=True)
