"""PPO for multi-turn tool use, with an explicit KL penalty to the frozen SFT reference.

One file, top to bottom. An iteration is: roll out the policy, score whole episodes with the reward model, subtract the
per-token KL, estimate advantages with GAE over the tokens that the agent chose, and take clipped steps. What it takes
care of, because it is what goes wrong elsewhere:

- token in, token out: the update sees the ids, the mask and the log-probabilities of the rollout, never text;
- the trainer's log-probabilities are computed independently of the sampler's and compared before they are used;
- a loss does not depend on how a minibatch is cut into micro-batches: sums over tokens, divided once;
- stop conditions act: non-finite values, a KL ceiling, sampler and trainer that disagree;
- everything an iteration depends on is in its checkpoint, so a resumed run equals an uninterrupted one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentrl_resources.learning.batching import (
    attention_mask,
    micro_batches,
    next_token_logprobs,
    pad,
    token_logprobs,
)
from agentrl_resources.learning.checkpoints import load_checkpoint, load_latest_checkpoint, save_checkpoint
from agentrl_resources.learning.reward import RewardModel
from agentrl_resources.learning.rollout import SampledEpisode, Sampler
from agentrl_resources.settings import PpoSettings
from agentrl_resources.workflow import Task

MAX_SAMPLER_MISMATCH = 0.015
"""Largest KL between sampler and trainer on the sampled tokens, nats per token; prime-rl publishes this bound."""
MAX_SCORE = 4.0
"""Standardised scores are clipped to this many standard deviations of the SFT policy's."""


class PolicyWithValue:
    """The policy and its critic: a value head on the policy's own last hidden state."""

    def __init__(self, policy: Any) -> None:
        import torch

        self.policy = policy
        self.value_head = torch.nn.Linear(policy.config.hidden_size, 1).to(policy.device)
        torch.nn.init.zeros_(self.value_head.weight)
        torch.nn.init.zeros_(self.value_head.bias)

    def parameters(self) -> list[Any]:
        return [*self.policy.parameters(), *self.value_head.parameters()]

    def __call__(self, sequences: Sequence[Sequence[int]], temperature: float) -> tuple[Any, Any, Any]:
        """Log-probability, value before it was chosen, and entropy, of every token: each (batch, tokens)."""
        import torch

        ids = pad(sequences).to(self.policy.device)
        mask = attention_mask(sequences).to(self.policy.device)
        hidden = self.policy.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = self.policy.lm_head(hidden)
        logprobs = next_token_logprobs(logits, ids, temperature)
        values = torch.nn.functional.pad(self.value_head(hidden[:, :-1])[..., 0].float(), (1, 0))
        distribution = torch.log_softmax(logits[:, :-1].float() / temperature, dim=-1)
        entropy = torch.nn.functional.pad(-(distribution.exp() * distribution).sum(-1), (1, 0))
        return logprobs, values, entropy


@dataclass
class Rollout:
    """What one iteration learns from. Per-episode lists over the tokens that the agent chose, but for `ids`, `mask`."""

    ids: list[list[int]]
    mask: list[list[int]]
    logprobs: list[list[float]]
    advantages: list[list[float]] = field(default_factory=list)
    returns: list[list[float]] = field(default_factory=list)


@dataclass
class TrainingState:
    """Everything beside the weights that the next iteration depends on."""

    iteration: int
    kl_coefficient: float
    score_mean: float | None
    score_spread: float | None
    history: list[dict[str, float]]
    stopped: str | None
    kl: float = 0.0
    """Measured KL of the policy as it is kept, nats per episode."""


def gae(
    rewards: Sequence[float], values: Sequence[float], discount: float, lam: float
) -> tuple[list[float], list[float]]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) over one episode's chosen tokens.

    Args:
        rewards: reward after each chosen token.
        values: critic's value before each chosen token.
        discount: gamma.
        lam: lambda.

    Returns:
        Advantages and returns (advantage + value), each as long as `rewards`.
    """
    advantages = [0.0] * len(rewards)
    following = 0.0
    for t in reversed(range(len(rewards))):
        next_value = values[t + 1] if t + 1 < len(values) else 0.0
        delta = rewards[t] + discount * next_value - values[t]
        following = delta + discount * lam * following
        advantages[t] = following
    return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=True)]


def adapted_kl_coefficient(coefficient: float, kl: float, settings: PpoSettings) -> float:
    """Ziegler et al. 2019's controller with a floor: without one the coefficient decays while KL is low, and KL then
    jumps past any ceiling within an iteration."""
    error = min(max(kl / settings.kl_target - 1, -0.2), 0.2)
    return max(coefficient * (1 + 0.5 * error), settings.kl_coefficient_floor)


class PpoTrainer:
    """Trains a policy on a reward model.

    Args:
        sampler: plays episodes with the policy that is trained.
        reference: the frozen SFT checkpoint.
        reward_model: scores whole episodes. The verifier is only watched, never learned from.
        settings: see `PpoSettings`.
        seed: decides tasks' sampling and minibatches.
        checkpoint: folder that holds the last complete iteration.
    """

    def __init__(
        self,
        sampler: Sampler,
        reference: Any,
        reward_model: RewardModel,
        settings: PpoSettings,
        seed: int,
        checkpoint: Path,
    ) -> None:
        import torch

        self.sampler = sampler
        self.model = PolicyWithValue(sampler.model)
        self.reference = reference
        self.reward_model = reward_model
        self.settings = settings
        self.seed = seed
        self.checkpoint = checkpoint
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.state = TrainingState(0, settings.kl_coefficient, None, None, [], None)

    def train(
        self,
        tasks: Callable[[int, int], Sequence[Task]],
        progress: Callable[[TrainingState], None] | None = None,
    ) -> TrainingState:
        """Runs the iterations that are left and returns the final state; the policy is changed in place.

        A last rollout without an update measures what the final policy is like. A policy above the KL ceiling is given
        up for the one before it.

        Args:
            tasks: (iteration, count) -> tasks to roll out.
            progress: called after each iteration.
        """
        self._resume()
        if self.state.iteration == 0:
            self._save()
        while self.state.iteration <= self.settings.iterations and self.state.stopped is None:
            self._iterate(tasks(self.state.iteration, self.settings.episodes))
            self._save()
            if progress is not None:
                progress(self.state)
        return self.state

    def _save(self) -> None:
        weights = {
            "policy": self.model.policy.state_dict(),
            "value_head": self.model.value_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.checkpoint, self.state.iteration, {**weights, "state": asdict(self.state)})

    def _resume(self) -> None:
        saved = load_latest_checkpoint(self.checkpoint)
        if saved is not None:
            self._restore(saved)
            self.state = TrainingState(**saved["state"])

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.policy.load_state_dict(saved["policy"])
        self.model.value_head.load_state_dict(saved["value_head"])
        self.optimizer.load_state_dict(saved["optimizer"])

    def _iterate(self, tasks: Sequence[Task]) -> None:
        state, settings = self.state, self.settings
        seeds = [hash_seed(self.seed, state.iteration, index) for index in range(len(tasks))]
        episodes = self.sampler.play(tasks, seeds, settings.temperature, concurrency=len(tasks))
        rollout, facts = self._prepare(episodes)
        stop = self._reason_to_stop(facts)
        if stop is not None:
            self._restore(load_checkpoint(self.checkpoint, max(0, state.iteration - 1)))
        else:
            state.kl = facts["kl"]
        if stop is None and state.iteration < settings.iterations:
            facts |= self._update(rollout)
            if not facts["finite"]:
                stop = "non-finite loss or gradient; the weights from before this iteration are kept"
                self._restore(load_checkpoint(self.checkpoint, state.iteration))
        facts["kl_coefficient"] = state.kl_coefficient
        state.history.append({"iteration": state.iteration, **facts})
        state.kl_coefficient = adapted_kl_coefficient(state.kl_coefficient, facts["kl"], settings)
        state.iteration += 1
        state.stopped = stop

    def _prepare(self, episodes: Sequence[SampledEpisode]) -> tuple[Rollout, dict[str, float]]:
        """Rewards, advantages, and the facts about this rollout that a person watches."""
        state, settings = self.state, self.settings
        ids = [episode.ids for episode in episodes]
        masks = [episode.mask for episode in episodes]
        scores = self.reward_model.score(ids)
        if state.score_mean is None or state.score_spread is None:
            state.score_mean, state.score_spread = _mean(scores), max(_spread(scores), 1e-6)
        standardised = [
            max(-MAX_SCORE, min(MAX_SCORE, (score - state.score_mean) / state.score_spread)) for score in scores
        ]
        sampled = [_chosen(episode.logprobs, episode.mask) for episode in episodes]
        reference = token_logprobs(self.reference, ids, settings.temperature)
        trainer, values = self._logprobs_and_values(ids)
        rollout = Rollout(ids, masks, [_chosen(row, mask) for row, mask in zip(trainer, masks, strict=True)])
        kls = []
        for i, episode in enumerate(episodes):
            log_ratio = [
                new - old for new, old in zip(rollout.logprobs[i], _chosen(reference[i], episode.mask), strict=True)
            ]
            kls.append(sum(log_ratio))
            rewards = [-state.kl_coefficient * difference for difference in log_ratio]
            rewards[-1] += standardised[i]
            advantages, returns = gae(rewards, _chosen(values[i], episode.mask), settings.discount, settings.gae_lambda)
            rollout.advantages.append(advantages)
            rollout.returns.append(returns)
        rollout.advantages = _whiten(rollout.advantages)
        outcomes = [episode.episode.outcome for episode in episodes]
        mismatch = [
            math.exp(trained - drawn) - 1 - (trained - drawn)
            for one, other in zip(sampled, rollout.logprobs, strict=True)
            for drawn, trained in zip(one, other, strict=True)
        ]
        facts = {
            "raw_score": _mean(scores),  # clipping would hide a value that is not a number
            "score": _mean(standardised),
            "kl": _mean(kls),
            "success": _mean([outcome.success for outcome in outcomes]),
            "safety_violations": _mean([outcome.safety_violation for outcome in outcomes]),
            "tool_errors": _mean([episode.episode.transcript.tool_errors for episode in episodes]),
            "no_action": _mean([not episode.episode.acted for episode in episodes]),
            "tokens_out": _mean([episode.tokens_out for episode in episodes]),
            "sampler_mismatch": _mean(mismatch),
        }
        return rollout, facts

    def _reason_to_stop(self, facts: dict[str, float]) -> str | None:
        if not all(math.isfinite(value) for value in facts.values()):
            return "non-finite value in the rollout"
        if facts["sampler_mismatch"] > MAX_SAMPLER_MISMATCH:
            return f"sampler and trainer disagree by {facts['sampler_mismatch']:.4f} nats a token"
        if facts["kl"] > self.settings.kl_ceiling:
            return f"KL {facts['kl']:.1f} nats is above the ceiling of {self.settings.kl_ceiling:g}"
        return None

    def _logprobs_and_values(self, ids: Sequence[list[int]]) -> tuple[list[list[float]], list[list[float]]]:
        import torch

        logprobs: list[list[float]] = [[] for _ in ids]
        values: list[list[float]] = [[] for _ in ids]
        with torch.inference_mode():
            for group in micro_batches([len(row) for row in ids]):
                rows = self.model([ids[i] for i in group], self.settings.temperature)
                for position, logprob, value in zip(group, rows[0].tolist(), rows[1].tolist(), strict=True):
                    logprobs[position] = logprob[: len(ids[position])]
                    values[position] = value[: len(ids[position])]
        return logprobs, values

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Clipped steps over the rollout, until one is not finite."""
        import torch

        settings = self.settings
        totals: dict[str, float] = {}
        steps = 0
        parameters = self.model.parameters()
        for epoch in range(settings.epochs):
            # the order of a resumed run must be that of an uninterrupted one: no generator outlives its epoch
            generator = torch.Generator().manual_seed(hash_seed(self.seed, self.state.iteration, -1 - epoch))
            order = torch.randperm(len(rollout.ids), generator=generator).tolist()
            for start in range(0, len(order), settings.minibatch):
                facts = self._accumulate(rollout, order[start : start + settings.minibatch])
                norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm))
                if not math.isfinite(norm) or not all(math.isfinite(value) for value in facts.values()):
                    self.optimizer.zero_grad(set_to_none=True)
                    return {**totals, "finite": 0.0}
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                steps += 1
                for name, value in {**facts, "gradient_norm": norm}.items():
                    totals[name] = totals.get(name, 0.0) + value
        return {**{name: total / steps for name, total in totals.items()}, "finite": 1.0}

    def _accumulate(self, rollout: Rollout, minibatch: Sequence[int]) -> dict[str, float]:
        """Gradient of one minibatch's loss: sums over its chosen tokens divided by their number, however it is cut."""
        import torch

        settings = self.settings
        chosen_tokens = sum(len(rollout.logprobs[i]) for i in minibatch)
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "clip_fraction": 0.0, "approximate_kl": 0.0}
        for cut in micro_batches([len(rollout.ids[i]) for i in minibatch]):
            group = [minibatch[position] for position in cut]
            logprobs, values, entropy = self.model([rollout.ids[i] for i in group], settings.temperature)
            mask = pad([rollout.mask[i] for i in group]).bool()
            new, value, entropy = logprobs[mask], values[mask], entropy[mask]
            old, advantage, target = (
                torch.tensor([x for i in group for x in rows[i]], device=new.device)
                for rows in (rollout.logprobs, rollout.advantages, rollout.returns)
            )
            log_ratio = new - old
            ratio = log_ratio.exp()
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).sum() / chosen_tokens
            value_loss = 0.5 * (value - target).square().sum() / chosen_tokens
            entropy_bonus = entropy.sum() / chosen_tokens
            loss = policy_loss + settings.value_coefficient * value_loss - settings.entropy_coefficient * entropy_bonus
            loss.backward()
            sums["policy_loss"] += policy_loss.item()
            sums["value_loss"] += value_loss.item()
            sums["entropy"] += entropy_bonus.item()
            sums["clip_fraction"] += ((ratio - 1).abs() > settings.clip).sum().item() / chosen_tokens
            sums["approximate_kl"] += (ratio - 1 - log_ratio).sum().item() / chosen_tokens
        return sums


def hash_seed(*parts: int) -> int:
    """A 63-bit seed from numbers, the same in every process."""
    from hashlib import sha256

    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def _chosen(row: Sequence[float], mask: Sequence[int]) -> list[float]:
    return [value for value, chosen in zip(row, mask, strict=True) if chosen]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(_mean([(value - mean) ** 2 for value in values]))


def _whiten(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Shifts and scales to mean 0 and standard deviation 1 over all tokens."""
    flat = [value for row in rows for value in row]
    mean, spread = _mean(flat), _spread(flat) + 1e-8
    return [[(value - mean) / spread for value in row] for row in rows]
