"""Environments that live in another interpreter: a library that wants other versions than this project does.

Its tools, its tasks and its rewards are asked of a process there, one for each environment in each of our processes.
"""

import atexit
import itertools
import json
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from agentrl_resources.adaptors.worker_process import GoneError, Process, SaidError, Worker
from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import canonical_json

_WORKERS = Path(__file__).parent / "workers"
_ROUNDING = 1e-9


class Elsewhere:
    # No docstring: it would be the instructions of an environment that has none.

    python: ClassVar[str] = ""
    """The interpreter; a relative path begins at the folder of the file that defines the class."""
    source: ClassVar[str] = ""
    """Which environment, as the library names it."""
    config: ClassVar[Mapping[str, Any]] = {}
    """What it is made with."""
    seconds: ClassVar[float] = 60.0
    """In which a call, `reset` and a judgement have to be done."""
    loading_seconds: ClassVar[float] = 600.0
    """In which it has to be loaded, with its tasks."""
    most_tasks: ClassVar[int] = 10_000
    """So many are read at most; some environments have no end of them."""

    success_at: ClassVar[float | None] = None
    """The weighted sum of the rewards from which on an episode is a success; None is the sum of all positive weights:
    each such reward at 1."""

    _library: ClassVar[str]
    """Its name, in errors."""
    _backend: ClassVar[str]
    """A file that serving.py runs."""

    @classmethod
    def tools(cls) -> Sequence[Mapping[str, Any]]:
        return list(cls._worker().running().loaded["tools"])

    @classmethod
    def tasks(cls) -> Iterator[dict[str, Any]]:
        """The environment's own tasks as rows; of equal ones the first."""
        seen: set[bytes] = set()
        for found in cls._worker().running().ask("tasks", cls.loading_seconds, most=cls.most_tasks):
            if (key := canonical_json(found["task"])) not in seen:
                seen.add(key)
                yield {**found, **cls.row(found["task"])}

    @classmethod
    def row(cls, task: dict[str, Any]) -> Mapping[str, Any]:
        """What else is in the row of a task: `reference`, `answer`, `split`, `group`, `task_type`. Nothing, unless you
        say it."""
        return {}

    def reset(self, task: dict[str, Any]) -> None:
        self._rewards: dict[str, float] | None = None
        try:
            self._process, self._name = self._begun(task)
        except GoneError:  # another episode has just ended the process
            self._process, self._name = self._begun(task)
        except SaidError as error:
            raise AgentRLError(f"{type(self).__name__}: the task cannot be begun: {error}") from error

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        return self._process.ask("call", self.seconds, episode=self._name, name=name, arguments=arguments)

    def get_reward(self, transcript: Any) -> dict[str, float]:
        if self._rewards is None:
            messages = as_openai(transcript.completion)
            try:
                said = self._process.ask("judge", self.seconds, episode=self._name, messages=messages)
                self._rewards = self._parts(said)
            except GoneError:  # its state is lost with the process: nobody can say that it came to anything
                self._rewards = {"outcome": 0.0}
            except SaidError as error:
                raise AgentRLError(f"{type(self).__name__}: the episode cannot be judged: {error}") from error
            self._process.ended.append(self._name)
        return self._rewards

    def _parts(self, said: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The rewards by name, and `outcome`: how near their weighted sum came to `success_at`, of which 1 is success.

        AgentRLError where one is no finite number, or no sum could be a success.
        """
        wrong = [name for name, one in said.items() if not _finite(one["score"])]
        if wrong:
            raise AgentRLError(f"{self.source}: reward `{wrong[0]}` gave {said[wrong[0]]['score']!r}, no number")
        needed = self.success_at
        if needed is None:
            needed = sum(one["weight"] for one in said.values() if one["weight"] > 0)
        if needed <= 0:
            raise AgentRLError(
                f"{self.source}: no reward has a weight above 0, so that nothing says what success is. Set "
                f"{type(self).__name__}.success_at."
            )
        reached = sum(one["score"] * one["weight"] for one in said.values()) / needed
        outcome = 1.0 if reached >= 1 - _ROUNDING else reached
        named = {f"{name}_reward" if name in ("outcome", "safety") else name: one for name, one in said.items()}
        return {"outcome": outcome, **{name: float(one["score"]) for name, one in named.items()}}

    @classmethod
    def _worker(cls) -> "Worker":
        if not cls.source or not cls.python:
            raise AgentRLError(
                f"{cls.__name__} is no environment of {cls._library} yet. Give it `source`, its name, and "
                f"`python`, the interpreter of a virtual environment that has {cls._library}."
            )
        folder = _folder_of(cls)
        python = cls.python if os.sep not in cls.python else str(folder / cls.python)
        request = {"source": cls.source, "config": dict(cls.config)}
        key = (cls._backend, python, folder, canonical_json(request))
        with _lock:
            if key not in _workers:
                what = f"{cls._library} environment `{cls.source}`"
                _workers[key] = Worker(
                    what, cls._library, python, _WORKERS / cls._backend, folder, request, cls.loading_seconds
                )
            return _workers[key]

    def _begun(self, task: dict[str, Any]) -> tuple[Process, str]:
        process = self._worker().running()
        return process, process.begin(self, self.seconds, task)


def _folder_of(kind: type) -> Path:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file).absolute().parent if file else Path.cwd()


def _finite(score: Any) -> bool:
    return isinstance(score, int | float) and math.isfinite(score)


def as_openai(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as OpenAI writes them: contents and arguments are text, and each result names its call by an id."""
    told: list[dict[str, Any]] = []
    waiting: deque[str] = deque()
    numbers = itertools.count()
    for message in messages:
        one = {**message, "content": None if message.get("content") is None else _text(message["content"])}
        if calls := message.get("tool_calls"):
            one["tool_calls"] = [
                {
                    "id": call.get("id") or f"call_{next(numbers)}",
                    "type": "function",
                    "function": {
                        "name": str(call["function"].get("name")),
                        "arguments": _text(call["function"].get("arguments")),
                    },
                }
                for call in calls
            ]
            waiting.extend(call["id"] for call in one["tool_calls"])
        elif one["role"] == "tool":
            called = waiting.popleft() if waiting else f"call_{next(numbers)}"
            one["tool_call_id"] = message.get("tool_call_id") or called
        told.append(one)
    return told


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


_lock = threading.Lock()
_workers: dict[Any, Worker] = {}


def _forget() -> None:
    """After a fork the processes are the parent's."""
    global _lock
    _lock = threading.Lock()
    _workers.clear()


def _end_all() -> None:
    for worker in _workers.values():
        worker.kill()


os.register_at_fork(after_in_child=_forget)
atexit.register(_end_all)
