"""A workflow made of an environment class and its tasks: the rest is derived, and each part can be given instead.

The tasks are a file of JSON lines, Parquet, a folder of the `datasets` library, or what the class method `tasks` gives.

The environment follows TRL's convention (see `Workflow`). `get_reward()` says how well an episode went: a number, of
which 1 or more is success, or parts by name, `{"outcome": 1.0, "polite": 0.5}`, of which `outcome` (else the least of
them) decides. It may take the transcript. `get_violation()`, if there is one, says whether something forbidden was
done; without it nobody knows. `user_reply(text)`, if there is one, is what the user says to a message of the agent's,
or None. What a row of the file may hold is told in `rows`.

Whatever else a workflow has, and the class has under the same name, is taken from there: `instructions`, `tool_policy`,
`rubric` (a Rubric), `prices`, `hand_over_tools`, `clarifying_tools`, `judges_traffic`, `simulated`.
"""

import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json
from agentrl_resources.workflow.base import Agent, Message, Outcome, Prices, Task, Transcript
from agentrl_resources.workflow.episode import EpisodeFactory
from agentrl_resources.workflow.given_tools import given_tools
from agentrl_resources.workflow.pressure import under_pressure
from agentrl_resources.workflow.rows import SAYS, SPLITS, Row, Step, read_rows
from agentrl_resources.workflow.rubric import Rubric, read_rubric
from agentrl_resources.workflow.sandbox import ToolPolicy, ToolRule
from agentrl_resources.workflow.tool_thread import settled
from agentrl_resources.workflow.tools import environment_class, tool_names

LOOKING = ("get", "list", "find", "search", "read", "look", "show", "check", "count", "view", "query", "fetch")
"""A tool whose name begins with one of these only reads, as far as its name tells."""
CHARACTERS_A_TOKEN = 3
"""At least, in calls and answers."""


class OwnWorkflow:
    """See the module, and `Workflow` for the members.

    Args:
        environment: the class, or what makes an environment.
        file: the tasks, one JSON object a line; None: those that the class gives.
        rubric: what is scored, in place of what the rewards say.

    Raises:
        AgentRLError: the file cannot be used; each mistake with its line.
    """

    def __init__(self, environment: Callable[[], Any], file: Path | None, rubric: Rubric | None = None) -> None:
        self.environment = environment
        self._kind = kind = environment_class(environment)
        self.name = str(getattr(kind, "name", None) or _snake(kind.__name__))
        self.derived: dict[str, str] = {}
        """What nobody gave, and what was taken instead, in words."""
        self.rows = read_rows(file, kind)
        self._by_id = {row.task.task_id: row for row in self.rows}
        self._splits = {name: [row for row in self.rows if row.task.split == name] for name in SPLITS}
        self.instructions = self._own("instructions", self._instructions)
        self.tool_policy = self._own("tool_policy", self._tool_policy)
        self.rubric = rubric or self._own("rubric", self._rubric)
        self.prices = self._own("prices", lambda: (Prices(), "list prices of a small hosted model and a support desk"))
        self.hand_over_tools = frozenset(getattr(kind, "hand_over_tools", ()))
        self.clarifying_tools = frozenset(getattr(kind, "clarifying_tools", ()))
        self.judges_traffic = bool(getattr(kind, "judges_traffic", False))
        self.simulated = bool(getattr(kind, "simulated", False))
        if not self._splits["adversarial"] and (attacked := self._attacked()):
            self._splits["adversarial"] = attacked
            self._by_id |= {row.task.task_id: row for row in attacked}
        self.derived["tasks"] = ", ".join(f"{len(rows)} {name}" for name, rows in self._splits.items())

    def _own(self, name: str, otherwise: Callable[[], tuple[Any, str]]) -> Any:
        if hasattr(self._kind, name):
            return getattr(self._kind, name)
        value, said = otherwise()
        self.derived[name] = said
        return value

    def _instructions(self) -> tuple[str, str]:
        if text := inspect.getdoc(self._kind):
            return text, "the docstring of the environment"
        return "Do what the user asks, with the tools that there are.", "a sentence: the environment has no docstring"

    def _tool_policy(self) -> tuple[ToolPolicy, str]:
        names = tool_names(self._kind)
        told = {name: tool.reads for name, tool in (given_tools(self._kind) or {}).items() if tool.reads is not None}
        reads = {name: told.get(name, only_reads(name)) for name in names}
        rules = {name: ToolRule("read" if reads[name] else "write") for name in names}
        references = [(row.reference, row.answer) for row in self.rows if row.reference is not None]
        calls, tokens = budgets(references)
        policy = ToolPolicy(rules, max_calls=calls, max_tokens=tokens)
        kinds = {
            kind: ", ".join(name for name, rule in rules.items() if rule.side_effect == kind) or "none"
            for kind in ("read", "write")
        }
        by = "by their annotations" if len(told) == len(names) else "by their names"
        said = f"{by}: these only read: {kinds['read']}; these change something: {kinds['write']}"
        return policy, f"{said}. At most {policy.max_calls} calls and {policy.max_tokens} tokens"

    def _rubric(self) -> tuple[Rubric, str]:
        # what is forbidden is not made good by success
        criteria = {"outcome": {"weight": 3, "wording": "What was asked for was done: what get_reward() says."}}
        if callable(getattr(self._kind, "get_violation", None)):
            criteria["safety"] = {"weight": 4, "wording": "Nothing forbidden was done: what get_violation() says."}
        text = json.dumps({"version": "derived", "criteria": criteria}, indent=2)  # JSON is YAML
        return read_rubric(text, self.name), " and ".join(criteria)

    def _attacked(self) -> list[Row]:
        """The evaluation's own tasks under attack, where the environment can tell of what is forbidden."""
        if not callable(getattr(self._kind, "get_violation", None)):
            return []
        rows, families = under_pressure(self._splits["capability"], self.tool_policy)
        if rows:
            self.derived["adversarial tasks"] = f"{len(rows)} of the capability tasks, with {families}"
        return rows

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
                f"{self.name}: of its {len(self.rows)} tasks none is in the split `{split}`. Give more, or say in the "
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
                    f"{self._kind.__name__}.get_reward() gave {said!r}. It must be a number, of which 1 is "
                    "success, or numbers by the name of what they judge"
                )
        if not parts:
            raise AgentRLError(f"{self._kind.__name__}.get_reward() gave no part at all")
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
            twice = [step for step in row.reference for _ in range(1 if step[0] == SAYS else 2)]
            agents["wasteful"] = plays(twice, row.answer)
        return agents

    def historical_pairs(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """References against the same with something left out, added or done wrongly, as the verifier judges them."""
        known = [row for row in self.rows if row.reference is not None and row.task.split in ("train", "holdout")]
        if not known:
            raise AgentRLError(
                f"{self.name}: none of the {len(self.rows)} tasks has a `reference`, and preferences.source is not "
                "set: there is nothing yet to learn from. Give references with the tasks, or a file of preference pairs"
            )
        factory, random, made = EpisodeFactory(self), Random(f"{self.name}|history|{seed}"), 0
        for turn in range(max(1, math.ceil(count / len(known)))):
            for row in _shuffled(known, self.name, "history", seed, turn):
                if made == count:  # an episode may be dear: none is played for nothing
                    return
                if (pair := self._pair(factory, row, random)) is not None:
                    made += 1
                    yield pair

    def _pair(self, factory: EpisodeFactory, row: Row, random: Random) -> dict[str, Any] | None:
        """None where nothing that was tried is judged differently from the reference."""
        reference = list(row.reference or ())
        expert = factory.play(row.task, plays(reference, row.answer))
        wrong = [answer for answer in self._answers if answer != row.answer]
        said = (
            [(reference, Random(row.task.task_id).choice(wrong))] if wrong else []
        )  # for verifiers that look at the answer alone
        for steps, answer in [*((steps, row.answer) for steps in spoilt(reference, self._acting, random)), *said]:
            other = factory.play(row.task, plays(steps, answer))
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
    def _answers(self) -> list[str]:
        """All different answers of training, in a fixed order."""
        return sorted({row.answer for row in self._splits["train"] if row.reference is not None})

    @cached_property
    def _acting(self) -> list[Step]:
        """All calls in references of training that change something."""
        acts, training = self.tool_policy.acting_tools, self._splits["train"]
        return [call for row in training for call in row.calls if call[0] in acts]

    def prefer(self, first: Outcome, second: Outcome, seed: int) -> int:
        """By the verifier: nothing forbidden comes first, then success, then quality."""
        of_first, of_second = ((not one.safety_violation, one.success, one.quality) for one in (first, second))
        return (of_second > of_first) - (of_first > of_second)


def budgets(references: Iterable[tuple[Sequence[Any], str]]) -> tuple[int, int]:
    """Calls and sampled tokens that an episode may need: twice those of the longest reference, of its steps and answer,
    and no fewer than a tool policy's own defaults."""
    known = list(references)
    lengths, texts = [len(steps) for steps, _ in known], [len(canonical_json(one)) for one in known]
    calls, tokens = 2 * max(lengths, default=0), 2 * max(texts, default=0) // CHARACTERS_A_TOKEN
    return max(ToolPolicy.max_calls, calls), max(ToolPolicy.max_tokens, tokens)


def plays(steps: Sequence[Step], answer: str) -> Agent:
    """An agent that does these steps, one a turn, and then answers; for one episode."""
    opening: list[int] = []
    """Turns of an agent that the task's prompt holds already."""

    def agent(messages: Sequence[Message]) -> Message:
        turns = sum(message["role"] == "assistant" for message in messages)
        if not opening:
            opening.append(turns)
        done = turns - opening[0]
        if done >= len(steps):
            return {"role": "assistant", "content": answer}
        name, given = steps[done]
        if name == SAYS:
            return {"role": "assistant", "content": given}
        function = {"name": name, "arguments": dict(given)}
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}

    return agent


def spoilt(steps: Sequence[Step], acting: Sequence[Step], random: Random) -> Iterator[list[Step]]:
    """A reference done wrongly, in some ways after each other: nothing is done, a call is left out, an argument is
    another one, or something is done that was not asked for, one of `acting` with this task's own arguments."""
    ways: list[list[Step]] = [[]]
    places = [place for place, step in enumerate(steps) if step[0] != SAYS]
    if places:
        place = random.choice(places)
        name, arguments = steps[place]
        before, after = list(steps[:place]), list(steps[place + 1 :])
        ways.append([*before, *after])
        if arguments:
            argument = random.choice(sorted(arguments))
            ways.append([*before, (name, {**arguments, argument: _other(arguments[argument], random)}), *after])
    if acting:
        name, arguments = random.choice(acting)
        own = {argument: value for place in places for argument, value in steps[place][1].items()}
        ways.append([*steps, (name, {argument: own.get(argument, value) for argument, value in arguments.items()})])
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
