"""One run: an episode that the gateway plays, or a turn of a conversation that the client leads."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import Backend, BackendError, OnText, Sampling, Turn
from agentrl_resources.workflow import Episode, EpisodeFactory, Message, Outcome, Task


@dataclass(frozen=True)
class Failure:
    """Why an arm gave no answer.

    `kind`: error, timeout, cut, or request where the arm says that the request is at fault. `side_effects`: it may have
    changed something.
    """

    kind: str
    said: str
    side_effects: bool


@dataclass
class Attempt:
    """What one arm did for a run, also when it failed on the way."""

    turn: Turn | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None
    handed_over: bool = False
    clarifying_questions: int = 0
    failure: Failure | None = None

    @property
    def tool_errors(self) -> int:
        return sum(call["error"] is not None for call in self.tool_calls)


class Job(Protocol):
    """What is asked of whichever arm answers. Each attempt begins anew."""

    sampling: Sampling
    task_id: str
    task_type: str | None

    async def work(self, backend: Backend, attempt: Attempt, on_text: OnText | None) -> None:
        """Fills the attempt as it goes. BackendError when there is no answer."""
        ...

    def side_effects(self) -> bool:
        """Whether the last attempt may have changed something outside."""
        ...


class UnderWay:
    """The attempts of one arm that have not ended. They can be cut short where another arm can still take over."""

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Timeout, Callable[[], bool]] = {}
        self._cut: set[asyncio.Timeout] = set()
        self.none_left = asyncio.Event()
        self.none_left.set()

    def begin(self, deadline: asyncio.Timeout, replaceable: Callable[[], bool]) -> None:
        self._deadlines[deadline] = replaceable
        self.none_left.clear()

    def end(self, deadline: asyncio.Timeout) -> bool:
        """Returns whether it was cut."""
        del self._deadlines[deadline]
        if not self._deadlines:
            self.none_left.set()
        return deadline in self._cut

    def cut(self) -> None:
        """Ends at once what is replaceable; the rest goes on to its end."""
        now = asyncio.get_running_loop().time()
        for deadline, replaceable in self._deadlines.items():
            # one whose time is up at this moment ends by itself, and cannot be given another time any more
            if replaceable() and not deadline.expired():
                self._cut.add(deadline)
                deadline.reschedule(now)


async def attempted(
    job: Job, backend: Backend, seconds: float, on_text: OnText | None, under_way: UnderWay, unsent: Callable[[], bool]
) -> Attempt:
    """An arm's attempt within its time. What fails is in `failure`.

    `unsent` says whether no text has gone out yet, so that another arm could still answer in its place.
    """
    attempt = Attempt()
    cut = False
    try:
        async with asyncio.timeout(seconds) as deadline:
            under_way.begin(deadline, lambda: unsent() and not job.side_effects())
            try:
                await job.work(backend, attempt, on_text)
            finally:
                cut = under_way.end(deadline)
    except TimeoutError:
        said = "the canary ended before it had answered" if cut else f"no answer within {seconds:g} s"
        attempt.failure = Failure("cut" if cut else "timeout", said, job.side_effects())
    except BackendError as failure:
        attempt.failure = Failure(failure.kind, str(failure), job.side_effects())
    except Exception as failure:  # it may break in any way; what it said may hold a customer's data
        attempt.failure = Failure("error", type(failure).__name__, job.side_effects())
    return attempt


class EpisodeJob:
    """The gateway plays the whole episode, with the workflow's own tools behind its tool policy."""

    def __init__(self, factory: EpisodeFactory, task: Task, sampling: Sampling) -> None:
        self.sampling = sampling
        self.task_id = task.task_id
        self.task_type: str | None = task.task_type
        self._factory = factory
        self._task = task
        self._episode: Episode | None = None
        self._acting = False
        """A tool with side effects has been asked for in a thread, which nothing can stop, and has not come back."""

    async def work(self, backend: Backend, attempt: Attempt, on_text: OnText | None) -> None:
        try:
            episode = self._episode = await asyncio.to_thread(self._factory.start, self._task)
        except (AgentRLError, TypeError, ValueError, LookupError, AttributeError) as error:
            # what a payload that does not fit raises: no arm is at fault, whichever it happens to
            raise BackendError(
                f"task: the workflow cannot begin with it ({type(error).__name__})", "request"
            ) from error
        conversation = backend.converse(self._task, self.sampling)
        new = list(episode.transcript.messages)
        try:
            while not episode.done:
                turn = await conversation.turn(new, on_text)
                attempt.tokens_in += turn.tokens_in
                attempt.tokens_out += turn.tokens_out
                if not turn.ended or attempt.tokens_out >= self.sampling.max_tokens:
                    episode.stop()
                if turn.message is None:
                    new = [] if episode.done else [episode.malformed(turn.text)]
                else:
                    self._acting = self._would_act(turn.message)
                    # tools may wait for other systems, so they run in a thread
                    new = await asyncio.to_thread(episode.step, turn.message)
                    self._acting = False
        finally:
            conversation.close()
            _describe(attempt, episode)
        answer = episode.transcript.final_answer
        said = None if answer is None else {"role": "assistant", "content": answer}
        attempt.turn = Turn(said, "", attempt.tokens_in, attempt.tokens_out, ended=answer is not None)
        attempt.outcome = episode.outcome if self._factory.workflow.judges_traffic else None

    def _would_act(self, message: Message) -> bool:
        names = {call["function"]["name"] for call in message.get("tool_calls") or ()}
        return bool(names & self._factory.workflow.tool_policy.acting_tools)

    def side_effects(self) -> bool:
        return self._acting or (self._episode is not None and self._episode.side_effects_begun)


def _describe(attempt: Attempt, episode: Episode) -> None:
    attempt.messages = episode.transcript.messages
    attempt.tool_calls = [call.to_dict() for call in episode.transcript.tool_calls]
    attempt.handed_over = episode.handed_over
    attempt.clarifying_questions = episode.clarifying_questions


class TurnJob:
    """One message of a conversation that the client leads; the client runs the tools, so nothing changes here."""

    def __init__(self, body: Mapping[str, Any], sampling: Sampling, task_id: str) -> None:
        self.sampling = sampling
        self.task_id = task_id
        self.task_type: str | None = None
        self._body = body

    async def work(self, backend: Backend, attempt: Attempt, on_text: OnText | None) -> None:
        attempt.messages = list(self._body["messages"])
        attempt.turn = turn = await backend.complete(self._body, self.sampling, on_text)
        attempt.tokens_in, attempt.tokens_out = turn.tokens_in, turn.tokens_out
        said = turn.message or {"role": "assistant", "content": turn.text, "malformed": turn.ended}
        attempt.messages.append(said)
        calls = [call["function"] for call in said.get("tool_calls") or ()]
        attempt.tool_calls = [{**call, "result": None, "error": None, "ms": None} for call in calls]
        if turn.message is None and turn.ended:
            wrong = {"name": "malformed", "arguments": turn.text, "result": None, "error": "malformed message"}
            attempt.tool_calls = [{**wrong, "ms": None}]

    def side_effects(self) -> bool:
        return False
