"""Does the gateway's memory grow? Open-loop load at a bounded rate for minutes, its memory over time, and the slope.

    .venv/bin/python benchmarks/gateway_soak.py --minutes 10 --rate 50 --picture soak.png
    .venv/bin/python benchmarks/gateway_soak.py --minutes 60 --rate 5 --champion .agentrl

The gateway plays whole episodes (agent mode) of the order desk, with tools, tool policy, metrics and spool, in a
process of its own, with a scripted policy or with the champion of a state folder; requests leave this one at fixed
times, whether or not earlier ones are answered, every fifth of them streamed. The slope is fitted without the first
fifth of the time, in which caches fill; its interval is a bootstrap of blocks of residuals, since samples that follow
each other are alike. Exit code 1 when an answer is not 200 or not on record, or when all of the interval is above the
limit.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from serving import Connection, free_port, post, server, state_folder

from agentrl_resources.canary import ScriptedBackend
from agentrl_resources.files import ArtifactStore
from agentrl_resources.gateway import Address, Backend, Loader, backends, serving
from agentrl_resources.plotting import BAD, CANDIDATE, picture
from agentrl_resources.release import Registry
from agentrl_resources.settings import load_settings
from agentrl_resources.workflow import EpisodeFactory, Task, load_workflow

SETTINGS = load_settings(Path(__file__).parents[1] / "workflow.yaml")
WORKFLOW = load_workflow("order_desk")
MIB = 2**20


async def serve_gateway(home: Path, port: int, champion: Path | None) -> None:
    """The gateway; keys and spool lie in `home`, whoever is the champion."""
    load: Loader = scripted
    if champion is not None:  # its policy, in a registry of this benchmark's own
        theirs, registry = Registry(champion / "registry"), Registry(home / "registry")
        release = registry.add(theirs.manifest(theirs.resolve("champion")))
        registry.swap("benchmark", who="benchmark", why="to measure", seen=registry.pointers(), champions=(release,))
        load = backends(SETTINGS, ArtifactStore(champion), EpisodeFactory(WORKFLOW))
    async with serving(home, SETTINGS, WORKFLOW, Address(port=port, admin_port=0), load=load):
        await asyncio.Event().wait()


def scripted(channel: str, release: str, manifest: Any) -> Backend:
    """A policy that is a program, and fails now and then."""

    def choose(task: Task, seed: int) -> Any:
        agents = WORKFLOW.scripted_agents(task)
        return agents["expert" if seed % 10 else "does_nothing"]

    return ScriptedBackend(choose)


@dataclass
class Load:
    """Requests at fixed times, over connections that are used again and opened when none is free."""

    port: int
    requests: list[bytes]
    rate: float
    statuses: Counter[int] = field(default_factory=Counter)
    """0 for a connection that broke, or could not be had."""
    seconds: list[float] = field(default_factory=list)
    """From the time at which a request was due to its answer."""
    _idle: list[Connection] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        start, under_way = loop.time(), set()
        for number in range(int(seconds * self.rate)):
            due = start + number / self.rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = asyncio.create_task(self._ask(self.requests[number % len(self.requests)], due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _ask(self, request: bytes, due: float) -> None:
        self._idle = [connection for connection in self._idle if not connection.closed]
        try:
            connection = self._idle.pop() if self._idle else await Connection.open(self.port)
            status, _ = await connection.ask(request)
        except OSError:
            status = 0
        else:
            self._idle.append(connection)
        self.statuses[status] += 1
        self.seconds.append(asyncio.get_running_loop().time() - due)


def requests(key: str, count: int = 2000) -> list[bytes]:
    """Requests of as many customers, every fifth streamed."""
    tasks = WORKFLOW.tasks("holdout", count, SETTINGS.seed)
    random.Random(SETTINGS.seed).shuffle(tasks)
    made = []
    for number, task in enumerate(tasks):
        body = {
            "model": WORKFLOW.name,
            "user": f"customer {number}",
            "stream": number % 5 == 0,
            "messages": [{"role": "user", "content": "(see the task)"}],
            "task": {"task_id": task.task_id, "task_type": task.task_type, "payload": dict(task.payload)},
        }
        made.append(post("/v1/chat/completions", key, json.dumps(body).encode()))
    return made


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB


async def sampled(pid: int, every: float, samples: list[tuple[float, float]]) -> None:
    """Adds (seconds since the start, MiB) until it is cancelled."""
    started = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, started + number * every - time.monotonic()))
        samples.append((time.monotonic() - started, resident(pid)))


def slope(seconds: np.ndarray, mib: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """MiB an hour by least squares, and its 95 % interval."""
    hours = seconds / 3600
    line = np.polynomial.Polynomial.fit(hours, mib, 1).convert()
    residuals = mib - line(hours)
    block = max(2, round(len(mib) ** 0.5))
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(mib) - block + 1, (draws, -(-len(mib) // block)))
    drawn = residuals[(starts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, : len(mib)]]
    centred = hours - hours.mean()
    slopes = line.coef[1] + drawn @ centred / (centred @ centred)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return float(line.coef[1]), float(low), float(high)


async def soak(pid: int, load: Load, options: argparse.Namespace) -> list[tuple[float, float]]:
    samples: list[tuple[float, float]] = []
    sampling = asyncio.create_task(sampled(pid, options.every, samples))
    await load.run(60 * options.minutes)
    sampling.cancel()
    return samples


def draw(path: Path, seconds: np.ndarray, mib: np.ndarray, from_: int, fitted: tuple[float, float, float]) -> None:
    minutes = seconds / 60
    per_hour, low, high = fitted
    middle = seconds[from_:].mean()
    with picture(path) as axes:
        axes.plot(minutes, mib, color=CANDIDATE, linewidth=1.2)
        axes.plot(minutes[from_:], mib[from_:].mean() + per_hour * (seconds[from_:] - middle) / 3600, color=BAD,
                  linewidth=1, linestyle="--", label=f"{per_hour:+.2f} MiB/h ({low:+.2f} to {high:+.2f})")  # fmt: skip
        axes.set(title="The gateway's memory", xlabel="minutes", ylabel="resident MiB", ylim=(0, 1.25 * mib.max()))
        axes.legend(loc="lower right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--limit", type=float, default=50, help="MiB an hour that memory may grow")
    parser.add_argument("--champion", type=Path, metavar="HOME", help="state folder whose champion serves")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--serve", nargs=2, metavar=("HOME", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve_gateway(Path(options.serve[0]), int(options.serve[1]), options.champion))
        return
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), free_port()
        load = Load(port, requests(state_folder(home, SETTINGS)), options.rate)
        command = [sys.executable, __file__, "--serve", folder, str(port)]
        command += ["--champion", str(options.champion)] if options.champion else []
        with server(command, f"http://127.0.0.1:{port}/ready") as process:
            samples = uvloop.run(soak(process.pid, load, options))
        records = sum(file.read_bytes().count(b'{"kind":"run"') for file in (home / "spool").glob("*.jsonl"))
    seconds, mib = np.array(samples).T
    from_ = len(mib) // 5
    fitted = slope(seconds[from_:], mib[from_:])
    if options.picture:
        draw(options.picture, seconds, mib, from_, fitted)
    answered = sum(load.statuses.values())
    statuses = ", ".join(f"{status}: {n:,}" for status, n in sorted(load.statuses.items()))
    p50, p99 = 1000 * np.quantile(load.seconds, [0.5, 0.99])
    print(f"requests   {answered:,} in {options.minutes:g} minutes, {options.rate:g} a second; by status {statuses}")
    print(f"answers    p50 {p50:.1f} ms, p99 {p99:.1f} ms from when they were due; {records:,} run records")
    print(f"memory     start {mib[0]:.1f} MiB, end {mib[-1]:.1f}, highest {mib.max():.1f}")
    print("growth     {:+.2f} MiB an hour, 95 % interval {:+.2f} to {:+.2f}".format(*fitted))
    if fitted[1] > options.limit or not answered == records == load.statuses[200]:
        raise SystemExit(f"the soak failed: every answer is to be 200 and on record, growth at most {options.limit:g}")


if __name__ == "__main__":
    main()
