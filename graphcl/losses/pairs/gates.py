"""Gates that pick the features in which two classes are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.losses._initialize import initialize_linear

__all__ = ["PairGate"]


class PairGate(nn.Module):
    r"""Weights of features in (0, 1) from an unordered pair of classes.

    "Rethinking Positive Pairs in Contrastive Learning", 2024. Confidence: T. Classes may be node types or relations.

    .. math:: g(y, y') = \sigma\bigl(\mathrm{MLP}\bigl(\tfrac12 (E_y + E_{y'})\bigr)\bigr), \qquad
        \mathrm{MLP} = \text{ReLU, BN, Linear, ReLU, BN, Linear}

    Args:
        num_classes: rows of E.
        dim: d of the embeddings that are gated, and of E.
        hidden: width of the hidden layer.
        generator: draws the initial weights.

    Raises:
        ValueError: sizes below 1.

    Shapes: ``forward(first (N,), second (N,))`` gives ``(N, d)``. Batch normalisation makes the gates of a training
    batch depend on the batch. Complexity: O(N d hidden).

    >>> import torch
    >>> gate = PairGate(3, 4, hidden=8, generator=torch.Generator().manual_seed(0)).eval()
    >>> one, two = torch.tensor([0, 1]), torch.tensor([2, 1])
    >>> gate(one, two).shape, torch.equal(gate(one, two), gate(two, one))
    (torch.Size([2, 4]), True)
    """

    def __init__(
        self, num_classes: int, dim: int, *, hidden: int = 1024, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if min(num_classes, dim, hidden) < 1:
            raise ValueError(f"sizes must be at least 1, got {num_classes}, {dim} and {hidden}")
        self.classes = nn.Parameter(torch.randn(num_classes, dim, generator=generator))
        self.network = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(dim),
            nn.Linear(dim, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, dim),
        )
        initialize_linear(self, generator)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.sigmoid(self.network(0.5 * (self.classes[first] + self.classes[second])))
