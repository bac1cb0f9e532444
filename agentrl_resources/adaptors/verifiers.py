"""A taskset of the `verifiers` library, in an interpreter of its own: verifiers wants other versions of openai and mcp.

    class Sums(VerifiersEnvironment):
        python = ".verifiers/bin/python"
        source = "sums"            # a module that exports a Taskset, or the id of an installed one

Its toolsets are the tools, under the names that its harnesses give them; its tasks are the rows; its rewards judge the
finished transcript, in its own process. Success is the weighted sum of the rewards at `success_at`; unless that is
given, at the sum of all positive weights, which is each such reward at 1.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from agentrl_resources.adaptors.elsewhere import Elsewhere
from agentrl_resources.errors import AgentRLError

_ROUNDING = 1e-9


class VerifiersEnvironment(Elsewhere):
    # No docstring: it would be the instructions of an environment that has none.

    success_at: ClassVar[float | None] = None
    """The weighted sum of the rewards from which on an episode is a success."""

    _library = "verifiers"
    _backend = "verifiers_taskset.py"

    def _parts(self, said: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The rewards by name, and `outcome`: how near their weighted sum came to `success_at`, of which 1 is success.

        AgentRLError where one is no finite number, or no sum could be a success.
        """
        wrong = [name for name, one in said.items() if not _finite(one["score"])]
        if wrong:
            raise AgentRLError(f"{self.source}: reward `{wrong[0]}` gave {said[wrong[0]]['score']!r}, no number")
        needed = self.success_at
        if needed is None:
            needed = sum(one["weight"] for one in said.values() if one["weight"] > 0)
        if needed <= 0:
            raise AgentRLError(
                f"{self.source}: no reward has a weight above 0, so that nothing says what success is. Set "
                f"{type(self).__name__}.success_at."
            )
        reached = sum(one["score"] * one["weight"] for one in said.values()) / needed
        outcome = 1.0 if reached >= 1 - _ROUNDING else reached
        named = {f"{name}_reward" if name in ("outcome", "safety") else name: one for name, one in said.items()}
        return {"outcome": outcome, **{name: float(one["score"]) for name, one in named.items()}}


def _finite(score: Any) -> bool:
    return isinstance(score, int | float) and math.isfinite(score)
