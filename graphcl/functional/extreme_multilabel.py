"""Dual-encoder losses over very many labels: multi-label softmax, DecoupledSoftmax and SoftTop-k."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._embeddings import check_temperature, logits_of, unit_rows
from graphcl.functional._pair_terms import softplus
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.sparse_positives import _as_pairs, _compressed
from graphcl.kernels import Backend, ExcludePairs, edge_dot, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_positive, check_same_space, compute_dtype
from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels._tiles import split

__all__ = ["decoupled_softmax", "multi_label_softmax", "soft_top_k", "soft_top_k_threshold"]

Positives = Tensor | tuple[Tensor, Tensor]

_MAX_SWEEPS = 100
_BUFFERS_PER_TILE = 4
_CACHED_ENTRIES = 2**17


def multi_label_softmax(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    *,
    temperature: float | Tensor = 1.0,
    similarity: Literal["dot", "cosine"] = "dot",
    sample_positive: bool = False,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Softmax over all labels, summed over the positives of a query.

    Nilesh Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (2023),
    https://arxiv.org/abs/2310.10636

    Use it as the plain multi-positive softmax over all labels, when each query has few positives.

    .. math:: L_i = \sum_{p \in P_i} \Big(\log \sum_j e^{\ell_{ij}} - \ell_{ip}\Big), \qquad
        \ell_{ij} = \langle x_i, c_j \rangle / \tau

    Args:
        queries: ``(B, d)``.
        labels: ``(C, d)`` label embeddings.
        positives: ``(2, E)`` pairs (query, label), or compressed rows ``(offsets (B + 1,), columns (E,))``.
        temperature: positive number or 0-dim tensor; the paper uses 1 for raw and .05 for normalised rows.
        similarity: ``dot`` (raw) or ``cosine``.
        sample_positive: one positive a query, drawn uniformly, stands for all of them; the paper's way for this loss.
        generator: of that draw.
        reduction: over queries with a positive.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(B,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: shapes, dtypes, positives or temperature that do not fit.

    Complexity: O(B C d + E d) time, O((B + C) d + E) memory.

    Confidence: V (released class executed, value and gradient agree).

    >>> import torch
    >>> positives = torch.tensor([0, 1]), torch.tensor([2])
    >>> multi_label_softmax(torch.zeros(1, 2), torch.zeros(4, 2), positives)
    tensor(1.3863)
    """
    x, y = _embeddings(queries, labels, similarity)
    check_temperature(temperature)
    rows, columns, count = _edges(positives, x, y)
    if sample_positive:
        offsets, ordered = _compressed(rows, columns, x.shape[0], y.shape[0])
        rows = torch.nonzero(count > 0).squeeze(1)
        draw = torch.rand(rows.shape[0], generator=generator, device=x.device, dtype=torch.float64)
        columns = ordered[offsets[rows] + torch.minimum((draw * count[rows]).long(), count[rows] - 1)]
        count = count.clamp_max(1)
    logit = logits_of(edge_dot(x, y, rows, columns, memory_budget=memory_budget, backend=backend), temperature)
    total = pair_logsumexp(x, y, temperature=temperature, memory_budget=memory_budget, backend=backend).logsumexp
    valid = count > 0
    loss = torch.where(valid, total, 0.0) * count - x.new_zeros(x.shape[0]).index_add(0, rows, logit)
    return reduce_anchors(loss, reduction, valid=valid)


def decoupled_softmax(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    *,
    temperature: float | Tensor = 1.0,
    similarity: Literal["dot", "cosine"] = "dot",
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""DecoupledSoftmax: every positive competes with the negatives of its query, not with its other positives.

    Nilesh Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (2023),
    https://arxiv.org/abs/2310.10636

    Use it for queries with many positive labels, such as users and items, where a shared softmax pushes confident
    positives down.

    .. math:: L_i = \frac{1}{|P_i|} \sum_{p \in P_i} - \log
        \frac{e^{\ell_{ip}}}{e^{\ell_{ip}} + \sum_{j \notin P_i} e^{\ell_{ij}}}, \qquad
        \ell_{ij} = \langle x_i, c_j \rangle / \tau

    Args:
        queries: ``(B, d)``.
        labels: ``(C, d)`` label embeddings.
        positives: ``(2, E)`` pairs (query, label), or compressed rows ``(offsets (B + 1,), columns (E,))``.
        temperature: positive number or 0-dim tensor.
        similarity: ``dot`` (raw) or ``cosine``.
        reduction: over queries with a positive.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(B,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: shapes, dtypes, positives or temperature that do not fit.

    Complexity: O(B C d + E d) time, O((B + C) d + E) memory.

    Confidence: V (released class executed; it masks with -100, which is wrong for raw logits below that).

    >>> import torch
    >>> positives = torch.tensor([0, 2]), torch.tensor([0, 2])
    >>> decoupled_softmax(torch.zeros(1, 2), torch.zeros(4, 2), positives)
    tensor(1.0986)
    """
    x, y = _embeddings(queries, labels, similarity)
    check_temperature(temperature)
    rows, columns, count = _edges(positives, x, y)
    logit = logits_of(edge_dot(x, y, rows, columns, memory_budget=memory_budget, backend=backend), temperature)
    exclude = ExcludePairs(*_compressed(rows, columns, x.shape[0], y.shape[0]))
    negative = pair_logsumexp(
        x, y, temperature=temperature, rules=exclude, memory_budget=memory_budget, backend=backend
    ).logsumexp
    return _mean_over_positives(softplus(negative[rows] - logit), rows, count, count > 0, reduction)


def soft_top_k(
    queries: Tensor,
    labels: Tensor,
    positives: Positives,
    *,
    k: int | Tensor | Literal["positives"] = 5,
    alpha: float = 2.0,
    temperature: float | Tensor = 1.0,
    similarity: Literal["dot", "cosine"] = "dot",
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""SoftTop-k: the positives of a query should be among the k labels that a smooth threshold admits.

    Nilesh Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (2023),
    https://arxiv.org/abs/2310.10636

    Use it when the measure that counts is precision or recall in the first k places.

    .. math:: L_i = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \sigma(\alpha (\ell_{ip} + t_i)), \qquad
        \sum_j \sigma(\alpha (\ell_{ij} + t_i)) = k_i, \qquad \ell_{ij} = \langle x_i, c_j \rangle / \tau

    The gradient includes that of the threshold, see `soft_top_k_threshold`.

    Args:
        queries: ``(B, d)``.
        labels: ``(C, d)`` label embeddings.
        positives: ``(2, E)`` pairs (query, label), or compressed rows ``(offsets (B + 1,), columns (E,))``.
        k: how many labels are admitted: a number, ``(B,)`` numbers, or ``positives`` for as many as the row has.
        alpha: steepness of the threshold.
        temperature: positive number or 0-dim tensor.
        similarity: ``dot`` (raw) or ``cosine``.
        reduction: over queries with a positive and 0 < k < C.
        memory_budget: upper bound in bytes for the tiles.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(B,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: shapes, dtypes, positives, k or temperature that do not fit.

    Complexity: O(s B C d + E d) time for s sweeps (one where a row of logits fits the tile, about 10 elsewhere), and
    O((B + C) d + E) memory.

    Confidence: V (released class executed, value and gradient agree).

    >>> import torch
    >>> positives = torch.tensor([0, 1]), torch.tensor([0])
    >>> soft_top_k(torch.zeros(1, 2), torch.zeros(4, 2), positives, k=1)
    tensor(1.3863)
    """
    x, y = _embeddings(queries, labels, similarity)
    check_temperature(temperature)
    rows, columns, count = _edges(positives, x, y)
    admitted = count if isinstance(k, str) else k
    scaled = logits_of(x, temperature)
    threshold = soft_top_k_threshold(scaled, y, admitted, alpha=alpha, memory_budget=memory_budget)
    logit = edge_dot(scaled, y, rows, columns, memory_budget=memory_budget, backend=backend) + threshold[rows]
    valid = (count > 0) & torch.isfinite(threshold)
    safe = torch.where(valid[rows], logit, 0.0)
    return _mean_over_positives(softplus(-alpha * safe), rows, count, valid, reduction)


def soft_top_k_threshold(
    queries: Tensor, labels: Tensor, k: int | Tensor, *, alpha: float = 2.0, memory_budget: int = MEMORY_BUDGET
) -> Tensor:
    r"""Shift that lets a logistic threshold admit exactly k of the labels of every query, in linear memory.

    .. math:: \sum_j \sigma(\alpha (\langle x_i, c_j \rangle + t_i)) = k_i, \qquad
        \frac{\partial t_i}{\partial \ell_{ij}} = - \frac{v_{ij}}{\sum_j v_{ij}}, \quad v = \alpha \sigma (1 - \sigma)

    Solved by Newton steps on the logarithm of the sum, kept inside a shrinking bracket. Where a row of logits fits into
    the tile it is computed once, otherwise once a step.

    Args:
        queries: ``(B, d)``, already divided by the temperature.
        labels: ``(C, d)``.
        k: number, or ``(B,)`` numbers.
        alpha: steepness.
        memory_budget: upper bound in bytes for the tiles.

    Returns:
        ``(B,)`` in the accumulation type; differentiable once in queries and labels. Rows with k <= 0 or k >= C have no
        solution and give -inf or +inf with zero gradient.

    Raises:
        ValueError, TypeError: shapes, dtypes or constants that do not fit.

    Complexity: O(s B C d) time for s sweeps, O((B + C) d) memory plus the tiles.

    >>> import torch
    >>> soft_top_k_threshold(torch.zeros(1, 2), torch.zeros(4, 2), 2).abs() < 1e-6
    tensor([True])
    """
    check_same_space("queries", queries, "labels", labels)
    check_positive("alpha", alpha)
    wide = compute_dtype(queries.dtype)
    if isinstance(k, Tensor):
        if k.shape != (queries.shape[0],):
            raise ValueError(f"k must be a number or have shape ({queries.shape[0]},), got shape {tuple(k.shape)}")
        admitted = k.detach().to(wide)
    else:
        admitted = torch.full((queries.shape[0],), float(k), dtype=wide, device=queries.device)
    threshold: Tensor = _Threshold.apply(  # type: ignore[no-untyped-call]
        queries.to(wide), labels.to(wide), admitted, alpha, memory_budget
    )
    return threshold


class _Threshold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, k: Tensor, alpha: float, memory_budget: int) -> Tensor:
        threshold, slope = torch.empty_like(k), torch.zeros_like(k)
        for block, whole in _row_blocks(x, y, alpha, memory_budget):
            for part, tiles in whole.parts():
                rows = slice(block.start + part.start, block.start + part.stop)
                solvable = (k[rows] > 0) & (k[rows] < y.shape[0])
                target = torch.where(solvable, k[rows], 0.5 * y.shape[0])
                root, steepness = _solve(tiles, target, y.shape[0])
                edge = torch.where(k[rows] > 0, torch.inf, -torch.inf).to(root.dtype)
                # The tiles hold alpha * logits, so the root is alpha * t.
                threshold[rows] = torch.where(solvable, root / alpha, edge)
                slope[rows] = torch.where(solvable, steepness, 0.0)
        ctx.save_for_backward(x, y, threshold, slope)
        ctx.alpha, ctx.memory_budget = alpha, memory_budget
        return threshold

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, y, threshold, slope = ctx.saved_tensors
        # A row without slope is saturated: no label is near the threshold and moving any of them moves nothing.
        share = torch.where(slope > 0, -grad / slope.masked_fill(slope <= 0, 1.0), 0.0)
        dx, dy = torch.zeros_like(x), y.new_zeros(y.shape[1], y.shape[0])  # transposed: the faster product
        for rows, tiles in _row_blocks(x, y, ctx.alpha, ctx.memory_budget):
            shift = torch.where(slope[rows] > 0, ctx.alpha * threshold[rows], 0.0)
            for columns, logits in tiles.tiles():
                admitted = logits.add_(shift[:, None]).sigmoid_()
                flow = (1.0 - admitted).mul_(admitted).mul_(share[rows, None])
                dx[rows] += matmul_nt(flow, y[columns].T)
                dy[:, columns] += matmul_nt(x[rows].T.contiguous(), flow.T)
        return dx, dy.T, None, None, None


class _RowTiles:
    """Logits ``alpha <x_i, y_j>`` of some rows, tile by tile; kept when one tile holds all columns."""

    def __init__(self, x: Tensor, y: Tensor, width: int, kept: Tensor | None = None) -> None:
        self.x, self.y, self.width = x, y, width
        self._kept = matmul_nt(x, y) if kept is None and width >= y.shape[0] else kept
        self._work = x.new_empty(2, 0)

    def parts(self) -> Iterator[tuple[slice, _RowTiles]]:
        """Groups of rows whose kept logits stay in cache over all sweeps."""
        if self._kept is None:
            yield slice(0, self.x.shape[0]), self
            return
        for part in split(self.x.shape[0], max(1, _CACHED_ENTRIES // max(self.y.shape[0], 1))):
            yield part, _RowTiles(self.x[part], self.y, self.width, self._kept[part])

    def tiles(self) -> Iterator[tuple[slice, Tensor]]:
        if self._kept is not None:
            yield slice(0, self.y.shape[0]), self._kept
            return
        for columns in split(self.y.shape[0], self.width):
            yield columns, matmul_nt(self.x, self.y[columns])

    def buffers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Two tiles to work in."""
        if self._work.shape[1] < like.numel():
            self._work = like.new_empty(2, like.numel())
        first, second = self._work[:, : like.numel()]
        return first.view_as(like), second.view_as(like)


def _row_blocks(x: Tensor, y: Tensor, alpha: float, memory_budget: int) -> Iterator[tuple[slice, _RowTiles]]:
    entries = max(memory_budget // (_BUFFERS_PER_TILE * x.element_size()), 1)
    width = max(min(y.shape[0], entries // min(max(x.shape[0], 1), 32)), 1)
    height = max(min(x.shape[0], entries // width), 1)
    for rows in split(x.shape[0], height):
        yield rows, _RowTiles(alpha * x[rows], y, width)


def _solve(tiles: _RowTiles, k: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Root t of ``sum_j sigmoid(l_ij + t) = k`` for 0 < k < num_labels, and the derivative of the sum there."""
    high, low = _signed_logsumexp(tiles, k, 1.0), _signed_logsumexp(tiles, k, -1.0)
    # sigmoid(z) <= e^z bounds the root from below, 1 - sigmoid(z) <= e^-z from above.
    lower, upper = k.log() - high, low - (num_labels - k).log()
    few = k <= num_labels / 2
    root = torch.where(few, lower, upper)
    tolerance = 4 * torch.finfo(k.dtype).eps
    for _ in range(_MAX_SWEEPS):
        admitted, slope = _admitted(tiles, root)
        lower = torch.where(admitted < k, torch.maximum(lower, root), lower)
        upper = torch.where(admitted > k, torch.minimum(upper, root), upper)
        # The logarithm of the smaller side of the sum is close to linear in t.
        side = torch.where(few, admitted, num_labels - admitted)
        wanted = torch.where(few, k, num_labels - k)
        step = torch.where(few, -1.0, 1.0) * side * (side / wanted).log() / slope
        step = torch.where(admitted == k, 0.0, step)
        candidate = root + step
        inside = (candidate >= lower) & (candidate <= upper)  # false for NaN, when the sum or its slope underflows
        candidate = torch.where(inside, candidate, lower + (upper - lower) / 2)
        moved = (candidate - root).abs()
        root = candidate
        if bool((moved <= tolerance * root.abs().clamp_min(1.0)).all()):
            break
    return root, _admitted(tiles, root)[1]


def _signed_logsumexp(tiles: _RowTiles, like: Tensor, sign: float) -> Tensor:
    total = torch.full_like(like, -torch.inf)
    for _, logits in tiles.tiles():
        total = torch.logaddexp(total, torch.logsumexp(sign * logits, dim=1))
    return total


def _admitted(tiles: _RowTiles, root: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the admitted shares and its derivative."""
    total, slope = torch.zeros_like(root), torch.zeros_like(root)
    for _, logits in tiles.tiles():
        share, rest = tiles.buffers(logits)
        torch.add(logits, root[:, None], out=share).sigmoid_()
        total += share.sum(dim=1)
        slope += torch.neg(share, out=rest).add_(1.0).mul_(share).sum(dim=1)
    return total, slope


def _embeddings(queries: Tensor, labels: Tensor, similarity: str) -> tuple[Tensor, Tensor]:
    check_same_space("queries", queries, "labels", labels)
    if similarity == "cosine":
        return unit_rows("queries", queries), unit_rows("labels", labels)
    if similarity != "dot":
        raise ValueError(f"similarity must be 'dot' or 'cosine', got {similarity!r}")
    wide = compute_dtype(queries.dtype)
    return queries.to(wide), labels.to(wide)


def _edges(positives: Positives, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column of every positive, and the number of positives of every row."""
    rows, columns = _as_pairs(positives, x.shape[0], y.shape[0])
    return rows, columns, torch.bincount(rows, minlength=x.shape[0])


def _mean_over_positives(loss: Tensor, rows: Tensor, count: Tensor, valid: Tensor, reduction: Reduction) -> Tensor:
    total = loss.new_zeros(count.shape[0]).index_add(0, rows, loss)
    return reduce_anchors(total / count.clamp_min(1), reduction, valid=valid)
