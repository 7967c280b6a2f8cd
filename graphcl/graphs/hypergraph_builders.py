"""Hypergraphs from interactions, features, sessions, attributes, neighbourhoods and communities.

Every builder says how many incidences it makes at most and refuses, before it builds where that is known and else as
soon as it shows, to pass ``max_incidences``. Products such as users x users are never formed: the operators of
`Hypergraph` apply them factor by factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import torch
from torch import Tensor

from graphcl.graphs.bipartite import BipartiteGraph
from graphcl.graphs.hypergraph import Hypergraph, concatenate_hypergraphs
from graphcl.graphs.knn import Metric, SearchBackend, nearest_neighbours
from graphcl.graphs.operators import keep_entries, unique_pairs
from graphcl.kernels import SparseMatrix

__all__ = [
    "MAX_INCIDENCES",
    "attribute_hypergraph",
    "community_hypergraph",
    "items_sharing_users",
    "khop_hypergraph",
    "knn_hypergraph",
    "membership_hypergraph",
    "mmhcl_item_hypergraph",
    "session_hypergraph",
    "users_sharing_items",
]

#: Default bound of every builder: 0.8 GB of 64-bit columns.
MAX_INCIDENCES: Final = 100_000_000
# Nodes that the rows of one block of a neighbourhood search may reach in all.
_BLOCK_PLACES: Final = 32_000_000


def membership_hypergraph(
    node: Tensor,
    hyperedge: Tensor,
    *,
    num_nodes: int,
    num_hyperedges: int,
    min_size: int = 1,
    max_size: int | None = None,
    generator: torch.Generator | None = None,
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """Hypergraph of listed memberships; the other builders of pairs end here.

    Args:
        node: ``(N,)`` integers in ``0 .. num_nodes - 1``; repeated pairs count once.
        hyperedge: ``(N,)`` integers in ``0 .. num_hyperedges - 1``.
        num_nodes, num_hyperedges: sizes.
        min_size: hyperedges with fewer members are emptied (they keep their number).
        max_size: hyperedges with more members keep that many, drawn uniformly; None keeps all.
        generator: needed with ``max_size``.
        max_incidences: most pairs that may be listed.

    Returns:
        At most N incidences.

    Raises:
        IndexError: a number out of range.
        ValueError: more pairs than the bound, or a malformed argument.

    Complexity: O(N) time and memory; one more sort of N draws with ``max_size``.

    >>> pairs = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 1]])
    >>> membership_hypergraph(pairs[0], pairs[1], num_nodes=3, num_hyperedges=2)
    Hypergraph(3 nodes, 2 hyperedges, 4 incidences)
    """
    _check_bound("the memberships listed", node.shape[0], max_incidences)
    incidence = unique_pairs(node, hyperedge, (num_nodes, num_hyperedges))
    return Hypergraph(_limit_sizes(incidence, min_size, max_size, generator), check=False)


def users_sharing_items(
    graph: BipartiteGraph,
    *,
    min_size: int = 1,
    max_size: int | None = None,
    generator: torch.Generator | None = None,
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """Users as nodes, items as hyperedges: H = R. MMHCL's user graph is its ``shared_propagation("row")``.

    Args:
        graph: interactions; weights are not read.
        min_size, max_size, generator: see `membership_hypergraph`; MMHCL keeps all.
        max_incidences: most edges that the graph may have.

    Returns:
        ``(users, items)`` with at most one incidence an edge.

    Raises:
        ValueError: more edges than the bound.

    Complexity: O(E).

    >>> graph = BipartiteGraph(2, 2, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    >>> users_sharing_items(graph).shared_propagation("row").to_dense()
    tensor([[0., 1.],
            [1., 0.]])
    """
    ratings = _ratings(graph, max_incidences)
    return Hypergraph(_limit_sizes(ratings, min_size, max_size, generator), check=False)


def items_sharing_users(
    graph: BipartiteGraph,
    *,
    min_size: int = 1,
    max_size: int | None = None,
    generator: torch.Generator | None = None,
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """Items as nodes, users as hyperedges: H = R^T. Arguments and cost as in `users_sharing_items`.

    >>> graph = BipartiteGraph(2, 2, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    >>> items_sharing_users(graph).hyperedge_sizes()
    tensor([1, 2])
    """
    ratings = _ratings(graph, max_incidences)
    return Hypergraph(_limit_sizes(ratings.T, min_size, max_size, generator), check=False)


def knn_hypergraph(
    x: Tensor,
    k: int,
    *,
    metric: Metric = "cosine",
    include_self: bool = True,
    members: Literal["neighbours", "choosers"] = "neighbours",
    positive_only: bool = False,
    missing: Tensor | None = None,
    backend: SearchBackend = "exact",
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """One hyperedge a node, made of nearest neighbours.

    Args:
        x: ``(N, d)`` floating, finite wherever it is not missing.
        k: nearest rows that count, at least 1.
        metric: ``cosine``, ``euclidean`` or ``dot``.
        include_self: whether a node is among its own k nearest.
        members: ``neighbours`` puts the k nearest of node j into hyperedge j; ``choosers`` puts there all nodes that
            count j among their k nearest (as MMHCL's code does).
        positive_only: ignore neighbours whose score is not positive (``cosine`` and ``dot``).
        missing: ``(N,)`` bool; these rows are not read. They get no incidence and their hyperedges stay empty, as
            do all-zero rows under ``cosine`` and ``dot``.
        backend: ``exact``, in blocks, or ``faiss`` (extra ``[ann]``).
        max_incidences: most that ``N k`` may be.

    Returns:
        ``(N, N)`` incidence with at most ``N k`` entries.

    Raises:
        ValueError, TypeError: a malformed argument, or ``N k`` above the bound.
        MissingPackageError: faiss is asked for and not installed.

    Complexity: ``exact`` O(N^2 d) time, O(N (d + k)) memory.

    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.0, 0.0]])
    >>> knn_hypergraph(x, 2).incidence.to_dense()
    tensor([[1., 1., 0., 0.],
            [1., 1., 1., 0.],
            [0., 0., 1., 0.],
            [0., 0., 0., 0.]])
    """
    if members not in ("neighbours", "choosers"):
        raise ValueError(f"members must be 'neighbours' or 'choosers', got {members!r}")
    if positive_only and metric == "euclidean":
        raise ValueError("positive_only needs scores that can be positive: metric 'cosine' or 'dot', got 'euclidean'")
    size = x.shape[0]
    present = torch.arange(size, device=x.device)
    if missing is not None:
        if missing.shape != (size,) or missing.dtype != torch.bool:
            raise ValueError(f"missing must be bool of shape ({size},), got {missing.dtype} {tuple(missing.shape)}")
        present = torch.nonzero(~missing.to(x.device)).squeeze(1)
    _check_bound("the neighbours", present.shape[0] * k, max_incidences)
    rows = x if missing is None else x[present]
    found = nearest_neighbours(rows, k, metric=metric, include_self=include_self, backend=backend)
    kept = found.indices >= 0
    if positive_only:
        kept &= found.scores > 0
    chooser = present.unsqueeze(1).expand(-1, k)[kept]
    chosen = present[found.indices[kept]]
    pair = (chosen, chooser) if members == "neighbours" else (chooser, chosen)
    return Hypergraph(unique_pairs(pair[0], pair[1], (size, size)), check=False)


def mmhcl_item_hypergraph(
    features: Mapping[str, Tensor],
    k: int,
    *,
    missing: Mapping[str, Tensor] | None = None,
    backend: SearchBackend = "exact",
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    r"""The item hypergraph of MMHCL (Guo et al., 2025, https://arxiv.org/abs/2504.16576), as its code builds it.

    .. math:: H = [B_1 | B_2 | \dots], \quad (B_m)_{ij} = 1 \iff j \in \mathrm{top}_k\, c(F_{m,i}, \cdot)
        \text{ and } c(F_{m,i}, F_{m,j}) > 0

    Column (m, j) is the hyperedge of all items that count j among their k nearest (itself included) by modality m.
    Two deviations where the code fails: neighbours of negative similarity are left out (the code keeps the negative
    value), and items without features in a modality get no incidence there (the code spreads NaN to all rows).

    Args:
        features: modality to ``(items, width)`` floating; all with the same number of items.
        k: neighbours, the item itself included.
        missing: modality to ``(items,)`` bool, for rows that hold no features; all-zero rows count as missing anyway.
        backend: see `knn_hypergraph`.
        max_incidences: most that ``items k modalities`` may be.

    Returns:
        ``(items, modalities items)`` incidence, modalities in the order of ``features``; at most ``items k
        modalities`` entries. MMHCL propagates by its ``shared_propagation("symmetric", keep_diagonal=True)``.

    Raises:
        ValueError, TypeError: no modality, other numbers of items, a name in ``missing`` that is no modality, or the
            bound is passed.

    Complexity: O(modalities items^2 width) time, O(items (width + modalities k)) memory.

    >>> image = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> text = torch.tensor([[1.0], [0.0], [2.0]])
    >>> mmhcl_item_hypergraph({"image": image, "text": text}, 2).incidence.to_dense()
    tensor([[1., 1., 0., 1., 0., 1.],
            [1., 1., 0., 0., 0., 0.],
            [0., 1., 1., 1., 0., 1.]])
    """
    missing = missing or {}
    unknown = [name for name in missing if name not in features]
    if unknown:
        raise ValueError(f"missing names {unknown[0]!r}, which is not one of the modalities {list(features)}")
    if not features:
        raise ValueError("features must hold at least one modality, got none")
    sizes = {name: table.shape[0] for name, table in features.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"features must have the same number of items in every modality, got {sizes}")
    _check_bound("the neighbours in all modalities", sum(sizes.values()) * k, max_incidences)
    blocks = [
        knn_hypergraph(
            table,
            k,
            members="choosers",
            positive_only=True,
            missing=missing.get(name),
            backend=backend,
            max_incidences=max_incidences,
        )
        for name, table in features.items()
    ]
    return concatenate_hypergraphs(blocks)


def session_hypergraph(
    session: Tensor,
    item: Tensor,
    *,
    num_items: int,
    min_size: int = 2,
    max_size: int | None = None,
    generator: torch.Generator | None = None,
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """Items as nodes, sessions (or baskets, or bundles) as hyperedges.

    Args:
        session: ``(N,)`` integers of any value; hyperedges are the distinct ones in ascending order.
        item: ``(N,)`` integers in ``0 .. num_items - 1``; an item counts once a session.
        num_items: number of nodes.
        min_size: sessions with fewer distinct items are emptied; one item alone relates nothing.
        max_size, generator, max_incidences: see `membership_hypergraph`.

    Returns:
        ``(num_items, sessions)`` with at most N incidences.

    Raises:
        IndexError: an item out of range.
        ValueError: more rows than the bound, or a malformed argument.

    Complexity: O(N log N).

    >>> session_hypergraph(torch.tensor([7, 7, 9]), torch.tensor([0, 2, 1]), num_items=3).hyperedge_sizes()
    tensor([2, 0])
    """
    _check_bound("the rows of the sessions", item.shape[0], max_incidences)
    distinct, number = torch.unique(session, return_inverse=True)
    return membership_hypergraph(
        item,
        number,
        num_nodes=num_items,
        num_hyperedges=distinct.shape[0],
        min_size=min_size,
        max_size=max_size,
        generator=generator,
        max_incidences=max_incidences,
    )


def attribute_hypergraph(
    codes: Tensor,
    *,
    min_size: int = 1,
    max_size: int | None = None,
    generator: torch.Generator | None = None,
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """One hyperedge for every value of every attribute: all nodes that have it.

    Attributes with several values a node (genres, tags) are pairs: use `membership_hypergraph`.

    Args:
        codes: ``(N,)`` or ``(N, C)`` integers; negative means that the node lacks the attribute.
        min_size, max_size, generator, max_incidences: see `membership_hypergraph`.

    Returns:
        ``(N, distinct values)`` with at most ``N C`` incidences; hyperedges by column, then value.

    Raises:
        ValueError, TypeError: a malformed argument, or ``N C`` above the bound.

    Complexity: O(N C log(N C)).

    >>> attribute_hypergraph(torch.tensor([[5, 0], [5, -1], [9, 0]])).incidence.to_dense()
    tensor([[1., 0., 1.],
            [1., 0., 0.],
            [0., 1., 1.]])
    """
    if codes.dtype not in (torch.int64, torch.int32) or codes.dim() not in (1, 2):
        raise TypeError(f"codes must be integers of shape (N,) or (N, C), got {codes.dtype} {tuple(codes.shape)}")
    table = codes.reshape(codes.shape[0], -1 if codes.numel() else codes.shape[-1]).to(torch.int64)
    _check_bound("the attributes", table.numel(), max_incidences)
    nodes, numbers = [], []
    count = 0
    for column in table.T:
        node = torch.nonzero(column >= 0).squeeze(1)
        distinct, number = torch.unique(column[node], return_inverse=True)
        nodes.append(node)
        numbers.append(number + count)
        count += distinct.shape[0]
    none = table.new_zeros(0)
    return membership_hypergraph(
        torch.cat([none, *nodes]),
        torch.cat([none, *numbers]),
        num_nodes=table.shape[0],
        num_hyperedges=count,
        min_size=min_size,
        max_size=max_size,
        generator=generator,
        max_incidences=max_incidences,
    )


def khop_hypergraph(
    adjacency: SparseMatrix, hops: int, *, include_self: bool = True, max_incidences: int = MAX_INCIDENCES
) -> Hypergraph:
    """One hyperedge a node: everything within so many steps of it.

    Args:
        adjacency: ``(N, N)``; steps go from a row to its columns. Values are not read.
        hops: steps, at least 1.
        include_self: whether a node belongs to its own hyperedge.
        max_incidences: refuse as soon as the neighbourhoods found hold more nodes than this.

    Returns:
        ``(N, N)`` incidence.

    Raises:
        ValueError: the bound is passed, or a malformed argument.

    Complexity: O(sum over nodes of the edges within reach) time; memory for the result and one block of 32 M places.

    >>> path = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 2]), shape=(3, 3))
    >>> khop_hypergraph(path, 2).incidence.to_dense()
    tensor([[1., 0., 0.],
            [1., 1., 0.],
            [1., 1., 1.]])
    """
    import numpy as np
    from scipy.sparse import eye_array

    if adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be square, got shape {adjacency.shape}")
    if isinstance(hops, bool) or not isinstance(hops, int) or hops < 1:
        raise ValueError(f"hops must be an integer of at least 1, got {hops!r}")
    size = adjacency.shape[0]
    steps: Any = adjacency.with_values(None).to_scipy()
    identity: Any = eye_array(size, dtype=np.float32, format="csr")
    walks = reach = np.ones(size)
    for _ in range(hops):
        walks = np.minimum(steps @ walks, size)
        reach = reach + walks
    # A node reaches no more nodes than walks leave it, nor than there are.
    before = np.concatenate([[0.0], np.cumsum(np.minimum(reach, size))])
    members, lengths = [np.zeros(0, dtype=np.int64)], [np.zeros(1, dtype=np.int64)]
    total = start = 0
    while start < size:
        stop = int(np.searchsorted(before, before[start] + _BLOCK_PLACES, side="right")) - 1
        stop = min(max(stop, start + 1), size)
        reached = identity[start:stop]
        frontier = reached
        for _ in range(hops):
            # Products count walks; only whether there is one matters.
            frontier = frontier @ steps
            frontier.data[:] = 1
            reached = reached + frontier
            reached.data[:] = 1
        reached.sort_indices()
        rows = np.repeat(np.arange(reached.shape[0]), np.diff(reached.indptr))
        kept = slice(None) if include_self else rows + start != reached.indices
        columns = reached.indices[kept].astype(np.int64)
        total += columns.size
        _check_bound("the neighbourhoods", total, max_incidences)
        members.append(columns)
        lengths.append(np.bincount(rows[kept], minlength=reached.shape[0]))
        start = stop
    offsets = torch.from_numpy(np.cumsum(np.concatenate(lengths)))
    within = SparseMatrix(offsets, torch.from_numpy(np.concatenate(members)), None, (size, size), check=False)
    return Hypergraph(within.to(adjacency.device).T, check=False)


def community_hypergraph(
    adjacency: SparseMatrix,
    generator: torch.Generator,
    *,
    method: Literal["louvain", "label_propagation"] = "louvain",
    resolution: float = 1.0,
    min_size: int = 1,
    max_incidences: int = MAX_INCIDENCES,
) -> Hypergraph:
    """One hyperedge a community, found by NetworkX in the undirected graph.

    Args:
        adjacency: ``(N, N)``; values are edge weights. Where both directions are listed, the last one counts.
        generator: seeds Louvain (Blondel et al., 2008, https://arxiv.org/abs/0803.0476); label propagation (Cordasco
            and Gargano, 2010, https://arxiv.org/abs/1103.4550) draws nothing.
        method: ``louvain`` or ``label_propagation``.
        resolution: of Louvain; above 1 favours smaller communities.
        min_size: smaller communities are emptied.
        max_incidences: most nodes that the graph may have.

    Returns:
        ``(N, communities)`` with at most N incidences: communities do not overlap. They are ordered by their lowest
        node.

    Raises:
        ValueError: a malformed argument, or more nodes than the bound.

    Complexity: near O(E log N), in Python.

    >>> both = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    >>> two_pairs = SparseMatrix.from_edge_index(both, num_nodes=4)
    >>> community_hypergraph(two_pairs, torch.Generator().manual_seed(0)).incidence.to_dense()
    tensor([[1., 0.],
            [1., 0.],
            [0., 1.],
            [0., 1.]])
    """
    import networkx

    if adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(f"adjacency must be square, got shape {adjacency.shape}")
    if method not in ("louvain", "label_propagation"):
        raise ValueError(f"method must be 'louvain' or 'label_propagation', got {method!r}")
    size = adjacency.shape[0]
    _check_bound("the nodes", size, max_incidences)
    graph = networkx.from_scipy_sparse_array(adjacency.to_scipy())
    if method == "louvain":
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        found = networkx.community.louvain_communities(graph, resolution=resolution, seed=seed) if size else []
    else:
        found = networkx.community.label_propagation_communities(graph)
    communities = sorted((sorted(members) for members in found), key=lambda members: members[0])
    number = torch.empty(size, dtype=torch.int64)
    for position, members in enumerate(communities):
        number[torch.tensor(members, dtype=torch.int64)] = position
    return membership_hypergraph(
        torch.arange(size, device=adjacency.device),
        number.to(adjacency.device),
        num_nodes=size,
        num_hyperedges=len(communities),
        min_size=min_size,
        max_incidences=max_incidences,
    )


def _ratings(graph: BipartiteGraph, max_incidences: int) -> SparseMatrix:
    """R without weights, every pair once."""
    _check_bound("the edges", graph.num_edges, max_incidences)
    ratings = graph.ratings.with_values(None)
    rows, columns = ratings.pattern.rows, ratings.columns
    repeated = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    return ratings.coalesce("first") if bool(repeated.any()) else ratings


def _limit_sizes(
    incidence: SparseMatrix, min_size: int, max_size: int | None, generator: torch.Generator | None
) -> SparseMatrix:
    """Hyperedges below ``min_size`` emptied, those above ``max_size`` thinned out uniformly."""
    if min_size < 1:
        raise ValueError(f"min_size must be at least 1, got {min_size}")
    if max_size is not None and max_size < min_size:
        raise ValueError(f"max_size must be at least min_size = {min_size}, got {max_size}")
    if max_size is not None and generator is None:
        raise ValueError("generator is needed to draw max_size members")
    if min_size == 1 and max_size is None:
        return incidence
    sizes = torch.bincount(incidence.columns, minlength=incidence.shape[1])
    kept = sizes[incidence.columns] >= min_size
    if max_size is not None and generator is not None and bool((sizes > max_size).any()):
        order = torch.randperm(incidence.num_entries, generator=generator, device=generator.device)
        order = order.to(incidence.device)
        order = order[torch.sort(incidence.columns[order], stable=True).indices]
        first = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])[incidence.columns[order]]
        rank = torch.empty_like(order)
        rank[order] = torch.arange(order.shape[0], device=order.device) - first
        kept &= rank < max_size
    return keep_entries(incidence, kept)


def _check_bound(what: str, count: int, max_incidences: int) -> None:
    if max_incidences < 0:
        raise ValueError(f"max_incidences must be at least 0, got {max_incidences}")
    if count > max_incidences:
        raise ValueError(
            f"{what} make {count} incidences, more than max_incidences={max_incidences}; raise it or thin the input"
        )
