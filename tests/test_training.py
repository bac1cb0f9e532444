"""Training: the same work gives the same bits, and the optimizer is what it says it is."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from small_models import (
    ROUNDING,
    expert_episodes,
    in_double,
    small_critic,
    small_factory,
    small_harmony,
    small_model,
)

from agentrl_resources.learning import (
    EncodedPair,
    batching,
    new_model,
    repeatable,
    train_reward_model,
    train_sft,
)
from agentrl_resources.settings import ModelSettings, RewardSettings, SftSettings

pytestmark = pytest.mark.numeric


@pytest.fixture
def two_threads(bit_for_bit: None) -> Iterator[None]:
    """As a run has them: what is added up in any order is so only where several threads add."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_two_trainings_of_one_seed_end_in_the_same_bits(two_threads, tmp_path):
    import torch

    factory = small_factory()
    harmony = small_harmony(factory)
    rows = [harmony.encode(episode.transcript.messages[1:], first_chosen=1) for episode in expert_episodes(factory, 32)]

    def trained(seed: int) -> torch.Tensor:
        repeatable(seed)
        model = new_model(ModelSettings(layers=1), harmony.tokenizer)
        settings = SftSettings(epochs=1, batch_size=16)
        train_sft(model, harmony.tokenizer, rows, rows[:8], settings, seed, tmp_path, lambda *_: None)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    first = trained(1)
    assert torch.equal(first, trained(1))
    assert not torch.equal(first, trained(2))


@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (48, 16)], ids=str)
def test_muon_takes_the_steps_of_torchs_own(shape, monkeypatch):
    """Which turns its matrices in bfloat16: here it is kept from rounding them."""
    import torch

    from agentrl_resources.learning.muon import Muon

    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda matrix: matrix.clone())
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = (
        Muon(ours, 0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1),
    )
    for _ in range(6):
        gradients = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    for our, their, before in zip(ours, theirs, start, strict=True):
        assert (our - their).norm() < ROUNDING * (their - before).norm()


def test_muon_leaves_what_has_no_gradient_and_does_not_mix_shapes():
    import torch

    from agentrl_resources.learning.muon import Muon, orthogonalized

    torch.manual_seed(4)
    shapes = ((8, 4), (4, 8), (8, 4), (4, 8))
    matrices = [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
    before = [matrix.detach().clone() for matrix in matrices]
    for matrix in matrices[:3]:
        matrix.grad = torch.randn_like(matrix)
    Muon(matrices, 0.1, weight_decay=0.0).step()
    torch.testing.assert_close(matrices[3].detach(), before[3], rtol=0, atol=0)
    for matrix, old in zip(matrices[:3], before, strict=False):
        expected = 0.1 * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5 * orthogonalized(matrix.grad[None])[0]
        torch.testing.assert_close(old - matrix.detach(), expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_step_in_several_passes_is_the_step_in_one(tmp_path, monkeypatch):
    """SFT and reward model, in float64: what is cut is the memory, not what is learned."""
    import torch

    factory = small_factory()
    harmony = small_harmony(factory)
    rows = [harmony.encode(one.transcript.messages[1:], first_chosen=1) for one in expert_episodes(factory, 12)]
    pairs = [EncodedPair(better, worse) for better, worse in pairwise(rows)]
    passes = []

    def trained(tokens):
        monkeypatch.setattr(batching, "TOKENS_PER_STEP", tokens)
        repeatable(1)
        model, scorer = in_double(small_model(harmony)), in_double(small_critic(harmony))
        model.register_forward_hook(lambda *_: passes.append(1))
        model.get_decoder().register_forward_hook(lambda *_: passes.append(1))
        sft, reward = SftSettings(epochs=1, batch_size=4), RewardSettings(epochs=1, batch_size=4)
        report = train_sft(model, harmony.tokenizer, rows, rows[:2], sft, 1, tmp_path, lambda *_: None)
        _, loss = train_reward_model(scorer, harmony.tokenizer, pairs, reward, 1, tmp_path, lambda *_: None)
        weights = [p.detach().flatten() for network in (model, scorer) for p in network.parameters()]
        return torch.cat(weights), torch.tensor([one for _, one in [*report["loss"], *loss]])

    whole = trained(10**6)
    at_once, _ = len(passes), passes.clear()
    parts = trained(1)
    assert len(passes) > 2 * at_once
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)
