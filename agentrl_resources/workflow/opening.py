"""How an episode opens, as in TRL: the payload's prompt with what `reset` returned behind it."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentrl_resources.errors import AgentRLError

_ROLES = ("user", "assistant", "tool")


def opening(prompt: Any, said: Any) -> list[dict[str, Any]]:
    """The messages that an agent reads after the workflow's instructions.

    What `reset` said is appended to the last user message as it stands. It is left out when it only repeats that
    message, as an environment does that returns the prompt it was given. Instructions of the prompt's own go in front
    of its first user message, since every policy has the workflow's as its own.

    Args:
        prompt: text, chat messages, or None.
        said: text, text parts, or None.

    Raises:
        AgentRLError: neither holds anything for an agent to read, or one is something else.
    """
    messages = _messages(prompt)
    text = _text(said, "reset() returned")
    last = next((one for one in reversed(messages) if one["role"] == "user"), None)
    if last is None or messages[-1] is not last:
        messages += [{"role": "user", "content": text}] if text else []
    elif text.strip() != last["content"].strip():
        last["content"] += text
    if not any(one["role"] == "user" and one["content"].strip() for one in messages):
        raise AgentRLError("reset() returned no text, and the payload has no `prompt` that is text")
    return messages


def _messages(prompt: Any) -> list[dict[str, Any]]:
    if prompt is None or isinstance(prompt, str):
        return [{"role": "user", "content": prompt}] if prompt else []
    if not isinstance(prompt, Sequence) or not all(isinstance(one, Mapping) for one in prompt):
        raise AgentRLError(f"`prompt` is {type(prompt).__name__}; it must be text or a list of chat messages")
    messages: list[dict[str, Any]] = []
    instructions: list[str] = []
    for one in prompt:
        role = one.get("role")
        content = _text(one.get("content"), f"the {role} message of `prompt` is")
        if role in ("system", "developer"):
            instructions.append(content)
        elif role not in _ROLES:
            raise AgentRLError(f"`prompt` has a message with role {role!r}; roles are system, {', '.join(_ROLES)}")
        elif role == "tool":
            messages.append({"name": _called(messages), **one, "content": content})
        elif one.get("tool_calls"):
            messages.append(
                {**one, "content": content} if content else {k: v for k, v in one.items() if k != "content"}
            )
        else:
            messages.append({**{k: v for k, v in one.items() if k != "tool_calls"}, "content": content})
    if instructions:
        first = next((one for one in messages if one["role"] == "user"), None)
        if first is None:
            messages.insert(0, first := {"role": "user", "content": ""})
        first["content"] = "\n\n".join([*instructions, first["content"]]).rstrip()
    return messages


def _called(messages: Sequence[Mapping[str, Any]]) -> str:
    """The tool that a result without a name is of: the one that was called last."""
    calls = [call for one in messages for call in one.get("tool_calls") or ()]
    return calls[-1]["function"]["name"] if calls else "tool"


def _text(content: Any, what: str) -> str:
    """The text of a message's content: text, parts of text, or nothing."""
    if content is None or isinstance(content, str):
        return str(content or "")
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        kinds = {part.get("type", "text") for part in content} - {"text"}
        if not kinds:
            return "".join(str(part.get("text") or "") for part in content)
        raise AgentRLError(f"{what} parts of type {', '.join(sorted(map(str, kinds)))}; only text is read")
    raise AgentRLError(f"{what} {type(content).__name__}; it must be text, text parts or None")
