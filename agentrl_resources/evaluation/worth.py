"""Is RL worth it here: what the policy's successes cost beside what the same successes cost without RL."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agentrl_resources.evaluation.comparison import EpisodeFacts
from agentrl_resources.evaluation.statistics import product_of_sums, wilson

Worth = Literal["worthwhile", "not shown", "not worthwhile"]


@dataclass(frozen=True)
class Alternative:
    """One way to the same tasks. `cost_per_success` in EUR, None without a success; `ratio` and `interval` (95 %) are
    PPO's cost per success over this one's, on the same tasks: below 1 PPO is cheaper."""

    name: str
    n: int
    success_rate: float
    success_interval: tuple[float, float]
    cost_per_success: float | None
    ratio: float | None
    interval: tuple[float, float] | None


def worth_it(policy: Sequence[EpisodeFacts], others: Mapping[str, Sequence[EpisodeFacts]]) -> dict[str, Any]:
    """PPO against each alternative, all on the same tasks in the same order. Costs and outcomes must be known.

    `worthwhile`: PPO is proven cheaper per success than every one of them. `not worthwhile`: one of them is proven
    cheaper than PPO, or PPO has no success. `not shown`: anything else.
    """
    rows = [_alternative(name, policy, facts) for name, facts in {"PPO": policy, **others}.items()]
    against = rows[1:]
    if any(_proven_cheaper(row) for row in against) or rows[0].cost_per_success is None:
        answer: Worth = "not worthwhile"
    elif all(row.cost_per_success is None or (row.interval and row.interval[1] < 1) for row in against):
        answer = "worthwhile"
    else:
        answer = "not shown"
    return {"answer": answer, "reason": _reason(answer, rows), "alternatives": [asdict(row) for row in rows]}


def _proven_cheaper(row: Alternative) -> bool:
    return row.interval is not None and row.interval[0] > 1


def _alternative(name: str, policy: Sequence[EpisodeFacts], facts: Sequence[EpisodeFacts]) -> Alternative:
    costs, successes = _sums(facts)
    rate, solved = sum(successes) / len(facts), sum(successes)
    ratio = None
    columns = list(zip((*_sums(policy), costs, successes), (1, -1, -1, 1), strict=True))
    if name != "PPO" and len(facts) > 1 and all(sum(values) > 0 for values, _ in columns):
        ratio = product_of_sums(columns)
    return Alternative(
        name,
        len(facts),
        rate,
        wilson(solved, len(facts)),
        sum(costs) / solved if solved else None,
        ratio.estimate if ratio else None,
        ratio.interval if ratio else None,
    )


def _sums(facts: Sequence[EpisodeFacts]) -> tuple[list[float], list[float]]:
    return [float(one.cost or 0) for one in facts], [float(bool(one.success)) for one in facts]


def _reason(answer: Worth, rows: Sequence[Alternative]) -> str:
    if rows[0].cost_per_success is None:
        return f"PPO has no success on {rows[0].n} tasks."
    if answer == "worthwhile":
        return f"A success of PPO's costs less than that of each alternative, proven on {rows[0].n} tasks."
    if answer == "not worthwhile":
        cheaper = ", ".join(row.name for row in rows[1:] if _proven_cheaper(row))
        return f"A success costs less with {cheaper}, proven on {rows[0].n} tasks."
    possible = [row for row in rows[1:] if row.cost_per_success is not None]
    unproven = [row.name for row in possible if row.interval is None or row.interval[1] >= 1]
    return f"On {rows[0].n} tasks it is not proven that a success costs less with PPO than with {', '.join(unproven)}."
