"""What the gateway's benchmarks share: a state folder with a champion, servers in processes of their own, and load."""

import asyncio
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httptools

from agentrl_resources.canary import rehearsal_release
from agentrl_resources.gateway import KeyRing
from agentrl_resources.release import Registry
from agentrl_resources.settings import Settings


def state_folder(home: Path, settings: Settings) -> str:
    """Makes a state folder with a champion, which needs no bundle where its policy is a server or a program.

    Returns an API key.
    """
    registry = Registry(home / "registry")
    release = rehearsal_release(registry, settings, "champion", "")
    registry.swap("benchmark", who="benchmark", why="to measure", seen=registry.pointers(), champions=(release,))
    return KeyRing(home / "keys.json").create("benchmark", simulated=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server(
    command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None, patience: float = 120.0
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server in a process of its own, from when `ready` answers 200; it is ended at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )

        def gone(said: str) -> SystemExit:
            log.seek(0)
            return SystemExit(f"{' '.join(command)} {said}:\n{log.read().decode()[-3000:]}")

        try:
            until = time.monotonic() + patience
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() > until:
                    raise gone("does not serve")
                time.sleep(0.1)
            yield process
            if process.poll() is not None:
                raise gone(f"ended with {process.returncode} while it was measured")
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


class Connection(asyncio.Protocol):
    """A client's kept-alive HTTP connection that costs next to nothing, so that the servers are what is measured."""

    def __init__(self) -> None:
        self.closed = False
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: Any = None

    @classmethod
    async def open(cls, port: int) -> "Connection":
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Sends a whole request; returns the answer's status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        assert self._answer is not None
        body, self._body = bytes(self._body), bytearray()
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        self._answer.set_result((status, body))


def post(path: str, key: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
