"""What one SFT step takes with torch's Muon and with ours, and with and without repeatable sums, as a table.

    .venv/bin/python benchmarks/training_step.py

The built-in model at its default size, batches of the expert's episodes; the variants take turns, round by round.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from agentrl_resources.learning import Harmony, new_model, repeatable, train_tokenizer
from agentrl_resources.learning.batching import model_inputs
from agentrl_resources.learning.model import device
from agentrl_resources.learning.muon import MuonWithAdamW
from agentrl_resources.settings import load_settings
from agentrl_resources.workflow import EpisodeFactory, load_workflow

SETTINGS = load_settings(Path(__file__).parents[1] / "workflow.yaml")


class WithTorchs(MuonWithAdamW):
    """The same division of the weights, with torch's own Muon."""

    def __init__(self, model: Any, learning_rate: float, matrix_learning_rate: float) -> None:
        super().__init__(model, learning_rate, matrix_learning_rate)
        matrices = self.optimizers[0].param_groups[0]["params"]
        theirs = torch.optim.Muon(matrices, lr=matrix_learning_rate, weight_decay=0.01)
        self.optimizers = (theirs, self.optimizers[1])  # type: ignore[assignment]


def batches(size: int, count: int) -> tuple[Harmony, list[dict[str, Any]]]:
    factory = EpisodeFactory(load_workflow("order_desk"))
    tasks = factory.workflow.tasks("train", size * count, 1)
    episodes = [factory.play(task, factory.workflow.scripted_agents(task)["expert"]) for task in tasks]
    messages = [episode.transcript.messages[1:] for episode in episodes]
    blank = Harmony(train_tokenizer([], [], 300), factory.tools, factory.workflow.instructions)
    texts = [text for one in messages for text in blank.texts(one)]
    tokenizer = train_tokenizer(texts, blank.constant_texts(), SETTINGS.model.vocabulary)
    harmony = Harmony(tokenizer, factory.tools, factory.workflow.instructions)
    ids = [harmony.encode(one, first_chosen=1).ids for one in messages]
    return harmony, [model_inputs(ids[start : start + size], device()) for start in range(0, len(ids), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="steps in a round")
    options = parser.parse_args()
    harmony, inputs = batches(SETTINGS.sft.batch_size, options.steps)
    variants = {
        "torch.optim.Muon": (WithTorchs, True),
        "ours": (MuonWithAdamW, True),
        "ours, sums in any order": (MuonWithAdamW, False),
    }
    trained = {}
    for name, (optimizer, _) in variants.items():
        repeatable(SETTINGS.seed)
        model = new_model(SETTINGS.model, harmony.tokenizer)
        trained[name] = model, optimizer(model, SETTINGS.sft.learning_rate, SETTINGS.sft.matrix_learning_rate or 0.02)
    milliseconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(options.rounds + 1):
        for name, (_, in_order) in variants.items():
            torch.use_deterministic_algorithms(in_order, warn_only=True)
            model, optimizer = trained[name]
            started = time.perf_counter()
            for batch in inputs:
                model(**batch, labels=batch["input_ids"]).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            if number:  # the first round warms up
                milliseconds[name].append(1000 * (time.perf_counter() - started) / len(inputs))
    ours = statistics.median(milliseconds["ours"])
    print("| optimizer | ms a step, median | of ours |\n|---|--:|--:|")
    for name, taken in milliseconds.items():
        print(f"| {name} | {statistics.median(taken):.0f} | x{statistics.median(taken) / ours:.2f} |")


if __name__ == "__main__":
    main()
