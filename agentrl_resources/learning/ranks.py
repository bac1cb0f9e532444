"""Processes that share every training step (data parallelism): each holds the whole model, or a part of each of its
weights (`sharding.py`), computes its part of a batch, and takes the sum of all gradients.

For a small model two processes with a thread each finish a step sooner than one with two threads: what lies between the
products of matrices gains little from a second thread (benchmarks/training_step.py). Losses are sums over what a rank
holds, divided by the number of all ranks together, so that a step does not depend on how a batch is cut. They talk by
torch.distributed's gloo, with a GPU for each by NCCL, and know one another by a file.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from agentrl_resources.errors import AgentRLError

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes that train together."""

    number: int = 0
    count: int = 1
    sharded: bool = False
    """Whether networks are split over them."""

    def share(self, order: Sequence[T]) -> Sequence[T]:
        """This rank's part of what is trained on, in the order of training.

        Of every `n * count` that follow each other each rank has `n`. All have equally many: a remainder is left out.
        """
        return order[self.number : len(order) - len(order) % self.count : self.count]

    def part(self, rows: Sequence[T]) -> list[T]:
        """What this rank does of all rows."""
        return list(rows[self.number :: self.count])

    def each(self, work: Callable[[list[T]], Sequence[Answer]], rows: Sequence[T]) -> list[Answer]:
        """`work` on all rows, of which every rank does its part: an answer for each row, in their order.

        Answers are pickled. All ranks give the same rows, and get the same answers.
        """
        part = self.part(rows)
        # a network that is split needs all ranks for a pass, also those without a row
        own = list(work(part or list(rows[:1]) if self.sharded else part))[: len(part)]
        if self.count == 1:
            return own
        import torch.distributed

        parts: list[list[Answer]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(parts, own)
        return [parts[place % self.count][place // self.count] for place in range(len(rows))]

    def by_first(self, work: Callable[[], Answer]) -> Answer:
        """What the first rank alone finds out, told to all, an AgentRLError too. It is pickled."""
        if self.count == 1:
            return work()
        import torch.distributed

        said: list[Any] = [None, None]
        if self.number == 0:
            try:
                said[0] = work()
            except AgentRLError as error:
                said[1] = error
        torch.distributed.broadcast_object_list(said)
        if said[1] is not None:
            raise said[1]
        return said[0]

    def most(self, number: int) -> int:
        """The largest of the numbers that the ranks give."""
        if self.count == 1:
            return number
        import torch.distributed

        largest = torch.tensor(number)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return int(largest)

    def wait(self) -> None:
        """Until all ranks have come here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()

    def sum(self, tensor: Any) -> Any:
        """The sum over all ranks, which each of them has to ask for."""
        if self.count == 1:
            return tensor
        import torch.distributed

        tensor = tensor.detach().clone()
        torch.distributed.all_reduce(tensor)
        return tensor

    def add_gradients(self, parameters: Iterable[Any], losses: Any) -> Any:
        """After the backward pass of this rank's part of a loss: gives all ranks the whole gradient, in place.

        Args:
            parameters: those that learn.
            losses: one-dimensional; summed over the ranks in the same go.

        Returns:
            The summed `losses`.
        """
        if self.count == 1:
            return losses
        if self.sharded:  # where the backward pass has summed them
            return self.sum(losses)
        import torch

        learning = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in learning]
        whole = self.sum(torch.cat([losses.to(gradients[0]), *(gradient.reshape(-1) for gradient in gradients)]))
        sums, *parts = whole.split([len(losses), *(gradient.numel() for gradient in gradients)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return sums


ALONE = Ranks()
_PATIENCE = timedelta(days=1)
"""For one another: one may play episodes for hours. When one ends, whoever started them ends the others."""


@contextmanager
def meeting(place: Path, number: int, count: int, sharded: bool = False) -> Iterator[Ranks]:
    """Waits until all ranks are there; `place` is a file that nobody has used before, the same for all.

    Where there are as many GPUs, this process has one of them for itself from here on.
    """
    if count == 1:
        yield ALONE
        return
    import torch.distributed

    # the name of a machine need not lead back to it
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.distributed.init_process_group(
        _with_a_gpu(number, count, sharded), f"file://{place}", _PATIENCE, rank=number, world_size=count
    )
    try:
        yield Ranks(number, count, sharded)
    finally:
        torch.distributed.destroy_process_group()


def _with_a_gpu(number: int, count: int, sharded: bool) -> str:
    """What the ranks talk by. Nothing of CUDA may have been used in this process yet."""
    import torch

    there = torch.cuda.device_count()
    if there >= count:
        # the one that it sees is then the one that torch, accelerate and everybody else means by `cuda`
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = named[number] if named[0] else str(number)
        return "cpu:gloo,cuda:nccl"
    if there and sharded:
        raise AgentRLError(
            f"compute.training_processes: {count} processes that split a model (compute.sharded) need a GPU each, and "
            f"this machine has {there}"
        )
    return "gloo"
