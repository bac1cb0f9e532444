"""vLLM itself, with SmolLM2-135M and an adapter: `make test-engines`.

The other tests of engines talk to a server of our own that speaks the same (tests/token_server.py); here it is seen
that vLLM does what that one does, and goes wrong in the ways that that one imitates.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_factory

from agentrl_resources.engines import Publication, VllmEngine, VllmServer, launched
from agentrl_resources.engines.launch import Launched
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import load_format, recognise
from agentrl_resources.gateway import Sampling
from agentrl_resources.gateway.remote import RemoteBackend
from agentrl_resources.learning import (
    Published,
    Sampler,
    chosen_logprobs,
    export,
    export_policy,
    learned,
    load_tokenizer,
    new_model,
    save_network,
)
from agentrl_resources.learning.adapters import merged
from agentrl_resources.learning.rollout import play_in_turns
from agentrl_resources.settings import ModelSettings, PolicySettings

PYTHON, BASE = os.environ["AGENTRL_VLLM"], os.environ["AGENTRL_SMOLLM2"]
LORA = PolicySettings(adapter="lora", rank=8, alpha=16)
ARGUMENTS = ["--max-model-len", "2048", "--max-num-seqs", "16", "--enforce-eager"]
FACTORY = small_factory(24)
TASKS = FACTORY.workflow.tasks("train", 4, 3)


@contextmanager
def serving(folder: Path, *more: str, dtype: str = "float32") -> Iterator[VllmServer]:
    arguments = ["--dtype", dtype, *ARGUMENTS, *more]
    with launched(PYTHON, BASE, arguments, folder / "vllm.log", True, LORA.rank, 600) as server:
        yield server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    with serving(tmp_path_factory.mktemp("server")) as found:
        yield found


@pytest.fixture
def server(running: VllmServer) -> VllmServer:
    """With the base's own weights, whatever the test before has published."""
    running.publish(Publication("base", Path(BASE), "weights"))
    return running


@pytest.fixture(scope="module")
def chat() -> Any:
    tokenizer = load_tokenizer(BASE)
    description = recognise(tokenizer, None, {}, FACTORY.tools)
    return load_format(tokenizer, description, FACTORY.tools, FACTORY.workflow.instructions)


def adapted(seed: int = 5) -> Any:
    """A policy whose adapter says something else than its base."""
    network = new_model(ModelSettings(base=BASE), None, LORA, seed=4).eval()
    generator = torch.Generator().manual_seed(seed)
    for tensor in learned(network).values():
        torch.nn.init.normal_(tensor, std=0.02, generator=generator)
    return network


def sampler_on(server: VllmServer, network: Any, chat: Any, folder: Path, adapter: bool = True) -> Sampler:
    opening = (FACTORY.start(TASKS[0]).transcript.messages, FACTORY.tools)
    return Sampler(network, chat, FACTORY, Published(server, network, chat, opening, folder, adapter))


def told_and_expected(network: Any, episodes: Any) -> tuple[list[float], list[float]]:
    rows = [row for episode in episodes for row in episode.rows]
    told = [logprob for row in rows for logprob, chosen in zip(row.logprobs, row.mask, strict=True) if chosen]
    return told, [one for row in chosen_logprobs(network, rows, 0.8) for one in row]


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "weights"])
def test_what_is_played_there_is_what_trains(server: Any, chat: Any, tmp_path: Path, adapter: bool) -> None:
    """Two policies: at once where they are adapters, one after the other where they are all weights."""
    networks = [adapted(seed) for seed in (5, 6)]
    samplers = [sampler_on(server, one, chat, tmp_path / str(at), adapter) for at, one in enumerate(networks)]
    for network, episodes in zip(networks, play_in_turns(samplers, TASKS, range(4), 0.8), strict=True):
        assert [episode.task for episode in episodes] == TASKS
        told, expected = told_and_expected(network, episodes)
        assert len(told) > 4
        assert told == pytest.approx(expected, abs=1e-3)
    print([sampler.facts for sampler in samplers])


def test_a_gateway_talks_to_an_adapter_by_its_name(server: Any, chat: Any, tmp_path: Path) -> None:
    sampler = sampler_on(server, adapted(), chat, tmp_path)
    sampler.publish()
    backend = RemoteBackend(server.url, sampler.published.version, None, FACTORY.tools)

    async def asked() -> Any:
        turn = await backend.complete(
            {"messages": [{"role": "user", "content": "Where is my order?"}]}, Sampling(1, 0.0, 8, logprobs=True)
        )
        await backend.close()
        return turn

    turn = asyncio.run(asked())
    assert turn.tokens_out
    assert turn.logprobs is not None


def test_an_exported_policy_is_proven_by_vllm(chat: Any, tmp_path: Path) -> None:
    network = adapted()
    save_network(network, tmp_path / "policy")
    chat.tokenizer.save_pretrained(tmp_path / "policy")
    prompts = [chat.prompt(FACTORY.start(task).transcript.messages) for task in TASKS]
    found, served = export_policy(
        tmp_path / "policy", tmp_path / "out", "card", prompts, chat.turn_ends, 0.7, vllm=PYTHON
    )
    print(found, served)
    assert served is not None
    assert served.tokens > 4
    assert {path.name for path in tmp_path.iterdir()} == {"policy", "out"}, "nothing but what was exported is left"

    with pytest.MonkeyPatch.context() as patch:  # a folder that transformers would vouch for, and that is another's
        patch.setattr(export, "agreement", lambda *_: found)
        patch.setattr(export, "merged", lambda _: merged(adapted(6)))
        with pytest.raises(AgentRLError, match="does not answer with the policy"):
            export_policy(tmp_path / "policy", tmp_path / "no", "card", prompts, chat.turn_ends, 0.7, vllm=PYTHON)
    assert not (tmp_path / "no").exists()


def test_a_server_that_is_killed_loses_no_episode_and_counts_none_twice(chat: Any, tmp_path: Path) -> None:
    own = Launched(PYTHON, BASE, ["--dtype", "float32", *ARGUMENTS], tmp_path / "vllm.log", True, LORA.rank)
    own.start()
    server = VllmServer(own.url, patience=600, restart=own.start)
    try:
        own.wait(server.healthy, 600)
        network = adapted()
        sampler = sampler_on(server, network, chat, tmp_path / "policy")
        sampler.publish()
        sampler.factory = small_factory(96)
        asked = VllmEngine._answer
        sent: list[Any] = []

        async def until_all_are_under_way(engine: VllmEngine, body: Any) -> Any:
            sent.append(body)
            if len(sent) == 16:
                os.killpg(own._process.pid, signal.SIGKILL)
            return await asked(engine, body)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(VllmEngine, "_answer", until_all_are_under_way)
            episodes = sampler.play(TASKS * 4, range(16), 0.8, 16)
        assert server.lives == 1, "it was not killed in mid-rollout"
        told, expected = told_and_expected(network, episodes)
        assert told == pytest.approx(expected, abs=1e-3)
        assert [episode.task for episode in episodes] == TASKS * 4
    finally:
        own.kill()


def refused(sampler: Sampler) -> str:
    with pytest.raises(AgentRLError) as refusal:
        sampler.publish()
    print(refusal.value)
    return str(refusal.value)


def test_an_adapter_that_is_not_applied_is_caught(server: Any, chat: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VllmServer, "publish", lambda self, _: self.capabilities().model)
        said = refused(sampler_on(server, adapted(), chat, tmp_path))
    assert "does not answer with the policy that was published" in said


def test_a_cache_of_the_weights_before_is_caught(server: Any, chat: Any, tmp_path: Path) -> None:
    sampler_on(server, adapted(), chat, tmp_path / "before", adapter=False).publish()
    ask = VllmServer._ask

    def keeping(self: VllmServer, place: str, *body: Any) -> Any:
        return ask(self, "/pause?mode=keep&clear_cache=false" if place.startswith("/pause") else place, *body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VllmServer, "_ask", keeping)
        patch.setattr(VllmServer, "_forget_prompts", lambda _: None)
        said = refused(sampler_on(server, adapted(6), chat, tmp_path / "after", adapter=False))
    assert "does not answer with the policy that was published" in said


def test_a_cache_under_a_name_that_was_used_before_is_caught(server: Any, chat: Any, tmp_path: Path) -> None:
    """An adapter that is loaded in place from the same folder: what vLLM did not forget answers."""
    same = tmp_path / "same"

    def in_place(self: VllmServer, publication: Publication) -> None:
        for file in publication.folder.iterdir():
            same.mkdir(exist_ok=True)
            (same / file.name).write_bytes(file.read_bytes())
        self._ask("/v1/load_lora_adapter", {"lora_name": "same", "lora_path": str(same), "load_inplace": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VllmServer, "publish", lambda self, publication: in_place(self, publication) or "same")
        sampler_on(server, adapted(), chat, tmp_path / "before").publish()
        said = refused(sampler_on(server, adapted(6), chat, tmp_path / "after"))
    assert "does not answer with the policy that was published" in said


def test_log_probabilities_before_temperature_are_caught(chat: Any, tmp_path: Path) -> None:
    with serving(tmp_path, "--logprobs-mode", "raw_logprobs") as server:
        said = refused(sampler_on(server, adapted(), chat, tmp_path / "policy"))
    assert "processed_logprobs" in said


def test_another_template_and_another_precision_are_caught(chat: Any, tmp_path: Path) -> None:
    template = load_tokenizer(BASE).chat_template.replace("# Tools", "# Your tools")
    (tmp_path / "template.jinja").write_text(template)
    with serving(tmp_path, "--chat-template", str(tmp_path / "template.jinja"), dtype="bfloat16") as server:
        said = refused(sampler_on(server, adapted(), chat, tmp_path / "policy"))
        assert "the engine's chat template is not the policy's" in said
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Published, "_same_template", lambda *_: None)
            said = refused(sampler_on(server, adapted(), chat, tmp_path / "other"))
        assert "does not answer with the policy that was published" in said


def test_a_python_without_vllm_is_one_clear_error(tmp_path: Path) -> None:
    import sys

    with (
        pytest.raises(AgentRLError, match=r"ended as it was being started .*No module named 'vllm'"),
        launched(sys.executable, BASE, [], tmp_path / "vllm.log", True, 8, 60),
    ):
        pass
