"""The 30/60/90-day view: which conditions for the next step hold, from data.

Each condition is a query `phase_<name>.sql` whose `holds_flag` is true, false or null (not known yet), with the
numbers that decide it.
"""

from __future__ import annotations

from typing import Any

from agentrl_resources.brief.content import Condition, Phase, Say, Teller
from agentrl_resources.brief.figures import Figures
from agentrl_resources.telemetry import Warehouse

_CONDITIONS: dict[str, dict[str, str]] = {
    "promoted": {"answer": "phase_promoted.canary_answer", "n": "phase_promoted.canary_count"},
    "drilled": {
        "n": "phase_drilled.failures_count",
        "bound": "phase_drilled.bound_share",
        "limit": "phase_drilled.limit_seconds",
    },
    "expansion": {"broken": "phase_expansion.gates_count"},
    "rising": {
        "change": "phase_rising.change_points",
        "low": "phase_rising.low_points",
        "high": "phase_rising.high_points",
        "since": "phase_rising.since_week",
    },
    "profitable": {
        "net": "phase_profitable.net_eur",
        "n": "phase_profitable.successes_count",
        "saving": "phase_profitable.saving_eur",
        "programme": "release.programme_eur",
    },
}
"""Condition -> placeholder of its sentence -> figure."""

_PHASES = ((1, 30, ("promoted", "drilled", "expansion")), (2, 60, ("rising",)), (3, 90, ("profitable",)))


def phases_of(teller: Teller) -> tuple[Phase, ...]:
    """The three phases with their conditions."""
    return tuple(
        Phase(number, days, tuple(_condition(teller, name) for name in names)) for number, days, names in _PHASES
    )


def _condition(teller: Teller, name: str) -> Condition:
    flag = f"phase_{name}.holds_flag"
    return Condition(
        name=name,
        holds=teller.figures.value(flag),
        state=Say("phase.state", {"value": flag}),
        said=teller.say_or(f"phase.{name}.missing", f"phase.{name}", **_CONDITIONS[name]),
    )


def phases(warehouse: Warehouse, release: str) -> list[dict[str, Any]]:
    """The phases of a release whose evidence is stored, as plain JSON: each condition with its figures and queries."""
    teller = Teller(Figures(warehouse, release))
    return [
        {
            "phase": phase.number,
            "days": phase.days,
            "holds": phase.holds,
            "conditions": [
                {
                    "condition": condition.name,
                    "holds": condition.holds,
                    "figures": {
                        name: {"value": figure.value, "sql": figure.sql, "simulated": figure.simulated}
                        for name in (f"phase_{condition.name}.holds_flag", *_CONDITIONS[condition.name].values())
                        for figure in [teller.figures[name]]
                    },
                }
                for condition in phase.conditions
            ],
        }
        for phase in phases_of(teller)
    ]
