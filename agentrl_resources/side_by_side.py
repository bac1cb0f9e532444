"""Work that is cut in pieces and done in processes side by side, one core each.

Many small operations gain little from a second thread, and two threads of Python share one interpreter. Two processes
with a thread each finish sooner (docs/performance.md).
"""

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from agentrl_resources.errors import AgentRLError

T = TypeVar("T")

Say = Callable[[Any], None]
"""With which a piece tells how far it is, while it works."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(work: Callable[[Say, Any], T], pieces: Sequence[Any], heard: Callable[[int, Any], None]) -> list[T]:
    """`work(say, piece)` for each piece, each in a process of its own; the results in the order of the pieces.

    `work`, pieces and results are pickled. `heard(number, message)` is called here with what each piece says. A single
    piece is done in this process. AgentRLError of a piece is raised here; so is one for a process that was killed. When
    one piece fails the others are ended.
    """
    if len(pieces) == 1:
        return [work(partial(heard, 0), pieces[0])]
    context = multiprocessing.get_context("spawn")
    processes, ends = [], []
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the libraries are loaded, which is before any of our code runs
    try:
        for number, piece in enumerate(pieces):
            ours, theirs = context.Pipe()
            process = context.Process(target=_do, args=(work, piece, theirs), name=f"piece {number}", daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    try:
        return _gather(ends, heard)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _gather(ends: Sequence[Connection], heard: Callable[[int, Any], None]) -> list[Any]:
    results: dict[int, Any] = {}
    while len(results) < len(ends):
        for end in wait([end for number, end in enumerate(ends) if number not in results]):
            number = ends.index(end)
            try:
                kind, content = ends[number].recv()
            except EOFError:
                raise AgentRLError(
                    f"piece {number + 1} of {len(ends)} ended without a result: was it killed?"
                ) from None
            if kind == "said":
                heard(number, content)
            elif kind == "failed":
                raise content
            else:
                results[number] = content
    return [results[number] for number in range(len(ends))]


def _do(work: Callable[[Say, Any], Any], piece: Any, end: Connection) -> None:
    end_with_parent()
    try:
        end.send(("done", work(lambda message: end.send(("said", message)), piece)))
    except AgentRLError as failure:
        end.send(("failed", failure))
    except Exception as failure:  # not every exception can be pickled
        traceback.print_exc()
        end.send(("failed", AgentRLError(f"{type(failure).__name__}: {failure}")))


def end_with_parent(every_seconds: float = 1.0) -> None:
    """Ends this process soon after the one that launched it: an orphan would write where the next run does."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
