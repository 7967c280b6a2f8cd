"""Links for nodes that a graph says little about, from their features."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.kernels import SparseMatrix, normalize_rows, pair_topk

__all__ = ["link_sparse_nodes"]


@torch.no_grad()
def link_sparse_nodes(adjacency: SparseMatrix, x: Tensor, min_neighbors: int = 5) -> SparseMatrix:
    """Give every node with few neighbours links to the most similar rows, until it has so many.

    This package's convention: on citation graphs a third of the nodes may be isolated, and what a walk or a filter
    can say about them is in their features. Graphs without such nodes stay as they are.

    Args:
        adjacency: ``(N, N)`` symmetric, without self loops and repeats.
        x: ``(N, f)`` finite features, compared by their cosines.
        min_neighbors: how many neighbours are enough; 0 links nobody.

    Returns:
        ``(N, N)`` symmetric; new links weigh 1, or the mean of the old ones where they have weights. Nodes get links
        only to rows with a positive cosine that are no neighbours yet, so zero rows get none and a node may end below
        the wanted number; one that others link to may end above it.

    Raises:
        ValueError: shapes that do not fit, or a number below 0.

    Complexity: O(M N f + E) time for M nodes with too few neighbours, O(N f + M min_neighbors + E) memory plus a tile.

    Example:
        >>> edge = SparseMatrix.from_edge_index(torch.tensor([[0, 1], [1, 0]]), num_nodes=3)
        >>> link_sparse_nodes(edge, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]]), 1).to_dense()
        tensor([[0., 1., 0.],
                [1., 0., 1.],
                [0., 1., 0.]])
    """
    if adjacency.shape != (x.shape[0], x.shape[0]):
        raise ValueError(f"adjacency must have shape {(x.shape[0], x.shape[0])}, got {adjacency.shape}")
    if isinstance(min_neighbors, bool) or not isinstance(min_neighbors, int) or min_neighbors < 0:
        raise ValueError(f"min_neighbors must be an integer of at least 0, got {min_neighbors!r}")
    unit = normalize_rows(x)
    missing = min_neighbors - adjacency.row_offsets.diff()
    sparse = torch.nonzero((missing > 0) & (unit != 0).any(dim=1))[:, 0]
    if sparse.numel() == 0:
        return adjacency
    # Neighbours, and the node itself, are no new neighbours.
    old = torch.isin(adjacency.pattern.rows, sparse)
    place = torch.full((x.shape[0],), -1, dtype=torch.int64, device=x.device)
    place[sparse] = torch.arange(sparse.shape[0], device=x.device)
    known = SparseMatrix.from_coo(
        torch.cat([place[adjacency.pattern.rows[old]], place[sparse]]),
        torch.cat([adjacency.columns[old], sparse]),
        shape=(sparse.shape[0], x.shape[0]),
        duplicates="first",
    )
    found = pair_topk(unit[sparse], unit, min_neighbors, exclude=(known.row_offsets, known.columns))
    wanted = torch.arange(min_neighbors, device=x.device) < missing[sparse][:, None]
    rows, ranks = torch.nonzero(wanted & (found.values > 0), as_tuple=True)
    source, target = sparse[rows], found.indices[rows, ranks]
    values = adjacency.values
    if values is not None:
        mean = values.mean() if values.numel() > 0 else values.new_ones(())
        values = torch.cat([values, mean.expand(2 * source.shape[0])])
    return SparseMatrix.from_coo(
        torch.cat([adjacency.pattern.rows, source, target]),
        torch.cat([adjacency.columns, target, source]),
        values,
        shape=adjacency.shape,
        duplicates="first",
    )
