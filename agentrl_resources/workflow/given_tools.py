"""Tools that come with a schema of their own: an environment names them in `tools`, and `call` runs one of them.

For whoever has no method a tool: a client of a server, or a domain that lists its tools. `tools` is a list, or a class
method that gives one; a tool is OpenAI's function schema, with or without its envelope, or as MCP writes it
(`inputSchema`). `call(name, arguments)` returns what the tool returned, or raises what it failed with.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.errors import AgentRLError

Schema = dict[str, Any]


@dataclass(frozen=True)
class GivenTool:
    """One tool. `schema` is OpenAI's function schema of it."""

    name: str
    schema: Schema
    validator: Any = field(repr=False)
    reads: bool | None = None
    """Whether it only reads, where it says so (MCP's `annotations.readOnlyHint`)."""

    def allows(self, arguments: Any) -> bool:
        """Whether these are valid arguments by its schema."""
        return isinstance(arguments, Mapping) and next(self.validator.iter_errors(arguments), None) is None

    def takes(self, argument: str) -> bool:
        """Whether it has an argument of this name."""
        parameters = self.schema["function"]["parameters"]
        return argument in parameters.get("properties", {}) or parameters.get("additionalProperties", True) is not False

    def call(self, environment: Any, arguments: Mapping[str, Any]) -> Callable[[], Any]:
        """What calls the tool with these valid arguments."""
        return lambda: environment.call(self.name, dict(arguments))


def given_tools(kind: type) -> dict[str, GivenTool] | None:
    """The tools that an environment's class names, by name in alphabetical order; None where its methods are its tools.

    Raises:
        AgentRLError: what it names are no tools; all that is wrong with them.
    """
    static = inspect.getattr_static(kind, "tools", None)
    if static is None or inspect.isfunction(static):
        return None
    named = static if not isinstance(static, classmethod | staticmethod) else kind.tools()  # type: ignore[attr-defined]
    if isinstance(named, str | Mapping) or not isinstance(named, Sequence):
        raise AgentRLError(f"{kind.__name__}.tools is {type(named).__name__}. It is a list of function schemas.")
    wrong = [] if callable(getattr(kind, "call", None)) else [f"{kind.__name__} has `tools`, but no `call`: give it "
             "`call(self, name, arguments)`, which runs one of them."]  # fmt: skip
    found: dict[str, GivenTool] = {}
    for number, one in enumerate(named, start=1):
        try:
            tool = _tool(one)
            if tool.name in found:
                raise ValueError(f"there are two tools of the name `{tool.name}`. Give one of them another")
            found[tool.name] = tool
        except ValueError as error:
            wrong.append(f"{kind.__name__}.tools, number {number}: {error}.")
    if wrong:
        raise AgentRLError("\n".join(wrong))
    return dict(sorted(found.items()))


def _tool(one: Any) -> GivenTool:
    """ValueError when it is none."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    function = one.get("function", one) if isinstance(one, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError('it is no function schema: {"name": ..., "description": ..., "parameters": {...}}')
    name, description = function["name"], function.get("description")
    if not isinstance(description, str) or not description.strip():
        raise ValueError(f"tool `{name}` has no description. Say in it what the tool does")
    parameters = function.get("parameters", function.get("inputSchema")) or {}
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        raise ValueError(f"the parameters of tool `{name}` are no JSON schema: {error.message}") from None
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        raise ValueError(f'the parameters of tool `{name}` must be of type "object"')
    try:
        shown = inlined(dict(parameters), parameters.get("$defs", {}))
    except (KeyError, ValueError) as error:
        raise ValueError(f"the parameters of tool `{name}` refer to what is not there, or to themselves") from error
    shown = {"type": "object", "properties": {}, **{key: value for key, value in shown.items() if key != "$defs"}}
    schema = {"type": "function", "function": {"name": name, "description": description.strip(), "parameters": shown}}
    hints = function.get("annotations")
    reads = hints.get("readOnlyHint") if isinstance(hints, Mapping) else None
    return GivenTool(name, schema, Draft202012Validator(shown), reads if isinstance(reads, bool) else None)


def inlined(schema: Any, definitions: Mapping[str, Any], around: tuple[str, ...] = ()) -> Any:
    """The schema without references: a model reads it from beginning to end. ValueError where it holds itself."""
    if isinstance(schema, list):
        return [inlined(one, definitions, around) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.rpartition("/")[2]
        if name in around:
            raise ValueError("it holds itself")
        more = {key: one for key, one in schema.items() if key != "$ref"}
        return inlined(definitions[name], definitions, (*around, name)) | more
    return {key: inlined(one, definitions, around) for key, one in schema.items()}
