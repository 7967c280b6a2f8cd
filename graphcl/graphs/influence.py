"""Influence of nodes on each other over several steps of a random walk: the positives of block contrastive learning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from graphcl.kernels import SparseMatrix, add_self_loops, normalize_by_row

if TYPE_CHECKING:
    import numpy.typing as npt
    from scipy.sparse import csr_array

__all__ = ["influence_matrix"]

# Entries that one sparse product may have at most, unless a single row has more.
_BLOCK_ENTRIES: Final = 2**24


def influence_matrix(
    adjacency: SparseMatrix,
    order: int = 3,
    *,
    accumulate: bool = True,
    self_loops: float = 1.0,
    max_entries: int | None = None,
    max_intermediate: int | None = None,
    block_entries: int = _BLOCK_ENTRIES,
) -> SparseMatrix:
    r"""How much every node reaches every other within some steps of a random walk, kept sparse.

    G. K. Kulatilleke, M. Portmann, S. S. Chandra, "SCGC: Self-Supervised Contrastive Graph Clustering", 2022,
    https://arxiv.org/abs/2204.12656.

    .. math:: P = D^{-1} (A + \lambda I), \qquad G = P + P^2 + \dots + P^R \;\text{ or }\; G = P^R

    Rows are computed in blocks and cut before the next block, so that what is held is the result and one product.

    Args:
        adjacency: A, ``(N, N)``, symmetric in the papers; values, if any, must not be negative.
        order: R, at least 1.
        accumulate: sum the powers (SCGC*, PamC) or take the last one alone (plain SCGC).
        self_loops: weight λ; 0 adds none, and a node without entries then has an empty row.
        max_entries: keep the so many largest entries of every row; None keeps all. Entries equal in single precision
            rank by column, the lowest first.
        max_intermediate: keep the so many largest entries of every row, of the power or of the sum so far, before it is
            multiplied again. None multiplies whole rows: exact, but on graphs with hubs three steps can reach
            everything.
        block_entries: bound on the scalar products of one sparse product (a single row may have more).

    Returns:
        G ``(N, N)`` on the device of ``adjacency``, columns ascending within rows, computed in float64 and stored in
        the dtype of the values (of float32 where there are none). No gradient. Without a cut every row with entries
        sums to R, or to 1 for the last power alone.

    Raises:
        ValueError: an argument out of range, named with its value.

    Complexity: O(sum of the scalar products of the powers) time; O(N max_entries + block_entries) memory.

    Example:
        >>> path = SparseMatrix.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
        >>> influence_matrix(path, 2).to_dense()
        tensor([[0.9167, 0.9167, 0.1667],
                [0.6111, 0.7778, 0.6111],
                [0.1667, 0.9167, 0.9167]])
        >>> influence_matrix(path, 2, max_entries=1).columns
        tensor([0, 1, 1])
    """
    if adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be square, got shape {adjacency.shape}")
    _check_at_least_one("order", order)
    _check_at_least_one("block_entries", block_entries)
    for name, bound in (("max_entries", max_entries), ("max_intermediate", max_intermediate)):
        if bound is not None:
            _check_at_least_one(name, bound)
    if self_loops < 0:
        raise ValueError(f"self_loops must not be negative, got {self_loops}")
    values = adjacency.values
    if values is not None and not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(f"adjacency must hold finite values of at least 0, got {float(values.min())} at least")
    wide = adjacency.with_values(adjacency.entry_values().detach().double())
    walk = normalize_by_row(add_self_loops(wide, self_loops) if self_loops else wide).coalesce().to("cpu").to_scipy()
    powers = _Powers(walk, order, accumulate, max_entries, max_intermediate, block_entries)
    blocks = list(powers.rows())
    counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(block.indptr) for block in blocks)])
    return SparseMatrix(
        torch.from_numpy(counts.cumsum()),
        torch.from_numpy(np.concatenate([block.indices for block in blocks]).astype(np.int64)),
        torch.from_numpy(np.concatenate([block.data for block in blocks])).to(
            torch.float32 if values is None or not values.is_floating_point() else values.dtype
        ),
        adjacency.shape,
        check=False,
    ).to(adjacency.device)


class _Powers:
    """Rows of the influence matrix, block after block."""

    def __init__(
        self,
        walk: csr_array,
        order: int,
        accumulate: bool,
        max_entries: int | None,
        max_intermediate: int | None,
        block_entries: int,
    ) -> None:
        self.walk: Any = walk
        self.degree = np.diff(self.walk.indptr).astype(np.int64)
        self.order = order
        self.accumulate = accumulate
        self.max_entries = max_entries
        self.max_intermediate = max_intermediate
        self.block_entries = block_entries

    def rows(self) -> Iterator[Any]:
        """Finished blocks in the order of their rows."""
        return self._multiply(self.walk, np.arange(self.walk.shape[0]), 1)

    def _multiply(self, reached: Any, nodes: npt.NDArray[np.int64], step: int) -> Iterator[Any]:
        """From what some nodes reach in ``step`` steps (or up to ``step``) to their finished rows."""
        if step == self.order:
            finished = _largest(reached, self.max_entries)
            finished.sort_indices()
            yield finished
            return
        reached = _largest(reached, self.max_intermediate)
        if self.accumulate:
            # P + ... + P^(s + 1) = (I + P + ... + P^s) P: one product a step, and no sum of large matrices.
            reached = reached + _rows_of_identity(nodes, reached.shape[1])
        for part in self._blocks(reached):
            yield from self._multiply(reached[part] @ self.walk, nodes[part], step + 1)

    def _blocks(self, reached: Any) -> Iterator[slice]:
        """Consecutive rows whose product has at most ``block_entries`` scalar products, one row at least."""
        products = np.concatenate([np.zeros(1, np.int64), self.degree[reached.indices].cumsum()])[reached.indptr]
        start, stop = 0, reached.shape[0]
        while start < stop or stop == 0:
            end = int(np.searchsorted(products, products[start] + self.block_entries, side="right")) - 1
            end = min(max(end, start + 1), stop)
            yield slice(start, end)
            if stop == 0:
                return
            start = end


def _rows_of_identity(nodes: npt.NDArray[np.int64], size: int) -> Any:
    from scipy.sparse import csr_array

    return csr_array((np.ones(nodes.size), nodes, np.arange(nodes.size + 1)), shape=(nodes.size, size))


def _largest(matrix: Any, bound: int | None) -> Any:
    """The ``bound`` largest entries of every row; equal ones (in float32) by column, the lowest first."""
    length = np.diff(matrix.indptr)
    if bound is None or length.max(initial=0) <= bound:
        return matrix
    from scipy.sparse import csr_array

    # One integer an entry that no other of its row has: the bits of numbers above 0 are in the order of the numbers.
    bits = matrix.data.astype(np.float32).view(np.int32).astype(np.int64)
    key = (bits << 32) | (2**32 - 1 - matrix.indices.astype(np.int64))
    threshold = np.zeros(matrix.shape[0], dtype=np.int64)
    long = np.flatnonzero(length > bound)
    # Rows of about one length side by side, so that padding at most doubles them.
    width_of = 2 ** np.ceil(np.log2(length[long])).astype(np.int64)
    for width in np.unique(width_of):
        rows = long[width_of == width]
        for start in range(0, rows.size, max(1, _BLOCK_ENTRIES // int(width))):
            some = rows[start : start + max(1, _BLOCK_ENTRIES // int(width))]
            place = np.arange(width)
            inside = place < length[some, None]
            keys = np.where(inside, key[np.where(inside, matrix.indptr[some, None] + place, 0)], -1)
            threshold[some] = np.partition(keys, width - bound, axis=1)[:, width - bound]
    kept = key >= np.repeat(threshold, length)
    offsets = np.concatenate([np.zeros(1, np.int64), np.minimum(length, bound).cumsum()])
    return csr_array((matrix.data[kept], matrix.indices[kept], offsets), shape=matrix.shape)


def _check_at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
