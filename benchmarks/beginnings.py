"""A training step of a real model whose conversations begin alike: the beginning read once, and with every row.

    .venv/bin/python benchmarks/beginnings.py FOLDER

FOLDER holds a base (`python examples/models/fetch_smollm2.py`). Conversations with the same instructions and tools and
ends of their own; loss and gradients of an adapter. The two ways take turns.
"""

import argparse
import statistics
import time
from unittest import mock

import torch

from agentrl_resources.learning import beginnings, new_model, repeatable
from agentrl_resources.learning.batching import slices_of_a_step
from agentrl_resources.learning.sft import counted, language_loss
from agentrl_resources.settings import ModelSettings, PolicySettings

WAYS = {"with every row": 10**9, "once": beginnings.WORTH_IT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--alike", type=int, default=600, help="tokens that all begin with")
    parser.add_argument("--own", type=int, default=250, help="tokens of each one's own, of which a third is learned")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    repeatable(17)
    model = new_model(ModelSettings(base=options.base), None, PolicySettings(adapter="lora"), 17)
    beginning = torch.randint(100, 4000, (1, options.alike)).expand(options.rows, -1)
    ids = torch.cat([beginning, torch.randint(100, 4000, (options.rows, options.own))], dim=1)
    labels = ids.clone()
    labels[:, : -(options.own // 3)] = -100
    of_tokens = counted(labels).sum()

    def step() -> float:
        model.zero_grad()
        losses = []
        for rows in slices_of_a_step(model, ids):
            loss = language_loss(model, ids[rows], labels[rows], of_tokens)
            loss.backward()
            losses.append(loss.item())
        return sum(losses)

    language_loss(model, ids[:1], labels[:1])  # what is found out once
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, worth_it in WAYS.items():
            with mock.patch.object(beginnings, "WORTH_IT", worth_it):
                started = time.perf_counter()
                loss = step()
                seconds[way].append(time.perf_counter() - started)
            print(f"{way}: {seconds[way][-1]:.1f} s, loss {loss:.6f}", flush=True)
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    print(f"\n| {options.rows} rows of {options.alike} + {options.own} tokens | seconds a step | of the first |")
    print("|---|--:|--:|")
    for way, median in medians.items():
        print(f"| {way} | {median:.1f} | x{median / medians['with every row']:.2f} |")


if __name__ == "__main__":
    main()
