"""One session with an MCP server, as threads can use it: calls that wait, calls that can be awaited, and its end.

All sessions live on the adaptors' event loop, each in one task: what a session opened has to be closed where it was
opened.
"""

import asyncio
import atexit
import functools
import math
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractAsyncContextManager
from typing import IO, Any

from agentrl_resources.adaptors.event_loop import begun, event_loop, is_running
from agentrl_resources.errors import AgentRLError

_SECONDS_TO_END = 8.0
"""A server that does not end is killed by the client after some four."""
_SAID = 300
"""Characters of what a server wrote last that an error repeats."""


class ToolError(Exception):
    """What a tool said of its failure."""


class Session:
    """A running server, or a conversation with one that runs elsewhere.

    Args:
        connect: makes the client that is to be entered.
        what: which server it is, for errors.
        seconds: how long it may take until it answers for the first time; and each `call`.
        log: where the server's standard error goes, if it is a process of ours.

    Raises:
        AgentRLError: it cannot be started or reached, or does not answer.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Any]],
        what: str,
        seconds: tuple[float, float],
        log: IO[bytes] | None = None,
    ) -> None:
        self._connect, self._what, self._log = connect, what, log
        self._start_seconds, self._call_seconds = seconds
        _end_with_this_process()
        self._loop = event_loop()
        self._over = asyncio.Event()
        self._ready: Future[Any] = Future()
        self.alive = True
        """Whether it has not ended yet, as far as anybody noticed."""
        self.busy = False
        """Whether it may still be at a call that nobody waits for."""
        _all.add(self)
        self._life = begun(self._live())
        self._client = self._ready.result()

    async def _live(self) -> None:
        import anyio

        try:
            with anyio.fail_after(self._start_seconds) as limit:
                async with self._connect() as client:
                    limit.deadline = math.inf
                    self._ready.set_result(client)
                    await self._over.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(AgentRLError(self._not_there(_first(error))))
        finally:
            self.alive = False
            if self._log is not None:
                self._log.close()

    def _not_there(self, error: BaseException) -> str:
        if isinstance(error, FileNotFoundError):
            return f"{self._what}: there is no such command. Check `command`, and what is installed."
        said = f"it did not answer within {self._start_seconds:g} s" if isinstance(error, TimeoutError) else str(error)
        return (
            f"{self._what} cannot be used: {said or type(error).__name__}{self._last_words()}. Try it by hand; "
            "where it only needs longer to start, raise `start_seconds`."
        )

    def _last_words(self) -> str:
        """What the server wrote last on its standard error."""
        if self._log is None or self._log.closed:
            return ""
        size = self._log.seek(0, 2)
        self._log.seek(max(0, size - _SAID))
        said = self._log.read().decode("utf-8", "replace").strip()
        return f" (it said: {said})" if said else ""

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Calls a tool and waits for it: for `reset` and `get_reward`, with hidden tools too.

        Raises:
            ToolError: it failed; what it said.
            AgentRLError: the server ended, or gave no answer in time.
        """
        future = self._submit(name, arguments)
        try:
            return future.result(self._call_seconds)
        except TimeoutError:
            future.cancel()
            raise AgentRLError(f"{self._what}: `{name}` gave no answer within {self._call_seconds:g} s") from None

    async def answer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """As `call`, to be awaited on any loop; whoever stops waiting ends the call."""
        return await asyncio.wrap_future(self._submit(name, arguments))

    def listed(self) -> list[Any]:
        """All tools that it has, as the protocol describes them. AgentRLError when it does not say."""
        future = begun(self._list())
        try:
            return future.result(self._call_seconds)
        except Exception as error:  # the client raises what it likes
            future.cancel()
            said = str(error) or type(error).__name__
            raise AgentRLError(f"{self._what} does not list its tools: {said}{self._last_words()}") from error

    def close(self) -> None:
        """Ends it; does not wait for that."""
        self.alive = False
        self._loop.call_soon_threadsafe(self._over.set)

    def _submit(self, name: str, arguments: Mapping[str, Any]) -> "Future[Any]":
        return begun(self._ask(name, dict(arguments)))

    async def _ask(self, name: str, arguments: dict[str, Any]) -> Any:
        from mcp import MCPError

        if not self.alive:
            raise AgentRLError(f"{self._what} has ended: no tool answers any more")
        try:
            found = await self._client.call_tool(name, arguments)
        except MCPError as error:
            if error.code != _CLOSED:
                raise ToolError(error.message) from error
            said = f"{self._what} ended in the middle of `{name}`{self._last_words()}"
            self.close()
            raise AgentRLError(said) from error
        except asyncio.CancelledError:
            self.busy = True
            raise
        except RuntimeError as error:  # of a client that is closed meanwhile
            raise AgentRLError(f"{self._what} ended in the middle of `{name}`") from error
        return _result(found)

    async def _list(self) -> list[Any]:
        tools, cursor = [], None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            tools += page.tools
            if not (cursor := page.next_cursor):
                return tools


_CLOSED = -32000
"""The code that the client gives a connection which ended."""


def _result(found: Any) -> Any:
    """What a tool gave: its structured content, else its texts, one below the other. ToolError when it failed."""
    texts = "\n".join(map(_text, found.content))
    if found.is_error:
        raise ToolError(texts or "the tool failed, and said nothing")
    structured = found.structured_content
    if structured is None:
        return texts or None
    # servers wrap what is no object, since older clients take nothing else
    return structured["result"] if isinstance(structured, dict) and set(structured) == {"result"} else structured


def _text(part: Any) -> str:
    """A part of a result as text; of what is no text, what it is."""
    if part.type == "text":
        return str(part.text)
    if part.type == "resource":
        return str(getattr(part.resource, "text", f"[{part.resource.uri}]"))
    return f"[{getattr(part, 'uri', None) or getattr(part, 'mime_type', None) or part.type}]"


def _first(error: BaseException) -> BaseException:
    """What happened, without the groups around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


_all: "weakref.WeakSet[Session]" = weakref.WeakSet()


@functools.cache
def _end_with_this_process() -> None:
    atexit.register(_end_all)


def _end_all() -> None:
    """No server outlives this process."""
    if not is_running():  # in a process that was forked they are not ours
        return
    sessions = list(_all)
    for session in sessions:
        session.close()
    wait_for([session._life for session in sessions], _SECONDS_TO_END)
