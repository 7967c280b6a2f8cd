"""Products along meta-paths, computed some rows at a time and cut to what the caller allows; never formed whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.kernels import SparseMatrix

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["MEMORY_BUDGET", "PathProduct", "Score", "Ties", "keep_best", "order_seed"]

#: Bytes that a block of rows and its selection may take.
MEMORY_BUDGET = 128 * 2**20
# What an entry of a block takes while it is computed, scored and ordered.
_BYTES_AN_ENTRY = 64
_HASHED_AT_ONCE = 2**14

Score = Literal["pathsim", "count"]
Ties = Literal["random", "column"]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
#: From positions of entries to keys that order them.
Keys = Callable[[IntArray], NDArray[np.uint64]]


class PathProduct:
    r"""Number of meta-path instances between the nodes at both ends, ``C = B_1 B_2 ... B_k``, by blocks of rows.

    Neighbouring factors are multiplied beforehand where that stays within the budget, so "APCPA" costs two products of
    author-conference counts and not four steps. Blocks are cut by an upper bound on their entries.

    Args:
        factors: matrices whose shapes chain.
        memory_budget: bytes for a block; a single row may exceed it.

    Complexity: time of the products; memory of the factors and one block.

    >>> from scipy.sparse import csr_array
    >>> links = csr_array(np.array([[1.0, 1.0], [0.0, 1.0]]))
    >>> [block.toarray().tolist() for _, block in PathProduct([links, links.T.tocsr()]).blocks()]
    [[[2.0, 1.0], [1.0, 1.0]]]
    """

    def __init__(self, factors: Sequence[csr_array], *, memory_budget: int = MEMORY_BUDGET) -> None:
        if memory_budget < 1:
            raise ValueError(f"memory_budget must be at least 1 byte, got {memory_budget}")
        self.block_entries = max(1, memory_budget // _BYTES_AN_ENTRY)
        self.factors = _contracted(list(factors), self.block_entries)
        self.shape = int(factors[0].shape[0]), int(factors[-1].shape[1])
        self._bounds: FloatArray | None = None

    @property
    def row_bounds(self) -> FloatArray:
        """Upper bound on the entries of every row, also of what is computed on the way to it."""
        if self._bounds is None:
            bounds = np.zeros(self.shape[0])
            for last in range(len(self.factors)):
                paths = np.diff(self.factors[last].indptr).astype(np.float64)
                for factor in reversed(self.factors[:last]):
                    paths = _pattern(factor) @ paths
                bounds = np.maximum(bounds, np.minimum(paths, self.factors[last].shape[1]))
            self._bounds = bounds
        return self._bounds

    def rows(self, rows: slice | IntArray) -> csr_array:
        """Some rows of the product."""
        block = self.factors[0][rows]
        for factor in self.factors[1:]:
            block = block @ factor
        return block

    def blocks(self) -> Iterator[tuple[slice, csr_array]]:
        """The whole product, by blocks of consecutive rows."""
        for rows in row_blocks(self.row_bounds, self.block_entries):
            yield rows, self.rows(rows)

    def diagonal(self) -> FloatArray:
        """Number of instances from every node back to itself, (N,), without the last product."""
        if len(self.factors) == 1:
            return np.asarray(self.factors[0].diagonal(), dtype=np.float64)
        back = self.factors[-1].T.tocsr()
        loops = np.zeros(self.shape[0])
        for rows in row_blocks(self.row_bounds, self.block_entries):
            block = self.factors[0][rows]
            for factor in self.factors[1:-1]:
                block = block @ factor
            loops[rows] = block.multiply(back[rows]).sum(axis=1)
        return loops


def is_symmetric(factors: Sequence[csr_array]) -> bool:
    """Whether a chain reads the same backwards, so that every instance can be walked back."""
    return all(_equal(left, right.T.tocsr()) for left, right in zip(factors, reversed(factors), strict=True))


def row_blocks(bounds: FloatArray, limit: int) -> Iterator[slice]:
    """Consecutive rows whose bounds add up to at most ``limit``, one row at least."""
    ends = np.cumsum(np.maximum(bounds, 1.0))
    start, done = 0, 0.0
    while start < bounds.size:
        stop = max(start + 1, int(np.searchsorted(ends, done + limit, side="right")))
        yield slice(start, stop)
        start, done = stop, float(ends[stop - 1])


@dataclass(frozen=True)
class Selection:
    """How the entries of a row are ordered before all but the first are dropped.

    Attributes:
        ties: ``random`` (a seeded order of its own for every row, which no numbering of the nodes can bias) or
            ``column`` (ascending).
        seed: of the random order.
        self_loops: whether a node may be its own neighbour; it then comes first among ties.
    """

    ties: Ties = "random"
    seed: int = 0
    self_loops: bool = True

    def __post_init__(self) -> None:
        if self.ties not in get_args(Ties):
            raise ValueError(f"ties must be 'random' or 'column', got {self.ties!r}")

    def keys(self, rows: IntArray, columns: IntArray, num_columns: int) -> NDArray[np.uint64]:
        """Keys that order ties, larger first. They depend on the pair alone, never on how blocks are cut."""
        pair = rows.astype(np.uint64) * np.uint64(num_columns) + columns.astype(np.uint64)
        if self.ties == "column":
            keys = np.uint64(2**63) - columns.astype(np.uint64)
        else:
            keys = _scrambled(pair + _scrambled(np.array([self.seed], dtype=np.uint64)))
        keys[rows == columns] = np.iinfo(np.uint64).max
        return keys


def order_seed(generator: torch.Generator | None) -> int:
    """Seed of a random order, drawn from a generator; 0 without one."""
    if generator is None:
        return 0
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def keep_best(offsets: IntArray, scores: FloatArray, keys: Keys, k: int, *, block_entries: int) -> NDArray[np.bool_]:
    """Which entries are among the k best of their row: score descending, then key descending.

    Args:
        offsets: (R + 1,) rows.
        scores: (E,) finite.
        keys: gives the keys of entries, by position; distinct within a row, not 0. Asked for ties at the cut only.
        k: entries kept a row.
        block_entries: how many are ordered at a time.

    Complexity: O(E) and a sort of the ties at the cut; rows of at most k entries are not looked at.
    """
    lengths = np.diff(offsets)
    kept = np.ones(scores.size, dtype=bool)
    crowded = np.nonzero(lengths > k)[0]
    crowded = crowded[np.argsort(lengths[crowded], kind="stable")]
    start = 0
    while start < crowded.size:
        # Rows of similar length, padded to the longest of them.
        widths = lengths[crowded[start:]] * np.arange(1, crowded.size - start + 1)
        stop = start + max(1, int(np.searchsorted(widths, block_entries, side="right")))
        rows = crowded[start:stop]
        width = int(lengths[rows[-1]])
        inside = np.arange(width) < lengths[rows, None]
        places = np.where(inside, offsets[rows, None] + np.arange(width), offsets[rows, None])
        kept[places[inside]] = _best_of_padded(places, inside, scores, keys, k)[inside]
        start = stop
    return kept


def _best_of_padded(
    places: IntArray, inside: NDArray[np.bool_], scores: FloatArray, keys: Keys, k: int
) -> NDArray[np.bool_]:
    padded = np.where(inside, scores[places], -np.inf)
    cut = np.partition(padded, padded.shape[1] - k, axis=1)[:, [padded.shape[1] - k]]
    kept: NDArray[np.bool_] = padded >= cut
    tied = padded == cut
    wanted = k - (padded > cut).sum(axis=1)
    over = np.nonzero(tied.sum(axis=1) > wanted)[0]
    if over.size:
        among = tied[over]
        order = np.zeros(among.shape, dtype=np.uint64)
        order[among] = keys(places[over][among])
        # At most k are wanted, so that only the k largest keys of a row have to be in order.
        largest = np.sort(np.partition(order, order.shape[1] - k, axis=1)[:, -k:], axis=1)
        lowest = largest[np.arange(over.size), k - wanted[over]]
        kept[over] &= ~tied[over] | (order >= lowest[:, None])
    return kept


def concatenated(parts: Sequence[tuple[IntArray, IntArray, FloatArray | None]], shape: tuple[int, int]) -> SparseMatrix:
    """`SparseMatrix` of consecutive blocks, each (entries of every row, columns, values)."""
    lengths = np.concatenate([part[0] for part in parts])
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    columns = torch.from_numpy(np.concatenate([part[1] for part in parts]).astype(np.int64))
    values = None
    if parts[0][2] is not None:
        values = torch.from_numpy(np.concatenate([np.asarray(part[2], dtype=np.float32) for part in parts]))
        values = values.to(torch.get_default_dtype())
    return SparseMatrix(offsets, columns, values, shape, check=False)


def sorted_rows(block: csr_array) -> csr_array:
    """The block with columns ascending within rows: two linear passes, faster than sorting every row."""
    return block.tocsc().tocsr()


def _contracted(factors: list[csr_array], limit: int) -> list[csr_array]:
    """Multiply the cheapest neighbours until two factors are left or the next product would pass the limit."""
    while len(factors) > 2:
        costs = [float(np.diff(right.indptr)[left.indices].sum()) for left, right in pairwise(factors)]
        cheapest = int(np.argmin(costs))
        if costs[cheapest] > limit:
            break
        factors[cheapest : cheapest + 2] = [factors[cheapest] @ factors[cheapest + 1]]
    return factors


def _pattern(matrix: csr_array) -> csr_array:
    from scipy.sparse import csr_array

    return csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _equal(left: csr_array, right: csr_array) -> bool:
    return bool(left.shape == right.shape and left.nnz == right.nnz and abs(left - right).nnz == 0)


def _scrambled(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64: distinct inputs give distinct outputs without a visible pattern."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    # Pieces that stay in the cache through all seven passes.
    shifted = np.empty(min(mixed.size, _HASHED_AT_ONCE), dtype=np.uint64)
    for start in range(0, mixed.size, _HASHED_AT_ONCE):
        part = mixed[start : start + _HASHED_AT_ONCE]
        moved = shifted[: part.size]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            np.right_shift(part, np.uint64(shift), out=moved)
            part ^= moved
            if factor != 1:
                part *= np.uint64(factor)
    return mixed
