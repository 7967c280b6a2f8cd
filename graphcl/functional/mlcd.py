"""Multi-label cluster discrimination: several nearest centres are positive, a sample of the others negative."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import softplus, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.sparse_positives import _as_pairs, _compressed
from graphcl.kernels import Backend, ExcludePairs, edge_dot, pair_logsumexp, pair_topk, scatter_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_positive, check_same_space

__all__ = ["mlcd", "nearest_centers"]


def mlcd(
    embeddings: Tensor,
    centers: Tensor,
    positives: Tensor | tuple[Tensor, Tensor],
    *,
    negatives: Tensor | None = None,
    scale: float | Tensor = 32.0,
    margin: float = 0.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Multi-label cluster discrimination: pulls every row to its centres and pushes it from the others, separately.

    X. An, K. Yang, X. Dai, Z. Feng, J. Deng, "Multi-label Cluster Discrimination for Visual Representation Learning",
    2024, https://arxiv.org/abs/2407.17331. Confidence: P. Use it with a fixed, large set of cluster centres of which a
    sample may belong to several. The scale and the place of the margin are conventions of this package.

    .. math:: L_i = \log\Bigl(1 + \sum_{p \in P(i)} e^{-\gamma (s_{ip} - m)}\Bigr)
        + \log\Bigl(1 + \sum_{j \notin P(i)} e^{\gamma s_{ij}}\Bigr)

    Args:
        embeddings: ``(N, d)``.
        centers: ``(K, d)``.
        positives: ``(2, E)`` pairs of row and centre, or compressed rows (offsets ``(N + 1,)``, columns ``(E,)``), for
            instance of `nearest_centers`.
        negatives: ``(S,)`` distinct positions of the centres that may be negative in this step (a random tenth, say);
            all by default. A positive centre is never negative.
        scale: gamma, a positive number or 0-dim tensor: the inverse of a temperature.
        margin: m, subtracted from the similarity of positives.
        weight: ``(N,)`` non-negative weights of the rows.
        reduction: ``mean`` over rows that have a positive, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; rows without positives are dropped.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N S d + E d) time, O((N + K) d + E) memory plus the tiles.

    >>> import torch
    >>> mlcd(torch.eye(3), torch.eye(3), torch.tensor([[0, 1, 2], [0, 1, 2]]), scale=1.0)
    tensor(1.4119)
    """
    check_same_space("embeddings", embeddings, "centers", centers)
    check_positive("scale", float(scale))
    num_rows, num_centers = embeddings.shape[0], centers.shape[0]
    rows, columns = _as_pairs(positives, num_rows, num_centers)
    x, y = unit_rows(embeddings, centers)
    pulled = edge_dot(x, y, rows, columns, memory_budget=memory_budget, backend=backend)
    pull = scatter_logsumexp(-scale * (pulled - margin), rows, num_rows)
    if negatives is not None:
        check_indices("negatives", negatives, None, num_centers, check=True)
        place = torch.full((num_centers,), -1, device=columns.device)
        place[negatives.long()] = torch.arange(negatives.shape[0], device=columns.device)
        sampled = place[columns] >= 0
        excluded = _compressed(rows[sampled], place[columns[sampled]], num_rows, max(negatives.shape[0], 1))
        y = y[negatives.long()]
    else:
        excluded = _compressed(rows, columns, num_rows, num_centers)
    push = pair_logsumexp(
        x, y, temperature=1.0 / scale, rules=ExcludePairs(*excluded), memory_budget=memory_budget, backend=backend
    ).logsumexp
    valid = torch.bincount(rows, minlength=num_rows) > 0
    return reduce_anchors(softplus(pull) + softplus(push), reduction, valid=valid, weight=weight)


def nearest_centers(
    embeddings: Tensor,
    centers: Tensor,
    count: int = 8,
    *,
    min_similarity: float | None = None,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Compressed rows of the centres each row belongs to: the ``count`` nearest ones by cosine.

    X. An et al., "Multi-label Cluster Discrimination for Visual Representation Learning", 2024. Confidence: P.

    Args:
        embeddings: ``(N, d)``.
        centers: ``(K, d)``.
        count: how many.
        min_similarity: drops centres below this cosine, but for the nearest one.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_topk`.

    Returns:
        Offsets ``(N + 1,)`` and centre positions ``(E,)``, sorted within a row, as `mlcd` takes them.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N K d) time, O((N + K) d + N count) memory plus the tiles.

    >>> import torch
    >>> nearest_centers(torch.eye(2), torch.eye(2), 1)
    (tensor([0, 1, 2]), tensor([0, 1]))
    """
    check_block_size("count", count)
    found = pair_topk(embeddings, centers, count, similarity="cosine", memory_budget=memory_budget, backend=backend)
    kept = found.indices >= 0
    if min_similarity is not None:
        kept[:, 1:] &= found.values[:, 1:] >= min_similarity
    rows, slots = kept.nonzero(as_tuple=True)
    return _compressed(rows, found.indices[rows, slots], embeddings.shape[0], max(centers.shape[0], 1))
