"""One run: an episode that the gateway plays, or a turn of a conversation that the client leads."""

import asyncio
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import Backend, BackendError, OnText, Sampling, Turn, TurnTokens
from agentrl_resources.gateway.fields import ACCOMPANIES
from agentrl_resources.gateway.heeding import unheeded
from agentrl_resources.gateway.messages import READABLE_PARTS
from agentrl_resources.gateway.stops import StoppedText, until
from agentrl_resources.workflow import Episode, EpisodeFactory, Message, Outcome, Task

_MISFITS = (AgentRLError, TypeError, ValueError, LookupError, AttributeError)
"""What a payload that does not fit an environment raises."""


@dataclass(frozen=True)
class Failure:
    """Why an arm gave no answer.

    `kind`: error, timeout, cut, or request where the arm says that the request is at fault. `side_effects`: it may have
    changed something. `param`: the field of the request that it is about, if it is about one.
    """

    kind: str
    said: str
    side_effects: bool
    param: str | None = None


@dataclass
class Attempt:
    """What one arm did for a run, also when it failed on the way."""

    turn: Turn | None = None
    tokens_in: int | None = 0
    tokens_out: int | None = 0
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[TurnTokens] = field(default_factory=list)
    """Of each turn that was had in token ids."""
    outcome: Outcome | None = None
    handed_over: bool = False
    clarifying_questions: int = 0
    failure: Failure | None = None

    def heard(self, turn: Turn) -> None:
        if turn.tokens is not None:
            self.tokens.append(turn.tokens)

    @property
    def tool_errors(self) -> int:
        return sum(call["error"] is not None for call in self.tool_calls)


def total(counts: Iterable[int | None]) -> int | None:
    """The sum, which is unknown as soon as one of them is."""
    whole = 0
    for count in counts:
        if count is None:
            return None
        whole += count
    return whole


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
        # whatever a request is like: once a tool has been called for it, it is a run
        kind = "error" if failure.kind == "request" and attempt.tool_calls else failure.kind
        attempt.failure = Failure(kind, str(failure), job.side_effects(), failure.param)
    except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as failure:
        # it may break in any way, and a tool's thread may end in any; what it said may hold a customer's data
        if isinstance(failure, asyncio.CancelledError) and _is_cancelled():
            raise
        attempt.failure = Failure("error", type(failure).__name__, job.side_effects())
    return attempt


def _is_cancelled() -> bool:
    """Whether it is this task that somebody ends."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class TurnJob:
    """One message of a conversation that the client leads; the client runs the tools, so nothing changes here.

    `body` is what `Backend.complete` takes, `withheld` names tools that the client has but does not allow.
    """

    def __init__(
        self,
        body: Mapping[str, Any],
        sampling: Sampling,
        task_id: str,
        task_type: str | None = None,
        withheld: Collection[str] = (),
    ) -> None:
        self.sampling = sampling
        self.task_id = task_id
        self.task_type = task_type
        self._body = body
        self._withheld = withheld

    async def work(self, backend: Backend, attempt: Attempt, on_text: OnText | None) -> None:
        attempt.messages = [_without_media(message) for message in self._body["messages"]]
        told = _stopping(on_text, self.sampling)
        turn = await backend.complete(self._body, self.sampling, told)
        attempt.tokens_in, attempt.tokens_out = turn.tokens_in, turn.tokens_out
        attempt.heard(turn)
        _check(turn, self.sampling, self._body.get("tools") or (), self._withheld)
        _flush(told)
        attempt.turn = turn = _stopped(turn, self.sampling.stop)
        said = turn.message or {"role": "assistant", "content": turn.text, "malformed": turn.ended}
        attempt.messages.append(said)
        calls = [call["function"] for call in said.get("tool_calls") or ()]
        attempt.tool_calls = [{**call, "result": None, "error": None, "ms": None} for call in calls]
        if turn.message is None and turn.ended:
            wrong = {"name": "malformed", "arguments": turn.text, "result": None, "error": "malformed message"}
            attempt.tool_calls = [{**wrong, "ms": None}]

    def side_effects(self) -> bool:
        return False


class EpisodeJob:
    """The gateway plays the whole episode, with the workflow's own tools behind its tool policy.

    `words` is what the customer said, if the task's payload may lack it. Where the workflow cannot begin with either,
    `otherwise` is done.
    """

    def __init__(
        self,
        factory: EpisodeFactory,
        task: Task,
        sampling: Sampling,
        words: str | None = None,
        otherwise: TurnJob | None = None,
    ) -> None:
        most = factory.workflow.tool_policy.max_tokens
        self._budget = min(sampling.max_tokens or most, most)
        # a server that plays an episode need not know whose it is
        extra = {name: value for name, value in sampling.extra.items() if name not in ACCOMPANIES}
        self.sampling = replace(sampling, max_tokens=self._budget, extra=extra)
        self.task_id = task.task_id
        self.task_type: str | None = task.task_type
        self._factory = factory
        self._task = task
        self._words = words
        self._otherwise = otherwise
        self._episode: Episode | None = None
        self._acting = False
        """A tool with side effects has been asked for in a thread, which nothing can stop, and has not come back."""

    async def work(self, backend: Backend, attempt: Attempt, on_text: OnText | None) -> None:
        self._episode = None
        try:
            episode = self._episode = await asyncio.to_thread(self._begin)
        except _MISFITS as error:  # no arm is at fault, whichever it happens to
            if self._otherwise is not None:
                self.task_type = None
                return await self._otherwise.work(backend, attempt, on_text)
            said = f"task: the workflow cannot begin with it ({type(error).__name__})"
            raise BackendError(said, "request", "task") from error
        # stop sequences are for the final answer: in the middle of a call they would only break it
        sampling = replace(self.sampling, stop=())
        conversation = backend.converse(episode.task, sampling)
        told = _stopping(on_text, self.sampling)
        new = list(episode.transcript.messages)
        turn = None
        try:
            while not episode.done:
                turn = await conversation.turn(new, told)
                attempt.heard(turn)
                attempt.tokens_in = total((attempt.tokens_in, turn.tokens_in))
                attempt.tokens_out = total((attempt.tokens_out, turn.tokens_out))
                if not turn.ended or (attempt.tokens_out or 0) >= self._budget:
                    episode.stop()
                if turn.message is None:
                    new = [] if episode.done else [episode.malformed(turn.text)]
                else:
                    await self._begin_to_act(turn.message)
                    # tools may wait for other systems, so they run in a thread
                    new = await asyncio.to_thread(episode.step, turn.message)
                    self._acting = False
        except BackendError as failure:
            if failure.kind == "refused" and sampling != Sampling(sampling.seed, sampling.temperature, self._budget):
                said = "the model's server does not accept this request"  # which is the client's, in part
                raise BackendError(said, "request", failure.param) from failure
            raise
        finally:
            conversation.close()
            _describe(attempt, episode)
        attempt.turn = self._answer(episode, attempt, turn)
        _flush(told)
        if self._factory.workflow.judges_traffic:  # a verifier may wait for other systems too
            attempt.outcome = await asyncio.to_thread(getattr, episode, "outcome")

    def _begin(self) -> Episode:
        """An episode with the payload. Where it lacks a prompt and the environment has a place for one, it is what the
        customer said; also where the environment cannot begin without."""
        payload = self._task.payload
        tried = [payload]
        if self._words is not None and "prompt" not in payload:
            said = {**payload, "prompt": self._words}
            reset: Any = getattr(self._factory.workflow.environment, "reset", None)
            names_it = callable(reset) and "prompt" in inspect.signature(reset).parameters
            tried = [said] if names_it else [payload, said]
        *first, last = tried
        for one in first:
            try:
                return self._factory.start(replace(self._task, payload=one), answered=False)
            except _MISFITS:
                pass
        return self._factory.start(replace(self._task, payload=last), answered=False)

    def _answer(self, episode: Episode, attempt: Attempt, turn: Turn | None) -> Turn:
        """What the client gets of the whole episode."""
        answer = episode.transcript.final_answer
        if answer is None or turn is None or turn.message is None:
            filtered = turn is not None and turn.filtered
            return Turn(None, "", attempt.tokens_in, attempt.tokens_out, ended=False, filtered=filtered)
        _check(turn, self.sampling)
        said: Message = {"role": "assistant", "content": until(answer, self.sampling.stop)}
        if refusal := turn.message.get("refusal"):
            said["refusal"] = refusal
        return Turn(said, "", attempt.tokens_in, attempt.tokens_out, logprobs=turn.logprobs)

    async def _begin_to_act(self, message: Message) -> None:
        """From here on nobody cuts this run short if a tool with side effects is asked for.

        An end that was decided a moment ago, and has not reached this task yet, reaches it here: before anything acts.
        """
        self._acting = self._would_act(message)
        if self._acting:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self._acting = False
                raise

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


def _check(
    turn: Turn, sampling: Sampling, tools: Sequence[Mapping[str, Any]] = (), withheld: Collection[str] = ()
) -> None:
    """BackendError (request) when the answer passes over a field of the request."""
    if broken := unheeded(turn, sampling, tools, withheld):
        param, said = broken
        raise BackendError(f"{param}: {said}", "request", param)


def _stopping(on_text: OnText | None, sampling: Sampling) -> OnText | None:
    """Where the text of an answer goes as it comes; nowhere when it has to be looked at as a whole first."""
    if on_text is None or sampling.response_format or sampling.logprobs or sampling.tool_choice not in (None, "none"):
        return None
    return StoppedText(sampling.stop, on_text) if sampling.stop else on_text


def _flush(told: OnText | None) -> None:
    if isinstance(told, StoppedText):
        told.end()


def _stopped(turn: Turn, stops: Sequence[str]) -> Turn:
    """The turn up to a stop sequence. A server may have stopped there already; a policy of ours goes on."""
    said = turn.message or {"role": "assistant", "content": turn.text}
    content = said.get("content")
    if not isinstance(content, str) or (turn.message is None and turn.ended):
        return turn
    short = until(content, stops)
    return turn if short == content else replace(turn, message={**said, "content": short}, ended=True)


def _without_media(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a record keeps it: nobody takes personal data out of pictures and sound."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    kept = [part if part["type"] in READABLE_PARTS else {"type": part["type"]} for part in content]
    return {**message, "content": kept}
