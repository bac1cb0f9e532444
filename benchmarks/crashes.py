"""Is anything lost or counted twice when processes are killed (SIGKILL) at random moments? As a table.

    .venv/bin/python benchmarks/crashes.py --kills 50

Two processes write to a spool as a gateway does (runs, labels before and after their run, events) and say what was
accepted, while a third takes the spool into a warehouse. Each is killed at a moment of its own and started again. At
the end the spool is ingested once more and compared with what the writers said and with what stands in its files.

A whole gateway is killed while customers ask it over HTTP (every answer that arrived must be on record, once), and a
process that promotes and rolls back without a pause (the pointers must be whole after each kill, and no change that was
said to be done may be gone).
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from agentrl_resources.canary import ScriptedBackend
from agentrl_resources.gateway import Address, serving
from agentrl_resources.release import Registry
from agentrl_resources.settings import load_settings
from agentrl_resources.telemetry import RunRecord, Spool, Warehouse
from agentrl_resources.workflow import load_workflow

WORKFLOW_FILE = Path(__file__).parents[1] / "workflow.yaml"

SEGMENT_BYTES = 32_768  # small, so that writers are killed around rotations too


@dataclass(frozen=True)
class Row:
    """`accepted`: what was said to be done, runs, labels and events; `lost` and `doubled` of them."""

    what: str
    kills: int
    accepted: int
    lost: int
    doubled: int
    seconds: float


def spool_and_ingest(folder: Path, kills: int, rng: random.Random) -> list[Row]:
    """Kill two writers and an ingest `kills` times each, all three at once."""
    spool, warehouse = folder / "spool", Warehouse(folder / "warehouse.duckdb")
    warehouse.ingest([])  # so that no process has to wait for another that makes the file
    accepted: list[set[str]] = [set(), set()]
    started = time.monotonic()

    def write(writer: int, moments: random.Random) -> None:
        for number in range(kills):
            said = _killed(["write", str(spool), f"{writer}-{number}"], moments.uniform(0, 0.5))
            accepted[writer].update(said)

    def ingest(moments: random.Random) -> None:
        for _ in range(kills):
            _killed(["ingest", str(spool), str(warehouse.path)], moments.uniform(0, 0.5))

    seeds = [random.Random(rng.random()) for _ in range(3)]
    threads = [threading.Thread(target=write, args=(writer, seeds[writer])) for writer in (0, 1)]
    threads.append(threading.Thread(target=ingest, args=(seeds[2],)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    warehouse.ingest_spool(spool)
    took = time.monotonic() - started

    stored = _stored(warehouse)
    written = _written(spool)
    rows = [Row("writer", kills, len(said), len(said - set(stored)), 0, took) for said in accepted]
    lost, doubled = len(set(written) - set(stored)), len(stored) - len(set(stored))
    return [*rows, Row("ingest", kills, len(written), lost, doubled + len(set(stored) - set(written)), took)]


def gateway(folder: Path, kills: int, rng: random.Random) -> Row:
    """Kill a gateway `kills` times while 16 customers ask; what they were answered is what was accepted."""
    from serving import state_folder  # lies beside this file

    key = state_folder(folder, load_settings(WORKFLOW_FILE))
    answered: list[str] = []
    started = time.monotonic()
    for number in range(kills):
        process = subprocess.Popen([sys.executable, __file__, "serve", str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        answered += asyncio.run(_asked(port, key, number, process, rng.uniform(0.05, 0.6)))
        process.wait()
    warehouse = Warehouse(folder / "warehouse.duckdb")
    warehouse.ingest_spool(folder / "spool")
    stored = [row["run_id"] for row in warehouse.query("SELECT run_id FROM agent_runs")]
    doubled = len(stored) - len(set(stored)) + len(answered) - len(set(answered))
    return Row("gateway", kills, len(answered), len(set(answered) - set(stored)), doubled, time.monotonic() - started)


async def _asked(port: int, key: str, seed: int, process: "subprocess.Popen[str]", seconds: float) -> list[str]:
    """Asks until the gateway is killed, `seconds` from now; returns the ids of the answers that arrived."""
    workflow = load_workflow("order_desk")
    tasks = iter(workflow.tasks("holdout", 2000, seed))
    ids: list[str] = []

    async def customer(http: aiohttp.ClientSession) -> None:
        for task in tasks:
            body = {"model": workflow.name, "messages": [{"role": "user", "content": "x"}],
                    "task": {"task_id": task.task_id, "payload": dict(task.payload)}}  # fmt: skip
            try:
                async with http.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as response:
                    ids.append((await response.json())["id"])
            except aiohttp.ClientError:
                return

    async def kill() -> None:
        await asyncio.sleep(seconds)
        process.kill()

    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as http:
        await asyncio.gather(kill(), *(customer(http) for _ in range(16)))
    return ids


def promotion(folder: Path, kills: int, rng: random.Random) -> Row:
    """Kill a process that moves the pointers `kills` times. Lost: a change that was said and is gone, or a torn one."""
    registry = Registry(folder / "registry")
    releases = [registry.add({"name": name}) for name in ("one", "other")]
    first = registry.swap("start", who="crashes", why="to break", seen=registry.pointers(), champions=(releases[0],))
    lost, started = 0, time.monotonic()
    said, known = [str(first.revision)], first.revision
    for _ in range(kills):
        said += _killed(["promote", str(folder), releases[1]], rng.uniform(0, 0.2))
        state = Registry(folder / "registry").pointers()
        whole = state.champion in releases and next(registry.history()) == state
        # one more than was said, or was there after the kill before, may be done: it was cut off before it was said
        known = max(known, int(said[-1]))
        lost += not (whole and state.revision in (known, known + 1))
        known = state.revision
    doubled = len(said) - len(set(said))
    return Row("promotion", kills, len(said), lost, doubled, time.monotonic() - started)


def _promote(folder: Path, release: str) -> None:
    registry = Registry(folder / "registry")
    print("ready", flush=True)
    while True:
        seen = registry.pointers()
        promoted = (*seen.champions, release) if len(seen.champions) == 1 else seen.champions[:-1]
        state = registry.swap("promote", who="crashes", why="to break", seen=seen, champions=promoted)
        os.write(1, f"{state.revision}\n".encode())


async def _serve(folder: Path) -> None:
    workflow = load_workflow("order_desk")
    policy = ScriptedBackend(lambda task, seed: workflow.scripted_agents(task)["expert"])
    settings = load_settings(WORKFLOW_FILE)
    address = Address(port=0, admin_port=0)
    async with serving(folder, settings, workflow, address, load=lambda *_: policy) as (_, found):
        print(found.port, flush=True)
        await asyncio.Event().wait()


def _killed(arguments: list[str], after: float) -> list[str]:
    """Start a process, kill it `after` seconds of work, and return the lines that it has said."""
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{arguments[0]} did not start")
    time.sleep(after)
    process.kill()
    said = process.communicate()[0]
    if process.returncode != -9:
        raise SystemExit(f"{arguments[0]} ended by itself")
    return [line.rstrip("\n") for line in said.splitlines(keepends=True) if line.endswith("\n")]


def _stored(warehouse: Warehouse) -> list[str]:
    """What the warehouse holds, in the writers' words."""
    runs = warehouse.query("SELECT 'run ' || run_id AS said FROM agent_runs")
    labels = warehouse.query("SELECT 'label ' || run_id AS said FROM run_labels")
    events = warehouse.query("SELECT 'event ' || (document ->> '$.number') AS said FROM gateway_events")
    return [row["said"] for row in [*runs, *labels, *events]]


def _written(spool: Path) -> list[str]:
    """What stands in the files, in the writers' words."""
    lines = [json.loads(line) for path in spool.iterdir() for line in path.read_bytes().split(b"\n")[:-1]]
    words: dict[str, Callable[[dict], str]] = {
        "run": lambda line: f"run {line['record']['run_id']}",
        "label": lambda line: f"label {line['run_id']}",
        "event": lambda line: f"event {line['number']}",
    }
    return [words[line["kind"]](line) for line in lines]


def _write(folder: Path, name: str) -> None:
    spool = Spool(folder, max_bytes=SEGMENT_BYTES, sync_seconds=0.02)
    at = "2026-11-22T10:00:00Z"
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        run_id = f"{name}-{number}"
        record = RunRecord(
            run_id=run_id,
            workflow="crashes",
            task_id="task",
            started_at=at,
            release_channel="general",
            trace={"n": "x" * 500},
        )
        lines: list[tuple[str, Callable[[], None]]] = [
            (f"run {run_id}", lambda record=record: spool.append_run(record))
        ]
        if number % 3 == 0:
            label = {"run_id": run_id, "labelled_at": at, "success": True}
            lines.insert(number % 2, (f"label {run_id}", lambda label=label: spool.append("label", label)))
        if number % 5 == 0:
            event = {"event": "failback", "at": at, "number": run_id}
            lines.append((f"event {run_id}", lambda event=event: spool.append("event", event)))
        for said, append in lines:
            append()
            os.write(1, f"{said}\n".encode())
        time.sleep(0.001)


def _ingest(folder: Path, path: Path) -> None:
    import duckdb  # noqa: F401  (loaded before the clock starts)

    print("ready", flush=True)
    while True:
        Warehouse(path, wait_seconds=60).ingest_spool(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each process")
    parser.add_argument("--seed", type=int, default=17)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(options.seed)
        rows = spool_and_ingest(Path(folder), options.kills, rng)
        rows.append(gateway(Path(folder) / "gateway", options.kills, rng))
        rows.append(promotion(Path(folder) / "promotion", options.kills, rng))
    print("| killed | times | accepted | lost | counted twice | seconds |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.kills} | {row.accepted} | {row.lost} | {row.doubled} | {row.seconds:.0f} |")
    raise SystemExit(any(row.lost or row.doubled for row in rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        _write(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["ingest"]:
        _ingest(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(Path(sys.argv[2])))
    elif sys.argv[1:2] == ["promote"]:
        _promote(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
