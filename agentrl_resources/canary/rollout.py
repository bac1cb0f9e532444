"""A release's way to all of the traffic, or back: look at the runs, decide, move the pointers.

One look is one call, whoever makes it and however often: an asset on a schedule while a gateway serves real traffic, or
`with_customers` below, which brings simulated customers where there is no traffic.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.canary.customers import Customers
from agentrl_resources.canary.decision import CanaryRules, CanaryRun, Decision, decide
from agentrl_resources.errors import AgentRLError
from agentrl_resources.evaluation import parse_gate
from agentrl_resources.gateway import Address, KeyRing, Loader, serving
from agentrl_resources.release import BROKE_OFF, DECIDED_AGAINST, Pointers, Registry, serves_the_same
from agentrl_resources.settings import Settings
from agentrl_resources.telemetry import Warehouse
from agentrl_resources.workflow import Workflow

WHO = "canary_rollout"
LOOK_ANSWERS = 80
"""The simulated customers' runs are looked at after each so many more answers."""
SETTLING_RUNS = 500
"""Simulated runs that a promoted release still answers, so that traffic of the new champion is on record too."""

NOTHING_TO_TRY = "It serves the same policy as the champion before it: there was nothing to try."

_RUNS = """
SELECT
    run_id, session_key_hash, assigned_channel, started_at, fallback, success, human_override, safety_violation,
    tool_calls_count, tool_error_count, duration_ms, cost, canary_percent, trace->>'$.failure.kind' AS failure,
    run_id IN (SELECT run_id FROM run_labels WHERE field = 'success') AS labelled
FROM agent_runs
WHERE workflow = ? AND started_at >= CAST(? AS TIMESTAMP) AND assigned_channel IN ('canary', 'general')
    AND release_id IN (?, ?)
"""


@dataclass(frozen=True)
class Look:
    """What was decided at one look, and what was done: waits, ramped, promoted, failed back, or since rolled back."""

    decision: dict[str, Any]
    action: str
    percent: float

    @property
    def is_final(self) -> bool:
        return self.action in ("promoted", "failed back")


class CanaryRollout:
    """Brings one release through its canary, by the registry and what the gateway of this state folder spools."""

    def __init__(
        self, home: Path, settings: Settings, workflow: Workflow, release: str, registry: Registry | None = None
    ) -> None:
        self.home = home
        self.settings = settings
        self.workflow = workflow
        self.release = release
        self.registry = registry or Registry(home / "registry")
        self.warehouse = Warehouse(home / "warehouse.duckdb")
        self.rules = rules_of(settings, workflow)

    def begin(self) -> None:
        """Gives the release its first share of the sessions. AgentRLError when it has not earned that."""
        percent = self.settings.release.canary_traffic_percent
        self.registry.start_canary(
            self.release, percent, who=WHO, why="every gate said GO", seen=self.registry.pointers()
        )

    @property
    def needs_traffic(self) -> bool:
        """Whether there is anything to try: the release is not the champion, and answers otherwise than it does."""
        champion, gateway = self.registry.pointers().champion, self.settings.gateway
        if champion == self.release:
            return False
        if champion is None or gateway.champion_url or gateway.canary_url:
            return True
        return not serves_the_same(self.registry.manifest(self.release), self.registry.manifest(champion))

    def next_step(self, again: bool) -> Look:
        """Begins, unless the release is on trial or its end is still to be judged; then looks.

        What was decided before is told as it was, unless it is to be tried `again`. Where there is nothing to try, the
        release is promoted at once.
        """
        pointers, decisions = self.registry.pointers(), self.registry.decisions(self.release)
        if pointers.champion == self.release:
            promoted = bool(decisions) and decisions[-1]["answer"] == "GO"
            return Look(decisions[-1] if promoted else self._nothing_to_try(), "promoted", 100.0)
        if pointers.canary is None and _unjudged(self.registry) != self.release:
            if decisions and not again:
                return Look(decisions[-1], "rolled back" if decisions[-1]["answer"] == "GO" else "failed back", 0.0)
            if not again and due(self.registry) != self.release:
                raise AgentRLError(f"Release {self.release[:12]} begins no canary by itself: it is not its turn")
            if not self.needs_traffic:
                self.registry.promote(self.release, who=WHO, why=NOTHING_TO_TRY, seen=pointers)
                return Look(self._nothing_to_try(), "promoted", 100.0)
            self.begin()
        return self.look()

    def look(self) -> Look:
        """Reads what is new in the spool, decides, and acts on it.

        AgentRLError when the release is neither the canary nor the last one, ended by the gateway or a person.
        """
        self.warehouse.ingest_spool(self.home / "spool")
        seen = self.registry.pointers()
        start = self.registry.canary_start()
        if seen.canary != self.release or start is None:
            return self._ended()
        decision = self._decide(start)
        self.registry.record_decision(self.release, decision.to_dict(), seen)
        if decision.answer == "GO":
            self.registry.promote(self.release, who=WHO, why=decision.reason, seen=seen)
            return Look(decision.to_dict(), "promoted", 100.0)
        if decision.answer == "NO-GO" or decision.expired:
            self.registry.fail_back(who=WHO, why=decision.reason, seen=seen, action=DECIDED_AGAINST)
            for metric in decision.metrics:
                if metric.answer == "NO-GO":
                    self._broke(f"canary_{metric.metric}", decision.decided_at, metric.reason)
            return Look(decision.to_dict(), "failed back", 0.0)
        percent = self._next_share(seen.canary_percent, decision)
        if percent is None:
            return Look(decision.to_dict(), "waits", seen.canary_percent)
        self.registry.ramp(percent, who=WHO, why=decision.reason, seen=seen)
        return Look(decision.to_dict(), "ramped", percent)

    def _decide(self, start: Pointers) -> Decision:
        champions = start.champion or ""
        rows = self.warehouse.query(_RUNS, [self.workflow.name, start.at, self.release, champions])
        runs = [CanaryRun.from_row(row) for row in rows]
        return decide(runs, self.rules, now=datetime.now(UTC), started_at=datetime.fromisoformat(start.at))

    def _next_share(self, percent: float, decision: Decision) -> float | None:
        """The share to ramp to, once the split is right and there were sessions enough for it."""
        next_share = next((share for share in self.settings.canary.ramp if share > percent), None)
        shares = [self.settings.release.canary_traffic_percent, *self.settings.canary.ramp]
        steps_done = sum(share <= percent for share in shares)
        enough = decision.n_canary >= steps_done * self.settings.canary.step_sessions
        return next_share if enough and decision.sample_ratio.answer == "GO" else None

    def _ended(self) -> Look:
        """The gateway, or a person, was faster. What the gateway ended has broken a gate; a person may have reasons."""
        ended, end = self.registry.canary_end() or (None, None)
        if (canary := self.registry.pointers().canary) is not None:
            raise AgentRLError(
                f"Release {self.release[:12]} is not the canary, {canary[:12]} is. "
                "Promote that one or fail it back first"
            )
        if end is None or ended != self.release or end.champion == self.release:
            raise AgentRLError(f"Release {self.release[:12]} is not the canary; start it first")
        decision = self._record("NO-GO", f"{end.who} ended the canary: {end.why}", end.at)
        if end.action == BROKE_OFF:
            self._broke("canary_breaker", datetime.fromisoformat(end.at), end.why)
        return Look(decision, "failed back", 0.0)

    def _nothing_to_try(self) -> dict[str, Any]:
        """Keeps why, once it is promoted: a crash in between leaves no GO of a release that never was champion."""
        return self._record("GO", NOTHING_TO_TRY, datetime.now(UTC).isoformat())

    def _record(self, answer: str, reason: str, at: str) -> dict[str, Any]:
        """Keeps a decision that was made without statistics."""
        decision = {"answer": answer, "reason": reason, "metrics": [], "decided_at": at, "expired": False}
        self.registry.record_decision(self.release, decision)
        return decision

    def _broke(self, gate: str, at: datetime, said: str) -> None:
        self.registry.expansion.record_break(gate=gate, at=at, release=self.release, said=said)


def due(registry: Registry) -> str | None:
    """The release that a look is due for, or None when there is nothing to decide.

    It is the canary; then one that the gateway or a person ended and that was not judged since; then the candidate, if
    it was not judged yet, was bundled beside the present champion for the way back that there is now, and expansion is
    not stopped. So what was rolled back does not return by itself, nor does new evidence for its policy.
    """
    pointers = registry.pointers()
    if pointers.canary is not None:
        return pointers.canary
    if (ended := _unjudged(registry)) is not None:
        return ended
    candidate = pointers.candidate
    if candidate is None or registry.decisions(candidate) or registry.expansion.state().stopped:
        return None
    manifest = registry.manifest(candidate)
    present = pointers.champion in (candidate, manifest["parent"])
    return candidate if present and manifest["rollback_target"] == registry.way_back(manifest, pointers) else None


def is_on_trial(registry: Registry, release: str) -> bool:
    """Whether the release is the canary, or was the last one and its end is still to be judged."""
    return release in (registry.pointers().canary, _unjudged(registry))


def _unjudged(registry: Registry) -> str | None:
    """The last canary, if somebody else than this rollout ended it since it was judged. A promotion is no such end."""
    ended, end = registry.canary_end() or (None, None)
    if ended is None or end is None or end.action == DECIDED_AGAINST or end.champion == ended:
        return None
    decisions = registry.decisions(ended)
    return ended if not decisions or decisions[-1]["revision"] < end.revision else None


def rules_of(settings: Settings, workflow: Workflow) -> CanaryRules:
    """The canary's rules; what a run may take longer is read from the latency gate's name, if there is one."""
    latency = [gate.threshold for gate in map(parse_gate, settings.release.gates) if gate.kind.startswith("latency")]
    rules = CanaryRules(
        minimum_sessions=settings.canary.minimum_sessions,
        expires_after_hours=settings.canary.expires_after_hours,
        outcomes_at_once=workflow.judges_traffic,
    )
    return replace(rules, latency_percent=latency[0]) if latency else rules


async def with_customers(
    rollout: CanaryRollout,
    load: Loader | None,
    seed: int,
    settling_runs: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Serves the state folder and lets simulated customers ask over HTTP until the canary is promoted or failed back.

    Returns the looks, the last decision, and the traffic. The canary must have begun.
    """
    settings = rollout.settings
    rollout.rules = replace(rollout.rules, expires_after_sessions=settings.canary.simulated_sessions)
    keys = KeyRing(rollout.home / "keys.json")
    name = f"simulated customers {time.time_ns()}"
    key = keys.create(name, simulated=True)
    looks: list[Look] = []
    started = time.time()
    address = Address(port=0, admin_port=0)
    try:
        async with serving(rollout.home, settings, rollout.workflow, address, rollout.registry, load) as (_, found):
            url, at_once = f"http://{found.host}:{found.port}", settings.canary.customers
            customers = Customers(url, key, rollout.workflow, seed, at_once)
            async with customers.asking():
                while not looks or not looks[-1].is_final:
                    await customers.answered(LOOK_ANSWERS)
                    looks.append(await asyncio.to_thread(rollout.look))
                    sessions = looks[-1].decision.get("n_canary", 0)
                    said = f"{looks[-1].action} at {looks[-1].percent:g} %, {sessions} canary sessions"
                    progress(f"{said}, {customers.statuses.total()} runs")
                decided = time.time()
                if looks[-1].action == "promoted":
                    await customers.answered(settling_runs)
    finally:
        keys.revoke(name)
    await asyncio.to_thread(rollout.warehouse.ingest_spool, rollout.home / "spool")
    return {
        "release": rollout.release,
        "answer": looks[-1].decision["answer"],
        "action": looks[-1].action,
        "decision": looks[-1].decision,
        "looks": [_told(look) for look in looks],
        "seconds": decided - started,
        "runs": customers.statuses.total(),
        "statuses": {str(status): n for status, n in sorted(customers.statuses.items())},
        "simulated": True,
    }


def _told(look: Look) -> dict[str, Any]:
    """One look as a row: the share, the sessions, and each metric's evidence."""
    decision = look.decision
    return {
        "action": look.action,
        "percent": look.percent,
        "n_canary": decision.get("n_canary"),
        "n_champion": decision.get("n_champion"),
        **{f"good_{one['metric']}": one["e_good"] for one in decision["metrics"]},
        **{f"harm_{one['metric']}": one["e_harm"] for one in decision["metrics"]},
    }
