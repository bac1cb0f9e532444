"""One episode of a workflow, turn by turn: whoever plays the agent, scripted or sampled, plays it through here."""

import inspect
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.base import Agent, Message, Outcome, Task, Transcript, Workflow, recorded_tools
from agentrl_resources.workflow.given_tools import GivenTool
from agentrl_resources.workflow.opening import opening
from agentrl_resources.workflow.sandbox import Sandbox, ToolCall
from agentrl_resources.workflow.tool_thread import CutError, InPlace, ToolThread, settled
from agentrl_resources.workflow.tools import Tool, read_tools


class Episode:
    """A running episode. Feed it assistant messages with `step` until `done`; then ask for the `outcome`.

    What an environment holds (a process, a connection) it may give back in `__exit__`, as context managers do. It is
    called when the episode is done; the outcome is judged before.
    """

    def __init__(
        self, workflow: Workflow, task: Task, tools: Mapping[str, Tool | GivenTool], thread: ToolThread, answered: bool
    ) -> None:
        self._workflow = workflow
        self._thread = thread
        self._answered = answered
        self._replies = 0
        self._left = False
        self._unjudged: Exception | None = None
        self.task = task
        self._environment, messages = begin(workflow, task, thread)
        self._sandbox = Sandbox(self._environment, workflow.tool_policy, tools, thread, task.payload.get("injected"))
        instructions = {"role": "system", "content": workflow.instructions}
        self.transcript = Transcript([instructions, *messages], opening=1 + len(messages))
        self.done = False

    def step(self, message: Message) -> list[Message]:
        """Takes the agent's next message, and runs its tool calls in their order; returns what the agent sees of them,
        one message a call.

        A message without `tool_calls` is for the user, who may answer back; where nobody does it is the final answer,
        and the episode is over.
        """
        self.transcript.messages.append(message)
        calls = message.get("tool_calls")
        if not calls:
            if (said := self._user_reply(str(message.get("content") or ""))) is not None:
                self.transcript.messages.append(said)
                self._end_when_spent()
                self._leave()
                return [said]
            self.transcript.final_answer = message.get("content")
            self.done = True
            self._leave()
            return []
        observations = []
        for call in calls:
            function = call.get("function") or {}
            found = self._sandbox.call(str(function.get("name")), function.get("arguments"))
            observations.append(self._observe(found, call.get("id")))
        self._leave()
        return observations

    def malformed(self, text: str) -> Message:
        """Records a turn that could not be read: a tool error the agent gets to see."""
        self.transcript.messages.append({"role": "assistant", "content": text, "malformed": True})
        observation = self._observe(ToolCall("malformed", text, None, "malformed message", 0.0), None)
        self._leave()
        return observation

    def stop(self) -> None:
        """Ends the episode without a final answer (token budget spent)."""
        self.done = True
        self._leave()

    def _user_reply(self, text: str) -> Message | None:
        """What the user says to a message of the agent's: the environment's `user_reply`, else the task's `replies` in
        their order. None where nobody answers."""
        if not self._answered:
            return None
        reply, scripted = getattr(self._environment, "user_reply", None), self.task.payload.get("replies") or ()
        if callable(reply):
            said = self._thread.run(lambda: settled(reply(text)), self._workflow.tool_policy.max_seconds)
        else:
            said = scripted[self._replies] if self._replies < len(scripted) else None
        if said is None:
            return None
        self._replies += 1
        return {"role": "user", "content": str(said)}

    def _end_when_spent(self) -> None:
        """A turn of the user's is paid for like a call: a conversation ends, whoever talks."""
        if len(self.transcript.tool_calls) + self._replies > self._workflow.tool_policy.max_calls:
            self.done = True

    def _observe(self, call: ToolCall, call_id: str | None) -> Message:
        self.transcript.tool_calls.append(call)
        observation = {"role": "tool", "name": call.name, "content": call.observation}
        if call_id is not None:
            observation["tool_call_id"] = call_id
        self.transcript.messages.append(observation)
        self._end_when_spent()
        return observation

    def _leave(self) -> None:
        """Lets an environment go that is done with, after it was judged."""
        leave = getattr(self._environment, "__exit__", None)
        if not self.done or leave is None or self._left:
            return
        self._left = True
        try:
            _ = self.outcome
        except Exception as error:  # it is raised to whoever asks
            self._unjudged = error
        self._thread.run(lambda: leave(None, None, None))

    @cached_property
    def outcome(self) -> Outcome:
        """The verifier's judgement; ask once the episode is done."""
        if self._unjudged is not None:
            raise self._unjudged
        # in the tools' thread: what an environment holds may belong to it
        return self._thread.run(lambda: settled(self._workflow.verify(self._environment, self.transcript)))

    @property
    def handed_over(self) -> bool:
        return self._called(self._workflow.hand_over_tools) > 0

    @property
    def clarifying_questions(self) -> int:
        return self._called(self._workflow.clarifying_tools)

    @property
    def acted(self) -> bool:
        """Whether the agent changed anything or handed over; an agent that is drifting to refusals does so less."""
        return self._called(self._workflow.tool_policy.acting_tools) > 0

    @property
    def side_effects_begun(self) -> bool:
        """Whether something outside may have changed, so that the episode must not be played again."""
        return self._sandbox.side_effects_begun

    def _called(self, names: frozenset[str]) -> int:
        return sum(call.name in names and call.error is None for call in self.transcript.tool_calls)


def begin(workflow: Workflow, task: Task, thread: ToolThread) -> tuple[Any, list[Message]]:
    """A fresh environment after its `reset`, and the messages that the task opens with (see `opening`).

    Raises:
        AgentRLError: there is nothing for an agent to read, or `reset` took longer than the tool policy's
            `max_seconds`. What the environment raises is raised.
    """

    def opened() -> tuple[Any, Any]:
        environment = workflow.environment()
        # a copy, as TRL's rows are: another episode of the task begins with what this one may change
        row = {name: _copied(value) for name, value in _taken(environment.reset, task.payload).items()}
        return environment, settled(environment.reset(**row))

    seconds = workflow.tool_policy.max_seconds
    where = getattr(workflow.environment, "__name__", "environment")
    try:
        environment, said = thread.run(opened, seconds)
    except CutError:
        raise AgentRLError(
            f"task {task.task_id}: {where}.reset() was not done after {seconds:g} s. Allow more "
            "in the tool policy's max_seconds, or mend what it waits for."
        ) from None
    try:
        return environment, opening(task.payload.get("prompt"), said)
    except AgentRLError as error:
        raise AgentRLError(
            f"task {task.task_id}: {where}.reset: {error}. Give the request in one of the two."
        ) from error


OF_THE_EPISODE = ("prompt", "replies", "injected")
"""What a payload may hold for the episode: its opening, the user's next turns, and text that stands in the first result
of a tool that only reads, as if somebody had planted it there. `reset` is given it only where it names it."""


def _taken(reset: Any, payload: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        takes = inspect.signature(reset).parameters
    except (TypeError, ValueError):  # of C code
        return payload
    if any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        return payload
    return {name: value for name, value in payload.items() if name in takes or name not in OF_THE_EPISODE}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def request_of(workflow: Workflow, task: Task) -> str:
    """What a task asks of the agent, as text: its user messages, one below the other."""
    _, messages = begin(workflow, task, _mine.thread)
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


class EpisodeFactory:
    """Starts episodes of one workflow; holds what they share (the tools, with schemas and compiled validators).

    AgentRLError when a tool that the policy names is missing, or cannot be described to a model.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        recorded = recorded_tools(workflow)
        self._tools = {} if recorded is not None else read_tools(workflow.environment, workflow.tool_policy.rules)
        self.tools = [tool.schema for tool in self._tools.values()] if recorded is None else recorded

    def start(self, task: Task, thread: ToolThread | None = None, answered: bool = True) -> Episode:
        """An episode whose tools run in a thread of its own, or in one that it shares with others that are played in
        turns.

        `answered`: whether the environment answers for its user; not where there is a real one, who answers with the
        next request.
        """
        if self.workflow.tool_policy.max_call_seconds is None:
            thread = InPlace()
        return Episode(self.workflow, task, self._tools, thread or ToolThread(), answered)

    def play(self, task: Task, agent: Agent) -> Episode:
        """Plays a whole episode with a scripted agent."""
        episode = self.start(task, _mine.thread)
        while not episode.done:
            episode.step(agent(episode.transcript.messages))
        return episode


class _Mine(threading.local):
    def __init__(self) -> None:
        self.thread = ToolThread()


_mine = _Mine()
"""The thread for the tools of the episodes that the calling thread plays one after another."""
