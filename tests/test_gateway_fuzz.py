"""The gateway against requests made from its own description, and messages on their way through the protocol and back.

The seed is new in each run and is printed; `FUZZ_SEED=... pytest tests/test_gateway_fuzz.py` does the same again.
"""

import json
import os
import secrets
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import hypothesis
import pytest
import schemathesis
from gateways import Running, expert_policy, running, settings_with
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.checks import negative_data_rejection
from schemathesis.config import SchemathesisConfig

from agentrl_resources.gateway import OnText, Sampling, Turn
from agentrl_resources.gateway.messages import from_openai, one_call_a_turn, to_openai
from agentrl_resources.gateway.openapi import openapi
from agentrl_resources.gateway.requests import ChatMessage, ChatRequest, RequestError, read_body
from agentrl_resources.strict_json import parse_json
from agentrl_resources.workflow import Message, load_workflow

SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbits(32))
DESCRIPTION = openapi("order_desk")
CHECKS = {
    # that a policy gives no answer to nonsense is no fault of the gateway's
    "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 502, 503, 504]},
    "negative_data_rejection": {"expected-statuses": ["4xx"]},
    # what a valid request may still lack (a task that exists, say) no schema can say
    "positive_data_acceptance": {"enabled": False},
}
api = schemathesis.openapi.from_dict(DESCRIPTION, config=SchemathesisConfig.from_dict({"checks": CHECKS}))


class Echo:
    """Says what was said last; plays tasks as an expert."""

    def __init__(self) -> None:
        self.converse = expert_policy(load_workflow("order_desk")).converse

    async def complete(self, body: Mapping[str, Any], sampling: Sampling, on_text: OnText | None = None) -> Turn:
        said = from_openai(body["messages"][-1])
        text = str(said["content"]) if said and "content" in said else ""
        if on_text is not None and text:
            on_text(text)
        return Turn({"role": "assistant", "content": text}, "", 1, 1)

    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("gateway"), settings_with(body_seconds=2.0), Echo()) as found:
        yield found


@pytest.fixture
def seed() -> int:
    print(f"FUZZ_SEED={SEED}")
    return SEED


def test_the_description_is_served(served: Running) -> None:
    with urllib.request.urlopen(f"{served.url}/openapi.json") as response:
        assert json.load(response) == DESCRIPTION


def fits_after_all(case: schemathesis.Case) -> bool:
    """Whether a body that was to break the description does not: what no kind of a message's parts allows in one place
    makes it a part of another kind."""
    assert case.meta is not None
    broken = [place.value for place, made in case.meta.components.items() if made.mode.is_negative]
    # the method may be one that the description does not have, which it was to break as well
    described = DESCRIPTION["paths"][case.operation.path].get(case.method.lower(), {})
    taken = described.get("requestBody")
    if broken != ["body"] or taken is None or not isinstance(case.body, dict):
        return False
    schema = {**taken["content"]["application/json"]["schema"], "components": DESCRIPTION["components"]}
    return bool(Draft202012Validator(schema).is_valid(case.body))


@api.parametrize()
@hypothesis.seed(SEED)
@settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_of_those_that_are_described(case: Any, served: Running, seed: int) -> None:
    """Status, content type and content as described, nothing without the key, and nothing invalid is taken."""
    response = case.call_and_validate(
        base_url=served.url,
        headers={"Authorization": f"Bearer {served.key}"},
        excluded_checks=[negative_data_rejection] if fits_after_all(case) else [],
    )
    assert served.key not in response.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", True),
        ("temperature", "1"),
        ("seed", -(2**63)),
        ("seed", 1.5),
        ("max_tokens", True),
        ("stream", 1),
    ],
)
def test_nothing_is_taken_for_what_it_is_not(name: str, value: Any) -> None:
    body = {"model": "order_desk", "messages": [{"role": "user", "content": "hi"}], name: value}
    with pytest.raises(RequestError, match=name):
        read_body(ChatRequest, json.dumps(body).encode())


# --- messages ---------------------------------------------------------------------------------------------------------


def is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
objects = st.dictionaries(st.text(), values, max_size=4)
names = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)
calls = st.builds(
    lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}}, names, objects
)
thinking = st.fixed_dictionaries({}, optional={"thinking": st.text(min_size=1)})
# a text that is JSON itself comes back as what it says: the protocol has no other form for it
results = values.filter(lambda value: not isinstance(value, str)) | st.text().filter(lambda text: not is_json(text))


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """What an episode holds: one call a turn, with its result right behind it."""
    messages: list[Message] = [{"role": "system", "content": draw(st.text())}]
    for kind in draw(st.lists(st.sampled_from(["user", "answer", "call"]), max_size=6)):
        if kind == "call":
            call = draw(calls)
            messages.append({"role": "assistant", **draw(thinking), "tool_calls": [call]})
            messages.append({"role": "tool", "name": call["function"]["name"], "content": draw(results)})
        elif kind == "answer":
            messages.append({"role": "assistant", **draw(thinking), "content": draw(st.text())})
        else:
            messages.append({"role": "user", "content": draw(st.text())})
    return messages


@hypothesis.seed(SEED)
@settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=conversations(), same_ids=st.booleans())
def test_a_conversation_goes_through_the_protocol_and_back(messages: list[Message], same_ids: bool, seed: int) -> None:
    """As JSON text, valid for the gateway itself, also where a server gives every call the same id."""
    sent = []
    for position, message in enumerate(messages):
        call = position - (message["role"] == "tool")
        sent.append(to_openai(message, "call" if same_ids else f"call_{call}"))
    over_the_wire = json.loads(json.dumps(sent))
    for message in over_the_wire:
        ChatMessage.model_validate(message)
    assert one_call_a_turn(over_the_wire) == messages


@hypothesis.seed(SEED)
@settings(max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(calls, min_size=1, max_size=4), thoughts=thinking, text=st.text())
def test_several_calls_and_text_beside_them_stay_as_they_are(
    several: list[Any], thoughts: dict[str, str], text: str, seed: int
) -> None:
    message = {"role": "assistant", **thoughts, **({"content": text} if text else {}), "tool_calls": several}
    sent = to_openai(message, "call")
    assert len({call["id"] for call in sent["tool_calls"]}) == len(several)
    assert from_openai(sent) == message


@pytest.mark.parametrize("arguments", ["{", "[]", "null", "1", '"{}"', '{"amount": NaN}', '{"name": "\\ud800"}'])
def test_arguments_that_are_no_json_object_are_no_message(arguments: str) -> None:
    call = {"id": "call", "type": "function", "function": {"name": "refund", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert from_openai(message) is None
    with pytest.raises(ValueError, match="no JSON object"):
        one_call_a_turn([message])
