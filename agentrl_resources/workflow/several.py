"""Several environments as one, as TRL takes them: `{name: factory}`, and a column `environment` that says which one a
task is of.

The agent is shown the tools of all of them; those of another environment than the task's answer with an error.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.given_tools import given_tools
from agentrl_resources.workflow.tool_thread import settled
from agentrl_resources.workflow.tools import environment_class, tool_names


def several(environments: Mapping[str, Callable[[], Any]], target: str) -> type:
    """A class of environment that becomes, as it is reset, the one that its row names.

    Raises:
        AgentRLError: there is none; one has no `reset` or `get_reward`; two have different tools of one name.
    """
    kinds = {name: _kind(made, name, target) for name, made in environments.items()}
    if not kinds:
        raise AgentRLError(f"workflow `{target}` is empty. It is environments by name: {{name: class}}.")
    tools: dict[str, tuple[str, Callable[..., Any]]] = {}
    for name, kind in kinds.items():
        for tool in tool_names(kind):
            method = getattr(kind, tool)
            other, same = tools.setdefault(tool, (name, method))
            if _described(same) != _described(method):
                raise AgentRLError(
                    f"workflow `{target}`: two tools of one name: `{tool}` of {other} and of {name} differ. Rename "
                    "one: the agent is shown both."
                )
    members: dict[str, Any] = {tool: _of_the_chosen(tool, method) for tool, (_, method) in tools.items()}
    members |= {"_environments": dict(environments), "_kinds": kinds, "__doc__": _instructions(kinds)}
    if all(callable(getattr(kind, "get_violation", None)) for kind in kinds.values()):
        members["get_violation"] = lambda self: settled(self._chosen.get_violation())
    if any(callable(getattr(kind, "user_reply", None)) for kind in kinds.values()):
        members["user_reply"] = _user_reply
    for flag in ("simulated", "judges_traffic"):  # what is true of one is said of all, or only of all together
        some = any if flag == "simulated" else all
        members[flag] = some(getattr(kind, flag, False) for kind in kinds.values())
    return type("Environments", (_Several,), members)


class _Several:
    _environments: Mapping[str, Callable[[], Any]]
    _kinds: Mapping[str, type]

    def reset(self, environment: str, **row: Any) -> Any:
        self._chosen = self._environments[environment]()
        if "environment" in inspect.signature(self._chosen.reset).parameters:
            row["environment"] = environment
        return settled(self._chosen.reset(**row))

    def get_reward(self, transcript: Any) -> Any:
        takes = inspect.signature(self._chosen.get_reward).parameters
        return settled(self._chosen.get_reward(transcript) if takes else self._chosen.get_reward())

    @classmethod
    def takes_of(cls, row: Any) -> Mapping[str, inspect.Parameter]:
        """What a row may hold. ValueError where it names no environment."""
        named = row.get("environment") if isinstance(row, dict) else None
        if not isinstance(named, str) or named not in cls._kinds:
            raise ValueError(f"`environment` is {named!r}. Environments are: {', '.join(cls._kinds)}")
        takes = inspect.signature(cls._kinds[named].reset).parameters  # type: ignore[attr-defined]
        return {**takes, "environment": inspect.signature(cls.reset).parameters["environment"]}


def _kind(made: Any, name: str, target: str) -> type:
    if not callable(made):
        raise AgentRLError(f"workflow `{target}`: `{name}` is {type(made).__name__}. Name a class, or what makes one.")
    kind = environment_class(made)
    for wanted in ("reset", "get_reward"):
        if not callable(getattr(kind, wanted, None)):
            raise AgentRLError(f"workflow `{target}`: `{name}` ({kind.__name__}) has no `{wanted}`.")
    if given_tools(kind) is not None:
        raise AgentRLError(
            f"workflow `{target}`: `{name}` lists its tools; among several environments tools are methods. Make it a "
            "workflow of its own."
        )
    return kind


def _described(method: Callable[..., Any]) -> tuple[str, str | None]:
    return str(inspect.signature(method)), inspect.getdoc(method)


def _of_the_chosen(tool: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        own = getattr(self._chosen, tool, None)
        if own is None:
            raise ValueError(f"there is no {tool} here")
        return own(*args, **kwargs)

    return call


def _user_reply(self: Any, text: str) -> Any:
    reply = getattr(self._chosen, "user_reply", None)
    return None if reply is None else settled(reply(text))


def _instructions(kinds: Mapping[str, type]) -> str | None:
    said = [text for kind in kinds.values() if (text := kind.__doc__ and inspect.getdoc(kind))]
    return "\n\n".join(dict.fromkeys(said)) or None
