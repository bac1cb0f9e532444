"""Preference data as assets, with rows as users have them."""

import json
from pathlib import Path

import dagster as dg
import pytest

from agentrl_assets import preference_data
from agentrl_resources.dagster_history import check_answer, latest_build
from agentrl_resources.dagster_resources import Workspace
from agentrl_resources.files import read_jsonl

DATA = [preference_data.rubric, preference_data.raw_preference_data, preference_data.cleaned_preference_data]
CONSERVATION = preference_data.raw_equals_clean_plus_quarantined


def with_source(workspace: Workspace, source: str) -> Workspace:
    return Workspace(home=workspace.home, workflow_file=workspace.workflow_file, preferences=source)


def write_rows(path, count: int = 40) -> None:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"A good answer about {n} apples.", "rejected": f"No idea, {n}."}
        for n in range(count)
    ]
    lines = [json.dumps(row) for row in rows]
    lines[3] = json.dumps({"prompt": "Half?", "chosen": "Only this side."})
    lines[5] = lines[6]
    lines[-1] = lines[-1][:20]
    path.write_text("\n".join(lines))


def test_good_rows_of_a_partly_bad_file_are_kept_and_the_others_quarantined(workspace, instance, tmp_path):
    source = tmp_path / "mine.jsonl"
    write_rows(source)
    project = with_source(workspace, str(source))
    result = dg.materialize([*DATA, CONSERVATION], instance=instance, resources={"workspace": project})
    assert result.success
    report = project.find(instance, "cleaned_preference_data").report
    assert report["raw"] == 40
    assert report["by_reason"] == {"unreadable": 1, "missing_side": 1, "exact_duplicate": 1}
    table = project.warehouse.query('SELECT source, "row", reason FROM preference_quarantine ORDER BY "row"')
    assert [row["reason"] for row in table] == ["missing_side", "exact_duplicate", "unreadable"]
    assert table[0]["row"] == 4


def test_lost_rows_are_noticed(workspace, instance):
    assert dg.materialize(DATA, instance=instance, resources={"workspace": workspace}).success
    folder = workspace.find(instance, "cleaned_preference_data").path
    rows = list(read_jsonl(folder / "train.jsonl"))
    (folder / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows[1:]))
    project = dg.Definitions(DATA, asset_checks=[CONSERVATION], resources={"workspace": workspace})
    job = project.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=CONSERVATION.check_keys)
    assert not job.execute_in_process(instance=instance, raise_on_error=False).success
    checked = check_answer(instance, "cleaned_preference_data", "raw_equals_clean_plus_quarantined")
    assert checked.answer == "failed"
    assert checked.said.startswith("120 raw rows")


def test_the_same_source_is_the_same_data_version_and_another_one_is_not(workspace, instance, tmp_path):
    source = tmp_path / "mine.jsonl"
    versions = []
    for count in (30, 30, 31):
        write_rows(source, count)
        project = with_source(workspace, str(source))
        assert dg.materialize(DATA[:2], instance=instance, resources={"workspace": project}).success
        versions.append(latest_build(instance, "raw_preference_data").data_version)
        assert project.source_digest("raw_preference_data") == str(
            latest_build(instance, "raw_preference_data").metadata["source_digest"]
        )
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize("name", ["missing.jsonl", "empty.jsonl", "table.xlsx"])
def test_a_source_that_cannot_be_read_is_named(name, workspace, instance, tmp_path):
    source = tmp_path / name
    if name != "missing.jsonl":
        source.write_text("")
    project = with_source(workspace, str(source))
    result = dg.materialize(DATA[:2], instance=instance, resources={"workspace": project}, raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert str(source) in str(failure.step_failure_data.error.cause.message)


def test_a_source_in_the_workflow_file_counts_from_its_folder(workspace):
    file = Path(workspace.workflow_file)
    file.write_text(file.read_text().replace("pairs: 120", "source: data/mine.jsonl"))
    assert workspace.settings.preferences.source == str(file.parent / "data" / "mine.jsonl")


@pytest.mark.parametrize("name", ["outcome", "safety", None])
def test_a_rubric_that_does_not_say_what_decides_is_told_so_before_anything_is_trained(
    name, workspace, instance, tmp_path
):
    """One of the roles is taken away; the criteria are named otherwise than the built-in workflow's."""
    text = workspace.workflow.rubric.text.replace("  outcome:", "  resolved:").replace("  safety:", "  harmless:")
    (tmp_path / "rubric.yaml").write_text(text.replace(f"    role: {name}\n", ""))
    project = Workspace(
        home=workspace.home, workflow_file=workspace.workflow_file, rubric_file=str(tmp_path / "rubric.yaml")
    )
    assets = [preference_data.rubric, preference_data.roles_are_named]
    assert dg.materialize(assets, instance=instance, resources={"workspace": project}).success, "it blocks nothing yet"
    checked = check_answer(instance, "rubric", "roles_are_named")
    assert checked.answer == ("failed" if name else "passed")
    assert (f"No criterion has `role: {name}`" if name else "outcome: resolved. safety: harmless.") in checked.said
