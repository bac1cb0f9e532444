"""Where an environment's own code runs: in one thread of its own, beside whoever plays the episode.

So whoever plays can leave a call that does not come back, and an environment sees one thread only, as in TRL (what
SQLite opened in `reset` can be used in a tool). What is awaitable runs on one event loop for all, as in TRL, so that an
environment's background tasks go on between two calls.
"""

import asyncio
import inspect
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

MOST_ITEMS = 10_000
"""So many items of an asynchronous generator are read at most."""
_STUCK_SECONDS = 1.0
"""An event loop that does not answer for so long is blocked by a coroutine that waits without `await`."""


class CutError(Exception):
    """A call did not come back in time. It may still come to its end."""


class ToolThread:
    """A daemon thread that runs one call after another. It starts with the first call and ends with this object."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.lost_seconds = 0.0
        """Time that went by in calls that were cut."""

    def run(self, function: Callable[[], Result], seconds: float | None = None) -> Result:
        """What `function` returns or raises; use `settled` in it for what may be awaitable.

        What would end a thread or a loop (SystemExit, KeyboardInterrupt, StopIteration, ...) comes as a RuntimeError.

        Args:
            function: what to call.
            seconds: how long it may take.

        Raises:
            CutError: the time is up. The next call gets a fresh thread, unless it was awaited: that can be ended.
        """
        if self._thread is None or not self._thread.is_alive():
            self._start()
        job = _Job(function)
        self._jobs.put(job)
        # no timeout of a lock may be longer than the platform's longest
        if not job.done.acquire(timeout=-1 if seconds is None else min(max(seconds, 0.0), threading.TIMEOUT_MAX)):
            self._leave(job)
            self.lost_seconds += seconds or 0.0
            raise CutError
        try:
            if job.error is not None:
                raise job.error
            return job.result
        finally:
            job.error = None  # it holds this frame, and the frame holds it

    def _start(self) -> None:
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._jobs = jobs
        self._thread = threading.Thread(target=_serve, args=(jobs,), name="agentrl-tools", daemon=True)
        self._thread.start()
        weakref.finalize(self, jobs.put, None).atexit = False

    def _leave(self, job: "_Job") -> None:
        job.cancel()
        if job.awaited is None or not job.done.acquire(timeout=_STUCK_SECONDS):
            self._jobs.put(None)  # its thread ends once the call comes back, if it ever does
            self._thread = None


class InPlace(ToolThread):
    """No thread at all: a call runs where it is made, which costs nothing, and cannot be cut."""

    def run(self, function: Callable[[], Result], seconds: float | None = None) -> Result:
        try:
            return function()
        except BaseException as error:
            raise relayed(error) from error


class _Job:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()
        self.awaited: tuple[asyncio.AbstractEventLoop, Future[Any]] | None = None
        self.cut = False

    def work(self) -> None:
        try:
            self.result = self.function()
        except BaseException as error:
            self.error = relayed(error)
        finally:
            self.done.release()

    def cancel(self) -> None:
        self.cut = True
        if self.awaited is not None:
            loop, future = self.awaited
            future.cancel()
            _leave_if_stuck(loop)


_here = threading.local()


def _serve(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        _here.job = job
        job.work()
        del job, _here.job  # nothing of an episode stays alive because its thread waits


def settled(value: Any) -> Any:
    """The value itself, or what it comes to when it has to be awaited (an asynchronous generator: its items)."""
    if not inspect.isawaitable(value):
        if not isinstance(value, AsyncIterator):
            return value
        value = _items(value)
    loop = _event_loop()
    future = asyncio.run_coroutine_threadsafe(_awaited(value), loop)
    job: _Job | None = getattr(_here, "job", None)
    if job is not None:
        job.awaited = loop, future
        if job.cut:
            future.cancel()
    return future.result()


def relayed(error: BaseException) -> Exception:
    """The error as one that can be raised anywhere: in a generator, a future or a thread too."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    told = RuntimeError(f"{type(error).__name__}: {text_of_error(error)}".removesuffix(": "))
    told.__cause__ = error
    return told


def text_of_error(error: BaseException) -> str:
    """What an error says; nothing where it cannot even do that."""
    try:
        return str(error)
    except BaseException:
        return ""


async def _awaited(value: Any) -> Any:
    try:
        return await value
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # SystemExit and KeyboardInterrupt would end the loop
        raise relayed(error) from error


async def _items(values: AsyncIterator[Any]) -> list[Any]:
    items: list[Any] = []
    async for item in values:
        items.append(item)
        if len(items) == MOST_ITEMS:
            break
    return items


_lock = threading.Lock()
_running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None


def _event_loop() -> asyncio.AbstractEventLoop:
    """The loop of all environments, started when it is first needed."""
    global _running
    with _lock:
        if _running is None or not _running[1].is_alive():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run_for_ever, args=(loop,), name="agentrl-tools-loop", daemon=True)
            thread.start()
            _running = loop, thread
        return _running[0]


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except BaseException:  # a task of the environment's own raised SystemExit: others go on
            continue


def _leave_if_stuck(loop: asyncio.AbstractEventLoop) -> None:
    global _running
    alive = threading.Event()
    loop.call_soon_threadsafe(alive.set)
    if not alive.wait(_STUCK_SECONDS):
        with _lock:
            if _running is not None and _running[0] is loop:
                _running = None
