"""The tool policy, and the sandbox that holds the agent to it.

A refused or failed call is a counted tool error that the agent sees as an observation; nothing here ever raises out of
an episode.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SideEffect = Literal["read", "ask", "write", "hand_over"]
"""What a tool does to the world: nothing, disturbs the customer, changes an order, or calls in a human."""


@dataclass(frozen=True)
class ToolRule:
    """What one allowed tool may do. `limits` bounds numeric arguments: name -> largest value allowed."""

    side_effect: SideEffect
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolPolicy:
    """The allow-list with its rules, and the budgets of one episode (calls, sampled tokens, seconds)."""

    rules: Mapping[str, ToolRule]
    max_calls: int = 8
    max_tokens: int = 256
    max_seconds: float = 120.0

    @property
    def acting_tools(self) -> frozenset[str]:
        """The tools that change something or hand the case to a human."""
        return frozenset(name for name, rule in self.rules.items() if rule.side_effect in ("write", "hand_over"))


@dataclass(frozen=True)
class ToolCall:
    """One attempted call: exactly one of `result` and `error` is not None. `ms`: milliseconds it took."""

    name: str
    arguments: Any
    result: Any
    error: str | None
    ms: float

    @property
    def observation(self) -> Any:
        """What the agent sees."""
        return self.result if self.error is None else {"error": self.error}

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "arguments": self.arguments,
            "result": self.result,
            "error": self.error,
            "ms": self.ms,
        }


def tool_methods(environment: type) -> dict[str, Callable[..., Any]]:
    """The tools of an environment class by TRL's convention: its public methods but `reset` and `get_reward`."""
    import inspect

    methods = inspect.getmembers(environment, predicate=inspect.isfunction)
    return {name: method for name, method in methods if name[0] != "_" and name not in ("reset", "get_reward")}


def tool_schemas(environment: type) -> list[dict[str, Any]]:
    """OpenAI function schemas of an environment's tools, read from signatures and Google-style docstrings."""
    from transformers.utils import get_json_schema

    schemas = []
    for method in tool_methods(environment).values():
        schema = get_json_schema(method)
        schema["function"].pop("return", None)
        schema["function"]["parameters"]["additionalProperties"] = False
        schemas.append(schema)
    return schemas


class Sandbox:
    """Stands between the agent and one environment instance for one episode."""

    def __init__(self, environment: Any, policy: ToolPolicy, validators: Mapping[str, Any]) -> None:
        self._environment = environment
        self._policy = policy
        self._validators = validators
        self._calls = 0
        self._started = time.perf_counter()
        self.side_effects_begun = False
        """Whether a call that may change something outside has been let through, whatever became of it."""

    def call(self, name: str, arguments: Any) -> ToolCall:
        """Runs one call if the policy allows it."""
        started = time.perf_counter()
        self._calls += 1
        error = self.refusal(name, arguments)
        result = None
        if error is None:
            self.side_effects_begun |= name in self._policy.acting_tools
            try:
                result = getattr(self._environment, name)(**arguments)
            except Exception as failure:  # a tool may fail in any way: the agent sees it, the episode goes on
                error = str(failure) or type(failure).__name__
        return ToolCall(name, arguments, result, error, (time.perf_counter() - started) * 1000)

    def refusal(self, name: str, arguments: Any) -> str | None:
        """Why the policy refuses this call, or None."""
        if name not in self._policy.rules:
            return f"unknown tool {name}"
        if self._calls > self._policy.max_calls:
            return "call budget spent"
        if time.perf_counter() - self._started > self._policy.max_seconds:
            return "time budget spent"
        mistake = next(self._validators[name].iter_errors(arguments), None)
        if mistake is not None:
            return "invalid arguments"
        for argument, limit in self._policy.rules[name].limits.items():
            if arguments.get(argument, limit) > limit:
                return f"{argument} above the limit"
        return None


def argument_validators(environment: type) -> dict[str, Any]:
    """Compiled JSON-schema validators of the tools' arguments, by tool name; build once, use in every episode."""
    from jsonschema import Draft202012Validator

    return {
        schema["function"]["name"]: Draft202012Validator(schema["function"]["parameters"])
        for schema in tool_schemas(environment)
    }
