"""Positives from meta-paths: for every node the others that most meta-paths connect it with (HeCo)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from graphcl.graphs.metapath import MetaPathLike, incidence, parse_metapath, target_type
from graphcl.graphs.metapath_construction import check_bound, named_metapaths, row_entries
from graphcl.graphs.metapath_products import (
    MEMORY_BUDGET,
    PathProduct,
    Selection,
    Ties,
    concatenated,
    order_seed,
    row_blocks,
)
from graphcl.kernels import SparseMatrix

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["metapath_positives"]


def metapath_positives(
    graph: HeteroData,
    metapaths: Sequence[MetaPathLike] | None = None,
    *,
    target: str | None = None,
    num_positives: int = 5,
    ties: Ties = "random",
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> SparseMatrix:
    r"""For every target node the nodes that count as itself in a contrast, itself among them.

    X. Wang, N. Liu, H. Han, C. Shi, "Self-supervised Heterogeneous Graph Neural Network with Co-contrastive Learning",
    2021, https://arxiv.org/abs/2105.09111. The value of a pair adds up over the meta-paths that connect it; rows keep
    their largest values. Ties: the node itself first, then a seeded random order of each row, or the column.

    .. math:: v_{ij} = \sum_p \frac{[C^p_{ij} > 0]}{|\{j' : C^p_{ij'} > 0\}|}

    Args:
        graph: PyG ``HeteroData``.
        metapaths: those in ``graph.metapaths`` when None.
        target: node type at both ends; ``graph.target`` or the one with labels when None.
        num_positives: most positives a node. A node without any meta-path is its own positive.
        ties: ``random`` or ``column``.
        generator: seeds the random order.
        memory_budget: bytes for a block of rows.

    Returns:
        (N, N) unweighted, columns ascending in rows.

    Raises:
        InputError: a meta-path that does not fit the schema, or an empty relation.
        ValueError: ``num_positives`` below 1.

    Complexity: time of the products; memory N ``num_positives`` and one block.

    >>> from torch_geometric.data import HeteroData
    >>> graph = HeteroData(target="paper")
    >>> graph["paper"].num_nodes, graph["author"].num_nodes = 3, 2
    >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
    >>> metapath_positives(graph, ["PAP"]).to_dense()
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 1.]])
    """
    from scipy.sparse import csr_array

    check_bound("num_positives", num_positives)
    target = target_type(graph, target)
    paths = [parse_metapath(graph, path, target=target) for path in named_metapaths(graph, metapaths)]
    products = [
        PathProduct([incidence(graph, hop) for hop in path.hops], memory_budget=memory_budget) for path in paths
    ]
    selection, shape = Selection(ties, order_seed(generator)), products[0].shape
    bounds = np.sum([product.row_bounds for product in products], axis=0)
    parts = []
    for rows in row_blocks(bounds, products[0].block_entries):
        own = np.arange(rows.start, rows.stop)
        # Adding nothing at the diagonal makes every node an entry of its own row.
        height = own.size
        total = csr_array((np.full(height, 1e-12), (np.arange(height), own)), shape=(height, shape[1]))
        for product in products:
            block = product.rows(rows)
            share = 1.0 / np.repeat(np.maximum(np.diff(block.indptr), 1), np.diff(block.indptr))
            total = total + csr_array((share, block.indices, block.indptr), shape=block.shape)
        # Sums of the same shares in another order would differ in the last bit and break ties by accident.
        entries = row_entries(total, rows.start)
        values = np.round(entries.values, 9)
        if entries.lengths.max(initial=0) > num_positives:
            entries = entries.best(values, num_positives, selection, products[0])
        entries = entries.sorted(shape[1])
        parts.append((entries.lengths, entries.columns, None))
    return concatenated(parts, shape)
