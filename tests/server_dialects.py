"""Answers as servers write them: in every dialect the same text, and the same call of a tool."""

import json
from collections.abc import Sequence
from typing import Any

from fake_openai import DONE, USAGE, USED, chunk, sse, whole, without

DELTAS: Sequence[Any] = ({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo ü 你 👋"})
HELLO = tuple(map(chunk, DELTAS))
END = chunk({}, "stop")
ALL = (*HELLO, END, USED, DONE)

TEXT: dict[str, bytes] = {  # each says the same
    "openai": sse(*ALL),
    "whole": whole({"role": "assistant", "content": "Hello ü 你 👋", "refusal": None}),
    "blanks before a whole one (openrouter)": b"\n\n   \n\r\n" + whole({"content": "Hello ü 你 👋"}),
    "byte order mark, whole": b"\xef\xbb\xbf" + whole({"content": "Hello ü 你 👋"}),
    "byte order mark, streamed": b"\xef\xbb\xbf" + sse(*ALL),
    "CR LF": sse(*ALL[:-1], end=b"\r\n\r\n") + b"data: [DONE]\r\n\r\n",
    "CR": sse(*ALL[:-1], end=b"\r\r") + b"data: [DONE]\r\r",
    "no blank behind data:": sse(*ALL).replace(b"data: ", b"data:"),
    "comments (openrouter)": sse(b": OPENROUTER PROCESSING\n\n", ALL[0], b":\n\n: more\n\n", *ALL[1:]),
    "pings": sse(*HELLO, b"event: ping\ndata: {}\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', *ALL[3:]),
    "events without data": sse(b"event: ping\n\n", *HELLO, b"data:\n\n", b"data: \n\n", b"id: 3\n\n", *ALL[3:]),
    "named events with ids": sse(*ALL).replace(b"data: {", b"id: 7\nevent: message\nretry: 1000\ndata: {"),
    "values that are no objects": sse(*HELLO, b"data: null\n\n", b"data: 7\n\n", b"data: ping\n\n", *ALL[3:]),
    "data in several lines": sse(*(
        b"".join(b"data: " + line.encode() + b"\n" for line in json.dumps(one, indent=1).splitlines()) + b"\n"
        for one in ALL[:-1]), DONE),
    "CR LF, data in several lines": sse(*(
        b"".join(b"data: " + line.encode() + b"\r\n" for line in json.dumps(one, indent=1).splitlines()) + b"\r\n"
        for one in ALL[:-1]), DONE),
    "no empty lines between events": sse(*ALL[:-1], end=b"\n") + b"data: [DONE]",
    "objects line by line": sse(*ALL[:-1], end=b"\n").replace(b"data: ", b""),
    "no last empty line": sse(*HELLO, END, USED)[:-2],
    "no [DONE]": sse(*HELLO, END, USED),
    "[DONE] without a blank": sse(*HELLO, END, USED, b"data:[DONE]\n\n"),
    "something behind [DONE]": sse(*ALL, b"data: {half\n\n", chunk({"content": "never"})),
    "no finish_reason": sse(*HELLO, chunk({}), USED, DONE),
    "finish_reason is missing": sse(*HELLO, {"choices": [{"delta": {}}]}, USED, DONE),
    "finish_reason empty until the end": sse(*(chunk(delta, "") for delta in DELTAS), END, USED, DONE),
    "finish_reason null as text": sse(*(chunk(delta, "null") for delta in DELTAS), END, USED, DONE),
    "finish_reason eos": sse(*HELLO, chunk({}, "eos"), USED, DONE),
    "finish_reason with the last text": sse(*HELLO[:2], chunk({"content": "lo ü 你 👋"}, "stop"), USED, DONE),
    "usage first": sse(USED, *HELLO, END, DONE),
    "usage without choices": sse(*HELLO, END, without(USED, "choices"), DONE),
    "usage with choices null": sse(*HELLO, END, {**USED, "choices": None}, DONE),
    "usage with each chunk (vllm, xai)": sse(
        *({**one, "usage": {"prompt_tokens": 11, "completion_tokens": n}} for n, one in enumerate(HELLO)),
        {**END, "usage": USAGE}, DONE),
    "usage null until the end": sse(*({**one, "usage": None} for one in (*HELLO, END)), USED, DONE),
    "usage with null fields": sse(*HELLO, END, USED, {**USED, "usage": dict.fromkeys(USAGE)}, DONE),
    "usage without completion_tokens": sse(*HELLO, END, {**USED, "usage": without(USAGE, "completion_tokens")}, DONE),
    "usage as floats": sse(*HELLO, END, {**USED, "usage": {"prompt_tokens": 11.0, "completion_tokens": 7.0}}, DONE),
    "usage of the newer names": sse(*HELLO, END, {**USED, "usage": {"input_tokens": 11, "output_tokens": 7}}, DONE),
    "usage in x_groq": sse(*HELLO, {**END, "x_groq": {"id": "r", "usage": USAGE}}, DONE),
    "usage in the choice (moonshot)": sse(*HELLO, {"choices": [{**END["choices"][0], "usage": USAGE}]}, DONE),
    "usage in timings (llama.cpp)": sse(
        *HELLO, {**END, "timings": {"prompt_n": 4, "cache_n": 7, "predicted_n": 7, "predicted_ms": 8.5}}, DONE),
    "cut inside a pair of UTF-16": sse(
        *HELLO[:2], chunk({"content": "lo ü 你 X"}), chunk({"content": "Y"}), END, USED, DONE
    ).replace(b"X", b"\\uD83D").replace(b"Y", b"\\udc4b"),
    "delta as text": sse(chunk("Hel"), chunk("lo ü 你 👋"), END, USED, DONE),
    "text in place of a delta": sse(
        *({"choices": [{"index": 0, "text": text}]} for text in ("Hel", "lo ü 你 👋")), END, USED, DONE),
    "delta null": sse(*HELLO, chunk(None, "stop"), USED, DONE),
    "no delta": sse(*HELLO, {"choices": [{"index": 0, "finish_reason": "stop"}]}, USED, DONE),
    "choice null": sse({"choices": [None]}, *ALL),
    "content null": sse(chunk({"role": "assistant", "content": None, "tool_calls": None}), *ALL),
    "role null": sse(chunk({"role": None, "content": "", "function_call": None, "audio": None}), *ALL),
    "content in parts": sse(HELLO[0], chunk({"content": [{"type": "text", "text": "Hel"}]}),
                            chunk({"content": [{"type": "text", "text": "lo "}, "ü 你 👋"]}), END, USED, DONE),
    "content in parts, whole": whole(
        {"content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "ü 你 👋"}]}),
    "no ids, no model, no index": sse(*({"choices": [without(one["choices"][0], "index")]} for one in (*HELLO, END)),
                                      {"usage": USAGE}, DONE),
    "a number as id, an index as text": sse(
        *({"id": 17, "choices": [{**one["choices"][0], "index": "0"}]} for one in (*HELLO, END)), USED, DONE),
    "azure": sse(
        {"choices": [], "created": 0, "id": "", "model": "", "object": "",
         "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False}}}]},
        *({**one, "choices": [{**one["choices"][0], "content_filter_results": {}, "logprobs": None}]} for one in HELLO),
        {"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {"start_offset": 0}}]},
        END, USED, DONE),
    "perplexity": sse(
        chunk({"role": "assistant", "content": ""}), *(
        {"choices": [{"index": 0, "delta": {"content": new}, "message": {"role": "assistant", "content": all_of_it},
                      "finish_reason": finish}], "usage": USAGE}
        for new, all_of_it, finish in (("Hel", "Hel", None), ("lo ü 你 👋", "Hello ü 你 👋", None),
                                       ("", "Hello ü 你 👋", "stop")))),
    "perplexity, whole": json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {
        "content": "Hello ü 你 👋"}, "delta": {"role": "assistant", "content": ""}}], "usage": USAGE}).encode(),
    "a whole one as an event": sse(json.loads(whole({"content": "Hello ü 你 👋"})), DONE),
    "several choices": sse(*(
        {**one, "choices": [one["choices"][0], {"index": 1, "delta": {"content": "other"}, "finish_reason": None}]}
        for one in (*HELLO, END)), USED, DONE),
    "an error that is none": sse(*({**one, "error": None} for one in (*HELLO, END)), USED, DONE),
    "logprobs null, fields of their own": sse(
        *({**one, "provider": "x", "citations": [], "base_resp": {"status_code": 0}} for one in ALL[:-1]), DONE),
}  # fmt: skip


# --- a call -----------------------------------------------------------------------------------------------------------

ARGUMENTS = {"order_id": "512", "note": 'a "quoted" ü } {', "deep": {"list": [1, {}]}}
WORDS = json.dumps(ARGUMENTS)


def made(name: str = "lookup", arguments: Any = WORDS, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def pieces_of(*lists: list[Any], finish: Any = "tool_calls") -> bytes:
    return sse(*(chunk({"tool_calls": calls}) for calls in lists), chunk({}, finish), USED, DONE)


def then(arguments: Any, **more: Any) -> dict[str, Any]:
    return {"index": 0, "function": {"arguments": arguments}, **more}


NAME = made(arguments="", index=0)
ONE_CALL: dict[str, bytes] = {
    "whole": whole({"content": None, "tool_calls": [made()]}, "tool_calls"),
    "whole, stop (ollama)": whole({"content": "", "tool_calls": [made()]}, "stop"),
    "whole, arguments as an object": whole({"tool_calls": [made(arguments=ARGUMENTS)]}, "tool_calls"),
    "whole, no type, no finish": whole({"tool_calls": [without(made(), "type")]}, None),
    "whole, one call and no list": whole({"tool_calls": made()}, "tool_calls"),
    "whole, function_call": whole({"content": None, "function_call": made()["function"]}, "function_call"),
    "whole, both (llama-cpp-python)": whole({"function_call": made()["function"], "tool_calls": [made()]}),
    "openai": pieces_of([NAME], *([then(WORDS[n : n + 3])] for n in range(0, len(WORDS), 3))),
    "in one piece (ollama)": pieces_of([made(index=0)], finish="stop"),
    "in one piece, arguments as an object": pieces_of([made(index=0, arguments=ARGUMENTS)]),
    "without index": pieces_of([without(NAME, "index")], [without(then(WORDS), "index")]),
    "without index and id": pieces_of([without(NAME, "index", "id")], [without(then(WORDS), "index")]),
    "index only later": pieces_of([without(NAME, "index")], [then(WORDS)]),
    "index null": pieces_of([{**NAME, "index": None}], [{**then(WORDS), "index": None}]),
    "index as text": pieces_of([{**NAME, "index": "0"}], [{**then(WORDS), "index": "0"}]),
    "id in each piece": pieces_of([NAME], [then(WORDS[:9], id="c1")], [then(WORDS[9:], id="c1")]),
    "id null and empty": pieces_of([NAME], [then(WORDS[:9], id=None)], [then(WORDS[9:], id="")]),
    "id only later": pieces_of([without(NAME, "id")], [then(WORDS, id="c1")]),
    "another id in each piece": pieces_of([NAME], [then(WORDS[:9], id="c2")], [then(WORDS[9:], id="c3")],
                                      [then("", id="c4")]),
    "name in each piece": pieces_of([NAME], [made(arguments=WORDS[:9], index=0)], [made(arguments=WORDS[9:], index=0)]),
    "name in each piece, no id, no index": pieces_of(
        *([without(made(arguments=words), "id")] for words in ("", WORDS[:9], WORDS[9:], ""))),
    "name null and empty later": pieces_of(
        [NAME], [{"index": 0, "function": {"name": None, "arguments": WORDS[:9]}}],
        [{"index": 0, "function": {"name": "", "arguments": WORDS[9:]}}]),
    "name in pieces": pieces_of([{**NAME, "function": {"name": "look"}}], [{"index": 0, "function": {"name": "up"}}],
                                [then(WORDS)]),
    "name only later": pieces_of([{"index": 0, "id": "c1"}], [{"index": 0, "function": {"name": "lookup"}}],
                                 [then(WORDS)]),
    "the whole call again at the end": pieces_of([NAME], [then(WORDS)], [made(index=0)]),
    "arguments null at first": pieces_of([made(arguments=None, index=0)], [then(WORDS)], [then(None)]),
    "an empty object at first (litellm)": pieces_of([made(arguments="{}", index=0)], [then(WORDS[:5])],
                                                    [then(WORDS[5:])]),
    "an empty object, not as text, at first": pieces_of([made(arguments={}, index=0)], [then(WORDS)]),
    "function null later": pieces_of([NAME], [then(WORDS)], [{"index": 0, "function": None}]),
    "empty pieces": pieces_of([], [None], [NAME, None], [then(WORDS)], [{}], [{"index": 0}], [{"index": 1}]),
    "two pieces in one chunk": pieces_of([NAME, then(WORDS[:9])], [then(WORDS[9:])]),
    "flat": pieces_of([{"index": 0, "id": "c1", "name": "lookup", "arguments": WORDS}]),
    "function_call": sse(chunk({"function_call": {"name": "lookup", "arguments": ""}}),
                         chunk({"function_call": {"arguments": WORDS}}), chunk({}, "function_call"), USED, DONE),
    "with the finish_reason": sse(chunk({"tool_calls": [NAME]}), chunk({"tool_calls": [then(WORDS)]}, "stop"), DONE),
}  # fmt: skip
