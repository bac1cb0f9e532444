"""A base model that a user has goes through every stage that learns or samples, to a backend that serves it.

Qwen3 with random weights: what it learns is nothing, but its conversations are written in its own way from the first
stage to the last.
"""

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
from family_samples import network_of, tokenizer_of

from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import format_of
from agentrl_resources.files import read_json, read_jsonl, write_json, write_jsonl
from agentrl_resources.gateway import BundleBackend, Sampling
from agentrl_resources.learning import chosen_logprobs, export, export_policy, load_policy
from agentrl_resources.learning.adapters import is_adapter, merged
from agentrl_resources.preferences import CleaningRules, clean, read_pairs
from agentrl_resources.stages import load_chat, read_request, stage
from agentrl_resources.workflow import EpisodeFactory, load_workflow

pytestmark = pytest.mark.xdist_group("base models")  # what all of them look at is made once

SETTINGS = """
workflow: {{target: {target}, baseline: b, reward_model: r, policy_training: ppo_kl}}
release: {{canary_traffic_percent: 5, gates: [rollback_under_5_minutes]}}
monitoring: [tool_error_rate]
model: {{base: {base}}}
policy: {{adapter: {adapter}, rank: 4}}
sft: {{epochs: 1, batch_size: 8, learning_rate: 3.0e-3, probe_tasks: 6}}
on_policy: {{tasks: 3, holdout_tasks: 3, samples_per_task: 2}}
reward: {{epochs: 1, batch_size: 4, history_pairs: 12}}
alternatives: {{tasks: 3, best_of: 2, instructions: Be brief.}}
ppo: {{iterations: 1, episodes: 6, minibatch: 3, epochs: 1, critic_warmup: 0}}
"""


@pytest.fixture(scope="module", params=["full", "lora"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each stage made, by its name: of all the base's weights, and of an adapter."""
    root = tmp_path_factory.mktemp("base")
    base = root / "base"
    tokenizer_of("qwen3").save_pretrained(base)
    network_of("qwen3", tokenizer_of("qwen3")).save_pretrained(base)
    workflow_file = root / "workflow.yaml"
    workflow_file.write_text(SETTINGS.format(base=base, target="short_desk:Short", adapter=request.param))
    workflow = load_workflow("order_desk")
    made = {name: root / name for name in ("cleaned_preference_data", "eval_suite")}
    write_jsonl(root / "pairs.jsonl", list(workflow.historical_pairs(60, 1)))
    rows = clean(list(read_pairs(root / "pairs.jsonl")), CleaningRules()).clean
    for split in ("train", "holdout"):
        write_jsonl(made["cleaned_preference_data"] / f"{split}.jsonl", [r.to_dict() for r in rows if r.split == split])
    for suite in ("capability", "adversarial"):
        write_jsonl(made["eval_suite"] / f"{suite}.jsonl", [task.to_dict() for task in workflow.tasks(suite, 4, 1)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where the workflow is, for the pieces of a stage
        made["base"] = base
        for name in (
            "tokenizer", "sft_checkpoint", "on_policy_preference_data", "reward_model", "ppo_policy",
            "offline_eval_suite", "rl_alternatives",
        ):  # fmt: skip
            made[name], work = root / name, root / f"{name} work"
            for folder in (made[name], work):
                folder.mkdir()
            inputs = {other: str(place) for other, place in made.items() if other not in (name, "base")}
            names = {"baseline": "b", "candidate": "c", "reward_model": "r"}
            file = root / f"{name}.json"
            write_json(
                file,
                {"workflow_file": str(workflow_file), "rubric": None, "inputs": inputs, "output": str(made[name]),
                 "work": str(work), "names": names, "parameters": {}},
            )  # fmt: skip
            stage(name)(read_request(file, lambda *_: None))
    return made


def test_every_folder_says_how_its_conversations_are_written(folders: dict[str, Path]) -> None:
    for name in ("tokenizer", "sft_checkpoint", "reward_model", "ppo_policy"):
        assert format_of(folders[name]) == {"family": "rendered", "renderer": {"name": "qwen3"}, "uses_tools": True}
    assert load_policy(folders["ppo_policy"]).config.model_type == "qwen3"


def test_it_learns_to_write_as_the_data_do(folders: dict[str, Path]) -> None:
    """Better than the base, on conversations that it has not seen."""
    factory = EpisodeFactory(load_workflow("order_desk"))
    chat = load_chat(folders["sft_checkpoint"], factory)
    pairs = list(read_jsonl(folders["cleaned_preference_data"] / "holdout.jsonl"))[:4]
    rows = [row for pair in pairs for row in chat.rows([*pair["prompt"], *pair["chosen"]], len(pair["prompt"]))]

    def logprob(place: Path) -> float:
        return sum(sum(row) for row in chosen_logprobs(load_policy(place), rows, 1.0))

    assert rows
    assert logprob(folders["sft_checkpoint"]) > logprob(folders["base"])


def test_what_ppo_learns_from_is_what_was_sampled(folders: dict[str, Path]) -> None:
    first, _ = read_json(folders["ppo_policy"] / "report.json")["history"]
    assert abs(first["sampler_mismatch"]) < 1e-6
    assert first["kl"] == pytest.approx(0, abs=1e-3)
    assert first["forks"] == 0
    assert first["gradient_norm"] > 0


def test_its_pairs_and_its_evaluation_are_made_of_its_own_tokens(folders: dict[str, Path]) -> None:
    vocabulary = len(tokenizer_of("qwen3"))
    samples: list[dict[str, Any]] = list(read_jsonl(folders["on_policy_preference_data"] / "samples.jsonl"))
    assert samples
    assert all(token < vocabulary for sample in samples for token in sample["ids"])
    assert read_json(folders["offline_eval_suite"] / "report.json")["episodes"] == 2 * 2 * 8


def test_what_could_be_had_without_rl_is_played_on_the_same_tasks(folders: dict[str, Path]) -> None:
    report = read_json(folders["rl_alternatives"] / "report.json")
    ways = {row["name"]: row for row in report["alternatives"]}
    assert list(ways) == ["PPO", "SFT alone", "best of 2 by the reward model", "other instructions"]
    assert {row["n"] for row in ways.values()} == {3}
    assert report["answer"] in ("worthwhile", "not shown", "not worthwhile")


def test_it_is_served(folders: dict[str, Path]) -> None:
    factory = EpisodeFactory(load_workflow("order_desk"))

    async def answers() -> list[Any]:
        backend = BundleBackend(folders["ppo_policy"], factory, 4)
        body = {"messages": [{"role": "user", "content": "hi"}]}
        heard: list[str] = []
        found = [await backend.complete(body, Sampling(7, 1.0, 12), heard.append) for _ in range(2)]
        await backend.close()
        return [*found, "".join(heard)]

    first, again, heard = asyncio.run(answers())
    assert first == again
    assert 0 < first.tokens_out <= 12
    said = first.message["content"] if first.message else first.text
    assert heard == 2 * said or "\ufffd" in said


def test_what_learned_is_the_adapter_or_all_of_it(folders: dict[str, Path]) -> None:
    for name in ("sft_checkpoint", "reward_model", "ppo_policy"):
        assert read_json(folders[name] / "report.json")["moved"] > 0
        assert is_adapter(folders[name]) != (folders[name] / "model.safetensors").exists()


def test_it_is_exported_for_others(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = [[5, 9, 200, 31, 7], [1, 2, 3]]
    found, served = export_policy(folders["ppo_policy"], tmp_path / "out", "# A card\n", prompts, [3, 4], 0.7)
    assert served is None, "nobody named a vLLM"
    assert found.tokens == 6
    assert found.largest < 1e-4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (model.generation_config.eos_token_id, model.generation_config.temperature) == ([3, 4], 0.7)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer_of("qwen3").chat_template
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"
    with pytest.raises(AgentRLError, match="is not empty"):
        export_policy(folders["ppo_policy"], tmp_path / "out", "", prompts, [3], 0.7)


def test_an_export_that_is_not_the_policy_is_not_written(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(network: Any) -> Any:
        network = copy.deepcopy(merged(network))
        for weights in network.parameters():
            weights.data.mul_(1.5)
        return network

    monkeypatch.setattr(export, "merged", another)
    with pytest.raises(AgentRLError, match="the exported model is not the policy"):
        export_policy(folders["sft_checkpoint"], tmp_path / "out", "", [[5, 9, 200, 31, 7]], [3], 0.7)
    assert not list(tmp_path.iterdir())
