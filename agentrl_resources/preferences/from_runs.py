"""Preference rows made of runs whose outcome is known: of one task, a run that succeeded against one that did not; an
answer against what a person made of it; and runs that succeeded alone, to imitate."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.files import digest_json
from agentrl_resources.preferences.messages import role_of
from agentrl_resources.preferences.pairs import DEMONSTRATION, TWO_RUNS, Message

MOST_OF_A_TASK = 16
"""Pairs: a task of which there are many runs must not outweigh the others."""
OUTCOMES, CORRECTION = "outcomes of runs", "correction by a person"
"""Who says which side is the better one."""


@dataclass
class FromRuns:
    """What runs gave, and what they did not."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    runs: int = 0
    unknown: int = 0
    """Runs of which nobody said whether they succeeded, or without an answer."""
    one_sided: int = 0
    """Tasks all of whose runs ended alike: there is nothing to compare."""
    apart: int = 0
    """Pairs of runs in which the customer said it in other words, so that each side holds its own requests."""
    corrections: int = 0
    """Pairs of an answer and what a person wrote in its place."""
    demonstrations: int = 0
    """Runs that succeeded, of tasks without a failure: they have nobody to be compared with, and can be imitated."""

    @property
    def pairs(self) -> int:
        return len(self.rows) - self.demonstrations

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs ({self.apart} of them of runs whose requests are in other words, {self.corrections} "
            f"corrections by people) and {self.demonstrations} runs to imitate from {self.runs} runs; {self.one_sided} "
            f"tasks have runs that all ended alike, of {self.unknown} runs nobody says whether they succeeded"
        )


def pairs_from(runs: Iterable[Mapping[str, Any]]) -> FromRuns:
    """Each run of a task that succeeded against each that did not, up to `MOST_OF_A_TASK`.

    A run that a person took over, and of which nobody says more, counts as failed: the agent did not do it. An answer
    that a person corrected is a pair by itself, whatever became of the run.

    Args:
        runs: `run_id`, `task_id`, `task_type`, `success`, `human_override`, and `trace` with its `messages`, and with
            the `correction` of its last answer, if there is one.

    Returns:
        Rows in TRL's conversational form: `prompt` is what both runs begin with, `chosen_run` and `rejected_run` name
        the runs. Where a row has `compares`, see `pairs.TWO_RUNS` and `pairs.DEMONSTRATION`.
    """
    found = FromRuns()
    tasks: dict[str, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]] = {}
    for run in runs:
        found.runs += 1
        messages = run["trace"].get("messages") or []
        if correction := _correction(run):
            found.rows.append(correction)
            found.corrections += 1
        if (run["success"] is None and not run["human_override"]) or not any(map(_is_agents, messages)):
            found.unknown += not correction
            continue
        failed = not run["success"]  # unknown only where a person took over
        tasks.setdefault(str(run["task_id"]), ([], []))[failed].append(run)
    for successes, failures in tasks.values():
        if not successes or not failures:
            found.one_sided += 1
            found.rows += map(_demonstration, successes)
            found.demonstrations += len(successes)
        for good, bad in itertools.islice(itertools.product(successes, failures), MOST_OF_A_TASK):
            row = _row(good, bad)
            found.apart += "compares" in row
            found.rows.append(row)
    return found


def opening_of(messages: Sequence[Message]) -> list[Message]:
    """What stands in a conversation before the agent's first turn."""
    return list(itertools.takewhile(lambda message: not _is_agents(message), messages))


def _row(good: Mapping[str, Any], bad: Mapping[str, Any]) -> dict[str, Any]:
    chosen, rejected = good["trace"]["messages"], bad["trace"]["messages"]
    openings = opening_of(chosen), opening_of(rejected)
    asked = any(role_of(message) == "user" for message in openings[0])
    row = _of_run(good) | {"rejected_run": bad["run_id"], "annotator": OUTCOMES}
    if openings[0] == openings[1] and asked:
        shared = len(openings[0])
    else:
        shared = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(*openings, strict=False)))
        row["compares"] = TWO_RUNS
    return row | {
        "pair_id": digest_json([good["run_id"], bad["run_id"]]),
        "prompt": chosen[:shared],
        "chosen": chosen[shared:],
        "rejected": rejected[shared:],
    }


def _demonstration(run: Mapping[str, Any]) -> dict[str, Any]:
    messages = run["trace"]["messages"]
    opening = opening_of(messages)
    return _of_run(run) | {
        "pair_id": digest_json([run["run_id"]]),
        "prompt": opening,
        "chosen": messages[len(opening) :],
        "annotator": OUTCOMES,
        "compares": DEMONSTRATION,
    }


def _correction(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The agent's last turn against what a person wrote in its place: text, or messages."""
    said, messages = run["trace"].get("correction"), run["trace"].get("messages") or []
    last = next((place for place in reversed(range(len(messages))) if _is_agents(messages[place])), None)
    if not said or last is None:
        return None
    return _of_run(run) | {
        "pair_id": digest_json([run["run_id"], "correction"]),
        "rejected_run": run["run_id"],
        "prompt": messages[:last],
        "chosen": [{"role": "assistant", "content": said}] if isinstance(said, str) else said,
        "rejected": [messages[last]],
        "annotator": CORRECTION,
    }


def _of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    return {"task_id": str(run["task_id"]), "task_type": run["task_type"], "chosen_run": run["run_id"]}


def _is_agents(message: Any) -> bool:
    return role_of(message) == "assistant"
