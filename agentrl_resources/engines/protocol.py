"""What an engine offers to whoever plays episodes: conversations in token ids, one turn at a time.

Whoever samples (rollouts, on-policy pairs, evaluation, drill, traffic) talks to this protocol; where the tokens come
from, this process or a server, is known to the engine alone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Written:
    """What was sampled in a turn, its end included, and each token's log-probability (nats) at the turn's temperature;
    greedy decoding counts as temperature 1."""

    ids: list[int]
    logprobs: list[float]


class Engine(Protocol):
    """Samples the turns of many conversations with one policy."""

    context: int
    """Tokens that a conversation can hold, what is read and what is written together."""

    def spent(self, conversation: Any) -> float:
        """Seconds that a conversation has waited for its turns: what the engine has computed since it began, where it
        is this process that computes, and else by the clock. Without the time of tools."""
        ...

    def open(self, seed: int, budget: int, sampled: int = 0) -> Any:
        """A new conversation in which at most `budget` tokens are sampled, of which `sampled` were by the conversation
        that it takes the place of. Close it when it is over."""
        ...

    async def turn(
        self,
        conversation: Any,
        ids: Sequence[int],
        temperature: float,
        limit: int,
        on_token: Callable[[int], None] | None = None,
    ) -> Written:
        """Reads `ids`, then samples until the turn ends or `limit` tokens.

        `on_token` is called with each sampled id in the caller's event loop. When the caller is cancelled, close the
        conversation. AgentRLError when there is no answer.
        """
        ...

    def close(self, conversation: Any) -> None:
        """Ends a conversation. Can be called at any time, and more than once."""
        ...

    async def leave(self) -> None:
        """Gives back what the engine itself holds; turns that are under way fail."""
        ...


How = Literal["adapter", "weights"]


@dataclass(frozen=True)
class Publication:
    """A policy as a server has it: its name, its folder, and whether it is an adapter or the server's own weights."""

    name: str
    folder: Path
    how: How


class Server(Protocol):
    """Something outside of this process that is given policies, and answers with them."""

    @property
    def context(self) -> int:
        """Tokens of a conversation that it takes at most."""
        ...

    def publish(self, publication: Publication) -> str:
        """Makes the server answer with a policy; the name to ask for it. AgentRLError when it cannot."""
        ...

    def holds(self, publication: Publication) -> bool:
        """Whether it answers with this policy, as far as is known here."""
        ...

    def tokens_of(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """A conversation as the server's own chat template writes it; None where it has none or does not tell."""
        ...

    def engine(self, model: str, turn_ends: Collection[int]) -> Engine:
        """The policy of a name as an engine. `turn_ends`: the tokens that end a turn."""
        ...
