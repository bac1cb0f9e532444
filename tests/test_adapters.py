"""Adapters: one base in memory, gradients that reach the adapter alone, and the same numbers when it is merged."""

import copy
import os
import shutil
from pathlib import Path

import pytest
import torch
from family_samples import network_of, tokenizer_of
from small_models import ROUNDING, in_double, small_factory, small_harmony, small_model
from test_ppo import SETTINGS as PPO
from test_ppo import LikesOddTokens

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import Encoded
from agentrl_resources.learning import (
    PpoTrainer,
    RewardModel,
    Sampler,
    adapters,
    chosen_logprobs,
    learned,
    load_policy,
    load_scorer,
    new_model,
    new_scorer,
    save_network,
)
from agentrl_resources.learning.adapters import base_of, copied, how_far, indistinct, merged
from agentrl_resources.learning.sft import language_loss
from agentrl_resources.settings import ModelSettings, PolicySettings
from agentrl_resources.stages.sft import can_be_learned

pytestmark = pytest.mark.numeric
LORA = PolicySettings(adapter="lora", rank=4, alpha=8)


@pytest.fixture(scope="module")
def factory():
    return small_factory()


@pytest.fixture(scope="module")
def harmony(factory):
    return small_harmony(factory)


REAL = os.environ.get("AGENTRL_SMOLLM2")
"""Folder of a real base, to be tried besides (examples/models/fetch_smollm2.py makes one)."""


@pytest.fixture(scope="module", params=["built-in", "qwen3", "llama-3.2", *([REAL] if REAL else [])])
def base(request, tmp_path_factory, harmony) -> Path:
    if request.param == REAL:
        return Path(REAL)
    folder = tmp_path_factory.mktemp("base")
    if request.param == "built-in":
        small_model(harmony).save_pretrained(folder)
    else:
        torch.manual_seed(0)
        network_of(request.param, tokenizer_of(request.param)).float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(base):
    """Token ids that every one of the bases knows."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 200, (4, 12), generator=generator)
    return ids, torch.where(torch.arange(12) >= 5, ids, -100)


def adapted(base: Path, moved: bool = True, policy: PolicySettings = LORA):
    """A network with an adapter; one that has learned has numbers in both of its matrices."""
    network = new_model(ModelSettings(base=str(base)), None, policy, seed=4)
    if moved:
        generator = torch.Generator().manual_seed(5)
        for weights in learned(network).values():
            torch.nn.init.normal_(weights, std=0.3, generator=generator)
    return network


def weights_of(network):
    return {name: weights for name, weights in network.named_parameters() if not weights.requires_grad}


def says(network, ids):
    with torch.inference_mode():
        return network(input_ids=ids, use_cache=False).logits


def test_a_new_adapter_changes_nothing_and_one_that_has_learned_does(base, rows):
    ids, _ = rows
    plain = load_policy(base)
    assert torch.equal(says(adapted(base, moved=False), ids), says(plain, ids))
    assert not torch.allclose(says(adapted(base), ids), says(plain, ids))


def test_the_gradient_reaches_the_adapter_alone(base, rows):
    network = adapted(base)
    before = copied(weights_of(network))
    language_loss(network, *rows).backward()
    assert all("lora_" in name for name in learned(network))
    for name, weights in network.named_parameters():
        assert (weights.grad is not None and weights.grad.abs().max() > 0) == ("lora_" in name)
    torch.optim.AdamW(network.parameters(), lr=0.1).step()
    assert all(torch.equal(weights, before[name]) for name, weights in weights_of(network).items())


def test_merged_weights_say_what_base_and_adapter_say(base, rows):
    ids, _ = rows
    network = copy.deepcopy(adapted(base))  # or the base that all others stand on would be made finer
    if network.config.model_type == "gpt_oss":
        in_double(network)
    else:
        network.double()
    one = merged(network)
    assert not any("lora_" in name for name, _ in one.named_parameters())
    torch.testing.assert_close(says(one, ids), says(network, ids), rtol=ROUNDING, atol=ROUNDING * 100)


def test_all_networks_stand_on_one_base_in_memory(base, tmp_path):
    save_network(adapted(base), tmp_path / "sft")
    networks = [load_policy(tmp_path / "sft"), load_policy(tmp_path / "sft"), new_scorer(tmp_path / "sft")]
    assert {weights.data_ptr() for weights in weights_of(networks[0]).values()} == {
        weights.data_ptr() for weights in weights_of(networks[1]).values()
    }
    trunk = [
        {name: weights.data_ptr() for name, weights in weights_of(network).items() if name.startswith("model.layers")}
        for network in networks
    ]
    assert trunk[0] == trunk[1] == trunk[2] != {}
    owned = [{weights.data_ptr() for weights in learned(network).values()} for network in networks]
    assert not owned[0] & owned[1]
    assert not owned[0] & owned[2]


def test_what_is_saved_is_loaded_and_peft_reads_it_too(base, rows, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids, _ = rows
    network = adapted(base)
    save_network(network, tmp_path)
    assert not list(tmp_path.glob("model*.safetensors"))
    assert torch.equal(says(load_policy(tmp_path), ids), says(network, ids))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path)
    torch.testing.assert_close(says(theirs, ids), says(network, ids), rtol=1e-3, atol=1e-3)  # the kernels differ


def test_a_scorers_head_is_saved_with_its_adapter(base, rows, tmp_path):
    save_network(adapted(base), tmp_path / "sft")
    scorer = new_scorer(tmp_path / "sft")
    assert RewardModel(scorer).score([row(rows)]) == [0.0]
    torch.nn.init.normal_(scorer.score.weight, generator=torch.Generator().manual_seed(6))
    save_network(scorer, tmp_path / "reward")
    expected = RewardModel(scorer).score([row(rows)])
    assert expected != [0.0]
    assert RewardModel(load_scorer(tmp_path / "reward")).score([row(rows)]) == expected
    assert {name for name in learned(scorer) if "lora_" not in name} == {"score.weight", "score.bias"}


def row(rows):
    from agentrl_resources.families import Encoded

    ids, labels = rows
    return Encoded(ids[0].tolist(), (labels[0] != -100).long().tolist())


def test_an_adapter_for_another_base_is_refused(base, tmp_path):
    own = shutil.copytree(base, tmp_path / "base")
    save_network(adapted(own), tmp_path / "sft")
    assert base_of(tmp_path / "sft").place == str(own)
    other = load_policy(own)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(own)
    with pytest.raises(AgentRLError, match="trained on other weights than those in"):
        load_policy(tmp_path / "sft")
    shutil.rmtree(own)
    with pytest.raises(AgentRLError, match="neither a folder nor a model that this machine has"):
        load_policy(tmp_path / "sft")


def test_layers_that_the_model_does_not_have_are_refused(base):
    with pytest.raises(AgentRLError, match=r"policy\.targets: no adapter can be put on this model.*nowhere"):
        adapted(base, policy=LORA.model_copy(update={"targets": ("nowhere",)}))


def test_ppo_moves_the_policys_adapter_and_nothing_below_it_and_is_resumed(factory, harmony, tmp_path):
    small_model(harmony).save_pretrained(tmp_path / "base")
    save_network(adapted(tmp_path / "base"), tmp_path / "sft")

    def trainer(folder):
        policy, reference = (load_policy(tmp_path / "sft") for _ in range(2))
        critic = new_scorer(tmp_path / "sft")
        sampler = Sampler(policy, harmony, factory)
        return PpoTrainer(sampler, reference.eval(), LikesOddTokens(), critic, PPO, 7, tmp_path / folder)

    def tasks(iteration, count):
        return factory.workflow.tasks("train", count, 100 + iteration)

    class Killed(Exception):
        pass

    def die(state):
        if state.iteration == 2:
            raise Killed

    whole = trainer("one")
    below = copied(weights_of(whole.policy))
    state = whole.train(tasks)
    assert state.history[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert state.history[-1]["kl"] != state.history[0]["kl"]
    assert how_far(whole.policy, learned(whole.reference)) > 0
    assert all(torch.equal(weights, below[name]) for name, weights in weights_of(whole.policy).items())
    saved = next((tmp_path / "one").glob("iteration-*/state.pt"))
    assert all("lora_" in name for name in torch.load(saved, weights_only=True)["policy"])
    with pytest.raises(Killed):
        trainer("two").train(tasks, die)
    resumed = trainer("two")
    assert resumed.train(tasks) == state
    assert all(torch.equal(one, learned(whole.policy)[name]) for name, one in learned(resumed.policy).items())


def test_an_adapter_that_never_moved_has_come_nowhere(base):
    network = adapted(base)
    start = copied(learned(network))
    assert how_far(network, start) == 0
    with torch.no_grad():
        next(iter(learned(network).values())).add_(1)
    assert how_far(network, start) > 0


def test_the_sampler_draws_from_base_and_adapter(factory, harmony, tmp_path):
    """An adapter that never reached the sampler is the failure that costs others months."""
    small_model(harmony).save_pretrained(tmp_path)
    network = adapted(tmp_path)
    episodes = Sampler(network, harmony, factory).play(factory.workflow.tasks("train", 4, 1), range(4), 1.0, 4)
    rows = [episode.rows[0] for episode in episodes]
    sampled = [[p for p, chosen in zip(row.logprobs, row.mask, strict=True) if chosen] for row in rows]
    for one, other in zip(sampled, chosen_logprobs(network, rows, 1.0), strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    plain = chosen_logprobs(load_policy(tmp_path), rows, 1.0)
    assert [len(one) for one in plain] == [len(one) for one in sampled]
    apart = [abs(a - b) for one, other in zip(sampled, plain, strict=True) for a, b in zip(one, other, strict=True)]
    assert max(apart) > 0.1


def test_control_tokens_that_a_base_never_learned_are_found_unless_the_head_learns(base, tmp_path, monkeypatch):
    whole = load_policy(base)
    with torch.no_grad():
        vectors = whole.get_output_embeddings().weight
        vectors[7] = 1.5 * vectors[9]
        vectors[13] = vectors[15] = 0.0
    whole.save_pretrained(tmp_path)
    twins = adapted(tmp_path)
    monkeypatch.setattr(adapters, "ROWS_AT_ONCE", 8)
    assert indistinct(twins, [5, 7, 9, 11, 13]) == [7, 9, 13]
    assert indistinct(twins, [5, 11]) == indistinct(twins, []) == []
    assert indistinct(load_policy(tmp_path), [5, 7, 9, 11]) == []


def test_sft_says_which_control_tokens_an_adapter_cannot_teach(tmp_path):
    tokenizer = tokenizer_of("qwen3")
    written, twin, other = (tokenizer.convert_tokens_to_ids(text) for text in ("<tool_call>", "<think>", "a"))
    torch.manual_seed(0)
    network = network_of("qwen3", tokenizer).float()
    with torch.no_grad():
        vectors = network.get_output_embeddings().weight
        vectors[twin] = vectors[written]
    network.save_pretrained(tmp_path)
    model = adapted(tmp_path)
    can_be_learned(model, tokenizer, [Encoded([other, written, other], [0, 0, 1])])
    with pytest.raises(AgentRLError, match=r"has to write `<tool_call>`, which this base was never trained on"):
        can_be_learned(model, tokenizer, [Encoded([other, written, other], [0, 1, 1])])
