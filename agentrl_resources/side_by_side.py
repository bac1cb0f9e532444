"""Work that is cut in pieces and done in processes side by side, one core each.

Many small operations gain little from a second thread, and two threads of Python share one interpreter. Two processes
with a thread each finish sooner (docs/performance.md).
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from agentrl_resources.errors import AgentRLError
from agentrl_resources.forkserver import Forked, Say

__all__ = ["Say", "cores", "side_by_side"]

T = TypeVar("T")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(work: Callable[[Say, Any], T], pieces: Sequence[Any], heard: Callable[[int, Any], None]) -> list[T]:
    """`work(say, piece)` for each piece, each in a process of its own; the results in the order of the pieces.

    They divide the cores among them. `work`, pieces and results are pickled. `heard(number, message)` is called here
    with what each piece says. A single piece is done in this process. AgentRLError of a piece is raised here; so is one
    for a process that was killed. When one piece fails the others are ended.
    """
    if len(pieces) == 1:
        return [work(partial(heard, 0), pieces[0])]
    processes: list[Forked] = []
    try:
        threads = max(1, cores() // len(pieces))
        processes.extend(Forked(_with_threads, (threads, work, piece)) for piece in pieces)
        return _gather(processes, heard)
    finally:
        for process in processes:
            process.end()


def _gather(processes: Sequence[Forked], heard: Callable[[int, Any], None]) -> list[Any]:
    numbers = {process.connection: number for number, process in enumerate(processes)}
    results: dict[int, Any] = {}
    while len(results) < len(processes):
        for connection in wait([end for end, number in numbers.items() if number not in results]):
            number = numbers[cast(Connection, connection)]
            try:
                kind, content = processes[number].read()
            except EOFError:
                raise AgentRLError(
                    f"piece {number + 1} of {len(processes)} ended without a result: was it killed?"
                ) from None
            if kind == "said":
                heard(number, content)
            elif kind == "failed":
                raise content
            else:
                results[number] = content
    return [results[number] for number in range(len(processes))]


def _with_threads(say: Say, call: tuple[int, Callable[[Say, Any], Any], Any]) -> Any:
    threads, work, piece = call
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that are loaded later
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    return work(say, piece)
