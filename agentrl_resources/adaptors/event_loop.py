"""One event loop in a thread of its own, on which adaptors keep what they hold open: it belongs to where it began."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

_lock = threading.Lock()
_running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None


def event_loop() -> asyncio.AbstractEventLoop:
    """The loop, started when it is first needed."""
    global _running
    with _lock:
        if not is_running():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="agentrl-adaptors", daemon=True)
            thread.start()
            _running = loop, thread
        assert _running is not None
        return _running[0]


def is_running() -> bool:
    """Whether this process has it; one that was forked has not."""
    return _running is not None and _running[1].is_alive()


def begun(work: Coroutine[Any, Any, Any]) -> "Future[Any]":
    """The work, begun on the loop; who cancels the future ends it."""
    return asyncio.run_coroutine_threadsafe(work, event_loop())
