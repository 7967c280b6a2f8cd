"""GroCo: contrast by sorting, through a differentiable sorting network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.functional._embeddings import check_labels, unit_rows, unit_views
from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, edge_dot, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_positive

__all__ = ["groco"]

# Numbers that the network and its gradient hold for an element of an anchor and a layer.
_FLOATS_PER_COMPARISON = 12


def groco(
    views: Sequence[Tensor] | Tensor,
    *,
    num_negatives: int = 10,
    steepness: float = 1.0,
    stop_gradient: bool = True,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""GroCo: the other views of an instance must be sorted above its K nearest negatives.

    Nina Shvetsova et al., "Learning by Sorting: Self-supervised Learning with Group Ordering Constraints" (2023),
    https://arxiv.org/abs/2301.02009

    Each row of each view is an anchor with P = V - 1 positives and its K most similar rows of the same view as
    negatives. Both groups are sorted ascending, joined with the negatives first, and run through an odd-even sorting
    network of K + P layers whose comparators swap softly,

    Use it when the order of neighbours matters more than the size of similarities; it has no temperature.

    .. math:: \alpha(a, b) = \tfrac12 + \tfrac1\pi \arctan(\lambda (b - a)), \quad
        \min{}' = \alpha a + (1 - \alpha) b, \quad \max{}' = (1 - \alpha) a + \alpha b .

    q is the probability of each element to end among the top P ranks; the loss is the binary cross-entropy of q with 1
    for positives and 0 for negatives, averaged over the K + P elements.

    Args:
        views: V >= 2 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        num_negatives: K; anchors with fewer negatives use those they have.
        steepness: lambda of the comparators.
        stop_gradient: positives and negatives are constants, gradients reach the anchors only.
        keys: ``(M, d)`` candidates for the negatives instead of the other rows of the anchor's view.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        key_ids: ``(M,)`` ids of ``keys``, compared with ``ids``.
        reduction: over the V N anchors that have a negative.
        memory_budget: upper bound in bytes for the tiles of the search.
        backend: of the search.

    Returns:
        Scalar, or ``(V N,)`` for ``none``, views one after the other.

    Raises:
        ValueError, TypeError: shapes, dtypes or options that do not fit.

    Complexity: O(V N^2 d + V N (K + P)^2) time, O(V N (d + K + P)) memory plus the tiles. The network's (K + P)^2
    matrix is not formed: the top-rank probabilities are carried back through its layers.

    Confidence: V (released class executed, value and gradient agree); ``keys``, ``ids`` and ``key_ids`` are conventions
    of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> groco([z, z], num_negatives=1).round(decimals=4)
    tensor(0.2877)
    """
    check_block_size("num_negatives", num_negatives)
    check_positive("steepness", steepness)
    z = unit_views(views)
    num_views, num_instances, dim = z.shape
    targets = z.detach() if stop_gradient else z
    gram = torch.einsum("and,bnd->nab", z, targets)
    other = ~torch.eye(num_views, dtype=torch.bool, device=z.device)
    positive = gram[:, other].view(num_instances, num_views, num_views - 1).transpose(0, 1)
    pool = None if keys is None else unit_rows("keys", keys).to(z.dtype)
    exclude = _same_id_pairs(num_instances, None if pool is None else pool.shape[0], ids, key_ids, z.device)
    losses, valids = [], []
    for view in range(num_views):
        candidates = targets[view] if pool is None else (pool.detach() if stop_gradient else pool)
        if candidates.shape[0] == 0:
            nearest = torch.full((num_instances, 1), -1, device=z.device)
        else:
            nearest = pair_topk(
                z[view], candidates, num_negatives, exclude=exclude, memory_budget=memory_budget, backend=backend
            ).indices
        found = nearest >= 0
        rows, slots = torch.nonzero(found, as_tuple=True)
        similarity = edge_dot(
            z[view], candidates, rows, nearest[rows, slots], memory_budget=memory_budget, backend=backend
        )
        negative = z.new_full(nearest.shape, -torch.inf).index_put((rows, slots), similarity)
        losses.append(
            over_row_blocks(
                lambda below, number, above: _sorting_loss(below, number, above, steepness),
                (negative, found.sum(dim=1), positive[view]),
                (),
                num_columns=(negative.shape[1] + num_views - 1) ** 2,
                floats_per_pair=_FLOATS_PER_COMPARISON,
                memory_budget=memory_budget,
            )
        )
        valids.append(found.any(dim=1))
    return reduce_anchors(torch.cat(losses), reduction, valid=torch.cat(valids))


def _sorting_loss(negative: Tensor, num_negatives: Tensor, positive: Tensor, steepness: float) -> Tensor:
    """Cross-entropy per anchor from negatives in descending order (missing ones -inf, last) and positives in any."""
    width = negative.shape[1] + positive.shape[1]
    num_positives = positive.shape[1]
    element = torch.arange(width, device=negative.device)
    count = num_negatives[:, None]
    size = count + num_positives
    is_negative = element < count
    is_positive = ~is_negative & (element < size)
    # Elements of an anchor: negatives ascending, positives ascending, then unused places.
    source = torch.where(is_negative, count - 1 - element, negative.shape[1] + element - count).clamp(0, width - 1)
    finite = torch.cat([negative.masked_fill(negative == -torch.inf, 0.0), positive.sort(dim=1).values], dim=1)
    value = finite.gather(1, source).masked_fill(~(is_negative | is_positive), 0.0)
    straight = []
    for layer in range(width):
        left = torch.arange(layer % 2, width - 1, 2, device=value.device)
        a, b = value[:, left], value[:, left + 1]
        alpha = 0.5 + torch.atan(steepness * (b - a)) / math.pi
        # An anchor with fewer elements runs the network of its own size: unused places and late layers do not swap.
        active = (left + 1 < size) & (layer < size)
        alpha = torch.where(active, alpha, 1.0)
        straight.append((left, alpha))
        value = value.index_copy(1, left, alpha * a + (1 - alpha) * b)
        value = value.index_copy(1, left + 1, (1 - alpha) * a + alpha * b)
    top = ((element >= count) & (element < size)).to(value.dtype)
    for left, alpha in reversed(straight):
        low, high = top[:, left], top[:, left + 1]
        top = top.index_copy(1, left, alpha * low + (1 - alpha) * high)
        top = top.index_copy(1, left + 1, (1 - alpha) * low + alpha * high)
    top = top.clamp(0.0, 1.0)
    chosen = torch.where(is_positive, top, 1 - top)
    # Logarithms of probabilities at 0 are cut at -100, with zero gradient.
    positive_part = chosen > math.exp(-100.0)
    loss = -torch.where(positive_part, chosen.masked_fill(~positive_part, 1.0).log(), -100.0)
    return loss.masked_fill(~(is_negative | is_positive), 0.0).sum(dim=1) / size.squeeze(1)


def _same_id_pairs(
    num_instances: int, num_keys: int | None, ids: Tensor | None, key_ids: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Compressed rows of the candidates that are no negatives of each instance: itself, or all that share its id."""
    if num_keys is None:
        anchor_ids = torch.arange(num_instances, device=device) if ids is None else ids
        candidate_ids = anchor_ids
    elif ids is None or key_ids is None:
        if ids is not None or key_ids is not None:
            raise ValueError("with keys, ids and key_ids go together: pass both or neither")
        return None
    else:
        anchor_ids, candidate_ids = ids, key_ids
        check_labels("key_ids", key_ids, num_keys, integer=True)
    check_labels("ids", anchor_ids, num_instances, integer=True)
    ordered, order = torch.sort(candidate_ids, stable=True)
    first = torch.searchsorted(ordered, anchor_ids.contiguous())
    length = torch.searchsorted(ordered, anchor_ids.contiguous(), right=True) - first
    offsets = torch.cat([length.new_zeros(1), length.cumsum(0)])
    within = torch.arange(int(offsets[-1]), device=device) - offsets[:-1].repeat_interleave(length)
    return offsets, order[first.repeat_interleave(length) + within]
