"""The workflow's historical annotators: pairs of runs scored against the rubric, with the noise that real ones have.

Everything is simulated from a seed. The rates below are the noise; each kind is what one cleaning rule exists for.
"""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from agentrl_resources.workflow.base import Message, Outcome, Task
from agentrl_resources.workflow.episode import Episode, EpisodeFactory
from agentrl_resources.workflow.order_desk.agents import PROFILES, DeskAgent, Habits, draw_habits, with_slips_of
from agentrl_resources.workflow.rubric import Rubric

HOLDOUT_SHARE = 0.12
ANNOTATORS = ("annotator-1", "annotator-2", "annotator-3", "annotator-4", "annotator-5")
SCORED_SHARE = 0.4
"""How many rows carry the rubric scores; older ones hold only the preference."""
JUDGEMENT_SPREAD = 0.01
"""Standard deviation of an annotator's judgement of a run's quality (0..1)."""
TIE_MARGIN = 0.015
SAME_AGENT_SHARE = 0.8
"""Pairs whose two runs come from one agent, so that they share its habits and differ in slips only."""
SECOND_RUNS = 16
"""Runs that look equally good are mostly not shown: so many second runs are tried before a tie is kept."""
NOISE = {
    "exact_duplicate": 0.03,
    "near_duplicate": 0.02,
    "contradictory_label": 0.02,
    "label_disagrees_with_scores": 0.03,
    "malformed_tool_call": 0.02,
    "personal_data": 0.03,
    "too_long": 0.01,
    "split_leak": 0.02,
}
"""Share of rows to which each kind of noise happens."""


def prefer(first: Outcome, second: Outcome, random: Random) -> int:
    """One annotator's label: -1 the first run is better, 1 the second, 0 a tie."""
    margin = second.quality - first.quality + random.gauss(0, JUDGEMENT_SPREAD)
    return 0 if abs(margin) < TIE_MARGIN else (1 if margin > 0 else -1)


def historical_pairs(factory: EpisodeFactory, rubric: Rubric, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` preference rows in TRL's conversational format with an explicit prompt."""
    random = Random(f"order_desk|history|{seed}")
    holdout = int(count * HOLDOUT_SHARE)
    tasks = factory.workflow.tasks("holdout", holdout, seed) + factory.workflow.tasks("train", count - holdout, seed)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        rows.append(_pair(factory, rubric, task, random))
        if len(rows) > 10:
            rows.extend(_noise(rows, random))
        if len(rows) >= count:
            break
    random.shuffle(rows)
    yield from rows[:count]


def _pair(factory: EpisodeFactory, rubric: Rubric, task: Task, random: Random) -> dict[str, Any]:
    habits = _habits(random)
    same_agent = random.random() < SAME_AGENT_SHARE
    first = _run(factory, task, habits, random)
    for _ in range(SECOND_RUNS):
        other = _habits(random)
        second = _run(factory, task, with_slips_of(habits, other) if same_agent else other, random)
        label = prefer(first.outcome, second.outcome, random)
        if label != 0 and first.outcome.scores != second.outcome.scores:
            break
    runs = (first, second)
    better, worse = (0, 1) if label <= 0 else (1, 0)
    row: dict[str, Any] = {
        "task_id": task.task_id,
        "task_type": task.task_type,
        "split": task.split,
        "prompt": runs[0].transcript.messages[1:2],
        "chosen": runs[better].transcript.messages[2:],
        "rejected": runs[worse].transcript.messages[2:],
        "label": "tie" if label == 0 else "chosen",
        "annotator": random.choice(ANNOTATORS),
        "rubric_version": rubric.version,
    }
    if random.random() < SCORED_SHARE:
        row["chosen_scores"] = dict(runs[better].outcome.scores)
        row["rejected_scores"] = dict(runs[worse].outcome.scores)
    return row


def _habits(random: Random) -> Habits:
    return draw_habits(PROFILES[random.choice(tuple(PROFILES))], random)


def _run(factory: EpisodeFactory, task: Task, habits: Habits, random: Random) -> Episode:
    return factory.play(task, DeskAgent(task, habits, random))


def _noise(rows: Sequence[dict[str, Any]], random: Random) -> list[dict[str, Any]]:
    """What goes wrong around the newest row: it is changed in place, or rows are added that a cleaner must find."""
    row = rows[-1]
    added = []
    happens = {kind for kind, rate in NOISE.items() if random.random() < rate}
    if "personal_data" in happens:
        _extend_request(row, f" Write to {random.choice(('kim', 'lee', 'ana'))}{random.randrange(99)}@mail.example.")
    if "too_long" in happens:
        _extend_request(row, " I have told you this before." * 400)
    if "label_disagrees_with_scores" in happens:
        _swap_sides(row)
    if "malformed_tool_call" in happens:
        _break_call(row["chosen"])
    if "split_leak" in happens and row["split"] == "train":
        known = random.choice([other for other in rows if other["split"] == "holdout"])
        row |= {"task_id": known["task_id"]}
    if "exact_duplicate" in happens:
        added.append(deepcopy(row))
    if "near_duplicate" in happens:
        added.append(deepcopy(row))
        _extend_request(added[-1], " ")
    if "contradictory_label" in happens:
        added.append(deepcopy(row))
        _swap_sides(added[-1])
        for scores in ("chosen_scores", "rejected_scores"):
            added[-1].pop(scores, None)
    return added


def _extend_request(row: dict[str, Any], text: str) -> None:
    row["prompt"] = [{**row["prompt"][0], "content": row["prompt"][0]["content"] + text}]


def _swap_sides(row: dict[str, Any]) -> None:
    row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    if "chosen_scores" in row:
        row["chosen_scores"], row["rejected_scores"] = row["rejected_scores"], row["chosen_scores"]


def _break_call(messages: list[Message]) -> None:
    """Cuts the arguments of the first call short, as a truncated log line would."""
    function = messages[0]["tool_calls"][0]["function"]
    messages[0] = deepcopy(messages[0])
    messages[0]["tool_calls"][0]["function"]["arguments"] = json.dumps(function["arguments"])[:-2]
