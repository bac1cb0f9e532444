"""What one SFT step takes when one process does it with all cores, and when processes with their share of the cores do.

    .venv/bin/python benchmarks/ranks.py

The built-in model at its default size, batches of the expert's episodes; the ways take turns, round by round.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agentrl_resources.learning import meeting, new_model, repeatable
from agentrl_resources.learning.muon import MuonWithAdamW
from agentrl_resources.learning.sft import counted, language_loss
from agentrl_resources.side_by_side import cores, side_by_side

WARM_UP = 3
"""First steps, which do not count."""


def steps(say: Any, piece: tuple[Path, int, int, int]) -> list[float]:
    """Milliseconds of each step."""
    import torch
    from training_step import SETTINGS, batches

    place, number, count, wanted = piece
    if count == 1:
        torch.set_num_threads(cores())
    repeatable(SETTINGS.seed)
    harmony, inputs = batches(SETTINGS.sft.batch_size, 8)
    model = new_model(SETTINGS.model, harmony.tokenizer).train()
    optimizer = MuonWithAdamW(model, SETTINGS.sft.learning_rate, SETTINGS.sft.matrix_learning_rate or 0.02)
    taken = []
    with meeting(place, number, count) as ranks:
        for step in range(WARM_UP + wanted):
            batch = inputs[step % len(inputs)]
            started = time.perf_counter()
            optimizer.zero_grad()
            ids, labels = batch["input_ids"][number::count], batch["labels"][number::count]
            loss = language_loss(model, ids, labels, ranks.sum(counted(labels).sum()))
            loss.backward()
            ranks.add_gradients(model.parameters(), loss.detach().reshape(1))
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            taken.append((time.perf_counter() - started) * 1000)
    return taken[WARM_UP:]


def main() -> None:
    from ranks import steps  # by the name under which other processes find it

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16, help="steps in a round")
    options = parser.parse_args()
    counts = (1, 2)
    times: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                pieces = [(Path(folder) / "ranks", number, count, options.steps) for number in range(count)]
                times[count] += side_by_side(steps, pieces, lambda *_: None)[0]
    alone = statistics.median(times[1])
    print(f"| a step on {cores()} cores | ms, median | of one process |\n|---|--:|--:|")
    for count, found in times.items():
        median = statistics.median(found)
        print(f"| {count} process{'es' if count > 1 else ''} | {median:.0f} | x{median / alone:.2f} |")


if __name__ == "__main__":
    main()
