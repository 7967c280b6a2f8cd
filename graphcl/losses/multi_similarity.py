"""Multi-similarity and its hierarchical form as modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor, nn

from graphcl.functional.multi_similarity import hierarchical_multi_similarity, multi_similarity
from graphcl.losses._base import LossOptions, checked

__all__ = ["HierarchicalMultiSimilarity", "MultiSimilarity"]


class MultiSimilarity(nn.Module):
    """Multi-similarity; see `graphcl.functional.multi_similarity`.

    Args:
        alpha: scale of the positives.
        beta: scale of the negatives.
        base: similarity that separates them.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, d), labels (N,), *, keys (K, d), key_labels (K,))``.

    >>> import torch
    >>> MultiSimilarity()(torch.eye(3), torch.tensor([0, 0, 1])).round(decimals=4)
    tensor(0.4378)
    """

    def __init__(
        self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.options = checked(options)

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, keys: Tensor | None = None, key_labels: Tensor | None = None
    ) -> Tensor:
        return multi_similarity(
            embeddings,
            labels,
            alpha=self.alpha,
            beta=self.beta,
            base=self.base,
            keys=keys,
            key_labels=key_labels,
            **self.options,
        )


class HierarchicalMultiSimilarity(nn.Module):
    """Multi-similarity at every cut of a tree; see `graphcl.functional.hierarchical_multi_similarity`.

    Args:
        distances: ``(L, L)`` integers, tree distance of two nodes; moved and saved with the module.
        alpha: scale of the positives.
        beta: scale of the negatives.
        bases: one number a cut.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, d), labels (N,), *, keys (K, d), key_labels (K,))``.

    >>> import torch
    >>> loss = HierarchicalMultiSimilarity(torch.tensor([[0, 1, 2], [1, 0, 2], [2, 2, 0]]))
    >>> loss(torch.eye(3), torch.tensor([0, 1, 2])).round(decimals=4)
    tensor(0.1522)
    """

    distances: Tensor

    def __init__(
        self,
        distances: Tensor,
        alpha: float = 2.0,
        beta: float = 50.0,
        *,
        bases: Sequence[float] | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        self.register_buffer("distances", distances)
        self.alpha = alpha
        self.beta = beta
        self.bases = bases
        self.options = checked(options)

    def forward(
        self, embeddings: Tensor, labels: Tensor, *, keys: Tensor | None = None, key_labels: Tensor | None = None
    ) -> Tensor:
        return hierarchical_multi_similarity(
            embeddings,
            labels,
            self.distances,
            alpha=self.alpha,
            beta=self.beta,
            bases=self.bases,
            keys=keys,
            key_labels=key_labels,
            **self.options,
        )
