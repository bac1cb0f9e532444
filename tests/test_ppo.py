"""PPO: the loss does not depend on how it is cut, a resumed run is the uninterrupted one, and its stops act."""

import json
import math
from dataclasses import replace
from functools import partial
from itertools import chain
from types import SimpleNamespace

import pytest
from small_models import ROUNDING, in_double, small_critic, small_factory, small_harmony, small_model

from agentrl_resources.learning import PpoTrainer, RewardModel, Sampler, WeightedReward, adapted_kl_coefficient
from agentrl_resources.learning import ppo as ppo_module
from agentrl_resources.learning.model import recomputed
from agentrl_resources.learning.player import Fork
from agentrl_resources.settings import PolicySettings, PpoSettings

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("bit_for_bit")]

SETTINGS = PpoSettings(
    iterations=3, episodes=8, minibatch=4, epochs=2, learning_rate=1e-2, kl_ceiling=1e6, critic_warmup=0
)


class LikesOddTokens:
    """Stands where the reward model does: a real one costs minutes to train and adds nothing to what is tested here."""

    def score(self, episodes):
        rows = [episode.rows[-1] for episode in episodes]
        return [
            10
            * sum((token % 2 - 0.5) * agents for token, agents in zip(episode.ids, episode.mask, strict=True))
            / sum(episode.mask)
            for episode in rows
        ]


@pytest.fixture(scope="module")
def factory():
    return small_factory()


@pytest.fixture(scope="module")
def harmony(factory):
    return small_harmony(factory)


@pytest.fixture
def make_trainer(factory, harmony, tmp_path):
    def make(settings=SETTINGS, folder="checkpoints", reward=None, precision=lambda network: network):
        reward = reward or LikesOddTokens()
        policy, reference = (precision(small_model(harmony)) for _ in range(2))
        critic = precision(small_critic(harmony))
        sampler = Sampler(policy, harmony, factory)
        return PpoTrainer(sampler, reference, reward, critic, settings, 7, tmp_path / folder)

    return make


@pytest.fixture
def make_exact_trainer(make_trainer):
    """For what is computed in two ways."""
    return partial(make_trainer, precision=in_double)


@pytest.fixture
def tasks(factory):
    return lambda iteration, count: factory.workflow.tasks("train", count, 100 + iteration)


def weights(trainer):
    return [*copy_of(trainer.policy), *copy_of(trainer.critic)]


def copy_of(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def assert_equal(ours, theirs):
    import torch

    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


BEHIND = SETTINGS.model_copy(update={"version_lag": 1})


@pytest.mark.parametrize("settings", [SETTINGS, BEHIND], ids=["version lag 0", "version lag 1"])
def test_a_resumed_run_equals_an_uninterrupted_one(make_trainer, tasks, settings):
    uninterrupted = make_trainer(settings, folder="one")
    state = uninterrupted.train(tasks)

    class Killed(Exception):
        pass

    def die_after_the_first(state):
        if state.iteration == 1:
            raise Killed

    with pytest.raises(Killed):
        make_trainer(settings, folder="two").train(tasks, die_after_the_first)
    resumed = make_trainer(settings, folder="two")
    resumed_state = resumed.train(tasks)
    assert resumed_state == state
    assert_equal(weights(resumed), weights(uninterrupted))


def test_a_run_that_is_cut_off_in_its_first_iteration_is_resumed(make_trainer, tasks):
    uninterrupted = make_trainer(folder="one")
    state = uninterrupted.train(tasks)

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(folder="two").train(killed)
    assert make_trainer(folder="two").train(tasks) == state


def test_a_finished_run_that_is_resumed_does_nothing(make_trainer, tasks):
    first = make_trainer()
    state = first.train(tasks)
    again = make_trainer()
    assert again.train(lambda *_: pytest.fail("it rolled out again")) == state
    assert_equal(weights(again), weights(first))


def test_the_policy_moves_and_the_reference_does_not(make_trainer, tasks, harmony):
    trainer = make_trainer()
    before, reference = copy_of(trainer.policy), copy_of(trainer.reference)
    state = trainer.train(tasks)
    assert any((old != new).any() for old, new in zip(before, copy_of(trainer.policy), strict=True))
    assert_equal(reference, list(trainer.reference.parameters()))
    assert state.history[0]["kl"] == 0.0  # the same weights, asked in the same batches
    assert state.kl == state.history[-1]["kl"] != 0.0
    assert len(state.history) == SETTINGS.iterations + 1


@pytest.mark.parametrize("last", [1, 2, 3, 9])
def test_the_final_policy_is_the_mean_after_the_last_updates(make_exact_trainer, tasks, last):
    trainer = make_exact_trainer(SETTINGS.model_copy(update={"average_last": last}))
    after: list = []
    trainer.train(tasks, lambda state: after.append(copy_of(trainer.policy)))
    updated = after[: SETTINGS.iterations][-last:]
    for final, *each in zip(copy_of(trainer.policy), *updated, strict=True):
        assert final.numpy() == pytest.approx(sum(each).numpy() / len(each), rel=ROUNDING, abs=ROUNDING)


def test_while_the_critic_warms_up_it_alone_learns(make_trainer, tasks):
    settings = SETTINGS.model_copy(update={"critic_warmup": 2, "iterations": 2})
    trainer = make_trainer(settings)
    policy, critic = copy_of(trainer.policy), copy_of(trainer.critic)
    trainer.train(tasks)
    assert_equal(copy_of(trainer.policy), policy)
    assert any((old != new).any() for old, new in zip(critic, copy_of(trainer.critic), strict=True))


def test_the_gradient_does_not_depend_on_how_a_minibatch_is_cut_or_ordered(make_exact_trainer, tasks, monkeypatch):
    import torch

    trainer = make_exact_trainer()
    episodes = trainer.sampler.play(tasks(0, 8), range(8), 1.0, 8)
    rollout, _ = trainer._prepare([episode.played for episode in episodes])

    def gradient(minibatch, tokens):
        cut = ppo_module.micro_batches
        monkeypatch.setattr(ppo_module, "micro_batches", lambda lengths, _: cut(lengths, tokens=tokens))
        trainer.optimizer.zero_grad()
        trainer._accumulate(rollout, minibatch)
        monkeypatch.undo()
        return torch.cat(
            [p.grad.flatten() for n in (trainer.policy, trainer.critic) for p in n.parameters() if p.grad is not None]
        )

    whole = gradient(list(range(8)), tokens=10**6)
    one_by_one = gradient([5, 2, 7, 0, 1, 6, 3, 4], tokens=1)
    assert whole.abs().max() > 0
    torch.testing.assert_close(whole, one_by_one, rtol=ROUNDING, atol=ROUNDING * float(whole.abs().max()))


def test_an_update_with_layers_that_are_computed_twice_is_the_same(make_exact_trainer, tasks):
    import torch

    def updated(checkpointing):
        trainer = make_exact_trainer(folder=f"checkpointing {checkpointing}")
        policy = PolicySettings(gradient_checkpointing=checkpointing)
        passes = []
        for network in (trainer.policy, trainer.critic):
            recomputed(network, policy)
            network.base_model.layers[0].self_attn.register_forward_hook(
                lambda *_: passes.append(torch.is_grad_enabled())
            )
        trainer.train(tasks)
        return copy_of(trainer.policy), sum(passes)

    (weights, passes), (whole, whole_passes) = updated(True), updated(False)
    assert passes == 2 * whole_passes
    for one, other in zip(weights, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=ROUNDING, atol=ROUNDING)


def test_an_episode_counts_the_same_in_however_many_rows_it_stands(make_exact_trainer, tasks):
    """A history that is written anew, and says the same: each token was chosen after what it was chosen after."""

    def prepared(forked):
        trainer = make_exact_trainer(folder=f"forked {forked}")
        episodes = trainer.sampler.play(tasks(0, 8), range(8), 1.0, 8)
        trainer.reward = SimpleNamespace(score=lambda episodes: [float(i) for i, _ in enumerate(episodes)])
        for number, one in enumerate(episodes if forked else []):
            cut = one.mask.index(1) + 1 + number
            one.forks.append(Fork(one.ids[:cut], one.mask[:cut], one.logprobs[:cut]))
            one.mask = [0] * cut + one.mask[cut:]
        rollout, facts = trainer._prepare([episode.played for episode in episodes])
        return rollout, facts, trainer._accumulate(rollout, range(len(rollout.rows)))

    (whole, facts, losses), (cut, cut_facts, cut_losses) = (prepared(forked) for forked in (False, True))
    assert (len(whole.rows), len(cut.rows)) == (8, 16)
    assert (facts.pop("forks"), cut_facts.pop("forks")) == (0, 1)
    assert cut_facts == pytest.approx(facts, rel=ROUNDING, abs=ROUNDING)
    assert cut_losses == pytest.approx(losses, rel=ROUNDING, abs=ROUNDING)
    for name in ("logprobs", "advantages", "returns"):
        apart, together = ([*chain(*getattr(rollout, name))] for rollout in (cut, whole))
        assert apart == pytest.approx(together, rel=ROUNDING, abs=ROUNDING)


def test_the_first_gradient_is_the_policy_gradient_of_the_tokens_that_the_agent_chose(make_exact_trainer, tasks):
    """With ratio 1 everywhere nothing is clipped: the gradient of -sum(advantage * log-probability) / tokens."""
    import torch

    trainer = make_exact_trainer()
    rollout, _ = trainer._prepare(trainer._begin(tasks, 0)())
    rollout.advantages = [[1.0 + 0.1 * t - 0.3 * i for t in range(len(row))] for i, row in enumerate(rollout.logprobs)]
    facts = trainer._accumulate(rollout, range(8))
    ours = [None if p.grad is None else p.grad.clone() for p in trainer.policy.parameters()]

    trainer.policy.zero_grad()
    total = 0.0
    for episode, advantages in zip(rollout.rows, rollout.advantages, strict=True):
        logprobs = torch.log_softmax(trainer.policy(torch.tensor([episode.ids])).logits[0, :-1], -1)
        chosen = [position for position, agents in enumerate(episode.mask) if agents]
        for position, advantage in zip(chosen, advantages, strict=True):
            total = total - advantage * logprobs[position - 1, episode.ids[position]]
    (total / sum(map(len, rollout.advantages))).backward()
    assert facts["clip_fraction"] == 0
    assert facts["approximate_kl"] == pytest.approx(0, abs=ROUNDING)
    for one, parameter in zip(ours, trainer.policy.parameters(), strict=True):
        if one is not None:
            torch.testing.assert_close(one, parameter.grad, rtol=ROUNDING, atol=ROUNDING * float(one.abs().max()))


def test_a_critic_with_the_reward_models_weights_values_a_whole_episode_at_its_reward(
    make_exact_trainer, harmony, tasks
):
    import torch

    scorer = in_double(small_critic(harmony))
    torch.nn.init.normal_(scorer.score.weight, std=0.5, generator=torch.Generator().manual_seed(0))
    trainer = make_exact_trainer(reward=WeightedReward(RewardModel(scorer)))
    trainer.critic = scorer
    episodes = trainer.sampler.play(tasks(0, 8), range(8), 1.0, 8)
    rollout, facts = trainer._prepare([episode.played for episode in episodes])
    with torch.inference_mode():
        values = trainer._values(episodes)[:, -1]
    state = trainer.state  # one computation, twice on one machine
    assert (state.value_mean, state.value_spread) == (state.score_mean, state.score_spread)
    assert values.mean().item() == pytest.approx(facts["score"], rel=ROUNDING, abs=ROUNDING)
    at_the_end = [row[-1] for row in rollout.returns]
    assert values.tolist() == pytest.approx(
        at_the_end, rel=ROUNDING, abs=ROUNDING
    )  # the policy is still the reference: KL is 0
    assert values.std() > 0.1


def test_what_the_reward_likes_becomes_more_frequent(make_trainer, tasks):
    settings = SETTINGS.model_copy(
        update={
            "iterations": 6,
            "episodes": 128,
            "minibatch": 64,
            "learning_rate": 3e-3,
            "critic_learning_rate": 3e-3,
            "gae_lambda": 1.0,
            "kl_coefficient": 0.0,
            "kl_coefficient_floor": 0.0,
        }
    )
    history = make_trainer(settings).train(tasks).history
    assert history[-1]["score"] > history[0]["score"] + 0.2


def test_the_reward_is_what_model_and_verifier_say_by_their_weights(make_trainer, tasks, harmony):
    episodes = [one.played for one in make_trainer().sampler.play(tasks(0, 4), range(4), 1.0, 4)]
    episodes = [replace(one, quality=0.25 * number) for number, one in enumerate(episodes)]
    scorer = small_critic(harmony)
    scorer.score.weight.data.normal_(std=0.5)
    model = RewardModel(scorer)
    alone = WeightedReward(model).score(episodes)
    assert alone == model.score([one.rows[-1] for one in episodes])
    assert WeightedReward(None, 0.0, 2.0).score(episodes) == WeightedReward(model, 0.0, 2.0).score(episodes)
    assert WeightedReward(None, 0.0, 2.0).score(episodes) == [0.0, 0.5, 1.0, 1.5]
    both = WeightedReward(model, 0.5, 2.0).score(episodes)
    assert both == [0.5 * one + 0.5 * number for number, one in enumerate(alone)]


@pytest.mark.parametrize(("settings", "rollouts"), [(SETTINGS, 2), (BEHIND, 3)], ids=["version lag 0", "version lag 1"])
def test_a_policy_above_the_kl_ceiling_is_given_up_for_one_that_was_seen_below_it(
    make_trainer, tasks, settings, rollouts
):
    """With a rollout ahead the first update's policy is seen an iteration later."""
    settings = settings.model_copy(update={"kl_ceiling": 1e-3, "learning_rate": 0.05})
    trainer = make_trainer(settings)
    before = copy_of(trainer.policy)
    state = trainer.train(tasks)
    assert "above the ceiling" in state.stopped
    assert len(state.history) == rollouts
    assert state.kl <= settings.kl_ceiling < state.history[-1]["kl"]
    assert_equal(copy_of(trainer.policy), before)
    assert make_trainer(settings).train(tasks) == state


def test_a_rollout_ahead_is_of_the_policy_before_and_corrected_for_it(make_exact_trainer, tasks):
    """Each one is what a trainer with that policy plays, and the last one measures the policy that is kept."""
    trainer = make_exact_trainer(BEHIND)
    policies, rollouts = [], []
    prepare = trainer._prepare

    def noted(episodes, played=None):
        policies.append(make_exact_trainer().policy)
        policies[-1].load_state_dict(trainer.policy.state_dict())
        rollouts.append(episodes)
        return prepare(episodes, played)

    trainer._prepare = noted
    history = trainer.train(tasks).history
    assert [entry["version_lag"] for entry in history] == [0, 1, 1, 0]
    for iteration, player in enumerate((0, 0, 1, 3)):
        other = make_exact_trainer()
        other.policy.load_state_dict(policies[player].state_dict())
        again = other._begin(tasks, iteration)()
        assert [one.rows for one in again] == [one.rows for one in rollouts[iteration]]
        assert history[iteration]["sampler_mismatch"] == pytest.approx(0, abs=ROUNDING)
        rows = [row for one in again for row in one.rows]
        kls = [sum(new) - sum(old) for new, old in zip(*(other._logprobs_of(m, rows) for m in
               (other.policy, other.reference)), strict=True)]  # fmt: skip
        assert history[iteration]["kl"] == pytest.approx(sum(kls) / len(kls), rel=1e-6, abs=ROUNDING)
    assert history[1]["version_kl"] > 1e-6 < history[2]["version_kl"]


def test_a_reward_that_is_not_finite_stops_training_and_changes_nothing(make_trainer, tasks):
    class Broken:
        def score(self, sequences):
            return [math.nan] * len(sequences)

    trainer = make_trainer(reward=Broken())
    before = weights(trainer)
    state = trainer.train(tasks)
    assert "non-finite" in state.stopped
    assert state.history[-1]["finite"] == 0.0
    json.dumps(state.history, allow_nan=False)
    assert_equal(weights(trainer), before)


def test_a_gradient_that_is_not_finite_stops_training_and_keeps_the_weights_from_before(make_trainer, tasks):
    import torch

    trainer = make_trainer()
    before = weights(trainer)
    trainer.policy.lm_head.weight.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    state = trainer.train(tasks)
    assert "non-finite loss or gradient" in state.stopped
    assert_equal(weights(trainer), before)


def test_a_sampler_that_disagrees_with_the_trainer_stops_training(make_trainer, tasks):
    trainer = make_trainer()
    play = trainer.sampler.play

    def another_temperature(tasks, seeds, temperature, concurrency):
        return play(tasks, seeds, temperature / 3, concurrency)

    trainer.sampler.play = another_temperature
    assert "sampler and trainer disagree" in trainer.train(tasks).stopped


def test_the_kl_coefficient_follows_kl_and_keeps_its_floor():
    settings = PpoSettings(kl_target=2.0, kl_coefficient_floor=0.05)
    assert adapted_kl_coefficient(0.2, 4.0, settings) > 0.2 > adapted_kl_coefficient(0.2, 0.5, settings)
    assert adapted_kl_coefficient(0.2, 2.0, settings) == pytest.approx(0.2)
    assert adapted_kl_coefficient(0.05, 0.0, settings) == 0.05
    # downwards by a tenth at most; upwards by half, or what a run's first quiet iterations took is never made good
    assert adapted_kl_coefficient(0.2, 0.0, settings) == pytest.approx(0.18)
    assert adapted_kl_coefficient(0.2, 40.0, settings) == pytest.approx(0.3)
