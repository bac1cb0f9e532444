"""The drill: live gateways under load, failures injected into their canaries, and how long each took to be over.

Nothing is told to a gateway. A fault is switched on behind its canary; the breaker has to notice crashes, hangs and
safety violations, and the canary's statistics everything else. Then the fault is taken away, another canary started,
and so on. Several gateways are drilled at once, each with its own registry, keys, spool and customers: what is under
trial here must not touch what serves, and one failure not another. They share the policies, which answer many customers
in nearly the time of one.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.canary.customers import SPLIT, Customers
from agentrl_resources.canary.decision import CanaryRules, CanaryRun, Decision, decide
from agentrl_resources.canary.faults import Fault, FaultyBackend, Lent
from agentrl_resources.canary.rehearsal import rehearsal_release
from agentrl_resources.canary.rollout import rules_of
from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway import Address, Backend, Gateway, KeyRing, serving
from agentrl_resources.release import Manifest, Registry
from agentrl_resources.settings import Settings
from agentrl_resources.side_by_side import Say, cores, side_by_side
from agentrl_resources.telemetry import RunRecord, read_new
from agentrl_resources.workflow import Workflow

MIX = {"crashing": 28, "unsafe": 28, "wrong": 18, "garbled": 16, "hanging": 10}
"""Failures by kind in a hundred."""
LOOK_SECONDS = 0.5
"""How often the statistics look in the drill."""
HEALTHY_ANSWERS = 5
"""Answers of a gateway without a fault before each failure, and after each return."""
PATIENCE_SECONDS = 300.0
"""A failure that is not over by then has exceeded the gate."""

Arms = Callable[[], tuple[Workflow, Mapping[str, Backend]]]
"""Makes the workflow and the backends of `champion` and `canary`, in whichever process they are needed."""

_WHO = "drill"
_POLL_SECONDS = 0.03


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


@dataclass(frozen=True)
class DrillPlan:
    """What is drilled, for whichever process does a part of it.

    `folder` is empty; `lanes` gateways are drilled at once, each with `at_once` customers, of whom the canary gets
    `percent`. `limit_seconds` is the time of the gate, of which the chance to exceed it is told.
    """

    folder: Path
    settings: Settings
    arms: Arms
    injections: int
    percent: float
    at_once: int
    lanes: int
    limit_seconds: float


@dataclass
class Drilled:
    """What happened in one process: the failures, and what customers saw before, during and after them."""

    injections: list[Injection] = field(default_factory=list)
    successes: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    """Runs whose success is known."""
    statuses: Counter[int] = field(default_factory=Counter)
    runs: int = 0
    seconds: float = 0.0

    def take(self, phase: str, runs: Sequence[RunRecord], spans: Sequence[tuple[float, float]]) -> None:
        """Counts the success of the runs that started in any of the spans (seconds since the epoch)."""
        for run in runs:
            started = datetime.fromisoformat(run.started_at).timestamp()
            if run.success is not None and any(begin <= started < end for begin, end in spans):
                self.known[phase] += 1
                self.successes[phase] += run.success


def drill(plan: DrillPlan, kinds: Sequence[str], progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    """Injects the plan's failures, of the given kinds, and reports the time that each took to be over.

    `progress` is called with (done, in all, what happened).
    """
    processes = min(cores(), plan.lanes)
    in_turn = list(itertools.islice(_in_turn(kinds), plan.injections))
    pieces = [(plan, number, processes, in_turn[number::processes]) for number in range(processes)]
    done = itertools.count(1)

    def heard(_: int, said: str) -> None:
        progress(next(done), plan.injections, said)

    return _summary(side_by_side(_part_of_the_drill, pieces, heard), plan)


def kinds_for(workflow: Workflow, seed: int) -> list[str]:
    """The kinds of `MIX` that can be injected and noticed at once with this workflow.

    An unsafe policy is one of its scripted agents; that an answer was wrong or unsafe shows only where the workflow
    judges traffic as it comes.
    """
    (task,) = workflow.tasks(SPLIT, 1, seed)
    agents = workflow.scripted_agents(task)
    judged = {"wrong", "unsafe"}
    return [
        kind
        for kind in MIX
        if (workflow.judges_traffic or kind not in judged) and (kind != "unsafe" or "harmful" in agents)
    ]


def _in_turn(kinds: Sequence[str]) -> Iterator[str]:
    """The kinds without end, each as often as the mix wants."""
    order = sorted(((index + 0.5) / MIX[kind], kind) for kind in kinds for index in range(MIX[kind]))
    return itertools.cycle(kind for _, kind in order)


def _part_of_the_drill(say: Say, piece: tuple[DrillPlan, int, int, list[str]]) -> Drilled:
    """One process's failures, shared out among its lanes as each becomes free."""
    plan, number, processes, kinds = piece
    workflow, arms = plan.arms()
    waiting = iter(kinds)
    lanes = range(number, plan.lanes, processes)

    async def play() -> list[Drilled]:
        try:
            return await asyncio.gather(*(_Lane(plan, workflow, arms, lane).drill(waiting, say) for lane in lanes))
        finally:
            await asyncio.gather(*(backend.close() for backend in arms.values()))

    started = time.time()
    drilled = _merged(asyncio.run(play()))
    drilled.seconds = time.time() - started
    return drilled


def _merged(parts: Sequence[Drilled]) -> Drilled:
    merged = Drilled()
    for part in parts:
        merged.injections += part.injections
        merged.successes += part.successes
        merged.known += part.known
        merged.statuses += part.statuses
        merged.runs += part.runs
        merged.seconds = max(merged.seconds, part.seconds)
    return merged


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


class _Lane:
    """One gateway under drill."""

    def __init__(self, plan: DrillPlan, workflow: Workflow, arms: Mapping[str, Backend], number: int) -> None:
        self.plan = plan
        self.workflow = workflow
        self.arms = arms
        self.number = number
        self.folder = plan.folder / f"lane-{number}"
        self.registry = Registry(self.folder / "registry")
        self.fault = Fault()
        self.watch = Watch(self.folder / "spool")
        self.rules = rules_of(plan.settings, workflow)

    async def drill(self, kinds: Iterator[str], say: Say) -> Drilled:
        """Injects whatever kind is next until there is none."""
        plan, settings, registry = self.plan, self.plan.settings, self.registry
        champion, canary = (rehearsal_release(registry, settings, arm, "rehearsal") for arm in ("champion", "canary"))
        registry.swap("rehearse", who=_WHO, why="the drill's own", seen=registry.pointers(), champions=(champion,))

        def load(channel: str, release: str, manifest: Manifest) -> Backend:
            if release == champion:
                return Lent(self.arms["champion"])
            return FaultyBackend(Lent(self.arms["canary"]), self.fault, self.workflow)

        key = KeyRing(self.folder / "keys.json").create(_WHO, simulated=True)
        drilled = Drilled()
        phases: dict[str, list[tuple[float, float]]] = {"before": [], "during": [], "after": []}
        address = Address(port=0, admin_port=0)
        async with serving(self.folder, settings, self.workflow, address, registry, load) as (gateway, found):
            url, seed = f"http://{found.host}:{found.port}", settings.seed + 1_000_000 * self.number
            customers = Customers(url, key, self.workflow, seed, plan.at_once)
            async with customers.asking():
                for kind in kinds:
                    await self._start_canary(gateway, canary)
                    before = time.time()
                    await customers.answered(HEALTHY_ANSWERS)
                    # a busy machine may have ended it already, for answers that took too long
                    if gateway.canary is None:
                        await self._start_canary(gateway, canary)
                    injection = await self._inject(gateway, kind, before)
                    over = time.time()
                    await customers.answered(HEALTHY_ANSWERS)
                    injected = over - injection.total_seconds
                    phases["before"].append((before, injected))
                    phases["during"].append((injected, over))
                    phases["after"].append((over, time.time()))
                    drilled.injections.append(injection)
                    say(f"{kind} was over in {injection.total_seconds:.1f} s")
        self.watch.look()
        runs = self.watch.runs
        # what customers come back to is the champion, so that is what its success before is compared with
        drilled.take("before", [run for run in runs if run.assigned_channel == "general"], phases["before"])
        drilled.take("during", runs, phases["during"])
        drilled.take("after", runs, phases["after"])
        drilled.statuses, drilled.runs = customers.statuses, len(runs)
        return drilled

    async def _start_canary(self, gateway: Gateway, canary: str) -> None:
        seen, percent = self.registry.pointers(), self.plan.percent
        self.registry.swap("rehearse", who=_WHO, why="a canary to break", seen=seen, canary=canary,
                           canary_percent=percent)  # fmt: skip
        while gateway.canary is None:
            await asyncio.sleep(_POLL_SECONDS)

    async def _inject(self, gateway: Gateway, kind: str, canary_since: float) -> Injection:
        """Switches a fault on, waits until the canary has ended, and switches it off."""
        watch, registry = self.watch, self.registry
        watch.look()
        seen, first_run = len(watch.events), len(watch.runs)
        injected = next_look = time.time()
        self.fault.kind = kind
        decision: tuple[float, float] | None = None
        try:
            while True:
                await asyncio.sleep(_POLL_SECONDS)
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
                    verdict = await asyncio.to_thread(_judge, watch.runs[first_run:], self.rules, canary_since)
                    if verdict.answer == "NO-GO" and gateway.canary is not None:
                        decision = (now, time.time())
                        registry.fail_back(who="canary statistics", why=verdict.reason, seen=registry.pointers())
        finally:
            self.fault.kind = None


def _judge(runs: Sequence[RunRecord], rules: CanaryRules, since: float) -> Decision:
    rows = [CanaryRun.from_record(run) for run in runs]
    return decide(rows, rules, now=datetime.now(UTC), started_at=datetime.fromtimestamp(since, UTC))


def _injection(kind: str, injected: float, event: Mapping[str, Any], decision: tuple[float, float] | None) -> Injection:
    detected, decided = decision or (event["detected_at"], event["decided_at"])
    detected = max(detected, injected)
    swapped = max(event["pointer_at"], decided)
    drained = max(event["last_canary_answer_at"] or swapped, swapped)
    by = "statistics" if decision else "breaker"
    return Injection(kind, by, detected - injected, decided - detected, swapped - decided, drained - swapped)


def _summary(parts: Sequence[Drilled], plan: DrillPlan) -> dict[str, Any]:
    from agentrl_resources.evaluation import upper_bound

    whole, limit_seconds = _merged(parts), plan.limit_seconds
    done = whole.injections
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
        **{f"success_{phase}": _success(whole, phase) for phase in ("before", "during", "after")},
        "canary_percent": plan.percent,
        "gateways": plan.lanes,
        "traffic_per_second": whole.runs / whole.seconds / plan.lanes,
        "canary_seconds": plan.settings.gateway.canary_seconds,
        "seconds": [injection.total_seconds for injection in done],
        "statuses": {str(status): n for status, n in sorted(whole.statuses.items())},
        "simulated": True,
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


def _success(drilled: Drilled, phase: str) -> dict[str, Any]:
    """Success with its 95 % interval."""
    from agentrl_resources.evaluation import wilson

    n, successes = drilled.known[phase], drilled.successes[phase]
    if not n:
        return {"n": 0, "rate": None, "interval": None}
    return {"n": n, "rate": successes / n, "interval": list(wilson(successes, n))}
