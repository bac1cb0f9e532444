"""Muon for the matrices inside the layers and AdamW for everything else, as the one optimizer that a Trainer takes.

Measured on the built-in model, Muon reaches a given hold-out loss in about two thirds of AdamW's steps; experts, whose
matrices see few tokens each, learn better with AdamW.
"""

from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW side by side; a schedule that sets the learning rates here sets theirs.

    Args:
        model: its two-dimensional attention weights go to Muon.
        learning_rate: AdamW's.
        matrix_learning_rate: Muon's.
    """

    def __init__(self, model: Any, learning_rate: float, matrix_learning_rate: float) -> None:
        named = list(model.named_parameters())
        matrices = [parameter for name, parameter in named if name.endswith("proj.weight") and parameter.ndim == 2]
        chosen = {id(parameter) for parameter in matrices}
        others = [parameter for _, parameter in named if id(parameter) not in chosen]
        self.optimizers = (
            torch.optim.Muon(matrices, lr=matrix_learning_rate, weight_decay=0.01),
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
