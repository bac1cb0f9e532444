"""Requests as servers take them: what a server refuses is left out or called otherwise, once, and then remembered."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends_alone import HI, TOOLS, asked, texts
from fake_openai import Fake, Handler, call, fake_server, raw, says

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway import BackendError, Sampling
from agentrl_resources.gateway.dialects import adapted, steps_after
from agentrl_resources.gateway.remote import RemoteBackend
from agentrl_resources.gateway.server_errors import read_error


@pytest.fixture
def fake() -> Iterator[Fake]:
    with fake_server() as found:
        found.answer = says({"content": "Hello"})
        yield found


# --- what a server refuses --------------------------------------------------------------------------------------------


def openai_says(field: str, said: str, code: str = "unsupported_parameter") -> dict[str, Any]:
    return {"error": {"message": said, "type": "invalid_request_error", "param": field, "code": code}}


def pydantic_says(*place: Any) -> list[dict[str, Any]]:
    return [
        {"type": "extra_forbidden", "loc": list(place), "msg": "Extra inputs are not permitted", "input": {"seed": 1}}
    ]


REFUSALS: dict[str, tuple[Any, str | None, str | None]] = {  # what is said -> the field, and what it is called then
    "openai, max_tokens": (
        openai_says("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                    "'max_completion_tokens' instead."), "max_tokens", "max_completion_tokens"),
    "the same without param": (
        {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                   "'max_completion_tokens' instead.", "code": "invalid_request_body"}},
        "max_tokens", "max_completion_tokens"),
    "openai, temperature": (
        openai_says("temperature", "Unsupported value: 'temperature' does not support 0.3 with this model. Only the "
                    "default (1) value is supported.", "unsupported_value"), "temperature", None),
    "openai, parallel calls": (
        openai_says("parallel_tool_calls", "Unsupported parameter: 'parallel_tool_calls' is not supported with this "
                    "model."), "parallel_tool_calls", None),
    "openai, stop": (
        openai_says("stop", "Unsupported parameter: 'stop' is not supported with this model."), "stop", None),
    "azure, older": (
        {"error": {"message": "Unrecognized request argument supplied: stream_options", "code": None}},
        "stream_options", None),
    "azure ai": (
        {"error": {"code": 400, "message": "Validation error at #/stream_options: Extra inputs are not permitted"}},
        "stream_options", None),
    "vllm, older": (
        {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra "
         "inputs are not permitted', 'input': {'seed': 1}}]", "type": "BadRequestError", "code": 400},
        "stream_options", None),
    "mistral": (
        {"object": "error", "message": {"detail": pydantic_says("body", "seed")}, "type": "invalid_request_error"},
        "seed", "random_seed"),
    "fastapi": ({"detail": pydantic_says("body", "user")}, "user", None),
    "fireworks": (
        {"error": {"object": "error", "message": "Extra inputs are not permitted, field: 'stream_options'"}},
        "stream_options", None),
    "groq": (
        {"error": {"message": "property 'metadata' is unsupported", "type": "invalid"}}, "metadata", None),
    "serde": (
        {"error": {"message": "Failed to deserialize the JSON body: unknown field `store`, expected one of `model`, "
                   "`max_tokens`, `seed`, `temperature`"}}, "store", None),
    "google": (
        [{"error": {"code": 400, "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
                    "status": "INVALID_ARGUMENT"}}], "seed", "random_seed"),
    "cohere": ({"message": "unknown field: parameter 'stream_options' is not a valid field"}, "stream_options", None),
    "anthropic": (
        {"error": {"type": "invalid_request_error", "message": "`temperature` and `top_p` cannot both be specified"}},
        "temperature", None),
    "anthropic, newer": (
        {"error": {"message": "`temperature` may only be set to 1 when thinking is enabled"}}, "temperature", None),
    "moonshot": (
        {"error": {"message": "invalid temperature: only 0.6 is allowed for this model"}}, "temperature", None),
    "in few words": ({"message": "Invalid parameter: stream_options"}, "stream_options", None),
    "plain text": ("Additional properties are not allowed ('user' was unexpected)", "user", None),
}  # fmt: skip
ALL_FIELDS: dict[str, Any] = {
    "model": "m", "messages": HI, "max_tokens": 9, "temperature": 0.3, "top_p": 0.9, "seed": 5, "stop": ["x"],
    "parallel_tool_calls": False, "stream": True, "stream_options": {"include_usage": True}, "user": "u",
    "metadata": {"a": "b"}, "store": False, "response_format": {"type": "json_object"}, "tools": TOOLS,
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSALS)
def test_a_refused_field_is_left_out_or_renamed_and_nothing_else_changes(how: str) -> None:
    said, field, new = REFUSALS[how]
    body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
    steps = steps_after(read_error(400, body), ALL_FIELDS)
    assert steps == {field}
    value = ALL_FIELDS[str(field)]
    left = {name: kept for name, kept in ALL_FIELDS.items() if name != field} | ({new: value} if new else {})
    assert adapted(ALL_FIELDS, steps) == left
    assert steps_after(read_error(400, body), adapted(ALL_FIELDS, steps)) == set()


OTHER_REFUSALS: dict[str, Any] = {
    "a value": openai_says("temperature", "Invalid 'temperature': must be between 0 and 1.", "invalid_value"),
    "too long": openai_says("messages", "This model's maximum context length is 4096 tokens.", "too_long"),
    "the form": openai_says("response_format", "'response_format' of type 'json_schema' is not supported."),
    "a limit": openai_says("max_tokens", "max_tokens is too large: 9. This model supports at most 8.", "invalid_value"),
    "a word": {"message": "Invalid messages: after a tool the user cannot stop, as in a store's metadata"},
    "a filter": {"error": {"message": "The response was filtered", "code": "content_filter", "innererror": {}}},
    "nothing": {},
    "null": None,
    "HTML": "<html>413 Request Entity Too Large</html>",
}  # fmt: skip


@pytest.mark.parametrize("how", OTHER_REFUSALS)
def test_what_the_answer_needs_is_the_clients_to_change(how: str) -> None:
    said = OTHER_REFUSALS[how]
    body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
    assert steps_after(read_error(400, body), ALL_FIELDS) == set()


def test_steps_in_messages_and_tools() -> None:
    asked_back = {"role": "assistant", "content": None, "reasoning_content": "Hm", "refusal": None,
                  "tool_calls": [call("lookup", {}, "call_0123456789abcdef")]}  # fmt: skip
    result = {"role": "tool", "tool_call_id": "call_0123456789abcdef", "content": "{}"}
    body = {"messages": [*HI, asked_back, result], "tools": TOOLS, "seed": 1}
    said: dict[str, Any] = {"detail": pydantic_says("body", "messages", 1, "assistant", "reasoning_content")}
    changed = adapted(body, steps_after(read_error(422, json.dumps(said).encode()), body))
    assert "reasoning_content" not in changed["messages"][1]
    assert {**body, "messages": [*HI, {**changed["messages"][1], "reasoning_content": "Hm"}, result]} == body
    said = {"detail": pydantic_says("body", "tools", 0, "function", "strict")}
    (tool,) = adapted(body, steps_after(read_error(422, json.dumps(said).encode()), body))["tools"]
    assert tool["function"] == {"name": "lookup", "parameters": {"type": "object"}}
    text = b"Tool call id was call_0123456789abcdef but must be a-z, A-Z, 0-9, with a length of 9."
    changed = adapted(body, steps_after(read_error(400, text), body))
    made = changed["messages"][1]["tool_calls"][0]["id"]
    assert len(made) == 9
    assert made.isalnum()
    assert changed["messages"][2]["tool_call_id"] == made
    assert adapted(changed, {"short ids"}) == changed


# --- a server that refuses --------------------------------------------------------------------------------------------


def refuses(*fields: str, said: Callable[[str], Any] = lambda field: {"detail": pydantic_says("body", field)}) -> Any:
    """Answers requests that have none of these fields."""

    def answer(handler: Handler, body: dict[str, Any]) -> None:
        for field in fields:
            if field in body:
                handler.send(json.dumps(said(field)).encode(), status=422, content_type="application/json")
                return
        says({"content": "Hello"})(handler, body)

    return answer


@pytest.mark.parametrize("streams", [False, True])
def test_a_server_is_asked_again_once_and_remembered(fake: Fake, streams: bool) -> None:
    fake.answer = refuses("max_tokens", "seed", "random_seed", "temperature", "stream_options")
    assert texts(asked(fake.url, HI, HI, HI, streams=streams)) == ["Hello"] * 3
    assert len(fake.bodies) == 1 + (5 if streams else 4) + 2
    assert fake.bodies[-1] == fake.bodies[-2] == fake.bodies[-3]
    assert fake.bodies[-1] == {
        "model": "m",
        "messages": HI,
        "tools": TOOLS,
        "max_completion_tokens": 9,
        "stream": streams,
    }


def test_what_did_not_help_is_not_remembered(fake: Fake) -> None:
    fake.answer = lambda handler, body: handler.send(b"user roles must alternate, unexpected seed", status=400)
    first, second = asked(fake.url, HI, HI)
    assert isinstance(first, BackendError)
    assert (first.kind, str(first)) == ("request", "the model's server does not accept this request")
    assert str(second) == str(first)
    assert fake.bodies[0] == fake.bodies[2]
    assert "seed" in fake.bodies[2]


def test_the_field_that_is_at_fault_is_named(fake: Fake) -> None:
    said = openai_says("response_format", "'response_format' of type 'json_schema' is not supported, a customer.")
    fake.answer = raw(json.dumps(said).encode(), 400)
    (error,) = asked(fake.url, HI, sampling=Sampling(1, 0.5, 9, response_format={"type": "json_object"}))
    assert isinstance(error, BackendError)
    assert (error.kind, error.param) == ("request", "response_format")
    assert "a customer" not in str(error)


def test_a_model_that_only_streams_and_one_that_never_does(fake: Fake) -> None:
    text = "Hello"

    def only_streams(handler: Handler, body: dict[str, Any]) -> None:
        if not body["stream"]:
            handler.send(b'{"error": {"message": "This model only support stream mode"}}', status=400)
            return
        says({"content": text})(handler, body)

    def never_streams(handler: Handler, body: dict[str, Any]) -> None:
        if body["stream"]:
            error = openai_says("stream", "Unsupported value: 'stream' does not support true with this model.")
            handler.send(json.dumps(error).encode(), status=400)
            return
        says({"content": text})(handler, body)

    fake.answer = only_streams
    assert texts(asked(fake.url, HI)) == [text]
    fake.answer = never_streams
    assert texts(asked(fake.url, HI, streams=True)) == [text]
    assert "stream_options" not in fake.bodies[-1]


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_instructions_are_the_systems_and_what_is_empty_is_left_out(fake: Fake) -> None:
    asked(
        fake.url,
        [{"role": "developer", "content": "Be brief."}, *HI],
        tools=[],
        sampling=Sampling(-5, 0.5, None),
    )
    assert fake.bodies == [{
        "model": "m", "messages": [{"role": "system", "content": "Be brief."}, *HI], "stream": False,
        "temperature": 0.5, "seed": -5,
    }]  # fmt: skip


PLACES = {  # what the settings say -> where the server answers
    "": "/v1/chat/completions",
    "/": "/v1/chat/completions",
    "/v1": "/v1/chat/completions",
    "/v1/": "/v1/chat/completions",
    "/v1/chat/completions": "/v1/chat/completions",
    "/api": "/api/v1/chat/completions",
    "/inference/": "/inference/chat/completions",
    "/v1beta/openai/": "/v1beta/openai/chat/completions",
    "/openai/deployments/gpt?api-version=2024-10-21": "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
    "/openai/deployments/gpt/chat/completions?api-version=1":
        "/openai/deployments/gpt/chat/completions?api-version=1",
}  # fmt: skip


@pytest.mark.parametrize("given", PLACES)
def test_a_base_address_in_every_form(fake: Fake, given: str) -> None:
    def only_there(handler: Handler, body: dict[str, Any]) -> None:
        if handler.path == PLACES[given]:
            says({"content": "Hello"})(handler, body)
        else:
            handler.send(b'{"detail": "Not Found"}', status=404)

    fake.answer = only_there
    base = fake.url.removesuffix("/v1")
    assert texts(asked(f"{base}{given}", HI, HI)) == ["Hello"] * 2
    assert fake.paths[-2:] == [PLACES[given]] * 2
    assert len(fake.paths) <= 3, "the place is found once"


def test_a_server_without_version_in_its_address(fake: Fake) -> None:
    def only_there(handler: Handler, body: dict[str, Any]) -> None:
        ok = handler.path == "/chat/completions"
        says({"content": "Hello"})(handler, body) if ok else handler.send(b"", status=404)

    fake.answer = only_there
    assert texts(asked(fake.url.removesuffix("/v1"), HI)) == ["Hello"]


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "host", "ftp://host/v1", "http://", "http://[::1/v1", "http://h:99999"]
)
def test_what_is_no_address_says_so(url: str) -> None:
    with pytest.raises(AgentRLError, match="http://host:8000/v1"):
        RemoteBackend(url, "m", None, [])


def test_azure_gets_its_key_and_errors_keep_it_secret(fake: Fake) -> None:
    base = fake.url.removesuffix("/v1").replace("http://", "http://user:secret@")
    fake.answer = raw(b"", 503)
    (error,) = asked(f"{base}/openai/deployments/gpt?api-version=1&key=secret", HI, key="sk-1")
    assert fake.headers[0]["api-key"] == "sk-1"
    assert fake.headers[0]["Authorization" if "Authorization" in fake.headers[0] else "authorization"] == "Bearer sk-1"
    assert "secret" not in str(error)
    assert "answered 503" in str(error)
