"""Contrast between samples of one cluster and sampled rows of a memory (InterCLR)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._group_sums import equal_group_pairs
from graphcl.functional._pair_terms import check_temperature, logsumexp_rows, softplus, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, edge_dot, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_same_space

__all__ = ["interclr", "sample_cluster_negatives", "sample_cluster_positives"]

Hardness = Literal["semi-hard", "hard", "random", "semi-easy"]


def interclr(
    queries: Tensor,
    memory: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    margin: float = -0.5,
    temperature: float | Tensor = 0.2,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE between samples of one cluster, with a cosine margin on the positive only.

    J. Xie, X. Zhan, Z. Liu, Y. S. Ong, C. C. Loy, "Delving into Inter-Image Invariance for Unsupervised Visual
    Representations", 2022, https://arxiv.org/abs/2008.11702. Confidence: C. Use it beside a loss of two views (three
    quarters of the weight there): cluster mates are positives, rows of other clusters negatives.

    .. math:: L_i = -\log \frac{e^{(s_{ip} - m)/\tau}}{e^{(s_{ip} - m)/\tau} + \sum_{j \in N(i)} e^{s_{ij}/\tau}}

    A negative margin relaxes the pull, which suits positives that may be wrong.

    Args:
        queries: ``(B, d)``.
        memory: ``(n, d)`` rows positives and negatives are taken from; usually detached.
        positives: ``(B,)`` positions in the memory, -1 for an anchor without positive.
        negatives: ``(B, k)`` positions in the memory, -1 for none.
        margin: m.
        temperature: positive number or 0-dim tensor.
        weight: ``(B,)`` non-negative weights of the anchors.
        reduction: ``mean`` over anchors with a positive, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for gathered rows.
        backend: see `graphcl.kernels.edge_dot`.

    Returns:
        A scalar, or ``(B,)`` for ``none``. An anchor without negatives has loss 0.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(B k d) time, O((B + n) d + B k) memory.

    >>> import torch
    >>> bank = torch.eye(3)
    >>> interclr(bank[:1], bank, torch.tensor([0]), torch.tensor([[1, 2]]), margin=0.0, temperature=1.0)
    tensor(0.5514)
    """
    check_same_space("queries", queries, "memory", memory)
    check_temperature(temperature)
    num, size = queries.shape[0], memory.shape[0]
    check_indices("positives", positives + 1, num, size + 1, check=True)
    if negatives.dim() != 2 or negatives.shape[0] != num:
        raise ValueError(f"negatives must have shape ({num}, k), got shape {tuple(negatives.shape)}")
    check_indices("negatives", negatives.reshape(-1) + 1, None, size + 1, check=True)
    x, bank = unit_rows(queries, memory)
    table = torch.cat([positives[:, None], negatives], dim=1)
    rows, slots = (table >= 0).nonzero(as_tuple=True)
    similarity = edge_dot(x, bank, rows, table[rows, slots], memory_budget=memory_budget, backend=backend)
    logit = (similarity - margin * (slots == 0).to(x.dtype)) / temperature
    logits = logit.new_full(table.shape, -torch.inf).index_put((rows, slots), logit)
    valid = positives >= 0
    pull = torch.where(valid, logits[:, 0], torch.zeros_like(logits[:, 0]))
    return reduce_anchors(softplus(logsumexp_rows(logits[:, 1:]) - pull), reduction, valid=valid, weight=weight)


def sample_cluster_positives(clusters: Tensor, ids: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """A random other member of the cluster of each sample.

    J. Xie et al., "Delving into Inter-Image Invariance for Unsupervised Visual Representations", 2022. Confidence: C.

    Args:
        clusters: ``(n,)`` integers, the cluster of every memory row; negative for none.
        ids: ``(B,)`` memory positions of the samples.
        generator: draws the members.

    Returns:
        ``(B,)`` memory positions, -1 for a sample that is alone or has no cluster.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(n log n + B).

    >>> import torch
    >>> sample_cluster_positives(torch.tensor([0, 1, 0, -1]), torch.tensor([0, 1, 2, 3]))
    tensor([ 2, -1,  0, -1])
    """
    check_indices("clusters", clusters, None, None, check=False)
    check_indices("ids", ids, None, clusters.shape[0], check=True)
    order = torch.argsort(clusters, stable=True)
    ordered = clusters[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(order.shape[0], device=order.device)
    own = clusters[ids.long()]
    begin = torch.searchsorted(ordered, own)
    size = torch.searchsorted(ordered, own, right=True) - begin
    drawn = torch.rand(ids.shape, generator=generator, device=None if generator is None else generator.device)
    step = (drawn.to(ids.device) * (size - 1)).long().clamp(max=(size - 2).clamp(min=0))
    # Skipping the sample itself keeps the draw uniform over the others.
    offset = step + (begin + step >= place[ids.long()]).long()
    alone = (size < 2) | (own < 0)
    return torch.where(alone, -1, order[(begin + offset).clamp(max=order.shape[0] - 1)])


def sample_cluster_negatives(
    queries: Tensor,
    memory: Tensor,
    clusters: Tensor,
    query_clusters: Tensor,
    count: int = 16384,
    *,
    pool: int = 128000,
    hardness: Hardness = "semi-hard",
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    """Rows of a memory from other clusters, by hardness.

    J. Xie et al., "Delving into Inter-Image Invariance for Unsupervised Visual Representations", 2022. Confidence: C.

    Args:
        queries: ``(B, d)``.
        memory: ``(n, d)``.
        clusters: ``(n,)`` integers, the cluster of every memory row.
        query_clusters: ``(B,)`` integers; rows of the query's cluster are no negatives.
        count: negatives a query.
        pool: how many of the most (``semi-hard``) or least (``semi-easy``) similar rows are drawn from.
        hardness: ``semi-hard``; ``semi-easy``; ``hard`` takes the ``count`` most similar rows, ``random`` draws from
            all of them.
        generator: draws from the pool.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_topk`.

    Returns:
        ``(B, count)`` memory positions without repetition; -1 where there are fewer.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(B n d) time, O((B + n) d + B pool) memory plus the pairs of equal clusters and the tiles.

    >>> import torch
    >>> sample_cluster_negatives(torch.eye(3)[:1], torch.eye(3), torch.arange(3), torch.tensor([0]), 1, hardness="hard")
    tensor([[1]])
    """
    check_same_space("queries", queries, "memory", memory)
    check_indices("clusters", clusters, memory.shape[0], None, check=False)
    check_indices("query_clusters", query_clusters, queries.shape[0], None, check=False)
    check_block_size("count", count)
    check_block_size("pool", pool)
    if hardness not in ("semi-hard", "hard", "random", "semi-easy"):
        raise ValueError(f"hardness must be 'semi-hard', 'hard', 'random' or 'semi-easy', got {hardness!r}")
    width = {"hard": count, "random": memory.shape[0]}.get(hardness, max(pool, count))
    found = pair_topk(
        queries,
        memory,
        max(min(width, memory.shape[0]), 1),
        exclude=equal_group_pairs(query_clusters, clusters),
        similarity="cosine",
        largest=hardness != "semi-easy",
        memory_budget=memory_budget,
        backend=backend,
    ).indices
    if hardness != "hard":
        drawn = torch.rand(found.shape, generator=generator, device=None if generator is None else generator.device)
        order = drawn.to(found.device).masked_fill(found < 0, 2.0).argsort(dim=1)
        found = found.gather(1, order)
    found = found[:, :count]
    return torch.nn.functional.pad(found, (0, count - found.shape[1]), value=-1)
