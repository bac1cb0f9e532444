"""The tool policy, and the sandbox that holds the agent to it.

A refused or failed call is a counted tool error that the agent sees as an observation; nothing here ever raises out of
an episode.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentrl_resources.workflow.given_tools import GivenTool
from agentrl_resources.workflow.results import NoTextError, clean, snapshot
from agentrl_resources.workflow.tool_thread import CutError, ToolThread, relayed, settled, text_of_error
from agentrl_resources.workflow.tools import ArgumentsError, Tool

SideEffect = Literal["read", "ask", "write", "hand_over"]
"""What a tool does to the world: nothing, disturbs the customer, changes an order, or calls in a human."""


@dataclass(frozen=True)
class ToolRule:
    """What one allowed tool may do. `limits` bounds numeric arguments: name -> largest value allowed."""

    side_effect: SideEffect
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolPolicy:
    """The allow-list with its rules, and the budgets of one episode (calls, sampled tokens, seconds).

    A call is cut after `max_call_seconds`, or after what is left of `max_seconds`; `reset` after `max_seconds`. Where
    `max_call_seconds` is None nothing is cut, and nothing is paid for it: for tools that only compute. Of a result the
    agent sees so many characters.
    """

    rules: Mapping[str, ToolRule]
    max_calls: int = 8
    max_tokens: int = 256
    max_seconds: float = 120.0
    max_call_seconds: float | None = 60.0
    max_result_characters: int = 20_000

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


class Sandbox:
    """Stands between the agent and one environment instance for one episode."""

    def __init__(
        self,
        environment: Any,
        policy: ToolPolicy,
        tools: Mapping[str, Tool | GivenTool],
        thread: ToolThread,
        injected: str | None = None,
    ) -> None:
        self._environment = environment
        self._policy = policy
        self._tools = tools
        self._thread = thread
        self._injected = injected
        self._calls = 0
        self._started = time.perf_counter()
        self._lost_before = thread.lost_seconds
        self._lost_here = 0.0
        self.side_effects_begun = False
        """Whether a call that may change something outside has been let through, whatever became of it."""

    def call(self, name: str, arguments: Any) -> ToolCall:
        """Runs one call if the policy allows it."""
        started = time.perf_counter()
        self._calls += 1
        error = self.refusal(name, arguments)
        result = None
        if error is None:
            result, error = self._run(name, arguments)
        return ToolCall(name, arguments, result, error, (time.perf_counter() - started) * 1000)

    def refusal(self, name: str, arguments: Any) -> str | None:
        """Why the policy refuses this call, or None."""
        if name not in self._policy.rules or name not in self._tools:
            return f"unknown tool {name}"
        if self._calls > self._policy.max_calls:
            return "call budget spent"
        if self._seconds_left < 0:
            return "time budget spent"
        if not self._tools[name].allows(arguments):
            return "invalid arguments"
        for argument, limit in self._policy.rules[name].limits.items():
            if not _within(arguments.get(argument), limit):
                return f"{argument} above the limit"
        return None

    def _run(self, name: str, arguments: Any) -> tuple[Any, str | None]:
        """What the tool returned, or its error."""
        try:
            call = self._tools[name].call(self._environment, arguments)
        except ArgumentsError:
            return None, "invalid arguments"
        limit = self._policy.max_result_characters
        self.side_effects_begun |= name in self._policy.acting_tools

        def attempt() -> tuple[Any, str | None]:
            try:
                return snapshot(settled(call()), limit), None
            except NoTextError as kind:
                return None, f"the tool returned a {kind}, which is neither text nor JSON"
            except BaseException as failure:  # a tool may fail in any way: the agent sees it, the episode goes on
                failure = relayed(failure)
                return None, clean(text_of_error(failure))[:limit] or type(failure).__name__

        left = max(self._seconds_left, 0.0)
        seconds = left if self._policy.max_call_seconds is None else min(self._policy.max_call_seconds, left)
        try:
            result, error = self._thread.run(attempt, seconds)
            return (result if error else self._planted(name, result)), error
        except CutError:
            self._lost_here += seconds
            return None, f"no answer within {seconds:.3g} s"

    def _planted(self, name: str, result: Any) -> Any:
        """The first result of a tool that only reads with the text that somebody planted there, if there is one."""
        if self._injected is None or self._policy.rules[name].side_effect != "read":
            return result
        planted, self._injected = self._injected, None
        if isinstance(result, dict):
            return {**result, "note": planted}
        return [*result, planted] if isinstance(result, list) else f"{result}\n{planted}"

    @property
    def _seconds_left(self) -> float:
        """Of the episode's time. What episodes that share the thread lost in calls that were cut is not of it."""
        of_others = self._thread.lost_seconds - self._lost_before - self._lost_here
        return self._policy.max_seconds - (time.perf_counter() - self._started - of_others)


def _within(value: Any, limit: float) -> bool:
    """Whether an argument is at most the limit. One that is left out is; one that is no number is not."""
    if value is None:
        return True
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not math.isnan(number) and number <= limit
