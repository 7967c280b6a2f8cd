"""Hypergraphs as sparse incidence matrices: degrees, propagation operators, expansions, conversion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from graphcl.graphs.bipartite import BipartiteGraph, stack_bipartite
from graphcl.graphs.operators import unique_pairs
from graphcl.kernels import FactoredMatrix, SparseMatrix, hypergraph_operator, shared_hyperedge_operator

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["MAX_ENTRIES", "Hypergraph", "Normalization", "concatenate_hypergraphs"]

Normalization: TypeAlias = Literal["symmetric", "row"]

#: Entries that a matrix may have which is formed on request: 1.6 GB with 64-bit columns and values.
MAX_ENTRIES: Final = 100_000_000
# Products of pairs that one block of a formed matrix may need: bounds the temporary memory.
_BLOCK_PAIRS: Final = 16_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Hypergraph:
    r"""Nodes, hyperedges and who belongs to what: H with an entry for every pair of a node and its hyperedge.

    Hyperedges may be empty and nodes may belong to none; both count and both propagate 0.

    Args:
        incidence: H, ``(V, E)``, non-negative values (how strongly a node belongs) or none for ones; each pair once.
        node_weight: γ, ``(V,)`` non-negative, or None for ones: how much a node says inside its hyperedges.
        hyperedge_weight: w, ``(E,)`` non-negative, or None for ones.
        check: test the values.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value; a pair that is listed twice.

    Complexity: O(incidences + V + E) to check.

    >>> hypergraph = Hypergraph.from_hyperedges([[0, 1, 2], [2, 3]], num_nodes=5)
    >>> hypergraph
    Hypergraph(5 nodes, 2 hyperedges, 5 incidences)
    >>> hypergraph.node_degrees()
    tensor([1., 1., 2., 1., 0.])
    """

    incidence: SparseMatrix
    node_weight: Tensor | None = None
    hyperedge_weight: Tensor | None = None
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        _check_weight("node_weight", self.node_weight, self.num_nodes, check)
        _check_weight("hyperedge_weight", self.hyperedge_weight, self.num_hyperedges, check)
        if check:
            _check_weight("values of incidence", self.incidence.values, self.num_incidences, check)
            object.__setattr__(self, "incidence", _one_entry_a_place(self.incidence))

    # Construction

    @classmethod
    def from_incidences(
        cls,
        node: Tensor,
        hyperedge: Tensor,
        values: Tensor | None = None,
        *,
        num_nodes: int,
        num_hyperedges: int,
        node_weight: Tensor | None = None,
        hyperedge_weight: Tensor | None = None,
    ) -> Hypergraph:
        """Hypergraph of listed pairs in any order; a pair listed again is ignored (its first value counts).

        Args:
            node: ``(N,)`` integers in ``0 .. num_nodes - 1``.
            hyperedge: ``(N,)`` integers in ``0 .. num_hyperedges - 1``. With ``node`` on top this is PyG's
                ``hyperedge_index``.
            values: ``(N,)`` floating or None.
            num_nodes, num_hyperedges: sizes.
            node_weight, hyperedge_weight: see the class.

        Complexity: O(N): two sorts.

        >>> index = torch.tensor([[0, 1, 1], [0, 0, 0]])
        >>> Hypergraph.from_incidences(*index, num_nodes=2, num_hyperedges=1).num_incidences
        2
        """
        shape = num_nodes, num_hyperedges
        if values is None:
            incidence = unique_pairs(node, hyperedge, shape)
        else:
            incidence = SparseMatrix.from_coo(node, hyperedge, values, shape=shape, duplicates="first")
        return cls(incidence, node_weight, hyperedge_weight)

    @classmethod
    def from_hyperedges(
        cls, hyperedges: Sequence[Sequence[int]], num_nodes: int, hyperedge_weight: Tensor | None = None
    ) -> Hypergraph:
        """Hypergraph of lists of nodes, for small examples.

        >>> Hypergraph.from_hyperedges([[0, 1], []], num_nodes=2).hyperedge_degrees()
        tensor([2., 0.])
        """
        pairs = [(node, number) for number, members in enumerate(hyperedges) for node in members]
        index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        return cls.from_incidences(
            index[:, 0],
            index[:, 1],
            num_nodes=num_nodes,
            num_hyperedges=len(hyperedges),
            hyperedge_weight=hyperedge_weight,
        )

    @classmethod
    def from_pyg(cls, data: Any, num_hyperedges: int | None = None) -> Hypergraph:
        """Hypergraph of PyG data: ``hyperedge_index`` (or the ``edge_index`` of ``HyperGraphData``), nodes on top.

        Args:
            data: ``Data`` or ``HyperGraphData``; ``hyperedge_weight``, ``node_weight`` and ``incidence_weight`` are
                read where they are there.
            num_hyperedges: None reads ``data.num_hyperedges`` or takes the largest number plus one.

        Raises:
            ValueError: no ``hyperedge_index``.

        >>> from torch_geometric.data.hypergraph_data import HyperGraphData
        >>> data = HyperGraphData(x=torch.zeros(3, 1), edge_index=torch.tensor([[0, 2], [0, 0]]))
        >>> Hypergraph.from_pyg(data)
        Hypergraph(3 nodes, 1 hyperedges, 2 incidences)
        """
        index = data.get("hyperedge_index")
        if index is None and type(data).__name__ == "HyperGraphData":
            index = data.edge_index
        if index is None:
            raise ValueError(f"data must have hyperedge_index, got {list(data.keys())}")
        if num_hyperedges is None:
            num_hyperedges = data.get("num_hyperedges")
        if num_hyperedges is None:
            num_hyperedges = int(index[1].max()) + 1 if index.shape[1] else 0
        return cls.from_incidences(
            index[0],
            index[1],
            data.get("incidence_weight"),
            num_nodes=data.num_nodes,
            num_hyperedges=num_hyperedges,
            node_weight=data.get("node_weight"),
            hyperedge_weight=data.get("hyperedge_weight"),
        )

    @classmethod
    def from_scipy(cls, matrix: Any) -> Hypergraph:
        """Hypergraph of a SciPy incidence matrix ``(V, E)``; stored values are kept, unless they are all 1.

        >>> import scipy.sparse
        >>> Hypergraph.from_scipy(scipy.sparse.csr_array([[1, 0], [1, 1]])).incidence
        SparseMatrix(2 x 2, 3 entries, unweighted, cpu)
        """
        incidence = SparseMatrix.from_scipy(matrix, duplicates="sum")
        values = incidence.values
        if values is not None and bool((values == 1).all()):
            values = None
        elif values is not None and not values.is_floating_point():
            values = values.to(torch.get_default_dtype())
        return cls(incidence.with_values(values))

    @classmethod
    def from_networkx(cls, graph: Any) -> Hypergraph:
        """Hypergraph of a NetworkX graph: ``bipartite=0`` marks nodes, ``bipartite=1`` hyperedges, in listed order.

        Edge attributes ``weight`` become incidence values and node attributes ``weight`` the weights of nodes and
        hyperedges, each where all have one.

        Raises:
            ValueError: a node without ``bipartite``, or an edge within one side.

        >>> import networkx
        >>> Hypergraph.from_networkx(networkx.complete_bipartite_graph(3, 1)).num_incidences
        3
        """
        incidence = BipartiteGraph.from_networkx(graph).ratings
        weights: list[Tensor | None] = []
        for side in (0, 1):
            listed = [data.get("weight") for _, data in graph.nodes(data=True) if data["bipartite"] == side]
            known = bool(listed) and all(weight is not None for weight in listed)
            weights.append(torch.tensor(listed, dtype=torch.get_default_dtype()) if known else None)
        return cls(incidence, weights[0], weights[1])

    # Degrees

    def node_degrees(self) -> Tensor:
        r"""``D_v = sum_e w_e H_ve``, ``(V,)``."""
        return self._weighted(self.hyperedge_weight).row_sums()

    def hyperedge_degrees(self) -> Tensor:
        r"""``D_e = sum_v γ_v H_ve``, ``(E,)``; the number of members where nothing is weighted."""
        weighted = self.incidence if self.node_weight is None else self.incidence.scale(rows=self.node_weight)
        return weighted.column_sums()

    def hyperedge_sizes(self) -> Tensor:
        """Members of every hyperedge, ``(E,)`` int64."""
        return torch.bincount(self.incidence.columns, minlength=self.num_hyperedges)

    def count_neighbours(self) -> Tensor:
        """Other nodes that share a hyperedge with each node, ``(V,)`` int64, without holding the pairs.

        Complexity: O(sum of squared hyperedge sizes) time; memory for one block of 16 M pairs.

        >>> Hypergraph.from_hyperedges([[0, 1], [0, 1], [2]], num_nodes=3).count_neighbours()
        tensor([1, 1, 0])
        """
        counts = torch.zeros(self.num_nodes, dtype=torch.int64)
        for start, product in _pair_blocks(self.incidence.with_values(None), None):
            counts[start : start + product.shape[0]] = torch.from_numpy(product.indptr).diff()
        return counts.to(self.device) - (self.incidence.row_offsets.diff() > 0).to(torch.int64)

    # Operators

    def propagation(
        self, normalization: Normalization = "symmetric", hyperedge_weight: Tensor | None = None
    ) -> FactoredMatrix:
        r"""Node to hyperedge to node, kept factored: the convolution of HGNN (Feng et al., 2019,
        https://arxiv.org/abs/1809.09401), or by ``row`` the random walk of HGNN+ (Gao et al., 2022).

        .. math:: D_v^{-1/2} \Gamma^{1/2} H W D_e^{-1} H^T \Gamma^{1/2} D_v^{-1/2}
            \quad\text{or}\quad D_v^{-1} H W D_e^{-1} H^T \Gamma

        By row: a mean over the hyperedges of a node (weighted by w) of the mean over their members (weighted by γ).
        The symmetric form is similar to it, so both have the same eigenvalues.

        Args:
            normalization: ``symmetric`` or ``row``.
            hyperedge_weight: ``(E,)`` weights to use in place of the hypergraph's own, with gradient.

        Returns:
            ``(V, V)``; nodes and hyperedges of degree 0 give 0. Differentiable in weights and incidence values.

        Complexity: O(incidences) to build, O(incidences d) to apply.

        >>> Hypergraph.from_hyperedges([[0, 1]], num_nodes=2).propagation("row").to_dense()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
        """
        _check_normalization(normalization)
        weight = self._hyperedge_weight(hyperedge_weight)
        if self.node_weight is None and normalization == "symmetric":
            return hypergraph_operator(self.incidence, weight)
        inner = _inverse(self.hyperedge_degrees())
        if weight is not None:
            inner = inner * weight
        degrees = self._weighted(weight).row_sums()
        turned = self.incidence.T
        if normalization == "row":
            factors: list[SparseMatrix | Tensor] = [_inverse(degrees), self.incidence, inner, turned]
            return FactoredMatrix(factors if self.node_weight is None else [*factors, self.node_weight])
        outer = _inverse_root(degrees)
        if self.node_weight is not None:
            outer = outer * self.node_weight.sqrt()
        return FactoredMatrix([outer, self.incidence, inner, turned, outer])

    def shared_propagation(
        self,
        normalization: Normalization = "row",
        *,
        keep_diagonal: bool = False,
        hyperedge_weight: Tensor | None = None,
    ) -> FactoredMatrix:
        r"""Propagation by shared hyperedges without hyperedge degrees, as MMHCL (Guo et al., 2025,
        https://arxiv.org/abs/2504.16576) uses it.

        .. math:: C = H W H^T \;(\text{minus its diagonal}), \quad D = \mathrm{diag}(C 1), \quad
            D^{-1} C \;\text{ or }\; D^{-1/2} C D^{-1/2}

        MMHCL takes ``row`` without the diagonal for users and ``symmetric`` with it for items.

        Args:
            normalization: ``row`` or ``symmetric``.
            keep_diagonal: whether a node counts as its own neighbour.
            hyperedge_weight: ``(E,)`` weights to use in place of the hypergraph's own, with gradient.

        Returns:
            ``(V, V)``; a node that shares nothing gives 0.

        Raises:
            ValueError: node weights, for which the formula has no place; an unknown normalisation.

        Complexity: O(incidences) to build, O(incidences d) to apply; C is never formed.

        >>> Hypergraph.from_hyperedges([[0, 1], [1, 2]], num_nodes=3).shared_propagation().to_dense()
        tensor([[0.0000, 1.0000, 0.0000],
                [0.5000, 0.0000, 0.5000],
                [0.0000, 1.0000, 0.0000]])
        """
        _check_normalization(normalization)
        if self.node_weight is not None:
            raise ValueError("node_weight has no place in the operator of shared hyperedges; fold it into incidence")
        weight = self._hyperedge_weight(hyperedge_weight)
        if weight is None and self.incidence.values is None:
            return shared_hyperedge_operator(self.incidence, normalization=normalization, keep_diagonal=keep_diagonal)
        pairs = self._pairs(weight)
        total = FactoredMatrix(pairs).row_sums()
        own = None if keep_diagonal else self._own(weight)
        degrees = total
        if own is not None:
            # Rounding may leave a node that shares nothing a tiny degree, whose inverse would be huge.
            kept = total - own > 8 * torch.finfo(total.dtype).eps * total
            degrees = torch.where(kept, total - own, 0.0)
        scale = _inverse(degrees)
        if normalization == "row":
            return FactoredMatrix([scale, *pairs], None if own is None else -own * scale)
        root = _inverse_root(degrees)
        return FactoredMatrix([root, *pairs, root], None if own is None else -own * scale)

    # Expansions

    def clique_expansion(self, *, keep_diagonal: bool = False) -> FactoredMatrix:
        r"""Graph in which nodes are joined by the (weighted) number of hyperedges they share, kept factored.

        .. math:: H W H^T \;(\text{minus its diagonal})

        Args:
            keep_diagonal: keep the degree of each node with itself.

        Returns:
            ``(V, V)``, unnormalised. Node weights do not enter.

        Complexity: O(incidences) to build, O(incidences d) to apply. `clique_matrix` forms it.

        >>> Hypergraph.from_hyperedges([[0, 1], [0, 1, 2]], num_nodes=3).clique_expansion().to_dense()
        tensor([[0., 2., 1.],
                [2., 0., 1.],
                [1., 1., 0.]])
        """
        own = None if keep_diagonal else -self._own(self.hyperedge_weight)
        return FactoredMatrix(self._pairs(self.hyperedge_weight), own)

    def clique_matrix(self, *, keep_diagonal: bool = False, max_entries: int = MAX_ENTRIES) -> SparseMatrix:
        """The clique expansion as a matrix with its entries, for small hypergraphs or small hyperedges.

        Normalise it by `graphcl.kernels.normalize_by_row` or `normalize_symmetric`. Not differentiable.

        Args:
            keep_diagonal: keep the degree of each node with itself.
            max_entries: refuse as soon as the matrix holds more entries than this.

        Returns:
            ``(V, V)``, columns ascending.

        Raises:
            ValueError: the bound is passed; `clique_expansion` gives the same product factored.

        Complexity: O(sum of squared hyperedge sizes) time; memory for the result and one block of 16 M pairs.

        >>> Hypergraph.from_hyperedges([[0, 1], [0, 1]], num_nodes=2).clique_matrix().to_dense()
        tensor([[0., 2.],
                [2., 0.]])
        """
        import numpy as np

        if max_entries < 0:
            raise ValueError(f"max_entries must be at least 0, got {max_entries}")
        lengths, columns, entries = [np.zeros(1, dtype=np.int64)], [], []
        total = 0
        for start, product in _pair_blocks(self.incidence, self.hyperedge_weight):
            product.sort_indices()
            rows = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
            kept = product.data != 0
            if not keep_diagonal:
                kept &= rows + start != product.indices
            total += int(kept.sum())
            if total > max_entries:
                raise ValueError(
                    f"the clique expansion has more than max_entries={max_entries} entries; "
                    "raise the bound or use clique_expansion(), which keeps it factored"
                )
            lengths.append(np.bincount(rows[kept], minlength=product.shape[0]))
            columns.append(product.indices[kept].astype(np.int64))
            entries.append(product.data[kept])
        offsets = torch.from_numpy(np.cumsum(np.concatenate(lengths)))
        places = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *columns]))
        values = torch.from_numpy(np.concatenate([np.zeros(0), *entries])).to(self.incidence.entry_values().dtype)
        shape = self.num_nodes, self.num_nodes
        return SparseMatrix(offsets, places, values, shape, check=False).to(self.device)

    def star_expansion(self) -> SparseMatrix:
        r"""Graph with the hyperedges as further nodes, joined to their members: ``[[0, H W], [W H^T, 0]]``.

        Returns:
            ``(V + E, V + E)``, nodes first; node weights do not enter.

        Complexity: O(incidences).

        >>> Hypergraph.from_hyperedges([[0, 1]], num_nodes=2).star_expansion().to_dense()
        tensor([[0., 0., 1.],
                [0., 0., 1.],
                [1., 1., 0.]])
        """
        return stack_bipartite(self._weighted(self.hyperedge_weight))

    def dual(self) -> Hypergraph:
        """Hypergraph with nodes and hyperedges exchanged."""
        return Hypergraph(self.incidence.T, self.hyperedge_weight, self.node_weight, check=False)

    # Conversion

    @property
    def hyperedge_index(self) -> Tensor:
        """PyG's form ``(2, incidences)``: nodes on top, hyperedges below, sorted by node."""
        return torch.stack([self.incidence.pattern.rows, self.incidence.columns])

    def to_pyg(self) -> Any:
        """PyG ``Data`` with ``hyperedge_index``, ``num_hyperedges`` and, where given, the three kinds of weights."""
        from torch_geometric.data import Data

        data = Data(hyperedge_index=self.hyperedge_index, num_nodes=self.num_nodes)
        data.num_hyperedges = self.num_hyperedges
        for name, weight in (
            ("hyperedge_weight", self.hyperedge_weight),
            ("node_weight", self.node_weight),
            ("incidence_weight", self.incidence.values),
        ):
            if weight is not None:
                data[name] = weight
        return data

    def to_scipy(self) -> csr_array:
        """Incidence as ``scipy.sparse.csr_array``, ``(V, E)``."""
        return self.incidence.to_scipy()

    def to_networkx(self) -> Any:
        """NetworkX graph: nodes ``0 .. V - 1`` (``bipartite=0``), hyperedges ``V .. V + E - 1`` (``bipartite=1``)."""
        graph = BipartiteGraph.from_matrix(self.incidence).to_networkx()
        for weight, first in ((self.node_weight, 0), (self.hyperedge_weight, self.num_nodes)):
            for number, value in enumerate([] if weight is None else weight.tolist()):
                graph.nodes[first + number]["weight"] = value
        return graph

    def to(self, target: torch.device | str | torch.dtype) -> Hypergraph:
        """The hypergraph on another device, or with values and weights of another dtype."""
        node_weight = None if self.node_weight is None else self.node_weight.to(target)
        hyperedge_weight = None if self.hyperedge_weight is None else self.hyperedge_weight.to(target)
        return Hypergraph(self.incidence.to(target), node_weight, hyperedge_weight, check=False)

    @property
    def num_nodes(self) -> int:
        """V."""
        return self.incidence.shape[0]

    @property
    def num_hyperedges(self) -> int:
        """E."""
        return self.incidence.shape[1]

    @property
    def num_incidences(self) -> int:
        """Pairs of a node and a hyperedge it belongs to."""
        return self.incidence.num_entries

    @property
    def device(self) -> torch.device:
        """Where the incidence is."""
        return self.incidence.device

    def __repr__(self) -> str:
        return f"Hypergraph({self.num_nodes} nodes, {self.num_hyperedges} hyperedges, {self.num_incidences} incidences)"

    def _hyperedge_weight(self, replacement: Tensor | None) -> Tensor | None:
        if replacement is not None and replacement.shape != (self.num_hyperedges,):
            raise ValueError(
                f"hyperedge_weight must have shape ({self.num_hyperedges},), got shape {tuple(replacement.shape)}"
            )
        return self.hyperedge_weight if replacement is None else replacement

    def _weighted(self, weight: Tensor | None) -> SparseMatrix:
        return self.incidence if weight is None else self.incidence.scale(columns=weight)

    def _pairs(self, weight: Tensor | None) -> list[SparseMatrix | Tensor]:
        """Factors of H W H^T."""
        return [self.incidence, self.incidence.T] if weight is None else [self.incidence, weight, self.incidence.T]

    def _own(self, weight: Tensor | None) -> Tensor:
        """Diagonal of H W H^T."""
        values = self.incidence.values
        squared = self.incidence if values is None else self.incidence.with_values(values * values)
        return (squared if weight is None else squared.scale(columns=weight)).row_sums()


def concatenate_hypergraphs(hypergraphs: Sequence[Hypergraph]) -> Hypergraph:
    r"""Hypergraph on the same nodes with the hyperedges of all, one block after the other.

    .. math:: H = [H_1 \,|\, H_2 \,|\, \dots]

    This is how MMHCL combines modalities. A node that a modality misses has no entry in its block.

    Args:
        hypergraphs: at least one, with the same number of nodes and the same node weights (or none).

    Returns:
        ``(V, E_1 + E_2 + ..)``; where some have values or hyperedge weights and others not, the others count 1.

    Raises:
        ValueError: no hypergraph, other numbers of nodes, other node weights.

    Complexity: O(incidences + hypergraphs V), no sort.

    >>> one, two = (Hypergraph.from_hyperedges([members], num_nodes=3) for members in ([0, 1], [1, 2]))
    >>> concatenate_hypergraphs([one, two]).incidence.to_dense()
    tensor([[1., 0.],
            [1., 1.],
            [0., 1.]])
    """
    if not hypergraphs:
        raise ValueError("hypergraphs must hold at least one, got none")
    first = hypergraphs[0]
    for number, other in enumerate(hypergraphs):
        if other.num_nodes != first.num_nodes:
            raise ValueError(f"hypergraphs[{number}] must have {first.num_nodes} nodes, got {other.num_nodes}")
        if (other.node_weight is None) != (first.node_weight is None) or (
            other.node_weight is not None
            and first.node_weight is not None
            and not torch.equal(other.node_weight, first.node_weight)
        ):
            raise ValueError(f"hypergraphs[{number}] must have the node weights of hypergraphs[0]")
    blocks = [one.incidence for one in hypergraphs]
    lengths = torch.stack([block.row_offsets.diff() for block in blocks])
    offsets = torch.cat([lengths.new_zeros(1), lengths.sum(0).cumsum(0)])
    # Within a row the blocks follow each other: where the part of each block starts, (blocks, V).
    starts = offsets[:-1] + lengths.cumsum(0) - lengths
    total = sum(block.num_entries for block in blocks)
    columns = torch.empty(total, dtype=torch.int64, device=first.device)
    weighted = [block for block in blocks if block.values is not None]
    values = None
    if weighted:
        dtype = weighted[0].entry_values().dtype
        values = torch.ones(total, dtype=dtype, device=first.device)
    shift = 0
    for block, begin in zip(blocks, starts, strict=True):
        rows = block.pattern.rows
        places = torch.arange(block.num_entries, device=first.device) + (begin - block.row_offsets[:-1])[rows]
        columns[places] = block.columns + shift
        if values is not None and block.values is not None:
            values = values.index_put((places,), block.values)
        shift += block.shape[1]
    incidence = SparseMatrix(offsets, columns, values, (first.num_nodes, shift), check=False)
    return Hypergraph(incidence, first.node_weight, _joined_weights(hypergraphs), check=False)


def _joined_weights(hypergraphs: Sequence[Hypergraph]) -> Tensor | None:
    known = [one.hyperedge_weight for one in hypergraphs if one.hyperedge_weight is not None]
    if not known:
        return None
    return torch.cat(
        [
            known[0].new_ones(one.num_hyperedges) if one.hyperedge_weight is None else one.hyperedge_weight
            for one in hypergraphs
        ]
    )


def _pair_blocks(incidence: SparseMatrix, weight: Tensor | None) -> Iterator[tuple[int, Any]]:
    """First row and SciPy rows of H W H^T, in blocks of rows that need at most `_BLOCK_PAIRS` products (or one row)."""
    import numpy as np
    from scipy.sparse import csr_array

    matrix = incidence.to_scipy().astype(np.float64)
    turned = csr_array(matrix.T)
    if weight is not None:
        matrix = csr_array(matrix.multiply(weight.detach().cpu().numpy()[None, :]))
    sizes = np.diff(turned.indptr)
    work = np.concatenate([[0], np.cumsum(sizes[matrix.indices], dtype=np.int64)])[matrix.indptr]
    start = 0
    while start < matrix.shape[0]:
        stop = int(np.searchsorted(work, work[start] + _BLOCK_PAIRS, side="right")) - 1
        stop = min(max(stop, start + 1), matrix.shape[0])
        yield start, csr_array(matrix[start:stop] @ turned)
        start = stop


def _one_entry_a_place(incidence: SparseMatrix) -> SparseMatrix:
    """The incidence with ascending columns; refuses a pair that is listed twice."""
    columns, rows = incidence.columns, incidence.pattern.rows
    same_row = rows[1:] == rows[:-1]
    if bool((same_row & (columns[1:] < columns[:-1])).any()):
        incidence = incidence.coalesce("keep")
        columns, rows = incidence.columns, incidence.pattern.rows
    repeated = torch.nonzero((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1]))
    if repeated.numel():
        at = int(repeated[0, 0])
        raise ValueError(f"incidence lists node {int(rows[at])} in hyperedge {int(columns[at])} more than once")
    return incidence


def _check_weight(name: str, weight: Tensor | None, size: int, check: bool) -> None:
    if weight is None:
        return
    if weight.shape != (size,) or not weight.is_floating_point():
        raise ValueError(f"{name} must be floats of shape ({size},), got {weight.dtype} of shape {tuple(weight.shape)}")
    wrong = weight[~(torch.isfinite(weight) & (weight >= 0))] if check else weight[:0]
    if wrong.numel():
        raise ValueError(f"{name} must be finite and not negative, got {float(wrong[0])}")


def _check_normalization(normalization: Normalization) -> None:
    if normalization not in get_args(Normalization):
        raise ValueError(f"normalization must be 'symmetric' or 'row', got {normalization!r}")


def _inverse(degrees: Tensor) -> Tensor:
    """1 / x, and 0 with gradient 0 where x is 0."""
    empty = degrees == 0
    return degrees.masked_fill(empty, 1.0).reciprocal().masked_fill(empty, 0.0)


def _inverse_root(degrees: Tensor) -> Tensor:
    """x^(-1/2), and 0 with gradient 0 where x is not positive."""
    empty = degrees <= 0
    return degrees.masked_fill(empty, 1.0).rsqrt().masked_fill(empty, 0.0)
