"""Muon for the matrices inside the layers and AdamW for everything else, as the one optimizer that a Trainer takes.

Measured on the built-in model, Muon reaches a given hold-out loss in about two thirds of AdamW's steps; experts, whose
matrices see few tokens each, learn better with AdamW. torch's own Muon is not used because it turns every matrix by
itself and in bfloat16, which processors without instructions for it emulate: there it takes nearly as long as the
forward and backward passes together (benchmarks/training_step.py).
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from https://kellerjordan.github.io/posts/muon/."""
NEWTON_SCHULZ_STEPS = 5


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Brings all singular values near 1 by Newton-Schulz iteration (Jordan et al. 2024, "Muon").

    Args:
        matrices: (count, rows, columns); each is turned by itself.

    Returns:
        The same shape. Singular values lie between about 0.7 and 1.2; one that was 0 stays 0.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, as `torch.optim.Muon`, in the weights' own precision.

    Matrices of one shape are turned together.
    """

    def __init__(self, matrices: Sequence[torch.Tensor], learning_rate: float, weight_decay: float) -> None:
        super().__init__(
            sorted(matrices, key=lambda matrix: matrix.shape), {"lr": learning_rate, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of the matrices that have a gradient."""
        for group in self.param_groups:
            learn = [matrix for matrix in group["params"] if matrix.grad is not None]
            for shape, same in groupby(learn, key=lambda matrix: matrix.shape):
                matrices = list(same)
                updates = orthogonalized(torch.stack([self._momentum(matrix) for matrix in matrices]))
                for matrix, update in zip(matrices, updates, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(update, alpha=group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5)

    def _momentum(self, matrix: torch.Tensor) -> torch.Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
        return matrix.grad.lerp(state["momentum"], MOMENTUM)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon and AdamW side by side; a schedule that sets the learning rates here sets theirs.

    Args:
        model: its two-dimensional attention weights go to Muon.
        learning_rate: AdamW's.
        matrix_learning_rate: Muon's.
    """

    def __init__(self, model: Any, learning_rate: float, matrix_learning_rate: float) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        matrices = [parameter for name, parameter in named if name.endswith("proj.weight") and parameter.ndim == 2]
        chosen = {id(parameter) for parameter in matrices}
        others = [parameter for _, parameter in named if id(parameter) not in chosen]
        self.optimizers = (
            Muon(matrices, matrix_learning_rate, weight_decay=0.01),
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01),
        )
        super().__init__([group for optimizer in self.optimizers for group in optimizer.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of each, at the learning rates that a schedule has set here."""
        theirs = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        # Accelerate reloads an optimizer's state, after which its groups are no longer the ones that were handed on
        for group, scheduled in zip(theirs, self.param_groups, strict=True):
            group["lr"] = scheduled["lr"]
        for optimizer in self.optimizers:
            optimizer.step()
