"""Crashes at every step: a forked process that kills itself (SIGKILL) before or after its n-th call to the system."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SYSTEM_CALLS = {"open", "write", "sendfile", "flush", "fsync", "close", "rename", "replace", "unlink", "mkdir", "rmdir"}


def killed_at_every_step(action: Callable[[int], Any]) -> Iterator[int]:
    """Run action(0), action(1), ..., each killed one step later than the one before, until one runs through.

    Yields the number of each that was killed, so that the caller can look at what it has left behind.
    """
    step = 0
    while _is_killed(action, step):
        yield step
        step += 1


def _is_killed(action: Callable[[int], Any], step: int) -> bool:
    process = os.fork()
    if process == 0:
        remaining = step

        def count(_: FrameType, event: str, function: Any) -> None:
            nonlocal remaining
            if event in ("c_call", "c_return") and getattr(function, "__name__", "") in SYSTEM_CALLS:
                if remaining == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                remaining -= 1

        sys.setprofile(count)
        try:
            action(step)
        finally:
            sys.setprofile(None)
            os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)
