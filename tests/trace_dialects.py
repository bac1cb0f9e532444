"""One run in many dialects: the agent cancels order 512, and the call goes well, fails, or has no result at all."""

import json
from collections.abc import Callable
from typing import Any

NAME, ARGUMENTS, ID = "cancel_order", {"order_id": "512"}, "call_7"
ASKED, ANSWERED = "please cancel 512", "All done."
RESULT, ERROR = {"state": "processing"}, "no such order"
OUTCOMES = ("ok", "error", "unknown")

Row = dict[str, Any]


def _chat(assistant: Row, result: Row | None, **more: Any) -> Row:
    middle = [assistant] if result is None else [assistant, result]
    return {
        "messages": [{"role": "user", "content": ASKED}, *middle, {"role": "assistant", "content": ANSWERED}],
        **more,
    }


def _function() -> Row:
    return {"name": NAME, "arguments": json.dumps(ARGUMENTS)}


def openai_text(outcome: str) -> Row:
    content = {"ok": json.dumps(RESULT), "error": f"Error: {ERROR}"}.get(outcome)
    result = None if content is None else {"role": "tool", "tool_call_id": ID, "content": content}
    return _chat({"role": "assistant", "tool_calls": [{"id": ID, "type": "function", "function": _function()}]}, result)


def openai_object(outcome: str) -> Row:
    content = {"ok": RESULT, "error": {"error": {"message": ERROR}}}.get(outcome)
    result = None if content is None else {"role": "tool", "content": json.dumps(content)}
    return _chat({"role": "assistant", "tool_calls": [{"type": "function", "function": _function()}]}, result)


def openai_flag(outcome: str) -> Row:
    result = {"role": "tool", "tool_call_id": ID, "content": ERROR, "is_error": outcome == "error"}
    assistant = {"role": "assistant", "tool_calls": [{"id": ID, "type": "function", "function": _function()}]}
    return _chat(assistant, None if outcome == "unknown" else result)


def openai_legacy(outcome: str) -> Row:
    content = {"ok": json.dumps(RESULT), "error": json.dumps({"error": ERROR})}.get(outcome)
    result = None if content is None else {"role": "function", "name": NAME, "content": content}
    return _chat({"role": "assistant", "content": None, "function_call": _function()}, result)


def openai_custom(outcome: str) -> Row:
    call = {"id": ID, "type": "custom", "custom": {"name": NAME, "input": json.dumps(ARGUMENTS)}}
    return _chat(
        {"role": "assistant", "tool_calls": [call]},
        openai_flag(outcome)["messages"][2:-1][0] if outcome != "unknown" else None,
    )


def openai_completion(outcome: str) -> Row:
    """A logged request with its response beside it: the result can only be missing."""
    row = openai_flag(outcome)
    asked, assistant, *rest = row["messages"]
    if outcome == "unknown":
        return {"messages": [asked], "response": {"choices": [{"index": 0, "message": assistant}]}}
    return {"messages": [asked, assistant, rest[0]], "choices": [{"message": rest[-1]}]}


def inspect_ai(outcome: str) -> Row:
    error = {"type": "unknown", "message": ERROR} if outcome == "error" else None
    result = {"role": "tool", "tool_call_id": ID, "function": NAME, "content": "", "error": error}
    call = {"id": ID, "function": NAME, "arguments": ARGUMENTS, "type": "function"}
    return _chat({"role": "assistant", "content": "", "tool_calls": [call]}, None if outcome == "unknown" else result)


def responses(outcome: str) -> Row:
    output = {"ok": json.dumps(RESULT), "error": json.dumps({"isError": True, "content": ERROR})}.get(outcome)
    answer = [{"type": "function_call_output", "call_id": ID, "output": output}] if output else []
    return {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": ASKED}]}],
        "output": [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "id": "fc", "call_id": ID, "status": "completed", **_function()},
            *answer,
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWERED}]},
        ],
    }


def responses_in_messages(outcome: str) -> Row:
    row = responses("ok")
    status = {"ok": "completed", "error": "failed"}.get(outcome)
    items = [one for one in row["output"] if one["type"] != "function_call_output" or status]
    return {"messages": [*row["input"], *(one | ({"status": status} if "output" in one else {}) for one in items)]}


def responses_mcp(outcome: str) -> Row:
    came = {"ok": {"output": json.dumps(RESULT)}, "error": {"error": ERROR}}.get(outcome, {"status": "in_progress"})
    item = {"type": "mcp_call", "id": "mcp_1", "server_label": "shop", **_function(), **came}
    return {"input": ASKED, "response": {"output": [{"type": "mcp_list_tools", "tools": []}, item]}}


def responses_hosted(outcome: str) -> Row:
    status = {"ok": "completed", "error": "failed"}.get(outcome, "searching")
    return {"output": [{"type": "web_search_call", "id": "ws", "status": status, "action": ARGUMENTS}]}


def anthropic(outcome: str, call: str = "tool_use", answer: str = "tool_result") -> Row:
    use = {"type": call, "id": ID, "name": NAME, "input": ARGUMENTS}
    assistant = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, use]}
    content = ERROR if outcome == "error" else [{"type": "text", "text": json.dumps(RESULT)}]
    result = {"type": answer, "tool_use_id": ID, "content": content}
    if outcome == "error":
        result["is_error"] = True
    return _chat(assistant, None if outcome == "unknown" else {"role": "user", "content": [result]})


def anthropic_mcp(outcome: str) -> Row:
    row = anthropic(outcome, "mcp_tool_use", "mcp_tool_result")
    asked, use, *rest = row["messages"]
    return {
        "messages": [asked, {"role": "assistant", "content": use["content"] + (rest[0]["content"] if rest[1:] else [])}]
    }


def anthropic_as_text(outcome: str) -> Row:
    """Content blocks that a table kept as text."""
    row = anthropic(outcome)
    for message in row["messages"]:
        if isinstance(message["content"], list):
            message["content"] = json.dumps(message["content"])
    return {"messages": json.dumps(row["messages"])}


def anthropic_server(outcome: str) -> Row:
    row = anthropic("ok" if outcome != "unknown" else outcome, "server_tool_use", "web_fetch_tool_result")
    if outcome == "error":
        result = row["messages"][2]["content"][0]
        result["content"] = {"type": "web_fetch_tool_result_error", "error_code": "unavailable"}
    return row


def sdk_model(outcome: str) -> Row:
    output = {"ok": {"type": "json", "value": RESULT}, "error": {"type": "error-text", "value": ERROR}}.get(outcome)
    part = {"type": "tool-result", "toolCallId": ID, "toolName": NAME, "output": output}
    call = {"type": "tool-call", "toolCallId": ID, "toolName": NAME, "input": ARGUMENTS}
    return _chat({"role": "assistant", "content": [call]}, {"role": "tool", "content": [part]} if output else None)


def sdk_model_denied(outcome: str) -> Row:
    row = sdk_model(outcome)
    if outcome == "error":
        row["messages"][2]["content"][0]["output"] = {"type": "execution-denied", "reason": "not allowed"}
    return row


def sdk_model_4(outcome: str) -> Row:
    part = {"type": "tool-result", "toolCallId": ID, "toolName": NAME, "result": RESULT, "isError": outcome == "error"}
    call = {"type": "tool-call", "toolCallId": ID, "toolName": NAME, "args": ARGUMENTS}
    result = {"role": "tool", "content": [part]} if outcome != "unknown" else None
    return _chat({"role": "assistant", "content": [{"type": "text", "text": "so"}, call]}, result)


def sdk_ui(outcome: str, kind: str = f"tool-{NAME}", **named: str) -> Row:
    state = {
        "ok": {"state": "output-available", "output": RESULT},
        "error": {"state": "output-error", "errorText": ERROR},
    }.get(outcome, {"state": "input-available"})
    part = {"type": kind, **named, "toolCallId": ID, "input": ARGUMENTS, **state}
    parts = [{"type": "step-start"}, part, {"type": "data-note", "data": {}}, {"type": "text", "text": ANSWERED}]
    user = {"id": "1", "role": "user", "parts": [{"type": "text", "text": ASKED}]}
    return {"messages": [user, {"id": "2", "role": "assistant", "parts": parts}]}


def sdk_ui_dynamic(outcome: str) -> Row:
    return sdk_ui(outcome, "dynamic-tool", toolName=NAME)


def sdk_ui_denied(outcome: str) -> Row:
    row = sdk_ui(outcome)
    if outcome == "error":
        row["messages"][1]["parts"][1]["state"] = "output-denied"
    return row


def sdk_ui_4(outcome: str) -> Row:
    came = {"ok": RESULT, "error": {"error": ERROR}}.get(outcome)
    state = {"state": "call"} if came is None else {"state": "result", "result": came}
    invocation = {"toolCallId": ID, "toolName": NAME, "args": ARGUMENTS, **state}
    part = {"type": "tool-invocation", "toolInvocation": invocation}
    assistant = {"role": "assistant", "content": ANSWERED, "parts": [part], "toolInvocations": [invocation]}
    return {"messages": [{"role": "user", "content": ASKED}, assistant]}


def gemini(outcome: str) -> Row:
    response = {"ok": RESULT, "error": {"error": ERROR}}.get(outcome)
    answer = {"role": "user", "parts": [{"functionResponse": {"name": NAME, "response": response}}]}
    call = {"functionCall": {"name": NAME, "args": ARGUMENTS}, "thoughtSignature": "abc"}
    return {
        "contents": [
            {"role": "user", "parts": [{"text": ASKED}]},
            {"role": "model", "parts": [{"text": "hm", "thought": True}, call]},
            *([answer] if response else []),
        ],
        "candidates": [{"content": {"role": "model", "parts": [{"text": ANSWERED}]}, "finishReason": "STOP"}],
    }


def gemini_events(outcome: str) -> Row:
    """Events of Google's Agent Development Kit."""
    return {"messages": [{"author": "desk", "content": content} for content in gemini(outcome)["contents"]]}


def gemini_dumped(outcome: str) -> Row:
    """As Google's Python library writes it: every key is there, and has another spelling."""
    row = gemini(outcome)
    part = {"text": None, "function_call": None, "function_response": None, "inline_data": None}
    call = part | {"function_call": {"id": None, "name": NAME, "args": ARGUMENTS}}
    came = [
        {"role": "user", "parts": [part | {"function_response": one["parts"][0]["functionResponse"]}]}
        for one in row["contents"][2:]
    ]
    return {"contents": [row["contents"][0], {"role": "model", "parts": [call]}, *came]}


def bedrock(outcome: str) -> Row:
    status, content = {"ok": ("success", [{"json": RESULT}]), "error": ("error", [{"text": ERROR}])}.get(
        outcome, ("", [])
    )
    result = {"toolResult": {"toolUseId": ID, "status": status, "content": content}}
    return {
        "messages": [
            {"role": "user", "content": [{"text": ASKED}]},
            {
                "role": "assistant",
                "content": [{"reasoningContent": {}}, {"toolUse": {"toolUseId": ID, "name": NAME, "input": ARGUMENTS}}],
            },
            *([{"role": "user", "content": [result]}] if status else []),
        ],
        "output": {"message": {"role": "assistant", "content": [{"text": ANSWERED}]}},
    }


def _otel_messages(outcome: str, key: str = "response") -> tuple[list[Row], list[Row]]:
    response = {"ok": RESULT, "error": {"error": ERROR}}.get(outcome)
    call = {"type": "tool_call", "id": ID, "name": NAME, "arguments": ARGUMENTS}
    before = [{"role": "user", "parts": [{"type": "text", "content": ASKED}]}, {"role": "assistant", "parts": [call]}]
    if response:
        before.append({"role": "tool", "parts": [{"type": "tool_call_response", "id": ID, key: response}]})
    return before, [{"role": "assistant", "parts": [{"type": "text", "content": ANSWERED}], "finish_reason": "stop"}]


def otel_messages(outcome: str) -> Row:
    before, after = _otel_messages(outcome, "result")
    return {"messages": before + after}


def otel_span(outcome: str) -> Row:
    before, after = _otel_messages(outcome)
    return {
        "name": "chat",
        "attributes": {"gen_ai.input.messages": json.dumps(before), "gen_ai.output.messages": after},
    }


def otel_columns(outcome: str) -> Row:
    before, after = _otel_messages(outcome)
    return {"gen_ai.input.messages": json.dumps(before), "gen_ai.output.messages": json.dumps(after)}


def _otlp(attributes: dict[str, str]) -> list[Row]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]


def otel_trace(outcome: str) -> Row:
    """Two requests, of which the second repeats the first, and the execution's span, which knows of the failure."""
    before, after = _otel_messages("ok" if outcome != "unknown" else outcome)
    chats = [
        {"gen_ai.input.messages": json.dumps(before[:1]), "gen_ai.output.messages": json.dumps(before[1:2])},
        {"gen_ai.input.messages": json.dumps(before), "gen_ai.output.messages": json.dumps(after)},
    ]
    spans: list[Row] = [
        {"name": "chat", "startTimeUnixNano": str(9 - number), "attributes": _otlp(chat)}
        for number, chat in enumerate(reversed(chats))
    ]
    if outcome != "unknown":
        executed = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": NAME, "gen_ai.tool.call.id": ID}
        code = {"code": 2, "message": ERROR} if outcome == "error" else {}
        spans.append({"name": f"execute_tool {NAME}", "status": code, "attributes": _otlp(executed)})
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def otel_events(outcome: str) -> Row:
    content = {"ok": json.dumps(RESULT), "error": f"Error: {ERROR}"}.get(outcome)
    call = {"id": ID, "type": "function", "function": _function()}
    events = [
        {"name": "gen_ai.user.message", "body": {"content": ASKED}},
        {"name": "gen_ai.assistant.message", "body": {"tool_calls": [call]}},
        *([{"name": "gen_ai.tool.message", "body": {"id": ID, "content": content}}] if content else []),
        {"name": "gen_ai.choice", "body": {"index": 0, "message": {"role": "assistant", "content": ANSWERED}}},
    ]
    return {"name": "chat", "attributes": {"gen_ai.operation.name": "chat"}, "events": events}


def otel_details_event(outcome: str) -> Row:
    before, after = _otel_messages(outcome)
    attributes = {"gen_ai.input.messages": before, "gen_ai.output.messages": after}
    return {"events": [{"name": "gen_ai.client.inference.operation.details", "attributes": attributes}]}


def _langchain(outcome: str) -> list[Row]:
    status = {"ok": "success", "error": "error"}.get(outcome)
    call = {"name": NAME, "args": ARGUMENTS, "id": ID, "type": "tool_call"}
    repeated = {"id": ID, "type": "function", "function": _function()}
    block = {"type": "tool_use", "id": ID, "name": NAME, "input": ARGUMENTS}
    return [
        {"type": "human", "content": ASKED, "id": "1"},
        {"type": "ai", "content": [{"type": "text", "text": "so"}, block], "id": "2", "tool_calls": [call],
         "invalid_tool_calls": [], "additional_kwargs": {"tool_calls": [repeated]}},
        *([{"type": "tool", "content": ERROR, "tool_call_id": ID, "name": NAME, "status": status}] if status else []),
        {"type": "ai", "content": ANSWERED, "id": "4", "tool_calls": [], "additional_kwargs": {}},
    ]  # fmt: skip


def langchain(outcome: str) -> Row:
    return {"messages": _langchain(outcome)}


def langchain_dicts(outcome: str) -> Row:
    return {"messages": [{"type": one["type"], "data": one} for one in _langchain(outcome)]}


def _constructed(outcome: str) -> list[Row]:
    names = {"human": "HumanMessage", "ai": "AIMessage", "tool": "ToolMessage"}
    return [
        {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", names[one["type"]]], "kwargs": one}
        for one in _langchain(outcome)
    ]


def langsmith(outcome: str) -> Row:
    messages = _constructed(outcome)
    return {"run_type": "chain", "inputs": {"messages": [messages[:1]]}, "outputs": {"messages": messages}}


def langsmith_generation(outcome: str) -> Row:
    *before, answer = _constructed(outcome)
    generations = [[{"text": ANSWERED, "type": "ChatGeneration", "message": answer}]]
    return {"run_type": "llm", "inputs": {"messages": [before]}, "outputs": {"generations": generations}}


def langsmith_children(outcome: str) -> Row:
    """The root says neither calls nor results; the runs below it do."""
    came = {"ok": {"outputs": {"output": json.dumps(RESULT)}}, "error": {"outputs": None, "error": ERROR}}
    tool = {"run_type": "tool", "name": NAME, "inputs": {"input": json.dumps(ARGUMENTS)}, **came.get(outcome, {})}
    between = {"run_type": "chain", "child_runs": [tool]}
    return {"run_type": "chain", "inputs": {"input": ASKED}, "outputs": {"output": ANSWERED}, "child_runs": [between]}


def langfuse(outcome: str) -> Row:
    row = openai_text("ok" if outcome != "unknown" else outcome)
    *before, answer = row["messages"]
    generation = {"type": "GENERATION", "startTime": "2026-11-17T09:00:02Z", "input": before, "output": answer}
    first = {"type": "GENERATION", "startTime": "2026-11-17T09:00:00Z", "input": before[:1], "output": before[1]}
    tool = {"type": "TOOL", "startTime": "2026-11-17T09:00:01Z", "name": NAME, "input": ARGUMENTS, "output": "fine"}
    if outcome == "error":
        tool |= {"level": "ERROR", "statusMessage": ERROR, "output": None}
    executed = [] if outcome == "unknown" else [tool]
    return {"id": "t", "input": ASKED, "output": ANSWERED, "observations": [generation, *executed, first]}


def langfuse_spans(outcome: str) -> Row:
    row = langfuse(outcome)
    row["observations"] = [one | ({"type": "SPAN"} if one["type"] == "TOOL" else {}) for one in row["observations"]]
    row["observations"].append({"type": "SPAN", "name": "rank", "level": "ERROR", "statusMessage": "no tool"})
    return row


def langfuse_tools(outcome: str) -> Row:
    came = {"ok": {"output": RESULT}, "error": {"level": "ERROR", "statusMessage": ERROR}}.get(
        outcome, {"output": None}
    )
    tool = {"type": "TOOL", "name": NAME, "input": ARGUMENTS, **came}
    return {"id": "t", "input": {"question": ASKED}, "output": ANSWERED, "observations": json.dumps([tool])}


DIALECTS: dict[str, Callable[[str], Row]] = {
    build.__name__: build
    for build in (
        openai_text, openai_object, openai_flag, openai_legacy, openai_custom, openai_completion, inspect_ai,
        responses, responses_in_messages, responses_mcp, responses_hosted,
        anthropic, anthropic_mcp, anthropic_as_text, anthropic_server,
        sdk_model, sdk_model_denied, sdk_model_4, sdk_ui, sdk_ui_dynamic, sdk_ui_denied, sdk_ui_4,
        gemini, gemini_events, gemini_dumped, bedrock,
        otel_messages, otel_span, otel_columns, otel_trace, otel_events, otel_details_event,
        langchain, langchain_dicts, langsmith, langsmith_generation, langsmith_children,
        langfuse, langfuse_spans, langfuse_tools,
    )
}  # fmt: skip
