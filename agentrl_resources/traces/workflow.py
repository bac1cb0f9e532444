"""What a team has that has only traces from production: enough to imitate and to compare, nothing to play.

Whether a run succeeded is what its trace says (`agentrl import` has the columns). Instructions are the system text that
most runs begin with, tools are read from the traces, and splits go by the hash of the task.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_json
from agentrl_resources.preferences import OUTCOMES, FromRuns, opening_of, pairs_from
from agentrl_resources.redaction import redact
from agentrl_resources.telemetry import HAND_OVER_TOOLS, ImportResult, import_traces
from agentrl_resources.traces.tools import tools_of
from agentrl_resources.workflow import (
    WITHOUT_ENVIRONMENT,
    Message,
    Outcome,
    Prices,
    Rubric,
    Task,
    ToolPolicy,
    ToolRule,
    only_reads,
    read_rubric,
)

HELD_OUT = 0.2
"""Share of the tasks that are held out, by their hash."""
ENOUGH_PAIRS = 30
"""Where fewer pairs would be held out, further tasks follow, up to a third of those that have pairs: a file of traces
may have tens of tasks, and three pairs say nothing of a reward model."""
_SENTENCE = "Do what the user asks, with the tools that there are."


class NoEnvironment:
    """Stands where an environment would. Whoever makes one is told that there is none."""

    def __init__(self) -> None:
        raise AgentRLError(WITHOUT_ENVIRONMENT)


class TracesWorkflow:
    """See the module, and `Workflow` for the members; those that would play raise an AgentRLError.

    Args:
        file: traces, as `agentrl import` reads them.
        rubric: what is scored, in place of the outcome alone.

    Raises:
        AgentRLError: the file cannot be read, or none of its rows is a run.
    """

    environment = NoEnvironment
    hand_over_tools = HAND_OVER_TOOLS
    clarifying_tools: frozenset[str] = frozenset()
    judges_traffic = False

    def __init__(self, file: Path, rubric: Rubric | None = None) -> None:
        self.name = re.sub(r"\W+", "_", file.name.partition(".")[0].lower()) or "traces"
        found = _imported(file, self.name)
        if not found.records:
            first = f": line {found.rejected[0].line}, {found.rejected[0].reason}" if found.rejected else ""
            raise AgentRLError(f"workflow.tasks: {file} holds no run that can be read{first}")
        said = Counter(text for record in found.records if (text := _instructions(record.trace["messages"])))
        self.instructions = redact(said.most_common(1)[0][0])[0] if said else _SENTENCE
        self._runs = [_run(vars(record), self.instructions) for record in found.records]
        tools = tools_of(run["trace"] for run in self._runs)
        self.recorded_tools = tools.schemas
        names = [schema["function"]["name"] for schema in tools.schemas]
        self.tool_policy = ToolPolicy({name: ToolRule("read" if only_reads(name) else "write") for name in names})
        self.rubric = rubric or read_rubric(json.dumps(_RUBRIC, indent=2), self.name)  # JSON is YAML
        self.prices = Prices()
        self.derived = _derived(found, said, self._runs, names, tools.derived)

    def historical_pairs(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """All rows that the runs give (`pairs_from`), in the order of the file: neither `count` nor `seed` matters.

        AgentRLError when there is nothing to compare.
        """
        found = self._found
        if len(_pairs_of_tasks(found)) < 2:
            raise AgentRLError(
                f"the traces give {found}. To learn what is better and to see whether it was learned takes two tasks "
                "with pairs: give runs `task_id` (without it, runs with the same first request are of one task) and "
                "`success`, of both kinds for a task, or the `correction` that a person made of an answer"
            )
        splits = _splits(found)
        for row in found.rows:
            scores = _BOTH if row["annotator"] == OUTCOMES and "rejected" in row else {}
            yield {**row, **scores, "split": splits[row["task_id"]], "rubric_version": self.rubric.version}

    @property
    def _found(self) -> FromRuns:
        return pairs_from(self._runs)

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        return _nothing_to_play()

    def verify(self, environment: Any, transcript: Any) -> Outcome:
        return _nothing_to_play()

    def scripted_agents(self, task: Task) -> Mapping[str, Any]:
        return _nothing_to_play()

    def prefer(self, first: Outcome, second: Outcome, seed: int) -> int:
        return _nothing_to_play()


_BOTH = {"chosen_scores": {"outcome": 1.0}, "rejected_scores": {"outcome": 0.0}}
_RUBRIC = {
    "version": "traces",
    "criteria": {"outcome": {"weight": 1, "wording": "What was asked for was done: what the traces say of it."}},
}


def _nothing_to_play() -> NoReturn:
    raise AgentRLError(WITHOUT_ENVIRONMENT)


def _imported(file: Path, name: str) -> ImportResult:
    # a workflow is made anew wherever it is asked for; a file that was read is not read again while it is the same
    try:
        now = file.stat()
    except OSError as error:
        raise AgentRLError(f"workflow.tasks: {file} cannot be read: {error.strerror}. Name a file of traces") from error
    return _read_once(file, name, now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_once(file: Path, name: str, size: int, changed: int) -> ImportResult:
    return import_traces(file, name)


def _instructions(messages: Sequence[Any]) -> str | None:
    """The system text that a run begins with."""
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    content = first.get("content") if first.get("role") in ("system", "developer") else None
    return content.strip() if isinstance(content, str) else None


def _run(record: Mapping[str, Any], instructions: str) -> dict[str, Any]:
    """What `pairs_from` takes. Instructions that are the workflow's are left out, as everywhere. A run whose task
    nobody names is one of the task that its first request is."""
    messages: list[Message] = list(record["trace"]["messages"])
    said = _instructions(messages)
    if said is not None and redact(said)[0] == instructions:
        messages = messages[1:]
    asked = record["task_id"] == record["run_id"]
    task_id = digest_json(opening_of(messages))[:16] if asked else record["task_id"]
    return {**record, "task_id": task_id, "trace": {**record["trace"], "messages": messages}}


def _pairs_of_tasks(found: FromRuns) -> Counter[str]:
    return Counter(row["task_id"] for row in found.rows if "rejected" in row)


def _splits(found: FromRuns) -> dict[str, str]:
    """Each task's split by its hash; see `ENOUGH_PAIRS` for what else is held out. Some pairs are on either side."""
    places = {row["task_id"]: int(sha256(row["task_id"].encode()).hexdigest()[:12], 16) / 16**12 for row in found.rows}
    held_out = {task for task, place in places.items() if place < HELD_OUT}
    pairs = _pairs_of_tasks(found)
    by_hash = sorted(pairs, key=lambda task: places[task])
    for task in by_hash[: max(1, len(by_hash) // 3)]:
        if sum(pairs[one] for one in held_out if one in pairs) < ENOUGH_PAIRS:
            held_out.add(task)
    held_out.discard(by_hash[-1])
    return {task: "holdout" if task in held_out else "train" for task in places}


def _derived(
    found: ImportResult, said: Counter[str], runs: list[dict[str, Any]], names: list[str], derived: Sequence[str]
) -> dict[str, str]:
    """What was taken for what nobody gave, in words."""
    known = [run["success"] for run in runs if run["success"] is not None]
    lengths = sorted(len(json.dumps(run["trace"]["messages"])) for run in runs)
    first = f", the first in line {found.rejected[0].line}: {found.rejected[0].reason}" if found.rejected else ""
    of_calls = f"{len(derived)} of {len(names)} derived from their calls, since no schema was recorded"
    return {
        "runs": f"{len(runs)}, of which {sum(known)} succeeded and {len(known) - sum(known)} failed; "
        f"{len(found.rejected)} lines are no runs{first}",
        "instructions": f"the system text that {said.most_common(1)[0][1]} runs begin with" if said else "a sentence",
        "tools": (of_calls if derived else f"the schemas of {len(names)} as they were recorded") if names else "none",
        "rubric": "outcome: what the traces say of success",
        "splits": f"{100 * HELD_OUT:.0f} % of the tasks are held out, by their hash",
        "length": f"a run has {median(lengths):,.0f} characters, the longest {lengths[-1]:,}; what is longer than "
        "preferences.max_characters goes to quarantine",
    }
