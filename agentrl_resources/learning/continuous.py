"""Episodes on engines: each goes on at its own pace, and prompts and results of tools are read at once.

For a model whose passes cost by what they compute, and for one that a server has. A small one of this process plays in
lock step (`rollout.py`), since its passes all take about as long. Every episode gets the tokens that its seed draws.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentrl_resources.engines import Engine
from agentrl_resources.learning.player import Player, SampledEpisode
from agentrl_resources.workflow import Task


class Policy(NamedTuple):
    """Where a policy's tokens come from, given how many conversations go on at once, and how an episode begins."""

    engine: Callable[[int], Engine]
    start: Callable[[Task, int], Player]


def play_at_own_pace(
    policies: Sequence[Policy], tasks: Sequence[Task], seeds: Sequence[int], temperature: float
) -> list[list[SampledEpisode]]:
    """One episode per (task, seed) by each of several policies, which take turns pass by pass.

    Args:
        policies: who plays.
        tasks: what to work on.
        seeds: one per task.
        temperature: 0 decodes greedily.
    """

    async def by_all() -> list[list[SampledEpisode]]:
        return list(await asyncio.gather(*(_played(policy, tasks, seeds, temperature) for policy in policies)))

    return asyncio.run(by_all())


async def _played(
    policy: Policy, tasks: Sequence[Task], seeds: Sequence[int], temperature: float
) -> list[SampledEpisode]:
    engine = policy.engine(len(tasks))

    async def episode(task: Task, seed: int) -> SampledEpisode:
        player = policy.start(task, seed)
        conversation = engine.open(seed, player.left)
        waiting = player.begin()
        while not player.done:
            written = await engine.turn(conversation, waiting, temperature, player.left)
            waiting = player.take(written.ids, written.logprobs)
            if player.anew:
                engine.close(conversation)
                conversation = engine.open(seed, player.chosen + player.left, player.chosen)
        seconds = engine.spent(conversation)
        engine.close(conversation)
        tools_ms = sum(call.ms for call in player.sampled.episode.transcript.tool_calls)
        player.sampled.duration_ms = seconds * 1000 + tools_ms
        return player.sampled

    try:
        return list(await asyncio.gather(*(episode(*one) for one in zip(tasks, seeds, strict=True))))
    finally:
        await engine.leave()
