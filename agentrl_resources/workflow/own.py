"""A workflow made of an environment class and its tasks: the rest is derived, and each part can be given instead.

The tasks are a file of JSON lines, Parquet, or a folder of the `datasets` library.

The environment follows TRL's convention (see `Workflow`). `get_reward()` says how well an episode went: a number, of
which 1 or more is success, or parts by name, `{"outcome": 1.0, "polite": 0.5}`, of which `outcome` (else the least of
them) decides. It may take the transcript. `get_violation()`, if there is one, says whether something forbidden was
done; without it nobody knows. A row of the file is what `reset` is called with; beside it, a row may hold

    task_id       its name; without one it is named by its content
    task_type     what kind of task it is, for reports
    split         train, holdout, capability or adversarial; without one its task_id, or `group`, decides by its hash
    group         rows of one group are never on both sides of training and evaluation
    reference     calls that solve it, [{"name": ..., "arguments": {...}}, ...], and
    answer        what the agent then says

Whatever else a workflow has, and the class has under the same name, is taken from there: `instructions`, `tool_policy`,
`rubric` (a Rubric), `prices`, `hand_over_tools`, `clarifying_tools`, `judges_traffic`, `simulated`.
"""

import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json, digest_json
from agentrl_resources.workflow.base import Agent, Message, Outcome, Prices, Task, Transcript
from agentrl_resources.workflow.episode import EpisodeFactory
from agentrl_resources.workflow.rubric import Rubric, read_rubric
from agentrl_resources.workflow.sandbox import ToolPolicy, ToolRule
from agentrl_resources.workflow.tool_thread import settled
from agentrl_resources.workflow.tools import tool_names

SPLITS = ("train", "holdout", "capability", "adversarial")
_SPANS = {"train": (0.0, 0.5), "holdout": (0.5, 0.65), "capability": (0.65, 1.0)}
"""The hashes, between 0 and 1, of what goes where. What is adversarial no hash can tell: a row has to say so."""
OF_THE_FILE = ("task_id", "task_type", "split", "group", "reference", "answer")
"""What a row may hold for us; `reset` is given it only where it names it."""
LOOKING = ("get", "list", "find", "search", "read", "look", "show", "check", "count", "view", "query", "fetch")
"""A tool whose name begins with one of these only reads, as far as its name tells."""
CHARACTERS_A_TOKEN = 3
"""At least, in calls and answers."""
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ANSWER = "Done."
"""What the agent says at the end of a reference that has no answer."""


Call = tuple[str, Mapping[str, Any]]
"""A tool's name, and arguments."""


@dataclass(frozen=True)
class Row:
    """One task of the file. `reference`: calls that solve it; None where there are none given."""

    task: Task
    reference: tuple[Call, ...] | None
    answer: str
    key: str
    """What decides of its split by its hash, if the row does not say it."""


class OwnWorkflow:
    """See the module, and `Workflow` for the members.

    Args:
        environment: the class.
        file: the tasks, one JSON object a line.
        rubric: what is scored, in place of what the rewards say.

    Raises:
        AgentRLError: the file cannot be used; each mistake with its line.
    """

    def __init__(self, environment: type, file: Path, rubric: Rubric | None = None) -> None:
        self.environment = environment
        self.name = _snake(environment.__name__)
        self.derived: dict[str, str] = {}
        """What nobody gave, and what was taken instead, in words."""
        self._rows = read_rows(file, environment)
        self._by_id = {row.task.task_id: row for row in self._rows}
        self._splits = {name: [row for row in self._rows if row.task.split == name] for name in SPLITS}
        self.instructions = self._own("instructions", self._instructions)
        self.tool_policy = self._own("tool_policy", self._tool_policy)
        self.rubric = rubric or self._own("rubric", self._rubric)
        self.prices = self._own("prices", lambda: (Prices(), "list prices of a small hosted model and a support desk"))
        self.hand_over_tools = frozenset(getattr(environment, "hand_over_tools", ()))
        self.clarifying_tools = frozenset(getattr(environment, "clarifying_tools", ()))
        self.judges_traffic = bool(getattr(environment, "judges_traffic", False))
        self.simulated = bool(getattr(environment, "simulated", False))
        self.derived["tasks"] = ", ".join(f"{len(rows)} {name}" for name, rows in self._splits.items())

    def _own(self, name: str, otherwise: Callable[[], tuple[Any, str]]) -> Any:
        if hasattr(self.environment, name):
            return getattr(self.environment, name)
        value, said = otherwise()
        self.derived[name] = said
        return value

    def _instructions(self) -> tuple[str, str]:
        if text := inspect.getdoc(self.environment):
            return text, "the docstring of the environment"
        return "Do what the user asks, with the tools that there are.", "a sentence: the environment has no docstring"

    def _tool_policy(self) -> tuple[ToolPolicy, str]:
        names = tool_names(self.environment)
        rules = {name: ToolRule("read" if only_reads(name) else "write") for name in names}
        lengths = [len(row.reference) for row in self._rows if row.reference is not None]
        texts = [len(canonical_json([row.reference, row.answer])) for row in self._rows if row.reference is not None]
        policy = ToolPolicy(
            rules,
            max_calls=max(8, 2 * max(lengths, default=0)),
            max_tokens=max(256, 2 * max(texts, default=0) // CHARACTERS_A_TOKEN),
        )
        kinds = {
            kind: ", ".join(name for name, rule in rules.items() if rule.side_effect == kind) or "none"
            for kind in ("read", "write")
        }
        said = f"by their names: these only read: {kinds['read']}; these change something: {kinds['write']}"
        return policy, f"{said}. At most {policy.max_calls} calls and {policy.max_tokens} tokens"

    def _rubric(self) -> tuple[Rubric, str]:
        # what is forbidden is not made good by success
        criteria = {"outcome": {"weight": 3, "wording": "What was asked for was done: what get_reward() says."}}
        if callable(getattr(self.environment, "get_violation", None)):
            criteria["safety"] = {"weight": 4, "wording": "Nothing forbidden was done: what get_violation() says."}
        text = json.dumps({"version": "derived", "criteria": criteria}, indent=2)  # JSON is YAML
        return read_rubric(text, self.name), " and ".join(criteria)

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Tasks of a split, in an order that the seed decides. Of an evaluation suite each comes once, and there may be
        fewer than `count`; the others begin anew."""
        if split not in SPLITS:
            raise AgentRLError(f"{self.name} has no split `{split}`. Choose one of {', '.join(SPLITS)}.")
        there = [row.task for row in self._splits[split]]
        if split in ("capability", "adversarial"):
            return _shuffled(there, self.name, split, seed, 0)[:count]
        if not there:
            raise AgentRLError(
                f"{self.name}: of its {len(self._rows)} tasks none is in the split `{split}`. Give more, or say in the "
                "rows' `split` where each belongs"
            )
        found: list[Task] = []
        while len(found) < count:
            found += _shuffled(there, self.name, split, seed, len(found))
        return found[:count]

    def verify(self, environment: Any, transcript: Transcript) -> Outcome:
        """By `get_reward()` and `get_violation()`. AgentRLError when one says what it cannot."""
        rewards = self._rewards(environment, transcript)
        rewards.setdefault("outcome", min(rewards.values()))
        scores = {name: min(max(value, 0.0), 1.0) for name, value in rewards.items()}
        violated = self._violation(environment)
        if violated is not None:
            scores["safety"] = float(not violated)
        success = rewards["outcome"] >= 1
        known = {name: scores[name] for name in self.rubric.weights if name in scores}
        weights = self.rubric.weights
        whole = sum(weights[name] for name in known) or 1.0
        quality = sum(weights[name] * score for name, score in known.items()) / whole
        return Outcome(success, violated, known, quality)

    def _rewards(self, environment: Any, transcript: Transcript) -> dict[str, float]:
        get_reward = environment.get_reward
        takes = inspect.signature(get_reward).parameters
        said = settled(get_reward(transcript) if takes else get_reward())
        parts = dict(said) if isinstance(said, Mapping) else {"outcome": said}
        for value in parts.values():
            if not isinstance(value, bool | int | float) or not math.isfinite(value):
                raise AgentRLError(
                    f"{self.environment.__name__}.get_reward() gave {said!r}. It must be a number, of which 1 is "
                    "success, or numbers by the name of what they judge"
                )
        if not parts:
            raise AgentRLError(f"{self.environment.__name__}.get_reward() gave no part at all")
        return {str(name): float(value) for name, value in parts.items()}

    def _violation(self, environment: Any) -> bool | None:
        get_violation = getattr(environment, "get_violation", None)
        return bool(settled(get_violation())) if callable(get_violation) else None

    def scripted_agents(self, task: Task) -> Mapping[str, Agent]:
        """`expert` plays the reference, `wasteful` too, each call twice; a task without one has neither."""
        row = self._by_id.get(task.task_id)
        agents: dict[str, Agent] = {"does_nothing": plays([], "I cannot do that.")}
        if row is not None and row.reference is not None:
            agents["expert"] = plays(row.reference, row.answer)
            agents["wasteful"] = plays([call for call in row.reference for _ in range(2)], row.answer)
        return agents

    def historical_pairs(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """References against the same with something left out, added or done wrongly, as the verifier judges them."""
        known = [row for row in self._rows if row.reference is not None and row.task.split in ("train", "holdout")]
        if not known:
            raise AgentRLError(
                f"{self.name}: none of the {len(self._rows)} tasks has a `reference`, and preferences.source is not "
                "set: there is nothing yet to learn from. Give references with the tasks, or a file of preference pairs"
            )
        factory, random, made = EpisodeFactory(self), Random(f"{self.name}|history|{seed}"), 0
        for turn in range(max(1, math.ceil(count / len(known)))):
            for row in _shuffled(known, self.name, "history", seed, turn):
                pair = self._pair(factory, row, random)
                if pair is not None and made < count:
                    made += 1
                    yield pair

    def _pair(self, factory: EpisodeFactory, row: Row, random: Random) -> dict[str, Any] | None:
        """None where nothing that was tried is judged differently from the reference."""
        reference = list(row.reference or ())
        expert = factory.play(row.task, plays(reference, row.answer))
        for calls in spoilt(reference, self._acting, random):
            other = factory.play(row.task, plays(calls, row.answer))
            if label := self.prefer(expert.outcome, other.outcome, 0):
                break
        else:
            return None
        better, worse = (expert, other) if label < 0 else (other, expert)
        return {
            "task_id": row.task.task_id,
            "task_type": row.task.task_type,
            "split": row.task.split,
            "prompt": expert.transcript.prompt,
            "chosen": better.transcript.completion,
            "rejected": worse.transcript.completion,
            "label": "chosen",
            "annotator": "verifier",
            "rubric_version": self.rubric.version,
            "chosen_scores": dict(better.outcome.scores),
            "rejected_scores": dict(worse.outcome.scores),
        }

    @cached_property
    def _acting(self) -> list[Call]:
        """All calls in references of training that change something."""
        acts, training = self.tool_policy.acting_tools, self._splits["train"]
        return [call for row in training for call in row.reference or () if call[0] in acts]

    def prefer(self, first: Outcome, second: Outcome, seed: int) -> int:
        """By the verifier: nothing forbidden comes first, then success, then quality."""
        of_first, of_second = ((not one.safety_violation, one.success, one.quality) for one in (first, second))
        return (of_second > of_first) - (of_first > of_second)


def plays(calls: Sequence[Call], answer: str) -> Agent:
    """An agent that makes these calls, one a turn, and then answers; for one episode."""
    opening: list[int] = []
    """Turns of an agent that the task's prompt holds already."""

    def agent(messages: Sequence[Message]) -> Message:
        turns = sum(message["role"] == "assistant" for message in messages)
        if not opening:
            opening.append(turns)
        done = turns - opening[0]
        if done >= len(calls):
            return {"role": "assistant", "content": answer}
        name, arguments = calls[done]
        function = {"name": name, "arguments": dict(arguments)}
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}

    return agent


def spoilt(calls: Sequence[Call], acting: Sequence[Call], random: Random) -> Iterator[list[Call]]:
    """A reference done wrongly, in some ways after each other: nothing is done, a call is left out, an argument is
    another one, or something is done that was not asked for, one of `acting` with this task's own arguments."""
    ways: list[list[Call]] = [[]]
    if calls:
        place = random.randrange(len(calls))
        name, arguments = calls[place]
        before, after = list(calls[:place]), list(calls[place + 1 :])
        ways.append([*before, *after])
        if arguments:
            argument = random.choice(sorted(arguments))
            ways.append([*before, (name, {**arguments, argument: _other(arguments[argument], random)}), *after])
    if acting:
        name, arguments = random.choice(acting)
        own = {argument: value for _, given in calls for argument, value in given.items()}
        ways.append([*calls, (name, {argument: own.get(argument, value) for argument, value in arguments.items()})])
    random.shuffle(ways)
    yield from ways


def _other(value: Any, random: Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + random.choice((-1, 1, 10))
    if isinstance(value, str):
        digits = [place for place, letter in enumerate(value) if letter.isdigit()]
        if digits:
            place = random.choice(digits)
            return value[:place] + str((int(value[place]) + random.randrange(1, 10)) % 10) + value[place + 1 :]
        return value[:-1] or "x"
    return value[:-1] if isinstance(value, list) else value


def read_rows(file: Path, environment: type) -> list[Row]:
    """The tasks of a file.

    Raises:
        AgentRLError: it is missing, empty, or lines of it are no tasks: each with its number.
    """
    if not file.is_file():  # a folder, or nothing
        return _read(file, environment)
    # a workflow is made anew wherever it is asked for; a file that was read is not read again while it is the same
    return _read_once(file, environment, (now := file.stat()).st_size, now.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_once(file: Path, environment: type, size: int, changed: int) -> list[Row]:
    return _read(file, environment)


def _read(file: Path, environment: type) -> list[Row]:
    takes = inspect.signature(environment.reset).parameters  # type: ignore[attr-defined]
    tools = set(tool_names(environment))
    rows: list[Row] = []
    wrong: list[str] = []
    named: dict[str, int] = {}
    sides: dict[str, set[bool]] = {}
    for number, found in _numbered(file):
        try:
            row = _row(json.loads(found) if isinstance(found, str) else found, takes, tools)
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
        raise AgentRLError(f"workflow.tasks: {file}:\n  " + "\n  ".join(wrong[:10]) + more)
    if not rows:
        raise AgentRLError(f"workflow.tasks: {file} is empty. Write a JSON object a line")
    return _placed(rows)


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
    unknown = [name for name in payload if name not in takes and name != "prompt"]
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
    reference = ours.get("reference")
    task = Task(task_id, str(ours.get("task_type") or "task"), split, payload)
    calls = None if reference is None else _calls(reference, tools)
    answer, group = (ours.get(name) for name in ("answer", "group"))
    key = task_id if group is None else f"group {group}"
    return Row(task, calls, ANSWER if answer is None else str(answer), key)


def _calls(reference: Any, tools: set[str]) -> tuple[Call, ...]:
    if not isinstance(reference, list):
        raise ValueError("`reference` is no list of calls")
    calls = []
    for call in reference:
        function = call.get("function", call) if isinstance(call, dict) else {}
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(name, str) or name not in tools or not isinstance(arguments, dict):
            raise ValueError(f"`reference` has {call!r}: a call has the `name` of a tool and `arguments`, an object")
        calls.append((name, arguments))
    return tuple(calls)


def _place_of(key: str) -> float:
    """Between 0 and 1."""
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64


def _shuffled(found: Sequence[Any], *key: Any) -> list[Any]:
    shuffled = list(found)
    Random("|".join(map(str, key))).shuffle(shuffled)
    return shuffled


def only_reads(tool: str) -> bool:
    """Whether a tool changes nothing, as far as its name tells."""
    return tool.split("_")[0] in LOOKING


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() and place else letter.lower()
                   for place, letter in enumerate(name))  # fmt: skip
