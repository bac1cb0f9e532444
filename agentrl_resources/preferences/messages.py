"""Chat turns as people store them, brought into one shape, and what can be wrong with their tool calls.

The shape is what the renderer can write: whatever a turn holds either is in the message or the turn is refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from agentrl_resources.preferences.pairs import Message, Reason, Refused
from agentrl_resources.preferences.values import given, words
from agentrl_resources.strict_json import parse_json

ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_NAMES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "ai": "assistant",
    "model": "assistant", "observation": "tool", "function": "tool", "function_response": "tool",
    "function_call": "assistant", "tool_call": "assistant",
}  # fmt: skip
_TEXT_PARTS = ("text", "input_text", "output_text")
_NOT_TEXT = frozenset({"image", "images", "audio", "video", "videos", "attachments", "files"})
_CALLS = frozenset({"tool_calls", "function_call"})
_TOOL_NAME = re.compile(r"[\w.-]+")
_PERSON = re.compile(r"[^\s<>|\\/:]+")
_CONTROL = re.compile(r"<\|\w+\|>")

CallCheck = Callable[[str, dict[str, Any]], str | None]
"""Takes a tool's name and arguments, gives what is wrong with the call in a sentence, or None."""


def role_of(turn: Any) -> str | None:
    """Who wrote a turn, by OpenAI's names, whether it says `role` or (ShareGPT) `from`; None where it does not say."""
    if not isinstance(turn, dict):
        return None
    name = turn.get("role") or turn.get("from")
    if not isinstance(name, str):
        return None
    name = name.strip().lower()
    return _OTHER_NAMES.get(name, name)


def read_messages(turns: list[Any], where: str) -> list[Message]:
    """The turns with known keys only, arguments and tool results as objects, each tool result named after its tool.

    The results of a turn with several calls come in the order of the calls. Raises `Refused` when a turn is not a chat
    message (unreadable) or a call cannot be parsed (malformed tool call).
    """
    messages: list[Message] = []
    calls = _Calls()
    for position, turn in enumerate(turns, start=1):
        place = f"{where}, message {position}"
        role = role_of(turn)
        if role not in ROLES:
            raise Refused(Reason.UNREADABLE, f"{place} needs a role out of {', '.join(ROLES)}: {str(turn)[:80]}")
        if media := _given_of(turn, _NOT_TEXT):
            raise Refused(Reason.UNREADABLE, f"{place} comes with {media}, which cannot be learned from here.")
        if role != "assistant" and _given_of(turn, _CALLS):
            raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: only an assistant calls tools, not {role}.")
        if role == "assistant":
            messages += calls.answered()
            message = _assistant(turn, place)
            calls.made(message.get("tool_calls", []), _raw_calls(turn, place))
            messages.append(message)
        elif role == "tool":
            calls.result(turn, {"role": "tool", "name": "", "content": _tool_result(_said(turn), place)}, place)
        else:
            messages += calls.answered()
            message = {"role": role, "content": _text(_said(turn), place)}
            if name := _person(turn, role, place):
                message["name"] = name
            messages.append(message)
    return messages + calls.answered()


class _Calls:
    """Which call each tool result answers: the one it names by id, else the next of the turn without an answer."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._open: list[tuple[int, str | None, str]] = []
        self._results: list[tuple[int, Message]] = []
        self._last: str | None = None

    def made(self, calls: list[Any], raw: list[Any]) -> None:
        if calls:
            self._open = []
        for number, (call, one) in enumerate(zip(calls, raw, strict=True)):
            name = self._last = call["function"]["name"]
            identity = str(one["id"]) if isinstance(one, dict) and given(one.get("id")) else None
            if identity is not None:
                self._names[identity] = name
            self._open.append((number, identity, name))

    def result(self, turn: dict[str, Any], message: Message, place: str) -> None:
        identity = str(turn["tool_call_id"]) if given(turn.get("tool_call_id")) else None
        name = turn.get("name")
        found = next((one for one in self._open if identity is not None and one[1] == identity), None)
        found = found or next((one for one in self._open if name and one[2] == name), None)
        if found is None and not name and identity not in self._names and self._open:
            found = self._open[0]
        rank = found[0] if found else 10**6
        if found is not None:
            self._open.remove(found)
        name = name or self._names.get(identity or "") or (found and found[2]) or self._last
        if not name:
            raise Refused(Reason.UNREADABLE, f"{place} is a tool's result, but no tool was called before it.")
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise Refused(Reason.UNREADABLE, f"{place} is the result of a tool without a proper name: {str(name)[:80]}")
        message["name"] = name
        self._results.append((rank, message))

    def answered(self) -> list[Message]:
        """The results since the last assistant's turn, in the order of its calls."""
        if not self._results:
            return []
        results, self._results = sorted(self._results, key=lambda one: one[0]), []
        return [message for _, message in results]


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


def control_token(messages: list[Message]) -> str | None:
    """The first thing that an assistant wrote here and that the format would take for one of its own tokens.

    It is broken up wherever a text is written, so it cannot be learned as it stands.
    """
    texts = (text for one in messages if one["role"] == "assistant" for text in words(one) if "<|" in text)
    return next((found.group() for text in texts if (found := _CONTROL.search(text))), None)


def _given_of(turn: dict[str, Any], keys: frozenset[str]) -> str | None:
    return None if keys.isdisjoint(turn) else next((key for key in sorted(keys) if given(turn.get(key))), None)


def _said(turn: dict[str, Any]) -> Any:
    return turn["content"] if turn.get("content") is not None else turn.get("value")


def _person(turn: dict[str, Any], role: str, place: str) -> str | None:
    """The name that a user's message carries beside its role: the format writes it (`user:ann`), others it cannot."""
    name = turn.get("name")
    if not given(name) or name in (turn.get("role"), role):
        return None
    if role != "user" or not isinstance(name, str) or not _PERSON.fullmatch(name):
        raise Refused(
            Reason.UNREADABLE,
            f"{place} is written by {role} {str(name)[:40]!r}; only a user's message can carry a name, of one word.",
        )
    return name


def _assistant(turn: dict[str, Any], place: str) -> Message:
    _person(turn, "assistant", place)
    thoughts = [turn[key] for key in ("thinking", "reasoning_content", "reasoning") if given(turn.get(key))]
    if any(one != thoughts[0] for one in thoughts):
        raise Refused(Reason.UNREADABLE, f"{place} holds two different thoughts.")
    thinking = _text(thoughts[0] if thoughts else None, place)
    content = _text(None if _is_call(turn) else _said(turn), place)
    if given(refusal := turn.get("refusal")):
        if content.strip():
            raise Refused(Reason.UNREADABLE, f"{place} holds both content and a refusal.")
        content = _text(refusal, place)
    message: Message = {"role": "assistant"}
    if thinking:
        message["thinking"] = thinking
    if calls := _raw_calls(turn, place):
        message["tool_calls"] = [_tool_call(call, place) for call in calls]
    if content or not calls:
        message["content"] = content
    return message


def _is_call(turn: dict[str, Any]) -> bool:
    """ShareGPT writes a call as a turn of its own whose text is the call."""
    name = turn.get("role") or turn.get("from")
    return isinstance(name, str) and name.strip().lower() in ("function_call", "tool_call")


def _raw_calls(turn: dict[str, Any], place: str) -> list[Any]:
    calls = turn.get("tool_calls") or ([turn["function_call"]] if given(turn.get("function_call")) else [])
    if _is_call(turn):
        calls = _said(turn)
    if isinstance(calls, str):
        try:
            calls = parse_json(calls)
        except ValueError as error:
            raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: the call is no JSON ({error}).") from error
        calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list):
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: tool_calls is not a list.")
    return calls


def _tool_call(call: Any, place: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else {}
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise Refused(Reason.MALFORMED_TOOL_CALL, f"{place}: a tool call without a name.")
    if not _TOOL_NAME.fullmatch(name):
        raise Refused(
            Reason.MALFORMED_TOOL_CALL,
            f"{place}: a tool's name is letters, digits, dots, dashes and underscores: {name[:80]!r}",
        )
    arguments = function.get("arguments")
    if not given(arguments):
        arguments = {}
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
    """What is JSON stays or becomes JSON: chat templates would encode a JSON text a second time."""
    if isinstance(content, list) and content and all(_is_part(part) for part in content):
        content = _text(content, place)
    if isinstance(content, str):
        if content[:1] not in ("{", "["):
            return content
        try:
            return _tool_result(parse_json(content), place)
        except ValueError:
            return content
    return "" if content is None else content


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _TEXT_PARTS


def _text(content: Any, place: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part if isinstance(part, str) else part.get("text") if _is_part(part) else None for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    if len(said) < len(texts):
        raise Refused(Reason.UNREADABLE, f"{place}: content must be text: {str(content)[:80]}")
    return "".join(said)
