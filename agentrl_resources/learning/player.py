"""The agent's side of an episode, whoever samples its tokens; and what is kept of an episode that was sampled."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentrl_resources.families import ChatFormat, Encoded, Talk
from agentrl_resources.workflow import Episode, Task


@dataclass
class SampledEpisode:
    """One episode as it was sampled. `ids`, `mask` and `logprobs` are aligned, one entry per token.

    `mask` is 1 where the agent chose the token; `logprobs` (nats, at the sampling temperature) is 0.0 elsewhere. Where
    a family writes its history anew, what stood there until then is among the `forks`, and the lists go on as the
    conversation stands from there.
    """

    task: Task
    seed: int
    episode: Episode
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    forks: list["Fork"] = field(default_factory=list)
    duration_ms: float = 0.0
    """From the start of its batch to its last token: what its policy computed, and its tools. A processor's own time is
    taken, where the policy runs on one, so that whatever else the machine does speaks neither for nor against it."""

    @property
    def tokens_out(self) -> int:
        return sum(self.mask) + sum(sum(fork.mask) for fork in self.forks)

    @property
    def tokens_in(self) -> int:
        return len(self.ids) + sum(len(fork.ids) for fork in self.forks) - self.tokens_out

    @property
    def rows(self) -> list["Fork"]:
        """Every sequence that the agent's tokens were sampled in, in their order."""
        return [*self.forks, Fork(self.ids, self.mask, self.logprobs)]

    @property
    def played(self) -> "Played":
        episode = self.episode
        outcome, errors = episode.outcome, episode.transcript.tool_errors
        return Played(self.rows, outcome.success, outcome.safety_violation, outcome.quality, errors, episode.acted)


@dataclass(frozen=True)
class Fork(Encoded):
    """A conversation until its history was written anew."""

    logprobs: list[float]


@dataclass(frozen=True)
class Played:
    """What training reads of an episode that is over; can be pickled, whatever its environment is."""

    rows: list[Fork]
    success: bool
    safety_violation: bool | None
    quality: float
    tool_errors: int
    acted: bool

    @property
    def tokens_out(self) -> int:
        return sum(sum(row.mask) for row in self.rows)


class Player:
    """The agent's side of one episode: what it reads, and what comes of the turns that somebody samples for it."""

    def __init__(self, task: Task, seed: int, episode: Episode, chat: ChatFormat, budget: int) -> None:
        self.sampled = SampledEpisode(task, seed, episode)
        self.chosen = 0
        """Tokens that the agent chose so far."""
        self._talk = Talk(chat)
        self._budget = budget

    @property
    def done(self) -> bool:
        return self.sampled.episode.done

    @property
    def left(self) -> int:
        """Tokens that the agent may still choose."""
        return self._budget - self.chosen

    @property
    def anew(self) -> bool:
        """Whether what is to be read next is the whole conversation once more."""
        return self._talk.anew

    def begin(self) -> list[int]:
        """What the agent reads before its first turn."""
        return self._next(0)

    def take(self, turn: Sequence[int], logprobs: Sequence[float]) -> list[int]:
        """Takes a turn, or as much of it as there were tokens left; what the agent reads next, nothing at the end."""
        sampled, episode = self.sampled, self.sampled.episode
        self.chosen += len(turn)
        sampled.mask += [1] * len(turn)
        sampled.logprobs += logprobs
        message = self._talk.wrote(turn)
        if not turn or turn[-1] not in self._talk.chat.turn_ends:  # none where there was no room for one
            episode.stop()
            return []
        if message is None:
            observations = [episode.malformed(self._talk.chat.tokenizer.decode(turn))]
        else:
            observations = episode.step(message)
        if self.left < 1:
            episode.stop()
        return self._next(len(observations)) if observations and not episode.done else []

    def _next(self, new: int) -> list[int]:
        sampled, before = self.sampled, self._talk.ids
        read = self._talk.next(sampled.episode.transcript.messages, new)
        if self._talk.anew:
            sampled.forks.append(Fork(before, sampled.mask, sampled.logprobs))
            sampled.mask, sampled.logprobs = [], []
        sampled.ids = self._talk.ids
        sampled.mask += [0] * len(read)
        sampled.logprobs += [0.0] * len(read)
        return read
