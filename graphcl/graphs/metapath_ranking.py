"""Which meta-paths a schema holds, and which of them say something about the target nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.errors import InputError
from graphcl.graphs.metapath import Hop, MetaPath, MetaPathLike, incidence, parse_metapath, path_name, target_type
from graphcl.graphs.metapath_products import MEMORY_BUDGET, PathProduct, is_symmetric, row_blocks

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["MetaPathScore", "enumerate_metapaths", "rank_metapaths"]


@dataclass(frozen=True)
class MetaPathScore:
    """What a meta-path connects, measured on a sample of target nodes.

    Attributes:
        path: the meta-path.
        coverage: part of the nodes that reach another one.
        density: part of the other nodes that a node reaches.
        concentration: part of a node's PathSim that lies on its ten nearest others; of its counts where the path does
            not read the same backwards. Near 1 where a few are close, near 0 where everybody is.
        score: ``coverage (1 - density)``, by which paths are ranked.
        homophily: part of the neighbours, by weight of instances, that carry the node's label; None without labels.
    """

    path: MetaPath
    coverage: float
    density: float
    concentration: float
    score: float
    homophily: float | None = None


def enumerate_metapaths(
    graph: HeteroData, *, target: str | None = None, max_length: int = 4, symmetric: bool = True
) -> list[MetaPath]:
    """All meta-paths of a schema from the target type back to itself, short ones first.

    An edge type and its reverse, which PyG's ``ToUndirected`` adds as ``rev_...``, count once; empty relations are left
    out.

    Args:
        graph: PyG ``HeteroData``.
        target: node type at both ends; ``graph.target`` or the one with labels when None.
        max_length: most hops.
        symmetric: only paths that return by the way they came, for which PathSim is defined.

    Returns:
        Meta-paths without repetition.

    Raises:
        InputError: an unknown target.
        ValueError: ``max_length`` below 1.

    Complexity: as many steps as there are walks of that length in the schema.

    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData(target="paper")
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 2, 1
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1], [0, 0]])
    >>> [path.name for path in enumerate_metapaths(graph)]
    ['PAP', 'PAPAP']
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    target = target_type(graph, target)
    hops = _distinct_hops(graph)
    steps = max_length // 2 if symmetric else max_length
    walks: list[tuple[Hop, ...]] = [()]
    found: list[tuple[Hop, ...]] = []
    for _ in range(steps):
        walks = [(*walk, hop) for walk in walks for hop in hops if hop.start == (walk[-1].end if walk else target)]
        if symmetric:
            found += [(*walk, *(Hop(hop.edge_type, not hop.backwards) for hop in reversed(walk))) for walk in walks]
        else:
            found += [walk for walk in walks if walk[-1].end == target]
    return [MetaPath(chain, path_name(graph, chain)) for chain in found]


def rank_metapaths(
    graph: HeteroData,
    metapaths: Sequence[MetaPathLike] | None = None,
    *,
    target: str | None = None,
    max_length: int = 4,
    labels: Tensor | None = None,
    sample: int = 1000,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> list[MetaPathScore]:
    """Order meta-paths without labels: those first that connect many nodes, each to few others.

    Args:
        graph: PyG ``HeteroData``.
        metapaths: what to rank; all symmetric ones up to ``max_length`` when None.
        target: node type at both ends; ``graph.target`` or the one with labels when None.
        max_length: most hops of the enumerated paths.
        labels: (N,) classes, -1 for unknown ones; adds homophily to the result and does not change the order.
        sample: nodes to look at.
        generator: draws them; the first ones in a fixed random order when None.
        memory_budget: bytes for a block of rows.

    Returns:
        `MetaPathScore`, best first.

    Raises:
        InputError: no meta-path at all, or one that does not fit the schema.

    Complexity: the product rows of the sampled nodes, block by block.

    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData(target="paper")
    >>> graph["paper"].num_nodes, graph["author"].num_nodes, graph["venue"].num_nodes = 4, 2, 1
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    >>> graph["paper", "to", "venue"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0]])
    >>> [(one.path.name, round(one.density, 2)) for one in rank_metapaths(graph, max_length=2)]
    [('PAP', 0.33), ('PVP', 1.0)]
    """
    target = target_type(graph, target)
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    if metapaths is None:
        paths = enumerate_metapaths(graph, target=target, max_length=max_length)
    else:
        paths = [parse_metapath(graph, path, target=target) for path in metapaths]
    if not paths:
        raise InputError(
            f"no meta-path of at most {max_length} hops leads from {target!r} back to it", "allow longer ones"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    size = incidence(graph, paths[0].hops[0]).shape[0]
    nodes = torch.randperm(size, generator=generator)[:sample].sort().values.numpy()
    classes = None if labels is None else labels.cpu().numpy()
    scores = [_score(graph, path, nodes, classes, memory_budget) for path in paths]
    return sorted(scores, key=lambda one: (-one.score, -one.concentration, len(one.path.hops)))


def _score(
    graph: HeteroData,
    path: MetaPath,
    nodes: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
    memory_budget: int,
) -> MetaPathScore:
    factors = [incidence(graph, hop) for hop in path.hops]
    product = PathProduct(factors, memory_budget=memory_budget)
    loops = product.diagonal() if len(factors) % 2 == 0 and is_symmetric(factors) else None
    reached, concentrated, alike, known = [], [], 0.0, 0.0
    for part in row_blocks(product.row_bounds[nodes], product.block_entries):
        block = product.rows(nodes[part])
        rows = np.repeat(nodes[part], np.diff(block.indptr))
        weight = np.where(rows == block.indices, 0.0, block.data)
        if labels is not None:
            counted = (labels[rows] >= 0) & (labels[block.indices] >= 0)
            known += float(weight[counted].sum())
            alike += float(weight[counted & (labels[rows] == labels[block.indices])].sum())
        if loops is not None:
            weight = 2 * weight / (loops[rows] + loops[block.indices])
        offsets = block.indptr
        reached.append(np.diff(np.concatenate([[0], np.cumsum(weight > 0)])[offsets]))
        concentrated += [_top_share(weight[offsets[i] : offsets[i + 1]]) for i in range(offsets.size - 1)]
    count = np.concatenate(reached)
    covered = count > 0
    coverage = float(covered.mean())
    density = float(count.mean() / max(product.shape[1] - 1, 1))
    concentration = float(np.asarray(concentrated)[covered].mean()) if covered.any() else 0.0
    homophily = None if labels is None or known == 0.0 else alike / known
    return MetaPathScore(path, coverage, density, concentration, coverage * (1.0 - density), homophily)


def _top_share(weight: NDArray[np.float64], top: int = 10) -> float:
    total = float(weight.sum())
    if total == 0.0:
        return 0.0
    if weight.size <= top:
        return 1.0
    return float(np.partition(weight, weight.size - top)[weight.size - top :].sum()) / total


def _distinct_hops(graph: HeteroData) -> list[Hop]:
    """Both directions of every edge type that has edges, without the reverse of another one."""
    hops = []
    for source, relation, destination in graph.edge_types:
        original = (destination, relation.removeprefix("rev_"), source)
        if relation.startswith("rev_") and original in graph.edge_types:
            continue
        if graph[source, relation, destination].num_edges:
            hops += [Hop((source, relation, destination)), Hop((source, relation, destination), backwards=True)]
    return hops
