"""Workflows around environments of one's own, and agents that write what they are told to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentrl_resources.workflow import (
    Episode,
    EpisodeFactory,
    Message,
    Outcome,
    Prices,
    Rubric,
    Task,
    ToolPolicy,
    ToolRule,
    Transcript,
)
from agentrl_resources.workflow.rubric import Criterion

RUBRIC = Rubric("1", (Criterion("outcome", 1.0, "The request is done."),), "outcome")


class Own:
    """A complete workflow; its environment and tool policy are set on an instance or in a subclass."""

    name = "own"
    instructions = "You serve customers."
    environment: Any = None
    tool_policy = ToolPolicy({})
    rubric = RUBRIC
    prices = Prices()
    hand_over_tools: frozenset[str] = frozenset()
    clarifying_tools: frozenset[str] = frozenset()
    judges_traffic = False

    def __init__(self, rubric: Path | None = None) -> None: ...

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        return [Task(f"{split}-{number}", "any", split, {"prompt": "please"}) for number in range(count)]

    def verify(self, environment: Any, transcript: Transcript) -> Outcome:
        return Outcome(True, False, {"outcome": 1.0}, 1.0)

    def scripted_agents(self, task: Task) -> dict[str, Any]:
        return {"does_nothing": lambda messages: {"role": "assistant", "content": "done"}}

    def historical_pairs(self, count: int, seed: int) -> Iterator[dict[str, Any]]:
        return iter(())

    def prefer(self, first: Outcome, second: Outcome, seed: int) -> int:
        return 0


def workflow_of(environment: Any, tools: Mapping[str, Any] | None = None, **policy: Any) -> Own:
    """A workflow around an environment. `tools`: name -> rule; by default its own public methods, which read."""
    if tools is None:
        names = [name for name in vars(environment) if name[0] != "_" and name not in ("reset", "get_reward")]
        tools = dict.fromkeys(names, ToolRule("read"))
    workflow = Own()
    workflow.environment = environment
    workflow.tool_policy = ToolPolicy(tools, **{"max_calls": 50, **policy})
    return workflow


def calls(*asked: tuple[str, Any], ids: bool = False) -> Message:
    """A turn that calls these tools."""
    made = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in asked]
    if ids:
        made = [{"id": f"call_{number}", **one} for number, one in enumerate(made)]
    return {"role": "assistant", "tool_calls": made}


def play(workflow: Any, *turns: Message, payload: Mapping[str, Any] | None = None) -> Episode:
    """An episode of an agent that writes `turns` and then ends."""
    written = iter([*turns, {"role": "assistant", "content": "done"}])
    task = Task("task-1", "any", "train", dict({"prompt": "please"} if payload is None else payload))
    return EpisodeFactory(workflow).play(task, lambda messages: next(written))


def seen(episode: Episode) -> list[Any]:
    """What the agent saw of its tools."""
    return [message["content"] for message in episode.transcript.messages if message["role"] == "tool"]


def returning(tool: Callable[..., Any], *more: Callable[..., Any]) -> type:
    """An environment with these functions as tools."""

    def reset(self: Any, **payload: Any) -> None: ...

    return type("Returning", (), {"reset": reset, **{one.__name__: one for one in (tool, *more)}})


def result_of(value: Any, **policy: Any) -> Any:
    """What an agent sees of a tool that returns the value."""

    def look(self: Any) -> Any:
        """Looks."""
        return value

    return seen(play(workflow_of(returning(look), **policy), calls(("look", {}))))[0]


def texts_of(messages: Sequence[Message]) -> str:
    return "\n".join(str(message["content"]) for message in messages)
