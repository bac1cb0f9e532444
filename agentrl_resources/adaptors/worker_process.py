"""A process of another interpreter that holds an environment for us: it is started, asked, and started again.

It runs `workers/serving.py`, which knows the protocol, with a backend, which knows the other library. When it dies, the
calls that wait for it fail with one clear error, the episodes that it held come to nothing, and the next one gets a new
process.
"""

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError

_SERVING = Path(__file__).parent / "workers" / "serving.py"
_NOT_THEIRS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")
"""What would lead the other interpreter to our packages, and the threads that a stage takes for itself."""


class SaidError(AgentRLError):
    """What the environment's own code failed with."""


class GoneError(AgentRLError):
    """The process of an environment ended."""


class Worker:
    """What keeps one process of an environment alive.

    Args:
        what: the environment in words, for errors.
        library: what the interpreter has to have.
        python: the interpreter.
        backend: the file that serving.py runs.
        folder: where the user's modules lie.
        request: what `load` is asked with; it has to be done within `seconds`.
    """

    def __init__(
        self,
        what: str,
        library: str,
        python: str,
        backend: Path,
        folder: Path,
        request: Mapping[str, Any],
        seconds: float,
    ) -> None:
        self._what, self._library = what, library
        self._command = [python, "-u", str(_SERVING), str(backend), str(folder)]
        self._request, self._seconds = request, seconds
        self._starting = threading.Lock()
        self._process: Process | None = None

    def running(self) -> "Process":
        """A process that lives, with the environment loaded. AgentRLError when there can be none."""
        with self._starting:
            if self._process is None or self._process.gone:
                process = self._started()
                try:
                    process.loaded = process.ask("load", self._seconds, **self._request)
                except AgentRLError as error:
                    process.kill()
                    missing = isinstance(error, GoneError) or "No module named" in str(error)
                    todo = f" That interpreter needs {self._library}, and what the environment imports."
                    raise AgentRLError(
                        f"{self._what} cannot be loaded by {self._command[0]}: {error}.{todo if missing else ''}"
                    ) from error
                self._process = process
            return self._process

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _started(self) -> "Process":
        if shutil.which(self._command[0]) is None:
            raise AgentRLError(
                f"{self._what}: there is no interpreter {self._command[0]}. Make a virtual environment that has "
                f"{self._library}, and name its bin/python in `python`."
            )
        return Process(self._command, self._what)


class Process:
    """One life of a worker's process. `ask` may be called from many threads at once."""

    def __init__(self, command: Sequence[str], what: str) -> None:
        self._what = what
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        theirs = {name: value for name, value in os.environ.items() if name not in _NOT_THEIRS}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, env=theirs
        )
        self._numbers = itertools.count()
        self._pending: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self.loaded: Any = None
        """What `load` gave."""
        self.gone: str | None = None
        """Why nothing more comes from it."""
        self.ended: deque[str] = deque()
        """Episodes that nobody needs any more; it is told with the next request, since a finalizer must not wait."""
        threading.Thread(target=self._read, name="agentrl-worker", daemon=True).start()

    def begin(self, environment: Any, seconds: float, task: Any) -> str:
        """Begins an episode that ends with `environment`; its name."""
        name = f"{id(environment)}-{next(self._numbers)}"
        weakref.finalize(environment, self.ended.append, name).atexit = False
        self.ask("begin", seconds, episode=name, task=task)
        return name

    def ask(self, do: str, seconds: float, **fields: Any) -> Any:
        """The answer to a request.

        Raises:
            SaidError: the environment's code failed.
            GoneError: the process has ended, or ends meanwhile.
            AgentRLError: no answer within `seconds`.
        """
        number, future = next(self._numbers), Future[Any]()
        self._pending[number] = future
        self._send({"id": number, "do": do, **fields})
        try:
            reply = future.result(seconds)
        except Late:
            self._pending.pop(number, None)
            self._send({"id": next(self._numbers), "do": "cancel", "of": number})
            raise AgentRLError(f"{self._what}: no answer within {seconds:g} s") from None
        if "error" in reply:
            raise SaidError(str(reply["error"]))
        return reply["result"]

    def kill(self) -> None:
        self._process.kill()

    def _send(self, request: dict[str, Any]) -> None:
        with self._lock:
            if self.gone is None:
                request["ended"] = [self.ended.popleft() for _ in range(len(self.ended))]
                assert self._process.stdin is not None
                with suppress(OSError):  # it has just ended, and the reader is about to see it
                    self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
                    self._process.stdin.flush()
                return
        self._fail()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                reply = json.loads(line)
            except ValueError:  # it died in the middle of it
                continue
            if (future := self._pending.pop(reply["id"], None)) is not None:
                future.set_result(reply)
        code = self._process.wait()
        self._words.seek(0)
        said = self._words.read().decode(errors="replace").strip().splitlines()
        with self._lock:
            self.gone = f"{self._what}: its process ended (exit code {code})" + (f": {said[-1]}" if said else "")
        self._fail()

    def _fail(self) -> None:
        for number in list(self._pending):
            if (future := self._pending.pop(number, None)) is not None:
                future.set_exception(GoneError(self.gone))
