"""Any MCP server as an environment: its tools are the agent's.

    class Desk(McpServer):
        command = ("python", "server.py")

        def get_reward(self) -> float:
            return float(self.server.call("get_state")["done"])

What MCP does not have, the class gives: how an episode begins (`reset`), and how well it went (`get_reward`).
"""

import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from agentrl_resources.adaptors.extras import needs
from agentrl_resources.adaptors.mcp_session import Session
from agentrl_resources.errors import AgentRLError

_lock = threading.RLock()


class McpServer:
    """An environment whose tools an MCP server has. A subclass says which one, and has `get_reward`.

    The server starts with the first call of an episode, and ends with it.
    """

    command: ClassVar[Sequence[str]] = ()
    """Starts the server, which then talks over its standard input and output; or else there is a `url`."""
    env: ClassVar[Mapping[str, str]] = {}
    """What the server finds in its environment, beside PATH, HOME and the like: of ours it gets no more."""
    cwd: ClassVar[str | Path | None] = None
    """Where it runs; without it, in the folder of the subclass."""
    url: ClassVar[str] = ""
    """Where a server answers over streamable HTTP."""
    headers: ClassVar[Mapping[str, str]] = {}
    """Sent with each request to `url`."""
    fresh: ClassVar[bool] = True
    """Whether each episode has a server (with `url`: a session) of its own. False: one for all, and at once: for one
    that keeps nothing between two calls, or is told in each whose it is."""
    reset_tool: ClassVar[str | None] = None
    """A tool without arguments that brings the server back to its beginning. An episode then takes a server that an
    earlier one is done with: for one that is slow to start."""
    hidden: ClassVar[Sequence[str]] = ()
    """Tools that are not for the agent, but for `self.server.call(name, ...)` in `reset` and `get_reward`."""
    filled: ClassVar[Sequence[str]] = ()
    """Arguments that the agent neither sees nor gives: each call that takes one gets `self`'s attribute of that name,
    which `reset` sets. So episodes that share a server each have their own customer, desk or session there."""
    start_seconds: ClassVar[float] = 60.0
    """So long it may take until it answers for the first time."""
    call_seconds: ClassVar[float] = 60.0
    """So long a `self.server.call` may take. How long the agent's may take is in the tool policy."""

    _session: Session | None = None
    _listed: ClassVar[list[dict[str, Any]]]
    _idle: ClassVar[list[Session]]
    """With `reset_tool`: those that no episode plays with."""
    _shared: ClassVar[Session | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._idle, cls._shared = [], None
        cls.__doc__ = cls.__doc__ or ""  # the docstring is the agent's instructions: ours are none

    @classmethod
    def tools(cls) -> list[dict[str, Any]]:
        """The server's tools but the hidden ones, as MCP describes them. It is asked once.

        A tool that does not say that it only reads may change something.

        Raises:
            AgentRLError: the server cannot be used, has no tools, or not those that are named here.
        """
        with _lock:
            if "_listed" not in vars(cls):
                session = cls._started()
                try:
                    cls._listed = cls._for_the_agent(session.listed())
                finally:
                    session.close()
            return cls._listed

    @classmethod
    def _for_the_agent(cls, listed: Sequence[Any]) -> list[dict[str, Any]]:
        hidden = {*cls.hidden, *([cls.reset_tool] if cls.reset_tool else [])}
        there = [tool.name for tool in listed]
        if missing := sorted(hidden - set(there)):
            raise AgentRLError(
                f"{cls._what()} has no tool `{missing[0]}`, which {cls.__name__} names in `hidden` or `reset_tool`. "
                f"It has: {', '.join(there) or 'none'}."
            )
        shown = [_shown(tool, cls.filled) for tool in listed if tool.name not in hidden]
        if not shown:
            more = " but the hidden ones" if hidden else ""
            raise AgentRLError(f"{cls._what()} has no tools{more}. An agent needs one: name another server.")
        return shown

    @property
    def server(self) -> Session:
        """The server of this episode; it starts when it is first asked for."""
        if self._session is None:
            self._session = self._taken()
            self._leave = weakref.finalize(self, _left, type(self), self._session)
        elif not self.fresh and not self._session.alive:
            self._session = self._taken()
        return self._session

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the agent's call of a tool comes to, to be awaited."""
        takes = next(tool["takes"] for tool in self.tools() if tool["name"] == name)
        filled = {one: getattr(self, one) for one in self.filled if one in takes}
        return self.server.answer(name, {**arguments, **filled})

    def reset(self, *_: Any, **row: Any) -> Any:
        """Begins an episode with a row of the tasks. Nothing is done here: a subclass may."""

    def __enter__(self) -> "McpServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._leave()

    @classmethod
    def _taken(cls) -> Session:
        if not cls.fresh:
            with _lock:
                if cls._shared is None or not cls._shared.alive:
                    cls._shared = cls._started()
                return cls._shared
        while cls._idle:
            with suppress(IndexError):  # another thread may be quicker
                session = cls._idle.pop()
                if _was_reset(session, str(cls.reset_tool)):
                    return session
                session.close()
        return cls._started()

    @classmethod
    def _started(cls) -> Session:
        if bool(cls.command) == bool(cls.url) or isinstance(cls.command, str):
            raise AgentRLError(
                f'{cls.__name__} must say where its server is: `command = ("python", "server.py")`, a program and '
                'its arguments, or `url = "http://..."`, and not both.'
            )
        if not cls.fresh and cls.reset_tool is not None:
            raise AgentRLError(
                f"{cls.__name__}: `reset_tool` would take the server from under the other episodes, which share it "
                "(`fresh = False`). Leave one of the two out."
            )
        mcp = needs("mcp", "mcp")
        seconds = (cls.start_seconds, cls.call_seconds)
        if cls.url:
            return Session(lambda: mcp.Client(_over_http(cls.url, cls.headers)), cls._what(), seconds)
        program, *arguments = map(str, cls.command)
        started = mcp.StdioServerParameters(
            command=program,
            args=arguments,
            env={**cls.env},
            cwd=cls.cwd or _folder(cls),
            encoding_error_handler="replace",
        )
        log = tempfile.TemporaryFile()  # noqa: SIM115, the session closes it
        return Session(lambda: mcp.Client(mcp.stdio_client(started, errlog=log)), cls._what(), seconds, log)

    @classmethod
    def _what(cls) -> str:
        return f"the MCP server of {cls.__name__} ({cls.url or ' '.join(map(str, cls.command))})"


def _left(kind: type[McpServer], session: Session) -> None:
    """Nobody plays with this session any more."""
    if kind.reset_tool is not None and session.alive and not session.busy:
        kind._idle.append(session)
    elif kind.fresh:
        session.close()


def _was_reset(session: Session, tool: str) -> bool:
    try:
        session.call(tool)
    except Exception:  # whatever it is, another one is started
        return False
    return True


def _over_http(url: str, headers: Mapping[str, str]) -> Any:
    from contextlib import asynccontextmanager

    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    @asynccontextmanager
    async def connected() -> Any:
        async with (
            httpx2.AsyncClient(headers=dict(headers), timeout=httpx2.Timeout(30.0, read=None)) as client,
            streamable_http_client(url, http_client=client) as streams,
        ):
            yield streams

    return connected()


def _folder(kind: type) -> Path | None:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file).parent if file else None


def _shown(tool: Any, filled: Sequence[str]) -> dict[str, Any]:
    """A tool as the agent sees it; `takes`: all arguments that it has."""
    hints, schema = tool.annotations, dict(tool.input_schema)
    takes = schema.get("properties", {})
    schema["properties"] = {name: one for name, one in takes.items() if name not in filled}
    schema["required"] = [name for name in schema.get("required", ()) if name not in filled]
    named = tool.title or (hints and hints.title) or tool.name.replace("_", " ")
    return {
        "name": tool.name,
        "description": tool.description or named,
        "inputSchema": schema,
        "takes": list(takes),
        "annotations": {"readOnlyHint": bool(hints and hints.read_only_hint)},
    }
