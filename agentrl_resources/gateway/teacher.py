"""Demonstrations by a stronger model: it plays the tasks of a workflow behind OpenAI's protocol, and what the verifier
calls a success becomes the task's reference.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import Backend, BackendError, Sampling
from agentrl_resources.workflow import SAYS, Episode, EpisodeFactory, Row, Step


@dataclass(frozen=True)
class Demonstration:
    """What came of one task. `row` as a file of tasks has it: with a `reference` where the model solved it."""

    row: dict[str, Any]
    solved: bool
    tries: int


async def demonstrated(
    factory: EpisodeFactory,
    rows: Sequence[Row],
    backend: Backend,
    tries: int,
    at_once: int,
    temperature: float,
    progress: Callable[[int, int], None] = lambda solved, done: None,
) -> list[Demonstration]:
    """Plays each task until it is solved, at most `tries` times.

    Args:
        factory: starts the episodes.
        rows: the tasks.
        backend: the model.
        tries: episodes of a task at most.
        at_once: episodes that go on at the same time.
        temperature: of the model's sampling.
        progress: called with (tasks solved, tasks done) after each task.

    Raises:
        AgentRLError: the server gives no answer.
    """
    room = asyncio.Semaphore(at_once)
    done: list[bool] = []

    async def one(row: Row) -> Demonstration:
        async with room:
            for number in range(tries):
                episode = await _played(factory, row, backend, Sampling(number, temperature, None))
                if solved := await asyncio.to_thread(_solved, episode):
                    break
            done.append(solved)
            progress(sum(done), len(done))
            return Demonstration(with_reference(row, episode) if solved else row.to_dict(), solved, number + 1)

    async with asyncio.TaskGroup() as group:
        playing = [group.create_task(one(row)) for row in rows]
    return [task.result() for task in playing]


def _solved(episode: Episode) -> bool:
    return episode.outcome.success


async def _played(factory: EpisodeFactory, row: Row, backend: Backend, sampling: Sampling) -> Episode:
    episode = await asyncio.to_thread(factory.start, row.task)
    conversation = backend.converse(row.task, sampling)
    new = list(episode.transcript.messages)
    budget = factory.workflow.tool_policy.max_tokens
    written = 0
    try:
        while not episode.done:
            turn = await conversation.turn(new)
            written += turn.tokens_out or 0
            if turn.message is None:
                new = [episode.malformed(turn.text)]
            else:
                new = await asyncio.to_thread(episode.step, turn.message)
            if not turn.ended or written >= budget:
                episode.stop()
    except BackendError as failure:
        raise AgentRLError(f"task {row.task.task_id}: {failure}") from failure
    finally:
        conversation.close()
    return episode


def with_reference(row: Row, episode: Episode) -> dict[str, Any]:
    """The row with what the agent did as its reference. Calls that failed taught it something and nobody else: they are
    left out, as are turns that could not be read, each of which counts as a failed call."""
    failed = [call.error is not None for call in episode.transcript.tool_calls]
    steps: list[Step] = []
    for message in episode.transcript.completion:
        if message["role"] != "assistant":
            continue
        if message.get("malformed"):
            failed.pop(0)
        elif calls := message.get("tool_calls"):
            functions = [call["function"] for call in calls if not failed.pop(0)]
            steps += [(function["name"], function["arguments"]) for function in functions]
        else:
            steps.append((SAYS, message.get("content") or ""))
    answer = steps.pop()[1] if steps and steps[-1][0] == SAYS else ""
    return replace(row, reference=tuple(steps), answer=answer).to_dict()


def lacking(rows: Sequence[Row]) -> list[Row]:
    """The tasks of training that nobody has shown how to solve."""
    return [row for row in rows if row.reference is None and row.task.split in ("train", "holdout")]
