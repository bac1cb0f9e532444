"""The gateway itself: which release answers whom, what is written down of it, and how a canary ends.

It follows the registry's pointers. What it does by itself is one thing: when the breaker trips, the canary gets no
further request, and the pointer is set back.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.gateway.backends import Backend, OnText, Turn
from agentrl_resources.gateway.breaker import Breaker, Recent, Trip
from agentrl_resources.gateway.channels import Channel
from agentrl_resources.gateway.metrics import Metrics
from agentrl_resources.gateway.records import Run, record_of, write_down
from agentrl_resources.gateway.requests import RequestError
from agentrl_resources.gateway.routing import goes_to_canary
from agentrl_resources.gateway.runs import Attempt, Job, attempted
from agentrl_resources.release import BROKE_OFF, Manifest, Pointers, Registry
from agentrl_resources.settings import GatewaySettings
from agentrl_resources.telemetry import Spool
from agentrl_resources.workflow import Workflow

LOOK_SECONDS = 0.1
"""How often the gateway looks whether the pointers have changed."""

Loader = Callable[[str, str, Manifest], Backend]
"""Makes the backend of a channel (`general` or `canary`) for a release with this manifest; may take seconds."""


@dataclass(frozen=True)
class Answer:
    """What a run ended in; `channel` is who answered."""

    run_id: str
    turn: Turn
    channel: str
    release: str


class Gateway:
    """Routes runs to the champion and the canary. Use from one event loop."""

    def __init__(
        self,
        registry: Registry,
        spool: Spool,
        workflow: Workflow,
        load: Loader,
        options: GatewaySettings,
        secret: bytes,
        metrics: Metrics,
    ) -> None:
        self.registry = registry
        self.spool = spool
        self.workflow = workflow
        self.options = options
        self.metrics = metrics
        self.champion: Channel | None = None
        self.canary: Channel | None = None
        self.breaker: Breaker | None = None
        self._champions_failures = Recent()
        self.trouble: str | None = None
        """Why the gateway does not do what the pointers say, if so."""
        self._load = load
        self._secret = secret
        self._stamp: tuple[int, int] | None = None
        self._backends: dict[tuple[str, str], Backend] = {}
        self._admitted = 0
        self._working = asyncio.Semaphore(options.concurrency)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: set[str] = set()
        """Canaries that have ended here and whose pointer is not set back yet."""
        self._stopping = asyncio.Event()

    # --- the pointers -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Loads what the pointers name and follows them from then on. AgentRLError when there is no champion."""
        await self._follow_once()
        if self.champion is None:
            raise AgentRLError(
                self.trouble or f"{self.registry.root}: there is no champion to serve yet. Make one first: agentrl run"
            )
        self._background(self._follow())

    async def stop(self) -> None:
        """Waits for what is under way, and closes everything."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))
        self.spool.close()

    async def _follow(self) -> None:
        while not await self._stopped_within(LOOK_SECONDS):
            try:
                await self._follow_once()
            except Exception as error:  # a registry that cannot be read: go on with what is loaded, and look again
                self.trouble = str(error) or type(error).__name__

    async def _stopped_within(self, seconds: float) -> bool:
        """Waits, and returns early with True when the gateway is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        return False

    async def _follow_once(self) -> None:
        stamp = _stamp(self.registry.root / "pointers.json")
        if stamp == self._stamp:
            return
        await self._apply(await asyncio.to_thread(self.registry.pointers))
        self._stamp = stamp

    async def _apply(self, pointers: Pointers) -> None:
        """Makes the channels what the pointers say. What cannot be loaded leaves the arm as it is."""
        self.trouble = None
        old_champion, old_canary = self.champion, self.canary
        if old_canary is not None and old_canary.release != pointers.canary:
            promoted = pointers.champion == old_canary.release  # what it has begun it then brings to its end
            self._end_canary(old_canary, by=pointers.who, cause=pointers.action, said=pointers.why, cut=not promoted)
        if pointers.champion and (old_champion is None or old_champion.release != pointers.champion):
            self.champion = await self._channel("general", pointers.champion) or old_champion
        new_canary = self.canary is None or self.canary.release != pointers.canary
        if pointers.canary and new_canary and pointers.canary not in self._ending:
            if channel := await self._channel("canary", pointers.canary):
                limits = (self.options.failure_limit_percent / 100, self.options.violation_limit_percent / 100)
                self.breaker = Breaker(*limits, self._champions_failures)
                self.canary = channel
            else:
                await self._set_back(pointers.canary, None, f"the canary cannot be loaded: {self.trouble}")
        if self.canary is not None:
            self.canary.percent = pointers.canary_percent
        if pointers.previous:  # kept warm, so that a rollback need not load anything
            await self._backend("general", pointers.previous)
        self._forget({self.champion, self.canary}, pointers.previous)
        self.metrics.channels(self.champion, self.canary)

    async def _channel(self, name: str, release: str) -> Channel | None:
        backend = await self._backend(name, release)
        return Channel(name, release, self.registry.manifest(release), backend) if backend else None

    async def _backend(self, name: str, release: str) -> Backend | None:
        """The backend of a release, loaded when it is not yet; None when it cannot be, and `trouble` says why."""
        key = self._key(name, release)
        if key not in self._backends:
            try:
                manifest = await asyncio.to_thread(self.registry.manifest, release)
                self._backends[key] = await asyncio.to_thread(self._load, name, release, manifest)
            except Exception as error:  # weights may be unreadable in any way
                self.trouble = f"release {release[:12]} cannot be served: {error}"
                return None
        return self._backends[key]

    def _key(self, name: str, release: str) -> tuple[str, str]:
        """Bundles are known by their release, whichever channel they serve; servers belong to their channel."""
        url = self.options.canary_url if name == "canary" else self.options.champion_url
        return (url or "", name if url else release)

    def _forget(self, channels: set[Channel | None], previous: str | None) -> None:
        used = {self._key(channel.name, channel.release) for channel in channels if channel}
        if previous:
            used.add(self._key("general", previous))
        for key in self._backends.keys() - used:
            self._background(self._close_later(self._backends.pop(key)))

    async def _close_later(self, backend: Backend) -> None:
        await self._stopped_within(self.options.request_seconds)  # no run that uses it is older than this
        await backend.close()

    # --- the end of a canary ------------------------------------------------------------------------------------------

    def _end_canary(
        self, canary: Channel, *, by: str, cause: str, said: str, trip: Trip | None = None, cut: bool = True
    ) -> None:
        """No further session goes to the canary from here on. With `cut`, the champion does what it has begun.

        Once its last answer is out, its end is written down.
        """
        self.canary = None
        self.breaker = None
        if trip is not None:
            self._ending.add(canary.release)
        self._background(self._write_end(canary, time.time(), by=by, cause=cause, said=said, trip=trip))
        self.metrics.channels(self.champion, None)
        if cut:
            canary.under_way.cut()

    async def _write_end(
        self, canary: Channel, swapped_at: float, *, by: str, cause: str, said: str, trip: Trip | None
    ) -> None:
        pointer_at = swapped_at
        if trip is not None:
            await self._set_back(canary.release, by if trip.cause == "person" else None, said)
            self._ending.discard(canary.release)
            pointer_at = time.time()
        await canary.under_way.none_left.wait()
        self.spool.append(
            "event",
            {
                "event_id": f"canary-end-{secrets.token_hex(8)}",
                "event": "canary_ended",
                "release": canary.release,
                "champion": self.champion.release if self.champion else None,
                "by": by,
                "cause": cause,
                "said": said,
                "canary_percent": canary.percent,
                "detected_at": trip.first_event_at if trip else None,
                "decided_at": trip.decided_at if trip else None,
                "swapped_at": swapped_at,
                "pointer_at": pointer_at,
                "last_canary_answer_at": canary.last_answer_at,
                "at": datetime.now(UTC).isoformat(),
            },
        )  # fmt: skip

    async def _set_back(self, release: str, person: str | None, why: str) -> None:
        """Sets the canary's pointer back, unless somebody has. Tried until it works or the gateway stops."""
        how = {"who": "gateway", "action": BROKE_OFF} if person is None else {"who": person}
        while True:
            try:
                seen = await asyncio.to_thread(self.registry.pointers)
                if seen.canary != release:
                    return
                await asyncio.to_thread(self.registry.fail_back, why=why, seen=seen, **how)
                return
            except Exception as error:
                self.trouble = str(error) or type(error).__name__
                if await self._stopped_within(LOOK_SECONDS):
                    return

    # --- runs ---------------------------------------------------------------------------------------------------------

    def assign(self, session: str) -> Channel:
        """The arm of a session. RequestError (503) while there is no champion."""
        if self.champion is None:
            raise RequestError(503, "no policy is loaded yet", "service_unavailable")
        canary = self.canary
        if canary is not None and goes_to_canary(canary.manifest["routing"]["salt"], session, canary.percent):
            return canary
        return self.champion

    async def run(
        self, job: Job, run_id: str, session: str | None, simulated: bool, on_text: OnText | None = None
    ) -> Answer:
        """Answers one request and writes its record down before it returns. Without a session it is one by itself.

        `on_text` gets the final answer's text as it comes. A canary that fails is replaced by the champion, unless
        something may have changed outside or text has gone out already. RequestError when nobody could answer, or
        too many wait (429).
        """
        if self._admitted >= self.options.concurrency + self.options.queue:
            self.metrics.refused.inc()
            raise RequestError(429, "too many requests are waiting, try again later", "rate_limit_error", "queue_full")
        self._admitted += 1
        try:
            async with self._working:
                # to its end also when the client has gone: what a run did must be written down
                return await asyncio.shield(
                    self._background(self._run(job, run_id, session or run_id, simulated, on_text))
                )
        finally:
            self._admitted -= 1

    async def _run(self, job: Job, run_id: str, session: str, simulated: bool, on_text: OnText | None) -> Answer:
        started_at, started = datetime.now(UTC), time.perf_counter()
        assigned = self.assign(session)
        percent = self.canary.percent if self.canary else 0.0
        sent = False

        async def attempt(channel: Channel, seconds: float) -> Attempt:
            over = False

            def pass_on(text: str) -> None:
                nonlocal sent
                if on_text is not None and not over:  # what an arm says after its end is not for the client
                    sent = True
                    on_text(text)

            told = None if on_text is None else pass_on
            done = await attempted(job, channel.backend, seconds, told, channel.under_way, lambda: not sent)
            over = True
            channel.last_answer_at = time.time()
            return done

        on_trial = assigned.name == "canary"
        served, first = assigned, await attempt(assigned, self._seconds(on_trial))
        attempts = [first]
        if on_trial:
            if not _blames_the_request(first):
                self._watch(assigned, first)
            if first.failure and not first.failure.side_effects and not sent and self.champion:
                served = self.champion
                attempts.append(await attempt(served, self._seconds(False)))
                if _blames_the_request(first) and not _blames_the_request(attempts[-1]):
                    self._watch(assigned, first)  # the request was in order: it is the canary that cannot take it
        failure = attempts[-1].failure
        if failure and _blames_the_request(attempts[-1]) and not sent:
            raise RequestError(400, failure.said, param=failure.param)
        duration = 1000 * (time.perf_counter() - started)
        if not on_trial:
            self._champions_failures.update(bool(failure) or duration > 1000 * self.options.canary_seconds)
        hashed = hmac.digest(self._secret, session.encode(), hashlib.sha256).hex()[:32]
        run = Run(run_id, hashed, job, assigned, served, attempts, percent, simulated, started_at, duration)
        self._write_down(run)
        if (turn := attempts[-1].turn) is None:
            status = 504 if failure and failure.kind == "timeout" else 502
            kept = f" that keeps to `{failure.param}`" if failure and failure.param else ""
            said = f"the policy gave no answer{kept}; a person has to take over"
            raise RequestError(status, said, "api_error", run_id, failure.param if failure else None)
        return Answer(run_id, turn, served.name, served.release)

    def _write_down(self, run: Run) -> None:
        """Before the answer leaves. RequestError (500) when the disk does not take it: such a run did not happen."""
        record = record_of(run, self.workflow, self.options.keep_tokens)
        try:
            write_down(record, self.spool)
        except AgentRLError as error:
            self.trouble = str(error)
            raise RequestError(500, "the run could not be written down", "api_error") from error
        self.metrics.run(record)

    def _seconds(self, on_trial: bool) -> float:
        return self.options.canary_seconds if on_trial else self.options.request_seconds

    def _watch(self, canary: Channel, attempt: Attempt) -> None:
        """Tells the breaker, and ends the canary when it trips."""
        if self.breaker is None or canary is not self.canary:
            return
        violated = attempt.outcome is not None and bool(attempt.outcome.safety_violation)
        trip = self.breaker.update(failed=attempt.failure is not None, violated=violated, at=time.time())
        if trip is not None:
            self._end_canary(canary, by="breaker", cause=trip.cause, said=trip.said, trip=trip)
            self.metrics.trips.labels(trip.cause).inc()

    def fail_back(self, *, by: str, why: str) -> str | None:
        """Ends the canary because a person says so; returns its release, None when there was none."""
        canary, now = self.canary, time.time()
        if canary is not None:
            self._end_canary(canary, by=by, cause="person", said=why, trip=Trip("person", why, now, now))
        return canary.release if canary else None

    def feedback(self, run_id: str, labelled_at: str, said: Mapping[str, bool | None]) -> None:
        """Writes down what became of a run; `said` holds `telemetry.LABELS`, None where nothing is said."""
        known = {name: value for name, value in said.items() if value is not None}
        self.spool.append("label", {"run_id": run_id, "labelled_at": labelled_at, **known})

    def status(self) -> dict[str, Any]:
        """Both arms, the breaker's evidence, and what is under way."""
        breaker = self.breaker
        return {
            "champion": self.champion.release if self.champion else None,
            "canary": self.canary.release if self.canary else None,
            "canary_percent": self.canary.percent if self.canary else 0.0,
            "waiting_and_running": self._admitted,
            "trouble": self.trouble,
            "breaker": {
                cause: {"answers": watched.answers, "events": watched.events, "evidence": watched.evidence}
                for cause, watched in (breaker.watched.items() if breaker else ())
            },
        }

    def _background(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _blames_the_request(attempt: Attempt) -> bool:
    """Whether an arm says that it is the request that is at fault."""
    return attempt.failure is not None and attempt.failure.kind == "request"


def new_run_id() -> str:
    """The id of a run, which the protocol calls the completion's."""
    return f"chatcmpl-{secrets.token_hex(16)}"


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is replaced."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
