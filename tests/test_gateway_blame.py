"""Who is charged with what: a failure counts against the arm that failed, never against one that did not, and what an
arm has begun neither happens twice nor reaches a client that another arm answers."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from gateways import WORKFLOW, Running, ask, client, expert_policy, raw, running, sessions_of, settings_with, tasks

from agentrl_resources.canary import ScriptedBackend
from agentrl_resources.gateway import Sampling, Turn
from agentrl_resources.gateway.runs import EpisodeJob, UnderWay, attempted
from agentrl_resources.workflow import EpisodeFactory, Task
from agentrl_resources.workflow.sandbox import Sandbox


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, settings_with(canary_seconds=0.5, request_seconds=2.0)) as found:
        yield found


def test_a_request_that_no_workflow_can_begin_with_is_charged_to_no_arm(fresh: Running) -> None:
    fresh.start_canary(50)
    for name in (*sessions_of(fresh, True, 50, 8), *sessions_of(fresh, False, 50, 2)):
        with pytest.raises(openai.BadRequestError, match="the workflow cannot begin with it"):
            client(fresh).chat.completions.create(
                model="order_desk",
                messages=[{"role": "user", "content": "hello"}],
                user=name,
                extra_body={"task": {"payload": {"orders": 7}}},
            )
    assert fresh.gateway.canary is not None
    assert fresh.gateway.breaker is not None
    assert fresh.gateway.breaker.watched["failures"].answers == 0
    assert fresh.records() == []


def test_a_tool_that_has_been_asked_for_in_time_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread goes on after the time is up, and has not said yet that it acts."""
    refusal = Sandbox.refusal

    def slow(self: Sandbox, name: str, arguments: Any) -> str | None:
        if name == "refund":
            time.sleep(0.3)
        return refusal(self, name, arguments)

    monkeypatch.setattr(Sandbox, "refusal", slow)
    factory = EpisodeFactory(WORKFLOW)
    played = (factory.play(task, WORKFLOW.scripted_agents(task)["expert"]) for task in tasks(50))
    task = next(episode.task for episode in played if "refund" in [c.name for c in episode.transcript.tool_calls])
    job = EpisodeJob(factory, task, Sampling(seed=1, temperature=0.0, max_tokens=500))
    done = asyncio.run(attempted(job, expert_policy(WORKFLOW), 0.15, None, UnderWay(), lambda: True))
    assert done.failure is not None
    assert (done.failure.kind, done.failure.side_effects) == ("timeout", True)


class SpeaksLate(ScriptedBackend):
    """A canary that says nothing in time, and something when its time is up."""

    def __init__(self) -> None:
        super().__init__(lambda task, seed: WORKFLOW.scripted_agents(task)["expert"])

    def converse(self, task: Task, sampling: Sampling) -> Any:
        conversation = super().converse(task, sampling)

        async def hanging(messages: Sequence[Any], on_text: Any = None) -> Turn:
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.get_running_loop().call_soon(on_text, "too late ")
            raise AssertionError

        conversation.turn = hanging  # type: ignore[method-assign]
        return conversation


def test_what_an_arm_says_after_its_end_does_not_reach_the_client(fresh: Running) -> None:
    fresh.start_canary(50)
    assert fresh.gateway.canary is not None
    fresh.gateway.canary.backend = SpeaksLate()
    stream = ask(fresh, tasks(1)[0], sessions_of(fresh, True, 50, 1)[0], stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    (record,) = fresh.records()
    assert record.fallback
    assert text == record.trace["messages"][-1]["content"]


class Slow(ScriptedBackend):
    """The expert, who takes a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__(lambda task, seed: WORKFLOW.scripted_agents(task)["expert"])
        self._seconds = seconds

    def converse(self, task: Task, sampling: Sampling) -> Any:
        conversation = super().converse(task, sampling)
        turn = conversation.turn

        async def slowly(messages: Sequence[Any], on_text: Any = None) -> Turn:
            await asyncio.sleep(self._seconds)
            return await turn(messages, on_text)

        conversation.turn = slowly  # type: ignore[method-assign]
        return conversation


def test_a_promoted_canary_brings_to_its_end_what_it_has_begun(tmp_path: Path) -> None:
    with running(tmp_path, settings_with(canary_seconds=10.0)) as served:
        served.start_canary(50)
        assert served.gateway.canary is not None
        served.gateway.canary.backend = Slow(0.2)
        under_way = served.gateway.canary.under_way
        waiting = threading.Thread(target=lambda: ask(served, tasks(1)[0], sessions_of(served, True, 50, 1)[0]))
        waiting.start()
        served.wait(lambda: not under_way.none_left.is_set())
        seen = served.registry.pointers()
        served.registry.swap("promote", who="test", why="it is good", seen=seen, canary=None, canary_percent=0.0,
                             champions=(*seen.champions, served.releases["canary"]))  # fmt: skip
        served.wait(lambda: served.gateway.canary is None)
        waiting.join(10)
        (record,) = served.records()
        assert (record.assigned_channel, record.served_channel, record.fallback) == ("canary", "canary", False)
        assert "failure" not in record.trace


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), TypeError("not a state")], ids=repr)
def test_pointers_that_cannot_be_read_for_a_while_are_followed_afterwards(
    fresh: Running, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fresh.start_canary(50)
    registry, read = fresh.gateway.registry, fresh.gateway.registry.pointers
    left = [error, error]

    def failing() -> Any:
        if left:
            raise left.pop()
        return read()

    monkeypatch.setattr(registry, "pointers", failing)
    seen = read()
    other = type(registry)(registry.root)
    other.fail_back(who="test", why="a test", seen=seen)
    fresh.wait(lambda: fresh.gateway.canary is None)
    assert left == []


def test_a_canary_is_not_ended_without_a_reason(fresh: Running) -> None:
    fresh.start_canary(50)
    for why in ("", "  "):
        assert raw(fresh, "POST", "/admin/fail-back", {"why": why}, admin=True)[0] == 400
    assert fresh.gateway.canary is not None
    assert raw(fresh, "POST", "/admin/fail-back", {"why": "the shop is closed"}, admin=True)[0] == 200
    fresh.wait(lambda: fresh.registry.pointers().canary is None)
    assert fresh.registry.pointers().why == "the shop is closed"
    assert fresh.registry.pointers().who != "gateway"


def test_an_end_that_comes_with_the_call_of_a_tool_comes_before_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is the champion's to do then, so nothing may have happened yet."""
    called: list[str] = []
    refusal = Sandbox.refusal

    def watched(self: Sandbox, name: str, arguments: Any) -> str | None:
        called.append(name)
        return refusal(self, name, arguments)

    monkeypatch.setattr(Sandbox, "refusal", watched)
    factory, under_way, acting = EpisodeFactory(WORKFLOW), UnderWay(), WORKFLOW.tool_policy.acting_tools

    class EndsAtTheCall:
        """The expert, whose canary ends in the very moment in which it asks for a tool that acts."""

        def __init__(self) -> None:
            self._inner = expert_policy(WORKFLOW)

        def converse(self, task: Task, sampling: Sampling) -> Any:
            conversation = self._inner.converse(task, sampling)
            turn = conversation.turn

            async def ending(messages: Sequence[Any], on_text: Any = None) -> Turn:
                said = await turn(messages, on_text)
                calls = (said.message or {}).get("tool_calls") or ()
                if acting & {call["function"]["name"] for call in calls}:
                    under_way.cut()
                return said

            conversation.turn = ending
            return conversation

    ended = 0
    for task in tasks(40):
        called.clear()
        job = EpisodeJob(factory, task, Sampling(seed=1, temperature=0.0, max_tokens=500))
        done = asyncio.run(attempted(job, EndsAtTheCall(), 30.0, None, under_way, lambda: True))  # type: ignore[arg-type]
        assert not acting & set(called)
        if done.failure is not None:
            ended += 1
            assert (done.failure.kind, done.failure.side_effects) == ("cut", False)
    assert ended > 5
