"""What it takes to play with a real model: one token a pass, in lock step, and at each conversation's own pace.

    .venv/bin/python benchmarks/schedules.py FOLDER

FOLDER holds a base (`python examples/models/fetch_smollm2.py`). Conversations with a prompt of 1,000 tokens, of which
all but the last 40 are the same, as instructions and tools are; each then writes some tokens. The ways take turns.
"""

import argparse
import asyncio
import statistics
import time
from typing import Any
from unittest import mock

import torch

from agentrl_resources.engines import LocalEngine, buffered_cache
from agentrl_resources.engines import local as engines
from agentrl_resources.learning import load_policy, repeatable

TAIL = 40


def one_token_a_pass(model: Any, prompts: list[list[int]], written: int) -> None:
    cache, fed = buffered_cache(model.config), torch.tensor(prompts)
    said = fed[:, 0]
    with torch.inference_mode():
        for place in range(fed.shape[1] + written):
            step = fed[:, place : place + 1] if place < fed.shape[1] else said[:, None]
            logits = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            said = logits[:, -1].argmax(-1)


def at_own_pace(model: Any, prompts: list[list[int]], written: int) -> None:
    engine = LocalEngine(model, (), len(prompts))

    async def all_of_them() -> None:
        turns = [engine.turn(engine.open(0, written), ids, 0.0, written) for ids in prompts]
        await asyncio.gather(*turns)

    asyncio.run(all_of_them())
    engine.stop()


def nothing_shared(model: Any, prompts: list[list[int]], written: int) -> None:
    with mock.patch.object(engines, "SHARED_FROM", 10**9):
        at_own_pace(model, prompts, written)


WAYS = {"one token a pass": one_token_a_pass, "read at once": nothing_shared, "and what is shared once": at_own_pace}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--tokens", type=int, default=1000, help="of a prompt")
    parser.add_argument("--written", type=int, default=16)
    parser.add_argument("--conversations", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    repeatable(0)
    model = load_policy(options.base).eval()
    generator = torch.Generator().manual_seed(1)
    beginning = torch.randint(10, 1000, (options.tokens - TAIL,), generator=generator).tolist()
    print(f"| {options.tokens} tokens read, {options.written} written | seconds | times as fast |\n|---|--:|--:|")
    for count in options.conversations:
        tails = torch.randint(10, 1000, (count, TAIL), generator=generator).tolist()
        prompts = [beginning + tail for tail in tails]
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, play in WAYS.items():
                started = time.perf_counter()
                play(model, prompts, options.written)
                taken[way].append(time.perf_counter() - started)
        slowest = statistics.median(taken["one token a pass"])
        for way, seconds in taken.items():
            median = statistics.median(seconds)
            print(f"| {count} conversations, {way} | {median:.1f} | {slowest / median:.1f} |")


if __name__ == "__main__":
    main()
