"""What an engine offers to whoever plays episodes: conversations in token ids, one turn at a time.

Whoever samples (rollouts, on-policy pairs, evaluation, drill, traffic) talks to this protocol; where the tokens come
from, this process or a server, is known to the engine alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Written:
    """What was sampled in a turn, its end included, and each token's log-probability (nats) at the turn's temperature;
    greedy decoding counts as temperature 1."""

    ids: list[int]
    logprobs: list[float]


class Session(Protocol):
    """One conversation; made by `Engine.open`."""

    budget: int
    """Tokens that may be sampled in it."""
    sampled: int
    """Tokens that were."""


class Engine(Protocol):
    """Samples the turns of many conversations with one policy."""

    context: int
    """Tokens that a conversation can hold, what is read and what is written together."""

    @property
    def seconds(self) -> float:
        """What it has computed so far, or how long it has been at work where that is all that is known of it."""
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
