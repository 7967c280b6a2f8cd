"""User-item graphs: interactions as an adjacency that LightGCN-like models propagate along."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from graphcl.graphs.operators import BipartiteOperator, unique_pairs
from graphcl.kernels import Duplicates, SparseMatrix, normalize_symmetric

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["BipartiteGraph", "stack_bipartite"]


@dataclass(frozen=True, eq=False, repr=False)
class BipartiteGraph:
    r"""Users, items and the edges between them. Stacked matrices list users first: item i is node ``num_users + i``.

    Edges stay in the given order. Parallel edges are allowed, and products add them; `from_arrays` and
    `from_interactions` merge them.

    Args:
        num_users: U.
        num_items: I.
        user: ``(E,)`` integers in ``0 .. U - 1``.
        item: ``(E,)`` integers in ``0 .. I - 1``.
        weight: ``(E,)`` floating, or None for ones.
        check: test the values.

    Raises:
        IndexError: a user or item out of range.
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E).

    >>> graph = BipartiteGraph(2, 2, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    >>> graph.normalized().to_dense()[:2, 2:]
    tensor([[0.7071, 0.5000],
            [0.0000, 0.7071]])
    """

    num_users: int
    num_items: int
    user: Tensor
    item: Tensor
    weight: Tensor | None = None
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        for name, ids, size in (("user", self.user, self.num_users), ("item", self.item, self.num_items)):
            if ids.dtype not in (torch.int64, torch.int32) or ids.dim() != 1:
                raise TypeError(
                    f"{name} must be integers of shape (edges,), got {ids.dtype} of shape {tuple(ids.shape)}"
                )
            if check and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < size:
                wrong = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
                raise IndexError(f"{name} holds {wrong}, outside 0 .. {size - 1}")
            object.__setattr__(self, name, ids.to(torch.int64))
        if self.item.shape != self.user.shape:
            raise ValueError(f"item must have the shape of user {tuple(self.user.shape)}, got {tuple(self.item.shape)}")
        if self.weight is not None:
            _check_weight(self.weight, self.user, check)

    @classmethod
    def from_arrays(
        cls,
        user: Any,
        item: Any,
        weight: Any | None = None,
        *,
        num_users: int | None = None,
        num_items: int | None = None,
        duplicates: Duplicates = "first",
    ) -> BipartiteGraph:
        """Graph of arrays, lists or tensors of ids; edges come out sorted by user, then item.

        Args:
            user: E ids.
            item: E ids.
            weight: E numbers or None.
            num_users, num_items: sizes; None takes the largest id plus one.
            duplicates: what becomes of an edge listed several times; see `SparseMatrix.from_coo`. The default keeps
                one of weight 1 (or the first weight), as R in {0, 1} of the papers.

        Complexity: O(E): two sorts.

        >>> BipartiteGraph.from_arrays([1, 0, 1], [0, 2, 0]).user
        tensor([0, 1])
        """
        users, items = torch.as_tensor(user, dtype=torch.int64), torch.as_tensor(item, dtype=torch.int64)
        if num_users is None:
            num_users = int(users.max()) + 1 if users.numel() else 0
        if num_items is None:
            num_items = int(items.max()) + 1 if items.numel() else 0
        shape = num_users, num_items
        if weight is None and duplicates == "first":
            return cls.from_matrix(unique_pairs(users, items, shape))
        weights = None if weight is None else _floating(torch.as_tensor(weight))
        matrix = SparseMatrix.from_coo(users, items, weights, shape=shape, duplicates=duplicates)
        return cls.from_matrix(matrix)

    @classmethod
    def from_interactions(
        cls, interactions: Any, *, weight: Literal["value"] | None = None, duplicates: Duplicates = "first"
    ) -> BipartiteGraph:
        """Graph of `graphcl.data.Interactions`, or of anything with ``user``, ``item``, ``num_users``, ``num_items``.

        Args:
            interactions: the log; its whole id space becomes nodes, so users without a row are isolated.
            weight: ``value`` takes the column of values as weights.
            duplicates: what becomes of repeated pairs; see `from_arrays`.

        Raises:
            TypeError: the object lacks one of these attributes.
            ValueError: weights are asked for and there are none.

        >>> from types import SimpleNamespace
        >>> log = SimpleNamespace(user=[0, 1, 1], item=[0, 0, 0], num_users=3, num_items=1)
        >>> BipartiteGraph.from_interactions(log)
        BipartiteGraph(3 users, 1 items, 2 edges)
        """
        missing = [
            name for name in ("user", "item", "num_users", "num_items") if getattr(interactions, name, None) is None
        ]
        if missing:
            raise TypeError(f"interactions must have {', '.join(missing)}, got {type(interactions).__name__}")
        values = None
        if weight is not None:
            if weight != "value":
                raise ValueError(f"weight must be 'value' or None, got {weight!r}")
            values = getattr(interactions, "value", None)
            if values is None:
                raise ValueError("weight is 'value' but the interactions have no values")
        return cls.from_arrays(
            interactions.user,
            interactions.item,
            values,
            num_users=interactions.num_users,
            num_items=interactions.num_items,
            duplicates=duplicates,
        )

    @classmethod
    def from_matrix(cls, ratings: SparseMatrix) -> BipartiteGraph:
        """Graph of the matrix R, ``(U, I)``; its entries become edges in their order.

        >>> BipartiteGraph.from_matrix(SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), None, (1, 1))).num_edges
        1
        """
        graph = cls(*ratings.shape, ratings.pattern.rows, ratings.columns, ratings.values, check=False)
        if _is_sorted(graph):
            graph.__dict__["ratings"] = ratings
        return graph

    @classmethod
    def from_scipy(cls, matrix: Any, *, duplicates: Duplicates = "first") -> BipartiteGraph:
        """Graph of a SciPy sparse array R, ``(U, I)``; stored values are weights.

        >>> import scipy.sparse
        >>> BipartiteGraph.from_scipy(scipy.sparse.csr_array([[0.0, 2.0]])).weight
        tensor([2.], dtype=torch.float64)
        """
        ratings = SparseMatrix.from_scipy(matrix, duplicates=duplicates)
        if ratings.values is not None:
            ratings = ratings.with_values(_floating(ratings.values))
        return cls.from_matrix(ratings)

    @classmethod
    def from_pyg(cls, data: Any, edge_type: tuple[str, str, str] | None = None) -> BipartiteGraph:
        """Graph of one edge type of a PyG ``HeteroData``, sources as users and targets as items.

        Args:
            data: ``HeteroData`` with ``edge_index`` and, if weighted, ``edge_weight``.
            edge_type: which edges; None where there is exactly one type, or one type and its reverse ``rev_...``.

        Raises:
            ValueError: the edge type is not named and not obvious, or not in ``data``.

        >>> graph = BipartiteGraph(1, 2, torch.tensor([0]), torch.tensor([1]))
        >>> BipartiteGraph.from_pyg(graph.to_pyg()).num_items
        2
        """
        known = list(data.edge_types)
        if edge_type is None:
            forward = [kind for kind in known if not kind[1].startswith("rev_")]
            if len(forward) != 1:
                raise ValueError(f"edge_type must name one of {known}")
            edge_type = forward[0]
        elif tuple(edge_type) not in known:
            raise ValueError(f"edge_type must be one of {known}, got {edge_type!r}")
        source, _, target = edge_type
        store = data[edge_type]
        user, item = store.edge_index
        return cls(data[source].num_nodes, data[target].num_nodes, user, item, store.get("edge_weight"))

    @classmethod
    def from_networkx(cls, graph: Any) -> BipartiteGraph:
        """Graph of a NetworkX graph whose nodes carry ``bipartite=0`` (users) or ``1`` (items), in listed order.

        Edge attributes ``weight`` become weights where every edge has one.

        Raises:
            ValueError: a node without the attribute, or an edge within one side.

        >>> import networkx
        >>> BipartiteGraph.from_networkx(networkx.complete_bipartite_graph(2, 3)).num_edges
        6
        """
        sides: tuple[dict[Any, int], dict[Any, int]] = ({}, {})
        for node, side in graph.nodes(data="bipartite"):
            if side not in (0, 1):
                raise ValueError(f"node {node!r} must have bipartite=0 or 1, got {side!r}")
            sides[side][node] = len(sides[side])
        users, items = sides
        pairs, weights = [], []
        for one, other, weight in graph.edges(data="weight"):
            left, right = (one, other) if one in users else (other, one)
            if left not in users or right not in items:
                raise ValueError(f"edge ({one!r}, {other!r}) must join a user and an item")
            pairs.append((users[left], items[right]))
            weights.append(weight)
        ends = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        weighted = bool(weights) and all(weight is not None for weight in weights)
        values = torch.tensor(weights, dtype=torch.get_default_dtype()) if weighted else None
        return cls(len(users), len(items), ends[:, 0], ends[:, 1], values)

    # Matrices

    @cached_property
    def ratings(self) -> SparseMatrix:
        """R, ``(U, I)``: columns ascend within rows, parallel edges stand side by side. Cached."""
        shape = self.num_users, self.num_items
        if _is_sorted(self):
            offsets = torch.zeros(self.num_users + 1, dtype=torch.int64, device=self.device)
            torch.cumsum(torch.bincount(self.user, minlength=self.num_users), 0, out=offsets[1:])
            return SparseMatrix(offsets, self.item, self.weight, shape, check=False)
        return SparseMatrix.from_coo(self.user, self.item, self.weight, shape=shape, check=False)

    def adjacency(self, dtype: torch.dtype | None = None) -> SparseMatrix:
        """``[[0, R], [R^T, 0]]`` as one matrix ``(U + I, U + I)``; unweighted where the graph is and no dtype is given.

        Complexity: O(E).
        """
        return stack_bipartite(self._typed(dtype))

    def normalized_ratings(self, dtype: torch.dtype | None = None) -> SparseMatrix:
        r"""``D_u^{-1/2} R D_i^{-1/2}``, ``(U, I)``; nodes of degree 0 stay 0. Its ``.T`` is the other factor.

        Args:
            dtype: of the values; None takes that of the weights, or the default dtype.
        """
        return normalize_symmetric(self._typed(dtype), bipartite=True)

    def normalized(self, dtype: torch.dtype | None = None) -> SparseMatrix:
        r"""Normalised adjacency of LightGCN (He et al., 2020, https://arxiv.org/abs/2002.02126) as one matrix.

        .. math:: D^{-1/2} \begin{pmatrix} 0 & R \\ R^T & 0 \end{pmatrix} D^{-1/2}

        Args:
            dtype: see `normalized_ratings`.

        Returns:
            ``(U + I, U + I)``, users first, no self loops; nodes of degree 0 give 0.

        Complexity: O(E).

        >>> BipartiteGraph(1, 2, torch.tensor([0, 0]), torch.tensor([0, 1])).normalized().to_dense()
        tensor([[0.0000, 0.7071, 0.7071],
                [0.7071, 0.0000, 0.0000],
                [0.7071, 0.0000, 0.0000]])
        """
        return stack_bipartite(self.normalized_ratings(dtype))

    def normalized_operator(self, dtype: torch.dtype | None = None) -> BipartiteOperator:
        """The same operator by its factors R and R^T, never assembled: half the memory, half the sorting."""
        return BipartiteOperator(self.normalized_ratings(dtype))

    def user_degrees(self) -> Tensor:
        """Sum of the weights (count where unweighted) of every user's edges, ``(U,)``."""
        return self.ratings.row_sums()

    def item_degrees(self) -> Tensor:
        """Sum of the weights (count where unweighted) of every item's edges, ``(I,)``."""
        return self.ratings.column_sums()

    def select(self, edges: Tensor) -> BipartiteGraph:
        """Graph of the same nodes with some of the edges.

        Args:
            edges: ``(E,)`` bool mask, or integers.

        >>> BipartiteGraph(1, 2, torch.tensor([0, 0]), torch.tensor([0, 1])).select(torch.tensor([False, True])).item
        tensor([1])
        """
        weight = None if self.weight is None else self.weight[edges]
        return BipartiteGraph(self.num_users, self.num_items, self.user[edges], self.item[edges], weight, check=False)

    # Conversion

    def to_pyg(self) -> Any:
        """PyG ``HeteroData``: node types ``user`` and ``item``, edges ``interacts`` and their reverse.

        For one kind of nodes, as PyG's ``LightGCN`` wants it, take ``graph.adjacency().to_edge_index()``.
        """
        from torch_geometric.data import HeteroData

        data = HeteroData()
        data["user"].num_nodes, data["item"].num_nodes = self.num_users, self.num_items
        edge_index = torch.stack([self.user, self.item])
        for kind, index in (
            (("user", "interacts", "item"), edge_index),
            (("item", "rev_interacts", "user"), edge_index.flip(0)),
        ):
            data[kind].edge_index = index
            if self.weight is not None:
                data[kind].edge_weight = self.weight
        return data

    def to_scipy(self) -> csr_array:
        """R as ``scipy.sparse.csr_array``, ``(U, I)``."""
        return self.ratings.to_scipy()

    def to_networkx(self) -> Any:
        """NetworkX graph with users ``0 .. U - 1`` (``bipartite=0``) and items ``U .. U + I - 1`` (``bipartite=1``)."""
        import networkx

        graph = networkx.Graph()
        graph.add_nodes_from(range(self.num_users), bipartite=0)
        graph.add_nodes_from(range(self.num_users, self.num_nodes), bipartite=1)
        edges = zip(self.user.tolist(), (self.item + self.num_users).tolist(), strict=True)
        if self.weight is None:
            graph.add_edges_from(edges)
        else:
            weights = self.weight.tolist()
            graph.add_weighted_edges_from((*edge, weight) for edge, weight in zip(edges, weights, strict=True))
        return graph

    def to(self, device: torch.device | str) -> BipartiteGraph:
        """The graph on another device."""
        if torch.device(device) == self.device:
            return self
        weight = None if self.weight is None else self.weight.to(device)
        return BipartiteGraph(
            self.num_users, self.num_items, self.user.to(device), self.item.to(device), weight, check=False
        )

    @property
    def num_nodes(self) -> int:
        """U + I."""
        return self.num_users + self.num_items

    @property
    def num_edges(self) -> int:
        """E, each user-item edge counted once."""
        return self.user.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the edges are."""
        return self.user.device

    def _typed(self, dtype: torch.dtype | None) -> SparseMatrix:
        ratings = self.ratings
        return ratings if dtype is None else ratings.with_values(ratings.entry_values().to(dtype))

    def __repr__(self) -> str:
        kind = "" if self.weight is None else ", weighted"
        return f"BipartiteGraph({self.num_users} users, {self.num_items} items, {self.num_edges} edges{kind})"


def stack_bipartite(block: SparseMatrix) -> SparseMatrix:
    r"""``[[0, B], [B^T, 0]]`` as one sparse matrix.

    Args:
        block: B, ``(M, N)``.

    Returns:
        ``(M + N, M + N)``, rows of B first, differentiable in the values of B.

    Complexity: O(E + M + N), no sort beside that of the transpose.

    >>> stack_bipartite(SparseMatrix(torch.tensor([0, 1]), torch.tensor([0]), None, (1, 1))).to_dense()
    tensor([[0., 1.],
            [1., 0.]])
    """
    turned = block.T
    offsets = torch.cat([block.row_offsets, turned.row_offsets[1:] + block.num_entries])
    columns = torch.cat([block.columns + block.shape[0], turned.columns])
    values = None if block.values is None or turned.values is None else torch.cat([block.values, turned.values])
    size = sum(block.shape)
    return SparseMatrix(offsets, columns, values, (size, size), check=False)


def _is_sorted(graph: BipartiteGraph) -> bool:
    """Edges ascend by user, then item."""
    place = graph.user * graph.num_items + graph.item
    return not bool((place[1:] < place[:-1]).any())


def _floating(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def _check_weight(weight: Tensor, user: Tensor, check: bool) -> None:
    if weight.shape != user.shape or not weight.is_floating_point():
        raise ValueError(
            f"weight must be floats of shape {tuple(user.shape)}, got {weight.dtype} of shape {tuple(weight.shape)}"
        )
    if check and not bool(torch.isfinite(weight).all()):
        raise ValueError(f"weight must be finite, got {float(weight[~torch.isfinite(weight)][0])}")
