"""The drill: a live gateway under load, failures injected into its canary, and how long each took to be over.

Nothing is told to the gateway. A fault is switched on behind its canary; the breaker has to notice crashes, hangs and
safety violations, and the canary's statistics everything else. Then the fault is taken away, another canary started,
and so on. It all happens in a registry of its own: what is under trial here must not touch what serves.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.canary.customers import Customers
from agentrl_resources.canary.decision import CanaryRules, CanaryRun, Decision, decide
from agentrl_resources.canary.faults import Fault, FaultyBackend
from agentrl_resources.canary.rehearsal import rehearsal_release
from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway import Address, Backend, Gateway, KeyRing, serving
from agentrl_resources.release import Manifest, Registry
from agentrl_resources.settings import Settings
from agentrl_resources.telemetry import RunRecord, read_new
from agentrl_resources.workflow import Workflow

MIX = {"crashing": 28, "unsafe": 28, "wrong": 18, "garbled": 16, "hanging": 10}
"""Failures by kind in a hundred."""
LOOK_SECONDS = 0.5
"""How often the statistics look in the drill."""
HEALTHY_SECONDS = 0.4
"""Traffic without a fault before each failure, and after each return."""
PATIENCE_SECONDS = 300.0
"""A failure that is not over by then has exceeded the gate."""

_WHO = "drill"


@dataclass(frozen=True)
class Injection:
    """One failure and its end. The four parts follow each other, in seconds, and add up to the total.

    detected: from the fault to the first bad answer that the breaker, or the look that the statistics, decided on;
    decided: until it was decided to end the canary; swapped: until the pointer was set back; drained: until the last
    canary answer was out (0 when that came earlier).
    """

    kind: str
    by: str
    detected_seconds: float
    decided_seconds: float
    swapped_seconds: float
    drained_seconds: float

    @property
    def total_seconds(self) -> float:
        return self.detected_seconds + self.decided_seconds + self.swapped_seconds + self.drained_seconds


class Watch:
    """Reads the spool of a running gateway as it grows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {}
        self.runs: list[RunRecord] = []
        self.events: list[dict[str, Any]] = []

    def look(self) -> None:
        """Takes in what is new: some thousand runs at most, so call it often."""
        found = read_new(self._folder, self._offsets)
        self.runs += found.runs
        self.events += [event["document"] for event in found.events]
        self._offsets = found.offsets


async def drill(
    folder: Path,
    settings: Settings,
    workflow: Workflow,
    arms: Mapping[str, Callable[[], Backend]],
    *,
    injections: int,
    percent: float,
    at_once: int,
    limit_seconds: float,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Injects failures one after the other and reports the time that each took to be over.

    Args:
        folder: an empty folder for its registry, keys and spool.
        settings: with which the gateway runs.
        workflow: whose customers are simulated.
        arms: makes the backends of `champion` and `canary`.
        injections: how many, of the kinds in `MIX`.
        percent: share of sessions that the canary gets.
        at_once: customers that ask at the same time.
        limit_seconds: the time of the gate, of which the chance to exceed it is told.
        progress: called with (done, in all, what happened).
    """
    registry = Registry(folder / "registry")
    champion, canary = (rehearsal_release(registry, settings, arm, "rehearsal") for arm in ("champion", "canary"))
    registry.swap("rehearse", who=_WHO, why="the drill's own", seen=registry.pointers(), champions=(champion,))
    fault = Fault()

    def load(channel: str, release: str, manifest: Manifest) -> Backend:
        if release == champion:
            return arms["champion"]()
        return FaultyBackend(arms["canary"](), fault, workflow)

    key = KeyRing(folder / "keys.json").create(_WHO, simulated=True)
    watch = Watch(folder / "spool")
    done: list[Injection] = []
    phases: dict[str, list[tuple[float, float]]] = {"before": [], "during": [], "after": []}
    started = time.time()
    async with serving(folder, settings, workflow, Address(port=0, admin_port=0), registry, load) as (gateway, address):
        stop = asyncio.Event()
        customers = Customers(f"http://{address.host}:{address.port}", key, workflow, settings.seed, at_once)
        traffic = asyncio.create_task(customers.run(stop))
        try:
            for number, kind in enumerate(_kinds(injections), start=1):
                await _start_canary(gateway, registry, canary, percent)
                before = time.time()
                await asyncio.sleep(HEALTHY_SECONDS)
                done.append(await _inject(gateway, registry, watch, fault, kind, before))
                over = time.time()
                await asyncio.sleep(HEALTHY_SECONDS)
                injected = over - done[-1].total_seconds
                phases["before"].append((before, injected))
                phases["during"].append((injected, over))
                phases["after"].append((over, time.time()))
                progress(number, injections, f"{kind} was over in {done[-1].total_seconds:.1f} s")
        finally:
            stop.set()
            await traffic
    watch.look()
    seconds = time.time() - started
    return {
        **_summary(done, limit_seconds),
        # what customers come back to is the champion, so that is what its success before is compared with
        "success_before": _success([run for run in watch.runs if run.assigned_channel == "general"], phases["before"]),
        "success_during": _success(watch.runs, phases["during"]),
        "success_after": _success(watch.runs, phases["after"]),
        "canary_percent": percent,
        "traffic_per_second": len(watch.runs) / seconds,
        "canary_seconds": settings.gateway.canary_seconds,
        "seconds": [injection.total_seconds for injection in done],
        "statuses": {str(status): n for status, n in sorted(customers.statuses.items())},
        "simulated": True,
    }


async def _start_canary(gateway: Gateway, registry: Registry, canary: str, percent: float) -> None:
    registry.swap("rehearse", who=_WHO, why="a canary to break", seen=registry.pointers(),
                  canary=canary, canary_percent=percent)  # fmt: skip
    while gateway.canary is None:
        await asyncio.sleep(0.02)


async def _inject(
    gateway: Gateway, registry: Registry, watch: Watch, fault: Fault, kind: str, canary_since: float
) -> Injection:
    """Switches a fault on, waits until the canary has ended, and switches it off."""
    watch.look()
    seen = len(watch.events)
    first_run = len(watch.runs)
    injected = next_look = time.time()
    fault.kind = kind
    decision: tuple[float, float] | None = None
    try:
        while True:
            await asyncio.sleep(0.02)
            now = time.time()
            watch.look()
            ended = [event for event in watch.events[seen:] if event["event"] == "canary_ended"]
            if ended:
                return _injection(kind, injected, ended[-1], decision)
            if now - injected > PATIENCE_SECONDS:
                raise AgentRLError(f"the drill: a {kind} canary was not ended within {PATIENCE_SECONDS:g} s")
            if decision is None and now >= next_look:
                next_look = now + LOOK_SECONDS
                # what the canary did before it broke is not held for it
                verdict = await asyncio.to_thread(_judge, watch.runs[first_run:], canary_since)
                if verdict.answer == "NO-GO" and gateway.canary is not None:
                    decision = (now, time.time())
                    registry.fail_back(who="canary statistics", why=verdict.reason, seen=registry.pointers())
    finally:
        fault.kind = None


def _judge(runs: Sequence[RunRecord], since: float) -> Decision:
    rows = [CanaryRun.from_record(run) for run in runs]
    return decide(rows, CanaryRules(), now=datetime.now(UTC), started_at=datetime.fromtimestamp(since, UTC))


def _injection(kind: str, injected: float, event: Mapping[str, Any], decision: tuple[float, float] | None) -> Injection:
    detected, decided = decision or (event["detected_at"], event["decided_at"])
    detected = max(detected, injected)
    swapped = max(event["pointer_at"], decided)
    drained = max(event["last_canary_answer_at"] or swapped, swapped)
    by = "statistics" if decision else "breaker"
    return Injection(kind, by, detected - injected, decided - detected, swapped - decided, drained - swapped)


def _kinds(injections: int) -> list[str]:
    """The kinds in turn, each as often as the mix wants."""
    order = sorted((((index + 0.5) / n), kind) for kind, n in MIX.items() for index in range(n))
    return [order[index % len(order)][1] for index in range(injections)]


def _summary(done: Sequence[Injection], limit_seconds: float) -> dict[str, Any]:
    from agentrl_resources.evaluation import upper_bound

    exceeded = sum(injection.total_seconds > limit_seconds for injection in done)
    return {
        "n": len(done),
        **_quantiles(done),
        "parts": {part: _part(done, f"{part}_seconds") for part in ("detected", "decided", "swapped", "drained")},
        "kinds": {
            kind: {"n": len(those), "by": sorted({one.by for one in those}), **_quantiles(those)}
            for kind in MIX
            if (those := [injection for injection in done if injection.kind == kind])
        },
        "limit_seconds": limit_seconds,
        "exceeded": exceeded,
        "chance_over_limit_upper": upper_bound(exceeded, len(done), 0.95),
        "failures": [{**asdict(injection), "total_seconds": injection.total_seconds} for injection in done],
    }


def _quantiles(done: Sequence[Injection]) -> dict[str, float]:
    return _spread([injection.total_seconds for injection in done])


def _part(done: Sequence[Injection], name: str) -> dict[str, float]:
    return _spread([getattr(injection, name) for injection in done])


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95 as the smallest value that so many do not exceed."""
    import numpy as np

    p50, p95 = np.quantile(seconds, [0.5, 0.95], method="higher")
    return {"p50_seconds": float(p50), "p95_seconds": float(p95), "max_seconds": max(seconds)}


def _success(runs: Sequence[RunRecord], spans: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Success over the runs that started in any of the spans (seconds since the epoch), with its 95 % interval."""
    from agentrl_resources.evaluation import wilson

    starts = [(datetime.fromisoformat(run.started_at).timestamp(), run.success) for run in runs]
    known = [success for at, success in starts if success is not None and any(a <= at < b for a, b in spans)]
    if not known:
        return {"n": 0, "rate": None, "interval": None}
    return {"n": len(known), "rate": sum(known) / len(known), "interval": list(wilson(sum(known), len(known)))}
