"""Whether an answer keeps to what was asked: a server may pass over a field that it does not know, and say nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from agentrl_resources.gateway.backends import Sampling, Turn
from agentrl_resources.strict_json import parse_json

_HOLDS_THE_PROCESS = ("pattern", "patternProperties", "format")
"""Keywords of a schema that are not looked at: a regular expression of a client's could match for hours."""


def unheeded(
    turn: Turn, sampling: Sampling, tools: Sequence[Mapping[str, Any]], withheld: Collection[str] = ()
) -> tuple[str, str] | None:
    """The field that an answer passes over and what it does in its place; None when it keeps to all of them.

    `tools` are those that the policy was offered, `withheld` names others that it may not call. What a token limit cut
    off says so by itself.
    """
    return next(_broken(turn, sampling, tools, withheld), None) if turn.ended else None


def _broken(
    turn: Turn, sampling: Sampling, tools: Sequence[Mapping[str, Any]], withheld: Collection[str]
) -> Iterator[tuple[str, str]]:
    message = turn.message or {}
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    choice = sampling.tool_choice
    if calls and not tools:
        yield "tools", "the policy called a tool, and was given none"
    if any(call["name"] in withheld for call in calls):
        yield "tool_choice", "the policy called a tool that is not allowed"
    if calls and choice == "none":
        yield "tool_choice", "the policy called a tool all the same"
    if choice not in (None, "none") and not calls:
        yield "tool_choice", "the policy called no tool"
    if isinstance(choice, Mapping) and {call["name"] for call in calls} - {choice["function"]["name"]}:
        yield "tool_choice", "the policy called another tool"
    if len(calls) > 1 and sampling.parallel_tool_calls is False:
        yield "parallel_tool_calls", "the policy made several calls at once"
    strict = {tool["function"]["name"]: tool["function"] for tool in tools if tool["function"].get("strict")}
    for call in calls:
        if call["name"] in strict and not _fits(call["arguments"], strict[call["name"]].get("parameters") or {}):
            yield "tools", f"the arguments of a call are not what the strict function {call['name']} takes"
    if sampling.logprobs and turn.logprobs is None:
        yield "logprobs", "the policy's server gives none"
    if sampling.response_format and turn.message is None:
        yield "response_format", "the policy's answer cannot be read"
    if sampling.response_format and not calls and not message.get("refusal"):
        yield from _misshaped(message.get("content") or "", sampling.response_format)


def _misshaped(content: str, wanted: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    try:
        value = parse_json(content)
    except ValueError:
        yield "response_format", "the policy's answer is no JSON"
        return
    if wanted["type"] == "json_object":
        if not isinstance(value, dict):
            yield "response_format", "the policy's answer is no JSON object"
    elif wanted["json_schema"].get("strict") and not _fits(value, wanted["json_schema"].get("schema") or {}):
        yield "response_format", "the policy's answer is not what the schema says"


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is valid. A schema that cannot be applied (no valid one, or one that refers elsewhere) fits all:
    whoever was sent it had to say so."""
    from jsonschema.exceptions import ValidationError

    try:
        if _stays_inside(schema):
            _validator()(schema).validate(value)
    except ValidationError:
        return False
    except Exception:  # whatever a schema that is none makes the library raise
        return True
    return True


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator as Draft
    from jsonschema.validators import create

    looked_at = {name: check for name, check in Draft.VALIDATORS.items() if name not in _HOLDS_THE_PROCESS}
    return create(Draft.META_SCHEMA, looked_at, type_checker=Draft.TYPE_CHECKER)


def _stays_inside(schema: Any) -> bool:
    """Whether a schema refers to itself only: the library would fetch what it refers to."""
    if isinstance(schema, Mapping):
        refers = (schema.get(name, "#") for name in ("$ref", "$dynamicRef"))
        own = all(not isinstance(place, str) or place.startswith("#") for place in refers)
        return own and all(_stays_inside(part) for part in schema.values())
    return all(map(_stays_inside, schema)) if isinstance(schema, list) else True
