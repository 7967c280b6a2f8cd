"""Mixing in embedding space: harder positives, harder negatives, and mixtures across samples.

The mixtures whose formula a loss needs too live in `graphcl.functional` and are named here again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphcl.functional._pair_terms import unit_rows
from graphcl.functional.feature_transform import extrapolate_positives, interpolate_negatives
from graphcl.functional.hallucination import hallucinate
from graphcl.functional.m3col import draw_mixing, mix_batch
from graphcl.functional.metrix import draw_mixed_pairs, mix_rows
from graphcl.functional.mochi import HardMixtures, draw_hard_mixtures, hard_negatives, positions_of_ranks
from graphcl.kernels import normalize_rows
from graphcl.kernels._arguments import MEMORY_BUDGET, check_same_space

__all__ = [
    "Hallucinator",
    "MixedNegatives",
    "draw_hard_mixtures",
    "draw_mixed_pairs",
    "draw_mixing",
    "extrapolate_positives",
    "hallucinate",
    "interpolate_negatives",
    "mix_batch",
    "mix_hard_negatives",
    "mix_rows",
]


class MixedNegatives(NamedTuple):
    """Mixtures ``(N, s1 + s2, d)`` of every query, pair mixtures first, and which of them exist, ``(N, s1 + s2)``."""

    rows: Tensor
    valid: Tensor


def mix_hard_negatives(
    queries: Tensor,
    queue: Tensor,
    mixtures: HardMixtures,
    *,
    num_hard: int,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> MixedNegatives:
    r"""Synthetic negatives as rows, mixed from the hardest rows of a queue for each query (MoCHi).

    Y. Kalantidis et al., "Hard Negative Mixing for Contrastive Learning", 2020, https://arxiv.org/abs/2010.01028.
    Confidence: C. `graphcl.functional.mochi` computes the loss without forming these rows.

    .. math:: n(\alpha n_a + (1 - \alpha) n_b), \qquad n(\beta q + (1 - \beta) n_c)

    Args:
        queries: ``(N, d)``.
        queue: ``(Q, d)``.
        mixtures: ranks and weights, see `draw_hard_mixtures`.
        num_hard: length of the list of hard negatives that the ranks count in.
        ids: ``(N,)`` integers; rows of the queue with the id of the query are no negatives.
        queue_ids: ``(Q,)`` ids of the queue.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        `MixedNegatives` of unit rows without gradient; zero where a query has no negative.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N Q d) time, O(N (num_hard + (s1 + s2) d)) memory plus one tile.

    >>> import torch
    >>> one = torch.zeros(1, 1, dtype=torch.int64)
    >>> drawn = HardMixtures(one, one + 1, torch.full((1, 1), 0.5), one[:, :0], torch.zeros(1, 0))
    >>> mix_hard_negatives(torch.eye(2)[:1], torch.eye(2), drawn, num_hard=2).rows
    tensor([[[0.7071, 0.7071]]])
    """
    check_same_space("queries", queries, "queue", queue)
    x, negatives = unit_rows(queries.detach(), queue.detach())
    hard = hard_negatives(x, negatives, num_hard, ids=ids, queue_ids=queue_ids, memory_budget=memory_budget)
    first, second, partner = (
        positions_of_ranks(hard, ranks) for ranks in (mixtures.first, mixtures.second, mixtures.partner)
    )
    valid = torch.cat([first, partner], dim=1) >= 0
    if negatives.shape[0] == 0:
        return MixedNegatives(x.new_zeros(*valid.shape, x.shape[1]), valid)
    alpha, beta = (weight.to(x)[..., None] for weight in (mixtures.alpha, mixtures.beta))
    pairs = alpha * negatives[first] + (1.0 - alpha) * negatives[second]
    of_query = beta * x[:, None, :] + (1.0 - beta) * negatives[partner]
    rows = torch.cat([pairs, of_query], dim=1)
    unit = normalize_rows(rows.flatten(0, 1)).view(rows.shape)
    return MixedNegatives(unit.masked_fill(~valid[..., None], 0.0), valid)


class Hallucinator(nn.Module):
    r"""Small network that makes a further positive from a query and its key.

    "Hallucination Improves the Performance of Unsupervised Visual Representation Learning", 2023. Confidence: U, this
    package's convention. Trained together with the encoder through `graphcl.functional.hallucination`.

    .. math:: h = n\bigl(W_2 \operatorname{relu}(W_1 (k + \lambda (k - q)) + b_1) + b_2\bigr), \qquad
        \lambda \sim U(0, 1)

    Args:
        dim: d.
        hidden: width of the hidden layer; d by default.
        generator: draws the initial weights.

    Shapes: ``forward(queries (N, d), keys (N, d), weight=None, *, generator=None)`` gives ``(N, d)`` unit rows;
    ``weight`` is lambda, drawn by default. Complexity: O(N d hidden).

    >>> import torch
    >>> make = Hallucinator(4, generator=torch.Generator().manual_seed(0))
    >>> make(torch.eye(4), torch.eye(4), 0.5).norm(dim=1).round()
    tensor([1., 1., 1., 1.], grad_fn=<RoundBackward0>)
    """

    def __init__(self, dim: int, hidden: int | None = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width = dim if hidden is None else hidden
        if min(dim, width) < 1:
            raise ValueError(f"dim and hidden must be at least 1, got {dim} and {width}")
        self.network = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, dim))
        with torch.no_grad():
            for parameter, fan in zip(self.network.parameters(), (dim, dim, width, width), strict=True):
                bound = 1.0 / math.sqrt(fan)
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        weight: float | Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        x, k = unit_rows(queries, keys)
        made = self.network(hallucinate(x, k, weight, generator=generator).to(queries.dtype))
        return normalize_rows(made)
