"""Sums of rows over groups, so that the positives of a class or cluster cost O(N d) and not O(N^2 d)."""

from __future__ import annotations

import torch
from torch import Tensor


def group_sums(anchor_groups: Tensor, key_groups: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For every anchor, the sum ``(A, d)`` and the number ``(A,)`` of the rows whose group equals its own.

    Groups are integers, ``(A,)`` and ``(C,)``, or several integers each, ``(A, m)`` and ``(C, m)``.
    """
    groups, index = torch.unique(torch.cat([anchor_groups, key_groups]), dim=0, return_inverse=True)
    anchor_index, key_index = index[: anchor_groups.shape[0]], index[anchor_groups.shape[0] :]
    total = rows.new_zeros(groups.shape[0], rows.shape[1]).index_add(0, key_index, rows)
    count = torch.bincount(key_index, minlength=groups.shape[0])
    return total[anchor_index], count[anchor_index]


def equal_group_pairs(anchor_groups: Tensor, key_groups: Tensor) -> tuple[Tensor, Tensor]:
    """Compressed rows (offsets, columns): the keys of each anchor's group. O((A + C) log C + pairs)."""
    ordered, order = torch.sort(key_groups, stable=True)
    begin = torch.searchsorted(ordered, anchor_groups)
    size = torch.searchsorted(ordered, anchor_groups, right=True) - begin
    offsets = torch.cat([size.new_zeros(1), size.cumsum(0)])
    within = torch.arange(int(offsets[-1]), device=order.device) - torch.repeat_interleave(offsets[:-1], size)
    return offsets, order[torch.repeat_interleave(begin, size) + within]


def class_means(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """``(num_classes, d)`` mean of the rows of every class, 0 for a class without rows."""
    total = embeddings.new_zeros(num_classes, embeddings.shape[1]).index_add(0, labels.long(), embeddings)
    count = torch.bincount(labels.long(), minlength=num_classes).clamp(min=1)
    return total / count[:, None].to(embeddings.dtype)
