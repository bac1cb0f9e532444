"""The tools of an environment, by TRL's convention: which there are, what the model is told of them, and how their
arguments are checked and handed over."""

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.given_tools import GivenTool, Schema, given_tools, inlined

_CONVENTION = ("reset", "get_reward", "get_violation", "user_reply")
_NO_KEYWORD = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ArgumentsError(Exception):
    """Arguments that a tool's annotations do not allow."""


@dataclass(frozen=True)
class _Argument:
    """One parameter of a tool. `shown` is what the model is told of it.

    `adapter` makes what TRL has no schema for (a dataclass, a date, ...) of JSON; None where JSON is passed as it is.
    """

    parameter: inspect.Parameter
    shown: Schema
    adapter: Any = None

    def of(self, value: Any) -> Any:
        """The valid JSON value as the tool takes it. ArgumentsError when its class refuses it."""
        if self.parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(map(self._one, value))
        return None if value is None and self.parameter.default is None else self._one(value)

    def _one(self, value: Any) -> Any:
        value = _whole(value, self.shown)
        if self.adapter is None:
            return value
        try:
            return self.adapter.validate_json(json.dumps(value), strict=True)
        except Exception as error:  # a class may refuse in any way
            raise ArgumentsError from error


@dataclass(frozen=True)
class Tool:
    """One tool. `schema` is OpenAI's function schema of it."""

    name: str
    schema: Schema
    signature: inspect.Signature = field(repr=False)
    named: Mapping[str, _Argument] = field(repr=False)
    rest: _Argument | None = field(repr=False)
    """Of what `**` takes."""
    validator: Any = field(repr=False)

    def allows(self, arguments: Any) -> bool:
        """Whether these are valid arguments by the tool's annotations."""
        return next(self.validator.iter_errors(arguments), None) is None

    def takes(self, argument: str) -> bool:
        """Whether it has an argument of this name."""
        return argument in self.named or self.rest is not None

    def call(self, environment: Any, arguments: Mapping[str, Any]) -> Callable[[], Any]:
        """What calls the tool with these valid arguments. ArgumentsError when an annotation's class refuses one."""
        method = getattr(environment, self.name)
        given = {name: self.named[name].of(value) for name, value in arguments.items() if name in self.named}
        if self.rest is not None:
            more = {name: self.rest.of(value) for name, value in arguments.items() if name not in self.named}
        if all(one.kind not in _NO_KEYWORD for one in self.signature.parameters.values()):
            return lambda: method(**given)
        bound = inspect.BoundArguments(self.signature, OrderedDict())
        for name, one in self.signature.parameters.items():
            if one.kind is one.VAR_KEYWORD:
                bound.arguments[name] = more
            elif name in given:
                bound.arguments[name] = given[name]
        bound.apply_defaults()
        return lambda: method(*bound.args, **bound.kwargs)


def environment_class(environment: Any) -> type:
    """The class of what an environment factory makes; like TRL, one is made to find out when it is no class itself."""
    return environment if inspect.isclass(environment) else type(environment())


def tool_methods(environment: Any, names: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """The methods of the named tools, in alphabetical order.

    TRL's tools are an environment's public methods but `reset` and `get_reward`, inherited and static ones too; here
    `get_violation` and `user_reply` are none either. Those that the tool policy does not name are not offered.

    Raises:
        AgentRLError: what is named is no such method, or cannot be described to a model; all of it at once.
    """
    kind = environment_class(environment)
    methods = dict(inspect.getmembers(kind, predicate=inspect.isfunction))
    wanted, there = sorted(names), _public(methods)
    wrong = _missing(kind, wanted, there)
    wrong += [f"tool `{name}`: {one}" for name in wanted if name in there for one in _lacks(methods[name])]
    if wrong:
        raise AgentRLError("\n".join(wrong))
    return {name: methods[name] for name in wanted}


def _missing(kind: type, wanted: Iterable[str], there: Collection[str]) -> list[str]:
    wrong = [
        f"`{name}` is no tool of {kind.__name__}: it must be a public method (not reset, get_reward, a property, a "
        f"class method or an attribute). Tools are: {', '.join(there) or 'none'}."
        for name in wanted
        if name not in there
    ]
    if not callable(getattr(kind, "reset", None)):
        wrong.insert(0, f"{kind.__name__} has no method `reset`. It takes a task's payload and returns text or None.")
    return wrong


def arguments_of(environment: Any, names: Iterable[str]) -> dict[str, Callable[[str], bool]]:
    """Of each named tool, what says whether it has an argument of a name. AgentRLError as `tool_methods`."""
    if (given := _given(environment, names)) is not None:
        return {name: tool.takes for name, tool in given.items()}
    found: dict[str, Callable[[str], bool]] = {}
    for name, method in tool_methods(environment, names).items():
        parameters = inspect.signature(method).parameters
        anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        found[name] = (lambda _: True) if anything else parameters.__contains__
    return found


def _given(environment: Any, names: Iterable[str]) -> dict[str, GivenTool] | None:
    """Those named, of an environment whose tools bring their schemas along; None of another. AgentRLError where one is
    not there."""
    kind = environment_class(environment)
    if (given := given_tools(kind)) is None:
        return None
    wanted = sorted(names)
    if wrong := _missing(kind, wanted, given):
        raise AgentRLError("\n".join(wrong))
    return {name: given[name] for name in wanted}


def read_tools(environment: Any, names: Iterable[str]) -> "Mapping[str, Tool | GivenTool]":
    """The named tools of an environment by name: read from signatures and Google-style docstrings, or as it gives them.

    Raises:
        AgentRLError: as `tool_methods`; a parameter has no description, or a type hint that no schema can be made of.
    """
    names = list(names)
    if (given := _given(environment, names)) is not None:
        return given
    kind, tools = environment_class(environment), {}
    wrong: list[str] = []
    for name, method in tool_methods(kind, names).items():
        try:
            static = isinstance(inspect.getattr_static(kind, name), staticmethod)
            tools[name] = _read(name, method, static)
        except AgentRLError as error:
            wrong.append(str(error))
    if wrong:
        raise AgentRLError("\n".join(wrong))
    return tools


def tool_names(environment: Any) -> list[str]:
    """The names of all tools that an environment has, in alphabetical order."""
    kind = environment_class(environment)
    given = given_tools(kind)
    return _public(dict(inspect.getmembers(kind, predicate=inspect.isfunction))) if given is None else list(given)


def tool_schemas(environment: Any) -> list[Schema]:
    """OpenAI's function schemas of all the tools that an environment has, whatever a policy allows.

    Raises:
        AgentRLError: as `read_tools`.
    """
    return [tool.schema for tool in read_tools(environment, tool_names(environment)).values()]


def _public(methods: Mapping[str, Any]) -> list[str]:
    return [name for name in methods if name[0] != "_" and name not in _CONVENTION]


def _lacks(method: Callable[..., Any]) -> list[str]:
    """What TRL cannot do without: a docstring, and a type hint for each parameter."""
    lacking = [] if inspect.getdoc(method) else ["it has no docstring. Say in one what it does, and each argument."]
    parameters = list(inspect.signature(method).parameters.values())
    bare = [one.name for one in parameters[1:] if one.annotation is one.empty]  # the first may be `self`
    return lacking + [f"argument `{name}` has no type hint. Add one, for example `{name}: str`." for name in bare]


def _read(name: str, method: Callable[..., Any], static: bool) -> Tool:
    from typing import get_type_hints

    from jsonschema import Draft202012Validator
    from transformers.utils.chat_template_utils import parse_google_format_docstring

    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[0 if static else 1 :]
    try:
        hints = get_type_hints(method)
    except Exception as error:  # an annotation is any expression
        raise AgentRLError(f"tool `{name}`: its type hints cannot be read ({error}).") from error
    described, texts, _ = parse_google_format_docstring((inspect.getdoc(method) or "").strip())
    arguments, wrong = {}, []
    for one in parameters:
        text = (texts or {}).get(one.name)
        if text is None and one.kind is not one.VAR_KEYWORD:
            wrong.append(f"argument `{one.name}` has no description. Add `{one.name}: ...` below `Args:`.")
        elif one.name not in hints:
            wrong.append(f"argument `{one.name}` has no type hint. Add one, for example `{one.name}: str`.")
        else:
            try:
                shown, adapter = _described(hints[one.name], text or "")
                arguments[one.name] = _Argument(one, shown, adapter)
            except Exception as error:  # two libraries, and a class's own code
                said = (str(error).strip() or type(error).__name__).splitlines()[0]
                wrong.append(f"argument `{one.name}`: no schema can be made of {hints[one.name]!r} ({said}).")
    if wrong:
        raise AgentRLError("\n".join(f"tool `{name}`: {one}" for one in wrong))
    rest = next((arguments.pop(one.name) for one in parameters if one.kind is one.VAR_KEYWORD), None)
    function = {"name": name, "description": described, "parameters": _object(arguments, rest, _as_shown)}
    schema = {"type": "function", "function": function}
    validator = Draft202012Validator(_object(arguments, rest, _as_checked))
    return Tool(name, schema, signature.replace(parameters=parameters), arguments, rest, validator)


def _described(hint: Any, text: str) -> tuple[Schema, Any]:
    """The schema of one parameter, and what makes its value of JSON: TRL's where it has one, else pydantic's."""
    from jsonschema import Draft202012Validator
    from transformers.utils import get_json_schema
    from transformers.utils.chat_template_utils import TypeHintParsingException

    def tool(value): ...  # type: ignore[no-untyped-def]

    tool.__annotations__ = {"value": hint}
    tool.__doc__ = f"Of one value.\n\nArgs:\n    value: {text or '...'}\n"
    try:
        shown = get_json_schema(tool)["function"]["parameters"]["properties"]["value"]
        Draft202012Validator.check_schema(shown)
        return shown | {"description": shown["description"] if text else ""}, None
    except TypeHintParsingException:
        from pydantic import TypeAdapter

        adapter = TypeAdapter(_readable(hint))
        schema = adapter.json_schema()
        whole = inlined(schema, schema.pop("$defs", {}))
        return whole | {"description": text or whole.get("description", "")}, adapter


def _readable(hint: Any) -> Any:
    """The hint with every `typing.TypedDict` in it as the one of typing_extensions, which pydantic wants."""
    import typing

    import typing_extensions

    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        needed = {name: name in hint.__required_keys__ for name in hint.__annotations__}
        fields = {name: _readable(one) for name, one in typing.get_type_hints(hint).items()}
        marked = {name: one if needed[name] else typing_extensions.NotRequired[one] for name, one in fields.items()}
        return typing_extensions.TypedDict(hint.__name__, marked)  # type: ignore[operator]
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal or not inside:
        return hint
    inside = tuple(map(_readable, inside))
    return typing.Union[inside] if origin in (typing.Union, UnionType) else origin[inside]  # noqa: UP007


def _object(named: Mapping[str, _Argument], rest: _Argument | None, of: Callable[[_Argument], Schema]) -> Schema:
    """A schema of all arguments. Only what has a default may be left out; what else there may be is `rest`."""
    needed = [
        name
        for name, one in named.items()
        if one.parameter.default is one.parameter.empty and one.parameter.kind is not one.parameter.VAR_POSITIONAL
    ]
    return {
        "type": "object",
        "properties": {name: of(one) for name, one in named.items()},
        **({"required": needed} if needed else {}),
        "additionalProperties": of(rest) if rest else False,
    }


def _as_shown(argument: _Argument) -> Schema:
    if argument.parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        items = {name: one for name, one in argument.shown.items() if name != "description"}
        return {"type": "array", "items": items, "description": argument.shown["description"]}
    return argument.shown


def _as_checked(argument: _Argument) -> Schema:
    """The schema as a validator understands it. A default of None allows null, whatever the annotation says."""
    if argument.adapter is not None:  # which checks by itself
        return {"type": "array"} if argument.parameter.kind is inspect.Parameter.VAR_POSITIONAL else {}
    schema: Schema = _strict(_as_shown(argument))
    return {"anyOf": [schema, {"type": "null"}]} if argument.parameter.default is None else schema


def _strict(schema: Any) -> Any:
    """`nullable`, which OpenAPI has and JSON Schema has not, spelled out; and a tuple is as long as it says."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(one) if name not in ("enum", "const", "default") else one for name, one in schema.items()}
    if "prefixItems" in strict:
        strict = {"items": False, "minItems": len(strict["prefixItems"]), **strict}
    if strict.pop("nullable", False) is True:
        return {"anyOf": [strict, {"type": "null"}]}
    return strict


def _whole(value: Any, schema: Any) -> Any:
    """A copy of a valid value in which 5.0 is 5 wherever only a whole number is allowed: to JSON they are one number,
    to Python they are not."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, float):
        kinds = schema.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return int(value) if "integer" in kinds and "number" not in kinds and value.is_integer() else value
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        return [_whole(one, first[i] if i < len(first) else schema.get("items")) for i, one in enumerate(value)]
    if isinstance(value, dict):
        named = schema.get("properties", {})
        return {name: _whole(one, named.get(name, schema.get("additionalProperties"))) for name, one in value.items()}
    return value
