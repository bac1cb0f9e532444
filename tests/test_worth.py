"""Whether RL is worth it: what a policy's successes cost beside what they cost without it."""

import math
from random import Random
from typing import Any

import pytest

from agentrl_resources.evaluation import EpisodeFacts, worth_it

SEED = 20261128


def facts(successes: list[bool], cost: float) -> list[EpisodeFacts]:
    return [EpisodeFacts(success, False, cost, 1.0) for success in successes]


def of(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in found["alternatives"] if row["name"] == name)


def test_what_a_success_costs_is_all_that_was_spent_by_what_was_solved() -> None:
    found = worth_it(facts([True, True, False, True], 3.0), {"SFT alone": facts([True, False, False, False], 1.0)})
    assert of(found, "PPO")["cost_per_success"] == 4.0
    assert of(found, "SFT alone")["cost_per_success"] == 4.0
    assert of(found, "SFT alone")["ratio"] == pytest.approx(1.0)
    assert found["answer"] == "not shown"  # four tasks prove nothing
    assert "not proven" in found["reason"]


def test_rl_must_beat_every_alternative_and_one_that_is_cheaper_is_named() -> None:
    print("seed", SEED)
    draw = Random(SEED)
    good, poor = ([draw.random() < share for _ in range(400)] for share in (0.9, 0.5))
    assert worth_it(facts(good, 1.0), {"SFT alone": facts(poor, 1.0)})["answer"] == "worthwhile"
    found = worth_it(facts(good, 1.0), {"SFT alone": facts(poor, 1.0), "best of 4": facts(good, 0.5)})
    assert found["answer"] == "not worthwhile"
    assert "best of 4" in found["reason"]
    assert "SFT alone" not in found["reason"]


def test_turned_round_the_ratio_is_its_inverse() -> None:
    one, other = facts([True, False] * 50, 2.0), facts([True, True, True, False] * 25, 1.5)
    there, back = (of(worth_it(a, {"other": b}), "other") for a, b in ((one, other), (other, one)))
    assert there["ratio"] * back["ratio"] == pytest.approx(1.0)
    assert there["interval"][0] * back["interval"][1] == pytest.approx(1.0)


def test_without_a_success_there_is_no_cost_per_success() -> None:
    found = worth_it(facts([False] * 30, 1.0), {"SFT alone": facts([True] * 30, 1.0)})
    assert (found["answer"], of(found, "PPO")["cost_per_success"]) == ("not worthwhile", None)
    found = worth_it(facts([True] * 30, 1.0), {"SFT alone": facts([False] * 30, 1.0)})
    assert found["answer"] == "worthwhile"
    assert all(math.isfinite(value) for row in found["alternatives"] for value in row["success_interval"])
