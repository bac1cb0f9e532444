#!/usr/bin/env python3
"""What an MCP server costs an episode: CPU time of its start and of a call, on both sides."""

import sys
import time
from pathlib import Path

import psutil

from agentrl_resources.adaptors.mcp import McpServer

TESTS = Path(__file__).parents[1] / "tests"
CALLS = 500


class Sdk(McpServer):
    command = (sys.executable, str(TESTS / "mcp_server.py"))
    tool = ("add", {"a": 1, "b": 2})


class Plain(McpServer):
    command = (sys.executable, "-S", str(TESTS / "mcp_plain_server.py"))
    tool = ("count", {})


def spent() -> tuple[float, float]:
    """CPU seconds of this process, and of those that it started."""
    here = psutil.Process()
    return sum(here.cpu_times()[:2]), sum(sum(one.cpu_times()[:2]) for one in here.children())


def main() -> None:
    Plain().server.close()  # so that the client's libraries are there
    for kind, what in ((Sdk, "made with the official package"), (Plain, "of few lines")):
        name, arguments = kind.tool
        environment = kind()  # which has to be held: a server ends with it
        server = environment.server
        server.call(name, **arguments)
        _, started = spent()
        before = spent()
        for _ in range(CALLS):
            server.call(name, **arguments)
        client, there = ((after - then) / CALLS * 1000 for after, then in zip(spent(), before, strict=True))
        print(f"a server {what}: start {started:.2f} s, a call {there:.1f} ms, and {client:.1f} ms of the client's")
        server.close()
        time.sleep(3)  # so that nothing of it is counted for the next


if __name__ == "__main__":
    main()
