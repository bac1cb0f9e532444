"""Runs the gateway: traffic and administration on two ports of one process, loopback unless asked otherwise."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError
from agentrl_resources.files import ArtifactStore, locked, write_atomic
from agentrl_resources.gateway.backends import Backend
from agentrl_resources.gateway.bundle import BundleBackend
from agentrl_resources.gateway.keys import KeyRing
from agentrl_resources.gateway.metrics import Metrics
from agentrl_resources.gateway.remote import RemoteBackend
from agentrl_resources.gateway.service import Gateway, Loader
from agentrl_resources.release import Manifest, Registry
from agentrl_resources.settings import Settings
from agentrl_resources.telemetry import Spool
from agentrl_resources.workflow import EpisodeFactory, Workflow


@dataclass(frozen=True)
class Address:
    """Where a gateway listens. Port 0 takes any that is free."""

    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081


@asynccontextmanager
async def serving(
    home: Path,
    settings: Settings,
    workflow: Workflow,
    address: Address,
    registry: Registry | None = None,
    load: Loader | None = None,
) -> AsyncIterator[tuple[Gateway, Address]]:
    """A gateway that answers, with the addresses it got; at the end it finishes what is under way.

    Keys, spool and the secret that session keys are hashed with lie below `home`. `registry` and `load` default to
    the state folder's own registry and to the backends of the settings.
    """
    factory = EpisodeFactory(workflow)
    gateway = Gateway(
        registry or Registry(home / "registry"),
        Spool(home / "spool"),
        workflow,
        load or backends(settings, ArtifactStore(home), factory),
        settings.gateway,
        session_secret(home),
        Metrics(),
    )
    from agentrl_resources.gateway.app import Routes

    routes = Routes(gateway, factory, KeyRing(home / "keys.json"), settings.evaluation.temperature)
    await gateway.start()
    try:
        seconds = settings.gateway.body_seconds
        async with (
            _listening(routes.traffic(), address.host, address.port, seconds) as port,
            _listening(routes.admin(), address.admin_host, address.admin_port, seconds) as admin_port,
        ):
            yield gateway, Address(address.host, port, address.admin_host, admin_port)
    finally:
        await gateway.stop()


def serve(home: Path, settings: Settings, workflow: Workflow, address: Address, say: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. One gateway a state folder; AgentRLError when there is one already."""

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with serving(home, settings, workflow, address) as (gateway, found):
            if not KeyRing(home / "keys.json").list():
                say("there is no API key yet, so every request is refused. Make one: agentrl keys create NAME")
            say(f"traffic on http://{found.host}:{found.port}/v1, administration on port {found.admin_port}")
            say(f"champion {gateway.champion.release[:12]}" if gateway.champion else "no champion")
            await stop.wait()
            say("stopping: what is under way is finished first")

    with locked(home / "gateway" / "lock", wait_seconds=1):
        import uvloop

        uvloop.run(until_told())


def is_served(home: Path) -> bool:
    """Whether a gateway serves this state folder."""
    try:
        with locked(home / "gateway" / "lock", wait_seconds=0):
            return False
    except AgentRLError:
        return True


def backends(settings: Settings, store: ArtifactStore, factory: EpisodeFactory) -> Loader:
    """Loads a channel's policy: from its bundle, or from the server that the settings name for the channel."""
    options = settings.gateway
    servers = {
        "general": (options.champion_url, options.champion_model),
        "canary": (options.canary_url, options.canary_model),
    }

    def load(channel: str, release: str, manifest: Manifest) -> Backend:
        url, model = servers[channel]
        if url is not None:
            key = os.environ.get(options.upstream_key_variable) if options.upstream_key_variable else None
            return RemoteBackend(url, model, key, factory.tools)
        entry = manifest["artifacts"]["policy"]
        return BundleBackend(store.get(entry["kind"], entry["digest"]).path, factory, options.concurrency)

    return load


def session_secret(home: Path) -> bytes:
    """The secret that session keys are hashed with before they are stored; made once."""
    path = home / "gateway" / "session_secret"
    with locked(home / "gateway" / "secret.lock"):
        if not path.exists():
            write_atomic(path, secrets.token_hex(32))
            path.chmod(0o600)
        return bytes.fromhex(path.read_text())


@asynccontextmanager
async def _listening(application: Any, host: str, port: int, seconds: float) -> AsyncIterator[int]:
    """Serves an ASGI application; yields the port."""
    import uvicorn

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise AgentRLError(
                f"{host}:{port} cannot be listened on: {error.strerror}. Choose another port."
            ) from error
        config = uvicorn.Config(
            application,
            http=_protocol(seconds),
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="critical",  # a traceback may hold what a customer said
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=60,
        )
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment]  # whoever serves decides when it ends
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


def _protocol(seconds: float) -> type:
    """uvicorn's HTTP protocol, which waits for ever for a request's head, with a limit to its patience."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Impatient(HttpToolsProtocol):
        _waiting: asyncio.TimerHandle | None = None

        def data_received(self, data: bytes) -> None:
            if self._waiting is None and (self.cycle is None or self.cycle.response_complete):
                self._waiting = self.loop.call_later(seconds, self.transport.close)
            super().data_received(data)

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._waiting = self.loop.call_later(seconds, transport.close)

        def on_headers_complete(self) -> None:
            self._patient()
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._patient()
            super().connection_lost(exc)

        def _patient(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Impatient
