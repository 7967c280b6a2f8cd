"""Contrast with hard weights from clusterings, and with prototypes of adapted density (MEOW)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, check_views, in_space, paired_similarity
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, PairTile, normalize_rows, pair_logsumexp, scatter_mean
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_positive, check_same_space

__all__ = ["cluster_density", "meow_info_nce", "meow_prototype_nce"]


@dataclass(frozen=True, eq=False)
class SharedClusterWeight:
    r"""Log of the number of clusterings that tell anchor and candidate apart; -inf where all put them together.

    .. math:: \log w_{ij}, \qquad w_{ij} = T - \sum_t [c_t(i) = c_t(j)]

    Args:
        clusterings: ``(T, N)`` integers; anchors and candidates are the same samples.
    """

    clusterings: Tensor

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        if num_anchors != self.clusterings.shape[1] or num_candidates != self.clusterings.shape[1]:
            raise ValueError(
                f"clusterings hold {self.clusterings.shape[1]} samples, got {num_anchors} anchors, "
                f"{num_candidates} candidates"
            )

    def log_weight_tile(self, tile: PairTile) -> Tensor:
        # Comparisons of floats into a float buffer are vectorised; of integers into a bool tensor they are not.
        ids = self.clusterings
        weight = torch.empty(tile.shape, device=tile.device, dtype=ids.dtype)
        torch.ne(ids[0, tile.rows, None], ids[0, None, tile.columns], out=weight)
        other = torch.empty_like(weight)
        for clusters in ids[1:]:
            weight += torch.ne(clusters[tile.rows, None], clusters[None, tile.columns], out=other)
        # The logarithm of 0 costs several others: a tiny part over the weight is -inf there and nothing elsewhere.
        torch.div(-1e-30, weight, out=other)
        if ids.shape[0] <= 2:
            return weight.sub_(1.0).mul_(math.log(2.0)).add_(other)
        return weight.clamp_(min=1.0).log_().add_(other)


def meow_info_nce(
    anchors: Tensor,
    candidates: Tensor,
    clusterings: Sequence[Tensor],
    *,
    temperature: float | Tensor = 0.4,
    similarity: Literal["cosine", "dot"] = "cosine",
    floor: float | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE whose negatives count by the number of clusterings that tell them from the anchor.

    J. Yu, X. Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative
    Samples", 2022, https://arxiv.org/abs/2212.13847. Confidence: V. Use it when nodes of one class make up much of the
    negatives: samples that share a cluster in all clusterings are no negatives at all.

    .. math:: L_i = -\log \frac{e_{ii}}{\sum_j w_{ij}\, e_{ij}}, \quad e_{ij} = e^{\cos(x_i, y_j)/\tau}, \quad
        w_{ij} = T - \sum_t [c_t(i) = c_t(j)]

    The positive is not in the denominator. The weights are evaluated in log space inside the tiles of pairs; taking
    sums over clusters from :math:`T \sum_j e_{ij}` instead is no faster (see the benchmark) and cancels where most
    candidates share the anchor's clusters.

    Args:
        anchors: ``(N, d)`` rows x.
        candidates: ``(N, d)`` rows y; row i is the positive of anchor i.
        clusterings: T of ``(N,)`` integers.
        temperature: positive number, 0-dim tensor or ``(N,)``.
        similarity: ``cosine``, or ``dot`` for rows that are normalised already.
        floor: log of the smallest denominator, for anchors that share their clusters with everybody, where the loss is
            -inf; None leaves them out of the mean with loss 0.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 (d + T)) time, O(N (d + T)) memory plus the tiles; no N x N weights.

    >>> import torch
    >>> meow_info_nce(torch.eye(3), torch.eye(3), [torch.tensor([0, 0, 1])], temperature=1.0)
    tensor(-0.7690)
    """
    check_views("anchors", anchors, "candidates", candidates)
    check_temperature(temperature)
    rule = SharedClusterWeight(_stacked(clusterings, anchors))
    x, y = in_space(similarity, anchors, candidates)[1]
    total = pair_logsumexp(
        x, y, temperature=temperature, rules=rule, memory_budget=memory_budget, backend=backend
    ).logsumexp
    positive = paired_similarity(x, y) / temperature
    has_negatives = total > -torch.inf
    if floor is not None:
        return reduce_anchors(total.clamp(min=floor) - positive, reduction, weight=weight)
    loss = torch.where(has_negatives, total - positive, torch.zeros_like(total))
    return reduce_anchors(loss, reduction, valid=has_negatives, weight=weight)


def meow_prototype_nce(
    anchors: Tensor,
    centroids: Tensor,
    assignments: Tensor,
    density: Tensor,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Every row finds the prototype of its cluster among all prototypes, each with a temperature of its own.

    The prototype term of MEOW (2022, https://arxiv.org/abs/2212.13847), after J. Li et al., "Prototypical Contrastive
    Learning of Unsupervised Representations", 2021, https://arxiv.org/abs/2005.04966. Confidence: V. Use it beside
    `meow_info_nce` with the same clusterings.

    .. math:: L_i = -\log \frac{e^{\langle x_i, c_{t(i)} \rangle / \phi_{t(i)}}}
        {\frac{N}{K} \sum_k e^{\langle x_i, c_k \rangle / \phi_k}}

    with unit rows x and c. The factor N/K only adds a constant.

    Args:
        anchors: ``(N, d)`` rows x.
        centroids: ``(K, d)`` c; no gradient flows into them.
        assignments: ``(N,)`` cluster t(i) of every row.
        density: ``(K,)`` positive temperatures phi, see `cluster_density`.
        similarity: ``cosine``, or ``dot`` for anchors that are normalised already.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N K d) time, O((N + K) d) memory plus the tiles.

    >>> import torch
    >>> meow_prototype_nce(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), torch.ones(2))
    tensor(0.3133)
    """
    check_same_space("anchors", anchors, "centroids", centroids)
    num, clusters = anchors.shape[0], centroids.shape[0]
    check_indices("assignments", assignments, num, clusters, check=True)
    (x,) = in_space(similarity, anchors)[1]
    prototypes = normalize_rows(centroids.detach().to(x.dtype))
    own = assignments.long()
    positive = paired_similarity(x, prototypes[own]) / density.detach().to(x.dtype)[own]
    total = pair_logsumexp(
        x, prototypes, candidate_temperature=density.detach(), memory_budget=memory_budget, backend=backend
    ).logsumexp
    return reduce_anchors(total - positive + math.log(max(num, 1) / clusters), reduction, weight=weight)


def cluster_density(
    similarity: Tensor,
    assignments: Tensor,
    num_clusters: int,
    *,
    temperature: float = 0.4,
    kind: Literal["similarity", "l2"] = "similarity",
    smoothing: float = 5.0,
) -> Tensor:
    r"""Temperature of every cluster, from how close its members are to its centroid.

    MEOW (2022, https://arxiv.org/abs/2212.13847). Confidence: V.

    .. math:: \phi_k \propto \frac{\operatorname{mean}_{i \in k} \sqrt{s_i}}{\ln(n_k + 5)}

    clipped to the 10th and 90th percentile and scaled to the mean ``temperature``; clusters of less than two members
    take the largest value. The reference code puts in the inner product with the centroid, so that tight clusters get
    the larger temperature, against the usual prototype method: ``l2`` puts in the distance instead.

    Args:
        similarity: ``(N,)`` inner product with the own centroid for ``similarity`` (negative ones count as 0), the
            squared distance to it for ``l2``.
        assignments: ``(N,)`` integers.
        num_clusters: K.
        temperature: mean of the result.
        kind: what ``similarity`` holds.
        smoothing: added to the number of members.

    Returns:
        ``(K,)`` positive.

    Raises:
        ValueError, IndexError: naming the argument and the value.

    Complexity: O(N + K log K).

    >>> import torch
    >>> cluster_density(torch.tensor([1.0, 1.0, 0.25, 0.25]), torch.tensor([0, 0, 1, 1]), 2).sum()
    tensor(0.8000)
    """
    check_positive("temperature", temperature)
    if kind not in ("similarity", "l2"):
        raise ValueError(f"kind must be 'similarity' or 'l2', got {kind!r}")
    check_indices("assignments", assignments, similarity.shape[0], num_clusters, check=True)
    count = torch.bincount(assignments.long(), minlength=num_clusters).to(similarity.dtype)
    mean = scatter_mean(similarity.clamp(min=0).sqrt(), assignments.long(), num_clusters, check=False)
    density = mean / torch.log(count + smoothing)
    several = count > 1
    if not bool(several.any()):
        return torch.full_like(density, temperature)
    density = torch.where(several, density, density[several].max())
    low, high = torch.quantile(density, density.new_tensor([0.1, 0.9]))
    density = density.clamp(low, high)
    average = density.mean()
    if float(average) <= 0.0:
        return torch.full_like(density, temperature)
    # A cluster at its centroid's exact place would have temperature 0.
    return (temperature * density / average).clamp(min=temperature * 1e-3)


def _stacked(clusterings: Sequence[Tensor], anchors: Tensor) -> Tensor:
    """``(T, N)`` cluster numbers as floats, exact below 2^24."""
    if not clusterings:
        raise ValueError("clusterings must hold at least one clustering, got none")
    for position, clusters in enumerate(clusterings):
        check_indices(f"clusterings[{position}]", clusters, anchors.shape[0], None, check=False)
    wide = torch.float64 if anchors.shape[0] >= 2**24 or anchors.dtype == torch.float64 else torch.float32
    return torch.stack([torch.unique(clusters, return_inverse=True)[1] for clusters in clusterings]).to(wide)
