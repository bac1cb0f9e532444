"""What one server does not take of a request, learnt from its refusals, and what it is sent instead.

Fields have the names that most servers know. A server that refuses one is asked once more, without the field or with
its newer name; what then works is remembered. Only what an answer can do without is given up in this way: what
accompanies a request, what the gateway sees to by itself (a stop sequence, one call at a time, strict arguments), a
seed, which is a wish, and a temperature that the server's model does not have. Any other field that is refused is the
client's to change.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from agentrl_resources.gateway.choices import THINKING
from agentrl_resources.gateway.fields import ACCOMPANIES
from agentrl_resources.gateway.server_errors import ServerError

Body = dict[str, Any]

_UNSUPPORTED = re.compile(
    r"unsupported|n[o']t\b[\w ]{0,12}support|not permitted|not allowed|only allowed|only [\d.]+ is allowed|only be set"
    r"|only the default|cannot both|unknown|unrecogni[sz]ed|unexpected|extra_forbidden|extraneous|not a valid field"
    r"|deprecated|no longer"
)
"""How servers say that they do not know a field, as opposed to not liking its value."""
_SHORT_IDS = re.compile(r"tool.?call\w*(\[\d+\])?.?id.{0,200}(length|must be)", re.DOTALL)
_ONLY_STREAMS = re.compile(r"only support\w* stream")
_NEVER_STREAMS = re.compile(r"stream\w*\W? (mode )?(is |does )?n[o']t\b[\w ]{0,12}support|unsupported\W+stream\b")


def adapted(body: Mapping[str, Any], steps: Collection[str]) -> Body:
    """The request as a server takes it that needs these steps."""
    changed = dict(body)
    for name, change in _STEPS.items():
        if name in steps:
            changed = change(changed)
    return changed


def steps_after(refusal: ServerError, body: Mapping[str, Any]) -> set[str]:
    """What to try because of a refusal of this body; empty where the refusal is about something else."""
    said = f"{refusal.param} {refusal.code} {refusal.text}".lower()
    named = {name for name in _STEPS if re.search(rf"(?<!\w){name}(?!\w)", said)}
    unsupported = _UNSUPPORTED.search(said)
    steps = {name for name in named if unsupported or _is_no_word(name, said)}
    steps |= {name for name, words in _BY_WORDS.items() if words.search(said)}
    return {name for name in steps if _STEPS[name](dict(body)) != body}


def _is_no_word(name: str, said: str) -> bool:
    """Whether naming it is enough: it is no word of the language, and has no values that could be wrong."""
    return "_" in name and (name != "max_tokens" or "max_completion_tokens" in said)


def _without(field: str, body: Body) -> Body:
    return {name: value for name, value in body.items() if name != field}


def _renamed(old: str, new: str, body: Body) -> Body:
    return {new if name == old else name: value for name, value in body.items()}


def _without_in_messages(field: str, body: Body) -> Body:
    return {**body, "messages": [_without(field, message) for message in body["messages"]]}


def _not_strict(body: Body) -> Body:
    if not body.get("tools"):
        return body
    return {**body, "tools": [{**tool, "function": _without("strict", tool["function"])} for tool in body["tools"]]}


def _short_ids(body: Body) -> Body:
    """Mistral's templates take ids of nine letters and digits, OpenAI ids of up to 40 characters."""

    def short(call_id: str) -> str:
        return call_id if re.fullmatch("[a-zA-Z0-9]{9}", call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]

    def changed(message: Body) -> Body:
        if calls := message.get("tool_calls"):
            message = {**message, "tool_calls": [{**call, "id": short(call["id"])} for call in calls]}
        if call_id := message.get("tool_call_id"):
            message = {**message, "tool_call_id": short(call_id)}
        return message

    return {**body, "messages": [changed(message) for message in body["messages"]]}


_STEPS: Mapping[str, Callable[[Body], Body]] = {
    "max_tokens": partial(_renamed, "max_tokens", "max_completion_tokens"),  # OpenAI's reasoning models
    "seed": partial(_renamed, "seed", "random_seed"),  # Mistral's name for it
    **{
        field: partial(_without, field)
        for field in (
            "random_seed", "temperature", "stop", "parallel_tool_calls", "stream_options", *sorted(ACCOMPANIES),
        )
    },
    **{field: partial(_without_in_messages, field) for field in (*THINKING, "refusal", "annotations")},
    "strict": _not_strict,
    "short ids": _short_ids,
    "never stream": lambda body: {**_without("stream_options", body), "stream": False},
    "always stream": lambda body: {**body, "stream": True, "stream_options": {"include_usage": True}},
}  # fmt: skip
"""By the name under which a refusal speaks of a field, or our own; in the order in which they are taken."""
_BY_WORDS = {"short ids": _SHORT_IDS, "always stream": _ONLY_STREAMS, "never stream": _NEVER_STREAMS}
