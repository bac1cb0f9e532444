"""Processes that have the libraries loaded from their first moment.

Loading PyTorch, transformers and TRL takes seconds, and a run starts some fifteen processes that need them. So one
process loads them and does nothing else; asked for a new process, it forks. It starts with whoever first needs one,
serves that process and all that come from it, and ends with it. A request is the work with its argument, and what a new
process would have had from its parent: environment, working directory, module path, standard output and error.
Requests, what the work says, and its result are pickled. Where it is not known to be safe to fork with such libraries
loaded (macOS), they are loaded later.
"""

import atexit
import contextlib
import os
import pickle
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agentrl_resources.errors import AgentRLError

ENVIRONMENT = {
    # libraries are told before they are imported: no usage reports, no chatter, no lock-step with a hub
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    # Threads that wait for one another soon go to sleep. Spinning for long, as is the default, gains nothing on an idle
    # machine, and on one that does something else besides it takes the very core that the others wait for
    # (docs/performance.md).
    "GOMP_SPINCOUNT": "10000",
}
"""What every process finds in its environment, unless the user has set it otherwise."""

Say = Callable[[Any], None]
"""With which work tells how far it is."""

_SERVER = f"import sys, pathlib, {__name__} as server; server.serve(pathlib.Path(sys.argv[1]))"
_SOCKET = "socket"
_HEADER = 8  # bytes: the length of the request
_SECONDS_TO_START = 300.0
_LONGEST_FOLDER = 80  # characters: the path of a socket has room for about 100
_folder: Path | None = None
"""Where the server of this process listens. A forked process has it from the server itself."""
_server: subprocess.Popen[bytes] | None = None
_starting = threading.Lock()


def warm_up() -> None:
    """Starts the server, unless it runs: it loads the libraries while this process does something else.

    A folder of its own holds its socket.
    """
    global _folder, _server
    with _starting:
        if _folder is not None and (_server is None or _server.poll() is None):
            return
        fits = len(tempfile.gettempdir()) <= _LONGEST_FOLDER
        folder = Path(tempfile.mkdtemp(prefix="agentrl-", dir=None if fits else "/tmp"))
        command = [sys.executable, "-c", _SERVER, str(folder)]
        # The pipe says when this process has ended, however it ended: nobody writes to it.
        _server = subprocess.Popen(command, stdin=subprocess.PIPE, env=ENVIRONMENT | _environment())
        _folder = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


class Forked:
    """A process that does `work(say, argument)`; it ends when the one that asked for it does.

    `work` is a function of a module. `stderr` is a file to which the process writes its errors, instead of here.
    """

    def __init__(self, work: Callable[[Say, Any], Any], argument: Any, stderr: Path | None = None) -> None:
        call = pickle.dumps((work, argument))  # read when the modules that it names can be found
        request = pickle.dumps((dict(os.environ), os.getcwd(), list(sys.path), call))
        with contextlib.ExitStack() as stack:
            error = 2 if stderr is None else stack.enter_context(stderr.open("wb")).fileno()
            connection = _connected()
            socket.send_fds(connection, [len(request).to_bytes(_HEADER, "big")], [1, error])
            connection.sendall(request)
        self.connection = Connection(connection.detach())

    def read(self) -> tuple[str, Any]:
        """What it says next: ("said", message), or its last word, ("done", result) or ("failed", AgentRLError).

        EOFError when the process ended without one.
        """
        try:
            kind, content = self.connection.recv()
        except ConnectionError:
            raise EOFError from None
        return kind, content

    def end(self) -> None:
        """Ends the process if it still runs, and returns when it is gone."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as connection:
            connection.shutdown(socket.SHUT_WR)  # it listens to that
            while connection.recv(2**16):
                pass
        self.connection.close()


def _connected() -> socket.socket:
    warm_up()
    assert _folder is not None
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_SECONDS_TO_START)
    try:
        _wait_for(_folder / _SOCKET)
        connection.connect(str(_folder / _SOCKET))
    except OSError as error:
        connection.close()
        raise AgentRLError(f"no process can be started: {error}. What the fork server said stands above.") from error
    connection.settimeout(None)
    return connection


def _wait_for(path: Path) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while not path.exists():
        if time.monotonic() > until or (_server is not None and _server.poll() is not None):
            raise FileNotFoundError("the fork server does not listen")
        time.sleep(0.01)


def _environment() -> dict[str, str]:
    """This process's own, with the modules that it can import."""
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


# --- the server -------------------------------------------------------------------------------------------------------


def load_libraries() -> None:
    """What the stages import. Nothing is computed: threads that wait for work would be lost in a fork."""
    import jsonschema  # noqa: F401
    import matplotlib  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        AutoModelForTokenClassification,
        AutoTokenizer,
        GptOssForCausalLM,
        GptOssForTokenClassification,
    )
    from trl import RewardTrainer, SFTTrainer  # noqa: F401


def serve(folder: Path) -> None:
    """Forks a process for each request until standard input ends."""
    global _folder
    _folder = folder
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever asked for a process ends it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "new"))
    listener.listen(64)
    if sys.platform == "linux":
        with contextlib.suppress(Exception):  # the process that needs them says what is wrong
            load_libraries()
    (folder / "new").rename(folder / _SOCKET)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if 0 in ready:
                shutil.rmtree(folder, ignore_errors=True)
                return
            connection, _ = listener.accept()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads: OpenBLAS's and Arrow's, made for it
                child = os.fork() == 0
            if child:
                selector.close()
                listener.close()
                signal.signal(signal.SIGINT, interrupted)
                _be_the_process(connection)
            connection.close()


def _be_the_process(connection: socket.socket) -> None:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        random.seed()
        header, outputs, _, _ = socket.recv_fds(connection, _HEADER, 2)
        with connection.makefile("rb") as file:
            request = file.read(int.from_bytes(header, "big"))
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, *outputs)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        environment, folder, path, call = pickle.loads(request)
        os.environ.clear()
        os.environ.update(ENVIRONMENT | environment)
        os.chdir(folder)
        sys.path[:] = path
        _do(Connection(connection.detach()), call)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)  # what the server has registered for its own end is not this process's to do


def _do(connection: Connection, call: bytes) -> None:
    threading.Thread(target=_end_with, args=(os.dup(connection.fileno()),), daemon=True).start()
    sending = threading.Lock()

    def say(kind: str, content: Any) -> None:
        if kind != "said":
            _flush()  # with the last word heard, this process may be ended
        with sending:
            connection.send((kind, content))

    try:
        work, argument = pickle.loads(call)
        say("done", work(lambda message: say("said", message), argument))
    except AgentRLError as failure:
        say("failed", failure)
    except Exception as failure:  # not every exception can be pickled
        traceback.print_exc()
        say("failed", AgentRLError(f"{type(failure).__name__}: {failure}"))


def _flush() -> None:
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.flush()


def _end_with(descriptor: int) -> None:
    """Ends this process when the other end of its connection is closed: an orphan would write where others do."""
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)
    os._exit(1)
