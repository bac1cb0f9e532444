"""Policies on a server: what is played there is what trains, and what is not is noticed before it is learned from."""

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from family_samples import network_of, tokenizer_of
from small_models import small_factory
from test_ppo import SETTINGS as PPO
from test_ppo import LikesOddTokens
from token_server import TokenServer

from agentrl_resources.engines import VllmEngine, VllmServer, Written
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families import load_format
from agentrl_resources.learning import (
    PpoTrainer,
    Published,
    Sampler,
    chosen_logprobs,
    learned,
    new_model,
    new_scorer,
    save_network,
)
from agentrl_resources.learning.adapters import copied, put_back
from agentrl_resources.learning.mismatch import mismatch, weights
from agentrl_resources.learning.rollout import play_in_turns
from agentrl_resources.settings import ModelSettings, PolicySettings

LORA = PolicySettings(adapter="lora", rank=4, alpha=8)
FACTORY = small_factory(16)
TASKS = FACTORY.workflow.tasks("train", 6, 3)
pytestmark = pytest.mark.xdist_group("engines")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    network_of("qwen3", tokenizer_of("qwen3")).float().save_pretrained(folder)
    tokenizer_of("qwen3").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat() -> Any:
    description = {"family": "rendered", "renderer": {"name": "qwen3"}}
    return load_format(tokenizer_of("qwen3"), description, FACTORY.tools, FACTORY.workflow.instructions)


def adapted(base: Path, seed: int = 5) -> Any:
    """A policy whose adapter has learned something."""
    network = new_model(ModelSettings(base=str(base)), None, LORA, seed=4)
    generator = torch.Generator().manual_seed(seed)
    for tensor in learned(network).values():
        torch.nn.init.normal_(tensor, std=0.3, generator=generator)
    return network


def sampler_on(
    url: str, network: Any, chat: Any, folder: Path, adapter: bool = True, patience: float = 20.0
) -> Sampler:
    return Sampler(
        network, chat, FACTORY, published(VllmServer(url, patience=patience), network, chat, folder, adapter)
    )


def published(server: VllmServer, network: Any, chat: Any, folder: Path, adapter: bool = True) -> Published:
    said = FACTORY.start(TASKS[0]).transcript.messages
    return Published(server, network, chat, (said, FACTORY.tools), folder, adapter)


@pytest.fixture
def serve(base: Path) -> Any:
    started: list[TokenServer] = []

    def start(fault: str = "", **arguments: Any) -> TokenServer:
        started.append(TokenServer(base, tokenizer_of("qwen3"), fault, **arguments))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "weights"])
def test_what_is_played_there_is_what_trains(base: Path, chat: Any, serve: Any, tmp_path: Path, adapter: bool) -> None:
    sampler = sampler_on(serve().url, adapted(base), chat, tmp_path, adapter)
    episodes = sampler.play(TASKS, range(6), 0.8, 6)
    assert [episode.task for episode in episodes] == TASKS
    rows = [row for episode in episodes for row in episode.rows]
    for row, expected in zip(rows, chosen_logprobs(sampler.model, rows, 0.8), strict=True):
        told = [logprob for logprob, chosen in zip(row.logprobs, row.mask, strict=True) if chosen]
        assert told == pytest.approx(expected, abs=1e-4)
    again = sampler.play(TASKS, range(6), 0.8, 2)
    assert [episode.ids for episode in again] == [episode.ids for episode in episodes]


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "weights"])
def test_each_arm_answers_for_itself(base: Path, chat: Any, serve: Any, tmp_path: Path, adapter: bool) -> None:
    """Two policies on one server: at once where they are adapters, one after the other where they are all weights."""
    server = VllmServer(serve().url, patience=20)
    networks = [adapted(base, seed) for seed in (5, 6)]
    samplers = [
        Sampler(network, chat, FACTORY, published(server, network, chat, tmp_path / str(number), adapter))
        for number, network in enumerate(networks)
    ]
    for network, episodes in zip(networks, play_in_turns(samplers, TASKS, range(6), 1.0), strict=True):
        rows = [row for episode in episodes for row in episode.rows]
        told = [logprob for row in rows for logprob, chosen in zip(row.logprobs, row.mask, strict=True) if chosen]
        assert told == pytest.approx([one for row in chosen_logprobs(network, rows, 1.0) for one in row], abs=1e-4)


def test_a_policy_is_published_when_it_has_changed_and_only_then(
    base: Path, chat: Any, serve: Any, tmp_path: Path
) -> None:
    server = serve()
    sampler = sampler_on(server.url, adapted(base), chat, tmp_path)
    names = []
    for step in range(6):
        sampler.publish()
        facts = sampler.facts
        assert 0 <= facts["probe_mean"] <= facts["probe_largest"] < 1e-4
        names.append(sampler.published.version)
        asked = len(server.turns)
        sampler.publish()
        assert (len(server.turns), sampler.published.version) == (asked, names[-1])
        with torch.no_grad():
            next(iter(learned(sampler.model).values())).add_(0.1 * (step + 1))
    assert len(set(names)) == len(names)
    assert len([name for name in server.networks if name != "policy"]) <= 4, "adapters pile up on the server"
    assert len(list(tmp_path.iterdir())) == 1, "folders pile up here"


FAULTS = {
    "adapter not applied": "does not answer with the policy",
    "stale": "does not answer with the policy",
    "raw": "does not answer with the policy",
    "precision": "does not answer with the policy",
    "template": "chat template is not the policy's",
}


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "weights"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_sampler_is_noticed_before_anything_is_learned(
    base: Path, chat: Any, serve: Any, tmp_path: Path, fault: str, adapter: bool
) -> None:
    there = serve("" if fault == "stale" else fault)
    if not adapter:
        there.fault = "stale" if fault == "adapter not applied" else fault  # weights that did not arrive
    server = VllmServer(there.url, patience=20)
    if fault == "stale" and adapter:  # what was published before goes on answering
        published(server, adapted(base, 8), chat, tmp_path / "before").publish()
        there.fault = fault
    policy = adapted(base)
    sampler = Sampler(policy, chat, FACTORY, published(server, policy, chat, tmp_path / "policy", adapter))
    before = copied(learned(policy))
    reference, critic = adapted(base), scorer_of(base, tmp_path)
    trainer = PpoTrainer(sampler, reference, LikesOddTokens(), critic, PPO, 1, tmp_path / "checkpoints")
    with pytest.raises(AgentRLError, match=FAULTS[fault]):
        trainer.train(lambda _, count: FACTORY.workflow.tasks("train", count, 3))
    assert trainer.state.iteration == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in learned(policy).items())


def scorer_of(base: Path, folder: Path) -> Any:
    save_network(adapted(base), folder / "scorer")
    return new_scorer(folder / "scorer")


def test_ppo_learns_on_a_server_what_it_is_told_there(base: Path, chat: Any, serve: Any, tmp_path: Path) -> None:
    there = serve()
    policy = adapted(base)
    sampler = sampler_on(there.url, policy, chat, tmp_path / "policy")
    settings = PPO.model_copy(update={"iterations": 1, "episodes": 4, "minibatch": 2, "epochs": 1})
    critic = scorer_of(base, tmp_path)
    trainer = PpoTrainer(sampler, adapted(base), LikesOddTokens(), critic, settings, 1, tmp_path / "checkpoints")
    state = trainer.train(lambda _, count: FACTORY.workflow.tasks("train", count, 3))
    assert state.stopped is None
    assert len({name for name, _ in there.turns}) == 2, "each iteration has a policy of its own"
    for facts in state.history:
        assert facts["probe_largest"] < 1e-3
        assert 0 <= facts["sampler_mismatch"] < 1e-6
        assert facts["effective_sample"] == pytest.approx(1, abs=1e-4)
        assert facts["masked"] == 0
    assert state.history[0]["gradient_norm"] > 0


def test_a_rollout_ahead_is_played_while_the_policy_learns(base: Path, chat: Any, serve: Any, tmp_path: Path) -> None:
    """By the policy from before the update, whatever becomes of the network meanwhile."""
    there = serve()
    settings = PPO.model_copy(
        update={"iterations": 2, "episodes": 4, "minibatch": 2, "epochs": 1, "version_lag": 1, "average_last": 1}
    )
    sampler = sampler_on(there.url, adapted(base), chat, tmp_path / "policy")
    scorer = scorer_of(base, tmp_path)
    trainer = PpoTrainer(sampler, adapted(base), LikesOddTokens(), scorer, settings, 1, tmp_path / "checkpoints")
    history = trainer.train(lambda _, count: FACTORY.workflow.tasks("train", count, 3)).history
    assert [facts["version_lag"] for facts in history] == [0, 1, 0]
    names = list(dict.fromkeys(name for name, _ in there.turns))
    assert len(names) == 2, "the first policy plays two rollouts, and the last one is measured"
    first = [prompt for name, prompt in there.turns if name == names[0]]
    assert len(first) >= 2 * settings.episodes
    for facts in history:
        assert 0 <= facts["sampler_mismatch"] < 1e-6
    assert history[1]["version_kl"] > 1e-6


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "weights"])
def test_a_server_that_is_killed_in_mid_rollout_loses_no_episode_and_counts_none_twice(
    base: Path, chat: Any, serve: Any, tmp_path: Path, adapter: bool
) -> None:
    undisturbed = sampler_on(serve().url, adapted(base), chat, tmp_path / "one", adapter).play(TASKS, range(6), 1.0, 6)
    there = serve()
    sampler = sampler_on(there.url, adapted(base), chat, tmp_path / "other", adapter)
    if adapter:  # one that was published before, and is gone
        kept = copied(learned(sampler.model))
        with torch.no_grad():
            next(iter(learned(sampler.model).values())).add_(0.1)
        sampler.publish()
        put_back(sampler.model, kept)
    sampler.publish()
    there.die_after = len(there.turns) + 2
    episodes = sampler.play(TASKS, range(6), 1.0, 6)
    assert there.die_after is None, "it has not died"
    assert [episode.ids for episode in episodes] == [episode.ids for episode in undisturbed]
    assert [episode.logprobs for episode in episodes] == [
        pytest.approx(episode.logprobs, abs=1e-5) for episode in undisturbed
    ]
    prompts = Counter(tuple(prompt) for name, prompt in there.turns[-20:] if name == sampler.published._model)
    assert len(prompts) >= len(TASKS)


def test_a_stage_finds_a_server_as_the_stage_before_left_it(base: Path, chat: Any, serve: Any, tmp_path: Path) -> None:
    """The same weights under the same name, out of a folder that is gone."""
    there = serve()
    for stage in ("one", "other"):
        sampler = sampler_on(there.url, adapted(base), chat, tmp_path / stage)
        sampler.publish()
        assert sampler.facts["probe_largest"] < 1e-4
        shutil.rmtree(tmp_path / stage)
    server = VllmServer(there.url)
    published(server, adapted(base, 7), chat, tmp_path / "third").publish()
    before = set(there.networks)
    server.leave()
    assert len(before - set(there.networks)) == 1


def test_what_was_refused_once_is_refused_again(base: Path, chat: Any, serve: Any, tmp_path: Path) -> None:
    sampler = sampler_on(serve("raw").url, adapted(base), chat, tmp_path)
    for _ in range(2):
        with pytest.raises(AgentRLError, match="does not answer with the policy"):
            sampler.publish()


def test_a_server_that_was_started_again_between_two_rollouts_is_given_its_policy(
    base: Path, chat: Any, serve: Any, tmp_path: Path
) -> None:
    there = serve()
    sampler = sampler_on(there.url, adapted(base), chat, tmp_path, adapter=False)
    sampler.publish()
    there.networks = {"policy": there.base}
    sampler.publish()
    assert sampler.facts["probe_largest"] < 1e-4
    told = sampler.play(TASKS[:1], [0], 1.0, 1)[0]
    expected = chosen_logprobs(sampler.model, told.rows, 1.0)[0]
    assert [one for one, chosen in zip(told.logprobs, told.mask, strict=True) if chosen] == pytest.approx(
        expected, abs=1e-4
    )


OWNER = """
import sys, time
from pathlib import Path
from agentrl_resources.engines.launch import Launched

server = Launched(sys.argv[1], "nowhere", [], Path(sys.argv[2]), False, 8)
server.start()
print(server._process.pid, flush=True)
time.sleep(300)
"""


def test_a_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    stands_in = tmp_path / "python"
    stands_in.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\necho $$ > {tmp_path}/server\nexec sleep 300\n'
    )
    stands_in.chmod(0o755)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(stands_in), str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    watcher = int(owner.stdout.readline())
    started = tmp_path / "server"
    until(lambda: started.exists() and started.read_text().strip() != "")
    server = int(started.read_text())
    assert psutil.pid_exists(server)
    owner.kill()
    owner.wait()
    until(lambda: not psutil.pid_exists(server) and not psutil.pid_exists(watcher))


def until(true: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    ("fault", "adapter", "said"),
    [
        ("no vllm", True, "is no vLLM server"),
        ("no log-probabilities", True, "gives no log-probabilities with its answer"),
        ("no token ids", True, "gives no token ids with its answer"),
        ("slow", True, r"did not answer within 2 s \(engine\.patience_seconds\)"),
        ("no adapters", True, "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or set engine.publish: weights"),
        ("no weights", False, "takes no weights: start it with VLLM_SERVER_DEV_MODE=1"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_clear_error(
    base: Path, chat: Any, serve: Any, tmp_path: Path, fault: str, adapter: bool, said: str
) -> None:
    url, patience = serve(fault).url, 2 if fault == "slow" else 60
    with pytest.raises(AgentRLError, match=said):
        sampler_on(url, adapted(base), chat, tmp_path, adapter, patience).play(TASKS[:1], [0], 1.0, 1)


def test_a_server_that_is_away_or_old_or_no_address_is_one_clear_error(serve: Any) -> None:
    with pytest.raises(
        AgentRLError, match=r"engine\.url: http://127.0.0.1:\d+ cannot be reached .*refused.* running\?"
    ):
        VllmServer(f"http://127.0.0.1:{free_port()}/v1").capabilities()
    with pytest.raises(AgentRLError, match=r"runs vLLM 0\.9\.2; 0\.11 or newer"):
        VllmServer(serve(version="0.9.2").url).capabilities()
    with pytest.raises(AgentRLError, match=r"engine\.url: `localhost:8000` is no address"):
        VllmServer("localhost:8000")


def test_a_server_that_stays_away_ends_the_rollout_with_its_name(
    base: Path, chat: Any, serve: Any, tmp_path: Path
) -> None:
    there = serve()
    server = VllmServer(there.url, patience=60)
    network = adapted(base)
    sampler = Sampler(network, chat, FACTORY, published(server, network, chat, tmp_path))
    sampler.publish()
    server.patience = 1
    there._do(there._away())
    with pytest.raises(AgentRLError, match=r"http://127.0.0.1:\d+ went away and was not back within 1 s"):
        sampler.play(TASKS[:2], [0, 1], 1.0, 2)


def test_a_conversation_without_room_for_a_turn_ends(base: Path, chat: Any, serve: Any) -> None:
    engine = VllmEngine(VllmServer(serve().url), "policy", chat.turn_ends, context=10)

    async def turns() -> list[Written]:
        session = engine.open(1, 50)
        written = [await engine.turn(session, [1] * 8, 1.0, 50), await engine.turn(session, [1, 2, 3], 1.0, 50)]
        await engine.leave()
        return written

    first, second = asyncio.run(turns())
    assert 1 <= len(first.ids) <= 2
    assert second == Written([], [])


def test_mismatch_is_nothing_where_both_agree_and_grows_with_what_they_part_by() -> None:
    same = mismatch([-1.0, -2.0], [-1.0, -2.0])
    assert same == {
        "sampler_mismatch": 0.0, "mismatch_mean": 0.0, "mismatch_largest": 0.0, "effective_sample": 1.0,
    }  # fmt: skip
    near, far = (mismatch([-1.0, -2.0], [-1.0 + by, -2.0 - by]) for by in (0.1, 0.5))
    for name in ("sampler_mismatch", "mismatch_mean", "mismatch_largest"):
        assert 0 < near[name] < far[name]
    assert 1 > near["effective_sample"] > far["effective_sample"] > 0.5


@pytest.mark.parametrize(
    ("by", "mask", "token"), [(0.0, 1.0, 1.0), (0.3, 1.0, 1.35), (0.6, 0.0, 1.82), (2.0, 0.0, 3.0)]
)
def test_corrections(by: float, mask: float, token: float) -> None:
    """Two tokens, each `by` nats more likely for the trainer, and a cap of 3, which is 1.1 nats."""
    sampled, trained = [-3.0, -2.5], [-3.0 + by, -2.5 + by]
    for correction, expected in {"sequence_mask": mask, "token": token, "none": 1.0}.items():
        found = weights(sampled, trained, PPO.model_copy(update={"mismatch_correction": correction}))
        assert found == pytest.approx([expected] * 2, abs=0.01)
