"""What makes a training step short changes nothing of it: each shortcut against the plain way, in float64."""

import pytest
import torch
from small_models import SMALL, expert_episodes, small_factory, small_harmony, small_model

from agentrl_resources.families.gpt_oss import pointwise
from agentrl_resources.families.gpt_oss.experts import FEW
from agentrl_resources.learning import batching
from agentrl_resources.learning.batching import before, chosen_logprobs, pad
from agentrl_resources.learning.model import recompute_from_here, recomputed
from agentrl_resources.learning.sft import language_loss
from agentrl_resources.settings import PolicySettings

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
    return {"input_ids": pad([episode.ids for episode in episodes]), "use_cache": False}


@pytest.fixture(scope="module")
def labels(episodes):
    return pad([[i if m else -100 for i, m in zip(e.ids, e.mask, strict=True)] for e in episodes], -100)


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


def test_the_loss_and_its_gradients_are_those_of_the_whole_logits(model, inputs, labels):
    logits = model(**inputs).logits[:, :-1]
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    short = language_loss(model, inputs["input_ids"], labels)
    close(short, plain)
    weights = list(model.parameters())
    for ours, theirs in zip(torch.autograd.grad(short, weights), torch.autograd.grad(plain, weights), strict=True):
        close(ours, theirs)


def test_logits_that_are_asked_part_by_part_give_the_same_loss_and_gradients(
    model, episodes, inputs, labels, monkeypatch
):
    def learned(at_once):
        monkeypatch.setattr(batching, "LOGITS_AT_ONCE", at_once)
        model.zero_grad()
        loss = language_loss(model, inputs["input_ids"], labels)
        loss.backward()
        logprobs = [value for row in chosen_logprobs(model, episodes, 0.7) for value in row]
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [loss.detach(), torch.tensor(logprobs), *gradients]

    asked = []
    ask = torch.nn.functional.cross_entropy

    def remembered(logits, *rest, **more):
        asked.append(len(logits))
        return ask(logits, *rest, **more)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", remembered)
    whole = learned(2**26)
    assert len(asked) == 1
    parts = learned(7 * model.config.vocab_size)
    assert len(asked) > 5
    for one, other in zip(parts, whole, strict=True):
        close(one, other)


def test_layers_that_are_computed_twice_keep_less_and_learn_the_same(harmony, inputs, labels):
    def learned(checkpointing):
        model = recomputed(small_model(harmony).double(), PolicySettings(gradient_checkpointing=checkpointing)).eval()
        language_loss(model, inputs["input_ids"], labels)  # asks the head once whether it is all
        recompute_from_here(model)
        kept, passes = {}, []
        model.get_decoder().layers[0].self_attn.register_forward_hook(lambda *_: passes.append(1))
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one: kept.setdefault(one.data_ptr(), one), lambda one: one
        ):
            loss = language_loss(model, inputs["input_ids"], labels)
        loss.backward()
        gradients = [weights.grad for weights in model.parameters() if weights.grad is not None]
        return [loss.detach(), *gradients], sum(one.nbytes for one in kept.values()), len(passes)

    (whole, kept, once), (again, less, twice) = learned(False), learned(True)
    for one, other in zip(again, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert (once, twice) == (1, 2)
    assert less < kept / 2


@pytest.mark.parametrize(("rows", "longest", "at_once"), [(16, 100, 16), (16, 2048, 8), (3, 9000, 1), (5, 0, 5)])
def test_a_steps_rows_are_cut_so_that_a_pass_has_room(model, rows, longest, at_once):
    cut = batching.slices_of_a_step(model, torch.zeros(rows, longest))
    assert [row for part in cut for row in range(rows)[part]] == list(range(rows))
    assert len(range(rows)[cut[0]]) == at_once


def test_logits_at_some_places_are_those_of_the_whole(model, episodes, inputs):
    where = before(pad([episode.mask for episode in episodes]))
    with torch.inference_mode():
        ids = inputs["input_ids"]
        said = batching.asked_where(model, ids, where, ids[where], lambda logits, _: logits)
        close(said, model(**inputs).logits[where])


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_chosen_tokens_have_their_own_probability(model, episodes, temperature):
    found = chosen_logprobs(model, episodes, temperature)
    for episode, row in zip(episodes, found, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([episode.ids])).logits[0] / (temperature or 1.0)
        whole = torch.log_softmax(logits, -1)
        expected = [float(whole[t - 1, episode.ids[t]]) for t in range(1, len(episode.ids)) if episode.mask[t]]
        assert row == pytest.approx(expected, rel=1e-9, abs=1e-11)


def plain_norm(x, weight):
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def plain_gate(gate_up):
    """With both clamps at work: of standard normal numbers, some lie beyond 1."""
    gate, up = gate_up[..., ::2].clamp(max=1.0), gate_up[..., 1::2].clamp(-1.0, 1.0)
    return (up + 1) * gate * torch.sigmoid(1.7 * gate)


def plain_rotation(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["norm", "gate", "rotation", "rotation of a view"])
def test_what_is_written_out_is_the_formula_with_its_gradients(name, seed):
    torch.manual_seed(seed)
    angles = torch.randn(2, 1, 5, 4, dtype=torch.float64)
    cos, sin = angles.cos(), angles.sin()
    shapes, ours, plain = {
        "norm": ([(2, 5, 8), (8,)], lambda x, w: pointwise._Norm.apply(x, w, 1e-5), plain_norm),
        "gate": ([(7, 3, 8)], lambda x: pointwise._Gate.apply(x, 1.7, 1.0), plain_gate),
        "rotation": ([(2, 3, 5, 8)], lambda x: pointwise.rotated(x, cos, sin), lambda x: plain_rotation(x, cos, sin)),
        "rotation of a view": (
            [(2, 5, 3, 8)],
            lambda x: pointwise.rotated(x.transpose(1, 2), cos, sin),
            lambda x: plain_rotation(x.transpose(1, 2), cos, sin),
        ),
    }[name]
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    one, other = ours(*given), plain(*given)
    close(one, other)
    weight = torch.randn_like(other)
    found, wanted = (torch.autograd.grad((output * weight).sum(), given) for output in (one, other))
    for mine, theirs in zip(found, wanted, strict=True):
        close(mine, theirs)


def test_a_gpt_oss_model_computes_what_is_written_out_in_place(harmony):
    """Built or loaded, its norms and gates are ours; half precision is left to transformers, and so are the others."""
    from transformers.models.gpt_oss import modeling_gpt_oss

    model = small_model(harmony)
    norms = [module for module in model.modules() if isinstance(module, modeling_gpt_oss.GptOssRMSNorm)]
    gates = [module for module in model.modules() if isinstance(module, modeling_gpt_oss.GptOssExperts)]
    assert {type(one) for one in norms} == {pointwise.Norm}
    assert {type(one) for one in gates} == {pointwise.Experts}
    x = torch.randn(3, norms[0].weight.shape[0])
    assert norms[0](x).grad_fn.name() == "_NormBackward"
    assert "_Norm" not in norms[0].bfloat16()(x.bfloat16()).grad_fn.name()
    assert type(pointwise.adopt(torch.nn.Linear(2, 2))) is torch.nn.Linear
