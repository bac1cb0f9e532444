"""The tools of an agent that ran elsewhere: as they were recorded, or as far as its calls show them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

_PARAMETERS = ("parameters", "input_schema", "inputSchema", "args_schema")
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"),
)  # fmt: skip


@dataclass(frozen=True)
class Tools:
    """OpenAI's function schemas, by name, and the names of those that are only known by their calls."""

    schemas: list[Schema]
    derived: tuple[str, ...]


def tools_of(traces: Iterable[Mapping[str, Any]]) -> Tools:
    """The tools in traces of run records: of each the schema that was recorded last, else one made of all its calls.

    What is made of calls says which arguments were given, of which JSON types, and requires those that every call had;
    what else a tool takes, and what its arguments mean, calls do not show.
    """
    recorded: dict[str, Schema] = {}
    calls: dict[str, list[Mapping[str, Any]]] = {}
    for trace in traces:
        recorded |= {
            schema["function"]["name"]: schema for schema in map(_recorded, trace.get("tools") or ()) if schema
        }
        for call in trace.get("tool_calls") or ():
            if isinstance(call["arguments"], Mapping) or call["arguments"] in (None, ""):
                calls.setdefault(call["name"], []).append(call["arguments"] or {})
    derived = tuple(sorted(calls.keys() - recorded.keys()))
    found = recorded | {name: _derived(name, calls[name]) for name in derived}
    return Tools([found[name] for name in sorted(found)], derived)


def _recorded(tool: Any) -> Schema | None:
    """OpenAI's form of a recorded schema (OpenAI's own, Anthropic's, MCP's); None where it names no function."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    parameters: Mapping[str, Any] = next(
        (function[key] for key in _PARAMETERS if isinstance(function.get(key), Mapping)), {}
    )
    return _schema(function["name"], str(function.get("description") or ""), dict(parameters))


def _derived(name: str, calls: list[Mapping[str, Any]]) -> Schema:
    given = sorted({argument for arguments in calls for argument in arguments})
    properties = {
        argument: {"description": "", **_type_of([arguments[argument] for arguments in calls if argument in arguments])}
        for argument in given
    }
    required = [argument for argument in given if all(argument in arguments for arguments in calls)]
    return _schema(name, f"As {len(calls)} recorded calls show it.", {"properties": properties, "required": required})


def _schema(name: str, description: str, parameters: Schema) -> Schema:
    parameters = {"type": "object", "properties": {}, **parameters}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _type_of(values: list[Any]) -> Schema:
    """The JSON type of values that all have one; nothing is said of others."""
    kinds = {next((name for kind, name in _TYPES if isinstance(value, kind)), "null") for value in values}
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if len(kinds) != 1:
        return {}
    (kind,) = kinds
    if kind == "array":
        return {"type": kind, "items": _type_of([item for value in values for item in value])}
    return {"type": kind}
