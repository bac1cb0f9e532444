"""SFT: the stable baseline, trained with TRL's `SFTTrainer` on what the agent itself wrote."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentrl_resources.engines import is_small
from agentrl_resources.families import Encoded
from agentrl_resources.learning.batching import asked_where, before, bucketed_order, slices_of_a_step
from agentrl_resources.learning.ranks import ALONE, Ranks
from agentrl_resources.learning.sharding import evened
from agentrl_resources.settings import SftSettings

Progress = Callable[[int, int, str], None]
"""Called with (step, of, message)."""


def train_sft(
    model: Any,
    tokenizer: Any,
    train: Sequence[Encoded],
    holdout: Sequence[Encoded],
    settings: SftSettings,
    seed: int,
    work: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Trains `model` in place; the loss counts only tokens that the assistant wrote.

    Every one of `ranks` is given the same arguments.

    Returns:
        `loss` (step and mean training loss per logged interval, nats per token), `holdout_loss` at the end.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class AgentTokensTrainer(SFTTrainer):
        """TRL's trainer, whose loss asks the head only about the tokens that count."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            loss = language_loss(model, inputs["input_ids"], inputs["labels"], inputs.get("of_tokens"))
            return (loss, {}) if return_outputs else loss

        def training_step(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            ids, labels = inputs["input_ids"], inputs["labels"]
            of_tokens = ranks.sum(counted(labels).sum())
            losses = [
                super(AgentTokensTrainer, self).training_step(
                    model,
                    # what counts nothing is divided by infinitely many
                    {"input_ids": ids[rows], "labels": labels[rows], "of_tokens": of_tokens / counts},
                    *arguments,
                    **named,
                )
                for rows, counts in evened(model, slices_of_a_step(model, ids), slice(1))
            ]
            return ranks.add_gradients(model.parameters(), sum(losses).reshape(1))[0]

    lengths = [len(row.ids) for row in train]
    order = ranks.share(bucketed_order(lengths, settings.batch_size, settings.epochs, seed))
    trainer = AgentTokensTrainer(
        model=model,
        args=SFTConfig(
            per_device_train_batch_size=settings.batch_size // ranks.count,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_fraction,
            router_aux_loss_coef=0.0,  # a default of 0.9 outweighs the language loss in a model of four experts
            max_length=None,
            seed=seed,
            **trainer_arguments(work, model),
        ),
        train_dataset=Dataset.from_list([{"input_ids": train[i].ids, "assistant_masks": train[i].mask} for i in order]),
        eval_dataset=Dataset.from_list([{"input_ids": row.ids, "assistant_masks": row.mask} for row in holdout]),
        processing_class=tokenizer,
        callbacks=[progress_callback(progress)],
        optimizers=(optimizer_for(model, settings.learning_rate, settings.matrix_learning_rate), None),
    )
    trainer.train()
    logged = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return {"loss": logged, "holdout_loss": trainer.evaluate()["eval_loss"]}


def language_loss(model: Any, ids: Any, labels: Any, of_tokens: Any = None) -> Any:
    """Cross-entropy in nats, summed over the tokens that have a label (not -100) and divided by their number.

    `ids`, `labels`: (batch, tokens), padded on the right. `of_tokens`: the number to divide by, where these are only a
    part of what the mean is of.
    """
    import torch
    from torch.nn.functional import cross_entropy

    counts = counted(labels)

    def ask(logits: Any, answers: Any) -> Any:
        return torch.stack([cross_entropy(logits, answers, reduction="sum")])

    whole = asked_where(model, ids, before(counts), labels[counts], ask).sum()
    return whole / (counts.sum() if of_tokens is None else of_tokens)


def counted(labels: Any) -> Any:
    """Which tokens have a label and something before them that predicts them: like `labels`, of bool."""
    counts = labels != -100
    counts[:, 0] = False
    return counts


def optimizer_for(model: Any, learning_rate: float, matrix_learning_rate: float | None) -> Any:
    """Muon beside AdamW; or None, which leaves everything to the Trainer's own AdamW."""
    if matrix_learning_rate is None:
        return None
    from agentrl_resources.learning.muon import MuonWithAdamW

    return MuonWithAdamW(model, learning_rate, matrix_learning_rate)


def trainer_arguments(work: Path, model: Any) -> dict[str, Any]:
    """What SFT and reward model training share: float32, one device, no reporting, no checkpoints of its own. A step of
    a larger model takes seconds, so each of them is told."""
    return {
        "output_dir": str(work),
        "per_device_eval_batch_size": 64,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.05},
        "adam_beta2": 0.98,
        "weight_decay": 0.01,
        "bf16": False,
        "gradient_checkpointing": False,
        "num_train_epochs": 1,  # the data are given in the order of training, all passes after each other
        "train_sampling_strategy": "sequential",
        "dataloader_pin_memory": False,
        "logging_steps": 10 if is_small(model) else 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def progress_callback(progress: Progress) -> Any:
    """A Trainer callback that reports every logged step."""
    from transformers import TrainerCallback

    class Reports(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                progress(state.global_step, state.max_steps, f"loss {float(logs['loss']):.3f}")

    return Reports()
