"""The views of `graphcl.views.graphs` as PyG transforms.

A transform holds its generator, so a sequence of calls is reproducible and independent of global state. PyG copies the
data object before it calls a transform, and tensors are replaced, never written to. Nodes keep their numbers unless
``relabel`` is asked for.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from graphcl.graphs.diffusion import DiffusionNormalization, ppr_diffusion, ppr_topk
from graphcl.kernels import SparseMatrix, normalize_symmetric
from graphcl.views.graphs import draw_mask, edge_mask, embedding_noise, feature_mask, random_walk, svd_view

__all__ = [
    "EdgeDrop",
    "EmbeddingNoise",
    "FeatureMask",
    "HyperedgeDrop",
    "NodeDrop",
    "PPRDiffusion",
    "RandomWalkSubgraph",
    "SVDView",
]


class EdgeDrop(BaseTransform):  # type: ignore[misc]
    """Drop edges of ``Data``, or of every edge type of ``HeteroData``, with all their attributes; see `edge_drop`.

    Args:
        p: rate, in [0, 1].
        generator: source of randomness.
        symmetric: both directions of an edge share their fate. In ``HeteroData`` so do an edge type and its reverse
            ``rev_...``, which must list the same edges in the same order.
        exact: drop exactly that share.

    Raises:
        ValueError: a rate out of range; with ``symmetric``, a reverse type of other edges.

    Complexity: O(E); O(E log E) with ``symmetric``.

    >>> from torch_geometric.data import Data
    >>> data = Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)
    >>> EdgeDrop(0.5, torch.Generator().manual_seed(2), symmetric=True, exact=True)(data).edge_index
    tensor([[1, 2],
            [2, 1]])
    """

    def __init__(self, p: float, generator: torch.Generator, *, symmetric: bool = False, exact: bool = False) -> None:
        _check_rate(p)
        self.p, self.generator, self.symmetric, self.exact = p, generator, symmetric, exact

    def forward(self, data: Any) -> Any:
        """The data with the edges that are kept."""
        if not isinstance(data, HeteroData):
            return _keep_edges(data, self._draw(data.edge_index, self.symmetric))
        masks: dict[Any, Tensor] = {}
        for kind in sorted(data.edge_types, key=lambda kind: kind[1].startswith("rev_")):
            source, relation, target = kind
            forward = target, relation.removeprefix("rev_"), source
            index = data[kind].edge_index
            if self.symmetric and relation.startswith("rev_") and forward in masks:
                if not torch.equal(index.flip(0), data[forward].edge_index):
                    raise ValueError(f"the edges of {kind} must be those of {forward} reversed, in the same order")
                masks[kind] = masks[forward]
            else:
                masks[kind] = self._draw(index, self.symmetric and source == target)
        return data.edge_subgraph(masks)

    def _draw(self, edge_index: Tensor, symmetric: bool) -> Tensor:
        return edge_mask(edge_index, self.p, self.generator, symmetric=symmetric, exact=self.exact)

    def __repr__(self) -> str:
        return f"EdgeDrop({self.p}, symmetric={self.symmetric}, exact={self.exact})"


class NodeDrop(BaseTransform):  # type: ignore[misc]
    """Drop nodes of ``Data``, or of every node type of ``HeteroData``; see `node_drop`.

    Args:
        p: rate, in [0, 1].
        generator: source of randomness.
        exact: drop exactly that share.
        relabel: take the nodes out and number the rest anew; else they stay without edges.

    Raises:
        ValueError: a rate out of range.

    Complexity: O(E + nodes).

    >>> from torch_geometric.data import Data
    >>> data = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
    >>> NodeDrop(0.5, torch.Generator().manual_seed(0), exact=True, relabel=True)(data).num_nodes
    2
    """

    def __init__(self, p: float, generator: torch.Generator, *, exact: bool = False, relabel: bool = False) -> None:
        _check_rate(p)
        self.p, self.generator, self.exact, self.relabel = p, generator, exact, relabel

    def forward(self, data: Any) -> Any:
        """The data without the dropped nodes, or without their edges."""
        if not isinstance(data, HeteroData):
            return _keep_nodes(data, self._draw(data.num_nodes, data.edge_index.device), self.relabel)
        device = data.edge_stores[0].edge_index.device if data.edge_types else self.generator.device
        masks = {kind: self._draw(data[kind].num_nodes, device) for kind in data.node_types}
        if self.relabel:
            return data.subgraph(masks)
        edges = {}
        for kind in data.edge_types:
            source, target = data[kind].edge_index
            edges[kind] = masks[kind[0]][source] & masks[kind[-1]][target]
        return data.edge_subgraph(edges)

    def _draw(self, num_nodes: int, device: torch.device) -> Tensor:
        return draw_mask(num_nodes, self.p, self.generator, exact=self.exact).to(device)

    def __repr__(self) -> str:
        return f"NodeDrop({self.p}, exact={self.exact}, relabel={self.relabel})"


class FeatureMask(BaseTransform):  # type: ignore[misc]
    """Mask columns or entries of a node attribute, in every node type that has it; see `feature_mask`.

    Args:
        p: rate, in [0, 1].
        generator: source of randomness.
        per: ``column`` or ``entry``.
        attribute: which node attribute.

    Raises:
        ValueError: a rate out of range, or no node has the attribute.

    Complexity: O(n d).

    >>> from torch_geometric.data import Data
    >>> data = Data(x=torch.ones(2, 4))
    >>> FeatureMask(0.5, torch.Generator().manual_seed(1))(data).x[0]
    tensor([1., 0., 0., 1.])
    """

    def __init__(
        self,
        p: float,
        generator: torch.Generator,
        *,
        per: Literal["column", "entry"] = "column",
        attribute: str = "x",
    ) -> None:
        _check_rate(p)
        self.p, self.generator, self.per, self.attribute = p, generator, per, attribute

    def forward(self, data: Any) -> Any:
        """The data with the masked attribute."""
        for store in _stores_with(data, self.attribute):
            store[self.attribute] = feature_mask(store[self.attribute], self.p, self.generator, per=self.per)
        return data

    def __repr__(self) -> str:
        return f"FeatureMask({self.p}, per={self.per!r}, attribute={self.attribute!r})"


class EmbeddingNoise(BaseTransform):  # type: ignore[misc]
    """Add the noise of SimGCL to a node attribute, in every node type that has it; see `embedding_noise`.

    Args:
        eps: length of the noise.
        generator: source of randomness.
        attribute: which node attribute.

    Raises:
        ValueError: a negative length, or no node has the attribute.

    Complexity: O(n d).

    >>> from torch_geometric.data import Data
    >>> data = EmbeddingNoise(0.5, torch.Generator().manual_seed(0))(Data(x=torch.tensor([[3.0, -4.0]])))
    >>> bool(data.x[0, 0] > 3)
    True
    """

    def __init__(self, eps: float, generator: torch.Generator, *, attribute: str = "x") -> None:
        if not 0.0 <= eps < torch.inf:
            raise ValueError(f"eps must be finite and at least 0, got {eps}")
        self.eps, self.generator, self.attribute = eps, generator, attribute

    def forward(self, data: Any) -> Any:
        """The data with the noisy attribute."""
        for store in _stores_with(data, self.attribute):
            store[self.attribute] = embedding_noise(store[self.attribute], self.eps, self.generator)
        return data

    def __repr__(self) -> str:
        return f"EmbeddingNoise({self.eps}, attribute={self.attribute!r})"


class RandomWalkSubgraph(BaseTransform):  # type: ignore[misc]
    """Keep what random walks from random roots visit, of ``Data``; see `subgraph_random_walk`.

    Args:
        num_roots: walks, from distinct nodes.
        walk_length: steps of each, from source to target.
        generator: source of randomness.
        restart: probability of going back to the root instead of a step.
        relabel: take the other nodes out and number the rest anew; else they stay without edges.

    Raises:
        ValueError: a count or rate out of range.

    Complexity: O(E + nodes + num_roots walk_length).

    >>> from torch_geometric.data import Data
    >>> data = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
    >>> RandomWalkSubgraph(1, 2, torch.Generator().manual_seed(6))(data).edge_index
    tensor([[2],
            [3]])
    """

    def __init__(
        self,
        num_roots: int,
        walk_length: int,
        generator: torch.Generator,
        *,
        restart: float = 0.0,
        relabel: bool = False,
    ) -> None:
        for name, count, least in (("num_roots", num_roots, 1), ("walk_length", walk_length, 0)):
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {count!r}")
        _check_rate(restart, "restart")
        self.num_roots, self.walk_length, self.generator = num_roots, walk_length, generator
        self.restart, self.relabel = restart, relabel

    def forward(self, data: Any) -> Any:
        """The data with the edges between visited nodes."""
        size = data.num_nodes
        matrix = SparseMatrix.from_coo(data.edge_index[0], data.edge_index[1], shape=(size, size))
        roots = torch.randperm(size, generator=self.generator, device=self.generator.device)[: self.num_roots]
        walks = random_walk(matrix, roots.to(matrix.device), self.walk_length, self.generator, restart=self.restart)
        visited = torch.zeros(size, dtype=torch.bool, device=matrix.device)
        visited[walks.flatten()] = True
        return _keep_nodes(data, visited, self.relabel)

    def __repr__(self) -> str:
        return f"RandomWalkSubgraph({self.num_roots}, {self.walk_length}, restart={self.restart})"


class PPRDiffusion(BaseTransform):  # type: ignore[misc]
    """Replace the edges of ``Data`` by personalised PageRank; see `ppr_diffusion` and `ppr_topk`.

    Args:
        alpha: probability of going back to the start, in (0, 1].
        k: keep the k largest entries a node, found by push; None is exact and keeps every entry that is not 0.
        tolerance: of the push.
        self_loops: weight of added self loops.
        normalization: ``symmetric`` or ``row``.

    Returns from a call:
        Data with new ``edge_index`` and ``edge_weight`` (float32), without other edge attributes.

    Raises:
        ValueError: an argument out of range.

    Complexity: O(n^3), or with k that of `ppr_topk`.

    >>> from torch_geometric.data import Data
    >>> data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> PPRDiffusion(0.5)(data).edge_weight
    tensor([0.7500, 0.2500, 0.2500, 0.7500])
    """

    def __init__(
        self,
        alpha: float = 0.2,
        *,
        k: int | None = None,
        tolerance: float = 1e-4,
        self_loops: float = 1.0,
        normalization: DiffusionNormalization = "symmetric",
    ) -> None:
        self.alpha, self.k, self.tolerance = alpha, k, tolerance
        self.self_loops, self.normalization = self_loops, normalization

    def forward(self, data: Any) -> Any:
        """The data with diffused edges."""
        matrix = SparseMatrix.from_edge_index(data.edge_index, data.get("edge_weight"), num_nodes=data.num_nodes)
        if self.k is None:
            dense = ppr_diffusion(matrix, self.alpha, self_loops=self.self_loops, normalization=self.normalization)
            rows, columns = dense.nonzero(as_tuple=True)
            found = SparseMatrix.from_coo(rows, columns, dense[rows, columns], shape=matrix.shape, check=False)
        else:
            found = ppr_topk(
                matrix,
                self.k,
                self.alpha,
                tolerance=self.tolerance,
                self_loops=self.self_loops,
                normalization=self.normalization,
            )
        nodes = data.num_nodes
        for key in list(data.keys()):
            if data.is_edge_attr(key) and key != "edge_index":
                del data[key]
        data.edge_index, weight = found.to_edge_index()
        data.edge_weight = None if weight is None else weight.to(torch.float32)
        return _with_nodes(data, nodes)

    def __repr__(self) -> str:
        return f"PPRDiffusion({self.alpha}, k={self.k})"


class SVDView(BaseTransform):  # type: ignore[misc]
    """Add the low-rank view of the normalised adjacency of ``Data`` by its factors; see `svd_view`.

    ``data.svd_left @ (data.svd_right.T @ h)`` propagates along it. The edges stay.

    Args:
        rank: q.
        generator: source of randomness.

    Raises:
        ValueError: a rank that is no integer of at least 1, or on the call one above the number of nodes.

    Complexity: as `svd_view`.

    >>> from torch_geometric.data import Data
    >>> data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    >>> SVDView(1, torch.Generator().manual_seed(0))(data).svd_left.shape
    torch.Size([2, 1])
    """

    def __init__(self, rank: int, generator: torch.Generator) -> None:
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ValueError(f"rank must be an integer of at least 1, got {rank!r}")
        self.rank, self.generator = rank, generator

    def forward(self, data: Any) -> Any:
        """The data with ``svd_left`` and ``svd_right``, ``(nodes, rank)`` each."""
        matrix = SparseMatrix.from_edge_index(data.edge_index, data.get("edge_weight"), num_nodes=data.num_nodes)
        view = svd_view(normalize_symmetric(matrix), self.rank, self.generator)
        data.svd_left, data.svd_right = view.left * view.singular_values, view.right
        return data

    def __repr__(self) -> str:
        return f"SVDView({self.rank})"


class HyperedgeDrop(BaseTransform):  # type: ignore[misc]
    """Empty hyperedges of ``Data`` with ``hyperedge_index``, or of ``HyperGraphData``; see `hyperedge_drop`.

    Args:
        p: rate, in [0, 1].
        generator: source of randomness.
        exact: empty exactly that share.

    Raises:
        ValueError: a rate out of range.

    Complexity: O(incidences + hyperedges).

    >>> from torch_geometric.data import Data
    >>> data = Data(hyperedge_index=torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]]), num_nodes=3)
    >>> HyperedgeDrop(0.5, torch.Generator().manual_seed(0), exact=True)(data).hyperedge_index
    tensor([[1, 2],
            [1, 1]])
    """

    def __init__(self, p: float, generator: torch.Generator, *, exact: bool = False) -> None:
        _check_rate(p)
        self.p, self.generator, self.exact = p, generator, exact

    def forward(self, data: Any) -> Any:
        """The data with the incidences of the hyperedges that are kept; hyperedges keep their numbers."""
        key = "hyperedge_index" if data.get("hyperedge_index") is not None else "edge_index"
        index = data[key]
        count = data.get("num_hyperedges")
        if count is None:
            count = int(index[1].max()) + 1 if index.shape[1] else 0
        kept = draw_mask(count, self.p, self.generator, exact=self.exact).to(index.device)[index[1]]
        nodes = data.num_nodes
        data[key] = index[:, kept]
        if data.get("incidence_weight") is not None:
            data.incidence_weight = data.incidence_weight[kept]
        data.num_hyperedges = count
        return _with_nodes(data, nodes)

    def __repr__(self) -> str:
        return f"HyperedgeDrop({self.p}, exact={self.exact})"


def _keep_edges(data: Any, mask: Tensor) -> Any:
    nodes = data.num_nodes
    return _with_nodes(data.edge_subgraph(mask), nodes)


def _keep_nodes(data: Any, mask: Tensor, relabel: bool) -> Any:
    if relabel:
        return data.subgraph(mask)
    source, target = data.edge_index
    return _keep_edges(data, mask[source] & mask[target])


def _with_nodes(data: Any, num_nodes: int) -> Any:
    """The data with its former number of nodes, which PyG may have read off the edges."""
    if "num_nodes" in data or data.num_nodes != num_nodes:
        data.num_nodes = num_nodes
    return data


def _stores_with(data: Any, attribute: str) -> list[Any]:
    stores = [store for store in data.node_stores if attribute in store]
    if not stores:
        raise ValueError(f"no node of the data has {attribute!r}")
    return stores


def _check_rate(rate: float, name: str = "p") -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {rate}")
