"""Negatives from the anchor's own group: a queue that knows groups, and embeddings freed of their group's mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.kernels import EqualIds
from graphcl.kernels._arguments import check_indices, check_matrix
from graphcl.losses.state import FeatureQueue

__all__ = ["GroupQueue", "subtract_group_mean"]


class GroupQueue(FeatureQueue):
    """A queue whose rows carry a group (language, market, node type), for negatives of the anchor's own group.

    "Unsupervised Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval". Confidence: U,
    this package's convention: one queue for all groups, filtered by a rule.

    Args:
        size: rows of all groups together.
        dim: d.
        num_groups: groups are ``0 .. num_groups - 1``.
        integers: further integers kept beside each row, such as ``("ids",)``.

    Raises:
        ValueError: sizes below 1, or a push that does not match.
        IndexError: groups out of range.

    Complexity: that of `FeatureQueue`.

    >>> import torch
    >>> queue = GroupQueue(4, 2, num_groups=3)
    >>> queue.push(torch.eye(2), groups=torch.tensor([0, 2]))
    >>> queue.filled_by_group()
    tensor([1, 0, 1])
    """

    def __init__(self, size: int, dim: int, *, num_groups: int, integers: Sequence[str] = ()) -> None:
        if num_groups < 1:
            raise ValueError(f"num_groups must be at least 1, got {num_groups}")
        super().__init__(size, dim, integers=("groups", *(name for name in integers if name != "groups")))
        self.num_groups = num_groups

    def push(self, rows: Tensor, **integers: Tensor) -> None:
        """Write ``(B, d)`` rows with their ``groups`` ``(B,)`` over the oldest ones of any group."""
        if "groups" in integers:
            check_indices("groups", integers["groups"], None, self.num_groups, check=True)
        super().push(rows, **integers)

    def filled_by_group(self) -> Tensor:
        """``(num_groups,)`` how many rows of each group the queue holds."""
        return torch.bincount(self.integers("groups"), minlength=self.num_groups)

    def rule(self, groups: Tensor) -> EqualIds:
        """Rule that lets anchors of ``groups`` ``(N,)`` meet rows of their own group only, in the order of `rows`."""
        return EqualIds(groups, self.integers("groups").to(groups))


def subtract_group_mean(embeddings: Tensor, groups: Tensor) -> Tensor:
    """Embeddings minus the mean of their group: at inference the group itself then no longer counts in a similarity.

    "Unsupervised Context Aware Sentence Representation Pretraining for Multi-lingual Dense Retrieval". Confidence: U.

    Args:
        embeddings: ``(N, d)``.
        groups: ``(N,)`` integers.

    Returns:
        ``(N, d)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N (d + log N)).

    >>> import torch
    >>> subtract_group_mean(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([7, 7, 9]))
    tensor([[-1.],
            [ 1.],
            [ 0.]])
    """
    check_matrix("embeddings", embeddings)
    check_indices("groups", groups, embeddings.shape[0], None, check=False)
    index, count = torch.unique(groups, return_inverse=True, return_counts=True)[1:]
    total = embeddings.new_zeros(count.shape[0], embeddings.shape[1]).index_add(0, index, embeddings)
    mean: Tensor = total / count[:, None]
    return embeddings - mean[index]
