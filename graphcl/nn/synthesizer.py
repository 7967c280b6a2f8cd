"""A learned weighting of retrieved samples that makes one positive of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.nn.dropout import dropout


class SampleSynthesizer(nn.Module):
    r"""Attention over the retrieved neighbours of each anchor, by their semantic vectors.

    Z. Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential Recommendation", 2025,
    https://arxiv.org/abs/2503.04162.

    .. math:: p_{uv} = \operatorname{softmax}_v \operatorname{LeakyReLU}_{0.2} \bigl(a^\top [e_u W; e_v W]\bigr),
        \qquad h^+_u = \sum_v p_{uv} h_v

    In training dropout zeroes and scales the weights without making them sum to one again, as released.

    Args:
        semantic_dim: width D of the semantic vectors e.
        dim: width of the space that W maps to.
        dropout: rate on the weights; the paper has none.
        slope: of the leaky ReLU.
        generator: source of the initial weights (Xavier-uniform, gain 1.414).

    Complexity: O((B + U) D + B k d) for B anchors and U distinct neighbours: a^T splits in two, one number a vector
    and role, so the [B, k, 2 dim] pairs are never formed.

    Example:
        >>> weigh = SampleSynthesizer(3, 4, dropout=0.0)
        >>> positive = weigh(torch.ones(1, 3), torch.ones(2, 3), torch.tensor([[0, 1, -1]]), torch.eye(2))
        >>> positive.tolist()
        [[0.5, 0.5]]
    """

    def __init__(
        self,
        semantic_dim: int,
        dim: int,
        *,
        dropout: float = 0.5,
        slope: float = 0.2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.slope = slope
        self.projection = nn.Parameter(torch.empty(semantic_dim, dim))
        self.attention = nn.Parameter(torch.empty(2 * dim))
        with torch.no_grad():
            for weight, fans in ((self.projection, semantic_dim + dim), (self.attention, 2 * dim + 1)):
                bound = 1.414 * math.sqrt(6.0 / fans)
                weight.uniform_(-bound, bound, generator=generator)

    def probabilities(self, own: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
        """Weights of the neighbours of each anchor.

        Args:
            own: [B, D] semantic vectors of the anchors.
            vectors: [U, D] those of the distinct neighbours.
            places: [B, k] number of each anchor's neighbours among them, -1 where there are fewer.

        Returns:
            [B, k], 0 where there is no neighbour; a row without any is zero.
        """
        of_anchor, of_neighbour = (self.projection @ half for half in self.attention.chunk(2))
        scores = (own @ of_anchor)[:, None] + (vectors @ of_neighbour)[places.clamp(min=0)]
        absent = places < 0
        logits = F.leaky_relu(scores, self.slope).masked_fill(absent, torch.finfo(scores.dtype).min)
        return logits.softmax(1).masked_fill(absent, 0.0)

    def forward(self, own: Tensor, vectors: Tensor, places: Tensor, encoded: Tensor) -> Tensor:
        """[B, d] weighted sums of the neighbours' encodings ``encoded`` [U, d]; the rest as `probabilities`."""
        weights = dropout(self.probabilities(own, vectors, places), self.dropout, self.training)
        return torch.einsum("bk,bkd->bd", weights, encoded[places.clamp(min=0)])
