"""Transforms of embeddings right before a loss: group whitening and diagonal rescaling."""

from __future__ import annotations

from torch import Tensor, nn

from graphcl.functional._draws import draw_permutation
from graphcl.functional.rescaling import diagonal_rescale
from graphcl.functional.whitening import group_whiten
from graphcl.losses._key_queue import StepDraws

__all__ = ["DiagonalRescaling", "GroupWhitening"]


class GroupWhitening(nn.Module):
    """Whitens shuffled groups of features over the batch; see `graphcl.functional.group_whiten`.

    Every call draws another shuffle, so that several calls on one batch give several views of it.

    Args:
        groups: G, which divides d.
        shuffle: False leaves the features where they are.
        stop_gradient: the whitening matrix is a constant, as released.
        ridge: added to the covariance, relative to its mean variance.
        seed: of the shuffles.

    Shapes: ``(N, d)`` to ``(N, d)``; batch statistics are used in evaluation mode too.

    >>> import torch
    >>> GroupWhitening(2)(torch.randn(8, 4, generator=torch.Generator().manual_seed(0))).shape
    torch.Size([8, 4])
    """

    def __init__(
        self,
        groups: int,
        *,
        shuffle: bool = True,
        stop_gradient: bool = True,
        ridge: float = 1e-5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.shuffle = shuffle
        self.stop_gradient = stop_gradient
        self.ridge = ridge
        self.draws = StepDraws(seed)

    def forward(self, x: Tensor) -> Tensor:
        order = None
        if self.shuffle:
            order = draw_permutation(x.shape[1], device=x.device, generator=self.draws(x.device))
        return group_whiten(x, self.groups, order, stop_gradient=self.stop_gradient, ridge=self.ridge)


class DiagonalRescaling(nn.Module):
    """Multiplies feature j by kappa to the power -j, in place of a projection head.

    See `graphcl.functional.diagonal_rescale`. Put it between the encoder and the loss; later use takes the encoder's
    output.

    Args:
        kappa: 1.01 to 1.5 by the width of the embeddings.

    Shapes: ``(N, d)`` to ``(N, d)``.

    >>> import torch
    >>> DiagonalRescaling(2.0)(torch.ones(1, 3))
    tensor([[1.0000, 0.5000, 0.2500]])
    """

    def __init__(self, kappa: float = 1.05) -> None:
        super().__init__()
        self.kappa = kappa

    def forward(self, z: Tensor) -> Tensor:
        return diagonal_rescale(z, self.kappa)

    def extra_repr(self) -> str:
        return f"kappa={self.kappa}"
