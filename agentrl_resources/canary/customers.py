"""Simulated customers: they send a workflow's tasks to a gateway over HTTP, as its application would."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agentrl_resources.workflow import Task, Workflow

SPLIT = "holdout"
"""The tasks customers bring: ordinary ones, and attempts to make the agent do wrong. No policy trained on them."""
_TASKS_AT_ONCE = 200


@dataclass
class Customers:
    """So many customers, each with a session of its own, one after the other without a pause.

    `url` is the gateway's (`http://host:port`). Which tasks there are depends on `seed` alone.
    """

    url: str
    key: str
    workflow: Workflow
    seed: int
    at_once: int = 24
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers by HTTP status; 0 for a connection that broke."""
    latencies_ms: list[float] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """They ask as long as the block lasts; what is under way at its end is answered first."""
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:  # customers that fail end the block, which may wait for them
                group.create_task(self.run(stop))
                yield
                stop.set()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def answered(self, more: int) -> None:
        """Waits until so many further requests have been answered."""
        wanted = self.statuses.total() + more
        async with self._news:
            await self._news.wait_for(lambda: self.statuses.total() >= wanted)

    async def run(self, stop: asyncio.Event, most: int | None = None) -> None:
        """Asks until `stop` is set, or `most` requests have been sent."""
        import aiohttp

        tasks = itertools.islice(self._tasks(), most)
        async with aiohttp.ClientSession(
            headers={"authorization": f"Bearer {self.key}"}, connector=aiohttp.TCPConnector(limit=0)
        ) as http:
            await asyncio.gather(*(self._customer(http, tasks, stop) for _ in range(self.at_once)))

    async def _customer(self, http: Any, tasks: Iterator[tuple[int, Task]], stop: asyncio.Event) -> None:
        import aiohttp

        while not stop.is_set() and (found := next(tasks, None)) is not None:
            number, task = found
            body = {
                "model": self.workflow.name,
                "user": f"customer {self.seed}-{number}",
                "messages": [{"role": "user", "content": "(see the task)"}],
                "task": {"task_id": task.task_id, "task_type": task.task_type, "payload": dict(task.payload)},
            }
            started = time.perf_counter()
            try:
                async with http.post(f"{self.url}/v1/chat/completions", json=body) as response:
                    await response.read()
                    self.statuses[response.status] += 1
            except aiohttp.ClientError:
                self.statuses[0] += 1
                await asyncio.sleep(0.05)
            self.latencies_ms.append(1000 * (time.perf_counter() - started))
            async with self._news:
                self._news.notify_all()

    def _tasks(self) -> Iterator[tuple[int, Task]]:
        """Tasks without end, made block by block."""
        for block in itertools.count():
            made = self.workflow.tasks(SPLIT, _TASKS_AT_ONCE, self.seed + block)
            yield from enumerate(made, start=block * _TASKS_AT_ONCE)
