"""The reward model: Bradley-Terry over whole episodes, trained by TRL's `RewardTrainer`, with its calibration.

The score of an episode is the mean of what a token classifier says where the agent was about to choose a token. A wrong
note or call is seen where it stands, and nothing has to be carried to the last token, from which classifiers usually
read: for a small model on long episodes that decides what it can learn (docs/architecture.md has the numbers). The same
mean over an episode's beginning is the critic's first guess (see ppo.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agentrl_resources.engines import upcast
from agentrl_resources.families import Encoded, standing
from agentrl_resources.learning.batching import (
    Tokens,
    before,
    bucketed_order,
    in_micro_batches,
    pad,
    slices_of_a_step,
)
from agentrl_resources.learning.beginnings import beginning, read_behind
from agentrl_resources.learning.model import load_scorer
from agentrl_resources.learning.player import Played
from agentrl_resources.learning.ranks import ALONE, Ranks
from agentrl_resources.learning.sft import Progress, optimizer_for, progress_callback, trainer_arguments
from agentrl_resources.learning.sharding import evened
from agentrl_resources.settings import RewardSettings

SCALE = 10.0
"""Factor of the mean: of the tens of tokens that an agent chooses, a few must be able to decide."""

WARMUP_STEPS = 10
"""Steps in which the learning rate rises; of a short training a tenth, or it would end before it began to learn."""


def running_scores(scorer: Any, ids: Any, mask: Any) -> Any:
    """The score of each episode as far as it has come.

    Args:
        scorer: token classifier with one output.
        ids: (batch, tokens), padded on the right.
        mask: (batch, tokens), 1 where the agent chose the token.

    Returns:
        (batch, tokens): entry t is the score when token t is about to be chosen. The last column is that of the whole
        episode; an episode in which the agent chose nothing has 0.
    """
    from torch.nn.functional import pad as pad_tensor

    start = beginning(scorer, ids, before(mask))
    said = pad_tensor(upcast(read_behind(scorer, ids, start).logits[:, :-1, 0]), (start, 0))
    before_chosen = mask[:, 1:]
    mean = (said * before_chosen).cumsum(1) / before_chosen.cumsum(1).clamp(min=1)
    return pad_tensor(SCALE * mean, (1, 0))


def scorer_inputs(episodes: Sequence[Tokens], device: Any = None) -> tuple[Any, Any]:
    """What `running_scores` takes for a batch of episodes."""
    ids, mask = (pad(rows).to(device) for rows in ([one.ids for one in episodes], [one.mask for one in episodes]))
    return ids, mask


class RewardModel:
    """Scores episodes; higher is better. P(a beats b) = sigmoid(score(a) - score(b))."""

    def __init__(self, scorer: Any) -> None:
        self.scorer = scorer.eval()

    @classmethod
    def load(cls, folder: Path) -> "RewardModel":
        return cls(load_scorer(folder))

    def score(self, episodes: Sequence[Tokens]) -> list[float]:
        """One score per episode, in the given order."""

        def of_batch(batch: Sequence[Tokens]) -> list[float]:
            return running_scores(self.scorer, *scorer_inputs(batch, self.scorer.device))[:, -1].tolist()

        return in_micro_batches(self.scorer, episodes, of_batch)


class Reward(Protocol):
    """What PPO learns from."""

    def score(self, episodes: Sequence[Played]) -> list[float]:
        """One score per episode, on any scale; higher is better."""
        ...


@dataclass(frozen=True)
class WeightedReward:
    """What a reward model says of an episode and what its verifier says of it (quality, 0 to 1), each by its weight."""

    model: RewardModel | None
    model_weight: float = 1.0
    verifier_weight: float = 0.0

    def score(self, episodes: Sequence[Played]) -> list[float]:
        scores = [self.verifier_weight * episode.quality for episode in episodes]
        if self.model is None or self.model_weight == 0:
            return scores
        by_model = self.model.score([standing(episode.rows) for episode in episodes])
        return [self.model_weight * one + other for one, other in zip(by_model, scores, strict=True)]


@dataclass(frozen=True)
class EncodedPair:
    """Two whole episodes, the better one first."""

    chosen: Encoded
    rejected: Encoded


def train_reward_model(
    scorer: Any,
    tokenizer: Any,
    pairs: Sequence[EncodedPair],
    settings: RewardSettings,
    seed: int,
    work: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> tuple[RewardModel, list[tuple[int, float]]]:
    """Trains a token classifier with one output, in place, on the Bradley-Terry loss.

    Every one of `ranks` is given the same arguments.

    Returns:
        The reward model, and its training loss as (step, nats per pair).
    """
    import torch
    from datasets import Dataset
    from torch.nn.functional import logsigmoid
    from trl import RewardConfig, RewardTrainer

    class EpisodeRewardTrainer(RewardTrainer):
        """TRL's trainer, with the score read from all of the agent's tokens."""

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            chosen, rejected = running_scores(model, inputs["input_ids"], inputs["mask"])[:, -1].chunk(2)
            # the data say nothing of the two together, so they are held around 0: episodes of different tasks compare
            centered = settings.centering * (chosen + rejected).square()
            return (centered - logsigmoid(chosen - rejected)).sum() / inputs["of_pairs"]

        def training_step(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            sides = {name: inputs[name].chunk(2) for name in ("input_ids", "mask")}
            of_pairs = ranks.sum(torch.tensor(float(len(sides["mask"][0])), device=inputs["mask"].device))
            losses = []
            for rows, counts in evened(model, slices_of_a_step(model, *sides["input_ids"]), slice(1)):
                part = {name: torch.cat([side[rows] for side in both]) for name, both in sides.items()}
                part["of_pairs"] = of_pairs / counts  # what counts nothing is divided by infinitely many
                losses.append(super().training_step(model, part, *arguments, **named))
            return ranks.add_gradients(model.parameters(), sum(losses).reshape(1))[0]

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        sides = [Encoded(row[f"{side}_ids"], row[f"{side}_mask"]) for side in ("chosen", "rejected") for row in rows]
        return dict(zip(("input_ids", "mask"), scorer_inputs(sides), strict=True))

    lengths = [max(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in pairs]
    order = ranks.share(bucketed_order(lengths, settings.batch_size, settings.epochs, seed))
    rows = [
        {"chosen_ids": pair.chosen.ids, "rejected_ids": pair.rejected.ids,
         "chosen_mask": pair.chosen.mask, "rejected_mask": pair.rejected.mask}
        for pair in (pairs[i] for i in order)
    ]  # fmt: skip
    trainer = EpisodeRewardTrainer(
        model=scorer,
        args=RewardConfig(
            per_device_train_batch_size=settings.batch_size // ranks.count,
            learning_rate=settings.learning_rate,
            warmup_steps=min(WARMUP_STEPS, len(order) * ranks.count // settings.batch_size // 10),
            max_length=None,
            seed=seed,
            remove_unused_columns=False,
            **trainer_arguments(work, scorer),
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[progress_callback(progress)],
        optimizers=(optimizer_for(scorer, settings.learning_rate, settings.matrix_learning_rate), None),
    )
    trainer.train()
    loss = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return RewardModel(scorer), loss
