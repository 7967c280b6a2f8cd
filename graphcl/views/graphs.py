"""Views of graphs and hypergraphs: structure dropped at random, features masked, noise, low rank.

Every function draws from the generator it is given and from nothing else, returns something new, and leaves its input
alone. Draws happen on the device of the generator; a generator of the CPU serves graphs on any device. Nodes keep their
numbers: what is dropped becomes isolated, so embeddings of two views stay aligned row by row.
The diffusion views, which draw nothing, come from `graphcl.graphs.diffusion`.
The same views as PyG transforms are in `graphcl.views.graph_transforms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.graphs.diffusion import ppr_diffusion, ppr_topk
from graphcl.graphs.hypergraph import Hypergraph
from graphcl.graphs.operators import keep_entries
from graphcl.kernels import SparseMatrix, normalize_rows

__all__ = [
    "LowRankView",
    "add_signed_noise",
    "draw_mask",
    "edge_drop",
    "edge_mask",
    "embedding_noise",
    "feature_mask",
    "hyperedge_drop",
    "node_drop",
    "ppr_diffusion",
    "ppr_topk",
    "random_walk",
    "subgraph_random_walk",
    "svd_view",
]

#: An edge_index (2, E) of PyG, a sparse matrix, a user-item graph or a hypergraph; a view is of the same kind.
Structure = TypeVar("Structure", Tensor, SparseMatrix, BipartiteGraph, Hypergraph)
Graph = TypeVar("Graph", Tensor, SparseMatrix, BipartiteGraph)


def draw_mask(size: int, p: float, generator: torch.Generator, *, exact: bool = False) -> Tensor:
    """Which of ``size`` things are kept when each is dropped with probability ``p``.

    Args:
        size: how many.
        p: in [0, 1].
        generator: source of randomness; the mask is on its device.
        exact: drop exactly ``round(p size)``, uniformly chosen, instead of each by its own draw.

    Returns:
        ``(size,)`` bool.

    Raises:
        ValueError: ``p`` outside [0, 1], or a negative size.

    Complexity: O(size).

    >>> int(draw_mask(10, 0.3, torch.Generator().manual_seed(0), exact=True).sum())
    7
    """
    _check_rate("p", p)
    if size < 0:
        raise ValueError(f"size must be at least 0, got {size}")
    if not exact:
        return torch.rand(size, generator=generator, device=generator.device) >= p
    order = torch.randperm(size, generator=generator, device=generator.device)
    mask = torch.ones(size, dtype=torch.bool, device=generator.device)
    mask[order[: round(p * size)]] = False
    return mask


def edge_mask(
    edge_index: Tensor, p: float, generator: torch.Generator, *, symmetric: bool = False, exact: bool = False
) -> Tensor:
    """Which edges an edge drop keeps, to select edge attributes along with the edges.

    Args:
        edge_index: ``(2, E)`` node numbers.
        p: rate of dropping, in [0, 1].
        generator: source of randomness.
        symmetric: edges (i, j) and (j, i), and parallel ones, are kept or dropped together.
        exact: drop exactly ``round(p E)`` edges; with ``symmetric`` that share of the undirected edges.

    Returns:
        ``(E,)`` bool on the device of ``edge_index``.

    Complexity: O(E); O(E log E) with ``symmetric``.

    >>> both = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> edge_mask(both, 0.5, torch.Generator().manual_seed(2), symmetric=True, exact=True)
    tensor([False, False,  True,  True])
    """
    _check_edge_index(edge_index)
    if not symmetric:
        return draw_mask(edge_index.shape[1], p, generator, exact=exact).to(edge_index.device)
    low, high = torch.minimum(edge_index[0], edge_index[1]), torch.maximum(edge_index[0], edge_index[1])
    width = int(high.max()) + 1 if high.numel() else 1
    pairs, pair_of_edge = torch.unique(low * width + high, return_inverse=True)
    return draw_mask(pairs.shape[0], p, generator, exact=exact).to(edge_index.device)[pair_of_edge]


def edge_drop(
    graph: Structure,
    p: float,
    generator: torch.Generator,
    *,
    symmetric: bool = False,
    exact: bool = False,
    rescale: bool = False,
) -> Structure:
    r"""Graph without a random part of its edges (or hypergraph without a part of its incidences).

    SGL (Wu et al., 2021, https://arxiv.org/abs/2010.10783) drops an exact share of the edges of the raw graph and
    normalises what is left: ``edge_drop(graph, rho, generator, exact=True).normalized()``. LightGCL drops entries of
    the normalised matrix and scales the rest: ``edge_drop(matrix, p, generator, rescale=True)``.

    Args:
        graph: ``edge_index`` (2, E), `SparseMatrix`, `BipartiteGraph` or `Hypergraph`.
        p: rate of dropping, in [0, 1].
        generator: source of randomness.
        symmetric: both directions of an edge share their fate. A `BipartiteGraph` lists each edge once, so this holds
            for it anyway.
        exact: drop exactly ``round(p E)`` edges instead of each by its own draw.
        rescale: divide the values of the kept entries of a `SparseMatrix` by 1 - p, which keeps its expectation.

    Returns:
        The same kind of structure on the same nodes.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E); O(E log E) with ``symmetric``. No sort otherwise.

    >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    >>> edge_drop(path, 0.34, torch.Generator().manual_seed(0), exact=True)
    tensor([[0, 1],
            [1, 2]])
    """
    if rescale and not isinstance(graph, SparseMatrix):
        raise ValueError(f"rescale needs a SparseMatrix, got {type(graph).__name__}")
    if isinstance(graph, Tensor):
        return graph[:, edge_mask(graph, p, generator, symmetric=symmetric, exact=exact)]
    if isinstance(graph, SparseMatrix):
        if symmetric and graph.shape[0] != graph.shape[1]:
            raise ValueError(f"symmetric needs a square matrix, got shape {graph.shape}")
        kept = edge_mask(_places(graph), p, generator, symmetric=symmetric, exact=exact)
        view = keep_entries(graph, kept)
        return view.with_values(view.entry_values() / (1 - p)) if rescale and p < 1 else view
    if isinstance(graph, BipartiteGraph):
        return graph.select(draw_mask(graph.num_edges, p, generator, exact=exact).to(graph.device))
    if isinstance(graph, Hypergraph):
        if symmetric:
            raise ValueError("symmetric has no meaning for the incidences of a Hypergraph")
        return _keep_incidences(graph, draw_mask(graph.num_incidences, p, generator, exact=exact))
    raise _unknown(graph)


def node_drop(
    graph: Structure, p: float, generator: torch.Generator, *, num_nodes: int | None = None, exact: bool = False
) -> Structure:
    """Graph in which a random part of the nodes lose all their edges.

    Rows and columns of a square `SparseMatrix` are the same nodes; those of any other, and the users and items of a
    `BipartiteGraph`, are dropped independently, each at rate ``p`` (SGL's node drop). A node that a `Hypergraph`
    drops leaves all its hyperedges.

    Args:
        graph: ``edge_index`` (2, E), `SparseMatrix`, `BipartiteGraph` or `Hypergraph`.
        p: rate of dropping, in [0, 1].
        generator: source of randomness.
        num_nodes: needed for an ``edge_index``, and for it alone.
        exact: drop exactly ``round(p nodes)`` instead of each node by its own draw.

    Returns:
        The same kind of structure on the same nodes.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E + nodes).

    >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    >>> node_drop(path, 0.25, torch.Generator().manual_seed(0), num_nodes=4, exact=True)
    tensor([[1, 2],
            [2, 3]])
    """
    if (num_nodes is None) == isinstance(graph, Tensor):
        raise ValueError(f"num_nodes goes with an edge_index and with nothing else, got {num_nodes!r}")

    def kept(size: int) -> Tensor:
        return draw_mask(size, p, generator, exact=exact)

    if isinstance(graph, Tensor):
        _check_edge_index(graph)
        mask = kept(num_nodes or 0).to(graph.device)
        return graph[:, mask[graph[0]] & mask[graph[1]]]
    if isinstance(graph, SparseMatrix):
        rows = kept(graph.shape[0]).to(graph.device)
        columns = rows if graph.shape[0] == graph.shape[1] else kept(graph.shape[1]).to(graph.device)
        return keep_entries(graph, rows[graph.pattern.rows] & columns[graph.columns])
    if isinstance(graph, BipartiteGraph):
        users, items = (kept(size).to(graph.device) for size in (graph.num_users, graph.num_items))
        return graph.select(users[graph.user] & items[graph.item])
    if isinstance(graph, Hypergraph):
        nodes = kept(graph.num_nodes).to(graph.device)
        return _keep_incidences(graph, nodes[graph.incidence.pattern.rows])
    raise _unknown(graph)


def hyperedge_drop(hypergraph: Hypergraph, p: float, generator: torch.Generator, *, exact: bool = False) -> Hypergraph:
    """Hypergraph in which a random part of the hyperedges are empty; hyperedges keep their numbers and weights.

    Args:
        hypergraph: any.
        p: rate of dropping, in [0, 1].
        generator: source of randomness.
        exact: empty exactly ``round(p hyperedges)``.

    Complexity: O(incidences + hyperedges).

    >>> hypergraph = Hypergraph.from_hyperedges([[0, 1], [1, 2]], num_nodes=3)
    >>> hyperedge_drop(hypergraph, 0.5, torch.Generator().manual_seed(0), exact=True).hyperedge_sizes()
    tensor([0, 2])
    """
    kept = draw_mask(hypergraph.num_hyperedges, p, generator, exact=exact).to(hypergraph.device)
    return _keep_incidences(hypergraph, kept[hypergraph.incidence.columns])


def feature_mask(
    x: Tensor,
    p: float,
    generator: torch.Generator,
    *,
    per: Literal["column", "entry"] = "column",
    value: float = 0.0,
) -> Tensor:
    """Features with whole columns, or single entries, set to a value (GRACE masks columns).

    Args:
        x: ``(n, d)``.
        p: rate of masking, in [0, 1].
        generator: source of randomness.
        per: ``column`` masks the same dimensions for all nodes, ``entry`` every number by its own draw.
        value: what masked entries become.

    Returns:
        ``(n, d)``, differentiable in ``x``; not rescaled.

    Raises:
        ValueError: a malformed argument, named with its value.

    Complexity: O(n d).

    >>> feature_mask(torch.ones(2, 4), 0.5, torch.Generator().manual_seed(1))
    tensor([[1., 0., 0., 1.],
            [1., 0., 0., 1.]])
    """
    if x.dim() != 2:
        raise ValueError(f"x must have shape (nodes, d), got shape {tuple(x.shape)}")
    if per not in ("column", "entry"):
        raise ValueError(f"per must be 'column' or 'entry', got {per!r}")
    kept = draw_mask(x.shape[1] if per == "column" else x.numel(), p, generator).to(x.device)
    return x.masked_fill(~kept.reshape(1 if per == "column" else x.shape[0], x.shape[1]), value)


def embedding_noise(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    r"""Embeddings moved by a random vector of length ``eps`` that stays in their orthant.

    SimGCL: J. Yu et al., "Are Graph Augmentations Necessary?", 2022, https://arxiv.org/abs/2112.08679.

    .. math:: e' = e + \epsilon\, \mathrm{sign}(e) \odot u / \|u\|, \quad u \sim \mathrm{Uniform}[0, 1)^d

    Args:
        x: ``(n, d)`` floating.
        eps: length of the noise, at least 0.
        generator: source of randomness.

    Returns:
        ``(n, d)``, differentiable in ``x`` (with derivative 1: the sign is a constant).

    Raises:
        ValueError: ``eps`` is negative or not finite.

    Complexity: O(n d).

    >>> moved = embedding_noise(torch.tensor([[3.0, -4.0]]), 0.5, torch.Generator().manual_seed(0))
    >>> round(float((moved - torch.tensor([[3.0, -4.0]])).norm()), 4)
    0.5
    """
    draw_type = torch.float64 if x.dtype == torch.float64 else torch.float32
    noise = torch.rand(x.shape, generator=generator, dtype=draw_type, device=generator.device)
    return add_signed_noise(x, noise.to(x.device, x.dtype), eps)


def add_signed_noise(x: Tensor, noise: Tensor, eps: float) -> Tensor:
    r"""The step of `embedding_noise` for noise that is already drawn: ``e + eps sign(e) n(u)``.

    Args:
        x: ``(n, d)`` floating.
        noise: u, of the shape and dtype of ``x``; rows of zeros move nothing.
        eps: length of the step.

    >>> add_signed_noise(torch.tensor([[1.0, -1.0]]), torch.tensor([[3.0, 4.0]]), 0.1)
    tensor([[ 1.0600, -1.0800]])
    """
    if not 0.0 <= eps < torch.inf:
        raise ValueError(f"eps must be finite and at least 0, got {eps}")
    return x + eps * x.detach().sign() * normalize_rows(noise)


def random_walk(
    matrix: SparseMatrix, start: Tensor, length: int, generator: torch.Generator, *, restart: float = 0.0
) -> Tensor:
    """Random walks, all at once: every step goes from a row to one of its columns, uniformly over the entries.

    Args:
        matrix: ``(n, n)``; its values are not read.
        start: ``(S,)`` nodes.
        length: number of steps, at least 0.
        generator: source of randomness.
        restart: probability, in [0, 1], of going back to the start instead of a step.

    Returns:
        ``(S, length + 1)`` int64, the start first. A node without entries keeps the walk where it is.

    Raises:
        ValueError: a malformed argument, named with its value.
        IndexError: a start outside the graph.

    Complexity: O(S length).

    >>> ring = SparseMatrix.from_coo(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), shape=(3, 3))
    >>> random_walk(ring, torch.tensor([1]), 3, torch.Generator())
    tensor([[1, 2, 0, 1]])
    """
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}")
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise ValueError(f"length must be an integer of at least 0, got {length!r}")
    _check_rate("restart", restart)
    if start.numel() and not 0 <= int(start.min()) <= int(start.max()) < matrix.shape[0]:
        raise IndexError(f"start holds a node outside 0 .. {matrix.shape[0] - 1}")
    degrees, path = matrix.row_offsets.diff(), [start]
    for _ in range(length):
        draws = torch.rand(2, start.shape[0], generator=generator, dtype=torch.float64, device=generator.device)
        draws = draws.to(matrix.device)
        here = path[-1]
        # The draw is below 1, but its product with a large degree may round up to the degree.
        step = torch.minimum((draws[0] * degrees[here]).to(torch.int64), (degrees[here] - 1).clamp_min(0))
        place = (matrix.row_offsets[here] + step).clamp_max(max(matrix.num_entries - 1, 0))
        there = torch.where(degrees[here] > 0, matrix.columns[place], here) if matrix.num_entries else here
        path.append(torch.where(draws[1] < restart, start, there))
    return torch.stack(path, dim=1)


def subgraph_random_walk(
    graph: Graph,
    num_roots: int,
    walk_length: int,
    generator: torch.Generator,
    *,
    restart: float = 0.0,
    num_nodes: int | None = None,
) -> Graph:
    """Subgraph that random walks from random roots visit, on the same node numbers.

    Args:
        graph: ``edge_index`` (2, E), walked from source to target; a square `SparseMatrix`, walked from row to column;
            or a `BipartiteGraph`, walked both ways.
        num_roots: walks, from distinct nodes, at least 1 (all nodes where there are fewer).
        walk_length: steps of each; at most ``num_roots (walk_length + 1)`` nodes keep edges.
        generator: source of randomness.
        restart: probability of going back to the root instead of a step.
        num_nodes: needed for an ``edge_index``, and for it alone.

    Returns:
        The same kind of structure with the edges between visited nodes.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.

    Complexity: O(E + nodes + num_roots walk_length).

    >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    >>> subgraph_random_walk(path, 1, 2, torch.Generator().manual_seed(6), num_nodes=4)
    tensor([[2],
            [3]])
    """
    if (num_nodes is None) == isinstance(graph, Tensor):
        raise ValueError(f"num_nodes goes with an edge_index and with nothing else, got {num_nodes!r}")
    if isinstance(num_roots, bool) or not isinstance(num_roots, int) or num_roots < 1:
        raise ValueError(f"num_roots must be an integer of at least 1, got {num_roots!r}")
    if isinstance(graph, Tensor):
        _check_edge_index(graph)
        size = num_nodes or 0
        matrix = SparseMatrix.from_coo(graph[0], graph[1], shape=(size, size))
    elif isinstance(graph, SparseMatrix):
        matrix = graph
    elif isinstance(graph, BipartiteGraph):
        matrix = graph.adjacency()
    else:
        raise _unknown(graph)
    roots = torch.randperm(matrix.shape[0], generator=generator, device=generator.device)[:num_roots]
    walks = random_walk(matrix, roots.to(matrix.device), walk_length, generator, restart=restart)
    visited = torch.zeros(matrix.shape[0], dtype=torch.bool, device=matrix.device)
    visited[walks.flatten()] = True
    if isinstance(graph, Tensor):
        return graph[:, visited[graph[0]] & visited[graph[1]]]
    if isinstance(graph, SparseMatrix):
        return keep_entries(graph, visited[graph.pattern.rows] & visited[graph.columns])
    return graph.select(visited[graph.user] & visited[graph.item + graph.num_users])


@dataclass(frozen=True, eq=False)
class LowRankView:
    r"""A matrix of low rank by its factors, ``U diag(s) V^T``, applied as ``U (s (V^T h))``.

    Attributes:
        left: U, ``(M, q)``.
        singular_values: s, ``(q,)``, falling.
        right: V, ``(N, q)``.
    """

    left: Tensor
    singular_values: Tensor
    right: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, N)``."""
        return self.left.shape[0], self.right.shape[0]

    @property
    def T(self) -> LowRankView:
        """The transpose."""
        return LowRankView(self.right, self.singular_values, self.left)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """The product with ``dense`` (N, d), in O((M + N) q d)."""
        return self.left @ (self.singular_values.unsqueeze(1) * (self.right.T @ dense))

    def to(self, target: torch.device | str | torch.dtype) -> LowRankView:
        """The view on another device or in another dtype."""
        return LowRankView(self.left.to(target), self.singular_values.to(target), self.right.to(target))

    def to_dense(self) -> Tensor:
        """The full matrix (M, N), for small ones and tests."""
        return (self.left * self.singular_values) @ self.right.T


@torch.no_grad()
def svd_view(
    matrix: SparseMatrix | BipartiteGraph,
    rank: int,
    generator: torch.Generator,
    *,
    oversampling: int = 8,
    power_iterations: int = 4,
) -> LowRankView:
    r"""Best approximation of low rank, by a randomised SVD: the global view of LightGCL.

    X. Cai et al., "LightGCL: Simple Yet Effective Graph Contrastive Learning", 2023,
    https://arxiv.org/abs/2302.08191; N. Halko et al., "Finding structure with randomness", 2011,
    https://arxiv.org/abs/0909.4061.

    .. math:: A \approx U_q S_q V_q^T, \quad A = D_u^{-1/2} R D_i^{-1/2} \text{ for a user-item graph}

    Args:
        matrix: ``(M, N)``, or a `BipartiteGraph`, of which the normalised ratings are taken.
        rank: q, at least 1 and at most min(M, N).
        generator: source of randomness. Signs and bases of equal singular values depend on it, the product does not.
        oversampling: further random directions, at least 0; ``rank + oversampling >= min(M, N)`` makes it exact.
        power_iterations: at least 0; more of them sharpen spectra that fall slowly.

    Returns:
        `LowRankView`; propagate with ``view @ item_rows`` and ``view.T @ user_rows``.

    Raises:
        ValueError: a rank or count out of range.

    Complexity: O((power_iterations + 1) (E k + (M + N) k^2)) with k = rank + oversampling; O((M + N) k) memory.

    >>> graph = BipartiteGraph(2, 2, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    >>> svd_view(graph, 1, torch.Generator().manual_seed(0)).singular_values.round(decimals=4)
    tensor([1.])
    """
    if isinstance(matrix, BipartiteGraph):
        matrix = matrix.normalized_ratings()
    smaller = min(matrix.shape)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= smaller:
        raise ValueError(f"rank must be an integer in 1 .. {smaller}, got {rank!r}")
    for name, count in (("oversampling", oversampling), ("power_iterations", power_iterations)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} must be an integer of at least 0, got {count!r}")
    width = min(rank + oversampling, smaller)
    dtype = matrix.entry_values().dtype
    start = torch.randn(matrix.shape[1], width, generator=generator, dtype=dtype, device=generator.device)
    turned = matrix.T
    basis = torch.linalg.qr(matrix @ start.to(matrix.device)).Q
    for _ in range(power_iterations):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(turned @ basis).Q).Q
    right, singular_values, left = torch.linalg.svd(turned @ basis, full_matrices=False)
    return LowRankView(basis @ left[:rank].T, singular_values[:rank], right[:, :rank])


def _keep_incidences(hypergraph: Hypergraph, kept: Tensor) -> Hypergraph:
    incidence = keep_entries(hypergraph.incidence, kept.to(hypergraph.device))
    return Hypergraph(incidence, hypergraph.node_weight, hypergraph.hyperedge_weight, check=False)


def _places(matrix: SparseMatrix) -> Tensor:
    return torch.stack([matrix.pattern.rows, matrix.columns])


def _check_rate(name: str, rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {rate}")


def _check_edge_index(edge_index: Tensor) -> None:
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must have shape (2, edges), got shape {tuple(edge_index.shape)}")


def _unknown(graph: object) -> TypeError:
    return TypeError(
        f"graph must be an edge_index, SparseMatrix, BipartiteGraph or Hypergraph, got {type(graph).__name__}"
    )
