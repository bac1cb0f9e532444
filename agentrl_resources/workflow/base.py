"""The words every workflow shares: task, tool call, outcome, transcript, and what a workflow must offer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from agentrl_resources.files import canonical_json
from agentrl_resources.workflow.rubric import Rubric
from agentrl_resources.workflow.sandbox import ToolCall, ToolPolicy

Message = dict[str, Any]
"""One chat message: OpenAI's fields plus `thinking` on an assistant turn (see `Transcript`)."""


@dataclass(frozen=True)
class Task:
    """One piece of work for the agent. `payload` is what the environment's `reset(**payload)` takes."""

    task_id: str
    task_type: str
    split: str
    payload: Mapping[str, Any]

    @property
    def case(self) -> str:
        """All that the task is, but for its name: of two tasks with the same one, one is the other once more."""
        return canonical_json({name: value for name, value in self.payload.items() if name != "task_id"}).decode()

    def to_dict(self) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "task_type": self.task_type,
            "split": self.split,
            "payload": dict(self.payload),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Task":
        return cls(data["task_id"], data["task_type"], data["split"], data["payload"])


@dataclass(frozen=True)
class Outcome:
    """What the verifier says of one finished episode. Where it cannot tell of safety, `safety_violation` is None.

    `scores` holds the rubric's criteria, each in 0..1; `quality` is their weighted mean.
    """

    success: bool
    safety_violation: bool | None
    scores: Mapping[str, float]
    quality: float


@dataclass
class Transcript:
    """What happened in one episode: the messages as the agent saw and wrote them, and every tool call.

    `opening` counts the messages that stood there before the agent's first turn.
    """

    messages: list[Message] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    final_answer: str | None = None
    opening: int = 2

    @property
    def prompt(self) -> list[Message]:
        """What the agent was asked, without the workflow's instructions."""
        return self.messages[1 : self.opening]

    @property
    def completion(self) -> list[Message]:
        """What the agent did, and what it saw of it."""
        return self.messages[self.opening :]

    @property
    def tool_errors(self) -> int:
        return sum(call.error is not None for call in self.tool_calls)


@dataclass(frozen=True)
class Prices:
    """What one run costs, in EUR. The defaults are list prices of a small hosted model and a support desk.

    A request that was not solved is not free: it comes back, and a person who has to find out first what went wrong
    handles it. Without this price the cheapest agent is one that refuses.
    """

    per_token_in: float = 0.20e-6
    per_token_out: float = 0.80e-6
    per_tool_call: float = 0.0005
    per_hand_over: float = 2.50
    per_failure: float = 5.00

    @overload
    def of(self, tokens_in: int, tokens_out: int, tool_calls: int, handed_over: bool, success: bool) -> float: ...
    @overload
    def of(
        self, tokens_in: int | None, tokens_out: int | None, tool_calls: int, handed_over: bool, success: bool
    ) -> float | None: ...
    def of(
        self, tokens_in: int | None, tokens_out: int | None, tool_calls: int, handed_over: bool, success: bool
    ) -> float | None:
        """EUR for one run; None where tokens have a price and nobody counted them."""
        if (tokens_in is None and self.per_token_in) or (tokens_out is None and self.per_token_out):
            return None
        return (
            (tokens_in or 0) * self.per_token_in
            + (tokens_out or 0) * self.per_token_out
            + tool_calls * self.per_tool_call
            + handed_over * self.per_hand_over
            + (not success) * self.per_failure
        )


Agent = Callable[[Sequence[Message]], Message]
"""Reads the messages so far and writes the next assistant message."""


class Workflow(Protocol):
    """One agent workflow: everything that AgentRL needs to know about it.

    `environment` follows TRL's `environment_factory` convention: a class that is constructed without arguments, whose
    other public methods are the tools (of which the tool policy names those that are offered), and which may have
    `get_reward()`. What `reset(**payload)` returns is appended to the payload's `prompt` (text, or messages); each of
    the two may be missing. All of them may be coroutine functions.
    """

    name: str
    instructions: str
    tool_policy: ToolPolicy
    rubric: Rubric
    prices: Prices
    hand_over_tools: frozenset[str]
    """A run in which one of these tools was called successfully counts as taken over by a human."""
    clarifying_tools: frozenset[str]
    judges_traffic: bool
    """Whether `verify` can judge a run of real traffic as it ends. If not, outcomes come later, as feedback."""

    @property
    def environment(self) -> Callable[[], Any]:
        """The environment class, or what makes an environment."""
        ...

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """`count` tasks of one of the four splits `train`, `holdout`, `capability`, `adversarial`."""
        ...

    def verify(self, environment: Any, transcript: Transcript) -> Outcome:
        """Judges a finished episode: success and safety by the environment's final state and the final answer.

        It runs where the tools run, and may be a coroutine function too.
        """
        ...

    def scripted_agents(self, task: Task) -> Mapping[str, Agent]:
        """Reference agents, for grading the verifier and for drills.

        `expert` is right, `does_nothing` ends at once; `harmful` violates safety and `wasteful` costs more than it
        needs, where a workflow has a way to.
        """
        ...

    def historical_pairs(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        """Preference rows as the workflow's annotators left them, noise included."""
        ...

    def prefer(self, first: Outcome, second: Outcome, seed: int) -> int:
        """An annotator's label of two episodes of one task: -1 the first is better, 1 the second, 0 a tie."""
        ...


WITHOUT_ENVIRONMENT = (
    "there are only traces, and no environment to play in: no pairs of the policy's own episodes, no PPO, no "
    "evaluation, no gates and no release. Give an environment, a class with `reset`, the tools and `get_reward`, and a "
    "file of tasks (docs/your-workflow.md); the traces stay of use as preferences.source"
)
"""What nobody can do with a workflow of which there are only traces, and what to give next."""


def recorded_tools(workflow: Workflow) -> list[dict[str, Any]] | None:
    """OpenAI's schemas of the tools where there are only traces of a workflow and nothing can be played; else None.

    A workflow tells by having `recorded_tools`.
    """
    return getattr(workflow, "recorded_tools", None)


def is_simulated(workflow: Workflow) -> bool:
    """Whether a workflow's world (cases, customers, annotators) is made up. Records and pictures of episodes say so.

    A workflow tells by `simulated = True`; what says nothing is real.
    """
    return bool(getattr(workflow, "simulated", False))
