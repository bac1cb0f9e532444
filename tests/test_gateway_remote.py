"""Channels behind a server that speaks OpenAI's protocol: tool calls, streams, and every way in which it can fail."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from fake_openai import (
    DONE,
    USAGE,
    Answer,
    Fake,
    Handler,
    as_json,
    breaks_off,
    breaks_off_inside,
    call,
    chunk,
    closes,
    fake_server,
    hangs,
    plain,
    raw,
    says,
    sse,
)
from gateways import Running, running, settings_with
from server_dialects import ARGUMENTS, ONE_CALL, TEXT

from agentrl_resources.files import ArtifactStore
from agentrl_resources.gateway import Backend, backends, goes_to_canary
from agentrl_resources.telemetry import RunRecord
from agentrl_resources.workflow import EpisodeFactory, load_workflow

WORKFLOW = load_workflow("order_desk")
FACTORY = EpisodeFactory(WORKFLOW)
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather-report", "lookup")
]


# --- the gateway before it --------------------------------------------------------------------------------------------


@dataclass
class Setup:
    """A gateway with a remote champion and, once it is started, a remote canary."""

    served: Running
    champion: Fake
    canary: Fake
    new: Backend
    seen: int = 0

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.served.url}/v1", api_key=self.served.key, max_retries=0)

    def ask(self, **more: Any) -> Any:
        """A request in client-tools mode."""
        given: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS, **more}
        return self.client.chat.completions.create(model="order_desk", **given)

    def streamed(self, **more: Any) -> tuple[str, list[Any]]:
        """The text and all chunks of a streamed answer."""
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}, **more))
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), chunks

    def records(self) -> list[RunRecord]:
        """Those of this test."""
        return self.served.records()[self.seen :]

    def start_canary(self) -> str:
        """Returns a session that goes to it."""
        self.served.start_canary(50)
        assert self.served.gateway.canary is not None
        self.served.gateway.canary.backend = self.new
        return next(f"session {n}" for n in range(100) if goes_to_canary("canary", f"session {n}", 50))

    def begin(self) -> None:
        """As before the first test: no canary, nothing asked, nothing written."""
        registry, gateway = self.served.registry, self.served.gateway
        if registry.pointers().canary is not None:
            registry.fail_back(who="test", why="test", seen=registry.pointers())
            self.served.wait(lambda: gateway.canary is None)
        self.champion.answer, self.canary.answer = says({"content": "from the champion"}), closes
        for fake in (self.champion, self.canary):
            fake.bodies.clear()
            fake.headers.clear()
        self.seen = len(self.served.records())


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    home = tmp_path_factory.mktemp("gateway")
    with pytest.MonkeyPatch.context() as patch, fake_server() as champion, fake_server() as canary:
        patch.setenv("UPSTREAM_KEY", "sk-upstream")
        settings = settings_with(
            champion_url=champion.url,
            canary_url=f"{canary.url}/",
            canary_model="new",
            upstream_key_variable="UPSTREAM_KEY",
            canary_seconds=0.5,
            request_seconds=1.0,
        )
        load = backends(settings, ArtifactStore(home), FACTORY)
        new = load("canary", "0" * 64, {})
        with running(home, settings, load("general", "0" * 64, {})) as served:
            yield Setup(served, champion, canary, new)
            served.call(new.close)


@pytest.fixture
def remote(setup: Setup) -> Setup:
    setup.begin()
    return setup


def test_the_server_gets_its_model_its_key_and_the_clients_words(remote: Setup) -> None:
    body = {"task": {"payload": {"prompt": "secret"}}, "safety_identifier": "s", "parallel_tool_calls": False}
    remote.ask(extra_body=body, temperature=0.3, max_completion_tokens=9, seed=5, stream=False)
    (sent,) = remote.champion.bodies
    assert sent == {
        "model": "champion",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": TOOLS,
        "parallel_tool_calls": False,
        "safety_identifier": "s",
        "temperature": 0.3,
        "seed": 5,
        "max_tokens": 9,
        "stream": False,
    }
    assert remote.champion.headers[0]["authorization"] == "Bearer sk-upstream"
    assert remote.served.key not in str(remote.champion.headers)


MESSAGES = [
    {"content": "Grüße — 你好 👋, all good."},
    {"content": None, "tool_calls": [call("weather-report", {"city": "Zürich", "days": 3})]},
    {
        "content": "Let me look.",
        "tool_calls": [call("weather-report", {}), call("weather-report", {"city": "Bern"}, "other")],
    },
    {"content": "Thought through.", "reasoning_content": "What would they want?"},
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_streamed_answer_is_the_plain_one_and_both_are_the_servers(remote: Setup, message: dict[str, Any]) -> None:
    finish = "tool_calls" if "tool_calls" in message else "stop"
    remote.champion.answer = says(message, finish)
    answer = remote.ask()
    text, chunks = remote.streamed()
    said = answer.choices[0].message
    assert (said.content or None, getattr(said, "reasoning_content", None)) == (
        message["content"],
        message.get("reasoning_content"),
    )
    assert answer.choices[0].finish_reason == finish
    assert text == (message["content"] or "")
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == finish
    assert chunks[-1].usage.model_dump(exclude_none=True) == answer.usage.model_dump(exclude_none=True) == USAGE
    given = [json.loads(made["function"]["arguments"]) for made in message.get("tool_calls", ())]
    streamed = [made for chunk in chunks if chunk.choices for made in chunk.choices[0].delta.tool_calls or ()]
    for calls in (said.tool_calls or [], streamed):
        assert [made.function.name for made in calls] == ["weather-report"] * len(given)
        assert [json.loads(made.function.arguments) for made in calls] == given
        assert len({made.id for made in calls}) == len(given)
    first, second = remote.records()
    assert first.trace == second.trace
    assert first.tool_calls_count == len(given)
    assert (first.tokens_in, first.tokens_out) == (11, 7)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
@pytest.mark.parametrize("streams", [False, True])
def test_tokens_that_no_server_counted_are_unknown_and_so_is_what_they_cost(
    remote: Setup, streams: bool, usage: Any
) -> None:
    message = {"role": "assistant", "content": "Hello"}
    if streams:
        remote.champion.answer = breaks_off(
            chunk({"content": "Hello"}, usage=usage), chunk({}, "stop", usage=usage), b"[DONE]"
        )
        text, chunks = remote.streamed()
        assert text == "Hello"
        assert all(part.usage is None for part in chunks)
    else:
        remote.champion.answer = as_json({**plain(message), "usage": usage})
        assert remote.ask().usage is None
    (record,) = remote.records()
    assert (record.tokens_in, record.tokens_out, record.cost) == (None, None, None)


@pytest.mark.parametrize(("theirs", "ours"), [
    ("content_filter", "content_filter"), ("SAFETY", "content_filter"), ("length", "length"), ("max_tokens", "length"),
])  # fmt: skip
def test_what_cut_an_answer_off_is_passed_on(remote: Setup, theirs: str, ours: str) -> None:
    task = FACTORY.workflow.tasks("holdout", 1, 1)[0]
    episode = {"tools": openai.omit, "extra_body": {"task": {"task_id": task.task_id, "payload": dict(task.payload)}}}
    remote.champion.answer = says({"content": "Half of"}, theirs)
    assert remote.ask().choices[0].finish_reason == ours
    assert remote.ask(**episode).choices[0].finish_reason == ours
    _, chunks = remote.streamed()
    assert [part.choices[0].finish_reason for part in chunks if part.choices][-1] == ours


def test_a_conversation_with_tools_goes_on_with_our_ids(remote: Setup) -> None:
    """The official client sends back what it got, and the server sees a conversation that hangs together."""
    remote.champion.answer = says(
        {"content": None, "tool_calls": [call("weather-report", {"city": "Bern"})]}, "tool_calls"
    )
    made = remote.ask().choices[0].message
    remote.champion.answer = says({"content": "It rains."})
    result = {"role": "tool", "tool_call_id": made.tool_calls[0].id, "content": "rain"}
    messages = [{"role": "user", "content": "hi"}, made.model_dump(exclude_none=True), result]
    assert remote.ask(messages=messages).choices[0].message.content == "It rains."
    sent = remote.champion.bodies[-1]["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]


def test_what_was_cut_off_and_what_cannot_be_read_says_so(remote: Setup) -> None:
    remote.champion.answer = says({"content": "and then"}, "length")
    assert remote.ask().choices[0].finish_reason == "length"
    assert remote.streamed()[1][-2].choices[0].finish_reason == "length"
    malformed = {"id": "x", "type": "function", "function": {"name": "weather-report", "arguments": '{"city":'}}
    remote.champion.answer = says({"content": None, "tool_calls": [malformed]}, "tool_calls")
    remote.ask()
    assert [record.tool_error_count for record in remote.records()] == [0, 0, 1]


# --- how it can fail --------------------------------------------------------------------------------------------------

BAD: dict[str, Answer] = {
    "500": raw(b"the server's own trace with a customer's name", 500),
    "429": raw(b"", 429),
    "redirect": raw(b"", 307, location="http://127.0.0.1:9/elsewhere"),
    "closes": closes,
    "half a body": breaks_off_inside,
    "no JSON": raw(b"<html>502 Bad Gateway</html>"),
    "no UTF-8": raw(b"\xff\xfe\x00"),
    "null": as_json(None),
    "no choices": as_json({"choices": []}),
    "a message that is text": as_json({"choices": [{"message": "hello"}]}),
    "content that is a number": as_json(plain({"content": 7})),
    "half a surrogate pair": raw(json.dumps(plain({"content": "X"})).replace("X", "\\ud800").encode()),
    "NaN": raw(json.dumps(plain({"content": "x"})).replace("11", "NaN").encode()),
    "negative counts": as_json({**plain({"content": "x"}), "usage": {"prompt_tokens": -1}}),
    "huge counts": as_json({**plain({"content": "x"}), "usage": {"completion_tokens": 10**30}}),
    "calls that are none": as_json(plain({"tool_calls": [{"id": "x"}]})),
    "deep": raw(b'{"choices": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("how", BAD)
def test_a_bad_champion_is_an_error_with_a_record(remote: Setup, how: str, streams: bool, caplog: Any) -> None:
    remote.champion.answer = BAD[how]
    with pytest.raises(openai.InternalServerError, match="a person has to take over") as caught:
        list(remote.ask(stream=True)) if streams else remote.ask()
    assert caught.value.status_code == 502
    (record,) = remote.records()
    assert record.trace["failure"]["kind"] == "error"
    assert (record.served_channel, record.success) == (None, False)
    assert "customer's name" not in f"{record} {caught.value} {caplog.text}"
    remote.champion.answer = says({"content": "well again"})
    assert remote.ask().choices[0].message.content == "well again"


def test_what_a_server_does_not_accept_is_the_clients_mistake(remote: Setup) -> None:
    remote.champion.answer = lambda handler, body: handler.send(b'{"error": {}}', status=422)
    with pytest.raises(openai.BadRequestError, match="does not accept this request"):
        remote.ask()
    assert not remote.records()


def test_a_canary_server_that_accepts_nothing_is_a_canary_that_fails(remote: Setup) -> None:
    session = remote.start_canary()
    remote.canary.answer = lambda handler, body: handler.send(b'{"error": {}}', status=400)
    assert remote.ask(user=session).choices[0].message.content == "from the champion"
    (record,) = remote.records()
    assert (record.assigned_channel, record.served_channel, record.fallback) == ("canary", "general", True)
    breaker = remote.served.gateway.breaker
    assert breaker is not None
    assert breaker.watched["failures"].events == 1
    remote.champion.answer = remote.canary.answer
    with pytest.raises(openai.BadRequestError, match="does not accept this request"):
        remote.ask(user=session)
    assert breaker.watched["failures"].answers == 1, "where both refuse, it is the request"
    assert len(remote.records()) == 1


def test_a_slow_champion_is_not_waited_for(remote: Setup) -> None:
    remote.champion.answer = hangs
    with pytest.raises(openai.InternalServerError) as caught:
        remote.ask()
    assert caught.value.status_code == 504
    assert remote.records()[0].trace["failure"]["kind"] == "timeout"


def test_a_server_that_is_not_there_is_replaced(remote: Setup, tmp_path: Path) -> None:
    session = remote.start_canary()
    settings = settings_with(canary_url="http://127.0.0.1:9/v1")
    nowhere = backends(settings, ArtifactStore(tmp_path), FACTORY)("canary", "0" * 64, {})
    remote.served.gateway.canary.backend = nowhere  # type: ignore[union-attr]
    assert remote.ask(user=session).choices[0].message.content == "from the champion"
    assert "cannot be reached" in remote.records()[0].trace["failure"]["said"]
    remote.served.call(nowhere.close)


BAD_STREAMS: dict[str, Sequence[Any]] = {
    "ends early": (),
    "an error in it": ({"error": {"message": "out of memory"}},),
    "garbage": (b"\xff\xfe",),
    "no JSON": (b'{"choices": [{"delta"',),
    "no delta": ({"choices": [{}]},),
    "a call without a function": (chunk({"tool_calls": [{"index": 0}]}),),
    "an endless line": (b"x" * 1_000_000,),
}


@pytest.mark.parametrize("how", BAD_STREAMS)
def test_a_stream_that_breaks_after_text_tells_the_client(remote: Setup, how: str) -> None:
    """The client has text already, so nobody else may answer; it gets an error and not a half answer as a whole one."""
    session = remote.start_canary()
    remote.canary.answer = breaks_off(chunk({"content": "I have ref"}), *BAD_STREAMS[how])
    chunks = remote.ask(stream=True, user=session)
    assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["", "I have ref"]
    with pytest.raises(openai.APIError, match="a person has to take over"):
        next(chunks)
    (record,) = remote.records()
    assert (record.fallback, record.served_channel) == (False, None)
    assert record.trace["failure"]["kind"] == "error"
    assert remote.champion.bodies == []


@pytest.mark.parametrize("how", BAD_STREAMS)
def test_a_canary_whose_stream_breaks_before_text_is_replaced(remote: Setup, how: str) -> None:
    session = remote.start_canary()
    remote.canary.answer = breaks_off(chunk({"role": "assistant", "content": ""}), *BAD_STREAMS[how])
    text, chunks = remote.streamed(user=session)
    assert text == "from the champion"
    (record,) = remote.records()
    assert (record.assigned_channel, record.served_channel, record.fallback) == ("canary", "general", True)
    assert chunks[-1].id == record.run_id
    assert record.trace["failure"]["kind"] == "error"


@pytest.mark.parametrize("how", [*BAD, "hangs"])
def test_a_bad_canary_is_replaced_by_the_champion(remote: Setup, how: str) -> None:
    session = remote.start_canary()
    remote.canary.answer = hangs if how == "hangs" else BAD[how]
    answer = remote.ask(user=session)
    assert answer.choices[0].message.content == "from the champion"
    (record,) = remote.records()
    assert (record.release_id, record.fallback) == (remote.served.releases["canary"], True)
    assert record.trace["failure"]["kind"] == ("timeout" if how == "hangs" else "error")
    assert remote.canary.bodies[0]["model"] == "new"
    assert remote.champion.bodies[0]["model"] == "champion"


@pytest.mark.parametrize("streams", [False, True])
def test_a_canary_whose_server_has_a_dialect_of_its_own_has_not_failed(remote: Setup, streams: bool) -> None:
    session = remote.start_canary()
    for data in TEXT.values():
        remote.canary.answer = raw(data)
        text = remote.streamed(user=session)[0] if streams else remote.ask(user=session).choices[0].message.content
        assert text == "Hello ü 你 👋"
    for data in ONE_CALL.values():
        remote.canary.answer = raw(data)
        chunks = remote.streamed(user=session)[1] if streams else [remote.ask(user=session)]
        said = [one.choices[0].delta if streams else one.choices[0].message for one in chunks if one.choices]
        (made,) = [made for one in said for made in one.tool_calls or ()]
        assert (made.function.name, json.loads(made.function.arguments)) == ("lookup", ARGUMENTS)
    breaker = remote.served.gateway.breaker
    assert breaker is not None
    answers = len(TEXT) + len(ONE_CALL)
    assert (breaker.watched["failures"].answers, breaker.watched["failures"].events) == (answers, 0)
    records = remote.records()
    assert [(record.served_channel, record.fallback) for record in records] == [("canary", False)] * answers
    assert {record.tool_error_count for record in records} == {0}


@pytest.mark.parametrize("streams", [False, True])
def test_an_error_in_an_answer_with_status_200_is_one_failure(remote: Setup, streams: bool) -> None:
    session = remote.start_canary()
    remote.canary.answer = raw(sse({"error": {"code": 502, "message": "a customer"}}, DONE))
    text = remote.streamed(user=session)[0] if streams else remote.ask(user=session).choices[0].message.content
    assert text == "from the champion"
    breaker = remote.served.gateway.breaker
    assert breaker is not None
    assert (breaker.watched["failures"].answers, breaker.watched["failures"].events) == (1, 1)
    (record,) = remote.records()
    assert record.trace["failure"]["said"].endswith("answered with an error (502)")


def test_a_canary_that_stalls_after_text_is_not_replaced(remote: Setup) -> None:
    session = remote.start_canary()

    def stalls(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin(content_type="text/event-stream")
        handler.events(chunk({"content": "One mo"}))
        time.sleep(1.5)

    remote.canary.answer = stalls
    with pytest.raises(openai.APIError, match="a person has to take over"):
        remote.streamed(user=session)
    assert remote.records()[0].trace["failure"]["kind"] == "timeout"
    assert remote.champion.bodies == []


# --- whole episodes ---------------------------------------------------------------------------------------------------


def plays_along(answers: Sequence[dict[str, Any]]) -> Answer:
    """The answers in turn, whatever is asked."""
    left = iter(answers)
    return lambda handler, body: says(next(left))(handler, body)


@pytest.mark.parametrize("streams", [False, True])
def test_the_gateway_plays_the_episode_with_a_remote_policy(remote: Setup, streams: bool) -> None:
    """Only the final answer reaches the customer, also from a server that talks while it calls tools."""
    task = next(task for task in WORKFLOW.tasks("holdout", 50, 3) if task.task_type == "refund")
    tool = next(iter(FACTORY.tools))["function"]["name"]
    remote.champion.answer = plays_along(
        [
            {"content": "Let me see.", "tool_calls": [call(tool, {}), call(tool, {"second": 1}, "other")]},
            {"content": "Done."},
        ]
    )
    given: dict[str, Any] = {
        "tools": openai.omit,
        "extra_body": {"task": {"task_id": task.task_id, "payload": dict(task.payload)}},
    }
    text = remote.streamed(**given)[0] if streams else remote.ask(**given).choices[0].message.content
    assert text == "Done."
    first, second = remote.champion.bodies
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["tools"] == FACTORY.tools
    _, _, made, *results = second["messages"]
    assert {message["role"] for message in results} == {"tool"}
    assert [one["id"] for one in made["tool_calls"]] == [message["tool_call_id"] for message in results]
    assert second["max_tokens"] == first["max_tokens"] - USAGE["completion_tokens"]
    (record,) = remote.records()
    assert record.tool_calls_count == len(results)
    assert record.tokens_out == 2 * USAGE["completion_tokens"]
