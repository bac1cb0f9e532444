"""Reports of a run that disagree: the same row in whatever order and however often they come, and people are told."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from telemetry_samples import SQL_FOLDER, random_record, random_seed

from agentrl_resources.telemetry import Warehouse, build_models, import_traces, load_models

MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello"}]
MODELS = load_models(SQL_FOLDER)


def row(run: str = "r1", **more: Any) -> dict[str, Any]:
    return {"run_id": run, "started_at": "2026-11-17T09:00:00Z", "messages": MESSAGES} | more


class Imports:
    """Warehouses into which files are imported in different orders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warehouses = 0
        self.files = 0

    def warehouse(self) -> Warehouse:
        self.warehouses += 1
        return Warehouse(self.folder / f"{self.warehouses}.duckdb")

    def file(self, *rows: dict[str, Any]) -> Path:
        self.files += 1
        path = self.folder / f"{self.files}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        return path

    def load(self, warehouse: Warehouse, path: Path, **options: Any) -> list[str]:
        """Imports a file; returns the conflicts."""
        found = import_traces(path, "desk", **options)
        assert found.rejected == []
        report = warehouse.ingest(found.records, found.rejected, found.labels)
        assert report.inserted + report.updated + report.unchanged == len({one.run_id for one in found.records})
        return [str(conflict) for conflict in report.conflicts]

    def state(self, *paths: Path) -> list[dict[str, Any]]:
        warehouse = self.warehouse()
        for path in paths:
            self.load(warehouse, path)
        return state_of(warehouse)


def state_of(warehouse: Warehouse) -> list[dict[str, Any]]:
    return warehouse.query("SELECT * FROM agent_runs ORDER BY run_id")


@pytest.fixture
def imports(tmp_path: Path) -> Imports:
    return Imports(tmp_path)


SAID: dict[str, list[Any]] = {
    "messages": [MESSAGES, MESSAGES[:1]],
    "task_id": [None, None, "t1", "t2"],
    "started_at": [None, "2026-11-10T09:00:00Z", "2026-11-17T09:00:00Z"],
    "updated_at": [None, None, "2026-11-20", "2026-11-21"],
    "labelled_at": [None, None, "2026-11-19", "2026-11-22"],
    "success": [None, True, False],
    "human_override": [None, True, False],
    "cost": [None, 1, 2],
    "tokens_in": [None, 5, 6],
}


def test_files_in_any_order_and_any_number_of_times_give_the_same_rows(imports: Imports) -> None:
    rng = random_seed()
    runs = [f"r{number}" for number in range(60)]
    contents = [
        [{"run_id": run} | {name: rng.choice(values) for name, values in SAID.items()} for run in rng.sample(runs, 40)]
        for _ in range(4)
    ]
    # a run that nobody dates is dated by its first import, which is another moment each time
    dated = {one["run_id"] for rows in contents for one in rows if one["started_at"]}
    files = [imports.file(*rows) for rows in contents]

    def known(state: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one | ({} if one["run_id"] in dated else {"started_at": None}) for one in state]

    expected = known(imports.state(*files))
    for _ in range(4):
        again = [*files, *rng.choices(files, k=2)]
        assert known(imports.state(*rng.sample(again, len(again)))) == expected
    at_once = imports.file(*rng.sample([one for rows in contents for one in rows], 160))
    found = import_traces(at_once, "desk")
    warehouse = imports.warehouse()
    warehouse.ingest(found.records, found.rejected, found.labels)
    assert known(state_of(warehouse)) == expected, "in one file or in several"


def test_three_files_that_disagree_on_everything(imports: Imports) -> None:
    rng = random_seed()
    days = rng.sample(range(10, 17), 3)
    files = [
        imports.file(row(success=number == 0, human_override=number == 1, cost=number, started_at=f"2026-11-{day}"))
        for number, day in enumerate(days)
    ]
    states = [imports.state(*order) for order in rng.sample(list(itertools.permutations(files)), 3)]
    assert all(state == states[0] for state in states)
    scores = []
    for order in (files, files[::-1], files * 2):
        warehouse = imports.warehouse()
        for path in order:
            imports.load(warehouse, path)
        with warehouse.connect() as connection:
            build_models(connection, MODELS)
        scores.append(warehouse.query("SELECT * FROM weekly_reliability"))
    assert scores[0] == scores[1] == scores[2]


def test_the_contradiction_is_told_with_run_field_values_and_what_counts(imports: Imports) -> None:
    first, second = imports.file(row(success=True)), imports.file(row(success=False), row("r2", success=False))
    warehouse = imports.warehouse()
    assert imports.load(warehouse, first) == []
    (said,) = imports.load(warehouse, second)
    (counted,) = {str(one["success"]).lower() for one in state_of(warehouse) if one["run_id"] == "r1"}
    assert "run r1: reports disagree on success" in said
    assert f"(false, true; what counts is {counted})" in said
    assert imports.load(warehouse, first) == [said], "as long as they disagree"


def test_what_one_report_leaves_out_is_known_from_the_other(imports: Imports) -> None:
    files = [imports.file(row(success=None, cost=1.5)), imports.file(row(success=True, cost=None, tokens_in=7))]
    for order in itertools.permutations(files):
        warehouse = imports.warehouse()
        for path in order:
            assert imports.load(warehouse, path) == [], "to leave out is not to contradict"
        (run,) = state_of(warehouse)
        assert (run["success"], run["cost"], run["tokens_in"]) == (True, 1.5, 7)


@pytest.mark.parametrize("column", ["updated_at", "exported_at"])
def test_the_newer_of_two_rows_counts_in_either_order_and_corrects_a_wrong_date(imports: Imports, column: str) -> None:
    older = imports.file(row(success=True, started_at="2026-10-01", **{column: "2026-11-18"}))
    newer = imports.file(row(success=False, started_at="2026-11-17", **{column: "2026-11-19T00:00:00Z"}))
    for order in itertools.permutations([older, newer, older]):
        warehouse = imports.warehouse()
        assert [said for path in order for said in imports.load(warehouse, path)] == []
        (run,) = state_of(warehouse)
        assert (run["success"], str(run["started_at"])) == (False, "2026-11-17 00:00:00")


def test_a_corrected_file_without_times_is_the_newest_when_the_command_says_when_it_was_written(
    imports: Imports,
) -> None:
    wrong, right = imports.file(row(started_at="2026-10-01")), imports.file(row(started_at="2026-11-17"))
    for order in itertools.permutations([(wrong, {}), (right, {"exported_at": "2026-11-20"})]):
        warehouse = imports.warehouse()
        for path, options in order:
            imports.load(warehouse, path, **options)
        imports.load(warehouse, wrong)
        (run,) = state_of(warehouse)
        assert str(run["started_at"]) == "2026-11-17 00:00:00"


def test_a_known_start_counts_more_than_the_time_of_an_import(imports: Imports) -> None:
    dated, undated = imports.file(row()), imports.file({"run_id": "r1", "messages": MESSAGES, "cost": 1})
    for order in itertools.permutations([dated, undated]):
        (run,) = imports.state(*order)
        assert (str(run["started_at"]), run["start_known"]) == ("2026-11-17 09:00:00", True)


def test_a_run_that_nobody_dates_stays_where_its_first_import_put_it(imports: Imports) -> None:
    warehouse, path = imports.warehouse(), imports.file({"run_id": "r1", "messages": MESSAGES})
    imports.load(warehouse, path)
    first = state_of(warehouse)
    assert first[0]["start_known"] is False
    imports.load(warehouse, path)
    assert state_of(warehouse) == first


def test_the_newest_label_counts_whoever_says_it(imports: Imports) -> None:
    rows = [
        row(success=True),  # in no file with a time: counts less than any label
        {"run_id": "r1", "success": False, "labelled_at": "2026-11-18"},
        row(success=True, labelled_at="2026-11-19T08:00:00Z"),
        {"run_id": "r1", "outcome": "failed", "labelled_at": "2026-11-20T12:00:00Z", "human_override": "yes"},
        row(success="yes", updated_at="2026-11-19T10:00:00Z"),
    ]
    files = [imports.file(one) for one in rows]
    rng = random_seed()
    for _ in range(3):
        order = [*rng.sample(files, len(files)), rng.choice(files)]
        (run,) = imports.state(*order)
        assert (run["success"], run["human_override"]) == (False, True)


def test_two_labels_of_one_moment_that_disagree_are_told(imports: Imports) -> None:
    at = {"labelled_at": "2026-11-18"}
    first, second = imports.file(row(success=True, **at)), imports.file({"run_id": "r1", "success": False, **at})
    warehouse = imports.warehouse()
    assert imports.load(warehouse, first) == []
    for path in (second, first):
        (said,) = imports.load(warehouse, path)
        assert "disagree on success (false, true; what counts is true)" in said


def test_what_the_gateway_saw_itself_is_not_overwritten_by_a_file(imports: Imports) -> None:
    seen = random_record(random_seed(), run_id="r1", release_channel="canary", assigned_channel="canary", arm=None)
    seen = dataclasses.replace(seen, hand_over_price=2.5, success=False, task_type=None)
    file = imports.file(row(success=True, task_type="refund", updated_at="2026-11-20", started_at="2026-11-02"))
    for gateway_first in (True, False):
        warehouse = imports.warehouse()
        if gateway_first:
            warehouse.ingest([seen])
        imports.load(warehouse, file)
        if not gateway_first:
            warehouse.ingest([seen])
        said = imports.load(warehouse, file)
        assert any("disagree on release_channel (canary, general; what counts is canary)" in one for one in said)
        (run,) = state_of(warehouse)
        assert (run["release_channel"], run["assigned_channel"], run["task_type"]) == ("canary", "canary", "refund")
        assert run["success"] is True, "what a file says with a time is a label"


def test_the_same_row_twice_in_a_file_is_one_run_and_one_line_in_quarantine(imports: Imports) -> None:
    found = import_traces(imports.file(row(), row("r2"), row(), row(cost=1)), "desk")
    assert [record.run_id for record in found.records] == ["r1", "r2", "r1"]
    assert [(line.line, line.reason) for line in found.rejected] == [(3, "the same run as line 1")]


def test_all_reports_of_a_run_are_kept_and_only_of_runs_with_several(imports: Imports) -> None:
    warehouse = imports.warehouse()
    for path in (imports.file(row(cost=1), row("r2")), imports.file(row(cost=2)), imports.file(row(cost=1))):
        imports.load(warehouse, path)
    kept = warehouse.query("SELECT run_id, cost FROM run_reports ORDER BY cost")
    assert kept == [{"run_id": "r1", "cost": 1.0}, {"run_id": "r1", "cost": 2.0}]
