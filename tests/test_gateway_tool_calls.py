"""Tool calls in the dialects of servers: the same calls, whole or in pieces."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from fake_openai import DONE, USED, chunk, read, read_with_text, sse, whole, without
from hypothesis import given, settings
from hypothesis import strategies as st
from server_dialects import ARGUMENTS, ONE_CALL, made, pieces_of

from agentrl_resources.gateway.completions import Completion


@pytest.mark.parametrize("dialect", ONE_CALL)
def test_a_call_in_every_dialect(dialect: str) -> None:
    for data in (ONE_CALL[dialect], ONE_CALL[dialect].replace(b'"c1"', b"71")):  # ids may be numbers
        completion, told = read_with_text(data)
        (call,) = completion.message["tool_calls"]
        assert (call["type"], call["function"]["name"]) == ("function", "lookup")
        assert json.loads(call["function"]["arguments"]) == ARGUMENTS
        assert isinstance(call["id"], str)
        assert (completion.message["content"], told, completion.cut_off) == ("", [], False)


NO_ARGUMENTS: Sequence[Any] = ("", "{}", None, {}, " ", "null")


@pytest.mark.parametrize("arguments", NO_ARGUMENTS)
def test_a_call_without_arguments(arguments: Any) -> None:
    for data in (whole({"tool_calls": [made(arguments=arguments)]}), pieces_of([made(arguments=arguments, index=0)])):
        (call,) = read(data).message["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {}


Given = list[tuple[str, dict[str, Any]]]


def calls_of(completion: Completion) -> Given:
    calls = completion.message.get("tool_calls", [])
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def as_openai(calls: Given, cut: random.Random) -> list[list[dict[str, Any]]]:
    """Pieces of three calls at most, one after the other or mixed."""
    lists = []
    for index, (name, arguments) in enumerate(calls):
        words = json.dumps(arguments)
        lists.append([{"index": index, "id": f"c{index}", "function": {"name": name, "arguments": ""}}])
        where = sorted(cut.sample(range(len(words) + 1), 2))
        for start, end in zip([0, *where], [*where, len(words)], strict=True):
            lists.append([{"index": index, "function": {"arguments": words[start:end]}}])
    return lists


def as_mixed(calls: Given, cut: random.Random) -> list[list[dict[str, Any]]]:
    """The pieces of different calls in turns, which their index allows."""
    lists = as_openai(calls, cut)
    own = [[one for one in lists if one[0]["index"] == index] for index in range(len(calls))]
    return [rows.pop(0) for _ in range(4) for rows in own]


def as_one_piece(calls: Given, cut: random.Random, **fields: Any) -> list[list[dict[str, Any]]]:
    pieces = [
        {"id": f"c{number}", "index": number, "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    dressed = [{name: value for name, value in (piece | fields).items() if value is not None} for piece in pieces]
    return [dressed] if cut.random() < 0.5 else [[piece] for piece in dressed]


MANY = {
    "openai": as_openai,
    "mixed": as_mixed,
    "whole calls": as_one_piece,
    "index 0 for all (gemini, ollama)": lambda calls, cut: as_one_piece(calls, cut, index=0),
    "index 0 for all, no ids (gemini)": lambda calls, cut: as_one_piece(calls, cut, index=0, id=""),
    "no index": lambda calls, cut: as_one_piece(calls, cut, index=None),
    "no index, no ids": lambda calls, cut: as_one_piece(calls, cut, index=None, id=None),
    "one id for all": lambda calls, cut: as_one_piece(calls, cut, id="call_0"),
    "in pieces, no index": lambda calls, cut: [
        [without(piece, "index") for piece in pieces] for pieces in as_openai(calls, cut)
    ],
    "in pieces, id in each, index 0": lambda calls, cut: [
        [{**piece, "index": 0, "id": f"c{piece['index']}"} for piece in pieces] for pieces in as_openai(calls, cut)
    ],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SOME_CALLS = st.lists(
    st.tuples(st.sampled_from(["lookup", "look", "refund"]), st.dictionaries(st.text(max_size=6), VALUES, max_size=4)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("dialect", MANY)
@given(calls=SOME_CALLS, text=st.text(max_size=20), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_streamed_and_whole_are_the_same_message(dialect: str, calls: Given, text: str, seed: int) -> None:
    cut = random.Random(seed)
    streamed = [chunk({"content": piece}) for piece in text]
    streamed += [chunk({"tool_calls": pieces}) for pieces in MANY[dialect](calls, cut)]
    data = sse(chunk({"role": "assistant", "content": ""}), *streamed, chunk({}, "tool_calls"), USED, DONE)
    of_stream = read(*(data[start : start + 7] for start in range(0, len(data), 7)))
    at_once = read(whole({"content": text or None, "tool_calls": [made(name, json.dumps(own)) for name, own in calls]}))
    assert calls_of(of_stream) == calls_of(at_once) == calls
    assert of_stream.message["content"] == at_once.message["content"] == text
    assert (of_stream.tokens_in, of_stream.tokens_out) == (at_once.tokens_in, at_once.tokens_out)
