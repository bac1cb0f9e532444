"""What a base will need is reckoned from its files, and what cannot fit is refused with what would help."""

import json
from pathlib import Path

import pytest
import torch
from family_samples import network_of, tokenizer_of

from agentrl_resources.errors import AgentRLError
from agentrl_resources.learning import free_memory, refuse_what_does_not_fit
from agentrl_resources.learning.memory import base_in, needed
from agentrl_resources.settings import Settings, load_settings

WORKFLOW = Path(__file__).parents[1] / "workflow.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    network_of("llama-3.2", tokenizer_of("llama-3.2")).save_pretrained(folder)
    return folder


def with_base(folder: Path, **sections) -> Settings:
    stored = json.loads(load_settings(WORKFLOW).model_dump_json(include={"workflow", "release", "monitoring"}))
    return Settings.model_validate_json(json.dumps({**stored, "model": {"base": str(folder)}, **sections}))


def test_sizes_are_those_of_the_model(folder):
    model = network_of("llama-3.2", tokenizer_of("llama-3.2"))
    base = base_in(str(folder), None)
    assert base.parameters == sum(weights.numel() for weights in model.state_dict().values())
    assert (base.layers, base.hidden) == (model.config.num_hidden_layers, model.config.hidden_size)
    assert base_in(str(folder), "bfloat16").bytes_each == 2


def test_an_adapter_needs_less_and_more_conversations_need_more(folder):
    base = base_in(str(folder), None)
    whole, adapter = needed(base, with_base(folder)), needed(base, with_base(folder, policy={"adapter": "lora"}))
    assert set(whole) == {"sft_checkpoint", "reward_model", "ppo_policy", "offline_eval_suite", "rl_alternatives"}
    assert all(adapter[stage] <= whole[stage] for stage in whole)
    assert adapter["ppo_policy"] < whole["ppo_policy"]
    twice = needed(base, with_base(folder, policy={"gradient_checkpointing": True}))
    assert all(twice[stage] < whole[stage] for stage in ("sft_checkpoint", "reward_model", "ppo_policy"))
    many = needed(base, with_base(folder, evaluation={"concurrency": 4000}))
    assert many["offline_eval_suite"] > whole["offline_eval_suite"]


def test_what_processes_split_each_of_them_needs_less_of(folder):
    base, server = base_in(str(folder), None), {"kind": "vllm"}
    whole = needed(base, with_base(folder, engine=server))
    split = [
        needed(base, with_base(folder, engine=server, compute={"sharded": True, "training_processes": n}))
        for n in (2, 4, 8)
    ]
    for stage in ("sft_checkpoint", "reward_model", "ppo_policy"):
        two, four, eight = (one[stage] for one in split)
        assert two > four > eight
        assert (two - four) / (four - eight) == pytest.approx(2)
        assert eight < whole[stage]
    assert {one["offline_eval_suite"] for one in split} == {whole["offline_eval_suite"]}


def test_what_fits_is_told_and_what_does_not_is_refused_with_what_helps(folder):
    settings = with_base(folder)
    needs = needed(base_in(str(folder), None), settings)
    said = refuse_what_does_not_fit("ppo_policy", settings, 10 * needs["ppo_policy"])
    assert "needs about" in said
    assert "the largest stage" in said
    adapter = needed(base_in(str(folder), None), with_base(folder, policy={"adapter": "lora"}))
    between = (adapter["ppo_policy"] + needs["ppo_policy"]) / 2 / 0.9
    with pytest.raises(AgentRLError, match=r"ppo_policy would need about .*With `policy\.adapter: lora` it would be"):
        refuse_what_does_not_fit("ppo_policy", settings, between)
    with pytest.raises(AgentRLError, match="Take a smaller base, or a machine with more memory"):
        refuse_what_does_not_fit("ppo_policy", settings, 1e-6)


def test_the_built_in_model_and_other_stages_are_not_asked(folder):
    assert refuse_what_does_not_fit("ppo_policy", load_settings(WORKFLOW), 0.0) == ""
    assert refuse_what_does_not_fit("canary_rollout", with_base(folder), 0.0) == ""


def test_there_is_memory_here():
    assert 0 < free_memory() < 2**14


def test_a_base_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AgentRLError, match="nowhere"):
        refuse_what_does_not_fit("sft_checkpoint", with_base(tmp_path / "nowhere"), 1.0)
