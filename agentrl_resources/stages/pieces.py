"""A stage's sampling in pieces, one for each core: episodes do not depend on one another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from agentrl_resources.learning import repeatable
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
    shares = cores()
    done = [0] * shares

    def heard(number: int, so_far: int) -> None:
        done[number] = so_far
        request.progress(sum(done), total, what)

    return side_by_side(_piece, [(request.file, work, (number, shares)) for number in range(shares)], heard)


def share_of(rows: Sequence[Row], share: Share) -> Sequence[Row]:
    """A piece's part of the rows; the parts in order are all of them."""
    number, shares = share
    return rows[len(rows) * number // shares : len(rows) * (number + 1) // shares]


def _piece(say: Say, piece: tuple[Path, Work[T], Share]) -> T:
    file, work, share = piece
    request = read_request(file, lambda *_: None)
    repeatable(request.settings.seed)
    return work(request, share, say)
