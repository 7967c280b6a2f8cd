"""SCGC: influence-weighted neighbours against all nodes, exact in linear memory or with sampled negatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, softplus, unit_rows
from graphcl.functional.block import check_anchors, neighbor_attraction
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, SparseMatrix, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_matrix

__all__ = ["scgc"]


def scgc(
    z: Tensor,
    edge_index: Tensor | SparseMatrix,
    *,
    edge_weight: Tensor | None = None,
    negatives: Tensor | None = None,
    num_nodes: int | None = None,
    num_anchors: int | None = None,
    temperature: float = 1.0,
    floor: float = 1e-8,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""SCGC: every node finds its influence-weighted neighbours among all nodes.

    G. K. Kulatilleke, M. Portmann, S. S. Chandra, "SCGC: Self-Supervised Contrastive Graph Clustering", 2022,
    https://arxiv.org/abs/2204.12656. Confidence: V. Use it to train node embeddings for clustering where N^2 products
    are affordable, or with sampled ``negatives`` where they are not; `pamc` contrasts clusters instead of nodes.

    .. math:: L_i = -\log\Bigl( \frac{\sum_j G_{ij} e^{s_{ij}/\tau}}{\sum_j e^{s_{ij}/\tau}} + \epsilon \Bigr),
        \qquad s_{ij} = \cos(z_i, z_j), \; s_{ii} = 0

    The node itself counts as 1 in the lower sum (and as G_ii in the upper one). With a sample S of the nodes, the
    other N - 1 terms of the lower sum are replaced by their unbiased estimate from S without i. The standard error of
    the logarithm is at most (e^{2/\tau} - 1) / sqrt(4 |S|), since the terms lie within a factor e^{2/\tau}.

    Args:
        z: ``(n, d)`` node embeddings; in a mini-batch the anchors first, then the neighbours they need.
        edge_index: stored entries (i, j) of the influence matrix G: ``(2, E)``, or a `SparseMatrix` ``(N, n)`` with its
            values, which saves sorting them in every call.
        edge_weight: ``(E,)`` positive entries; ones by default.
        negatives: ``(S,)`` rows of ``z`` that stand for all nodes; by default every anchor, exact in a full batch.
        num_nodes: how many nodes the negatives stand for; by default n. In a mini-batch, those of the whole graph.
        num_anchors: N; by default all n rows.
        temperature: positive number; the released code multiplies by the inverse of it.
        floor: epsilon, at least 0. Above 0 a node without stored entries has the finite loss -log(epsilon) and
            gradient 0.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(E d + N S d) time, O(E + n d) memory plus the tiles.

    >>> import torch
    >>> scgc(torch.eye(2), torch.tensor([[0, 1], [0, 1]]))
    tensor(0.6931)
    """
    check_matrix("z", z)
    check_temperature(temperature)
    if not (math.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor must be finite and at least 0, got {floor}")
    num_anchors = check_anchors(num_anchors, z)
    num_nodes = z.shape[0] if num_nodes is None else num_nodes
    if num_nodes < num_anchors:
        raise ValueError(f"num_nodes must be at least the number of anchors {num_anchors}, got {num_nodes}")
    rule = ExcludeSameIndex()
    if negatives is None:
        negatives = torch.arange(num_anchors, device=z.device)
    else:
        check_indices("negatives", negatives, None, z.shape[0], check=True)
        negatives = negatives.long()
        rule = ExcludeSameIndex(candidate_index=negatives)
    attraction = neighbor_attraction(
        z, edge_index, edge_weight=edge_weight, num_anchors=num_anchors, temperature=temperature
    )
    (unit,) = unit_rows(z)
    others = pair_logsumexp(
        unit[:num_anchors],
        unit.index_select(0, negatives),
        temperature=temperature,
        rules=rule,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    # An anchor that was drawn is no negative of its own: what is left of the sample stands for the other nodes.
    drawn = torch.bincount(negatives, minlength=z.shape[0])[:num_anchors]
    left = (negatives.shape[0] - drawn).clamp(min=1).to(others.dtype)
    log_ratio = attraction - softplus(others + math.log(max(num_nodes - 1, 1)) - left.log())
    loss = -log_ratio if floor == 0 else -torch.logaddexp(log_ratio, log_ratio.new_tensor(math.log(floor)))
    return reduce_anchors(loss, reduction, valid=loss < torch.inf)
