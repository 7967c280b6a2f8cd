"""Compositional maximum likelihood of an unnormalised model as a module that remembers the partition function."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.functional.meco import meco

__all__ = ["MECO"]


class MECO(nn.Module):
    """Negative log likelihood with a moving partition function; see `graphcl.functional.meco`.

    The estimate moves with every call in training mode, and stays in evaluation mode.

    Args:
        gamma: rate of the moving estimate, in (0, 1].

    Shapes: ``forward(data_scores (B,), noise_scores (n,), log_noise (n,))``.

    >>> import torch
    >>> loss = MECO(gamma=0.5)
    >>> loss(torch.zeros(2), torch.zeros(4), torch.full((4,), -1.0)), loss.log_u
    (tensor(1.), tensor(1.))
    """

    def __init__(self, gamma: float = 0.5) -> None:
        super().__init__()
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"gamma must lie in (0, 1], got {gamma}")
        self.gamma = gamma
        self.log_u: Tensor
        self.register_buffer("log_u", torch.full((), -torch.inf))

    def forward(self, data_scores: Tensor, noise_scores: Tensor, log_noise: Tensor) -> Tensor:
        step = meco(data_scores, noise_scores, log_noise, self.log_u, gamma=self.gamma)
        if self.training:
            self.log_u.copy_(step.log_u)
        return step.loss

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}"
