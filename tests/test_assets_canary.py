"""The canary as an asset: with a gateway beside it each materialisation is one look; the sensor asks for looks."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from conftest import Command
from small_releases import add_changed

from agentrl_assets.automation import canary_sensor
from agentrl_assets.brief import reliability_brief
from agentrl_assets.canary import a_broken_canary_is_failed_back, canary_rollout, canary_says_go
from agentrl_resources.canary import CanaryRollout, due
from agentrl_resources.dagster_resources import Training, Workspace, write_dagster_yaml
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import locked
from agentrl_resources.gateway import bucket
from agentrl_resources.release import BROKE_OFF
from agentrl_resources.telemetry import RunRecord, Spool

LATER = {"who": "test", "why": "the candidate is to be tried again"}


@pytest.fixture
def project(built: Command) -> Workspace:
    """A project whose candidate was promoted and rolled back again."""
    workspace = Workspace(home=str(built.home), workflow_file=str(built.workflow_file))
    workspace.registry.rollback(**LATER, seen=workspace.registry.pointers())
    return workspace


@pytest.fixture
def history(project: Workspace) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(write_dagster_yaml(project.root))) as instance:
        yield instance


def look(project: Workspace, history: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [canary_rollout, canary_says_go, a_broken_canary_is_failed_back],
        instance=history,
        resources={"workspace": project, "training": Training(workspace=project)},
        raise_on_error=False,
    )


def propose(project: Workspace, manifest: dict[str, Any]) -> str:
    """Makes a manifest that was changed a release and the candidate."""
    registry = project.registry
    release = add_changed(registry, manifest)
    registry.propose(release, who="test", why="it is newer", seen=registry.pointers())
    return release


def tick(project: Workspace, history: dg.DagsterInstance) -> dg.RunRequest | dg.SkipReason:
    """The sensor, once."""
    return canary_sensor(dg.build_sensor_context(instance=history), workspace=project)


def traffic(project: Workspace, count: int, canary_wins: bool) -> None:
    """What a gateway leaves: three of four champion runs succeed, and all or a third of the canary's."""
    pointers, registry = project.registry.pointers(), project.registry
    assert pointers.canary
    salt = registry.manifest(pointers.canary)["routing"]["salt"]
    spool = Spool(Path(project.root) / "spool")
    start = datetime.now(UTC) + timedelta(seconds=1)
    for number in range(count):
        session = f"{start.timestamp()}-{number}"
        canary = bucket(salt, session) < 100 * pointers.canary_percent
        arm = "canary" if canary else "general"
        won = (canary_wins or number % 3 == 0) if canary else number % 4 > 0
        spool.append_run(
            RunRecord(run_id=session, workflow="order_desk", task_id=str(number),
                      release_channel=arm, assigned_channel=arm, served_channel=arm, session_key_hash=session,
                      release_id=pointers.canary if canary else pointers.champion, success=won,
                      canary_percent=pointers.canary_percent, safety_violation=False, tool_calls_count=2,
                      tool_error_count=0, duration_ms=100.0 + number % 7, cost=0.1 if won else 5.0,
                      started_at=(start + timedelta(milliseconds=number)).isoformat())
        )  # fmt: skip
    spool.close()


def test_each_look_is_one_step_until_the_canary_is_promoted(project, history):
    candidate = project.registry.resolve("candidate")
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
        assert project.registry.pointers().canary == candidate
        for _ in range(6):
            traffic(project, 1500, canary_wins=True)
            result = look(project, history)
            assert result.success
            if project.registry.pointers().champion == candidate:
                break
    assert project.registry.pointers().champion == candidate
    said = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert said == {"canary_says_go": True, "a_broken_canary_is_failed_back": True}
    shares = [state.canary_percent for state in project.registry.history() if state.canary == candidate]
    assert shares[-1] == 5.0
    assert shares == sorted(shares, reverse=True)


def test_harm_fails_the_canary_back_and_two_broken_metrics_stop_expansion(project, history):
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
        traffic(project, 2500, canary_wins=False)
        result = look(project, history)
        assert result.success, "a canary that is failed back is a result, not a failed run"
        assert project.registry.pointers().canary is None
        said = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        assert not said["canary_says_go"]
        assert project.registry.expansion.state().gates == ("canary_cost_per_success", "canary_success")
        assert not look(project, history).success, "expansion is stopped"


def test_what_the_gateway_ended_is_judged_and_not_begun_again(project, history):
    registry, candidate = project.registry, project.registry.resolve("candidate")
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
        how = {"who": "gateway", "why": "5 failures in 9 canary answers", "action": BROKE_OFF}
        registry.fail_back(**how, seen=registry.pointers())
        assert isinstance(tick(project, history), dg.RunRequest)
        assert look(project, history).success
        assert registry.pointers().canary is None
        decision = registry.decisions(candidate)[-1]
        assert (decision["answer"], decision["reason"]) == (
            "NO-GO", "gateway ended the canary: 5 failures in 9 canary answers"
        )  # fmt: skip
        assert [broken.gate for broken in registry.expansion.breaks()] == ["canary_breaker"]
        assert isinstance(tick(project, history), dg.SkipReason)


def test_what_a_person_ended_has_broken_no_gate(project, history):
    registry, candidate = project.registry, project.registry.resolve("candidate")
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
        registry.fail_back(who="ada", why="the shop is closed", seen=registry.pointers())
        assert look(project, history).success
    assert registry.decisions(candidate)[-1]["reason"] == "ada ended the canary: the shop is closed"
    assert registry.expansion.breaks() == []


def test_a_canary_of_before_is_decided_before_the_new_candidate_has_its_turn(project, history):
    registry, older = project.registry, project.registry.resolve("candidate")
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
        newer = propose(project, {**registry.manifest(older), "seeds": {"seed": 18}})
        traffic(project, 50, canary_wins=True)
        assert look(project, history).success
        assert registry.pointers().canary == older
        assert registry.decisions(newer) == []
        registry.fail_back(who="ada", why="make room", seen=registry.pointers())
        assert look(project, history).success, "the end of the older one is judged"
        assert registry.pointers().canary is None
        assert isinstance(tick(project, history), dg.RunRequest)
        assert look(project, history).success
        assert registry.pointers().canary == newer


@pytest.mark.parametrize("served", [True, False], ids=["served", "not served"])
def test_new_evidence_for_the_champions_own_policy_is_promoted_without_a_canary(project, history, served):
    registry, champion = project.registry, project.registry.resolve("candidate")
    champions = (*registry.pointers().champions, champion)
    registry.swap("promote", **LATER, seen=registry.pointers(), champions=champions)
    newer = propose(project, {**registry.manifest(champion), "parent": champion})
    with locked(project.root / "gateway" / "lock") if served else nullcontext():
        if served:
            assert isinstance(tick(project, history), dg.RunRequest)
        result = look(project, history)
        assert result.success
        assert registry.pointers().champions == (*champions[:-1], newer), "it takes the other's place"
        assert all(check.passed for check in result.get_asset_check_evaluations())
        assert [decision["answer"] for decision in registry.decisions(newer)] == ["GO"]
        assert look(project, history).success, "and that is told as it was"
        assert len(registry.decisions(newer)) == 1
        if served:
            assert isinstance(tick(project, history), dg.SkipReason)


@pytest.mark.parametrize("how", ["promoted by hand", "never promoted"])
def test_new_evidence_for_a_policy_that_was_rolled_back_does_not_return_by_itself(project, history, how):
    registry, champion = project.registry, project.registry.resolve("candidate")
    champions = (*registry.pointers().champions, champion)
    registry.swap("promote", **LATER, seen=registry.pointers(), champions=champions)
    newer = propose(project, {**registry.manifest(champion), "parent": champion})
    if how == "promoted by hand":
        registry.promote(newer, **LATER, seen=registry.pointers())
    back = registry.rollback(**LATER, seen=registry.pointers())
    assert due(registry) is None
    rollout = CanaryRollout(project.root, project.settings, project.workflow, newer)
    with pytest.raises(AgentRLError, match="it is not its turn"):
        rollout.next_step(again=False)
    assert registry.pointers() == back
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
    assert registry.pointers().canary == newer, "a person may try it again"


def test_a_bundle_of_which_a_byte_has_changed_gets_no_canary(project, history):
    entry = project.registry.manifest(project.registry.resolve("candidate"))["artifacts"]["policy"]
    path = project.store.get(entry["kind"], entry["digest"]).path / "model.json"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    result = look(project, history)
    assert not result.success
    assert project.registry.pointers().canary is None


def test_the_sensor_asks_only_while_a_gateway_serves_a_canary_and_once_for_the_same_traffic(project, history):
    assert "no canary" in tick(project, history).skip_message
    with locked(project.root / "gateway" / "lock"):
        assert look(project, history).success
        first = tick(project, history)
        assert tick(project, history).run_key == first.run_key
        traffic(project, 3, canary_wins=True)
        assert tick(project, history).run_key != first.run_key
    assert "No gateway" in tick(project, history).skip_message


def test_the_brief_lies_in_three_languages_with_its_queries(built: Command, project, history):
    artifact = project.find(history, "reliability_brief")
    assert artifact is not None
    names = {path.name for path in artifact.path.iterdir()}
    pages = {f"brief.{locale}.{kind}" for locale in ("en-US", "en-GB", "fr-FR") for kind in ("html", "pdf")}
    assert names == pages | {"queries.json", "phases.json", "phases.txt"}
    assert reliability_brief.key == dg.AssetKey("reliability_brief")
    shown = built("phases")
    assert shown.returncode == 0
    assert "Phase 1, 30 days" in shown.stdout
    assert "NOW the release is not the champion (last change: rollback by test: " in shown.stdout
    assert "NOW expansion is open" in shown.stdout
    copied = built("brief", str(built.home / "pages"))
    assert copied.returncode == 0
    assert {path.name for path in (built.home / "pages").iterdir()} == names
