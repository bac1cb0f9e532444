"""An OpenEnv environment that a server runs: its tools are the agent's, its rewards the verdict.

    class Game(OpenEnv):
        url = "http://localhost:8000"

Its wire protocol is spoken here without the package `openenv`, which wants other versions of what this project uses.
"""

import asyncio
import json
import math
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

from agentrl_resources.adaptors.event_loop import begun
from agentrl_resources.errors import AgentRLError

VARIABLE = "OPENENV_URL"
_STEP = "step"
_SECONDS_TO_CONNECT = 10.0
_LONGEST = 100 * 2**20
"""Bytes of a message."""
_lock = threading.Lock()


class StepError(Exception):
    """What the server said of a step that it did not take."""


class OpenEnv:
    """An environment whose server stands at `url`, or where OPENENV_URL says. Each episode has a session of its own."""

    url: ClassVar[str] = ""
    headers: ClassVar[Mapping[str, str]] = {}
    """Sent as a session begins."""
    call_seconds: ClassVar[float] = 60.0
    """So long `reset`, and the list of tools, may take. How long a call may take is in the tool policy."""

    _listed: ClassVar[list[dict[str, Any]]]
    _socket: "_Socket | None" = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__doc__ = cls.__doc__ or ""  # the docstring is the agent's instructions: ours are none

    @classmethod
    def tools(cls) -> list[dict[str, Any]]:
        """The tools that the server lists; where it lists none, one tool `step`, which takes its action.

        It is asked once in each process.

        Raises:
            AgentRLError: there is no server, or its action is nothing that an agent could be told of.
        """
        with _lock:
            if "_listed" not in vars(cls):
                cls._listed = begun(_tools(cls._address(), cls.headers, cls.call_seconds)).result()
            return cls._listed

    @classmethod
    def _address(cls) -> str:
        if url := cls.url or os.environ.get(VARIABLE, ""):
            return url.rstrip("/")
        raise AgentRLError(f'{cls.__name__} must say where its server is: `url = "http://..."`, or {VARIABLE}.')

    def reset(self, **row: Any) -> str | None:
        """Begins an episode with a row of the tasks, as the server's `reset` takes it; returns what it shows."""
        self.rewards: list[float] = []
        self.done = False
        self._socket = begun(_Socket.opened(self._address(), self.headers)).result()
        self._leave = weakref.finalize(self, _closing, self._socket)
        return self.opening(self._took(begun(self._socket.ask("reset", row, self.call_seconds)).result()))

    def opening(self, observation: Mapping[str, Any]) -> str | None:
        """What the agent reads of the first observation: its text, if it has one and nothing else, or all of it as
        JSON. A subclass may say it otherwise."""
        shown = {name: value for name, value in observation.items() if value not in (None, "", [], {})}
        if len(shown) == 1 and isinstance(text := next(iter(shown.values())), str):
            return text
        return json.dumps(shown, ensure_ascii=False, sort_keys=True) if shown else None

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the agent's call comes to, to be awaited."""
        if self.done:
            raise StepError("the episode is over: nothing can be done any more")
        return self._call(name, dict(arguments))

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        assert self._socket is not None  # as nothing is called before `reset`
        stepping = "step_tool" in self.tools()[0]
        action = arguments if stepping else {"type": "call_tool", "tool_name": name, "arguments": arguments}
        seen = self._took(await asyncio.wrap_future(begun(self._socket.ask("step", action, None))))
        if stepping:
            return {**seen, "done": True} if self.done else seen
        if error := seen.get("error"):
            raise StepError(str(error.get("message") or error) if isinstance(error, Mapping) else str(error))
        return _result(seen.get("result"))

    def _took(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """The observation; its reward and end are kept."""
        reward = answer.get("reward")
        if isinstance(reward, bool | int | float) and math.isfinite(reward):
            self.rewards.append(float(reward))
        self.done = bool(answer.get("done"))
        return {name: value for name, value in answer.get("observation", {}).items() if name != "metadata"}

    def get_reward(self) -> float:
        """The sum of what the steps gave. 1 or more is success; a subclass may say it otherwise."""
        return sum(self.rewards)

    def __enter__(self) -> "OpenEnv":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None and (closing := self._leave()) is not None:
            closing.result()  # a server may have room for one session only


class _Socket:
    """One session: a request, an answer."""

    def __init__(self, address: str, client: Any, socket: Any) -> None:
        self._address, self._client, self._socket = address, client, socket
        self._broken = False

    @classmethod
    async def opened(cls, address: str, headers: Mapping[str, str]) -> "_Socket":
        import aiohttp

        client = aiohttp.ClientSession(headers=dict(headers))
        try:
            async with asyncio.timeout(_SECONDS_TO_CONNECT):
                # the address of a web socket is written ws://, and http:// means the same here
                socket = await client.ws_connect(f"{address}/ws", max_msg_size=_LONGEST)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            await client.close()
            said = str(error) or type(error).__name__
            raise AgentRLError(
                f"the OpenEnv server {address} cannot be reached: {said}. Start it, or correct the url."
            ) from error
        return cls(address, client, socket)

    async def ask(self, kind: str, data: Mapping[str, Any], seconds: float | None) -> dict[str, Any]:
        """What the server answers.

        Raises:
            StepError: it refuses.
            AgentRLError: it has no room, went away, or does not answer in time.
        """
        import aiohttp

        if self._broken:
            raise AgentRLError(f"the session with the OpenEnv server {self._address} has ended")
        self._broken = True  # until the answer is there: another request would be given it
        try:
            async with asyncio.timeout(seconds):
                await self._socket.send_json({"type": kind, "data": dict(data)})
                message = await self._socket.receive()
        except TimeoutError:
            raise AgentRLError(f"the OpenEnv server {self._address} gave no answer within {seconds:g} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise AgentRLError(f"the OpenEnv server {self._address} went away: {error}") from error
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise AgentRLError(f"the OpenEnv server {self._address} went away in the middle of a {kind}")
        answer = json.loads(message.data)
        self._broken = False
        if answer.get("type") != "error":
            return dict(answer["data"])
        said = answer["data"].get("message", "")
        if answer["data"].get("code") == "CAPACITY_REACHED":
            raise AgentRLError(
                f"the OpenEnv server {self._address} has no room for another episode ({said}). Give its `create_app` a "
                "larger `max_concurrent_envs`, or play fewer at once (`ppo.episodes`, `evaluation.concurrency`)."
            )
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in answer["data"].get("errors", ()))
        raise StepError(f"{said}: {wrong}" if wrong else said or "the server failed")

    async def close(self) -> None:
        try:
            async with asyncio.timeout(_SECONDS_TO_CONNECT):
                if not self._broken:
                    await self._socket.send_json({"type": "close"})
                await self._socket.close()
        except (OSError, RuntimeError, TimeoutError):
            pass  # it is gone already
        finally:
            await self._client.close()


def _closing(socket: _Socket) -> Any:
    return begun(socket.close())


def _result(found: Any) -> Any:
    """What a tool gave, out of what the server's own client of it keeps around."""
    if not isinstance(found, dict) or not {"content", "data"} <= set(found):
        return found
    texts = "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in found["content"] or ())
    if found.get("is_error"):
        raise StepError(texts or "the tool failed, and said nothing")
    return found["data"] if found["data"] is not None else texts or None


async def _tools(address: str, headers: Mapping[str, str], seconds: float) -> list[dict[str, Any]]:
    socket = await _Socket.opened(address, headers)
    try:
        found = await socket.ask("step", {"type": "list_tools"}, seconds)
        listed = found.get("observation", {}).get("tools")
    except StepError:  # it knows nothing of tools
        listed = None
    finally:
        await socket.close()
    if listed:
        return [_shown(tool) for tool in listed]
    return [await _step_tool(address, headers, seconds)]


def _shown(tool: Mapping[str, Any]) -> dict[str, Any]:
    name = str(tool.get("name", ""))
    schema = tool.get("input_schema") or tool.get("inputSchema") or {}
    return {"name": name, "description": tool.get("description") or name.replace("_", " "), "inputSchema": schema}


async def _step_tool(address: str, headers: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """The environment's action as a tool."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(headers=dict(headers), timeout=aiohttp.ClientTimeout(seconds)) as client,
            client.get(f"{address}/schema") as answer,
        ):
            answer.raise_for_status()
            action = (await answer.json())["action"]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
        raise AgentRLError(
            f"the OpenEnv server {address} lists no tools, and does not say what its action is: {error}"
        ) from error
    properties = {name: one for name, one in action.get("properties", {}).items() if name != "metadata"}
    if action.get("type") != "object" or not properties or set(properties) == {"type"}:
        raise AgentRLError(
            f"the OpenEnv server {address} lists no tools, and its action is no object with fields of its own: "
            f"{json.dumps(action)[:300]}. Make it an MCPEnvironment there, or give the class `tools` and `call` here."
        )
    schema = {**action, "properties": properties, "additionalProperties": False}
    return {
        "name": _STEP,
        "description": action.get("description") or "Takes a step.",
        "inputSchema": schema,
        "step_tool": True,
    }
