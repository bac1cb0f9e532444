"""A model that two processes split learns what one process learns that has it whole, and leaves the same behind."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from family_samples import network_of, tokenizer_of
from small_models import ROUNDING, in_double, small_factory, small_harmony, small_model
from test_ppo import SETTINGS as PPO
from test_ranks import CLOSE
from token_server import TokenServer

from agentrl_resources.engines import VllmServer, layers
from agentrl_resources.families import Encoded, load_format
from agentrl_resources.files import digest_file
from agentrl_resources.learning import (
    EncodedPair,
    PpoTrainer,
    Published,
    RewardModel,
    Sampler,
    WeightedReward,
    batching,
    chosen_logprobs,
    copied,
    how_far,
    in_parts,
    learned,
    meeting,
    new_model,
    recomputed,
    repeatable,
    save_network,
    train_reward_model,
    train_sft,
    whole,
)
from agentrl_resources.learning.adapters import CONFIG, add_adapter
from agentrl_resources.learning.checkpoints import load_latest_checkpoint
from agentrl_resources.learning.model import recompute_from_here
from agentrl_resources.learning.sft import language_loss
from agentrl_resources.learning.sharding import evened, full
from agentrl_resources.settings import ModelSettings, PolicySettings, RewardSettings, SftSettings
from agentrl_resources.side_by_side import side_by_side
from agentrl_resources.workflow import EpisodeFactory, load_workflow

pytestmark = pytest.mark.numeric

NAME = "qwen3"
LORA = PolicySettings(adapter="lora", rank=3)
SEED = 3


def in_process(say, piece):
    work, folder, number, count = piece
    repeatable(5)
    # no model is small here, and a pass holds one or two rows: ranks have different numbers of them
    with pytest.MonkeyPatch.context() as patch, meeting(folder / "ranks", number, count, count > 1) as ranks:
        patch.setattr(layers, "SMALL", 0)
        patch.setattr(batching, "TOKENS_PER_BATCH", 96)
        patch.setattr(batching, "LOGITS_AT_ONCE", 4096)
        return work(ranks, folder)


def by(count, work, folder):
    """What each of `count` processes returns; more than one split their networks."""
    folder = folder / str(count)
    folder.mkdir()
    return side_by_side(in_process, [(work, folder, number, count) for number in range(count)], lambda *_: None)


def numbers_of(*networks):
    return torch.cat([full(p.detach()).flatten() for network in networks for p in network.parameters()]).numpy()


@cache
def rows():
    """All begin alike, and the first rank has the long ones."""
    print(f"seed {SEED}")
    generator = torch.Generator().manual_seed(SEED)
    opening = torch.randint(0, 200, (40,), generator=generator).tolist()
    tails = [torch.randint(0, 200, (n,), generator=generator).tolist() for n in (40, 9, 37, 5, 33, 7, 31, 3)]
    return [Encoded([*opening, *tail], [0] * 42 + [1] * (len(tail) - 2)) for tail in tails]


def network(kind):
    if kind == "built-in":
        return in_double(small_model(small_harmony(small_factory())))
    one = in_double(network_of(NAME, tokenizer_of(NAME)))
    if kind == "tied":
        one.config.tie_word_embeddings = True
        one.tie_weights()
    if kind == "adapter":
        add_adapter(one, LORA, 7)
        generator = torch.Generator().manual_seed(1)
        for weights in learned(one).values():  # or half of them would have no gradient yet
            torch.nn.init.normal_(weights, std=0.1, generator=generator)
    return recomputed(one, PolicySettings(gradient_checkpointing=kind == "twice"))


def scorer():
    from transformers import AutoModelForTokenClassification

    config = network_of(NAME, tokenizer_of(NAME)).config
    config.num_labels = 1
    torch.manual_seed(2)
    return in_double(AutoModelForTokenClassification.from_config(config)).eval()


KINDS = ("built-in", "whole", "tied", "adapter", "twice")


def step(kind, ranks):
    """Log-probabilities, then loss and gradients of rows that are cut into passes of unequal number."""
    one = in_parts(lambda: network(kind), ranks)
    own = ranks.part(rows())
    before = ranks.each(lambda rows: chosen_logprobs(one, rows, 0.7), rows())
    alone = ranks.each(lambda rows: chosen_logprobs(one, rows, 0.7), rows()[:1])
    recompute_from_here(one)
    of_tokens = torch.tensor(sum(sum(row.mask) for row in rows()))
    passes = [[row] for row in own] if ranks.number == 0 else [own]
    losses = []
    for group, counts in evened(one, passes, own[:1]):
        ids, mask = (batching.pad([getattr(row, name) for row in group]) for name in ("ids", "mask"))
        losses.append(language_loss(one, ids, ids.where(mask == 1, -100), of_tokens / counts))
        losses[-1].backward()
    loss = ranks.add_gradients(one.parameters(), torch.stack(losses).detach().sum().reshape(1))
    gradients = torch.cat([full(weights.grad).flatten() for weights in learned(one).values()])
    asked = torch.tensor([value for row in before + alone for value in row])
    return float(loss), gradients.numpy(), asked.numpy(), len(losses)


def sft(ranks, folder):
    model = in_parts(lambda: network("whole"), ranks)
    start = copied(learned(model))
    settings = SftSettings(epochs=2, batch_size=4, learning_rate=1e-3, matrix_learning_rate=None)
    report = train_sft(
        model,
        tokenizer_of(NAME),
        rows(),
        rows()[:3],
        settings,
        3,
        folder / f"sft{ranks.number}",
        lambda *_: None,
        ranks,
    )
    if (trained := whole(model, ranks)) is not None:
        save_network(trained, folder / "sft")
    return numbers_of(model), [*dict(report["loss"]).values(), report["holdout_loss"], how_far(model, start)]


def reward(ranks, folder):
    model = in_parts(scorer, ranks)
    pairs = [EncodedPair(one, other) for one, other in zip(rows(), rows()[1:], strict=False)]
    settings = RewardSettings(epochs=2, batch_size=2, learning_rate=1e-3, matrix_learning_rate=None)
    judge, loss = train_reward_model(
        model, tokenizer_of(NAME), pairs, settings, 3, folder / f"reward{ranks.number}", lambda *_: None, ranks
    )
    return numbers_of(model), [*dict(loss).values(), *ranks.each(judge.score, rows())]


def saved(base, policy, ranks, folder):
    """An untrained policy on a base, written."""
    model = in_parts(lambda: new_model(ModelSettings(base=str(base)), None, policy, seed=4), ranks)
    if (one := whole(model, ranks)) is not None:
        save_network(one, folder / policy.adapter)


class Killed(Exception):
    pass


def ppo(url, ranks, folder):
    """Trained in one go, and, in another folder, killed after an iteration and resumed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "examples" / "models")
        workflow = load_workflow("two_tool_desk:ShortDesk")  # whose prompts are short
    workflow.tool_policy = replace(workflow.tool_policy, max_tokens=8)
    factory = EpisodeFactory(workflow)
    tools = factory.tools[:1]
    description = {"family": "rendered", "renderer": {"name": NAME}}
    chat = load_format(tokenizer_of(NAME), description, tools, workflow.instructions)
    opening = (factory.start(workflow.tasks("train", 1, 3)[0]).transcript.messages, tools)
    settings = PPO.model_copy(
        update={"iterations": 2, "episodes": 3, "minibatch": 3, "epochs": 1, "version_lag": 1, "critic_warmup": 1}
    )

    def trainer(name):
        policy, reference = (in_parts(lambda: network("whole"), ranks) for _ in range(2))
        judge, critic = (in_parts(scorer, ranks) for _ in range(2))
        server = VllmServer(url) if ranks.number == 0 else None
        published = Published(server, policy, chat, opening, folder / name / "published", False, ranks)
        sampler = Sampler(policy, chat, factory, published)
        learns_from = WeightedReward(RewardModel(judge))
        return PpoTrainer(sampler, reference, learns_from, critic, settings, 7, folder / name / "checkpoints", ranks)

    def train(name, progress=lambda _: None):
        one = trainer(name)
        state = one.train(lambda iteration, count: workflow.tasks("train", count, 100 + iteration), progress)
        # who goes on from a checkpoint has not asked the server anything yet
        facts = [value for entry in state.history for name, value in entry.items() if not name.startswith("probe")]
        return numbers_of(one.policy, one.critic), facts

    def killed(state):
        raise Killed

    found = train("ppo")
    with pytest.raises(Killed):
        train("resumed", killed)
    return found, train("resumed")


def everything(base, url, ranks, folder):
    kinds = {kind: step(kind, ranks) for kind in KINDS}
    for policy in (PolicySettings(), LORA):
        saved(base, policy, ranks, folder)
    trained = {"sft": sft(ranks, folder), "reward": reward(ranks, folder)}
    trained["ppo"], trained["resumed"] = ppo(url, ranks, folder)
    return kinds | trained


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process, and each of two, found out; and the folder with what they wrote, by their number."""
    folder = tmp_path_factory.mktemp("sharded")
    base = folder / "base"
    network_of(NAME, tokenizer_of(NAME)).save_pretrained(base)
    tokenizer_of(NAME).save_pretrained(base)
    answers = {}
    for count in (1, 2):
        server = TokenServer(base, tokenizer_of(NAME))
        try:
            answers[count] = by(count, partial(everything, base, server.url), folder)
        finally:
            server.stop()
    return answers[1][0], answers[2], folder


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_one_process(kind, found):
    alone, both, _ = found
    loss, gradients, asked, _ = alone[kind]
    for each in both:
        other, theirs, answered, passes = each[kind]
        assert passes == 4, "one rank has four passes to make, so the other makes four"
        assert other == pytest.approx(loss, rel=ROUNDING)
        assert abs(theirs - gradients).max() < ROUNDING * abs(gradients).max()
        assert answered == pytest.approx(asked, rel=ROUNDING)


@pytest.mark.parametrize("what", ["sft", "reward", "ppo"])
def test_a_training_is_that_of_one_process(what, found):
    alone, both, _ = found
    for each in both:
        for theirs, ours in zip(each[what], alone[what], strict=True):
            assert theirs == pytest.approx(ours, rel=CLOSE, abs=CLOSE)


def test_a_resumed_training_is_the_uninterrupted_one(found):
    for each in found[1]:
        assert each["resumed"][0].tobytes() == each["ppo"][0].tobytes()
        assert each["resumed"][1] == each["ppo"][1]


def flat(state, name=""):
    if isinstance(state, dict):
        return {place: one for key, part in state.items() for place, one in flat(part, f"{name}/{key}").items()}
    return {name: state} if torch.is_tensor(state) else {}


def test_a_checkpoint_is_whole_and_does_not_tell_how_it_was_made(found):
    alone, split = (flat(load_latest_checkpoint(found[2] / str(n) / "ppo" / "checkpoints")) for n in (1, 2))
    assert set(split) == set(alone)
    assert any("exp_avg" in name for name in split)
    for name, tensor in alone.items():
        assert split[name].shape == tensor.shape
        assert split[name].numpy() == pytest.approx(tensor.numpy(), rel=CLOSE, abs=CLOSE), name


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_what_is_written_is_byte_by_byte_what_one_process_writes(adapter, found: tuple[object, object, Path]):
    one, other = (
        # peft writes the names of an adapter's layers in another order in each process
        {file.name: digest_file(file) for file in (found[2] / str(count) / adapter).iterdir() if file.name != CONFIG}
        for count in (1, 2)
    )
    assert one == other
    assert any(name.endswith(".safetensors") for name in one)


def test_a_trained_policy_that_was_split_is_loaded_as_one_that_was_not(found):
    from safetensors.torch import load_file

    alone, split = (load_file(found[2] / str(count) / "sft" / "model.safetensors") for count in (1, 2))
    assert set(alone) == set(split)
    for name, tensor in alone.items():
        assert split[name].numpy() == pytest.approx(tensor.numpy(), rel=CLOSE, abs=CLOSE), name
