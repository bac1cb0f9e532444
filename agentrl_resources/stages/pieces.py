"""A stage's work for several cores: sampling in pieces, since episodes do not depend on one another, and training by
ranks, which share every step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from agentrl_resources.learning import Ranks, meeting, repeatable
from agentrl_resources.on_ray import on_ray
from agentrl_resources.side_by_side import Say, cores, side_by_side
from agentrl_resources.stages.request import StageRequest, read_request

T = TypeVar("T")
Row = TypeVar("Row")

Share = tuple[int, int]
"""Which piece this is, and how many there are."""

Work = Callable[[StageRequest, Share, Callable[[int], None]], T]
"""Does one share of a stage; the third argument is called with how much of it is done."""


def in_pieces(request: StageRequest, work: Work[T], total: int, what: str) -> list[T]:
    """The results of `work` on every share of a stage's work, in order. `total` and `what` are for the progress."""
    compute = request.settings.compute
    done: dict[int, int] = {}

    def heard(number: int, so_far: int) -> None:
        done[number] = so_far
        request.progress(sum(done.values()), total, what)

    def pieces(count: int) -> list[tuple[Path, Work[T], Share]]:
        return [(request.file, work, (number, count)) for number in range(count)]

    if request.settings.engine.kind != "local":
        # a server answers many at once, and would be given two policies in turn by two processes
        return side_by_side(_piece, pieces(1), heard)
    if compute.kind == "ray":
        return on_ray(_piece, pieces, heard, compute.address, compute.workers)
    return side_by_side(_piece, pieces(cores()), heard)


Training = Callable[[StageRequest, Ranks], T]
"""Trains as one of the ranks; what they return is the same for all."""


def in_ranks(request: StageRequest, train: Training[T], batch: int) -> T:
    """The result of `train`, done by as many processes as the settings say and can share `batch` rows evenly."""
    wanted, sharded = request.settings.compute.training_processes, request.settings.compute.sharded
    count = next(n for n in range(wanted, 0, -1) if batch % n == 0)
    if count == 1:
        return train(request, Ranks())
    place = request.work / "ranks"
    place.unlink(missing_ok=True)  # of an attempt that was cut off

    def heard(number: int, said: tuple[int, int, str]) -> None:
        if number == 0:
            request.progress(*said)

    ranks = [(request.file, train, place, number, count, sharded) for number in range(count)]
    return side_by_side(_rank, ranks, heard)[0]


def _rank(say: Say, piece: tuple[Path, Training[T], Path, int, int, bool]) -> T:
    file, train, place, number, count, sharded = piece
    request = read_request(file, lambda *said: say(said))
    repeatable(request.settings.seed)
    with meeting(place, number, count, sharded) as ranks:
        return train(request, ranks)


def share_of(rows: Sequence[Row], share: Share) -> Sequence[Row]:
    """A piece's part of the rows; the parts in order are all of them."""
    number, shares = share
    return rows[len(rows) * number // shares : len(rows) * (number + 1) // shares]


def _piece(say: Say, piece: tuple[Path, Work[T], Share]) -> T:
    file, work, share = piece
    request = read_request(file, lambda *_: None)
    repeatable(request.settings.seed)
    return work(request, share, say)
