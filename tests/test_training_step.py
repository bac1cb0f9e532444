"""What makes a training step short changes nothing of it: each shortcut against the plain way, in float64."""

import pytest
import torch
from small_models import SMALL, expert_episodes, small_factory, small_harmony, small_model

from agentrl_resources.learning.batching import before, chosen_logprobs, logits_where, model_inputs, pad
from agentrl_resources.learning.experts import FEW
from agentrl_resources.learning.sft import language_loss

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def harmony():
    return small_harmony(small_factory())


@pytest.fixture(scope="module")
def model(harmony):
    return small_model(harmony).double()


@pytest.fixture(scope="module")
def episodes(harmony):
    played = expert_episodes(small_factory(256), 6)
    return [harmony.encode(episode.transcript.messages[1:], first_chosen=1) for episode in played]


@pytest.fixture(scope="module")
def inputs(episodes):
    return model_inputs([episode.ids for episode in episodes], "cpu")


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_all_experts_at_once_are_the_chosen_ones(model, inputs):
    assert SMALL.experts <= FEW
    with torch.inference_mode():
        at_once = model(**inputs).logits
    with torch.enable_grad():
        one_by_one = model(**inputs).logits.detach()
    model.set_experts_implementation("eager")
    try:
        with torch.no_grad():
            close(at_once, model(**inputs).logits)
    finally:
        model.set_experts_implementation("few_experts")
    close(at_once, one_by_one)


def test_the_loss_and_its_gradients_are_those_of_the_whole_logits(model, episodes, inputs):
    labels = pad([[i if m else -100 for i, m in zip(e.ids, e.mask, strict=True)] for e in episodes], -100)
    logits = model(**inputs).logits[:, :-1]
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    short = language_loss(model, inputs["input_ids"], inputs["attention_mask"], labels)
    close(short, plain)
    weights = list(model.parameters())
    for ours, theirs in zip(torch.autograd.grad(short, weights), torch.autograd.grad(plain, weights), strict=True):
        close(ours, theirs)


def test_logits_at_some_places_are_those_of_the_whole(model, episodes, inputs):
    where = before(pad([episode.mask for episode in episodes]))
    with torch.inference_mode():
        close(logits_where(model, inputs, where), model(**inputs).logits[where])


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_chosen_tokens_have_their_own_probability(model, episodes, temperature):
    found = chosen_logprobs(model, episodes, temperature)
    for episode, row in zip(episodes, found, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([episode.ids])).logits[0] / (temperature or 1.0)
        whole = torch.log_softmax(logits, -1)
        expected = [float(whole[t - 1, episode.ids[t]]) for t in range(1, len(episode.ids)) if episode.mask[t]]
        assert row == pytest.approx(expected, rel=1e-9, abs=1e-11)
