"""A canary from its first sessions to the end, over real HTTP with scripted policies: promoted, or failed back."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gateways import expert_policy, manifest, settings_with

from agentrl_resources.canary import CanaryRollout, Fault, FaultyBackend, rules_of, with_customers
from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway import Backend, bucket
from agentrl_resources.release import Registry
from agentrl_resources.settings import Settings
from agentrl_resources.telemetry import RunRecord, Spool
from agentrl_resources.workflow import load_workflow

WORKFLOW = load_workflow("order_desk")


def quick_settings(**canary: Any) -> Settings:
    settings = settings_with()
    return settings.model_copy(
        update={"canary": settings.canary.model_copy(update={"customers": 24, "simulated_sessions": 600, **canary})}
    )


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CanaryRollout:
    """A canary with half of the sessions; its release is no whole bundle, so nothing asks for proof of it."""
    monkeypatch.setattr(Registry, "_refuse_unproven", lambda *_, **__: None)
    registry = Registry(tmp_path / "registry")
    champion, canary = (registry.add(manifest(name)) for name in ("champion", "canary"))
    registry.swap("test", who="test", why="test", seen=registry.pointers(), champions=(champion,), canary=canary,
                  canary_percent=50.0)  # fmt: skip
    return CanaryRollout(tmp_path, quick_settings(), WORKFLOW, canary, registry)


def served(rollout: CanaryRollout, fault: Fault, champions_fault: Fault | None = None) -> dict[str, Any]:
    champion = rollout.registry.pointers().champion

    def load(channel: str, release: str, _: Any) -> Backend:
        own = champions_fault or Fault() if release == champion else fault
        return FaultyBackend(expert_policy(WORKFLOW), own, WORKFLOW)

    said: list[str] = []
    return asyncio.run(with_customers(rollout, load, 3, 100, said.append))


def test_a_good_canary_is_promoted_and_answers_everybody(begun: CanaryRollout) -> None:
    report = served(begun, Fault(), champions_fault=Fault("costly", share=0.4))
    assert (report["answer"], report["action"]) == ("GO", "promoted"), report["decision"]
    pointers = begun.registry.pointers()
    assert (pointers.champion, pointers.canary) == (begun.release, None)
    rows = begun.warehouse.query("SELECT * FROM agent_runs ORDER BY started_at")
    assert len(rows) == report["runs"] == report["statuses"]["200"]
    assert {row["release_id"] for row in rows[-50:]} == {begun.release}
    assert all(row["simulated"] for row in rows)
    assert not begun.registry.expansion.breaks()


@pytest.mark.parametrize("kind", ["wrong", "costly", "garbled"])
def test_a_bad_canary_is_failed_back_by_the_statistics(begun: CanaryRollout, kind: str) -> None:
    report = served(begun, Fault(kind))
    assert (report["answer"], report["action"]) == ("NO-GO", "failed back")
    pointers = begun.registry.pointers()
    assert pointers.canary is None
    assert pointers.champion != begun.release
    harmful = {metric["metric"] for metric in report["decision"]["metrics"] if metric["answer"] == "NO-GO"}
    assert {f"canary_{metric}" for metric in harmful} == {broken.gate for broken in begun.registry.expansion.breaks()}
    with pytest.raises(AgentRLError):
        begun.registry.promote(begun.release, who="test", why="test", seen=pointers)


def test_what_the_breaker_ended_is_a_decision_too(begun: CanaryRollout) -> None:
    report = served(begun, Fault("crashing"))
    assert report["action"] == "failed back"
    assert begun.registry.decisions(begun.release)[-1]["answer"] == "NO-GO"
    assert [broken.gate for broken in begun.registry.expansion.breaks()] == ["canary_breaker"]
    events = begun.warehouse.query("SELECT document->>'$.by' AS by_whom FROM gateway_events")
    assert [event["by_whom"] for event in events] == ["breaker"]


def records(
    rollout: CanaryRollout,
    count: int,
    success: Callable[[bool, int], bool],
    percent: float,
    told_percent: float | None = None,
) -> None:
    """Traffic in the spool as a gateway leaves it: the arm by the session's bucket."""
    spool = Spool(rollout.home / "spool")
    champion = rollout.registry.pointers().champion
    start = datetime.now(UTC) + timedelta(seconds=1)
    for number in range(count):
        canary = bucket("canary", str(number)) < 100 * percent
        won = success(canary, number)
        spool.append_run(
            RunRecord(run_id=f"run-{number}", workflow="order_desk", task_id=str(number), release_channel=_arm(canary),
                      assigned_channel=_arm(canary), served_channel=_arm(canary), session_key_hash=str(number),
                      release_id=rollout.release if canary else champion, success=won,
                      canary_percent=told_percent or percent,
                      safety_violation=False, tool_calls_count=2, tool_error_count=0,
                      duration_ms=100.0 + number % 10, cost=0.01,
                      started_at=(start + timedelta(milliseconds=number)).isoformat(), simulated=True)
        )  # fmt: skip
    spool.close()


def _arm(canary: bool) -> str:
    return "canary" if canary else "general"


def test_looking_twice_at_the_same_runs_says_the_same(begun: CanaryRollout) -> None:
    records(begun, 60, lambda canary, number: number % 5 > 0, 50.0)
    first, second = begun.look(), begun.look()
    assert first.action == second.action == "waits"
    assert first.decision["metrics"] == second.decision["metrics"]
    assert len(begun.registry.decisions(begun.release)) == 2


def test_a_canary_that_proves_nothing_expires_and_is_failed_back(begun: CanaryRollout) -> None:
    records(begun, 60, lambda canary, number: number % 5 > 0, 50.0)
    begun.rules = rules_of(begun.settings.model_copy(
        update={"canary": begun.settings.canary.model_copy(update={"expires_after_hours": 1e-9})}
    ), WORKFLOW)  # fmt: skip
    look = begun.look()
    assert (look.decision["answer"], look.decision["expired"], look.action) == ("HOLD", True, "failed back")
    assert begun.registry.pointers().canary is None


def test_a_wrong_split_holds_the_canary_where_it_is(begun: CanaryRollout) -> None:
    """The records say that half of the sessions were to go to the canary, and a fifth did."""
    records(begun, 1500, lambda canary, number: True, 20.0, told_percent=50.0)
    look = begun.look()
    assert look.decision["sample_ratio"]["answer"] == "HOLD"
    assert (look.decision["answer"], look.action) == ("HOLD", "waits")
    assert "sample-ratio mismatch" in look.decision["reason"]


def test_the_ramp_rises_with_the_sessions(begun: CanaryRollout) -> None:
    seen = begun.registry.pointers()
    begun.registry.swap("test", who="test", why="test", seen=seen, canary_percent=5.0)
    records(begun, 1100, lambda canary, number: number % 2 > 0, 5.0)
    look = begun.look()
    assert (look.action, look.percent) == ("ramped", 20.0)
    assert begun.registry.pointers().canary_percent == 20.0
    assert begun.look().action == "waits"  # not a second step on the same sessions
