"""Policies that go wrong on purpose, and scripted ones: what drills and trials put behind a gateway."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway import Backend, Conversation, OnText, Sampling, Turn
from agentrl_resources.workflow import Agent, Message, Task, Workflow

FAULTS = ("crashing", "hanging", "garbled", "unsafe", "wrong", "costly", "slow")
_SCRIPTED = {"unsafe": "harmful", "wrong": "does_nothing", "costly": "wasteful"}
"""The faults that one of the workflow's own agents plays."""


@dataclass
class Fault:
    """What is wrong at the moment: one of `FAULTS`, or nothing. `share` of the conversations have it."""

    kind: str | None = None
    share: float = 1.0
    slow_seconds: float = 0.5
    """How long a slow policy thinks before each turn."""


class FaultyBackend:
    """A backend with a fault that can be switched on and off while it serves."""

    def __init__(self, inner: Backend, fault: Fault, workflow: Workflow) -> None:
        self._inner = inner
        self._fault = fault
        self._workflow = workflow

    def converse(self, task: Task, sampling: Sampling) -> Conversation:
        kind = self._fault.kind
        # the seed decides, as a coin that falls the same way again
        if kind is None or sampling.seed % 1000 >= 1000 * self._fault.share:
            return self._inner.converse(task, sampling)
        if kind in _SCRIPTED:
            return ScriptedConversation(self._workflow.scripted_agents(task)[_SCRIPTED[kind]])
        if kind == "slow":
            return _Slow(self._inner.converse(task, sampling), self._fault.slow_seconds)
        return _Broken(kind)

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        if self._fault.kind is None:
            return await self._inner.complete(body, sampling, on_text)
        return await _Broken(self._fault.kind).turn(())

    async def close(self) -> None:
        await self._inner.close()


class Lent:
    """A backend that several gateways share: none of them closes it."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    def converse(self, task: Task, sampling: Sampling) -> Conversation:
        return self._inner.converse(task, sampling)

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        return await self._inner.complete(body, sampling, on_text)

    async def close(self) -> None: ...


class ScriptedBackend:
    """A policy that is a program: `choose` says which agent plays a task, by the task and the sampling seed."""

    def __init__(self, choose: Callable[[Task, int], Agent]) -> None:
        self._choose = choose

    def converse(self, task: Task, sampling: Sampling) -> "ScriptedConversation":
        return ScriptedConversation(self._choose(task, sampling.seed))

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        raise AgentRLError("a scripted policy plays tasks, it does not hold conversations")

    async def close(self) -> None: ...


class ScriptedConversation:
    """A scripted agent's conversation. A token is taken as four characters."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._messages: list[Message] = []

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        self._messages += messages
        message = self._agent(self._messages)
        self._messages.append(message)
        if on_text is not None and message.get("content"):
            on_text(message["content"])
        return Turn(message, "", sum(len(str(m)) for m in messages) // 4, len(str(message)) // 4)

    def close(self) -> None: ...


class _Broken:
    """Crashes, hangs, or writes what nobody can read."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        if self._kind == "garbled":
            return Turn(None, "\N{REPLACEMENT CHARACTER} {{{ [", 20, 20)
        if self._kind == "hanging":
            await asyncio.Event().wait()
        raise RuntimeError("a fault that was injected")

    def close(self) -> None: ...


class _Slow:
    def __init__(self, inner: Conversation, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds

    async def turn(self, messages: Sequence[Message], on_text: OnText | None = None) -> Turn:
        await asyncio.sleep(self._seconds)
        return await self._inner.turn(messages, on_text)

    def close(self) -> None:
        self._inner.close()
