"""Views of a heterogeneous graph along meta-paths: who is connected, through which nodes, and both masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.errors import InputError
from graphcl.graphs.metapath import MetaPath, MetaPathLike, incidence, parse_metapath, target_type
from graphcl.graphs.metapath_products import (
    MEMORY_BUDGET,
    FloatArray,
    IntArray,
    PathProduct,
    Score,
    Selection,
    Ties,
    concatenated,
    is_symmetric,
    keep_best,
    order_seed,
    sorted_rows,
)
from graphcl.kernels import Factor, FactoredMatrix, SparseMatrix, add_self_loops, normalize_symmetric

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch_geometric.data import HeteroData

__all__ = [
    "Context",
    "MetaPathView",
    "Weights",
    "coarse_adjacency",
    "masked_adjacency",
    "metapath_adjacency",
    "metapath_contexts",
    "metapath_views",
    "normalize_transposed",
    "pathsim_neighbours",
]

Weights = Literal["count", "boolean", "pathsim"]
#: One number for every meta-path, one each in their order, or by name.
PerPath: TypeAlias = "int | Sequence[int | None] | Mapping[str, int] | None"


@dataclass(frozen=True)
class Context:
    """The nodes that a meta-path passes at one of its inner places.

    Attributes:
        node_type: type of these nodes.
        factors: unweighted matrices whose product is 1 at (i, j) where an instance from node i passes j.
    """

    node_type: str
    factors: tuple[SparseMatrix, ...]

    @property
    def mean(self) -> FactoredMatrix:
        """Operator (N, nodes of the type) that averages over the context of every node; 0 where it is empty."""
        sizes = FactoredMatrix(self.factors).row_sums()
        scale: Factor = torch.where(sizes > 0, sizes.clamp(min=1).reciprocal(), torch.zeros_like(sizes))
        return FactoredMatrix([scale, *self.factors])

    @property
    def num_entries(self) -> int:
        """Stored entries."""
        return sum(factor.num_entries for factor in self.factors)


@dataclass(frozen=True)
class MetaPathView:
    """What one meta-path says about the target nodes.

    Attributes:
        path: the meta-path.
        adjacency: coarse view (N, N): row i holds the neighbours that were kept for node i.
        contexts: fine view, one a place between both ends.
    """

    path: MetaPath
    adjacency: SparseMatrix
    contexts: tuple[Context, ...]


def metapath_views(
    graph: HeteroData,
    metapaths: Sequence[MetaPathLike] | None = None,
    *,
    target: str | None = None,
    k: PerPath = None,
    max_edges: PerPath = None,
    weights: Weights = "count",
    score: Score = "pathsim",
    ties: Ties = "random",
    context_k: int | None = None,
    context_max_edges: int | None = None,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> list[MetaPathView]:
    """Coarse and fine view of every meta-path.

    Args:
        graph: PyG ``HeteroData``.
        metapaths: chains of edge types, or text such as "PAP"; those in ``graph.metapaths`` when None.
        target: node type at both ends; ``graph.target`` or the one with labels when None.
        k: neighbours kept a node, see `metapath_adjacency`; one for all paths, one each, or by name.
        max_edges: bound on the entries of a coarse view; likewise.
        weights, score, ties: see `metapath_adjacency`.
        context_k, context_max_edges: the same bounds for every context, see `metapath_contexts`.
        generator: decides ties and samples; fixed orders when None.
        memory_budget: bytes for a block of rows.

    Returns:
        A `MetaPathView` a meta-path, in their order.

    Raises:
        InputError: a meta-path that does not fit the schema or the target, or an empty relation.
        InputError: a bound that would keep no edge.

    Complexity: time of the products, memory of the results and one block.

    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData()
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 3, 2
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]])
    >>> view, = metapath_views(graph, ["PAP"], target="paper")
    >>> view.adjacency.to_dense()
    tensor([[1., 1., 0.],
            [1., 2., 1.],
            [0., 1., 1.]])
    >>> view.contexts[0].mean.to_dense()
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000],
            [0.0000, 1.0000]])
    """
    target = target_type(graph, target)
    paths = [parse_metapath(graph, path, target=target) for path in named_metapaths(graph, metapaths)]
    views = []
    for path, kept, bound in zip(
        paths, _per_path(paths, "k", k), _per_path(paths, "max_edges", max_edges), strict=True
    ):
        adjacency = metapath_adjacency(
            graph,
            path,
            k=kept,
            max_edges=bound,
            weights=weights,
            score=score,
            ties=ties,
            generator=generator,
            memory_budget=memory_budget,
        )
        contexts = metapath_contexts(
            graph,
            path,
            k=context_k,
            max_edges=context_max_edges,
            generator=generator,
            memory_budget=memory_budget,
        )
        views.append(MetaPathView(path, adjacency, contexts))
    return views


def metapath_adjacency(
    graph: HeteroData,
    path: MetaPathLike,
    *,
    target: str | None = None,
    k: int | None = None,
    max_edges: int | None = None,
    weights: Weights = "count",
    score: Score = "pathsim",
    ties: Ties = "random",
    self_loops: bool = True,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> SparseMatrix:
    r"""Coarse view: which target nodes a meta-path connects, and the closest of them where there are too many.

    Y. Sun, J. Han, X. Yan, P. S. Yu, T. Wu, "PathSim: Meta Path-Based Top-K Similarity Search in Heterogeneous
    Information Networks", 2011, https://www.vldb.org/pvldb/vol4/p992-sun.pdf.

    .. math:: C = B_1 B_2 \cdots B_k, \qquad s_{ij} = \frac{2\, C_{ij}}{C_{ii} + C_{jj}}

    Row i keeps its k entries of highest score. Among equal scores the node itself comes first, then a seeded random
    order of its own for every row, or the column order. The random order is the default because a common order, such
    as that of the columns, keeps the same few nodes for all rows: numbers often follow label or venue, and nodes that
    no row keeps would lose all their edges.

    The product is computed by blocks of rows and each block is cut before the next one begins.

    Args:
        graph: PyG ``HeteroData``.
        path: meta-path; see `parse_metapath`.
        target: node type at both ends.
        k: most entries a row.
        max_edges: most entries in all: the largest number a row is allowed that keeps the total within the bound.
        weights: kept entries carry the ``count`` of instances, nothing (``boolean``), or their ``pathsim``.
        score: ``pathsim``, for paths that read the same backwards, or ``count``.
        ties: ``random`` or ``column``.
        self_loops: whether the diagonal (a node reached from itself) is an entry like the others.
        generator: seeds the random order; a fixed one when None. The result does not depend on the blocks.
        memory_budget: bytes for a block of rows.

    Returns:
        (N, N) with columns ascending in rows; not symmetric once it is cut.

    Raises:
        InputError: a meta-path that does not fit the schema, an empty relation, or ``pathsim`` on a path that cannot be
            walked back.
        InputError: a bound that keeps no edge.
        ValueError: an unknown option.

    Complexity: time O(instances of half paths that meet) plus a partial sort of each row; memory of the result, the
    relations and one block. ``max_edges`` costs a second pass where a first look cannot rule it out.

    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData()
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 3, 2
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]])
    >>> metapath_adjacency(graph, "PAP", k=2, ties="column").to_dense()
    tensor([[1., 1., 0.],
            [1., 2., 0.],
            [0., 1., 1.]])
    """
    parsed = parse_metapath(graph, path, target=target)
    factors = [incidence(graph, hop) for hop in parsed.hops]
    cut = _Cut(k, max_edges, weights, score, Selection(ties, order_seed(generator), self_loops), f"{parsed.name!r}")
    if cut.needs_pathsim and (len(factors) % 2 or not is_symmetric(factors)):
        raise InputError(
            f"PathSim needs a meta-path that reads the same backwards, and {parsed.name!r} does not",
            "use score='count' and weights='count' or 'boolean'",
        )
    return cut.apply(PathProduct(factors, memory_budget=memory_budget))


def pathsim_neighbours(
    counts: SparseMatrix,
    *,
    k: int | None = None,
    max_edges: int | None = None,
    weights: Weights = "count",
    score: Score = "pathsim",
    ties: Ties = "random",
    self_loops: bool = True,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> SparseMatrix:
    """The same choice of neighbours as `metapath_adjacency` from counts that are there already.

    Args:
        counts: C, (N, N), one entry a place; its diagonal holds the instances from a node to itself.
        k, max_edges, weights, score, ties, self_loops, generator, memory_budget: see `metapath_adjacency`.

    Returns:
        (N, N) with columns ascending in rows.

    Raises:
        InputError: a bound that keeps no edge.
        ValueError: counts that are not square, or an unknown option.

    Complexity: O(E) and a partial sort of each row.

    >>> dense = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 9.0]])
    >>> counts = SparseMatrix.from_torch(dense.to_sparse_csr())
    >>> pathsim_neighbours(counts, k=2).to_dense()
    tensor([[2., 1., 0.],
            [1., 1., 0.],
            [1., 0., 9.]])
    """
    if counts.shape[0] != counts.shape[1]:
        raise ValueError(f"counts must be square, got shape {counts.shape}")
    cut = _Cut(k, max_edges, weights, score, Selection(ties, order_seed(generator), self_loops), "these counts")
    return cut.apply(PathProduct([counts.to_scipy().astype(np.float64)], memory_budget=memory_budget))


@dataclass(frozen=True)
class _Cut:
    """Which entries of a product are kept, and what they carry."""

    k: int | None
    max_edges: int | None
    weights: Weights
    score: Score
    selection: Selection
    what: str

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("weights", self.weights, get_args(Weights)),
            ("score", self.score, get_args(Score)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        check_bound("k", self.k)
        check_bound("max_edges", self.max_edges)

    @property
    def needs_pathsim(self) -> bool:
        limited = self.k is not None or self.max_edges is not None
        return self.weights == "pathsim" or (self.score == "pathsim" and limited)

    def apply(self, product: PathProduct) -> SparseMatrix:
        loops = product.diagonal() if self.needs_pathsim else None
        limit = _row_limit(product, self.k, self.max_edges, self.selection, self.what)
        parts, dropped = [], False
        for rows, block in product.blocks():
            entries = row_entries(block, rows.start)
            if not self.selection.self_loops:
                entries = entries.where(entries.rows != entries.columns)
            if limit is not None and entries.lengths.max(initial=0) > limit:
                ranking = entries.values if self.score == "count" or loops is None else entries.pathsim(loops)
                dropped, entries = True, entries.best(ranking, limit, self.selection, product)
            entries = entries.sorted(product.shape[1])
            values = None
            if self.weights != "boolean":
                values = entries.values if self.weights == "count" or loops is None else entries.pathsim(loops)
            parts.append((entries.lengths, entries.columns, values))
        found = concatenated(parts, product.shape)
        if dropped and not bool((found.pattern.rows != found.columns).any()):
            raise InputError(
                f"k={self.k}, max_edges={self.max_edges} keep no edge of {self.what} but the nodes themselves",
                "allow more, or set self_loops=False",
            )
        return found


def metapath_contexts(
    graph: HeteroData,
    path: MetaPathLike,
    *,
    target: str | None = None,
    k: int | None = None,
    max_edges: int | None = None,
    distinct: bool = True,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> tuple[Context, ...]:
    """Fine view: through which nodes a meta-path leads, one context for every place between its ends.

    "APCPA" gives the papers of an author, their conferences, and the papers of those conferences. A context holds the
    distinct nodes on complete instances. Where each node of a place is reached in one way only (every paper has one
    conference) the context stays a product of two small matrices and is never formed.

    Args:
        graph: PyG ``HeteroData``.
        path: meta-path; see `parse_metapath`.
        target: node type at both ends.
        k: most nodes of a context, drawn uniformly from it; all when None.
        max_edges: bound on the entries of a context, met by the largest k that does.
        distinct: False counts a node as often as instances reach it, which needs no context matrix at all: the factors
            are then the relations themselves.
        generator: of the draws; a fixed order when None.
        memory_budget: bytes for a block of rows.

    Returns:
        A `Context` for each of the path's inner places, from the first to the last.

    Raises:
        InputError: a meta-path that does not fit the schema, or an empty relation.
        InputError: a bound that keeps nothing.

    Complexity: time of the products, memory of the results and one block.

    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData()
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 2, 2
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 1], [0, 0, 1]])
    >>> [(one.node_type, one.num_entries) for one in metapath_contexts(graph, "APA")]
    [('paper', 3)]
    """
    parsed = parse_metapath(graph, path, target=target)
    check_bound("k", k)
    check_bound("max_edges", max_edges)
    selection = Selection("random", order_seed(generator))
    factors = _completed([incidence(graph, hop) for hop in parsed.hops])[:-1]
    contexts = []
    chain: list[csr_array] = []
    for hop, factor in zip(parsed.hops, factors, strict=False):
        chain.append(factor)
        if not distinct:
            contexts.append(Context(hop.end, tuple(_unweighted(part) for part in chain)))
            continue
        stored = sum(part.nnz for part in chain)
        one_way = len(chain) <= 2 and bool((np.diff(factor.tocsc().indptr) <= 1).all())
        if len(chain) > 1 and one_way and k is None and (max_edges is None or stored <= max_edges):
            contexts.append(Context(hop.end, tuple(_unweighted(part) for part in chain)))
            continue
        closure, sampled = _closure(chain, k, max_edges, selection, memory_budget, f"a context of {parsed.name!r}")
        contexts.append(Context(hop.end, (sampled,)))
        if closure is not None:
            chain = [closure]
    return tuple(contexts)


def normalize_transposed(adjacency: SparseMatrix) -> SparseMatrix:
    r"""Propagation operator of a coarse view, as the MEOW reference code normalises it.

    .. math:: D^{-1/2}\, T^\top D^{-1/2}, \qquad D_{ii} = \sum_j T_{ij}

    Args:
        adjacency: T, (N, N).

    Returns:
        (N, N); a node with an empty row in T gives and takes nothing.

    Complexity: O(E + N).

    >>> one_way = SparseMatrix.from_coo(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), shape=(2, 2))
    >>> normalize_transposed(one_way).to_dense()
    tensor([[0.5000, 0.0000],
            [0.7071, 1.0000]])
    """
    return normalize_symmetric(adjacency).T


def masked_adjacency(
    adjacency: SparseMatrix, ratio: float, *, generator: torch.Generator | None = None
) -> SparseMatrix:
    """Coarse view without a random part of its edges; what stays has weight 1, and every node a loop of weight 1.

    Args:
        adjacency: (N, N).
        ratio: part of the directed edges between different nodes that is dropped, rounded down.
        generator: draws them.

    Returns:
        (N, N) unweighted, columns ascending in rows, not normalised.

    Raises:
        ValueError: a ratio outside [0, 1].

    Complexity: O(E) and a random permutation.

    >>> full = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(2, 2))
    >>> masked_adjacency(full, 0.5, generator=torch.Generator().manual_seed(0)).num_entries
    3
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"ratio must lie in 0 .. 1, got {ratio}")
    edges = (adjacency.pattern.rows != adjacency.columns).nonzero()[:, 0]
    if edges.shape[0] and ratio > 0.0:
        # One part in 10^9 guards against 0.3 * 10 falling below 3.
        dropped = int(ratio * edges.shape[0] + 1e-9)
        order = torch.randperm(edges.shape[0], generator=generator)
        edges = edges[order[dropped:].sort().values]
    rows = adjacency.pattern.rows[edges]
    offsets = torch.searchsorted(rows, torch.arange(adjacency.shape[0] + 1))
    kept = SparseMatrix(offsets, adjacency.columns[edges], None, adjacency.shape, check=False)
    return add_self_loops(kept)


def coarse_adjacency(operators: Sequence[SparseMatrix]) -> SparseMatrix:
    r"""Mean of the propagation operators of all meta-paths, :math:`\frac{1}{P} \sum_p A^p`, as one matrix.

    Args:
        operators: P matrices (N, N).

    Raises:
        ValueError: none, or different shapes.

    Complexity: O(sum of their entries).

    >>> eye = SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([0]), torch.tensor([1.0]), shape=(1, 1))
    >>> coarse_adjacency([eye, eye]).values
    tensor([1.])
    """
    if not operators or len({operator.shape for operator in operators}) != 1:
        raise ValueError(f"operators must be matrices of one shape, got {[operator.shape for operator in operators]}")
    return SparseMatrix.from_coo(
        torch.cat([operator.pattern.rows for operator in operators]),
        torch.cat([operator.columns for operator in operators]),
        torch.cat([operator.entry_values() for operator in operators]) / len(operators),
        shape=operators[0].shape,
        duplicates="sum",
        check=False,
    )


@dataclass(frozen=True)
class RowEntries:
    """The entries of a block of rows."""

    lengths: IntArray
    columns: np.ndarray
    values: FloatArray
    first: int

    @cached_property
    def rows(self) -> IntArray:
        return np.repeat(np.arange(self.first, self.first + self.lengths.size), self.lengths)

    @property
    def offsets(self) -> IntArray:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def pathsim(self, loops: FloatArray) -> FloatArray:
        scores: FloatArray = 2.0 * self.values / (loops[self.rows] + loops[self.columns])
        return scores

    def where(self, kept: NDArray[np.bool_]) -> RowEntries:
        lengths = np.diff(np.concatenate([[0], np.cumsum(kept)])[self.offsets])
        return RowEntries(lengths, self.columns[kept], self.values[kept], self.first)

    def best(self, scores: FloatArray, k: int, selection: Selection, product: PathProduct) -> RowEntries:
        """The k best of every row."""

        def keys(places: IntArray) -> NDArray[np.uint64]:
            return selection.keys(self.rows[places], self.columns[places], product.shape[1])

        return self.where(keep_best(self.offsets, scores, keys, k, block_entries=product.block_entries))

    def sorted(self, num_columns: int) -> RowEntries:
        """Columns ascending within rows."""
        from scipy.sparse import csr_array

        shape = self.lengths.size, num_columns
        return row_entries(sorted_rows(csr_array((self.values, self.columns, self.offsets), shape=shape)), self.first)


def row_entries(block: csr_array, first: int) -> RowEntries:
    """The entries of a block of rows that begins at row ``first``."""
    return RowEntries(np.diff(block.indptr).astype(np.int64), block.indices, block.data, first)


def named_metapaths(graph: HeteroData, metapaths: Sequence[MetaPathLike] | None) -> Sequence[MetaPathLike]:
    """The given meta-paths, else those that the graph names."""
    if metapaths is None:
        metapaths = getattr(graph, "metapaths", None)
    if isinstance(metapaths, str):
        raise InputError(f"metapaths is one text {metapaths!r}", f"give a list: [{metapaths!r}]")
    if not metapaths:
        raise InputError(
            "no meta-paths are given and the graph names none",
            'give metapaths=["PAP", ...]; graphcl.graphs.rank_metapaths suggests some',
        )
    return list(metapaths.values()) if isinstance(metapaths, Mapping) else list(metapaths)


def bounds_of(paths: Sequence[MetaPath], k: PerPath, max_edges: PerPath) -> list[tuple[int | None, int | None]]:
    """Entries a row and entries in all that every meta-path is allowed."""
    return list(zip(_per_path(paths, "k", k), _per_path(paths, "max_edges", max_edges), strict=True))


def _per_path(paths: Sequence[MetaPath], name: str, value: PerPath) -> list[int | None]:
    if value is None or isinstance(value, int):
        return [value] * len(paths)
    if isinstance(value, Mapping):
        unknown = set(value) - {path.name for path in paths}
        if unknown:
            raise InputError(
                f"{name} names {sorted(unknown)}", f"the meta-paths are {', '.join(path.name for path in paths)}"
            )
        return [value.get(path.name) for path in paths]
    if len(value) != len(paths):
        raise InputError(
            f"{name} must hold one number for each of {len(paths)} meta-paths, got {len(value)}", "give as many"
        )
    return list(value)


def check_bound(name: str, value: int | None) -> None:
    """A bound must be an integer that lets an edge through."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} must be an integer of at least 1, which keeps an edge, got {value!r}")


def _row_limit(
    product: PathProduct, k: int | None, max_edges: int | None, selection: Selection, what: str
) -> int | None:
    """Most entries a row that meet both bounds; None where nothing has to go."""
    if max_edges is None or float(np.minimum(product.row_bounds, k or np.inf).sum()) <= max_edges:
        return k

    def lengths() -> Iterator[IntArray]:
        for rows, block in product.blocks():
            entries = row_entries(block, rows.start)
            loops = (
                0
                if selection.self_loops
                else np.bincount(
                    entries.rows[entries.rows == entries.columns] - rows.start, minlength=entries.lengths.size
                )
            )
            yield entries.lengths - loops

    return _largest_row_limit(np.concatenate(list(lengths())), k, max_edges, what)


def _largest_row_limit(lengths: IntArray, k: int | None, max_edges: int, what: str) -> int | None:
    """Largest number a row may keep such that all rows together keep at most ``max_edges``."""
    if k is not None:
        lengths = np.minimum(lengths, k)
    if int(lengths.sum()) <= max_edges:
        return k
    ordered = np.sort(lengths)
    # Total if every row may keep ordered[i]: the shorter rows whole, the others that many.
    totals = np.cumsum(ordered) - ordered + ordered * np.arange(ordered.size, 0, -1)
    fits = int(np.searchsorted(totals, max_edges, side="right"))
    whole = int(ordered[:fits].sum())
    limit = (max_edges - whole) // (ordered.size - fits)
    if limit < 1:
        needed = int((lengths > 0).sum())
        raise InputError(
            f"max_edges={max_edges} keeps no edge of {what}: {needed} nodes have some", "allow at least that"
        )
    return limit


def _completed(factors: list[csr_array]) -> list[csr_array]:
    """The factors without the nodes from which the rest of the path cannot be walked."""
    reaches = np.ones(factors[-1].shape[1], dtype=bool)
    kept = []
    for factor in reversed(factors):
        if not reaches.all():
            factor = factor[:, :].multiply(reaches[None, :].astype(np.float64)).tocsr()
            factor.eliminate_zeros()
        kept.append(factor)
        reaches = np.diff(factor.indptr) > 0
    return kept[::-1]


def _closure(
    chain: list[csr_array],
    k: int | None,
    max_edges: int | None,
    selection: Selection,
    memory_budget: int,
    what: str,
) -> tuple[csr_array | None, SparseMatrix]:
    """Distinct nodes reached along a chain: the 0/1 matrix where it is kept whole, and the bounded one."""
    from scipy.sparse import csr_array

    product = PathProduct(chain, memory_budget=memory_budget)
    limit = _row_limit(product, k, max_edges, selection, what)
    parts, dropped = [], False
    for rows, block in product.blocks():
        entries = row_entries(block, rows.start)
        if limit is not None and entries.lengths.max(initial=0) > limit:
            dropped, entries = True, entries.best(np.zeros(entries.columns.size), limit, selection, product)
        entries = entries.sorted(product.shape[1])
        parts.append((entries.lengths, entries.columns, None))
    found = concatenated(parts, product.shape)
    if dropped:
        return None, found
    whole = csr_array(
        (np.ones(found.num_entries), found.columns.numpy(), found.row_offsets.numpy()), shape=product.shape
    )
    return whole, found


def _unweighted(matrix: csr_array) -> SparseMatrix:
    matrix = sorted_rows(matrix)
    offsets, columns = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    return SparseMatrix(offsets, columns, None, (int(matrix.shape[0]), int(matrix.shape[1])), check=False)
