"""Chat turns as people store them, brought into one shape, and what can be wrong with their tool calls."""

from collections.abc import Callable, Mapping
from typing import Any

from agentrl_resources.preferences.pairs import Message, Reason, Refused
from agentrl_resources.strict_json import parse_json

ROLES = ("system", "developer", "user", "assistant", "tool")

CallCheck = Callable[[str, dict[str, Any]], str | None]
"""Takes a tool's name and arguments, gives what is wrong with the call in a sentence, or None."""


def read_messages(turns: list[Any], where: str) -> list[Message]:
    """The turns with known keys only, arguments and tool results as objects, each tool result named after its tool.

    Raises `Refused` when a turn is not a chat message (unreadable) or a call cannot be parsed (malformed tool call).
    """
    messages: list[Message] = []
    names: dict[str, str] = {}
    name = None
    for position, turn in enumerate(turns, start=1):
        place = f"{where}, message {position}"
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise Refused(Reason.UNREADABLE, f"{place} needs a role out of {', '.join(ROLES)}: {str(turn)[:80]}")
        if turn["role"] == "assistant":
            message = _assistant(turn, place)
            for call, raw in zip(message.get("tool_calls", []), turn.get("tool_calls") or [], strict=True):
                name = names[str(raw.get("id"))] = call["function"]["name"]
        elif turn["role"] == "tool":
            tool = turn.get("name") or names.get(str(turn.get("tool_call_id")), name)
            if not tool:
                raise Refused(Reason.UNREADABLE, f"{place} is a tool's result, but no tool was called before it.")
            message = {"role": "tool", "name": tool, "content": _tool_result(turn.get("content"), place)}
        else:
            message = {"role": turn["role"], "content": _text(turn.get("content"), place)}
        messages.append(message)
    return messages


def schema_check(schemas: Mapping[str, Mapping[str, Any]]) -> CallCheck:
    """A check of calls against each tool's JSON schema for its arguments."""
    from jsonschema import Draft202012Validator

    validators = {name: Draft202012Validator(schema) for name, schema in schemas.items()}

    def problem(name: str, arguments: dict[str, Any]) -> str | None:
        if name not in validators:
            return f"there is no tool {name!r}"
        error = next(validators[name].iter_errors(arguments), None)
        return f"{name}: {error.message}" if error else None

    return problem


def call_problem(messages: list[Message], check: CallCheck) -> str | None:
    """The first thing wrong with the calls of these turns, or None."""
    calls = (call["function"] for message in messages for call in message.get("tool_calls", []))
    return next(filter(None, (check(call["name"], call["arguments"]) for call in calls)), None)


def _assistant(turn: dict[str, Any], place: str) -> Message:
    thinking = _text(turn.get("thinking"), place)
    content = _text(turn.get("content"), place)
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: tool_calls is not a list.")
    message: Message = {"role": "assistant"}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = [_tool_call(call, place) for call in calls]
    if content or not calls:
        message["content"] = content
    return message


def _tool_call(call: Any, place: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else {}
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: a tool call without a name.")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments)
        except ValueError as error:
            problem = f"{place}: the arguments of {name} are no JSON ({error})."
            raise Refused(Reason.MALFORMED_TOOL_CALL, problem) from error
    if not isinstance(arguments, dict):
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: the arguments of {name} are no object.")
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _tool_result(content: Any, place: str) -> Any:
    """Objects stay or become objects: chat templates would encode a JSON string a second time."""
    if isinstance(content, dict):
        return content
    text = _text(content, place)
    if text.startswith("{"):
        try:
            return parse_json(text)
        except ValueError:
            return text
    return text


def _text(content: Any, place: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    raise Refused(Reason.UNREADABLE, f"{place}: content must be text: {str(content)[:80]}")
