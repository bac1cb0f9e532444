"""PPO for multi-turn tool use, with an explicit KL penalty to the frozen SFT reference.

One file, top to bottom. An iteration is: roll out the policy, score whole episodes with the reward model, subtract the
per-token KL, estimate advantages with GAE over the tokens that the agent chose, and take clipped steps. The critic is a
network of its own that starts as the reward model, read over each episode's beginning (Ouyang et al. 2022): what it
learns does not disturb the policy, and it need not learn again what makes a score. What this file takes care of,
because it is what goes wrong elsewhere:

- token in, token out: the update sees the ids, the mask and the log-probabilities of the rollout, never text;
- the trainer's log-probabilities are computed independently of the sampler's and compared before they are used;
- a loss does not depend on how a minibatch is cut into micro-batches: sums over tokens, divided once;
- stop conditions act: non-finite values, a KL ceiling, sampler and trainer that disagree;
- everything an iteration depends on is in its checkpoint, so a resumed run equals an uninterrupted one.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import standing
from agentrl_resources.learning.adapters import as_in, copied, learned, put_back
from agentrl_resources.learning.ahead import Ahead
from agentrl_resources.learning.batching import (
    Tokens,
    asked_where,
    before,
    chosen_logprobs,
    in_micro_batches,
    micro_batches,
    pad,
    unpadded,
)
from agentrl_resources.learning.beginnings import alike
from agentrl_resources.learning.checkpoints import load_checkpoint, load_latest_checkpoint, save_checkpoint
from agentrl_resources.learning.mismatch import mismatch, weights
from agentrl_resources.learning.model import recompute_from_here
from agentrl_resources.learning.player import Played
from agentrl_resources.learning.ranks import ALONE, Ranks
from agentrl_resources.learning.reward import Reward, RewardModel, running_scores, scorer_inputs
from agentrl_resources.learning.rollout import Sampler
from agentrl_resources.learning.sharding import evened, full, into_optimizer, together
from agentrl_resources.settings import PpoSettings
from agentrl_resources.workflow import Task

MAX_SAMPLER_MISMATCH = 0.015
"""Largest KL between sampler and trainer on the sampled tokens, nats per token; prime-rl publishes this bound."""


@dataclass
class Rollout:
    """What one iteration learns from. Beside the rows of all episodes: lists over the tokens that the agent chose in
    each."""

    rows: Sequence[Tokens]
    logprobs: list[list[float]] = field(default_factory=list)
    advantages: list[list[float]] = field(default_factory=list)
    returns: list[list[float]] = field(default_factory=list)
    weights: list[list[float]] = field(default_factory=list)
    """What each token counts in the policy's loss."""


@dataclass
class TrainingState:
    """Everything beside the weights that the next iteration depends on."""

    iteration: int
    kl_coefficient: float
    score_mean: float | None
    score_spread: float | None
    history: list[dict[str, float]]
    stopped: str | None
    value_mean: float = 0.0
    value_spread: float = 1.0
    """What the critic said of the first rollout's episodes, as what it says of any is read."""
    kl: float = 0.0
    """Measured KL of the policy as it is kept, nats per episode."""


def gae(rewards: Sequence[float], values: Sequence[float], discount: float, lam: float) -> list[float]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16) over one episode's chosen tokens.

    Args:
        rewards: reward after each chosen token.
        values: critic's value before each chosen token.
        discount: gamma.
        lam: lambda.

    Returns:
        Advantages, as long as `rewards`.
    """
    advantages = [0.0] * len(rewards)
    following = 0.0
    for t in reversed(range(len(rewards))):
        next_value = values[t + 1] if t + 1 < len(values) else 0.0
        delta = rewards[t] + discount * next_value - values[t]
        following = delta + discount * lam * following
        advantages[t] = following
    return advantages


def returns_to_go(rewards: Sequence[float], discount: float) -> list[float]:
    """Discounted sum of the rewards from each chosen token on."""
    return gae(rewards, [0.0] * len(rewards), discount, 1.0)


def adapted_kl_coefficient(coefficient: float, kl: float, settings: PpoSettings) -> float:
    """Ziegler et al. 2019's controller, quicker upwards than down, and with a floor.

    A run starts with no KL at all, which says nothing of what the reward will ask for: without a floor the coefficient
    decays meanwhile, and KL then jumps past its target within some iterations, in which a coefficient that grows by a
    tenth at most cannot catch up.
    """
    error = min(max(kl / settings.kl_target - 1, -0.2), 1.0)
    return max(coefficient * (1 + 0.5 * error), settings.kl_coefficient_floor)


def bounded_reward(score: float) -> float:
    """A standardised score as a reward between -2 and 2, of slope 1 at the SFT policy's mean.

    Twice the hyperbolic tangent of half the score, which is 4 (sigmoid(score) - 1/2), after Fu et al. 2025 ("Reward
    shaping to mitigate reward hacking in RLHF"), with the SFT policy's mean as the one reference of all tasks. Without
    a bound the surest way up is to make good episodes look better still, which is where a reward model is wrong first;
    with it, what pays is that bad ones become good.
    """
    return 2.0 * math.tanh(score / 2.0)


class PpoTrainer:
    """Trains a policy on a reward model.

    Args:
        sampler: plays episodes with the policy that is trained.
        reference: the frozen SFT checkpoint.
        reward: scores whole episodes. Success is only watched, never learned from.
        critic: a token classifier with one output that starts with the reward model's weights.
        settings: see `PpoSettings`.
        seed: decides tasks' sampling and minibatches.
        checkpoint: folder that holds the last complete iteration.
        ranks: who trains together. Each is given the same, plays and scores its part of the episodes, and computes its
            part of every gradient.
    """

    def __init__(
        self,
        sampler: Sampler,
        reference: Any,
        reward: Reward,
        critic: Any,
        settings: PpoSettings,
        seed: int,
        checkpoint: Path,
        ranks: Ranks = ALONE,
    ) -> None:
        import torch

        self.sampler = sampler
        self.policy = sampler.model
        self.reference = reference
        self.reward = reward
        self.critic = critic.eval()
        self.settings = settings
        self.seed = seed
        self.checkpoint = checkpoint
        self.ranks = ranks
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(learned(self.policy).values()), "lr": settings.learning_rate},
                {"params": list(learned(critic).values()), "lr": settings.critic_learning_rate},
            ],
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )
        self.state = TrainingState(0, settings.kl_coefficient, None, None, [], None)
        self.ahead: Ahead | None = None
        """The next iteration's rollout, where it has been played already."""
        self.mean: dict[str, Any] = {}
        """The policy's weights, averaged over the updates so far that count for the final policy."""

    def train(
        self,
        tasks: Callable[[int, int], Sequence[Task]],
        progress: Callable[[TrainingState], None] | None = None,
    ) -> TrainingState:
        """Runs the iterations that are left and returns the final state; the policy is changed in place.

        The final policy is the mean of the weights after each of the last `average_last` updates, which a last rollout
        measures. A policy above the KL ceiling is given up for the one before it.

        Args:
            tasks: (iteration, count) -> tasks to roll out.
            progress: called after each iteration.
        """
        resumed = self._resume()
        self.ranks.wait()  # or one would find what another has only now begun
        if not resumed:
            self._save()
        while self.state.iteration <= self.settings.iterations and self.state.stopped is None:
            self._iterate(tasks)
            self._save()
            if progress is not None:
                progress(self.state)
        return self.state

    def _save(self) -> None:
        weights = {
            "policy": {name: tensor.detach() for name, tensor in learned(self.policy).items()},
            "critic": {name: tensor.detach() for name, tensor in learned(self.critic).items()},
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean,
        }
        weights = together(weights, self.ranks)
        ahead = None if self.ahead is None else self.ahead.as_plain()
        if self.ranks.number == 0:
            saved = {**weights, "ahead": ahead, "state": asdict(self.state)}
            save_checkpoint(self.checkpoint, self.state.iteration, saved, kept=2 + self.settings.version_lag)
        self.ranks.wait()

    def _resume(self) -> bool:
        """Goes back to the last complete iteration, if there is one."""
        saved = load_latest_checkpoint(self.checkpoint)
        if saved is None:
            return False
        self._restore(saved)
        self.state = TrainingState(**saved["state"])
        return True

    def _restore(self, saved: dict[str, Any]) -> None:
        put_back(self.policy, saved["policy"])
        put_back(self.critic, saved["critic"])
        into_optimizer(self.optimizer, saved["optimizer"])
        self.mean = as_in(self.policy, saved["mean"])
        self.ahead = Ahead.of(saved["ahead"])

    def _iterate(self, tasks: Callable[[int, int], Sequence[Task]]) -> None:
        state, settings = self.state, self.settings
        if state.iteration == settings.iterations and self.mean:
            put_back(self.policy, self.mean)
        episodes = self._begin(tasks, state.iteration)() if self.ahead is None else self.ahead.episodes
        following, before = None, learned(self.policy)
        if settings.version_lag and state.iteration + 1 < settings.iterations:
            following, before = self._begin(tasks, state.iteration + 1), copied(before)
        rollout, facts = self._prepare(episodes, None if self.ahead is None else self.ahead.logprobs)
        facts |= self.sampler.facts
        stop = self._reason_to_stop(facts)
        if stop is not None:
            # the newest policy that was seen to be below the ceiling
            self._restore(load_checkpoint(self.checkpoint, max(0, state.iteration - 1 - settings.version_lag)))
        else:
            state.kl = facts["kl"]
        if stop is None and state.iteration < settings.iterations:
            facts |= self._update(rollout)
            if not facts["finite"]:
                stop = "non-finite loss or gradient; the weights from before this iteration are kept"
                self._restore(load_checkpoint(self.checkpoint, max(0, state.iteration - settings.version_lag)))
            else:
                self._average(state.iteration + 1 - max(0, settings.iterations - settings.average_last))
        elif stop is not None:
            # what is not a number is left out: the history is kept as JSON, which has no such values
            finite = {name: value for name, value in facts.items() if math.isfinite(value)}
            facts = {**finite, "finite": float(len(finite) == len(facts))}
        self.ahead = None
        if following is not None and stop is None:
            self.ahead = self._ahead(following(), before)
        elif following is not None:
            with suppress(AgentRLError):  # nobody needs it any more, but what plays it must not end beneath it
                following()
        state.history.append({"iteration": state.iteration, "kl_coefficient": state.kl_coefficient, **facts})
        state.kl_coefficient = adapted_kl_coefficient(state.kl_coefficient, facts.get("kl", 0.0), settings)
        state.iteration += 1
        state.stopped = stop

    def _begin(self, tasks: Callable[[int, int], Sequence[Task]], iteration: int) -> Callable[[], list[Played]]:
        """Begins an iteration's rollout with the policy as it is now; the returned function waits for all of it."""
        chosen = tasks(iteration, self.settings.episodes)
        seeds = [hash_seed(self.seed, "rollout", iteration, index) for index in range(len(chosen))]
        alone = self.sampler.published is not None  # a server is asked by one, who then tells the others
        part = list if alone else self.ranks.part
        played = self.sampler.begin(part(chosen), part(seeds), self.settings.temperature)

        def episodes() -> list[Played]:
            return [episode.played for episode in played()]

        return lambda: self.ranks.by_first(episodes) if alone else self.ranks.each(lambda _: episodes(), chosen)

    def _ahead(self, episodes: list[Played], before: dict[str, Any]) -> Ahead:
        """Episodes that the policy played when it had the weights `before`."""
        now = copied(learned(self.policy))
        put_back(self.policy, before)
        logprobs = self._logprobs_of(self.policy, [row for episode in episodes for row in episode.rows])
        put_back(self.policy, now)
        return Ahead(episodes, logprobs)

    def _logprobs_of(self, model: Any, rows: Sequence[Tokens]) -> list[list[float]]:
        return self.ranks.each(partial(chosen_logprobs, model, temperature=self.settings.temperature), rows)

    def _average(self, count: int) -> None:
        """Takes the present weights into their mean as the `count`-th; before the first there is nothing to do."""
        if count > 0:
            weights = copied(learned(self.policy))
            for name, before in self.mean.items():
                weights[name] = before + (weights[name] - before) / count
            self.mean = weights

    def _prepare(
        self, episodes: Sequence[Played], played: list[list[float]] | None = None
    ) -> tuple[Rollout, dict[str, float]]:
        """Rewards, advantages, and the facts about this rollout that a person watches.

        `played`: log-probabilities of the policy that played, where that is not the one that learns (`Ahead`).
        """
        state, settings = self.state, self.settings
        scores = self.ranks.each(self.reward.score, episodes)
        if state.score_mean is None or state.score_spread is None:
            state.score_mean, state.score_spread = _scale(scores, 1.0)
            # the critic starts as the reward model, which need not be all of the reward, or on its scale
            by_critic = self.ranks.each(RewardModel(self.critic).score, [standing(one.rows) for one in episodes])
            state.value_mean, state.value_spread = _scale(by_critic, state.score_spread)
        scored = [bounded_reward((score - state.score_mean) / state.score_spread) for score in scores]
        rows_of = [episode.rows for episode in episodes]
        rows = [row for rows in rows_of for row in rows]
        learns = self._logprobs_of(self.policy, rows)
        answers = zip(
            (_chosen(row.logprobs, row.mask) for row in rows),
            learns if played is None else played,
            learns,
            self._logprobs_of(self.reference, rows),
            self.ranks.each(self._values_of, rows),
            strict=True,
        )
        rollout = Rollout(rows)
        kls: list[float] = []
        by_sampler: list[float] = []
        by_trainer: list[float] = []
        by_learner: list[float] = []
        for i, own in enumerate(rows_of):
            # an episode is one sequence of choices, in however many rows they stand
            sampled, own_then, logprobs, referred, value = map(_joined, zip(*islice(answers, len(own)), strict=True))
            lengths = [sum(row.mask) for row in own]
            rollout.logprobs += _split(logprobs, lengths)
            rollout.weights += _split(weights(sampled, logprobs, settings), lengths)
            by_sampler += sampled
            by_trainer += own_then
            by_learner += logprobs
            # of the policy that played: its own tokens tell of no other
            kls.append(sum(new - old for new, old in zip(own_then, referred, strict=True)))
            log_ratio = [new - old for new, old in zip(logprobs, referred, strict=True)]
            rewards = [-state.kl_coefficient * difference for difference in log_ratio]
            rewards[-1] += scored[i]
            rollout.advantages += _split(gae(rewards, value, settings.discount, settings.gae_lambda), lengths)
            # the critic learns what really followed: with a smaller lambda the reward, which comes at the end, would
            # reach an episode's first tokens only after many iterations (Yuan et al. 2025, decoupled GAE)
            rollout.returns += _split(returns_to_go(rewards, settings.discount), lengths)
        rollout.advantages = _whiten(rollout.advantages)
        facts = {
            "raw_score": _mean(scores),  # bounding would hide a value that is not finite
            "score": _mean(scored),
            "kl": _mean(kls),
            "success": _mean([episode.success for episode in episodes]),
            **_known("safety_violations", [episode.safety_violation for episode in episodes]),
            "tool_errors": _mean([episode.tool_errors for episode in episodes]),
            "no_action": _mean([not episode.acted for episode in episodes]),
            "tokens_out": _mean([episode.tokens_out for episode in episodes]),
            "forks": len(rows) / len(episodes) - 1,
            **mismatch(by_sampler, by_trainer),
            "version_lag": float(played is not None),
            **({"version_kl": mismatch(by_trainer, by_learner)["sampler_mismatch"]} if played is not None else {}),
            "masked": _mean([float(max(row, default=1.0) == 0) for row in rollout.weights]),
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

    def _values(self, episodes: Sequence[Tokens]) -> Any:
        """Value before each token was chosen, bounded like the reward: (batch, tokens)."""
        scores = running_scores(self.critic, *scorer_inputs(episodes, self.critic.device))
        return 2.0 * ((scores - self.state.value_mean) / self.state.value_spread / 2.0).tanh()

    def _values_of(self, rows: Sequence[Tokens]) -> list[list[float]]:
        return in_micro_batches(self.critic, rows, self._values_of_batch)

    def _values_of_batch(self, rows: Sequence[Tokens]) -> list[list[float]]:
        """Value before each token that was chosen."""
        values = unpadded(self._values(rows), [row.ids for row in rows])
        return [_chosen(of_row, row.mask) for of_row, row in zip(values, rows, strict=True)]

    def _logprobs_and_entropy(self, episodes: Sequence[Tokens], mask: Any) -> tuple[Any, Any]:
        """Log-probability of each chosen token, and entropy of what it was chosen from: each (chosen tokens)."""
        import torch

        ids = pad([episode.ids for episode in episodes]).to(self.policy.device)

        def ask(logits: Any, answers: Any) -> Any:
            distribution = torch.log_softmax(logits / self.settings.temperature, dim=-1)
            logprobs = distribution.gather(-1, answers[:, None])[:, 0]
            if self.settings.entropy_coefficient == 0:
                distribution = distribution.detach()
            return torch.stack([logprobs, -(distribution.exp() * distribution).sum(-1)], dim=1)

        said = asked_where(self.policy, ids, before(mask), ids[mask], ask)
        return said[:, 0], said[:, 1]

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Clipped steps over the rollout, until one is not finite."""
        import torch

        settings = self.settings
        for network in (self.policy, self.critic):
            recompute_from_here(network)
        totals: dict[str, float] = {}
        steps = 0
        for epoch in range(settings.epochs):
            # the order of a resumed run must be that of an uninterrupted one: no generator outlives its epoch
            generator = torch.Generator().manual_seed(hash_seed(self.seed, "order", self.state.iteration, epoch))
            order = torch.randperm(len(rollout.rows), generator=generator).tolist()
            for start in range(0, len(order), settings.minibatch):
                facts = self._accumulate(rollout, order[start : start + settings.minibatch])
                for name, network in (("gradient_norm", self.policy), ("critic_gradient_norm", self.critic)):
                    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_gradient_norm)
                    facts[name] = float(full(norm))
                if not all(math.isfinite(value) for value in facts.values()):
                    self.optimizer.zero_grad(set_to_none=True)
                    return {"finite": 0.0}
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                steps += 1
                for name, value in facts.items():
                    totals[name] = totals.get(name, 0.0) + value
        return {**{name: total / steps for name, total in totals.items()}, "finite": 1.0}

    def _accumulate(self, rollout: Rollout, minibatch: Sequence[int]) -> dict[str, float]:
        """Gradient of one minibatch's loss: sums over its chosen tokens divided by their number, however it is cut and
        whoever computes which part of it."""
        import torch

        settings = self.settings
        chosen_tokens = sum(len(rollout.logprobs[i]) for i in minibatch)
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "clip_fraction": 0.0, "approximate_kl": 0.0}
        ids = [rollout.rows[i].ids for i in minibatch]
        cuts = list(micro_batches([len(row) for row in ids], alike(self.policy, ids)))
        for cut, counts in evened(self.policy, self.ranks.part(cuts), cuts[0][:1]):
            of_tokens = chosen_tokens if counts else math.inf
            group = [minibatch[position] for position in cut]
            rows = [rollout.rows[i] for i in group]
            mask = pad([row.mask for row in rows]).bool()
            new, entropy = self._logprobs_and_entropy(rows, mask)
            old, advantage, target, weight = (
                new.new_tensor([x for i in group for x in lists[i]])
                for lists in (rollout.logprobs, rollout.advantages, rollout.returns, rollout.weights)
            )
            log_ratio = new - old
            ratio = log_ratio.exp()
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            policy_loss = -(weight * torch.minimum(ratio * advantage, clipped * advantage)).sum() / of_tokens
            entropy_bonus = entropy.sum() / of_tokens
            if self.state.iteration >= settings.critic_warmup:
                (policy_loss - settings.entropy_coefficient * entropy_bonus).backward()
            value = self._values(rows)[mask]  # only now: one network's activations are in memory at a time
            value_loss = 0.5 * (value - target).square().sum() / of_tokens
            value_loss.backward()
            sums["policy_loss"] += policy_loss.item()
            sums["value_loss"] += value_loss.item()
            sums["entropy"] += entropy_bonus.item()
            sums["clip_fraction"] += ((ratio - 1).abs() > settings.clip).sum().item() / of_tokens
            sums["approximate_kl"] += (ratio - 1 - log_ratio).sum().item() / of_tokens
        learning = [*self.critic.parameters()]
        if self.state.iteration >= settings.critic_warmup:
            learning += self.policy.parameters()
        whole = self.ranks.add_gradients(learning, torch.tensor(list(sums.values()), dtype=torch.float64))
        return dict(zip(sums, whole.tolist(), strict=True))


def hash_seed(seed: int, stream: str, *numbers: int) -> int:
    """A 63-bit seed, the same in every process. What draws for another purpose names another stream."""
    from hashlib import sha256

    return int.from_bytes(sha256(repr((seed, stream, *numbers)).encode()).digest()[:8], "big") >> 1


def _chosen(row: Sequence[float], mask: Sequence[int]) -> list[float]:
    return [value for value, chosen in zip(row, mask, strict=True) if chosen]


def _joined(lists: Sequence[Sequence[float]]) -> list[float]:
    return [value for one in lists for value in one]


def _split(values: Sequence[float], lengths: Sequence[int]) -> list[list[float]]:
    left = iter(values)
    return [list(islice(left, length)) for length in lengths]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _scale(values: Sequence[float], otherwise: float) -> tuple[float, float]:
    """Mean and standard deviation; `otherwise` where all are the same."""
    spread = _spread(values)
    return _mean(values), spread if spread > 1e-6 or math.isnan(spread) else otherwise


def _known(name: str, values: Sequence[bool | None]) -> dict[str, float]:
    """A fact that is the mean of what is known; none where nothing is."""
    known = [value for value in values if value is not None]
    return {name: _mean(known)} if known else {}


def _spread(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(_mean([(value - mean) ** 2 for value in values]))


def _whiten(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Shifts and scales to mean 0 and standard deviation 1 over all tokens."""
    flat = [value for row in rows for value in row]
    mean, spread = _mean(flat), _spread(flat) + 1e-8
    return [[(value - mean) / spread for value in row] for row in rows]
