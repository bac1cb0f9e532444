"""Answers in the dialects of servers: read alike whole or streamed, however the bytes are cut, or one clear error."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from fake_openai import DONE, USED, chunk, read, read_with_text, sse, whole
from hypothesis import example, given, settings
from hypothesis import strategies as st
from server_dialects import ALL, END, HELLO, TEXT

from agentrl_resources.gateway.completions import MAX_BYTES, CompletionError


@pytest.mark.parametrize("dialect", TEXT)
def test_every_dialect_says_the_same(dialect: str) -> None:
    completion, told = read_with_text(TEXT[dialect])
    assert completion.message == {"role": "assistant", "content": "Hello ü 你 👋"}
    assert "".join(told) == "Hello ü 你 👋"
    assert (completion.tokens_in, completion.tokens_out, completion.cut_off) == (11, 7, False)


COUNTS = st.none() | st.integers(0, 9)


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=4), st.booleans())
def test_what_is_not_counted_is_unknown_and_what_is_known_is_the_largest_count(counts: Any, streams: bool) -> None:
    usages = [
        {name: n for name, n in zip(("prompt_tokens", "completion_tokens"), one, strict=True) if n is not None}
        for one in counts
    ]
    if streams:
        data = sse(*HELLO, *({**END, "usage": usage} for usage in usages), END, DONE)
    else:
        usages = usages[-1:]
        data = whole({"content": "x"}, usage=usages[0] if usages else None)
    known = [[usage[name] for usage in usages if name in usage] for name in ("prompt_tokens", "completion_tokens")]
    expected = [max(found, default=None) for found in known]
    found = read(data)
    assert [found.tokens_in, found.tokens_out] == (expected if any(expected) else [None, None])


@given(st.sampled_from(sorted(TEXT)), st.lists(st.integers(0, 4000)))
@settings(deadline=None, max_examples=150)
@example("CR LF", list(range(3000)))
@example("CR LF, data in several lines", list(range(3000)))
@example("byte order mark, streamed", list(range(3000)))
def test_where_the_bytes_are_cut_does_not_matter(dialect: str, cuts: list[int]) -> None:
    data = TEXT[dialect]
    ends = [*sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert b"".join(pieces) == data
    completion, told = read_with_text(*pieces)
    assert (completion, "".join(told)) == (read(data), "Hello ü 你 👋")


@given(st.sampled_from(sorted(TEXT)), st.floats(0, 1))
@settings(deadline=None, max_examples=300)
def test_a_connection_that_breaks_gives_the_whole_answer_or_none(dialect: str, share: float) -> None:
    data = TEXT[dialect]
    try:
        completion = read(data[: int(share * len(data))])
    except CompletionError:
        return
    assert completion.message["content"] == "Hello ü 你 👋"


# --- what stands beside the text --------------------------------------------------------------------------------------

THOUGHTS: dict[str, Sequence[dict[str, Any]]] = {
    "vllm, deepseek": ({"reasoning_content": "Hm"}, {"reasoning_content": "m."}),
    "groq": ({"reasoning": "Hm"}, {"reasoning": "m."}),
    "both": ({"reasoning": "Hm", "reasoning_content": "Hm"}, {"reasoning": "m.", "reasoning_content": "m."}),
    "thinking": ({"thinking": "Hmm."},),
    "openrouter": tuple(
        {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text, "index": 0}]}
        for text in ("Hm", "m.")
    ),
    "details only": ({"reasoning_details": [{"type": "reasoning.summary", "summary": "Hmm."}, {"data": "=="}]},),
    "mistral": ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm."}]}]},),
    "null besides": ({"reasoning_content": None, "reasoning": "Hmm.", "thinking": None, "reasoning_details": []},),
}


@pytest.mark.parametrize("dialect", THOUGHTS)
def test_thoughts_have_many_names(dialect: str) -> None:
    deltas = THOUGHTS[dialect]
    streamed, told = read_with_text(sse(*map(chunk, deltas), chunk({"content": "Yes."}), END, DONE))
    assert (streamed.thinking, streamed.message["content"], told) == ("Hmm.", "Yes.", ["Yes."])
    if len(deltas) == 1 and "content" not in deltas[0]:
        assert read(whole({**deltas[0], "content": "Yes."})).message == streamed.message


def test_thoughts_that_are_part_of_the_text_stay_there() -> None:
    assert read(whole({"content": "<think>Hmm.</think>Yes."})).message["content"] == "<think>Hmm.</think>Yes."


@pytest.mark.parametrize("streams", [False, True])
def test_a_refusal_is_kept(streams: bool) -> None:
    parts = [{"content": None, "refusal": "I cannot "}, {"refusal": "do that."}]
    whole_one = whole({"content": None, "refusal": "I cannot do that."})
    completion = read(sse(*map(chunk, parts), END, DONE) if streams else whole_one)
    assert completion.message == {"role": "assistant", "content": "", "refusal": "I cannot do that."}


@pytest.mark.parametrize("streams", [False, True])
def test_logprobs_are_put_together(streams: bool) -> None:
    tokens = [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []} for token in ("Y", "es")]

    def part(kind: str, content: str, some: list[Any]) -> dict[str, Any]:
        return {"index": 0, kind: {"content": content}, "logprobs": {"content": some, "refusal": None},
                "finish_reason": "stop"}  # fmt: skip

    chunks = [{"choices": [part("delta", token["token"], [token])]} for token in tokens]
    at_once = json.dumps({"choices": [part("message", "Yes", tokens)]}).encode()
    assert read(sse(*chunks, DONE) if streams else at_once).logprobs == {"content": tokens}


@pytest.mark.parametrize("finish", ["length", "max_tokens", "model_length", "content_filter", "LENGTH"])
def test_what_was_cut_off_says_so(finish: str) -> None:
    assert read(sse(*HELLO, chunk({}, finish), DONE)).cut_off
    assert read(whole({"content": "Hel"}, finish)).cut_off


# --- what is no answer ------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[Any, str | None, int | None]] = {  # what stands in place of content -> its kind, its status
    "an object": ({"error": {"message": "a customer", "type": "server_error", "code": None}}, "server_error", None),
    "openrouter": ({"error": {"code": 502, "message": "a customer", "metadata": {"provider_name": "x"}}}, None, 502),
    "a text": ({"error": "a customer"}, None, None),
    "vllm": ({"object": "error", "message": "a customer", "type": "BadRequest", "code": 400}, "BadRequest", 400),
    "anthropic": ({"type": "error", "error": {"type": "overloaded", "message": "a customer"}}, "overloaded", None),
    "gemini": ([{"error": {"code": 429, "message": "a customer", "status": "EXHAUSTED"}}], "EXHAUSTED", 429),
    "detail": ({"detail": "a customer"}, None, None),
    "a message": ({"code": "InvalidParameter", "message": "a customer"}, "InvalidParameter", None),
    "in the choice (openrouter)": ({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error",
                                                 "error": {"code": 502, "message": "a customer"}}]}, None, 502),
    "finish_reason error": ({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}, None, None),
    "groq": ({"x_groq": {"error": "a customer"}, "choices": []}, None, None),
}  # fmt: skip


@pytest.mark.parametrize("where", ["whole", "streamed", "in the middle"])
@pytest.mark.parametrize("how", ERRORS)
def test_an_error_in_an_answer_with_status_200(how: str, where: str) -> None:
    said, code, status = ERRORS[how]
    data = {
        "whole": json.dumps(said).encode(),
        "streamed": sse(said, DONE),
        "in the middle": sse(*HELLO, said, END, DONE),
    }
    with pytest.raises(CompletionError) as caught:
        read(data[where])
    assert caught.value.error is not None
    assert (caught.value.error.code, caught.value.error.status) == (code, status)
    assert "a customer" not in str(caught.value)
    assert where == "whole" or "finish" in how or "a customer" in caught.value.error.text


@pytest.mark.parametrize(
    "event", [b"event: error\ndata: a customer", b'error: {"message": "a customer"}', b"event: error"]
)
def test_an_error_event(event: bytes) -> None:
    with pytest.raises(CompletionError, match="an error"):
        read(sse(*HELLO, event + b"\n\n", END, DONE))


NO_ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b"\n\n  ",
    "HTML": b"<html><body>502 Bad Gateway</body></html>",
    "text": b"upstream connect error or disconnect/reset before headers",
    "no UTF-8": b"\xff\xfe\x00",
    "half of an object": whole({"content": "Hello"})[:-9],
    "no choices": b'{"choices": []}',
    "choices null": b'{"choices": null, "usage": null}',
    "choices that are text": b'{"choices": "Hello"}',
    "a choice that is text": b'{"choices": ["Hello"]}',
    "no message": b'{"choices": [{"index": 0, "finish_reason": "stop"}]}',
    "a message that is text": b'{"choices": [{"message": "Hello"}]}',
    "content that is a number": whole({"content": 7}),
    "content with half a surrogate pair": whole({"content": "X"}).replace(b"X", b"\\ud800"),
    "half a pair, streamed": sse(*HELLO, chunk({"content": "X"}), END, DONE).replace(b"X", b"\\ud800"),
    "two halves the wrong way round": sse(*HELLO, chunk({"content": "XY"}), chunk({"content": "Z"}), END, DONE)
    .replace(b"X", b"\\ude00")
    .replace(b"Y", b"\\ud83d"),
    "NaN": whole({"content": "x"}).replace(b"11", b"NaN"),
    "negative counts": whole({"content": "x"}, usage={"prompt_tokens": -1}),
    "huge counts": whole({"content": "x"}, usage={"completion_tokens": 10**30}),
    "calls that are text": whole({"tool_calls": ["lookup"]}),
    "calls without a name": whole({"tool_calls": [{"id": "x"}]}),
    "a function that is text": whole({"tool_calls": [{"id": "x", "function": "lookup"}]}),
    "deep": b'{"choices": ' + b"[" * 100_000,
    "a call that did not come": whole({"content": None}, "tool_calls"),
    "only usage": sse(USED, DONE),
    "only [DONE]": DONE,
    "ends early": sse(*HELLO),
    "ends early, with usage": sse(USED, *HELLO),
    "ends inside a character": sse(*HELLO)[:-7],
    "ends inside a chunk": sse(*HELLO, END)[:-20],
    "text in place of the rest": sse(*HELLO, b"data: upstream connect error\n\n", DONE),
    "a chunk that is no JSON": sse(*HELLO, b'data: {"choices": [{"delta"\n\n', END, DONE),
    "a chunk that is no UTF-8": sse(*HELLO, b"data: \xff\xfe\n\n", END, b""),
    "an endless line": sse(*HELLO, b"data: " + b"x" * 1_000_000),
    "a finish without anything": sse(chunk(None, "stop"), DONE),
}


@pytest.mark.parametrize("how", NO_ANSWERS)
def test_what_is_no_answer_is_one_clear_error(how: str) -> None:
    if how == "a chunk that is no UTF-8":  # noise beside a whole answer is passed over
        assert read(NO_ANSWERS[how]).message["content"] == "Hello ü 你 👋"
        return
    for cut in (7, 10**9):
        data = NO_ANSWERS[how]
        with pytest.raises(CompletionError) as caught:
            read(*(data[start : start + cut] for start in range(0, len(data), cut)))
        assert 0 < len(str(caught.value)) < 100
        assert caught.value.error is None


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    line = b": " + b"x" * 2**20 + b"\n"
    with pytest.raises(CompletionError, match="larger"):
        read(*itertools.repeat(line, MAX_BYTES // 2**20), sse(*ALL))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)

NOISE = st.one_of(
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"") + b"\n"),
    st.sampled_from([b"\n", b":\n", b"data\n", b"data:\n\n", b"event: ping\n\n", b"id: 1\n", b"data: x\n\n"]),
    VALUES.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"),
    VALUES.map(lambda value: sse({"choices": value})),
    VALUES.map(lambda value: sse({"choices": [value]})),
    VALUES.map(lambda value: sse({"choices": [{"delta": value, "message": value, "index": value}]})),
    VALUES.map(lambda value: sse(chunk({"content": value, "tool_calls": value, "reasoning": value}, value))),
    VALUES.map(lambda value: sse(chunk({"tool_calls": [{"index": value, "id": value, "function": value}]}))),
    VALUES.map(lambda value: sse({"usage": value, "error": value, "timings": value, "x_groq": value, "object": value})),
)  # fmt: skip


@given(st.lists(NOISE, max_size=5), st.integers(0, 5), st.booleans())
@settings(deadline=None, max_examples=400)
def test_noise_raises_nothing_but_the_one_error(noise: list[bytes], position: int, alone: bool) -> None:
    lines = noise if alone else [*map(sse, ALL[:position]), *noise, *map(sse, ALL[position:])]
    for data in (lines, [b"".join(lines)]):
        try:
            completion = read(*data)
        except CompletionError as error:
            assert len(str(error)) < 200  # noqa: PT017  # either is right
        else:
            assert isinstance(completion.message["content"], str)
            assert all(call["function"]["name"] for call in completion.message.get("tool_calls", ()))


CHATTER = st.sampled_from([
    b": comment\n\n", b"event: ping\ndata: {}\n\n", b"data:\n\n", b"\n", b"id: 1\n\n", b"retry: 3\n\n",
    b'data: {"type": "ping"}\n\n', sse(chunk({})), sse(chunk(None)), sse({"choices": []}), sse({"choices": None}),
    sse(chunk({"content": None})), sse(chunk({"content": ""})), sse(chunk({"tool_calls": []})), sse({"usage": None}),
])  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 5), CHATTER), max_size=8))
@settings(deadline=None, max_examples=100)
def test_what_carries_nothing_changes_nothing(said: list[tuple[int, bytes]]) -> None:
    lines = [sse(one) for one in ALL]
    for position, chatter in sorted(said, reverse=True):
        lines.insert(position, chatter)
    completion, told = read_with_text(b"".join(lines))
    assert (completion, "".join(told)) == (read(TEXT["openai"]), "Hello ü 你 👋")
