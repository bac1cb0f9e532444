"""A rollout that is played while the trainer still learns from the one before: by the policy before that update.

Its tokens were chosen by another policy than the one that learns from them. So there are three probabilities of each
token: the sampler's; those of the policy that played, as the trainer computes them; and those of the policy that
learns. The first two must agree, as ever; between the first and the last stands the correction of `mismatch.py`
(decoupled PPO: Hilton et al. 2021; AReaL: Fu et al. 2025).
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from agentrl_resources.learning.player import Fork, Played

T = TypeVar("T")


@dataclass(frozen=True)
class Ahead:
    """Episodes of the next iteration, played by the policy before the last update."""

    episodes: list[Played]
    logprobs: list[list[float]]
    """Of each token that was chosen, row by row: what the trainer finds for the policy that played."""

    def as_plain(self) -> dict[str, Any]:
        """Lists and numbers, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def of(plain: Mapping[str, Any] | None) -> "Ahead | None":
        if plain is None:
            return None
        episodes = [Played(**{**one, "rows": [Fork(**row) for row in one["rows"]]}) for one in plain["episodes"]]
        return Ahead(episodes, plain["logprobs"])


def meanwhile(work: Callable[[], T]) -> Callable[[], T]:
    """Starts `work` in a thread; the returned function waits for its result, or raises what it raised.

    Nobody waits for the thread when the process ends.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # it is raised where the result is asked for
            result.set_exception(error)

    threading.Thread(target=run, name="rollout ahead", daemon=True).start()
    return result.result
