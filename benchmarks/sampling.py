"""What sampling takes: with two threads or two processes, and with engines that take turns or do not, as two tables.

    .venv/bin/python benchmarks/sampling.py

The policies are built-in models of the default size without training, which talk until their budget is spent; so this
is work, not answers. The variants take turns, round by round.
"""

import argparse
import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from training_step import SETTINGS, batches

from agentrl_resources.engines import Engine, LocalEngine
from agentrl_resources.engines import local as engine_module
from agentrl_resources.learning import Sampler, new_model, repeatable
from agentrl_resources.side_by_side import Say, cores, side_by_side
from agentrl_resources.workflow import EpisodeFactory, load_workflow


def policy() -> tuple[Any, Sampler]:
    harmony, _ = batches(16, 2)
    repeatable(SETTINGS.seed)
    model = new_model(SETTINGS.model, harmony.tokenizer).eval()
    return model, Sampler(model, harmony, EpisodeFactory(load_workflow("order_desk")))


def rollouts(say: Say, piece: tuple[int, int, int]) -> float:
    """Seconds for one process's episodes, without what it takes to start."""
    first, episodes, threads = piece
    torch.set_num_threads(threads)
    _, sampler = policy()
    tasks = sampler.factory.workflow.tasks("train", first + episodes, 1)[first:]
    sampler.play(tasks[:16], range(16), 1.0, 16)
    started = time.perf_counter()
    sampler.play(tasks, range(first, first + episodes), 1.0, 384)
    return time.perf_counter() - started


def with_processes(processes: int, threads: int, episodes: int) -> float:
    pieces = [(number * (episodes // processes), episodes // processes, threads) for number in range(processes)]
    return max(side_by_side(rollouts, pieces, lambda *_: None))


async def conversations(engines: list[Engine], at_once: int, tokens: int) -> float:
    """Seconds until `at_once` conversations, shared out over the engines, have sampled so many tokens each."""

    async def one(engine: Engine, seed: int) -> None:
        conversation = engine.open(seed, tokens)
        await engine.turn(conversation, [1], 1.0, tokens)
        engine.close(conversation)

    started = time.perf_counter()
    await asyncio.gather(*(one(engines[number % len(engines)], number) for number in range(at_once)))
    return time.perf_counter() - started


def engines_in_one_process(in_turn: bool, at_once: int) -> float:
    torch.set_num_threads(1)
    model, _ = policy()
    lock = engine_module._COMPUTING
    engine_module._COMPUTING = lock if in_turn else contextlib.nullcontext()  # type: ignore[assignment]
    engines = [LocalEngine(model, (), rows=at_once) for _ in range(2)]
    try:
        return asyncio.run(conversations(engines, at_once, 100))
    finally:
        for engine in engines:
            engine.stop()
        engine_module._COMPUTING = lock


def compared(title: str, variants: dict[str, Callable[[], float]], rounds: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            seconds[name].append(run())
    first = statistics.median(next(iter(seconds.values())))
    print(f"| {title} | seconds, median of {rounds} | times as fast |\n|---|--:|--:|")
    for name, taken in seconds.items():
        print(f"| {name} | {statistics.median(taken):.2f} | x{first / statistics.median(taken):.2f} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=768)
    options = parser.parse_args()
    print(f"{cores()} cores, {threading.active_count()} thread at the start\n")
    compared(
        f"{options.episodes} episodes",
        {
            f"one process, {threads} threads" if processes == 1 else f"{processes} processes, one thread each": partial(
                with_processes, processes, threads, options.episodes
            )
            for processes, threads in ((1, cores()), (cores(), 1))
        },
        options.rounds,
    )
    for at_once in (24, 96):
        compared(
            f"{at_once} conversations of 100 tokens, two engines in a process",
            {
                "both at once": partial(engines_in_one_process, False, at_once),
                "in turn": partial(engines_in_one_process, True, at_once),
            },
            options.rounds,
        )


if __name__ == "__main__":
    main()
