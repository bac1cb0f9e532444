"""Two gates that break in the same week stop expansion, until a person clears it with a reason that is kept.

                       a second gate breaks in a week
               open ────────────────────────────────────▶ stopped
                 ▲                                           │
                 └──────────── clear(who, reason) ───────────┘

    breaks/<digest>.json       one break of one gate, kept for ever
    clearings/<number>.json    who cleared a stop, when, why, and which breaks were settled by it

The state is computed from these files alone: the breaks that no clearing has settled, counted in the ISO week (UTC) in
which they happened. So neither the order in which breaks are told nor how often or how late changes it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import digest_json, locked, read_json, write_json

GATES_THAT_STOP = 2
"""Distinct gates that have to break in one week."""


@dataclass(frozen=True)
class GateBreak:
    """A gate that broke."""

    gate: str
    release: str
    at: str  # when it broke; UTC, ISO 8601
    said: str
    told_at: str  # when it was recorded; UTC, ISO 8601

    @property
    def week(self) -> str:
        return iso_week(datetime.fromisoformat(self.at))


@dataclass(frozen=True)
class ExpansionState:
    """Open without a week; stopped by the gates that broke in it, the latest such week if there are several.

    Each week is cleared by itself.
    """

    week: str | None = None
    gates: tuple[str, ...] = ()

    @property
    def stopped(self) -> bool:
        return self.week is not None


@dataclass(frozen=True)
class Clearing:
    """The end of a stop."""

    who: str
    reason: str
    at: str  # UTC, ISO 8601
    week: str
    gates: tuple[str, ...]
    settled: tuple[str, ...]  # the digests of that week's breaks as they were known


class Expansion:
    """Whether more traffic may go to new releases. Safe between processes; a crash leaves the state before or after."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record_break(self, *, gate: str, at: datetime, release: str, said: str) -> ExpansionState:
        """Record that a gate broke at a moment (with a time zone) and return the state that follows.

        The same gate, release and moment again changes nothing: what was said first is kept.
        """
        if at.tzinfo is None:
            raise AgentRLError(f"The break of {gate} at {at.isoformat()} has no time zone, so its week is not certain")
        happened, now = at.astimezone(UTC).isoformat(), datetime.now(UTC).isoformat(timespec="milliseconds")
        path = self._folder / "breaks" / f"{digest_json([gate, release, happened])}.json"
        if not path.exists():
            write_json(path, asdict(GateBreak(gate, release, happened, said, now)))
        return self.state()

    def state(self) -> ExpansionState:
        """Open, or stopped by which gates."""
        return self._state(self._breaks())

    def clear(self, *, who: str, reason: str) -> ExpansionState:
        """End the stop that `state` tells of, and settle the breaks of its week; another week's stay as they are.

        AgentRLError without a reason, or when there is no stop.
        """
        if not (who.strip() and reason.strip()):
            raise AgentRLError("A stop is cleared by somebody and for a reason: say both")
        with locked(self._folder / "lock"):
            breaks = self._breaks()
            state = self._state(breaks)
            if state.week is None:
                raise AgentRLError(f"{self._folder}: expansion is not stopped, there is nothing to clear")
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            path = self._folder / "clearings" / f"{len(self.clearings()) + 1:08d}.json"
            settled = tuple(sorted(digest for digest, broken in breaks.items() if broken.week == state.week))
            write_json(path, asdict(Clearing(who, reason, now, state.week, state.gates, settled)))
        return self.state()

    def breaks(self) -> list[GateBreak]:
        """Every break that was ever told, in the order in which they happened."""
        return sorted(self._breaks().values(), key=lambda broken: (datetime.fromisoformat(broken.at), broken.gate))

    def clearings(self) -> list[Clearing]:
        """Every clearing that there was, the first one first."""
        rows = [read_json(path) for path in sorted((self._folder / "clearings").glob("*.json"))]
        return [Clearing(**{**row, "gates": tuple(row["gates"]), "settled": tuple(row["settled"])}) for row in rows]

    def _state(self, breaks: Mapping[str, GateBreak]) -> ExpansionState:
        settled = {digest for clearing in self.clearings() for digest in clearing.settled}
        gates_by_week: dict[str, set[str]] = {}
        for digest, broken in breaks.items():
            if digest not in settled:
                gates_by_week.setdefault(broken.week, set()).add(broken.gate)
        stops = [(week, gates) for week, gates in gates_by_week.items() if len(gates) >= GATES_THAT_STOP]
        if not stops:
            return ExpansionState()
        week, gates = max(stops, key=lambda stop: stop[0])
        return ExpansionState(week, tuple(sorted(gates)))

    def _breaks(self) -> dict[str, GateBreak]:
        return {path.stem: GateBreak(**read_json(path)) for path in (self._folder / "breaks").glob("*.json")}


def iso_week(at: datetime) -> str:
    """The ISO week of a moment in UTC, such as 2026-W47."""
    year, week, _ = at.astimezone(UTC).isocalendar()
    return f"{year:04d}-W{week:02d}"
