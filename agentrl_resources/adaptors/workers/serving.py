"""The other end of `adaptors.elsewhere`: runs in an interpreter that has the other library, and needs nothing of ours.

    python serving.py BACKEND.py FOLDER

BACKEND.py defines a class `Backend` with coroutine functions `load`, `tasks`, `begin`, `call`, `judge` and `end`; what
`begin` returns is the episode that the last three get. FOLDER is where the user's modules lie.

Requests come on stdin, replies go to stdout, a JSON object a line: `{"id": 7, "do": "call", ...}` is answered by
`{"id": 7, "result": ...}` or `{"id": 7, "error": "..."}`; `ended` in a request lists episodes that nobody needs any
more. Each episode has an event loop in a thread of its own, so that a call that never comes back holds up no other.
"""

import asyncio
import json
import os
import runpy
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

STUCK_SECONDS = 2.0
"""A loop for all episodes that does not answer for so long will not any more."""


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(relayed(coroutine), self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def stuck(self) -> bool:
        alive = threading.Event()
        self.loop.call_soon_threadsafe(alive.set)
        return not alive.wait(STUCK_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


async def relayed(coroutine: Any) -> Any:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:  # they would end the loop
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


class Server:
    def __init__(self, backend: Any, replies: Any) -> None:
        self._kind = backend
        self._backend: Any = None
        self._replies = replies
        self._writing = threading.Lock()
        self._shared = Loop()
        self._episodes: dict[str, tuple[Loop, list[Any]]] = {}
        """By name: the loop, and what the backend began."""
        self._under_way: dict[int, Any] = {}

    def take(self, request: Any) -> None:
        for name in request.pop("ended", ()):
            self._end(name)
        number, do = request.pop("id"), request.pop("do")
        if do == "cancel":
            self._cancel(request["of"])
        elif do == "begin":
            loop, begun = self._episodes[request.pop("episode")] = Loop(), []
            self._follow(number, loop.run(self._begin(begun, request)))
        elif do in ("call", "judge"):
            loop, begun = self._episodes[request.pop("episode")]
            self._follow(number, loop.run(getattr(self._backend, do)(begun[0], **request)))
        else:
            self._follow(number, self._shared.run(self._of_all(do, request)))

    async def _of_all(self, do: Any, request: Any) -> Any:
        if do == "load":
            self._backend = self._kind()
        return await getattr(self._backend, do)(**request)

    async def _begin(self, begun: Any, request: Any) -> None:
        begun.append(await self._backend.begin(**request))

    def _follow(self, number: Any, future: Any) -> None:
        self._under_way[number] = future

        def reply(done: Any) -> None:
            self._under_way.pop(number, None)
            try:
                said = {"id": number, "result": done.result()}
                line = json.dumps(said, default=plain)
            except BaseException as error:
                traceback.print_exception(error)
                line = json.dumps({"id": number, "error": told(error)})
            with self._writing, suppress(OSError):  # whoever asked may be gone
                self._replies.write(line.encode() + b"\n")
                self._replies.flush()

        future.add_done_callback(reply)

    def _cancel(self, number: Any) -> None:
        if (future := self._under_way.get(number)) is not None:
            future.cancel()

        def look() -> None:
            if self._shared.stuck():
                print("what all episodes share hangs", file=sys.stderr, flush=True)
                os._exit(1)

        threading.Thread(target=look, daemon=True).start()

    def _end(self, name: Any) -> None:
        if name not in self._episodes:
            return
        loop, begun = self._episodes.pop(name)

        async def ending() -> None:
            with suppress(Exception):
                if begun:
                    await self._backend.end(begun[0])

        loop.run(ending()).add_done_callback(lambda _: loop.stop())


def plain(value: Any) -> Any:
    """What JSON has no word for. TypeError where it is nothing that could be read."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if getattr(type(value), "__str__", None) is object.__str__:
        raise TypeError(f"it returned a {type(value).__name__}, which is neither text nor JSON")
    return str(value)


def told(error: Any) -> str:
    """What an error says; the first line, since libraries add whole pages."""
    with suppress(Exception):
        if text := str(error).strip():
            lines = text.splitlines()
            return text if len(lines) <= 4 else f"{lines[0]} ..."
    return type(error).__name__


def main() -> None:
    _, file, folder = sys.argv
    sys.path[0] = folder  # and not where this file lies, beside which modules have the names of libraries
    # what the environment prints goes to stderr, and it reads nothing: these two are ours
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    with suppress(ImportError, ValueError, OSError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # three for the loop of each episode
    server = Server(runpy.run_path(file)["Backend"], replies)
    for line in requests:
        server.take(json.loads(line))
    os._exit(0)  # whoever asked is gone; nothing that still runs is waited for


if __name__ == "__main__":
    main()
