"""A small network that makes another view of an embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.nn.linear import Linear


class EmbeddingAugmenter(nn.Module):
    r"""Learnable augmentation of embeddings: a bottleneck network whose output is put on the unit sphere.

    X. Qin et al., "Meta-optimized Contrastive Learning for Sequential Recommendation", 2023,
    https://arxiv.org/abs/2304.07763.

    .. math:: w(x) = n\bigl(W_3 \operatorname{gelu}(W_2 \operatorname{gelu}(W_1 x + b_1) + b_2) + b_3\bigr)

    with widths d, d/2, d/4, d, exact GELU and :math:`n(x) = x / \max(\lVert x \rVert, 10^{-12})`.

    Args:
        dim: d.
        sizes: widths of the two inner layers; d // 2 and d // 4, at least 1, when None.
        generator: source of the initial weights (uniform within 1 / sqrt(inputs), torch's own for linear layers).

    Raises:
        ValueError: when a width is below 1.

    Complexity: O(N d sizes[0]).

    Example:
        >>> EmbeddingAugmenter(8)(torch.ones(3, 8)).norm(dim=1).round().tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(
        self, dim: int, sizes: tuple[int, int] | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        first, second = sizes or (max(dim // 2, 1), max(dim // 4, 1))
        if min(dim, first, second) < 1:
            raise ValueError(f"every width must be at least 1, got {dim}, {first} and {second}")
        self.fc1, self.fc2, self.fc3 = Linear(dim, first), Linear(first, second), Linear(second, dim)
        with torch.no_grad():
            for layer in (self.fc1, self.fc2, self.fc3):
                bound = 1.0 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """[N, d] to [N, d] unit rows."""
        return F.normalize(self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x))))), dim=-1, eps=1e-12)
