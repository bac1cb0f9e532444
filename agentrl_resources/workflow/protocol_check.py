"""Whether an object is a workflow: asked when it is loaded, so that no stage finds out in the middle of its work."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.base import Prices, Workflow
from agentrl_resources.workflow.rubric import Rubric
from agentrl_resources.workflow.sandbox import ToolPolicy, ToolRule
from agentrl_resources.workflow.tools import arguments_of

_VALUES: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "text, the workflow's name"),
    "instructions": (str, "text, what the agent is told of its work"),
    "tool_policy": (ToolPolicy, "a ToolPolicy, which names the tools that the agent may use"),
    "rubric": (Rubric, "a Rubric, for example `load_rubric(path)`"),
    "prices": (Prices, "Prices, for example `Prices()`"),
    # these may name tools of an agent that runs elsewhere, whose traces are imported
    "hand_over_tools": (Collection, "a frozenset of names of tools, which may be empty"),
    "clarifying_tools": (Collection, "a frozenset of names of tools, which may be empty"),
    "judges_traffic": (bool, "True or False: whether a run of real traffic can be judged as it ends"),
}
_METHODS = ("tasks", "verify", "scripted_agents", "historical_pairs", "prefer")


def check_workflow(workflow: Any, target: str) -> None:
    """Raises an AgentRLError that names every member which is missing or wrong, and what it should be.

    What can only be read with heavy libraries (descriptions and schemas of tools) is left to `EpisodeFactory`.
    """
    wrong = [_value(workflow, name, *wanted) for name, wanted in _VALUES.items()]
    wrong.append(_environment(workflow))
    wrong += [_method(workflow, name) for name in _METHODS]
    if not any(wrong):  # only then is there something to look into
        wrong += _policy(workflow)
    if any(wrong):
        lines = "\n".join(f"  {one}" for one in wrong if one)
        raise AgentRLError(f"workflow `{target}` is not complete (see agentrl_resources.workflow.Workflow):\n{lines}")


def _value(workflow: Any, name: str, kind: Any, what: str) -> str | None:
    if not hasattr(type(workflow), name) and not hasattr(workflow, name):
        return f"`{name}` is missing. It is {what}."
    try:
        value = getattr(workflow, name)
    except Exception as error:  # a property runs any code
        return f"`{name}` cannot be read ({type(error).__name__}: {error}). It is {what}."
    if inspect.isclass(value):
        return f"`{name}` is the class {value.__name__}, not an instance. It is {what}."
    names = kind is Collection
    if not isinstance(value, kind) or value == "" or (names and not all(isinstance(one, str) for one in value)):
        return f"`{name}` is {_short(value)}. It must be {what}."
    if names and isinstance(value, str | Mapping):
        return f"`{name}` is {_short(value)}. It must be {what}."
    return None


def _environment(workflow: Any) -> str | None:
    what = "the environment class (TRL's convention: no arguments, `reset`, tools as public methods)"
    there = hasattr(type(workflow), "environment") and not _inherited(workflow, "environment")
    if not there and "environment" not in getattr(workflow, "__dict__", {}):
        return f"`environment` is missing. It is {what}."
    try:
        found = workflow.environment
    except Exception as error:  # a property runs any code
        return f"`environment` cannot be read ({type(error).__name__}: {error}). It is {what}."
    if not callable(found):
        return f"`environment` is {_short(found)}. It must be {what}, not an instance."
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        return f"`environment` cannot be made without arguments ({error}). It is {what}."
    except ValueError:  # a class of C code has no signature
        pass
    return None


def _inherited(workflow: Any, name: str) -> bool:
    """Whether a class that names the protocol as its base has left a member to it, which does nothing."""
    return inspect.getattr_static(type(workflow), name, None) is inspect.getattr_static(Workflow, name)


def _method(workflow: Any, name: str) -> str | None:
    wanted = list(inspect.signature(getattr(Workflow, name)).parameters)[1:]
    shape = f"`{name}({', '.join(wanted)})`"
    method = getattr(workflow, name, None)
    if method is None or _inherited(workflow, name):
        return f"{shape} is missing."
    if not callable(method):
        return f"`{name}` is {_short(method)}. It must be the method {shape}."
    try:
        inspect.signature(method).bind(*wanted)
    except TypeError as error:
        return f"{shape} cannot be called with these arguments ({error})."
    except ValueError:
        pass
    return None


def _policy(workflow: Any) -> list[str]:
    rules = workflow.tool_policy.rules
    wrong = [
        f'`tool_policy` has {_short(rule)} for `{name}`. It must be a ToolRule, for example `ToolRule("read")`.'
        for name, rule in rules.items()
        if not isinstance(rule, ToolRule)
    ]
    takes: Mapping[str, Callable[[str], bool]] = {}
    if inspect.isclass(workflow.environment):  # what makes environments is only asked for one when there is work
        try:
            takes = arguments_of(workflow.environment, rules)
        except AgentRLError as error:
            wrong += [f"`tool_policy`: {line}" for line in str(error).splitlines()]
    if not wrong:
        wrong += [
            f"`tool_policy` limits `{argument}` of `{name}`, which has no such argument."
            for name, takes_it in takes.items()
            for argument in rules[name].limits
            if not takes_it(argument)
        ]
    return wrong


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
