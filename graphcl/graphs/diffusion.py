"""Diffusion over graphs: personalised PageRank and heat, exact and dense or approximate, sparse and bounded."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from graphcl.kernels import SparseMatrix, add_self_loops, normalize_by_row, normalize_symmetric

__all__ = ["DiffusionNormalization", "heat_diffusion", "ppr_diffusion", "ppr_topk"]

DiffusionNormalization: TypeAlias = Literal["symmetric", "row"]


def ppr_diffusion(
    adjacency: SparseMatrix,
    alpha: float = 0.2,
    *,
    self_loops: float = 1.0,
    normalization: DiffusionNormalization = "symmetric",
    max_nodes: int = 20_000,
) -> Tensor:
    r"""Personalised PageRank of all nodes, exactly: the second view of MVGRL (Hassani and Khasahmadi, 2020,
    https://arxiv.org/abs/2006.05582; Klicpera et al., 2019, https://arxiv.org/abs/1911.05485).

    .. math:: S = \alpha \left(I - (1 - \alpha)\, T\right)^{-1}, \quad T = D^{-1/2} (A + \lambda I) D^{-1/2}
        \;\text{ or }\; D^{-1} (A + \lambda I)

    Args:
        adjacency: A, ``(n, n)``, values or none; float64 values give a float64 result.
        alpha: probability of going back to the start, in (0, 1].
        self_loops: λ.
        normalization: ``symmetric`` or ``row`` (rows of S then sum to 1).
        max_nodes: refuse larger graphs, as the result has n^2 entries; `ppr_topk` is for them.

    Returns:
        ``(n, n)`` dense. A node without edges and self loop keeps ``alpha`` on itself.

    Raises:
        ValueError: a malformed argument, or more nodes than the bound.

    Complexity: O(n^3) time, O(n^2) memory.

    >>> edge = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> ppr_diffusion(edge, 0.5)
    tensor([[0.7500, 0.2500],
            [0.2500, 0.7500]])
    """
    _check_alpha(alpha)
    size = _check_graph(adjacency, normalization)
    if size > max_nodes:
        raise ValueError(f"adjacency has {size} nodes, more than max_nodes={max_nodes}; use ppr_topk or raise it")
    step = _transition(adjacency, self_loops, normalization).to_dense()
    identity = torch.eye(size, dtype=step.dtype, device=step.device)
    solved: Tensor = torch.linalg.solve(identity - (1 - alpha) * step, alpha * identity)
    return solved


@torch.no_grad()
def heat_diffusion(
    adjacency: SparseMatrix,
    time: float = 5.0,
    *,
    self_loops: float = 1.0,
    normalization: DiffusionNormalization = "symmetric",
    max_nodes: int = 20_000,
) -> Tensor:
    r"""Heat kernel of all nodes (Klicpera et al., 2019, https://arxiv.org/abs/1911.05485).

    .. math:: S = e^{-t (I - T)} = \sum_k e^{-t} \frac{t^k}{k!} T^k

    Args:
        adjacency, self_loops, normalization, max_nodes: see `ppr_diffusion`.
        time: t, at least 0.

    Returns:
        ``(n, n)`` dense.

    Raises:
        ValueError: a malformed argument, or more nodes than the bound.

    Complexity: O(n^3) time, O(n^2) memory.

    >>> edge = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> heat_diffusion(edge, 1.0).sum(1)
    tensor([1., 1.])
    """
    if not 0.0 <= time < torch.inf:
        raise ValueError(f"time must be finite and at least 0, got {time}")
    size = _check_graph(adjacency, normalization)
    if size > max_nodes:
        raise ValueError(f"adjacency has {size} nodes, more than max_nodes={max_nodes}; raise it")
    step = _transition(adjacency, self_loops, normalization).to_dense()
    identity = torch.eye(size, dtype=step.dtype, device=step.device)
    kernel: Tensor = torch.linalg.matrix_exp(time * (step - identity))
    return kernel


@torch.no_grad()
def ppr_topk(
    adjacency: SparseMatrix,
    k: int,
    alpha: float = 0.2,
    *,
    tolerance: float = 1e-4,
    self_loops: float = 1.0,
    normalization: DiffusionNormalization = "symmetric",
    renormalize: bool = False,
    memory_budget: int = 1 << 28,
) -> SparseMatrix:
    r"""The k largest entries of every row of personalised PageRank, by forward push from all nodes at once.

    R. Andersen et al., "Local Graph Partitioning using PageRank Vectors", 2006. A push moves the share alpha of the
    residual of a node into its estimate and the rest to its neighbours; it happens while a residual exceeds
    ``tolerance`` times the degree. For an undirected graph the estimate of a ``row`` diffusion is then too low by at
    most ``tolerance d_j`` in column j, and of a ``symmetric`` one by at most ``tolerance sqrt(d_i d_j)``.

    Args:
        adjacency: A, ``(n, n)``, non-negative values or none; the error bound needs it symmetric.
        k: entries a row, at least 1.
        alpha: probability of going back to the start, in (0, 1].
        tolerance: above 0.
        self_loops: weight of added self loops.
        normalization: ``symmetric`` or ``row``, see `ppr_diffusion`.
        renormalize: divide every row of the result by its sum.
        memory_budget: bytes for the estimates and residuals of the seeds that are pushed together. A single seed
            may need more: it touches at most ``1 / (alpha tolerance)`` entries.

    Returns:
        ``(n, n)`` float64 on the device of A, at most ``n k`` entries (the bound), columns ascending.

    Raises:
        ValueError: a malformed argument, or a negative value.

    Complexity: O(n / (alpha tolerance)) time for a graph of any size (SciPy, on the CPU); O(n k) memory and the budget.

    >>> edge = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> ppr_topk(edge, 1, 0.5, tolerance=1e-8).to_dense().round(decimals=6)
    tensor([[0.7500, 0.0000],
            [0.0000, 0.7500]], dtype=torch.float64)
    """
    import numpy as np

    _check_alpha(alpha)
    size = _check_graph(adjacency, normalization)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k!r}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance}")
    if memory_budget < 1:
        raise ValueError(f"memory_budget must be at least 1 byte, got {memory_budget}")
    wide = adjacency.with_values(adjacency.entry_values().to(torch.float64)).to("cpu")
    if bool((wide.entry_values() < 0).any()):
        raise ValueError("adjacency must not hold negative values")
    if self_loops:
        wide = add_self_loops(wide, self_loops)
    wide = wide.coalesce()
    degrees = wide.row_sums()
    walk: Any = _transition(wide, 0.0, "row").to_scipy()
    threshold = tolerance * degrees.clamp_min(torch.finfo(torch.float64).tiny).numpy()
    root = degrees.sqrt().numpy()
    inverse_root = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
    # An estimate or residual takes a column and a value; three such matrices live at once.
    touched = min(size, max(1, int(1 / (alpha * tolerance))))
    height = max(1, memory_budget // (3 * 16 * max(touched, 1)))
    members, entries, lengths = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], [np.zeros(1, dtype=np.int64)]
    for start in range(0, size, height):
        estimate = _push(walk, np.arange(start, min(start + height, size)), alpha, threshold)
        if normalization == "symmetric":
            rows = np.repeat(np.arange(estimate.shape[0]) + start, np.diff(estimate.indptr))
            factor = root[rows] * inverse_root[estimate.indices]
            # A node without edges has degree 0 on both sides; its own entry is not scaled.
            estimate.data *= np.where(rows == estimate.indices, 1.0, factor)
        columns, values, counts = _largest(estimate, k)
        members.append(columns)
        entries.append(values)
        lengths.append(counts)
    offsets = torch.from_numpy(np.cumsum(np.concatenate(lengths)))
    columns, values = torch.from_numpy(np.concatenate(members)), torch.from_numpy(np.concatenate(entries))
    found = SparseMatrix(offsets, columns, values, (size, size), check=False)
    found = normalize_by_row(found) if renormalize else found
    return found.to(adjacency.device)


def _push(walk: Any, seeds: Any, alpha: float, threshold: Any) -> Any:
    """Forward push for a block of seeds, one row a seed: whatever exceeds the threshold is pushed, in rounds."""
    import numpy as np
    from scipy.sparse import csr_array

    count, size = seeds.shape[0], walk.shape[0]
    residual: Any = csr_array((np.ones(count), (np.arange(count), seeds)), shape=(count, size))
    estimate: Any = csr_array((count, size), dtype=np.float64)
    while True:
        above = residual.data > threshold[residual.indices]
        if not above.any():
            return estimate
        pushed = residual.copy()
        pushed.data = np.where(above, pushed.data, 0.0)
        pushed.eliminate_zeros()
        residual.data = np.where(above, 0.0, residual.data)
        residual.eliminate_zeros()
        estimate = estimate + alpha * pushed
        residual = residual + (1 - alpha) * (pushed @ walk)


def _largest(matrix: Any, k: int) -> tuple[Any, Any, Any]:
    """Columns (ascending), values and counts of the k largest entries a row; the lower column among equals."""
    import numpy as np

    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.empty(order.shape[0], dtype=np.int64)
    rank[order] = np.arange(order.shape[0]) - matrix.indptr[:-1].astype(np.int64)[rows[order]]
    kept = (rank < k) & (matrix.data > 0)
    chosen = np.nonzero(kept)[0]
    chosen = chosen[np.lexsort((matrix.indices[chosen], rows[chosen]))]
    counts = np.bincount(rows[chosen], minlength=matrix.shape[0])
    return matrix.indices[chosen].astype(np.int64), matrix.data[chosen], counts


def _transition(adjacency: SparseMatrix, self_loops: float, normalization: DiffusionNormalization) -> SparseMatrix:
    if normalization == "symmetric":
        return normalize_symmetric(adjacency, self_loops=self_loops)
    return normalize_by_row(add_self_loops(adjacency, self_loops) if self_loops else adjacency)


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}")


def _check_graph(adjacency: SparseMatrix, normalization: DiffusionNormalization) -> int:
    if normalization not in get_args(DiffusionNormalization):
        raise ValueError(f"normalization must be 'symmetric' or 'row', got {normalization!r}")
    if adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be square, got shape {adjacency.shape}")
    return adjacency.shape[0]
