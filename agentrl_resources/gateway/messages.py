"""Messages as the workflow has them, and as OpenAI's protocol has them."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from agentrl_resources.files import canonical_json
from agentrl_resources.strict_json import parse_json
from agentrl_resources.workflow import Message

READABLE_PARTS = ("text", "refusal")
"""The kinds of content parts that are text."""


def to_openai(message: Message, call_id: str | None) -> dict[str, Any]:
    """One of our messages as the protocol has it: arguments and tool results as text.

    `call_id`: of the calls it makes (numbered from the second on), or of the one it answers. What a tool said to
    something that was no call is sent as the user's.
    """
    converted = {name: value for name, value in message.items() if name in ("role", "content")}
    if calls := message.get("tool_calls"):
        converted["content"] = message.get("content")
        converted["tool_calls"] = [
            {
                "id": call_id if number == 0 else f"{call_id}_{number}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": canonical_json(call["function"]["arguments"]).decode(),
                },
            }
            for number, call in enumerate(calls)
        ]
    if thinking := message.get("thinking"):
        converted["reasoning_content"] = thinking
    if refusal := message.get("refusal"):
        converted |= {"refusal": refusal, "content": message.get("content") or None}
    if message["role"] == "tool":
        content = message["content"]
        converted["content"] = content if isinstance(content, str) else canonical_json(content).decode()
        if call_id is None:
            converted["role"] = "user"
        else:
            converted["tool_call_id"] = call_id
    return converted


def from_openai(message: Mapping[str, Any]) -> Message | None:
    """A message of the protocol as ours; None when the arguments of a tool call are no JSON object."""
    role = "system" if message["role"] == "developer" else message["role"]
    content = text_of(message.get("content"))
    ours: Message = {"role": role, "content": content}
    if role == "tool":
        return {**ours, "name": message.get("name") or "tool", "content": _plain(content)}
    if thinking := message.get("reasoning_content") or message.get("reasoning"):
        ours["thinking"] = thinking
    if refusal := message.get("refusal"):
        ours["refusal"] = refusal
    if calls := message.get("tool_calls"):
        functions = []
        for call in calls:
            try:
                arguments = parse_json(call["function"]["arguments"] or "{}")
            except ValueError:
                return None
            if not isinstance(arguments, dict):
                return None
            functions.append({"name": str(call["function"]["name"]), "arguments": arguments})
        if not content:
            del ours["content"]
        ours["tool_calls"] = [{"type": "function", "function": function} for function in functions]
    return ours


def text_of(content: Any) -> str:
    """The text of a message of the protocol, which may come in parts; what is no text is left out."""
    if isinstance(content, str):
        return content
    return "".join(part[part["type"]] for part in content or () if part["type"] in READABLE_PARTS)


def one_call_a_turn(conversation: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A client's conversation as a policy here knows it: each tool call a turn of its own, its result behind it.

    Text beside a call, which no policy here writes, is left out. ValueError when a call's arguments are no JSON object.
    """
    messages: list[Message] = []
    for position, message in enumerate(conversation):
        if message["role"] == "tool":
            continue
        ours = from_openai(message)
        if ours is None:
            raise ValueError("the arguments of a tool call in `messages` are no JSON object")
        calls = ours.get("tool_calls")
        if not calls:
            messages.append(ours)
            continue
        ours.pop("content", None)
        # ids may be used again later on: the results of these calls follow right behind them
        behind = takewhile(lambda one: one["role"] == "tool", conversation[position + 1 :])
        results = {one.get("tool_call_id"): one for one in behind}
        for call, said in zip(calls, message["tool_calls"], strict=True):
            messages.append({**ours, "tool_calls": [call]})
            if result := results.get(said.get("id")):
                answer = from_openai({**result, "name": call["function"]["name"]})
                messages += [answer] if answer else []
    return messages


def _plain(content: str) -> Any:
    """A tool's result as the object it is: the template encodes it, and text would be encoded twice."""
    try:
        return parse_json(content)
    except ValueError:
        return content
