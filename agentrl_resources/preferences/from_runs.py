"""Preference rows made of runs whose outcome is known: of one task, a run that succeeded against one that did not."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.files import digest_json
from agentrl_resources.preferences.pairs import Message

MOST_OF_A_TASK = 16
"""Pairs: a task of which there are many runs must not outweigh the others."""


@dataclass
class FromRuns:
    """What runs gave, and what they did not."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: int = 0
    unknown: int = 0
    """Runs of which nobody said whether they succeeded."""
    one_sided: int = 0
    """Tasks all of whose runs ended alike: there is nothing to compare."""
    apart: int = 0
    """Pairs of runs that did not answer the same request: customers said it in other words."""


def pairs_from(runs: Iterable[Mapping[str, Any]]) -> FromRuns:
    """Each run of a task that succeeded against each that did not, up to `MOST_OF_A_TASK`.

    A run that a person took over, and of which nobody says more, counts as failed: the agent did not do it.

    Args:
        runs: `run_id`, `task_id`, `task_type`, `success`, `human_override`, and `trace` with its `messages`.

    Returns:
        Rows in TRL's conversational form: `prompt` is what both runs answer, `chosen_run` and `rejected_run` name
        the runs.
    """
    found = FromRuns()
    tasks: dict[str, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]] = {}
    for run in runs:
        found.runs += 1
        messages = run["trace"].get("messages") or []
        if (run["success"] is None and not run["human_override"]) or not _answered(messages):
            found.unknown += 1
            continue
        failed = not run["success"]  # unknown only where a person took over
        tasks.setdefault(str(run["task_id"]), ([], []))[failed].append(run)
    for task_id, (successes, failures) in tasks.items():
        if not successes or not failures:
            found.one_sided += 1
        for good, bad in itertools.islice(itertools.product(successes, failures), MOST_OF_A_TASK):
            row = _row(task_id, good, bad)
            if row is None:
                found.apart += 1
            else:
                found.rows.append(row)
    return found


def _row(task_id: str, good: Mapping[str, Any], bad: Mapping[str, Any]) -> dict[str, Any] | None:
    chosen, rejected = good["trace"]["messages"], bad["trace"]["messages"]
    opening = list(itertools.takewhile(lambda message: message["role"] != "assistant", chosen))
    shared = len(opening)
    same = rejected[:shared] == opening and shared < len(rejected) and rejected[shared]["role"] == "assistant"
    if not same or not any(message["role"] == "user" for message in opening):
        return None
    return {
        "pair_id": digest_json([good["run_id"], bad["run_id"]]),
        "task_id": task_id,
        "task_type": good["task_type"],
        "prompt": chosen[:shared],
        "chosen": chosen[shared:],
        "rejected": rejected[shared:],
        "annotator": "outcomes of runs",
        "chosen_run": good["run_id"],
        "rejected_run": bad["run_id"],
    }


def _answered(messages: Sequence[Message]) -> bool:
    return any(message.get("role") == "assistant" for message in messages)
