"""What a policy read and wrote for traffic, in token ids: on record only where that was asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gateways import Running, ask, running, settings_with
from small_models import small_factory, small_harmony, small_model

from agentrl_resources.gateway import BundleBackend

FACTORY = small_factory()
TASKS = FACTORY.workflow.tasks("holdout", 3, 11)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    harmony = small_harmony(FACTORY)
    small_model(harmony).save_pretrained(folder)
    harmony.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=[True, False], ids=["kept", "not kept"])
def served(bundle: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[bool, Running]]:
    backend = BundleBackend(bundle, FACTORY, 4)
    with running(tmp_path, settings_with(keep_tokens=request.param), backend, FACTORY.workflow) as found:
        yield request.param, found


def test_every_turn_is_on_record_in_token_ids_where_that_is_asked_for(served: tuple[bool, Running]) -> None:
    kept, gateway = served
    for task in TASKS:
        ask(gateway, task, max_tokens=24)
    records = gateway.records()
    assert len(records) == len(TASKS)
    for record in records:
        assert ("tokens" in record.trace) == kept
        turns = record.trace.get("tokens", [])
        if kept:
            assert sum(len(turn["read"]) for turn in turns) == record.tokens_in
            assert sum(len(turn["wrote"]) for turn in turns) == record.tokens_out
        for turn in turns:
            assert len(turn["wrote"]) == len(turn["logprobs"]) > 0
            assert all(isinstance(token, int) for token in (*turn["read"], *turn["wrote"]))
            assert all(logprob <= 0 for logprob in turn["logprobs"])
            assert turn["anew"] is False


def test_what_is_on_record_is_what_the_policy_sampled(bundle: Path, tmp_path: Path) -> None:
    backend = BundleBackend(bundle, FACTORY, 4)
    with running(tmp_path, settings_with(keep_tokens=True), backend, FACTORY.workflow) as gateway:
        answer = gateway.call(asked_directly, backend, ask(gateway, TASKS[0], max_tokens=24, seed=5).id, gateway)
    assert answer


async def asked_directly(backend: BundleBackend, run_id: str, gateway: Running) -> bool:
    """The same conversation once more, turn by turn: the same ids and log-probabilities."""
    (record,) = (one for one in gateway.records() if one.run_id == run_id)
    engine, turns = backend._engine, record.trace["tokens"]
    conversation = engine.open(5, 24)
    for turn in turns:
        written = await engine.turn(conversation, turn["read"], record.temperature, 24)
        assert (written.ids, written.logprobs) == (turn["wrote"], turn["logprobs"])
    engine.close(conversation)
    return bool(turns)
