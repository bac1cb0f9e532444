"""How servers answer, fail and break off, and how a conversation with one goes on that the gateway leads."""

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from backends_alone import HI, PLAIN, TASK, TOOLS, asked, texts
from fake_openai import Fake, Handler, as_json, call, chunk, fake_server, plain, raw, says, sse, whole

from agentrl_resources.gateway import BackendError, Turn
from agentrl_resources.gateway.remote import RemoteBackend


@pytest.fixture
def fake() -> Iterator[Fake]:
    with fake_server() as found:
        found.answer = says({"content": "Hello"})
        yield found


# --- how a server answers ---------------------------------------------------------------------------------------------

STATUSES: dict[str, tuple[Any, str]] = {
    "in a hurry": (raw(b'{"error": {"code": "rate_limit_exceeded"}}', 429, retry_after="7"),
                   "answered 429 (rate_limit_exceeded); it may be asked again in 7 s"),
    "a day": (raw(b"", 503, retry_after="Fri, 27 Nov 2026 10:00:00 GMT"), "answered 503"),
    "loading": (raw(b'{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}', 503),
                "answered 503 (unavailable_error)"),
    "a list": (raw(b'[{"error": {"code": 500, "status": "INTERNAL"}}]', 500), "answered 500 (INTERNAL)"),
    "HTML": (raw(b"<html>a customer</html>", 502), "answered 502"),
    "no such model": (raw(b'{"error": {"message": "model x not found"}}', 404), "answered 404"),
    "moved": (raw(b"", 308, location="http://127.0.0.1:9/"), "answered 308"),
    "no UTF-8": (raw(b"\xff\xfe", 500), "answered 500"),
    "an error, whole": (as_json({"error": {"type": "server_error"}}), "answered with an error (server_error)"),
    "a model that wrote no call": (raw(b'{"error": {"code": "tool_use_failed", "type": "invalid_request_error"}}', 400),
                                   "answered 400 (tool_use_failed)"),
    "null": (as_json(None), "answered with something that is no chat completion: there is no `choices` in it"),
}  # fmt: skip


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("how", STATUSES)
def test_a_failure_is_one_sentence(fake: Fake, how: str, streams: bool) -> None:
    fake.answer, said = STATUSES[how]
    (error,) = asked(fake.url, HI, streams=streams)
    assert isinstance(error, BackendError)
    assert (error.kind, str(error)) == ("error", f"{fake.url}/chat/completions {said}")
    assert len(fake.bodies) == 1


@pytest.mark.parametrize("streams", [False, True])
def test_the_content_type_is_not_relied_on(fake: Fake, streams: bool) -> None:
    answers = {"text/event-stream": whole({"content": "Hello"}),
               "application/json": sse(chunk({"content": "Hello"}), chunk({}, "stop"))}  # fmt: skip
    for kind, data in answers.items():
        fake.answer = raw(data, content_type=kind)
        assert texts(asked(fake.url, HI, streams=streams)) == ["Hello"]


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_may_be_packed(fake: Fake, streams: bool) -> None:
    data = sse(chunk({"content": "Hello"}), chunk({}, "stop")) if streams else whole({"content": "Hello"})
    for name, packed in {"gzip": gzip.compress(data), "deflate": zlib.compress(data)}.items():
        fake.answer = raw(packed, content_encoding=name)
        assert texts(asked(fake.url, HI, streams=streams)) == ["Hello"]
    fake.answer = raw(b"no gzip", content_encoding="gzip")
    (error,) = asked(fake.url, HI, streams=streams)
    assert "broke off its answer" in str(error)


def test_a_connection_that_breaks_behind_the_end_is_no_failure(fake: Fake) -> None:
    """Behind `[DONE]` or, without one, behind the reason why it ended; half of a later event is not looked at."""
    for last in (b"data: [DONE]\n\n", b'data: {"usage": {"promp'):
        data = sse(chunk({"content": "Hello"}), chunk({}, "stop"), last)
        fake.answer = raw(data, content_length=str(len(data) + 100))
        assert texts(asked(fake.url, HI, streams=True)) == ["Hello"]
    fake.answer = raw(sse(chunk({"content": "Hello"})), content_length="1000")
    (error,) = asked(fake.url, HI, streams=True)
    assert "broke off its answer" in str(error)


def test_a_connection_that_stays_open_behind_the_end_is_not_waited_for(fake: Fake) -> None:
    def stays(handler: Handler, body: dict[str, Any]) -> None:
        handler.begin(content_type="text/event-stream")
        handler.wfile.write(sse(chunk({"content": "Hello"}), chunk({}, "stop"), b"data: [DONE]\n\n"))
        for _ in range(600):
            handler.wfile.write(b": ping\n\n")
            time.sleep(0.05)

    fake.answer = stays
    began = time.monotonic()
    assert texts(asked(fake.url, HI, streams=True)) == ["Hello"]
    assert time.monotonic() - began < 20


def test_an_error_behind_text_is_not_asked_for_again(fake: Fake) -> None:
    data = sse(chunk({"content": "Hel"}), {"error": {"code": 400, "message": "unsupported parameter seed"}})
    fake.answer = raw(data)
    (error,) = asked(fake.url, HI, streams=True)
    assert isinstance(error, BackendError)
    assert error.kind == "error"
    assert len(fake.bodies) == 1


# --- a conversation that the gateway leads ----------------------------------------------------------------------------


def played(fake: Fake, said: Sequence[dict[str, Any]], results: Sequence[Sequence[dict[str, Any]]]) -> list[Turn]:
    """The turns of a conversation in which the server says this, and its calls come back with these results."""
    left = iter(said)
    fake.answer = lambda handler, body: handler.send(json.dumps(plain(next(left))).encode())

    async def work() -> list[Turn]:
        backend = RemoteBackend(fake.url, "m", None, TOOLS)
        conversation = backend.converse(TASK, PLAIN)
        try:
            return [await conversation.turn(messages) for messages in [HI, *results]]
        finally:
            conversation.close()
            await backend.close()

    return asyncio.run(work())


def result(content: Any) -> dict[str, Any]:
    return {"role": "tool", "name": "lookup", "content": content}


def test_all_calls_of_a_turn_are_kept_and_answered_by_their_ids(fake: Fake) -> None:
    calls = [call("lookup", {"n": 1}, "a"), call("lookup", {"n": 2}, "b"), {**call("lookup", {"n": 3}), "id": None}]
    first, last = played(
        fake,
        [{"content": "One moment.", "tool_calls": calls}, {"content": "Done."}],
        [list(map(result, ["x", "y", "z"]))],
    )
    assert first.message is not None
    assert [one["function"]["arguments"] for one in first.message["tool_calls"]] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert first.message["content"] == "One moment."
    assert last.message == {"role": "assistant", "content": "Done."}
    _, made, *answers = fake.bodies[1]["messages"]
    ids = [one["id"] for one in made["tool_calls"]]
    assert ids[:2] == ["a", "b"]
    assert len(set(ids)) == 3
    assert [(one["tool_call_id"], one["content"]) for one in answers] == list(zip(ids, "xyz", strict=True))


def test_a_call_that_got_no_result_is_not_sent_back(fake: Fake) -> None:
    """A server refuses a conversation in which a call has no result."""
    calls = [call("lookup", {"n": 1}, "a"), call("lookup", {"n": 2}, "b")]
    played(fake, [{"content": None, "tool_calls": calls}, {"content": "Done."}], [[result("x")]])
    _, made, answer = fake.bodies[1]["messages"]
    assert [one["id"] for one in made["tool_calls"]] == [answer["tool_call_id"]] == ["a"]


def test_thoughts_and_signatures_go_back_as_they_came(fake: Fake) -> None:
    """DeepSeek refuses a conversation whose calls come back without the thoughts behind them, Gemini without their
    signature, OpenRouter passes on what models want in `reasoning_details`."""
    signed = {**call("lookup", {}, "a"), "extra_content": {"google": {"thought_signature": "=="}}}
    details = [{"type": "reasoning.encrypted", "data": "=="}]
    thoughts = {"reasoning_content": "Hm", "reasoning_details": details}
    first, _ = played(
        fake, [{"content": None, **thoughts, "tool_calls": [signed]}, {"content": "Done."}], [[result("x")]]
    )
    assert first.message is not None
    assert first.message["thinking"] == "Hm"
    assert fake.bodies[1]["messages"][1] == {"role": "assistant", "content": None, **thoughts, "tool_calls": [signed]}


def test_a_turn_that_cannot_be_read_is_told_and_goes_on(fake: Fake) -> None:
    broken = {"id": "a", "type": "function", "function": {"name": "lookup", "arguments": '{"n":'}}
    first, last = played(
        fake, [{"content": "Hm.", "tool_calls": [broken]}, {"content": "Done."}], [[result("malformed message")]]
    )
    assert first.message is None
    assert json.loads(first.text)["tool_calls"][0]["function"] == broken["function"]
    assert last.message == {"role": "assistant", "content": "Done."}
    assert [message["role"] for message in fake.bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert "tool_calls" not in fake.bodies[1]["messages"][1]
