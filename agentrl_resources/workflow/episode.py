"""One episode of a workflow, turn by turn: whoever plays the agent, scripted or sampled, plays it through here."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.workflow.base import Agent, Message, Outcome, Task, Transcript, Workflow
from agentrl_resources.workflow.sandbox import Sandbox, ToolCall, argument_validators, tool_schemas


class Episode:
    """A running episode. Feed it assistant messages with `step` until `done`; then ask for the `outcome`."""

    def __init__(self, workflow: Workflow, task: Task, validators: Mapping[str, Any]) -> None:
        self._workflow = workflow
        self.task = task
        self._environment = workflow.environment()
        # TRL's convention: without a text of its own, the environment leaves the task's prompt as it is
        request = self._environment.reset(**task.payload) or task.payload.get("prompt")
        if not isinstance(request, str):
            raise AgentRLError(
                f"task {task.task_id}: {workflow.environment.__name__}.reset() returned no text, and the payload "
                "has no `prompt` that is text. Give the request in one of the two."
            )
        self._sandbox = Sandbox(self._environment, workflow.tool_policy, validators)
        self.transcript = Transcript(
            [{"role": "system", "content": workflow.instructions}, {"role": "user", "content": request}]
        )
        self.done = False

    def step(self, message: Message) -> Message | None:
        """Takes the agent's next message; returns the tool's observation, or None when the episode is over.

        A message without `tool_calls` is the final answer.
        """
        self.transcript.messages.append(message)
        if not message.get("tool_calls"):
            self.transcript.final_answer = message["content"]
            self.done = True
            return None
        function = message["tool_calls"][0]["function"]
        return self._observe(self._sandbox.call(function["name"], function["arguments"]))

    def malformed(self, text: str) -> Message:
        """Records a turn that could not be read as a Harmony message: a tool error the agent gets to see."""
        self.transcript.messages.append({"role": "assistant", "content": text, "malformed": True})
        return self._observe(ToolCall("malformed", text, None, "malformed message", 0.0))

    def stop(self) -> None:
        """Ends the episode without a final answer (token budget spent)."""
        self.done = True

    def _observe(self, call: ToolCall) -> Message:
        self.transcript.tool_calls.append(call)
        observation = {"role": "tool", "name": call.name, "content": call.observation}
        self.transcript.messages.append(observation)
        if len(self.transcript.tool_calls) > self._workflow.tool_policy.max_calls:
            self.done = True
        return observation

    @cached_property
    def outcome(self) -> Outcome:
        """The verifier's judgement; ask once the episode is done."""
        return self._workflow.verify(self._environment, self.transcript)

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


class EpisodeFactory:
    """Starts episodes of one workflow; holds what they share (tool schemas, compiled validators)."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.tools = tool_schemas(workflow.environment)
        self._validators = argument_validators(workflow.environment)

    def start(self, task: Task) -> Episode:
        return Episode(self.workflow, task, self._validators)

    def play(self, task: Task, agent: Agent) -> Episode:
        """Plays a whole episode with a scripted agent."""
        episode = self.start(task)
        while not episode.done:
            episode.step(agent(episode.transcript.messages))
        return episode
