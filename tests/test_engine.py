"""The serving engine: whoever comes and goes, each conversation gets the tokens it would get alone."""

import asyncio
import random
from typing import Any

import pytest
from small_models import ROUNDING, in_double, small_factory, small_harmony, small_model

from agentrl_resources.engines import Engine, LocalEngine, Written, layers
from agentrl_resources.engines import local as engine_module
from agentrl_resources.engines.local import in_common
from agentrl_resources.errors import AgentRLError
from agentrl_resources.families.gpt_oss import Harmony
from agentrl_resources.learning import Sampler
from agentrl_resources.workflow import EpisodeFactory, Task

pytestmark = pytest.mark.numeric

BUDGET = 24


@pytest.fixture(scope="module")
def parts() -> tuple[EpisodeFactory, Harmony, Any]:
    """With a model in float64: in float32 two ways to batch may draw two tokens, where a random number lies between."""
    factory = small_factory(BUDGET)
    harmony = small_harmony(factory)
    return factory, harmony, in_double(small_model(harmony))


async def play(engine: Engine, parts: Any, task: Task, seed: int, temperature: float, pause: float = 0.0) -> list[int]:
    """One episode as the gateway plays it; every token, read and written."""
    factory, harmony, _ = parts
    await asyncio.sleep(pause)
    episode = factory.start(task)
    conversation = engine.open(seed, BUDGET)
    waiting = harmony.prompt(episode.transcript.messages)
    ids: list[int] = []
    while not episode.done:
        written = (await engine.turn(conversation, waiting, temperature, BUDGET)).ids
        ids += [*waiting, *written]
        if conversation.sampled >= BUDGET or written[-1] not in harmony.turn_ends:
            break
        message = harmony.parse(written)
        malformed = message is None
        seen = [episode.malformed(harmony.tokenizer.decode(written))] if malformed else episode.step(message)
        waiting = harmony.observation(*seen) if seen else []
    engine.close(conversation)
    return ids


class Counted:
    """A model that remembers the shapes of what it read."""

    def __init__(self, model: Any) -> None:
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.parameters = model.parameters
        self.model = model
        self.read: list[tuple[int, ...]] = []

    def __call__(self, **inputs: Any) -> Any:
        self.read.append(tuple(inputs["input_ids"].shape))
        return self.model(**inputs)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 3, 16])
def test_tokens_are_those_of_a_rollout_whoever_else_is_served(parts: Any, temperature: float, rows: int) -> None:
    factory, harmony, model = parts
    tasks = factory.workflow.tasks("train", 12, 3)
    alone = Sampler(model, harmony, factory).play(tasks, range(12), temperature, 12)
    engine = LocalEngine(model, harmony.turn_ends, rows)
    shuffled = random.Random(rows)

    async def all_at_once() -> list[list[int]]:
        pauses = [shuffled.random() * 0.05 for _ in tasks]
        plays = (play(engine, parts, task, seed, temperature, pause)
                 for seed, (task, pause) in enumerate(zip(tasks, pauses, strict=True)))  # fmt: skip
        return await asyncio.gather(*plays)

    served = asyncio.run(all_at_once())
    engine.stop()
    assert [ids[: len(episode.ids)] for ids, episode in zip(served, alone, strict=True)] == [
        episode.ids for episode in alone
    ]


@pytest.mark.parametrize(("ahead", "at_once"), [(0, 7), (0, 2048), (1000, 2048)], ids=["bits", "always", "never"])
def test_what_is_read_ahead_changes_no_token(
    parts: Any, monkeypatch: pytest.MonkeyPatch, ahead: int, at_once: int
) -> None:
    factory, harmony, model = parts
    monkeypatch.setattr(engine_module, "READ_AHEAD", ahead)
    monkeypatch.setattr(engine_module, "READ_AT_ONCE", at_once)
    tasks = factory.workflow.tasks("train", 9, 5)
    alone = Sampler(model, harmony, factory).play(tasks, range(9), 1.0, 9)
    engine = LocalEngine(model, harmony.turn_ends, 4)

    async def all_at_once() -> list[list[int]]:
        return await asyncio.gather(*(play(engine, parts, task, seed, 1.0) for seed, task in enumerate(tasks)))

    served = asyncio.run(all_at_once())
    engine.stop()
    for ids, episode in zip(served, alone, strict=True):
        assert ids[: len(episode.ids)] == episode.ids


def test_a_prompt_takes_one_pass_and_each_token_after_it_another(parts: Any) -> None:
    factory, harmony, model = parts
    prompt = harmony.prompt(factory.start(factory.workflow.tasks("train", 1, 3)[0]).transcript.messages)
    counted = Counted(model)
    engine = LocalEngine(counted, (), rows=1)
    asyncio.run(engine.turn(engine.open(0, BUDGET), prompt, 1.0, 5))
    engine.stop()
    assert counted.read == [(1, len(prompt) - 1)] + 5 * [(1, 1)]


def test_a_closed_conversation_leaves_its_row_and_disturbs_nobody(parts: Any) -> None:
    factory, harmony, model = parts
    tasks = factory.workflow.tasks("train", 8, 3)
    engine = LocalEngine(model, harmony.turn_ends, rows=2)

    async def some_leave() -> tuple[list[int], list[Any]]:
        alone = await play(engine, parts, tasks[0], 0, 1.0)
        leaving = [engine.open(seed, BUDGET) for seed in range(1, 5)]
        prompt = harmony.prompt(factory.start(tasks[1]).transcript.messages)
        turns = [asyncio.ensure_future(engine.turn(one, prompt, 1.0, BUDGET)) for one in leaving]
        kept = asyncio.ensure_future(play(engine, parts, tasks[0], 0, 1.0))
        await asyncio.sleep(0.005)
        for one in leaving:
            engine.close(one)
            engine.close(one)
        assert await kept == alone
        return alone, await asyncio.gather(*turns, return_exceptions=True)

    alone, ended = asyncio.run(some_leave())
    engine.stop()
    assert alone
    assert all(isinstance(one, Written | AgentRLError) for one in ended)


def test_a_turn_ends_at_its_limit_and_the_conversation_at_its_budget(parts: Any) -> None:
    factory, harmony, model = parts
    prompt = harmony.prompt(factory.start(factory.workflow.tasks("train", 1, 3)[0]).transcript.messages)
    engine = LocalEngine(model, (), rows=1)

    async def turns() -> list[int]:
        conversation = engine.open(0, BUDGET)
        lengths = [len((await engine.turn(conversation, prompt, 1.0, limit)).ids) for limit in (5, 1, BUDGET, BUDGET)]
        engine.close(conversation)
        return lengths

    assert asyncio.run(turns()) == [5, 1, BUDGET - 6, 0]
    engine.stop()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_a_model_is_served_in_the_precision_that_it_is_stored_in(parts: Any, dtype: str) -> None:
    """Conversations of different lengths, so that a mask hides what one of them does not have."""
    import torch

    factory, harmony, _ = parts
    model = in_double(small_model(harmony)) if dtype == "float64" else small_model(harmony).to(getattr(torch, dtype))
    engine = LocalEngine(model, (), rows=2)
    prompt = harmony.prompt(factory.start(factory.workflow.tasks("train", 1, 3)[0]).transcript.messages)

    async def both() -> list[Written]:
        turns = (engine.turn(engine.open(0, BUDGET), ids, 1.0, BUDGET) for ids in (prompt, prompt[:5]))
        return await asyncio.gather(*turns)

    assert [len(written.ids) for written in asyncio.run(both())] == [BUDGET, BUDGET]
    engine.stop()


def test_tokens_are_told_as_they_come(parts: Any) -> None:
    factory, harmony, model = parts
    prompt = harmony.prompt(factory.start(factory.workflow.tasks("train", 1, 3)[0]).transcript.messages)
    engine = LocalEngine(model, (), rows=1)
    told: list[int] = []
    written = asyncio.run(engine.turn(engine.open(0, BUDGET), prompt, 1.0, BUDGET, told.append))
    engine.stop()
    assert told == written.ids


def test_a_model_that_fails_fails_every_turn_and_says_so(parts: Any) -> None:
    factory, harmony, model = parts
    prompt = harmony.prompt(factory.start(factory.workflow.tasks("train", 1, 3)[0]).transcript.messages)

    class Broken(Counted):
        def __call__(self, **_: Any) -> Any:
            raise RuntimeError("out of memory")

    engine = LocalEngine(Broken(model), harmony.turn_ends, rows=2)

    async def both() -> list[Any]:
        first = engine.turn(engine.open(0, BUDGET), prompt, 1.0, BUDGET)
        said = await asyncio.gather(first, return_exceptions=True)
        later = engine.turn(engine.open(1, BUDGET), prompt, 1.0, BUDGET)
        return said + await asyncio.gather(later, return_exceptions=True)

    said = asyncio.run(both())
    engine.stop()
    assert [str(one) for one in said] == ["the model failed: out of memory"] * 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_at_their_own_pace_episodes_are_those_of_the_lock_step(
    parts: Any, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    factory, harmony, model = parts
    tasks = factory.workflow.tasks("train", 12, 3)
    sampler = Sampler(model, harmony, factory)
    together = sampler.play(tasks, range(12), temperature, 12)
    monkeypatch.setattr(layers, "SMALL", 0)
    apart = sampler.play(tasks, range(12), temperature, 5)
    for one, other in zip(apart, together, strict=True):
        assert (one.ids, one.mask, one.task) == (other.ids, other.mask, other.task)
        assert one.logprobs == pytest.approx(other.logprobs, rel=ROUNDING, abs=ROUNDING)
        assert one.episode.outcome == other.episode.outcome
        assert one.duration_ms > 0


def test_a_beginning_that_conversations_share_is_read_once(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, harmony, model = parts
    generator = random.Random(4)
    beginning = [generator.randrange(300) for _ in range(50)]
    prompts = [beginning + [generator.randrange(300) for _ in range(count)] for count in (9, 3, 14, 1)]

    def written(from_: int) -> tuple[list[Written], int]:
        monkeypatch.setattr(engine_module, "SHARED_FROM", from_)
        counted = Counted(model)
        engine = LocalEngine(counted, harmony.turn_ends, rows=8)

        async def all_at_once() -> list[Written]:
            turns = [engine.turn(engine.open(seed, BUDGET), ids, 1.0, 4) for seed, ids in enumerate(prompts)]
            return await asyncio.gather(*turns)

        found = asyncio.run(all_at_once())
        engine.stop()
        return found, sum(rows * tokens for rows, tokens in counted.read)

    (apart, all_of_it), (shared, less) = written(10**6), written(20)
    for one, other in zip(shared, apart, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, rel=ROUNDING, abs=ROUNDING)
    assert less < all_of_it - 2 * len(beginning)


@pytest.mark.parametrize(
    ("one", "other", "length"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([2], [1], 0)]
)
def test_what_two_texts_have_in_common(one: list[int], other: list[int], length: int) -> None:
    assert in_common(one, other) == in_common(other, one) == length
