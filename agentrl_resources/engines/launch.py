"""A vLLM server of our own, for as long as somebody samples."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agentrl_resources.engines.vllm_server import VllmServer
from agentrl_resources.errors import AgentRLError

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM can be told."""
_WATCHER = """
import os, signal, subprocess, sys, threading


def watch():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=watch, daemon=True).start()
sys.exit(server.wait())
"""
"""Ends the server when whoever started it is gone, however that ended: a pipe is closed then. What the server starts is
in its process group."""
_LAST_LINES = 6
"""Of its log, in the error when it ends."""


class Launched:
    """A server in a process of its own, in an environment of its own: vLLM and this project want other versions.

    Args:
        python: the interpreter of an environment that has vLLM.
        model: the folder of the base that adapters stand on, or of the weights to begin with.
        arguments: further options of the server, which count before ours.
        log: file that its words go to.
    """

    def __init__(self, python: str, model: str, arguments: Sequence[str], log: Path, adapters: bool, rank: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        most = next((one for one in _RANKS if one >= rank), rank)
        lora = ["--enable-lora", "--max-loras", "2", "--max-lora-rank", str(most)] if adapters else []
        self._command = [
            *(python, "-c", _WATCHER, python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", model, "--served-model-name", "policy", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--logprobs-mode", "processed_logprobs", *lora, *arguments),
        ]
        self._log = log
        self._from = 0
        """Where the log of this start begins."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it unless it lives. AgentRLError when it cannot be started, with the end of its log."""
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()  # what a server that ended has started may still be there
        environment = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "1",  # or it takes no weights
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            **_without_ours(os.environ),
        }
        threads = Path(self._command[0]).parent.parent / "lib" / "libiomp5.so"  # vllm-cpu brings it and wants it first
        if threads.is_file():
            environment.setdefault("LD_PRELOAD", str(threads))
        with self._log.open("ab") as log:
            self._from = log.tell()
            try:
                # a session of its own, so that it can be ended with the processes that it starts
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise AgentRLError(
                    f"engine.python: {self._command[0]} cannot be run ({error.strerror}). Name the interpreter of an "
                    "environment that has vLLM"
                ) from error

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Until it answers. AgentRLError when it ends before, or takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                lines = (
                    self._log.read_bytes()[self._from :].decode(errors="replace").splitlines()
                    if self._log.exists()
                    else []
                )
                said = next((line for line in reversed(lines) if "Error" in line), "\n".join(lines[-_LAST_LINES:]))
                what = "ended as it was being started" if ended else f"did not answer within {seconds:g} s"
                raise AgentRLError(f"the vLLM server {what} ({self._log}): {said.strip()}")
            time.sleep(0.2)

    def kill(self) -> None:
        """Ends it at once, with all that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()


@contextmanager
def launched(
    python: str, model: str, arguments: Sequence[str], log: Path, adapters: bool, rank: int, patience: float
) -> Iterator[VllmServer]:
    """A server of our own, ready to answer; it ends with the block."""
    own = Launched(python, model, arguments, log, adapters, rank)
    try:
        own.start()
        server = VllmServer(own.url, patience=patience, restart=own.start)
        own.wait(server.healthy, patience)
        yield server
    finally:
        own.kill()


def _without_ours(environment: "os._Environ[str]") -> dict[str, str]:
    """Everything but what would lead its Python to our packages, and the threads that a stage takes for itself."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS", "GOMP_SPINCOUNT"}
    return {name: value for name, value in environment.items() if name not in ours}
