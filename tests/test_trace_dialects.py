"""Traces of other tools: calls, arguments, results and errors are read, or the trace is refused by name."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_dialects import ARGUMENTS, DIALECTS, ERROR, ID, NAME, OUTCOMES, anthropic, openai_text

from agentrl_resources.errors import AgentRLError
from agentrl_resources.telemetry.dialects import holds_trace, read_trace


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_a_call_its_arguments_and_what_became_of_it(dialect: str, outcome: str) -> None:
    row = json.loads(json.dumps(DIALECTS[dialect](outcome)))
    assert holds_trace(row)
    trace = read_trace(row)
    (call,) = trace.calls
    assert call.name == ("web_search" if dialect == "responses_hosted" else NAME)
    assert call.arguments == ARGUMENTS
    assert call.status == outcome
    assert trace.failed_calls == {"ok": 0, "error": 1, "unknown": None}[outcome]
    assert (call.row()["error"] is not None) is (outcome == "error")
    assert trace.messages
    assert json.loads(json.dumps(trace.row()))["tool_calls"][0]["status"] == outcome


@pytest.mark.parametrize("dialect", ["anthropic", "openai_object", "sdk_ui", "gemini", "bedrock", "langfuse_tools"])
def test_the_error_is_told_in_its_own_words(dialect: str) -> None:
    assert read_trace(DIALECTS[dialect]("error")).calls[0].row()["error"] == ERROR


@given(st.lists(st.tuples(st.sampled_from(["openai_text", "anthropic", "sdk_model", "gemini", "bedrock", "langchain"]),
                          st.sampled_from(OUTCOMES)), min_size=1, max_size=8))  # fmt: skip
@settings(deadline=None)
def test_no_call_is_lost_or_added_in_a_trace_that_mixes_dialects(turns: list[tuple[str, str]]) -> None:
    messages = []
    for number, (dialect, outcome) in enumerate(turns):
        row = DIALECTS[dialect](outcome)
        messages += json.loads(json.dumps(row.get("messages", row.get("contents"))).replace(ID, f"{ID}{number}"))
    trace = read_trace({"messages": messages})
    outcomes = [outcome for _, outcome in turns]
    assert len(trace.calls) == len(turns)
    if "gemini" not in dict(turns):  # whose results have no ids: they go to the next call that waits
        assert [call.status for call in trace.calls] == outcomes
    assert trace.failed_calls == (None if "unknown" in outcomes else outcomes.count("error"))


@pytest.mark.parametrize(
    ("content", "is_error"),
    [
        ("Error: no such order", True),
        ("Error executing tool: timeout", True),
        ("Error", True),
        ("error: no such order", True),
        ("Errors: 0", False),
        ("Error-free since Monday", False),
        ("Error count: 0", False),
        ("Error rate 0.3 %", False),
        ("Error: none", False),
        ("Error code: 0", False),
        ("There was no error in order 512", False),
        ({"error": "no such order"}, True),
        ({"error": {"code": 404}}, True),
        ({"error": 404}, True),
        ({"error": True, "message": "no such order"}, True),
        ({"type": "error", "message": "no such order"}, True),
        ("{'error': 'no such order'}", True),
        ("{'error': None}", False),
        ("{no error at all}", False),
        ({"error": None}, False),
        ({"error": ""}, False),
        ({"error": "none"}, False),
        ({"error": False}, False),
        ({"error": 0.03, "estimate": 5.1}, False),
        ({"errors": []}, False),
        ({"errors": ["line 3: missing comma"], "file": "a.py"}, False),
        ({"errors": [{"message": "no field x"}], "data": None}, True),
        ({"isError": True, "content": [{"type": "text", "text": "no such order"}]}, True),
        ({"isError": False, "content": [{"type": "text", "text": "an error was mended"}]}, False),
        ({"status": "error", "message": "no such order"}, True),
        ({"status": "failed", "message": "no such order"}, True),
        ({"status": "failed", "payment_id": "p1", "amount": 12}, False),
        ({"status": "processing"}, False),
        ({"exception": "KeyError: 512"}, True),
        ({"traceback": "Traceback (most recent call last): ..."}, True),
        ({"success": False, "reason": "closed"}, True),
        ({"success": True}, False),
        ({"ok": False}, True),
        ({"error_log": "3 errors"}, False),
        ([{"id": 1}, {"id": 2}], False),
        ("", False),
        (None, False),
    ],
)  # fmt: skip
def test_what_a_result_says_of_itself(content: Any, is_error: bool) -> None:
    for written in (content, json.dumps(content)) if isinstance(content, dict) else (content,):
        row = openai_text("ok")
        row["messages"][2]["content"] = written
        assert read_trace(row).failed_calls == int(is_error)


def test_a_mark_counts_more_than_text_and_less_than_what_an_object_says() -> None:
    row = anthropic("ok")
    result = row["messages"][2]["content"][0]
    for content, flag, failed in [
        ("Error: no such order", None, 1),
        ("Error: is what the page says", False, 0),
        ("fine", True, 1),
        ("fine", "true", 1),
        ("fine", 1, 1),
        ("fine", "", 0),
        (json.dumps({"error": "no such order"}), False, 1),
    ]:
        result["content"], result["is_error"] = content, flag
        assert read_trace(row).failed_calls == failed


def test_results_go_to_their_calls_however_they_are_told_apart() -> None:
    def call(name: str, call_id: str | None) -> dict:
        return {"id": call_id, "function": {"name": name, "arguments": "{}"}}

    def result(content: str, **more: Any) -> dict:
        return {"role": "tool", "content": content, **more}

    calls = {"role": "assistant", "tool_calls": [call("a", "1"), call("b", None), call("c", None)]}
    trace = read_trace({"messages": [calls, result("c", name="c"), result("b"), result("a", tool_call_id="1")]})
    assert [(one.name, one.result.content) for one in trace.calls] == [("a", "a"), ("b", "b"), ("c", "c")]

    # ids that are used again in each turn, a result that comes twice, and one that nobody asked for
    turn = {"role": "assistant", "tool_calls": [call("a", "0")]}
    parts = [turn, result("first", tool_call_id="0"), turn, result("half", tool_call_id="0")]
    trace = read_trace({"messages": [*parts, result("whole", tool_call_id="0"), result("stray", name="x")]})
    assert [one.result.content for one in trace.calls] == ["first", "whole", "stray"]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"messages": [{"role": "assistant", "content": [{"type": "function_use", "name": "x"}]}]}, "'function_use'"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": "a"}, 7]}]}, "content[1] is '7'"),
        ({"messages": [{"role": "assistant", "content": [{"toolRequest": {"name": "x"}}]}]}, "toolRequest"),
        ({"messages": [{"role": "assistant", "parts": [{"type": "tool-x", "state": "vanished"}]}]}, "'vanished'"),
        ({"messages": [{"role": "assistant", "content": "a", "tool_uses": [{"name": "x"}]}]}, "messages[0].tool_uses"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}]}, "names no tool"),
        ({"messages": [{"role": "assistant", "content": '<tool_call>{"name": "x"}</tool_call>'}]}, "into its text"),
        ({"messages": [{"role": "assistant", "content": "Thought: hm\nAction: x\nAction Input: {}"}]}, "into its text"),
        ({"messages": [{"role": "user", "content": "a"}], "steps": [{"tool": "x"}]}, "`steps`"),
        ({"messages": [{"role": "tool", "content": [{"type": "text", "text": None}]}]}, "None, of type NoneType"),
        ({"messages": [{"role": "tool", "content": [{"type": "tool_answer", "error": 1}]}]}, "'tool_answer'"),
        ({"messages": [{"role": "assistant", "blocks": [{"block_type": "tool_call"}]}]}, "messages[0].blocks"),
        ({"messages": [{"role": "tool", "content": "a", "is_error": "perhaps"}]}, "is_error is 'perhaps'"),
        ({"conversations": [{"from": "gpt", "value": "hm"}]}, "there is conversations"),
        ({"inputs": {"input": "a"}, "outputs": {"output": "b"}}, "there is inputs, outputs"),
        ({"run_type": "tool", "parent_run_id": "p", "inputs": {}, "outputs": {}}, "parent_run_id"),
        ({"attributes": {"llm.input_messages.0.message.role": "user"}}, "llm.input_messages.0.message.role"),
        ({"attributes": {"gen_ai.prompt.0.role": "user"}}, "gen_ai.prompt.0.role"),
        ({"attributes": {"gen_ai.input.messages": "{half"}}, "gen_ai.input.messages must be a list"),
        ({"observations": [{"type": "SPAN", "input": "a"}]}, "no messages"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(row: dict, named: str) -> None:
    with pytest.raises(AgentRLError) as refused:
        read_trace(row)
    assert named in str(refused.value)


def test_a_row_about_a_run_holds_no_trace() -> None:
    assert not holds_trace(
        {"run_id": "r", "success": True, "labelled_at": "2026-11-17", "output": "fine", "error": None}
    )


def test_requests_without_ids_that_do_not_repeat_what_went_before_are_refused() -> None:
    call = {"type": "tool_call", "name": NAME, "arguments": {}}
    request = {"gen_ai.output.messages": [{"role": "assistant", "parts": [call]}]}
    last = {"gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "done"}]}]}
    with pytest.raises(AgentRLError, match="without ids"):
        read_trace({"spans": [{"attributes": request}, {"attributes": last}]})


def test_executions_that_no_message_shows_are_calls_too() -> None:
    row = DIALECTS["langfuse"]("ok")
    row["observations"].append({"type": "TOOL", "name": "other", "level": "ERROR", "startTime": "2026-11-17T09:01:00Z"})
    trace = read_trace(row)
    assert [(call.name, call.status) for call in trace.calls] == [(NAME, "ok"), ("other", "error")]


@pytest.mark.parametrize(("outcome", "handed_over"), [("ok", True), ("error", False), ("unknown", True)])
@pytest.mark.parametrize("dialect", ["openai_text", "anthropic", "sdk_ui", "langsmith", "bedrock"])
def test_a_hand_over_that_failed_is_none(dialect: str, outcome: str, handed_over: bool) -> None:
    trace = read_trace(DIALECTS[dialect](outcome))
    assert trace.called(frozenset({NAME})) is handed_over
    assert not trace.called(frozenset({"another"}))


def test_a_run_that_an_exception_ended_says_so() -> None:
    assert read_trace(DIALECTS["langsmith"]("ok") | {"error": "RecursionError()"}).error == "RecursionError()"
    assert read_trace(DIALECTS["langsmith"]("ok")).error is None


JUNK = st.sampled_from(
    [None, 7, 0.5, True, "", "x", "{half", [], {}, [None], [7], [[]], {"a": 1}, {"type": []}, {"role": []}]
)


def paths(value: Any, path: tuple = ()) -> list[tuple]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, child in children for below in paths(child, (*path, key)))]


@given(st.sampled_from(sorted(DIALECTS)), st.sampled_from(OUTCOMES), JUNK, st.data())
@settings(max_examples=600, deadline=None)
def test_a_row_with_junk_in_it_is_read_or_refused_and_never_ends_in_another_error(
    dialect: str, outcome: str, junk: Any, data: st.DataObject
) -> None:
    row = json.loads(json.dumps(DIALECTS[dialect](outcome)))
    *above, last = data.draw(st.sampled_from(paths(row)[1:]))
    holder = row
    for key in above:
        holder = holder[key]
    holder[last] = junk
    try:
        trace = read_trace(row)
    except AgentRLError:
        return
    assert all(call["status"] in OUTCOMES for call in trace.row()["tool_calls"])
