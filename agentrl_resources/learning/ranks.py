"""Processes that share every training step (data parallelism): each holds the whole model, computes its part of a
batch, and takes the sum of all gradients.

For a small model two processes with a thread each finish a step sooner than one with two threads: what lies between the
products of matrices gains little from a second thread (benchmarks/training_step.py). Losses are sums over what a rank
holds, divided by the number of all ranks together, so that a step does not depend on how a batch is cut. They talk by
torch.distributed's gloo, and know one another by a file.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes that train together."""

    number: int = 0
    count: int = 1

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
        own = list(work(self.part(rows)))
        if self.count == 1:
            return own
        import torch.distributed

        parts: list[list[Answer]] = [[] for _ in range(self.count)]
        torch.distributed.all_gather_object(parts, own)
        return [parts[place % self.count][place // self.count] for place in range(len(rows))]

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


@contextmanager
def meeting(place: Path, number: int, count: int) -> Iterator[Ranks]:
    """Waits until all ranks are there; `place` is a file that nobody has used before, the same for all."""
    if count == 1:
        yield ALONE
        return
    import torch.distributed

    # the name of a machine need not lead back to it
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=number, world_size=count)
    try:
        yield Ranks(number, count)
    finally:
        torch.distributed.destroy_process_group()
