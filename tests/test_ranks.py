"""Training by several processes is the training by one: the same losses, the same steps, the same bytes in each."""

import os
import signal
from types import SimpleNamespace

import pytest
from small_models import expert_episodes, in_double, small_critic, small_factory, small_harmony, small_model
from test_ppo import SETTINGS as PPO
from test_ppo import LikesOddTokens

from agentrl_resources.errors import AgentRLError
from agentrl_resources.learning import (
    EncodedPair,
    PpoTrainer,
    Sampler,
    meeting,
    repeatable,
    train_reward_model,
    train_sft,
)
from agentrl_resources.settings import ComputeSettings, RewardSettings, SftSettings
from agentrl_resources.side_by_side import side_by_side
from agentrl_resources.stages import pieces

pytestmark = pytest.mark.numeric

CLOSE = 1e-6
"""How far trainings in float64 may part in some ten steps, each of which makes a difference of 1e-13 larger."""


def in_process(say, piece):
    work, folder, number, count = piece
    repeatable(5)
    with meeting(folder / "ranks", number, count) as ranks:
        return work(ranks, folder)


def by(count, work, folder):
    """What each of `count` processes returns."""
    folder = folder / str(count)
    folder.mkdir()
    return side_by_side(in_process, [(work, folder, number, count) for number in range(count)], lambda *_: None)


def encoded_pairs(harmony, factory):
    excuse = {"role": "assistant", "content": "I cannot."}
    whole = [episode.transcript.messages[1:] for episode in expert_episodes(factory, 22)]
    return [
        EncodedPair(*(harmony.encode(side, first_chosen=1) for side in (messages, [*messages[:-1], excuse])))
        for messages in whole
    ]


def flat(*networks):
    import torch

    return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()]).numpy()


def sft(ranks, folder):
    factory = small_factory()
    harmony = small_harmony(factory)
    rows = [pair.chosen for pair in encoded_pairs(harmony, factory)]
    model = in_double(small_model(harmony))
    settings = SftSettings(epochs=2, batch_size=4)
    report = train_sft(
        model, harmony.tokenizer, rows, rows[:8], settings, 3, folder / str(ranks.number), lambda *_: None, ranks
    )
    return flat(model), [loss for _, loss in report["loss"]], report["holdout_loss"]


def reward(ranks, folder):
    factory = small_factory()
    harmony = small_harmony(factory)
    settings = RewardSettings(epochs=2, batch_size=4)
    scorer = in_double(small_critic(harmony))
    pairs = encoded_pairs(harmony, factory)
    _, loss = train_reward_model(
        scorer, harmony.tokenizer, pairs, settings, 3, folder / str(ranks.number), lambda *_: None, ranks
    )
    return flat(scorer), [one for _, one in loss], 0.0


def ppo(ranks, folder):
    factory = small_factory()
    harmony = small_harmony(factory)
    policy, reference = (in_double(small_model(harmony)) for _ in range(2))
    critic = in_double(small_critic(harmony))
    trainer = PpoTrainer(
        Sampler(policy, harmony, factory), reference, LikesOddTokens(), critic, PPO, 7, folder / "checkpoints", ranks
    )
    state = trainer.train(lambda iteration, count: factory.workflow.tasks("train", count, 100 + iteration))
    return flat(policy, critic), [value for entry in state.history for value in entry.values()], state.kl


@pytest.mark.parametrize("work", [sft, reward, ppo])
def test_two_processes_learn_what_one_learns(work, tmp_path):
    ((weights, losses, last),) = by(1, work, tmp_path)
    both = by(2, work, tmp_path)
    assert both[0][0].tobytes() == both[1][0].tobytes()
    assert both[0][0] == pytest.approx(weights, rel=CLOSE, abs=CLOSE)
    assert both[0][1] == pytest.approx(losses, rel=CLOSE, abs=CLOSE)
    assert both[0][2] == pytest.approx(last, rel=CLOSE, abs=CLOSE)


def in_turn(ranks, folder):
    rows = list(range(11))
    heard = []

    def squares(own):
        heard.extend(own)
        return [row * row for row in own]

    return ranks.each(squares, rows), heard, ranks.share(rows), ranks.each(squares, [])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_answers_for_every_row_in_order_and_does_its_part(count, tmp_path):
    answers = by(count, in_turn, tmp_path)
    assert all(squares == [row * row for row in range(11)] for squares, *_ in answers)
    assert sorted(row for _, heard, *_ in answers for row in heard) == list(range(11))
    shares = [share for *_, share, _ in answers]
    assert len({len(share) for share in shares}) == 1
    assert [row for group in zip(*shares, strict=True) for row in group] == list(range(11 - 11 % count))


def dies_alone(ranks, folder):
    if ranks.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()


def test_a_rank_that_is_killed_ends_the_others_with_one_clear_error(tmp_path):
    with pytest.raises(AgentRLError, match="was it killed"):
        by(2, dies_alone, tmp_path)


@pytest.mark.parametrize(
    ("processes", "batch", "count"),
    [(1, 16, 1), (2, 16, 2), (4, 16, 4), (4, 6, 3), (2, 7, 1)],
)
def test_as_many_processes_as_the_settings_say_and_a_batch_can_be_divided_among(
    processes, batch, count, tmp_path, monkeypatch
):
    monkeypatch.setattr(pieces, "side_by_side", lambda work, ranks, heard: [len(ranks)])
    settings = SimpleNamespace(compute=ComputeSettings(training_processes=processes))
    request = SimpleNamespace(settings=settings, work=tmp_path, file=tmp_path / "request.json")
    found = pieces.in_ranks(request, lambda _, ranks: ranks.count, batch)
    assert found == count
