"""What the gateway costs: added milliseconds and requests a second, beside LiteLLM's proxy, as a table.

    .venv/bin/python benchmarks/gateway_overhead.py --litellm build/litellm-env

One dummy backend that answers at once; before it our gateway in client-tools mode, with its record of every run
written before the answer leaves, and LiteLLM's proxy with its production settings and without database, logging and
telemetry. One worker process each, both check the API key. The three take turns, round by round, on the same cores;
the load comes from this process. The environment of LiteLLM is made when the folder is missing.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import uvloop
import yaml
from serving import Connection, free_port, post, server, state_folder

from agentrl_resources.settings import load_settings
from agentrl_resources.workflow import EpisodeFactory, load_workflow

WORKFLOW_FILE = Path(__file__).parents[1] / "workflow.yaml"
PATH = "/v1/chat/completions"
CALL = {
    "id": "call_0123456789abcdef",
    "type": "function",
    "function": {"name": "find_orders", "arguments": '{"customer_id":"C1042"}'},
}
ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "order_desk",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920},
}
"""The dummy's answer to everything."""


class Dummy(asyncio.Protocol):
    """The backend: answers as soon as it has the whole request."""

    _data = json.dumps(ANSWER).encode()
    _answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_data) + _data

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(self._answer)


async def serve_dummy(port: int) -> None:
    listening = await asyncio.get_running_loop().create_server(Dummy, "127.0.0.1", port)
    await listening.serve_forever()


@dataclass
class Target:
    """One of the three, and what was measured of it; milliseconds."""

    name: str
    port: int
    request: bytes
    alone: list[float] = field(default_factory=list)
    """Times at concurrency 1, of all rounds."""
    medians: list[float] = field(default_factory=list)
    """Their median in each round."""
    loaded: list[float] = field(default_factory=list)
    """Times under full load, of all rounds."""
    rates: list[float] = field(default_factory=list)
    """Requests a second under full load, of each round."""
    answered: int = 0


async def one_after_the_other(target: Target, requests: int) -> list[float]:
    connection = await Connection.open(target.port)
    times = [await _timed(connection, target) for _ in range(requests)]
    connection.close()
    return times


async def full_load(target: Target, seconds: float, concurrency: int) -> tuple[list[float], float]:
    """Times of all requests, and how many were answered in a second."""
    connections = [await Connection.open(target.port) for _ in range(concurrency)]
    times: list[float] = []
    started = time.perf_counter()

    async def work(connection: Connection) -> None:
        while time.perf_counter() - started < seconds:
            times.append(await _timed(connection, target))

    await asyncio.gather(*(work(connection) for connection in connections))
    rate = len(times) / (time.perf_counter() - started)
    for connection in connections:
        connection.close()
    return times, rate


async def _timed(connection: Connection, target: Target) -> float:
    started = time.perf_counter()
    status, body = await connection.ask(target.request)
    if status != 200:
        raise SystemExit(f"{target.name} answered {status}: {body.decode()[:500]}")
    target.answered += 1
    return 1000 * (time.perf_counter() - started)


async def check(target: Target, checks_keys: bool) -> None:
    """The same answer comes through, and without the right key none does."""
    connection = await Connection.open(target.port)
    _, body = await connection.ask(target.request)
    target.answered += 1
    (call,) = json.loads(body)["choices"][0]["message"]["tool_calls"]
    if call["function"] != CALL["function"]:
        raise SystemExit(f"{target.name} changes the answer: {body.decode()[:500]}")
    if checks_keys:
        status, _ = await connection.ask(post(PATH, "sk-wrong", target.request.partition(b"\r\n\r\n")[2]))
        if status not in (400, 401):
            raise SystemExit(f"{target.name} takes a wrong key: {status}")
    connection.close()


async def measure(targets: list[Target], options: argparse.Namespace) -> None:
    for target in targets:
        await check(target, checks_keys=target is not targets[0])
        await full_load(target, 3.0, options.concurrency)
    for number, target in itertools.product(range(options.rounds), targets):
        times = await one_after_the_other(target, options.requests)
        target.alone += times
        target.medians.append(statistics.median(times))
        times, rate = await full_load(target, options.seconds, options.concurrency)
        target.loaded += times
        target.rates.append(rate)
        said = f"{target.medians[-1]:.2f} ms, {rate:.0f} requests/s"
        print(f"round {number + 1} of {options.rounds}: {target.name}: {said}", file=sys.stderr, flush=True)


def table(backend: Target, ours: Target, litellm: Target, concurrency: int) -> str:
    floor = quantiles(backend.alone)
    added = {target.name: quantiles(target.alone) - floor for target in (ours, litellm)}
    ratio = added[litellm.name] / added[ours.name]
    rates = {target.name: statistics.median(target.rates) for target in (backend, ours, litellm)}
    lines = [
        f"| | p50 ms | p99 ms | added p50 ms | added p99 ms | requests/s at {concurrency} | (range) | p50 ms at "
        f"{concurrency} | p99 ms at {concurrency} |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for target in (backend, ours, litellm):
        p50, p99 = quantiles(target.alone)
        more = "".join(f" {value:.2f} |" for value in added[target.name]) if target.name in added else " | |"
        loaded50, loaded99 = quantiles(target.loaded)
        lines.append(
            f"| {target.name} | {p50:.2f} | {p99:.2f} |{more} {rates[target.name]:,.0f} | "
            f"{min(target.rates):,.0f} to {max(target.rates):,.0f} | {loaded50:.1f} | {loaded99:.1f} |"
        )
    faster = rates[ours.name] / rates[litellm.name]
    loaded = quantiles(litellm.loaded) / quantiles(ours.loaded)
    lines.append(
        f"| **ours better by** | | | ×{ratio[0]:.1f} | ×{ratio[1]:.1f} | ×{faster:.1f} | | ×{loaded[0]:.1f} | "
        f"×{loaded[1]:.1f} |"
    )
    better = sum(a < b and c > d for a, b, c, d in zip(ours.medians, litellm.medians, ours.rates, litellm.rates,
                                                       strict=True))  # fmt: skip
    lines += ["", f"Ours was faster on both in {better} of {len(ours.rates)} rounds."]
    return "\n".join(lines)


def quantiles(times: list[float]) -> np.ndarray:
    return np.quantile(times, [0.5, 0.99])


def litellm_command(folder: Path) -> Path:
    """LiteLLM's proxy in an environment of its own, which is made when the folder is missing."""
    if not folder.exists():
        print(f"making {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "litellm[proxy]"], check=True, stdout=sys.stderr)
    return folder / "bin" / "litellm"


def litellm_version(folder: Path) -> str:
    (found,) = folder.glob("lib/python*/site-packages/litellm-*.dist-info")
    return found.name.removeprefix("litellm-").removesuffix(".dist-info")


def request_body() -> bytes:
    """A first turn with the order desk's own tools and instructions, as an application would send it."""
    workflow = load_workflow("order_desk")
    body = {
        "model": "order_desk",
        "messages": [
            {"role": "system", "content": workflow.instructions},
            {"role": "user", "content": "Hello, this is Ada (customer C1042). The lamp of order 5817 came broken."},
        ],
        "tools": EpisodeFactory(workflow).tools,
    }
    return json.dumps(body).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, default=Path(tempfile.gettempdir()) / "litellm-env", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1000, help="one after the other, in each round")
    parser.add_argument("--seconds", type=float, default=8.0, help="of full load, in each round")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at the same time under full load")
    parser.add_argument("--dummy", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.dummy:
        uvloop.run(serve_dummy(options.dummy))
        return
    litellm = litellm_command(options.litellm)
    backend_port, gateway_port, litellm_port = free_port(), free_port(), free_port()
    backend_url = f"http://127.0.0.1:{backend_port}/v1"
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        home, workflow_file, config = folder / "home", folder / "workflow.yaml", folder / "litellm.yaml"
        workflow_file.write_text(f"{WORKFLOW_FILE.read_text()}gateway:\n  champion_url: {backend_url}\n")
        key, litellm_key = state_folder(home, load_settings(workflow_file)), "sk-a-key-of-the-benchmark"
        upstream = {"model": "openai/order_desk", "api_base": backend_url, "api_key": "none"}
        config.write_text(
            yaml.safe_dump(
                {
                    "model_list": [{"model_name": "order_desk", "litellm_params": upstream}],
                    "litellm_settings": {"set_verbose": False, "telemetry": False, "request_timeout": 600},
                    "general_settings": {"master_key": litellm_key, "disable_spend_logs": True},
                }
            )
        )
        running.enter_context(
            server([sys.executable, __file__, "--dummy", str(backend_port)], f"http://127.0.0.1:{backend_port}/")
        )
        gateway = [sys.executable, "-m", "agentrl_assets.cli", "gateway", "--home", str(home), "--admin-port", "0"]
        gateway += ["--workflow-file", str(workflow_file), "--port", str(gateway_port)]
        running.enter_context(server(gateway, f"http://127.0.0.1:{gateway_port}/ready"))
        running.enter_context(
            server(
                [str(litellm), "--config", str(config), "--host", "127.0.0.1", "--port", str(litellm_port),
                 "--num_workers", "1"],
                f"http://127.0.0.1:{litellm_port}/health/liveliness",
                {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                 "DISABLE_ADMIN_UI": "True"},
            )
        )  # fmt: skip
        body = request_body()
        targets = [
            Target("backend alone", backend_port, post(PATH, "none", body)),
            Target("AgentRL gateway", gateway_port, post(PATH, key, body)),
            Target(f"LiteLLM {litellm_version(options.litellm)}", litellm_port, post(PATH, litellm_key, body)),
        ]
        uvloop.run(measure(targets, options))
        backend, ours, theirs = targets
        records = sum(file.read_bytes().count(b"\n") for file in (home / "spool").glob("*.jsonl"))
        if records != ours.answered:
            raise SystemExit(f"{ours.answered} answers of the gateway, {records} records")
        print(table(backend, ours, theirs, options.concurrency))
        print(f"\nA request has {len(body):,} bytes. {records:,} answers of the gateway, as many records in its spool.")


if __name__ == "__main__":
    main()
