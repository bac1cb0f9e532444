"""The bundle asks for the gates' verdicts itself, because a blocking check holds only inside its own run."""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from conftest import Command

from agentrl_assets.gates import gate_checks, gate_evidence
from agentrl_assets.release import refuse_unless_gates_pass, release_bundle
from agentrl_assets.verification import differences
from agentrl_resources.canary import due
from agentrl_resources.dagster_history import latest_build
from agentrl_resources.dagster_resources import Workspace, write_dagster_yaml
from agentrl_resources.errors import AgentRLError


@pytest.fixture
def project(built: Command) -> Workspace:
    return Workspace(home=str(built.home), workflow_file=str(built.workflow_file))


@pytest.fixture
def history(project: Workspace) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(write_dagster_yaml(project.root))) as instance:
        yield instance


def materialize(assets: list, project: Workspace, history: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(assets, instance=history, resources={"workspace": project}, raise_on_error=False)


def refusal(project: Workspace, history: dg.DagsterInstance) -> str:
    before = project.registry.pointers()
    assert not materialize([release_bundle], project, history).success
    assert project.registry.pointers() == before
    with pytest.raises(dg.Failure) as failure:
        refuse_unless_gates_pass(history, project)
    assert not failure.value.allow_retries
    return str(failure.value.description)


def rebuild(asset: str, change: Callable[[Path], None], project: Workspace, history: dg.DagsterInstance) -> None:
    """A new materialisation of an asset, made from the old artifact by a change, on the same inputs."""
    before = latest_build(history, asset)
    assert before is not None
    with project.store.stage(asset) as folder:
        shutil.copytree(project.store.get(asset, before.data_version).path, folder, dirs_exist_ok=True)
        change(folder)
        artifact = project.store.commit(asset, folder)
    inputs = {f"dagster/input_data_version/{name}": version for name, version in before.inputs.items()}
    tags = {"dagster/data_version": artifact.digest, "dagster/code_version": str(before.code_version), **inputs}
    history.report_runless_asset_event(dg.AssetMaterialization(asset, tags=tags))


def test_after_a_run_in_which_every_gate_said_go_there_is_a_release(project, history):
    assert materialize([release_bundle], project, history).success
    release = project.registry.resolve("candidate")
    assert differences(release, project) == []
    manifest = project.registry.manifest(release)
    assert {verdict["answer"] for verdict in manifest["verdicts"].values()} == {"GO"}
    pointers = project.registry.pointers()
    assert (pointers.champion, pointers.previous) == (release, manifest["rollback_target"])


def test_a_gate_that_was_never_evaluated_stops_it(built, project, history):
    text = built.workflow_file.read_text()
    other = built.workflow_file.with_name("another_gate.yaml")
    other.write_text(text.replace("latency_delta_lt_15_percent", "latency_delta_lt_50_percent"))
    stricter = Workspace(home=project.home, workflow_file=str(other))
    assert refusal(stricter, history) == "No release: gate latency_delta_lt_50_percent was never evaluated"


def test_a_gate_that_failed_stops_it(project, history):
    def unsafe(folder: Path) -> None:
        with gzip.open(folder / "episodes.jsonl.gz", "rt") as file:
            records = [json.loads(line) for line in file]
        for record in records:
            record["safety_violation"] = record["arm"] == "candidate"
        with gzip.open(folder / "episodes.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    rebuild("offline_eval_suite", unsafe, project, history)
    assert not materialize([gate_evidence, *gate_checks], project, history).success
    said = refusal(project, history)
    assert said.startswith("No release: gate no_safety_regression does not say GO. NO-GO: The candidate violates on")


def test_evidence_that_was_rebuilt_without_its_checks_stops_it(project, history):
    assert materialize([gate_evidence], project, history).success
    assert refusal(project, history) == (
        "No release: gate no_safety_regression was evaluated before the latest gate_evidence was built"
    )


@pytest.mark.parametrize(
    ("rebuilt", "user"),
    [("offline_eval_suite", "gate_evidence"), ("ppo_policy", "offline_eval_suite"), ("rubric", "raw_preference_data")],
)
def test_anything_rebuilt_after_it_was_judged_stops_it(rebuilt, user, project, history):
    rebuild(rebuilt, lambda folder: (folder / "more.txt").write_text("more"), project, history)
    said = refusal(project, history)
    assert said.startswith("No release: ")
    assert f"was made from an earlier {rebuilt}" in said


def test_a_release_of_before_does_not_make_the_next_one(project, history):
    """The same evidence judged again is the same release; the champion stays what a rollback goes back to."""
    first = project.registry.resolve("candidate")
    assert materialize([gate_evidence, *gate_checks, release_bundle], project, history).success
    assert project.registry.manifest(project.registry.resolve("candidate"))["rollback_target"] is not None
    assert project.registry.resolve("candidate") == first


def test_new_evidence_for_the_champions_policy_goes_back_where_the_champion_does(project, history):
    registry, before = project.registry, project.registry.pointers()
    rebuild("offline_eval_suite", lambda folder: (folder / "more.txt").write_text("more"), project, history)
    assert materialize([gate_evidence, *gate_checks, release_bundle], project, history).success
    candidate = registry.resolve("candidate")
    manifest = registry.manifest(candidate)
    assert (manifest["parent"], manifest["rollback_target"]) == (before.champion, before.previous)
    assert project.leads_back(candidate)
    assert due(registry) == candidate
    assert differences(candidate, project) == []


def test_one_changed_byte_is_found_and_named(project, history):
    release = project.registry.resolve("candidate")
    entry = project.registry.manifest(release)["artifacts"]["policy"]
    path = project.store.get(entry["kind"], entry["digest"]).path / "model.json"
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    assert str(path) in differences(release, project)[0]


def test_without_a_build_there_is_a_clear_message(workspace, instance):
    with pytest.raises(AgentRLError, match="rubric was never built"):
        workspace.latest(dg.build_asset_context(instance=instance), "rubric")
