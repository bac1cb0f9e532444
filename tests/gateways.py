"""A real gateway on real ports, in a thread of its own, for tests."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import openai

from agentrl_resources.canary import Fault, FaultyBackend, ScriptedBackend
from agentrl_resources.gateway import Address, Backend, Gateway, KeyRing, goes_to_canary, serving
from agentrl_resources.release import Registry
from agentrl_resources.settings import Settings, load_settings
from agentrl_resources.telemetry import RunRecord, read_new
from agentrl_resources.workflow import Task, Workflow, load_workflow

WORKFLOW = load_workflow("order_desk")
WORKFLOW_FILE = Path(__file__).parents[1] / "workflow.yaml"


def settings_with(**gateway: Any) -> Settings:
    """The project's settings with other ones for the gateway."""
    settings = load_settings(WORKFLOW_FILE)
    return settings.model_copy(update={"gateway": settings.gateway.model_copy(update=gateway)})


def manifest(name: str) -> dict[str, Any]:
    """What the gateway reads of a release."""
    names = {"baseline": "sft", "reward_model": "rm", "policy_training": "ppo"}
    return {"name": name, "artifacts": {}, "settings": {"workflow": names}, "routing": {"salt": name, "buckets": 10000}}


@dataclass
class Running:
    """A gateway that answers. `call` runs a coroutine function in its event loop and returns the result."""

    home: Path
    url: str
    admin_url: str
    key: str
    gateway: Gateway
    registry: Registry
    workflow: Workflow
    releases: dict[str, str]
    fault: Fault
    call: Callable[..., Any]

    def start_canary(self, percent: float) -> None:
        """Points the canary at its release and waits until the gateway has it."""
        pointers = self.registry.pointers()
        self.registry.swap("test", who="test", why="test", seen=pointers, canary=self.releases["canary"],
                           canary_percent=percent)  # fmt: skip
        self.wait(lambda: self.gateway.canary is not None and self.gateway.canary.percent == percent)

    def wait(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Until the condition holds."""

        async def until() -> None:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.01)

        self.call(until)

    def records(self) -> list[RunRecord]:
        """What the spool holds."""
        return read_new(self.home / "spool", {}).runs

    def events(self) -> list[dict[str, Any]]:
        return [event["document"] for event in read_new(self.home / "spool", {}).events]


def expert_policy(workflow: Workflow) -> ScriptedBackend:
    """The policy that is always right."""

    def choose(task: Task, seed: int) -> Any:
        return workflow.scripted_agents(task)["expert"]

    return ScriptedBackend(choose)


@contextlib.contextmanager
def running(
    home: Path, settings: Settings | None = None, champion: Backend | None = None, workflow: Workflow = WORKFLOW
) -> Iterator[Running]:
    """A gateway with scripted policies: an expert as the champion, and one with a switchable fault as the canary."""
    settings = settings or settings_with()
    registry = Registry(home / "registry")
    releases = {name: registry.add(manifest(name)) for name in ("champion", "canary")}
    registry.swap("test", who="test", why="test", seen=registry.pointers(), champions=(releases["champion"],))
    fault = Fault()

    def load(channel: str, release: str, manifest: dict[str, Any]) -> Backend:
        expert = expert_policy(workflow)
        if release == releases["champion"]:
            return champion or expert
        return FaultyBackend(expert, fault, workflow)

    key = KeyRing(home / "keys.json").create("tests", simulated=True, admin=True)
    loop = asyncio.new_event_loop()
    started: Any = threading.Event()
    found: dict[str, Any] = {}
    stop = asyncio.Event()

    async def serve() -> None:
        try:
            async with serving(home, settings, workflow, Address(port=0, admin_port=0), registry, load) as pair:
                found["gateway"], found["address"] = pair
                started.set()
                await stop.wait()
        except BaseException as error:
            found["error"] = error
            started.set()
            raise

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(function(*arguments), loop).result(60)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    started.wait(30)
    if "error" in found:
        raise found["error"]
    address = found["address"]
    url, admin_url = f"http://127.0.0.1:{address.port}", f"http://127.0.0.1:{address.admin_port}"
    try:
        yield Running(home, url, admin_url, key, found["gateway"], registry, workflow, releases, fault, call)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def client(served: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0)


def tasks(count: int, split: str = "holdout") -> list[Task]:
    return WORKFLOW.tasks(split, count, 11)


def ask(served: Running, task: Task, user: str | None = None, **more: Any) -> Any:
    return client(served).chat.completions.create(
        model="order_desk",
        messages=[{"role": "user", "content": "hello"}],
        extra_body={"task": context(task)},
        **({"user": user} if user else {}),
        **more,
    )


def context(task: Task) -> dict[str, Any]:
    return {"task_id": task.task_id, "task_type": task.task_type, "payload": dict(task.payload)}


def raw(
    served: Running,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    admin: bool = False,
) -> tuple[int, Any]:
    """One plain HTTP request, with the key unless `headers` say otherwise."""
    place = (served.admin_url if admin else served.url).removeprefix("http://")
    connection = http.client.HTTPConnection(place, timeout=10)
    sent = {"authorization": f"Bearer {served.key}", "content-type": "application/json"} | (headers or {})
    data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
    connection.request(method, path, data, sent)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] in b"{[" else content.decode()


def sessions_of(served: Running, canary: bool, percent: float, count: int) -> list[str]:
    """Names of sessions that go to the canary, or do not."""
    names = (f"session {number}" for number in range(100_000))
    return list(islice((name for name in names if goes_to_canary("canary", name, percent) == canary), count))
