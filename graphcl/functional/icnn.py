"""Inter- and intra-class nearest neighbours: a score of how well classes separate, as a loss (ICNN)."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.kernels import Backend, edge_dot, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_same_space, compute_dtype

__all__ = ["icnn"]

_EPS = 1e-7
_SQUARED_EPS = 1e-6


def icnn(
    embeddings: Tensor,
    labels: Tensor,
    *,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    k: int = 4,
    return_components: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""ICNN loss: minus the log of a score of the neighbourhoods of all rows.

    M. Mendez-Ruiz et al., "SuSana Distancia is all you need: Enforcing class separability in metric learning via two
    novel distance-based loss functions for few-shot image classification", 2023, https://arxiv.org/abs/2305.09062.
    Confidence: T. Use it in few-shot episodes, on the embeddings of a support set.

    .. math:: L = -\log \frac{\lambda + \gamma}{2}, \qquad \lambda = \frac{a + b}{2}

    over the k nearest neighbours of every row (k + 1 to find the nearest one of another class), at distances
    :math:`d_{ij} = \sqrt{\|x_i - x_j\|^2 + 10^{-6}}`: a is one minus the mean, over rows that have neighbours of their
    class, of the mean of their distances over the distance of the nearest neighbour of another class (a row is divided
    by its largest such ratio where that exceeds 1); b the mean distance of neighbours of other classes over the largest
    of those distances (1 when there are none); gamma the mean share of neighbours of the row's class (1 when k had to
    be reduced). Neighbour sets are constants. A row without any neighbour of another class adds 0 to a.

    Args:
        embeddings: ``(N, d)``, used as they are.
        labels: ``(N,)`` integers.
        keys: ``(M, d)`` rows among which neighbours are looked for; the embeddings themselves by default.
        key_labels: ``(M,)`` labels of the keys. As released, the nearest key of a row is dropped as the row itself.
        k: neighbours; reduced to M - 2 where M has fewer than k + 3 rows.
        return_components: also return the parts.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_topk`.

    Returns:
        A scalar, with ``return_components`` also ``same_class`` (a), ``other_class`` (b) and ``neighbours`` (gamma);
        0 for fewer than 3 keys or no rows.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N M d) time, O((N + M) d + N k) memory plus the tiles.

    >>> import torch
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> near = icnn(x, torch.tensor([0, 0, 0, 1, 1, 1]), k=2)
    >>> mixed = icnn(x, torch.tensor([0, 1, 0, 1, 0, 1]), k=2)
    >>> bool(near < mixed)
    True
    """
    check_indices("labels", labels, embeddings.shape[0], None, check=False)
    check_block_size("k", k)
    if (keys is None) != (key_labels is None):
        raise ValueError("keys and key_labels belong together, got only one of them")
    wide = compute_dtype(embeddings.dtype)
    if keys is None or key_labels is None:
        own = torch.arange(embeddings.shape[0] + 1, device=embeddings.device)
        targets, target_labels, exclude, dropped = embeddings, labels, (own, own[:-1]), 0
    else:
        targets, target_labels, exclude, dropped = keys, key_labels, None, 1
        check_indices("key_labels", key_labels, keys.shape[0], None, check=False)
    check_same_space("embeddings", embeddings, "keys", targets)
    size, num = targets.shape[0], embeddings.shape[0]
    reduced = k + 2 >= size
    if reduced:
        k = size - 2
    if k < 1 or num == 0:
        nothing = embeddings.to(wide).sum() * 0.0
        empty = {"same_class": nothing, "other_class": nothing, "neighbours": nothing}
        return (nothing, empty) if return_components else nothing
    x, y = embeddings.to(wide), targets.to(wide)
    found = pair_topk(
        x, y, k + 1 + dropped, exclude=exclude, similarity="sqeuclidean", memory_budget=memory_budget, backend=backend
    ).indices[:, dropped:]
    rows = torch.arange(num, device=x.device).repeat_interleave(k + 1)
    squared = -edge_dot(x, y, rows, found.flatten(), similarity="sqeuclidean", memory_budget=memory_budget)
    distance = torch.sqrt(squared + _SQUARED_EPS).view(num, k + 1)
    same = target_labels[found] == labels[:, None]
    parts = {
        "same_class": _same_class(distance, same, k),
        "other_class": _other_class(distance[:, :k], ~same[:, :k]),
        "neighbours": x.new_ones(()) if reduced else same[:, :k].to(wide).mean(),
    }
    score = (0.5 * (parts["same_class"] + parts["other_class"]) + parts["neighbours"]) / 2.0
    loss = -torch.log(score)
    return (loss, parts) if return_components else loss


def _same_class(distance: Tensor, same: Tensor, k: int) -> Tensor:
    """One minus the scaled mean distance of neighbours of the same class."""
    has_other = ~same.all(dim=1, keepdim=True)
    nearest_other = distance.masked_fill(same, torch.inf).amin(dim=1, keepdim=True)
    nearest_other = torch.where(has_other, nearest_other, torch.ones_like(nearest_other))
    ratio = torch.where(has_other, distance[:, :k] / (nearest_other + _EPS), torch.zeros_like(distance[:, :k]))
    ratio = ratio / ratio.amax(dim=1, keepdim=True).clamp(min=1.0)
    return 1.0 - _mean_of_row_means(ratio, same[:, :k])


def _other_class(distance: Tensor, other: Tensor) -> Tensor:
    """Scaled mean distance of neighbours of other classes; 1 when there are none."""
    kept = distance * other.to(distance.dtype)
    spread = _mean_of_row_means(kept / (kept.amax() + _EPS), other)
    return spread if bool(other.any()) else 1.0 - spread


def _mean_of_row_means(values: Tensor, kept: Tensor) -> Tensor:
    """Mean over rows with kept entries of their means, counts enlarged by the epsilon of the released code."""
    count = kept.sum(dim=1)
    means = (values * kept.to(values.dtype)).sum(dim=1) / (count.to(values.dtype) + _EPS)
    return means.sum() / (torch.count_nonzero(count).to(values.dtype) + _EPS)
