"""The policy of a bundle behind the gateway's protocol: what it honours, and what it refuses by name.

The model is untrained, so what it writes is noise; what a turn begins with, where it ends and that it repeats is not.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from request_fields import CASES, IMAGE, LOOKUP, ORDER, allowed, named
from small_models import small_factory, small_harmony, small_model

from agentrl_resources.gateway import BackendError, BundleBackend, Sampling, Turn
from agentrl_resources.gateway.requests import ChatRequest, conversation_of, sampling_of

FACTORY = small_factory()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BundleBackend]:
    folder = tmp_path_factory.mktemp("bundle")
    harmony = small_harmony(FACTORY)
    small_model(harmony).save_pretrained(folder)
    harmony.tokenizer.save_pretrained(folder)
    found = BundleBackend(folder, FACTORY, 4)
    yield found
    asyncio.run(found.close())


def asked(**fields: Any) -> tuple[dict[str, Any], Sampling]:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, **fields}
    return conversation_of(body)[0], sampling_of(ChatRequest.model_validate(body), body, 1, 1.0)


def turn(backend: BundleBackend, **fields: Any) -> Turn:
    shown, sampling = asked(**fields)
    return asyncio.run(backend.complete(shown, sampling))


SENT = [name for name, case in CASES.items() if case.fate == "sent"]
HONOURED = {"seed", "temperature", "logprobs"}


@pytest.mark.parametrize("name", SENT)
def test_a_field_that_changes_the_answer_is_honoured_or_refused_by_its_name(backend: BundleBackend, name: str) -> None:
    for value in CASES[name].nothing:
        assert turn(backend, **{name: value}).tokens_out
    if name in HONOURED:
        assert turn(backend, **{name: CASES[name].meaningful}).tokens_out
        return
    with pytest.raises(BackendError) as caught:
        turn(backend, **{name: CASES[name].meaningful})
    assert (caught.value.kind, caught.value.param) == ("request", name)
    _, sampling = asked(**{name: CASES[name].meaningful})
    with pytest.raises(BackendError, match=name):
        backend.converse(FACTORY.workflow.tasks("train", 1, 1)[0], sampling)


def test_log_probabilities_are_of_every_token_that_was_sampled(backend: BundleBackend) -> None:
    plain, told = (turn(backend, logprobs=wanted, seed=3) for wanted in (False, True))
    assert plain.logprobs is None
    assert told.logprobs is not None
    tokens = told.logprobs["content"]
    assert (len(tokens), told.text) == (told.tokens_out, plain.text)
    assert all(token["logprob"] <= 0 and bytes(token["bytes"]).decode() == token["token"] for token in tokens)
    with pytest.raises(BackendError, match="top_logprobs"):
        turn(backend, logprobs=True, top_logprobs=2)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.fate == "accompanies"])
def test_what_accompanies_a_request_is_taken(backend: BundleBackend, name: str) -> None:
    assert turn(backend, **{name: CASES[name].meaningful}).tokens_out


@pytest.mark.parametrize("name", ["guided_json", "top_k", "chat_template_kwargs", "system"])
def test_a_vendors_field_that_changes_the_answer_is_refused(backend: BundleBackend, name: str) -> None:
    with pytest.raises(BackendError, match=name):
        turn(backend, **{name: {"a": 1}})
    assert turn(backend, extra={"a": 1}, **{"x-trace": "7"}).tokens_out


def test_the_same_seed_says_the_same_again_and_other_fields_change_it(backend: BundleBackend) -> None:
    first = turn(backend, seed=5, temperature=1)
    assert turn(backend, seed=5, temperature=1).text == first.text
    assert len({turn(backend, seed=seed, temperature=1).text for seed in range(5)}) > 1
    assert len({turn(backend, seed=seed, temperature=0).text for seed in range(5)}) == 1


def test_the_limit_is_the_clients_and_not_an_episodes(backend: BundleBackend) -> None:
    budget = FACTORY.workflow.tool_policy.max_tokens
    written = [turn(backend, seed=seed, max_tokens=2 * budget) for seed in range(4)]
    assert max(one.tokens_out for one in written) > budget
    assert all(one.tokens_out <= 2 * budget for one in written)
    for one in written:
        assert one.ended == (one.message is not None)
        assert "<|channel|>" not in (one.message or {"content": one.text})["content"]


def test_a_limit_above_what_the_policy_can_write_is_what_it_can_write(backend: BundleBackend) -> None:
    conversation = backend.converse(FACTORY.workflow.tasks("train", 1, 1)[0], asked(max_tokens=10**12)[1])
    assert conversation._conversation.budget == 4096
    conversation.close()


def test_whoever_gives_no_tools_gets_an_answer(backend: BundleBackend) -> None:
    """Also of a policy that would rather call something: the turn begins as an answer."""
    for fields in ({}, {"tools": []}, {"tools": [LOOKUP], "tool_choice": "none"}):
        for seed in range(3):
            made = turn(backend, seed=seed, max_tokens=24, **fields)
            assert made.message is None or "tool_calls" not in made.message


@pytest.mark.parametrize(
    "choice", [named("order"), allowed("required", "order")], ids=["the one named", "the only one allowed"]
)
def test_a_named_tool_is_what_the_turn_begins_with(backend: BundleBackend, choice: Any) -> None:
    shown, sampling = asked(tools=[LOOKUP, ORDER], tool_choice=choice)
    pieces: list[str] = []
    made = asyncio.run(backend.complete(shown, sampling, pieces.append))
    assert pieces == [], "a call is no text"
    assert made.tokens_in > asyncio.run(backend.complete(*asked(tools=shown["tools"]))).tokens_in
    assert made.message is None or made.message["tool_calls"][0]["function"]["name"] == "order"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [LOOKUP, ORDER], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}]}, "messages[0].content"),
        ({"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"properties": [1]}}}]}, "tools"),
        ({"messages": [{"role": "user", "content": "x " * 20_000}]}, "messages"),
    ],
    ids=["several to choose from", "a picture", "a dotted name", "a schema that is none", "too long"],
)
def test_what_it_cannot_do_is_refused_by_its_place(backend: BundleBackend, fields: Any, param: str) -> None:
    with pytest.raises(BackendError) as caught:
        turn(backend, **fields)
    assert (caught.value.kind, caught.value.param) == ("request", param)
