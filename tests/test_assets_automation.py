"""The weekly schedule and the rubric sensor."""

import json
from datetime import UTC, datetime

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl_assets.automation import rubric_sensor, weekly_reliability_schedule
from agentrl_assets.preference_data import rubric
from agentrl_assets.reliability import WEEKS, iso_week, partition_of
from agentrl_resources.dagster_resources import Workspace

RUBRIC = "version: '{version}'\ncriteria:\n  outcome: {{weight: {weight}, wording: The task is done.}}\n"


@pytest.mark.parametrize(
    ("tick", "partition", "week"),
    [
        ("2026-11-23", "2026-11-16", "2026-W47"),
        ("2027-01-04", "2026-12-28", "2026-W53"),  # the ISO year is not the calendar year
        ("2027-01-11", "2027-01-04", "2027-W01"),
    ],
)
def test_on_monday_the_week_before_is_scored(tick, partition, week):
    at = datetime.fromisoformat(f"{tick}T06:00:00+00:00")
    request = weekly_reliability_schedule(dg.build_schedule_context(scheduled_execution_time=at))
    assert request.partition_key == partition
    assert request.tags["week"] == week


@given(st.integers(0, 600))
def test_each_partition_is_one_iso_week(number):
    key = WEEKS.get_partition_keys(current_time=datetime(2036, 1, 1, tzinfo=UTC))[number]
    assert partition_of(iso_week(key)) == key
    assert datetime.fromisoformat(key).isoweekday() == 1


def test_the_present_week_has_a_partition():
    assert WEEKS.get_partition_keys(current_time=datetime(2026, 11, 18, tzinfo=UTC))[-1] == "2026-11-16"


def test_the_sensor_asks_whenever_the_rubric_changes_also_when_it_changes_back(workspace, instance, tmp_path):
    file = tmp_path / "rubric.yaml"
    watched = Workspace(home=workspace.home, workflow_file=workspace.workflow_file, rubric_file=str(file))
    cursor = None

    def tick(weight: int) -> dg.SensorResult:
        nonlocal cursor
        file.write_text(RUBRIC.format(version=f"w{weight}", weight=weight))
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        result = rubric_sensor(context, workspace=watched)
        cursor = result.cursor
        return result

    first = tick(5)
    assert not first.run_requests, "there is nothing to retrain before the first change"
    assert "still version w5" in str(first.skip_reason.skip_message)
    keys = []
    for weight, version in ((6, "w6"), (5, "w5"), (6, "w6")):
        (request,) = tick(weight).run_requests
        keys.append(request.run_key)
        assert f"(version {version})" in request.tags["agentrl/reason"]
        assert not tick(weight).run_requests, "one change asks once"
    assert len(set(keys)) == 3, "Dagster ignores a run key that it has seen"
    assert json.loads(cursor)["changes"] == 3


def test_the_sensor_notices_a_change_from_what_was_built_before_its_first_tick(workspace, instance, tmp_path):
    assert dg.materialize([rubric], instance=instance, resources={"workspace": workspace}).success
    file = tmp_path / "rubric.yaml"
    file.write_text(RUBRIC.format(version="new", weight=3))
    changed = Workspace(home=workspace.home, workflow_file=workspace.workflow_file, rubric_file=str(file))
    result = rubric_sensor(dg.build_sensor_context(instance=instance), workspace=changed)
    assert len(result.run_requests) == 1
