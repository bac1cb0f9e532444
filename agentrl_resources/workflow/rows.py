"""The tasks of an environment: rows of a file, or of its own class method `tasks`; which split each belongs to.

A row is what `reset` is called with. Beside that it may hold

    task_id       its name; without one it is named by its content
    task_type     what kind of task it is, for reports
    split         train, holdout, capability or adversarial; without one its task_id, or `group`, decides by its hash
    group         rows of one group are never on both sides of training and evaluation
    reference     what solves it: calls [{"name": ..., "arguments": {...}}, ...], and {"say": "..."} between them, and
    answer        what the agent then says
    replies       what the user says to the agent's messages, in that order
"""

import inspect
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_json
from agentrl_resources.workflow.base import Task
from agentrl_resources.workflow.episode import OF_THE_EPISODE
from agentrl_resources.workflow.tools import tool_names

SPLITS = ("train", "holdout", "capability", "adversarial")
_SPANS = {"train": (0.0, 0.5), "holdout": (0.5, 0.65), "capability": (0.65, 1.0)}
"""The hashes, between 0 and 1, of what goes where. What is adversarial no hash can tell: a row has to say so."""
OF_THE_FILE = ("task_id", "task_type", "split", "group", "reference", "answer")
"""What a row may hold for us; `reset` is given it only where it names it."""
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ANSWER = "Done."
"""What the agent says at the end of a reference that has no answer."""

Step = tuple[str, Any]
"""A tool's name and its arguments; or `SAYS` and a text, which is for the user."""
SAYS = ""


@dataclass(frozen=True)
class Row:
    """One task. `reference`: what solves it, a step a turn; None where there is none given."""

    task: Task
    reference: tuple[Step, ...] | None
    answer: str
    key: str
    """What decides of its split by its hash, if the row does not say it."""

    def to_dict(self) -> dict[str, Any]:
        """As a file of tasks has it, its split said."""
        row = {"task_id": self.task.task_id, "task_type": self.task.task_type, "split": self.task.split}
        row |= self.task.payload
        if self.reference is None:
            return row
        steps = [
            {"say": given} if name == SAYS else {"name": name, "arguments": given} for name, given in self.reference
        ]
        return {**row, "reference": steps, "answer": self.answer}

    @property
    def calls(self) -> list[Step]:
        return [step for step in self.reference or () if step[0] != SAYS]


def read_rows(file: Path | None, environment: type) -> list[Row]:
    """The tasks of a file, or, without one, of the environment's class method `tasks`.

    Raises:
        AgentRLError: it is missing, empty, or lines of it are no tasks: each with its number.
    """
    if file is None or not file.is_file():  # a folder, or nothing
        return _read(file, environment)
    # a workflow is made anew wherever it is asked for; a file that was read is not read again while it is the same
    return _read_once(file, environment, (now := file.stat()).st_size, now.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_once(file: Path, environment: type, size: int, changed: int) -> list[Row]:
    return _read(file, environment)


def _read(file: Path | None, environment: Any) -> list[Row]:
    where = f"{environment.__name__}.tasks()" if file is None else f"workflow.tasks: {file}"
    takes_of = getattr(environment, "takes_of", lambda _: inspect.signature(environment.reset).parameters)
    tools = set(tool_names(environment))
    rows: list[Row] = []
    wrong: list[str] = []
    named: dict[str, int] = {}
    sides: dict[str, set[bool]] = {}
    for number, found in _own_tasks(environment) if file is None else _numbered(file):
        try:
            parsed = json.loads(found) if isinstance(found, str) else found
            row = _row(parsed, takes_of(parsed), tools)
            if (first := named.setdefault(row.task.task_id, number)) != number:
                raise ValueError(f"it is the task of line {first} once more (task_id {row.task.task_id})")
            sides.setdefault(row.key, set()).update({row.task.split in ("train", "holdout")} if row.task.split else ())
            if len(sides[row.key]) > 1:
                raise ValueError("its group is in training and in evaluation")
            rows.append(row)
        except (ValueError, AgentRLError) as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise AgentRLError(f"{where}:\n  " + "\n  ".join(wrong[:10]) + more)
    if not rows:
        raise AgentRLError(f"{where} is empty. Give a JSON object a line")
    return _placed(rows)


def _own_tasks(environment: Any) -> Iterator[tuple[int, Any]]:
    """What the class method `tasks` gives, as JSON has it."""
    try:
        rows = list(environment.tasks())
    except AgentRLError:
        raise
    except Exception as error:  # it is the user's code
        said = f"{type(error).__name__}: {error}"
        raise AgentRLError(
            f"{environment.__name__}.tasks() failed: {said}. It gives the tasks, dicts of JSON."
        ) from error
    yield from ((number, canonical_json(row).decode()) for number, row in enumerate(rows, start=1))


def _numbered(file: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their numbers, from 1: texts of JSON, or objects. AgentRLError when it cannot be read."""
    try:
        if file.is_dir():
            yield from enumerate(map(_without_gaps, _of_datasets(file)), start=1)
        elif file.suffix == ".parquet":
            from pyarrow.parquet import read_table

            yield from enumerate(map(_without_gaps, read_table(file).to_pylist()), start=1)
        else:
            # other ends of lines may stand in a JSON text
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    except FileNotFoundError:
        raise AgentRLError(f"workflow.tasks: there is no file {file}. Write one, a JSON object a line") from None
    except (OSError, ValueError) as error:  # what is no Parquet file is a ValueError
        raise AgentRLError(f"workflow.tasks: {file} cannot be read: {error}") from error


def _without_gaps(row: dict[str, Any]) -> dict[str, Any]:
    """Arrow gives each call of a column the arguments of all of them, with nulls: these were never given."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(one) for name, one in value.items() if one is not None}
        return [filled(one) for one in value] if isinstance(value, list) else value

    return {**row, "reference": filled(row.get("reference"))}


def _of_datasets(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of a folder that `save_to_disk` of the `datasets` library wrote; those of its splits are in them."""
    from datasets import DatasetDict, load_from_disk

    found = load_from_disk(str(folder))
    for split, rows in found.items() if isinstance(found, DatasetDict) else [(None, found)]:
        yield from ({"split": split, **row} if split else dict(row) for row in rows)


def _placed(rows: Sequence[Row]) -> list[Row]:
    """Rows that say nothing of their split get that of their group, or else it is told by their key's hash, whatever
    other rows there are. Only where that would leave a split without any, it gets the key that is nearest to it."""
    said = {row.key: row.task.split for row in rows if row.task.split}
    rows = [replace(row, task=replace(row.task, split=row.task.split or said.get(row.key, ""))) for row in rows]
    places = {row.key: _place_of(row.key) for row in rows if not row.task.split}
    split_of = {key: next(name for name, (_, end) in _SPANS.items() if place < end) for key, place in places.items()}
    there = {row.task.split for row in rows}
    for name, (start, end) in _SPANS.items():
        others = Counter(split_of.values())
        movable = [key for key, split in split_of.items() if others[split] > 1]
        if name not in there and not others[name] and movable:
            nearest = min(movable, key=lambda key: abs(places[key] - (start + end) / 2))
            split_of[nearest] = name
    return [replace(row, task=replace(row.task, split=row.task.split or split_of[row.key])) for row in rows]


def _row(found: Any, takes: Mapping[str, inspect.Parameter], tools: set[str]) -> Row:
    """ValueError when it is no task of this environment."""
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    ours = {name: found[name] for name in OF_THE_FILE if name in found}
    everything = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    payload = {name: value for name, value in found.items() if name not in OF_THE_FILE or name in takes}
    # as in TRL, a prompt opens the conversation whether reset takes it or not
    unknown = [name for name in payload if name not in takes and name not in OF_THE_EPISODE]
    if unknown and not everything:
        raise ValueError(f"reset() takes no `{unknown[0]}`. It takes: {', '.join(list(takes)[1:]) or 'nothing'}")
    for one in list(takes.values())[1:]:  # but self
        if one.default is one.empty and one.kind not in _ANY and one.name not in payload:
            raise ValueError(f"reset() needs `{one.name}`")
    task_id = digest_json(payload)[:16] if ours.get("task_id") is None else str(ours["task_id"])
    split = str(ours.get("split") or "")
    split = {"test": "capability", "eval": "capability", "validation": "holdout", "dev": "holdout"}.get(split, split)
    if split and split not in SPLITS:
        raise ValueError(f"there is no split {split!r}. Splits are {', '.join(SPLITS)}")
    replies = payload.get("replies")
    if replies is not None and not (isinstance(replies, list) and all(isinstance(one, str) for one in replies)):
        raise ValueError("`replies` is what the user says next, a list of texts")
    reference = ours.get("reference")
    task = Task(task_id, str(ours.get("task_type") or "task"), split, payload)
    steps = None if reference is None else _steps(reference, tools)
    answer, group = (ours.get(name) for name in ("answer", "group"))
    key = task_id if group is None else f"group {group}"
    return Row(task, steps, ANSWER if answer is None else str(answer), key)


def _steps(reference: Any, tools: set[str]) -> tuple[Step, ...]:
    if not isinstance(reference, list):
        raise ValueError("`reference` is no list of calls")
    steps: list[Step] = []
    for step in reference:
        if isinstance(step, dict) and isinstance(step.get("say"), str):
            steps.append((SAYS, step["say"]))
            continue
        function = step.get("function", step) if isinstance(step, dict) else {}
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(name, str) or name not in tools or not isinstance(arguments, dict):
            raise ValueError(f"`reference` has {step!r}: a call has the `name` of a tool and `arguments`, an object")
        steps.append((name, arguments))
    return tuple(steps)


def _place_of(key: str) -> float:
    """Between 0 and 1."""
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64
