"""Filters that keep likely false negatives out of the candidates: rules for every loss that takes rules."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphcl.kernels import ExcludePairs, PairTile, Similarity, normalize_rows, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space

__all__ = ["ExcludeSimilar", "exclude_known", "exclude_nearest"]


@dataclass(frozen=True, eq=False)
class ExcludeSimilar:
    r"""Leaves out pairs that a teacher finds more alike than a threshold.

    .. math:: \cos(t_i, u_j) > \theta_i

    Args:
        anchors: ``(A, p)`` teacher embeddings of the anchors.
        candidates: ``(C, p)`` teacher embeddings of the candidates.
        threshold: theta: a number, or ``(A,)``, for instance the teacher's similarity of the positive pair.

    Complexity: one more product a tile; no gradient.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> teacher = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> rule = ExcludeSimilar(teacher, teacher, 0.9)
    >>> pair_logsumexp(torch.zeros(3, 2), torch.zeros(3, 2), rules=rule).logsumexp.exp().round()
    tensor([1., 1., 2.])
    """

    anchors: Tensor
    candidates: Tensor
    threshold: float | Tensor
    mask_only: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        check_same_space("anchors", self.anchors, "candidates", self.candidates)
        # The unit rows are made once, not in every tile.
        object.__setattr__(self, "anchors", normalize_rows(self.anchors.detach()))
        object.__setattr__(self, "candidates", normalize_rows(self.candidates.detach()))

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        for name, value, length in (
            ("anchors", self.anchors, num_anchors),
            ("candidates", self.candidates, num_candidates),
        ):
            if value.shape[0] != length or value.device != device:
                raise ValueError(
                    f"ExcludeSimilar.{name} must have {length} rows on {device}, got {value.shape[0]} on {value.device}"
                )
        if isinstance(self.threshold, Tensor) and self.threshold.shape not in ((), (num_anchors,)):
            raise ValueError(
                f"ExcludeSimilar.threshold must be a number or of shape ({num_anchors},), "
                f"got shape {tuple(self.threshold.shape)}"
            )

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        similarity = self.anchors[tile.rows] @ self.candidates[tile.columns].T
        threshold = self.threshold
        if isinstance(threshold, Tensor):
            threshold = threshold.detach().to(similarity)
            if threshold.dim() == 1:
                threshold = threshold[tile.rows, None]
        return torch.le(similarity, threshold)


def exclude_nearest(
    anchors: Tensor,
    candidates: Tensor,
    k: int,
    *,
    similarity: Similarity = "cosine",
    memory_budget: int = MEMORY_BUDGET,
) -> ExcludePairs:
    """Rule that leaves out the k candidates a teacher finds most like the anchor.

    Args:
        anchors: ``(A, p)`` teacher embeddings of the anchors.
        candidates: ``(C, p)`` teacher embeddings of the candidates.
        k: how many.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        `graphcl.kernels.ExcludePairs` with at most k pairs a row.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(A C p) time, O((A + C) p + A k) memory plus one tile.

    >>> import torch
    >>> exclude_nearest(torch.eye(2), torch.eye(2), 1).columns
    tensor([0, 1])
    """
    found = pair_topk(anchors, candidates, k, similarity=similarity, memory_budget=memory_budget).indices
    rows, slots = (found >= 0).nonzero(as_tuple=True)
    return exclude_known(rows, found[rows, slots], anchors.shape[0])


def exclude_known(rows: Tensor, columns: Tensor, num_anchors: int) -> ExcludePairs:
    """Rule that leaves out listed pairs, such as all known positives of the anchors.

    Args:
        rows: ``(E,)`` integers, the anchor of each pair.
        columns: ``(E,)`` integers, its candidate; pairs in any order.
        num_anchors: A.

    Returns:
        `graphcl.kernels.ExcludePairs`.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(E log E).

    >>> import torch
    >>> rule = exclude_known(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1]), 2)
    >>> rule.offsets, rule.columns
    (tensor([0, 1, 3]), tensor([0, 1, 2]))
    """
    check_indices("rows", rows, None, num_anchors, check=True)
    check_indices("columns", columns, rows.shape[0], None, check=False)
    order = torch.argsort(columns, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    counts = torch.bincount(rows.long(), minlength=num_anchors)
    return ExcludePairs(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns[order])
