"""Work that is cut in pieces, done by the workers of a Ray cluster: `side_by_side` for more than one machine.

Workers read the same files as this machine (the state folder lies on a disk that all of them see) and have the same
packages. A piece whose worker is killed is done again by another, and what it makes is the same. Ray ends all pieces
when the process that asked for them is gone, however it ended.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from agentrl_resources.errors import AgentRLError
from agentrl_resources.forkserver import Say

T = TypeVar("T")

ATTEMPTS = 4
"""How often a piece is begun before it is given up."""
_NEWS_SECONDS = 0.5
_ANSWER_SECONDS = 10.0


def on_ray(
    work: Callable[[Say, Any], T],
    pieces: Callable[[int], Sequence[Any]],
    heard: Callable[[int, Any], None],
    address: str | None,
    workers: int | None,
) -> list[T]:
    """`work(say, piece)` for each piece, each by a worker with one core; the results in the order of the pieces.

    Args:
        work: is found by its name, where the worker runs.
        pieces: what there is to do, cut for so many workers.
        heard: is called with a piece's number and the last that it said.
        address: of a cluster (`host:6379`); without one a cluster is started on this machine.
        workers: how many; without a number as many as the cluster has cores.

    Raises:
        AgentRLError: that of a piece; the cluster does not answer; or a piece's workers were killed again and again.
    """
    try:
        import ray
    except ImportError as error:
        missing = "compute.kind is `ray`, and the package is missing: pip install 'agentrl-release[ray]'"
        raise AgentRLError(missing) from error
    with _cluster(address):
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < 1:
            raise AgentRLError("compute.address: this Ray cluster has no cores, so nothing would ever be done")
        count = workers or cores
        board: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote()
        task: Any = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_done)
        tasks = [task.remote(work, piece, board, number) for number, piece in enumerate(pieces(count))]
        left = list(tasks)
        try:
            while left:
                done, left = ray.wait(left, num_returns=len(left), timeout=_NEWS_SECONDS)
                ray.get(done)  # one that failed ends the others
                with suppress(ray.exceptions.RayError):  # no news is no reason to end what is under way
                    for number, said in ray.get(board.news.remote()).items():
                        heard(number, said)
            results: list[T] = ray.get(tasks)
            return results
        except ray.exceptions.RayTaskError as failure:
            if isinstance(failure.cause, AgentRLError):
                raise failure.cause from failure
            raise
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as failure:
            raise AgentRLError(
                f"a piece of the work ended without a result on each of {ATTEMPTS} workers: were they killed?"
            ) from failure
        finally:
            for one in left:
                ray.cancel(one, force=True)


class _Board:
    """Where pieces write what they have to say, in a process of its own."""

    def __init__(self) -> None:
        self._said: dict[int, Any] = {}

    def say(self, number: int, said: Any) -> None:
        self._said[number] = said

    def news(self) -> dict[int, Any]:
        news, self._said = self._said, {}
        return news


def _done(work: Callable[[Say, Any], Any], piece: Any, board: Any, number: int) -> Any:
    return work(lambda said: board.say.remote(number, said), piece)


def _refuse_unless_it_answers(address: str) -> None:
    """Ray itself tries for minutes, and then ends the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdigit()):
        raise AgentRLError(f"compute.address: `{address}` is no address of a Ray cluster, such as `10.0.0.5:6379`")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise AgentRLError(
            f"compute.address: {address} does not answer ({error}). Start the cluster there (ray start --head), or "
            "leave the address out"
        ) from error


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A connection to a cluster, for the block; the one that there is already, where there is one."""
    import ray

    if ray.is_initialized():
        yield
        return
    if address is not None:
        _refuse_unless_it_answers(address)
    else:  # a token in the home folder, and word to Ray's makers: nobody asked for either
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    paths = os.pathsep.join(path for path in sys.path if path)
    small: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": 2**28}
    try:
        ray.init(
            address=address or "local",
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
            logging_level=logging.ERROR,
            log_to_driver=False,
            **small,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "a cluster cannot be started on this machine" if address is None else f"{address} cannot be used"
        raise AgentRLError(f"compute.address: {where} ({str(error).splitlines()[0]})") from error
    try:
        yield
    finally:
        ray.shutdown()
