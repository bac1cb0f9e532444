"""The conditions for the next step: the score's rise, and the profit of the workflow."""

import math
from dataclasses import replace
from pathlib import Path

import brief_evidence as made_up
import pytest
from brief_evidence import RELEASE, conditions

from agentrl_resources.telemetry import Warehouse

SIMULATED = made_up.records(simulated=True)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return made_up.warehouse(tmp_path / "warehouse.duckdb", SIMULATED)


@pytest.mark.parametrize(
    ("successes", "holds"),
    [([0.5, 0.7, 0.9], True), ([0.9, 0.7, 0.5], False), ([0.7, 0.71], None), ([0.9], None), ([0.1] + 4 * [0.6], None)],
)
def test_the_score_rises_when_the_interval_of_its_change_is_above_zero(tmp_path, successes, holds):
    """Only the last four weeks count: the rise in the last case is older."""
    runs = [run for week, good in enumerate(successes, start=40) for run in made_up.traffic(week, "release", 80, good)]
    warehouse = made_up.warehouse(tmp_path / "warehouse.duckdb", runs)
    made_up.store(warehouse, SIMULATED)
    rows = warehouse.query("SELECT * FROM brief_scores ORDER BY iso_week")
    found = conditions(warehouse)["rising"]
    assert found["holds"] is holds
    if len(successes) > 1:
        first, last = rows[-4:][0], rows[-1]
        change = last["score"] - first["score"]
        below = math.hypot(last["score"] - last["low"], first["high"] - first["score"])
        above = math.hypot(last["high"] - last["score"], first["score"] - first["low"])
        shown = [found["figures"][f"phase_rising.{name}_points"]["value"] for name in ("low", "change", "high")]
        assert shown == pytest.approx([100 * (change - below), 100 * change, 100 * (change + above)])


def test_weeks_of_another_kind_of_evidence_are_not_compared(warehouse):
    warehouse.ingest(made_up.traffic(48, "release", 80, 0.1))
    made_up.build(warehouse)
    made_up.store(warehouse, SIMULATED)
    assert conditions(warehouse)["rising"]["holds"] is None


@pytest.mark.parametrize(("programme_cost", "holds"), [(None, None), (200.0, True), (300.0, False)])
def test_profit_is_what_successes_saved_in_the_same_weeks_minus_what_the_programme_cost(
    warehouse, programme_cost, holds
):
    warehouse.ingest(
        [
            *made_up.traffic(48, "release", 100, 0.8, cost=0.4),  # 0.50 a success
            *made_up.traffic(48, "reference", 100, 0.5, cost=1.0),  # 2.00 a success
            *made_up.traffic(49, "release", 100, 0.9, cost=0.4),  # no reference: its successes count, its prices do not
        ]
    )
    made_up.build(warehouse)
    made_up.store(warehouse, SIMULATED, programme_cost=programme_cost)
    found = conditions(warehouse)["profitable"]
    assert found["holds"] is holds
    figures = found["figures"]
    assert figures["phase_profitable.saving_eur"]["value"] == pytest.approx(1.5)
    assert figures["phase_profitable.successes_count"]["value"] == 170
    if programme_cost is not None:
        assert figures["phase_profitable.net_eur"]["value"] == pytest.approx(170 * 1.5 - programme_cost)


def test_what_earlier_champions_saved_counts_against_the_programme_too(warehouse):
    first, before = "e" * 64, "d" * 64
    earlier = {made_up.RELEASE: first, made_up.PARENT: before}
    runs = [
        *made_up.traffic(47, "release", 100, 0.5, cost=0.5),  # 1.00 a success
        *made_up.traffic(47, "reference", 100, 0.5, cost=1.0),  # 2.00
    ]
    warehouse.ingest([replace(run, run_id=f"e {run.run_id}", release_id=earlier[str(run.release_id)]) for run in runs])
    warehouse.ingest(
        [
            *made_up.traffic(48, "release", 100, 0.8, cost=0.4),  # 0.50
            *made_up.traffic(48, "reference", 100, 0.5, cost=1.0),  # 2.00
        ]
    )
    made_up.build(warehouse)
    made_up.store(warehouse, SIMULATED, programme_cost=100.0, lineage={first: before})
    figures = conditions(warehouse)["profitable"]["figures"]
    assert figures["phase_profitable.net_eur"]["value"] == pytest.approx(50 * 1.0 + 80 * 1.5 - 100)
    assert figures["phase_profitable.successes_count"]["value"] == 130


def test_releases_with_one_policy_count_as_one(warehouse):
    """New evidence for the policy took its first release's place: no week has traffic of both, and none is needed."""
    newer = "e" * 64
    warehouse.ingest(
        [
            *made_up.traffic(47, "release", 100, 0.8, simulated=False, cost=0.4),  # 0.50
            *made_up.traffic(47, "reference", 100, 0.5, simulated=False, cost=1.0),  # 2.00
            *(
                replace(run, run_id=f"e {run.run_id}", release_id=newer)
                for run in made_up.traffic(48, "release", 100, 0.8, simulated=False, cost=0.4)
            ),
        ]
    )
    made_up.build(warehouse)
    parents = {newer: RELEASE, RELEASE: made_up.PARENT}
    made_up.store(warehouse, SIMULATED, programme_cost=100.0, lineage=parents, same_policy={newer: RELEASE})
    figures = conditions(warehouse)["profitable"]["figures"]
    assert figures["phase_profitable.net_eur"]["value"] == pytest.approx(160 * 1.5 - 100)
    assert figures["phase_profitable.successes_count"]["value"] == 160


def test_a_week_with_an_unknown_cost_says_nothing_of_prices(warehouse):
    unpriced = made_up.traffic(47, "release", 100, 1.0)
    warehouse.ingest(
        [
            replace(unpriced[0], cost=None),
            *unpriced[1:],
            *made_up.traffic(47, "reference", 100, 1.0, cost=2.0),
            *made_up.traffic(48, "release", 100, 1.0, cost=1.5),
            *made_up.traffic(48, "reference", 100, 1.0, cost=1.0),
        ]
    )
    made_up.build(warehouse)
    made_up.store(warehouse, SIMULATED, programme_cost=0.0)
    found = conditions(warehouse)["profitable"]
    assert found["figures"]["phase_profitable.saving_eur"]["value"] == pytest.approx(-0.5)
    assert found["holds"] is False
