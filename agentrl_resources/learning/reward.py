"""The reward model: Bradley-Terry over whole episodes, trained by TRL's `RewardTrainer`, with its calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.learning.batching import attention_mask, bucketed_order, micro_batches, pad
from agentrl_resources.learning.model import load_classifier
from agentrl_resources.learning.sft import Progress, optimizer_for, progress_callback, trainer_arguments
from agentrl_resources.settings import RewardSettings


class RewardModel:
    """Scores token sequences; higher is better. P(a beats b) = sigmoid(score(a) - score(b))."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    @classmethod
    def load(cls, folder: Path) -> "RewardModel":
        return cls(load_classifier(folder))

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One score per sequence, in the given order."""
        import torch

        scores = [0.0] * len(sequences)
        with torch.inference_mode():
            for group in micro_batches([len(sequence) for sequence in sequences]):
                batch = [sequences[position] for position in group]
                logits = self.model(
                    input_ids=pad(batch, self.model.config.pad_token_id).to(self.model.device),
                    attention_mask=attention_mask(batch).to(self.model.device),
                    use_cache=False,
                ).logits
                for position, score in zip(group, logits[:, 0].float().tolist(), strict=True):
                    scores[position] = score
        return scores


@dataclass(frozen=True)
class EncodedPair:
    """Two whole episodes as token ids, the better one first."""

    chosen: list[int]
    rejected: list[int]


def train_reward_model(
    base: Any,
    tokenizer: Any,
    pairs: Sequence[EncodedPair],
    settings: RewardSettings,
    seed: int,
    work: Path,
    progress: Progress,
) -> tuple[RewardModel, list[tuple[int, float]]]:
    """Trains a sequence classifier with one output, in place, on the Bradley-Terry loss.

    Returns:
        The reward model, and its training loss as (step, nats per pair).
    """
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    lengths = [max(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    order = bucketed_order(lengths, settings.batch_size, settings.epochs, seed)
    rows = [{"chosen_ids": pairs[i].chosen, "rejected_ids": pairs[i].rejected} for i in order]
    trainer = RewardTrainer(
        model=base,
        args=RewardConfig(
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=10,
            max_length=None,
            seed=seed,
            **trainer_arguments(work),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[progress_callback(progress)],
        optimizers=(optimizer_for(base, settings.learning_rate, settings.matrix_learning_rate), None),
    )
    trainer.train()
    loss = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return RewardModel(base), loss
