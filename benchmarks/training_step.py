"""What one SFT step takes, and what each thing that makes it short is worth: ours, and ours without it, as a table.

    .venv/bin/python benchmarks/training_step.py

The built-in model at its default size, batches of the expert's episodes; the variants take turns, round by round.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from agentrl_resources.families.gpt_oss import Harmony, pointwise, sinks, train_tokenizer
from agentrl_resources.learning import new_model, repeatable
from agentrl_resources.learning.batching import pad
from agentrl_resources.learning.model import device
from agentrl_resources.learning.muon import MuonWithAdamW
from agentrl_resources.learning.sft import language_loss
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
    """Batches with `labels`: what a model's forward pass takes, and the agent's tokens (-100 elsewhere)."""
    factory = EpisodeFactory(load_workflow("order_desk"))
    tasks = factory.workflow.tasks("train", size * count, 1)
    episodes = [factory.play(task, factory.workflow.scripted_agents(task)["expert"]) for task in tasks]
    messages = [episode.transcript.messages[1:] for episode in episodes]
    blank = Harmony(train_tokenizer([], [], 300), factory.tools, factory.workflow.instructions)
    texts = [text for one in messages for text in blank.texts(one)]
    tokenizer = train_tokenizer(texts, blank.constant_texts(), SETTINGS.model.vocabulary)
    harmony = Harmony(tokenizer, factory.tools, factory.workflow.instructions)
    encoded = [harmony.encode(one, first_chosen=1) for one in messages]
    found = []
    for start in range(0, len(encoded), size):
        rows = encoded[start : start + size]
        labels = [[i if chosen else -100 for i, chosen in zip(r.ids, r.mask, strict=True)] for r in rows]
        ids, labels = pad([row.ids for row in rows]).to(device()), pad(labels, -100).to(device())
        found.append({"input_ids": ids, "labels": labels, "use_cache": False})
    return harmony, found


def short_loss(model: Any, batch: dict[str, Any]) -> Any:
    return language_loss(model, batch["input_ids"], batch["labels"])


def whole_loss(model: Any, batch: dict[str, Any]) -> Any:
    return model(**batch).loss


@contextmanager
def a_key_for_each_sink() -> Iterator[None]:
    class OneMore:
        @staticmethod
        def apply(query: Any, key: Any, value: Any, sinks: Any, mask: Any, causal: bool, scaling: float) -> Any:
            return sinks._with_a_key_more(query, key, value, sinks, mask, scaling, 0.0)

    with mock.patch.object(sinks, "_WithSinks", OneMore):
        yield


@contextmanager
def left_to_autograd() -> Iterator[None]:
    with mock.patch.object(pointwise, "_written_out", return_value=False):
        yield


@dataclass(frozen=True)
class Variant:
    optimizer: Callable[..., Any] = MuonWithAdamW
    loss: Callable[[Any, dict[str, Any]], Any] = short_loss
    experts: str = "few_experts"
    sinks: Callable[[], AbstractContextManager[None]] = nullcontext
    in_order: bool = True
    pieces: Callable[[], AbstractContextManager[None]] = nullcontext


VARIANTS = {
    "ours": Variant(),
    "logits of every token": Variant(loss=whole_loss),
    "tokens sorted by expert (grouped_mm)": Variant(experts="grouped_mm"),
    "a key more for each sink": Variant(sinks=a_key_for_each_sink),
    "all three": Variant(loss=whole_loss, experts="grouped_mm", sinks=a_key_for_each_sink),
    "norm, gate and rotation left to autograd": Variant(pieces=left_to_autograd),
    "torch.optim.Muon": Variant(optimizer=WithTorchs),
    "sums in any order": Variant(in_order=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="steps in a round")
    options = parser.parse_args()
    harmony, inputs = batches(SETTINGS.sft.batch_size, options.steps)
    trained = {}
    for name, variant in VARIANTS.items():
        repeatable(SETTINGS.seed)
        model = new_model(SETTINGS.model, harmony.tokenizer)
        model.set_experts_implementation(variant.experts)
        optimizer = variant.optimizer(model, SETTINGS.sft.learning_rate, SETTINGS.sft.matrix_learning_rate or 0.02)
        trained[name] = model, optimizer
    milliseconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(options.rounds + 1):
        for name, variant in VARIANTS.items():
            torch.use_deterministic_algorithms(variant.in_order, warn_only=True)
            model, optimizer = trained[name]
            started = time.perf_counter()
            with variant.sinks(), variant.pieces():
                for batch in inputs:
                    variant.loss(model, batch).backward()
                    optimizer.step()
                    optimizer.zero_grad()
            if number:  # the first round warms up
                milliseconds[name].append(1000 * (time.perf_counter() - started) / len(inputs))
    ours = statistics.median(milliseconds["ours"])
    print(f"{torch.get_num_threads()} threads\n\n| a step | ms, median | of ours |\n|---|--:|--:|")
    for name, taken in milliseconds.items():
        print(f"| {name} | {statistics.median(taken):.0f} | x{statistics.median(taken) / ours:.2f} |")


if __name__ == "__main__":
    main()
