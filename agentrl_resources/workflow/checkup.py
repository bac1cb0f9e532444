"""A look at a workflow before anything is trained: what is there, what happens when it is played, what to do next."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentrl_resources.workflow.base import Agent, Message, Task, Workflow
from agentrl_resources.workflow.episode import Episode, EpisodeFactory, request_of

LOOKED_AT = 100
"""Tasks of each split that are looked at."""
PLAYED = 40
"""Tasks that each scripted agent plays."""
ENOUGH = {"train": 50, "holdout": 30, "capability": 100, "adversarial": 100}
"""Tasks of a split below which something that follows says nothing: gates give no verdict below a hundred."""
AGAIN = 10
"""Tasks that are played a second time, to see whether that is the same."""
SLOW_SECONDS = 1.0
"""A tool that takes longer makes rollouts wait."""

Severity = Literal["stop", "mend", "know"]
"""Nothing can run as it is; it runs, and something will be missing or wrong; it is only to be known."""


@dataclass(frozen=True)
class Finding:
    """Something that was found. `do`: what to do about it, a sentence."""

    severity: Severity
    what: str
    do: str


@dataclass
class Played:
    """What an agent's episodes came to. `violations` is None where the workflow cannot tell of safety."""

    agent: str
    episodes: int = 0
    successes: int = 0
    violations: int | None = None
    calls: int = 0
    errors: int = 0
    example: Episode | None = None


@dataclass
class Checkup:
    """What is known of a workflow."""

    name: str
    derived: Mapping[str, str]
    tools: Sequence[Mapping[str, Any]]
    instructions: str
    tasks: dict[str, int] = field(default_factory=dict)
    """Different tasks of each split, up to `LOOKED_AT`."""
    played: list[Played] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    """Longest call of each tool that was called, seconds."""

    def next_steps(self) -> list[Finding]:
        """What was found, the most important first."""
        order = ("stop", "mend", "know")
        return sorted(self.findings, key=lambda found: order.index(found.severity))


def check_up(workflow: Workflow, seed: int, progress: Callable[[str], None] = lambda _: None) -> Checkup:
    """Looks at a workflow: its tasks, and episodes of scripted agents and of one that does anything.

    Raises:
        AgentRLError: its tools cannot be described to a model; all that is wrong with them.
    """
    factory = EpisodeFactory(workflow)
    found = Checkup(workflow.name, dict(getattr(workflow, "derived", {})), factory.tools, workflow.instructions)
    progress("tasks")
    tasks = _tasks(workflow, seed, found)
    if not tasks.get("train"):
        return found
    progress("resets")
    _openings(workflow, tasks, found)
    agents = list(dict.fromkeys(name for task in tasks["train"] for name in workflow.scripted_agents(task)))
    for name in [*agents, "random"]:
        progress(f"episodes of {name}")
        found.played.append(_play(factory, tasks["train"][:PLAYED], name, seed, found))
    if not any(finding.severity == "stop" for finding in found.findings):
        progress("episodes once more")
        _again(factory, tasks["train"][:AGAIN], seed, found)
    _judge(workflow, found)
    return found


def _tasks(workflow: Workflow, seed: int, found: Checkup) -> dict[str, list[Task]]:
    tasks: dict[str, list[Task]] = {}
    for split, enough in ENOUGH.items():
        try:
            drawn = workflow.tasks(split, LOOKED_AT, seed)
        except Exception as error:  # it is the user's code
            found.findings.append(Finding("stop", f"tasks of `{split}`: {error}", "Mend what `tasks` does."))
            continue
        tasks[split] = list({task.case: task for task in drawn}.values())
        found.tasks[split] = len(tasks[split])
        if found.tasks[split] < enough:
            found.findings.append(_too_few(split, found.tasks[split], enough))
    for one, other in (("train", "holdout"), ("train", "capability"), ("train", "adversarial")):
        shared = {task.case for task in tasks.get(one, [])} & {task.case for task in tasks.get(other, [])}
        if shared:
            said = f"{len(shared)} of the tasks looked at are in `{one}` and in `{other}`, word for word"
            found.findings.append(
                Finding("mend", said, "Give a `group` to rows that belong together, or take them out.")
            )
    return tasks


def _too_few(split: str, there: int, enough: int) -> Finding:
    means = {
        "train": "a policy that has seen so few learns them by heart",
        "holdout": "the reward model cannot be judged",
        "capability": "gates on success, cost and latency say HOLD",
        "adversarial": "the gate on safety says HOLD",
    }[split]
    do = f"Give {enough} or more."
    if split == "adversarial":
        do = f"Give {enough} or more rows with `split: adversarial`: tasks that try to make the agent do wrong."
    return Finding("know" if there else "mend", f"{there} tasks in `{split}`: {means}", do)


def _openings(workflow: Workflow, tasks: Mapping[str, Sequence[Task]], found: Checkup) -> None:
    """Whether tasks open, and the same task the same way each time."""
    for task in [task for some in tasks.values() for task in some[:10]]:
        try:
            said = [request_of(workflow, task) for _ in range(2)]
        except Exception as error:  # it is the user's code
            what = f"task {task.task_id} cannot begin: {type(error).__name__}: {error}"
            found.findings.append(Finding("stop", what, "Mend `reset`, or the row."))
            return
        if said[0] != said[1]:
            do = "Take the time, random numbers and whatever else changes out of `reset`, or give it a seed in the row."
            found.findings.append(Finding("mend", f"task {task.task_id} opens differently each time", do))
            return


def _play(factory: EpisodeFactory, tasks: Sequence[Task], name: str, seed: int, found: Checkup) -> Played:
    played = Played(name)
    for number, task in enumerate(tasks):
        scripted = factory.workflow.scripted_agents(task)
        if name != "random" and name not in scripted:
            continue
        agent = anything(factory.tools, task, seed + number) if name == "random" else scripted[name]
        try:
            episode = factory.play(task, agent)
            outcome = episode.outcome
        except Exception as error:  # it is the user's code
            what = f"an episode of `{name}` on task {task.task_id} broke off: {type(error).__name__}: {error}"
            if what not in [one.what for one in found.findings]:
                found.findings.append(Finding("stop", what, "Mend what raised it: a verifier must judge any episode."))
            return played
        played.episodes += 1
        played.successes += outcome.success
        if outcome.safety_violation is not None:
            played.violations = (played.violations or 0) + outcome.safety_violation
        for call in episode.transcript.tool_calls:
            played.calls += 1
            played.errors += call.error is not None
            found.slowest[call.name] = max(found.slowest.get(call.name, 0.0), call.ms / 1000)
            if call.error is None and call.result in ("", {}, []) and name != "random":
                do = "Return what the agent should know of it, or text that says that it is done."
                nothing = Finding("know", f"tool `{call.name}` returns nothing", do)
                if nothing not in found.findings:
                    found.findings.append(nothing)
        played.example = played.example or episode
    return played


def _again(factory: EpisodeFactory, tasks: Sequence[Task], seed: int, found: Checkup) -> None:
    """Whether an episode is the same whatever was played before it."""

    def played() -> list[tuple[list[Message], Mapping[str, float], bool]]:
        episodes = [factory.play(task, anything(factory.tools, task, seed + at)) for at, task in enumerate(tasks)]
        return [(one.transcript.messages, one.outcome.scores, one.outcome.success) for one in episodes]

    for task, first, second in zip(tasks, played(), played(), strict=True):
        if first != second:
            what = f"task {task.task_id}, played twice in the same way, went differently"
            do = "The environment keeps something between episodes, or draws at random: begin anew in `reset`."
            found.findings.append(Finding("mend", what, do))
            return


def _judge(workflow: Workflow, found: Checkup) -> None:
    by_name = {played.agent: played for played in found.played if played.episodes}
    expert, nothing, noise = (by_name.get(name) for name in ("expert", "does_nothing", "random"))
    add = found.findings.append
    if expert is None:
        do = "Give rows a `reference`, or preference data (preferences.source); until then there is no first example."
        add(Finding("mend", "no task says how it is solved", do))
    elif expert.successes < expert.episodes:
        said = f"the expert solves {expert.successes} of {expert.episodes} tasks by the verifier's word"
        add(
            Finding("mend" if expert.successes else "stop", said, "Mend the references of the others, or the verifier.")
        )
    for played in (nothing, noise):
        if played is not None and played.successes == played.episodes:
            do = "A verifier that is content with this teaches nothing: let it look at what was to be changed."
            add(Finding("stop", f"`{played.agent}` solves all {played.episodes} tasks", do))
        elif played is not None and 2 * played.successes > played.episodes:
            do = "Give more tasks in which something has to be done, or see that these are meant so."
            add(Finding("know", f"`{played.agent}` solves {played.successes} of {played.episodes} tasks", do))
    if all(played.violations is None for played in by_name.values()):
        do = "Give the environment `get_violation()`: whether something forbidden was done."
        add(Finding("mend", "nobody can tell whether an episode was safe: the gate on safety says HOLD", do))
    add_slow = {name: seconds for name, seconds in found.slowest.items() if seconds > SLOW_SECONDS}
    for name, seconds in add_slow.items():
        add(
            Finding(
                "know", f"tool `{name}` took {seconds:.1f} s", "A rollout waits for it; answer from memory if it can."
            )
        )
    if "tool_policy" in found.derived:
        do = "If that is wrong, give the class a `tool_policy` of its own."
        add(Finding("know", f"which tools change something was told {found.derived['tool_policy']}", do))


def anything(tools: Sequence[Mapping[str, Any]], task: Task, seed: int) -> Agent:
    """An agent that calls tools at random, with words of the task as arguments, and then ends."""
    draw = random.Random(f"{seed}|{task.task_id}")
    left = 3  # calls that it makes
    words = [str(value) for value in task.payload.values() if value is not None] or ["something"]

    def agent(messages: Sequence[Message]) -> Message:
        nonlocal left
        left -= 1
        if left < 0 or not tools:
            return {"role": "assistant", "content": "That is all."}
        function = draw.choice(tools)["function"]
        arguments = {
            name: _value(schema, words, draw) for name, schema in function["parameters"].get("properties", {}).items()
        }
        call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        return {"role": "assistant", "tool_calls": [call]}

    return agent


def _value(schema: Mapping[str, Any], words: Sequence[str], draw: random.Random) -> Any:
    if "enum" in schema:
        return draw.choice(schema["enum"])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    numbers = {"integer": draw.randrange(100), "number": draw.random() * 100, "boolean": draw.random() < 0.5}
    empty: dict[str, Any] = {"array": [], "object": {}}
    return numbers.get(kind, empty.get(kind, draw.choice(words))) if isinstance(kind, str) else draw.choice(words)


def as_text(found: Checkup) -> Iterator[str]:
    """One page for a terminal."""
    yield f"{found.name}: {_first_line(found.instructions)}"
    yield ""
    yield "TOOLS, as the model sees them"
    for tool in found.tools:
        function = tool["function"]
        arguments = ", ".join(
            f"{name}: {_kind(schema)}" for name, schema in function["parameters"].get("properties", {}).items()
        )
        yield f"  {function['name']}({arguments})  {_first_line(function['description'] or '')}"
    yield ""
    yield f"TASKS  {', '.join(f'{_count(count)} {split}' for split, count in found.tasks.items())}"
    if found.played:
        yield ""
        yield f"{'EPISODES':<16}{'solved':>12}{'violations':>14}{'calls':>8}{'errors':>9}"
        for played in found.played:
            violations = "unknown" if played.violations is None else str(played.violations)
            solved = f"{played.successes} of {played.episodes}"
            yield f"  {played.agent:<14}{solved:>12}{violations:>14}{played.calls:>8}{played.errors:>9}"
    yield ""
    yield "WHAT TO DO NEXT" if found.findings else "NOTHING TO DO: agentrl run"
    for number, finding in enumerate(found.next_steps(), start=1):
        yield f"  {number}. [{finding.severity}] {finding.what}. {finding.do}"


def episodes_to_look_at(found: Checkup) -> Iterator[tuple[str, list[str]]]:
    """One episode of each agent, as lines."""
    for played in found.played:
        if played.example is not None:
            outcome = played.example.outcome
            verdict = f"solved: {outcome.success}, violation: {outcome.safety_violation}, quality {outcome.quality:.2f}"
            yield played.agent, [*map(_message, played.example.transcript.messages[1:]), f"verifier  {verdict}"]


def _message(message: Message) -> str:
    if calls := message.get("tool_calls"):
        said = "; ".join(f"{c['function']['name']}({json.dumps(c['function']['arguments'])})" for c in calls)
    else:
        content = message.get("content")
        said = content if isinstance(content, str) else json.dumps(content, default=str)
    return f"{message['role']:<9} {said[:300]}"


def _count(count: int) -> str:
    return f"{count} or more" if count == LOOKED_AT else str(count)


def _kind(schema: Mapping[str, Any]) -> str:
    return str(schema.get("type") or next((name for name in schema if name != "description"), "any"))


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
