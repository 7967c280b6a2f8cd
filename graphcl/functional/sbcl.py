"""Subclass-balancing contrast: classes and their sub-clusters of equal size."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._group_sums import class_means, group_sums
from graphcl.functional._pair_terms import check_views, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import (
    AnyOf,
    Backend,
    CandidateRule,
    EqualIds,
    ExcludeSameIndex,
    normalize_rows,
    pair_logsumexp,
    pair_topk,
)
from graphcl.kernels._arguments import (
    MEMORY_BUDGET,
    check_block_size,
    check_indices,
    check_matrix,
    check_positive,
    check_vector,
)

__all__ = ["sbcl", "sbcl_class_temperature", "sbcl_subclusters"]


def sbcl(
    z1: Tensor,
    z2: Tensor,
    labels: Tensor,
    clusters: Tensor,
    *,
    class_temperature: Tensor | None = None,
    temperature: float = 0.1,
    base_temperature: float = 0.07,
    gamma: float = 0.25,
    weight: Tensor | None = None,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Subclass-balancing contrast: supervised contrast on sub-clusters and, weaker, on classes.

    C. Hou, J. Zhang, H. Wang, T. Zhou, "Subclass-balancing Contrastive Learning for Long-tailed Recognition", 2023,
    https://arxiv.org/abs/2306.15925. Confidence: V. Use it for long-tailed labels: a large class is cut into
    sub-clusters of the size of a small one, so that it does not fill the space.

    .. math:: L_i = \frac{\tau}{\tau_b} \text{SupCon}_i(\text{cluster}; \tau)
        + \gamma\, \text{SupCon}_i(\text{class}; \tau \text{ or } \tau_c)

    As released, the factor multiplies the first term only. With ``class_temperature`` (the ranked form) the second term
    uses the temperature of the anchor's class and leaves the anchor's own sub-cluster out of positives and candidates,
    but for the other view of the anchor.

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        labels: ``(N,)`` integers, classes.
        clusters: ``(N,)`` integers, sub-clusters, numbered through all classes.
        class_temperature: ``(C,)`` positive, one a class (labels are then ``0 .. C - 1``), for instance of
            `sbcl_class_temperature`; takes the ranked form.
        temperature: tau.
        base_temperature: tau_b.
        gamma: weight of the class term.
        weight: ``(N,)`` non-negative weights of the samples.
        return_components: also return the parts.
        reduction: ``mean`` over the 2 N rows, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(2 N,)`` for ``none``, first view first; with ``return_components`` also ``cluster`` and
        ``class``, before their weights.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N^2 d) time (twice that for the ranked form), O(N d) memory plus the tiles.

    >>> import torch
    >>> z = torch.eye(3)
    >>> sbcl(z, z, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), temperature=1.0, base_temperature=1.0)
    tensor(1.2422)
    """
    check_views("z1", z1, "z2", z2)
    num = z1.shape[0]
    check_positive("temperature", temperature)
    check_positive("base_temperature", base_temperature)
    bound = None if class_temperature is None else class_temperature.shape[0]
    check_indices("labels", labels, num, bound, check=True)
    check_indices("clusters", clusters, num, None, check=False)
    rows = torch.cat(unit_rows(z1, z2))
    label, cluster = labels.repeat(2), clusters.repeat(2)

    def log_sum(tau: float | Tensor, *rules: CandidateRule) -> Tensor:
        return pair_logsumexp(
            rows, rows, temperature=tau, rules=rules, memory_budget=memory_budget, backend=backend
        ).logsumexp

    total = log_sum(temperature, ExcludeSameIndex())
    cluster_sum, cluster_count = group_sums(cluster, cluster, rows)
    class_sum, class_count = group_sums(label, label, rows)
    cluster_loss = total - _mean_similarity(rows, cluster_sum - rows, cluster_count - 1) / temperature
    if class_temperature is None:
        class_loss = total - _mean_similarity(rows, class_sum - rows, class_count - 1) / temperature
    else:
        check_vector("class_temperature", class_temperature, class_temperature.shape[0], device=rows.device)
        tau = class_temperature.detach().to(rows.dtype)[label.long()]
        both_sum, both_count = group_sums(torch.stack([label, cluster], 1), torch.stack([label, cluster], 1), rows)
        twin = rows.roll(num, dims=0)
        sample = torch.arange(num, device=rows.device).repeat(2)
        elsewhere = AnyOf([EqualIds(cluster, cluster, keep=False), EqualIds(sample, sample)])
        positive = _mean_similarity(rows, class_sum - both_sum + twin, class_count - both_count + 1)
        class_loss = log_sum(tau, elsewhere, ExcludeSameIndex()) - positive / tau
    factor = temperature / base_temperature
    row_weight = None if weight is None else weight.repeat(2)
    loss = reduce_anchors(factor * cluster_loss + gamma * class_loss, reduction, weight=row_weight)
    if not return_components:
        return loss
    return loss, {
        "cluster": reduce_anchors(cluster_loss, reduction, weight=row_weight),
        "class": reduce_anchors(class_loss, reduction, weight=row_weight),
    }


def sbcl_class_temperature(
    embeddings: Tensor,
    labels: Tensor,
    clusters: Tensor,
    num_classes: int,
    *,
    temperature: float = 0.1,
) -> Tensor:
    r"""Temperatures of the classes from how widely they spread, for the ranked form of `sbcl`.

    C. Hou et al., "Subclass-balancing Contrastive Learning for Long-tailed Recognition", 2023. Confidence: V.

    .. math:: \tau_c = \tau \frac{\rho_c}{\operatorname{mean} \rho}, \qquad
        \rho_c = \frac{\operatorname{mean}_{i \in c} \|z_i - \bar z_c\|}{\log(n_c + 10)}
        \text{ clipped to its 20th and 80th percentile}

    Args:
        embeddings: ``(N, d)``; normalised here.
        labels: ``(N,)`` integers in ``0 .. num_classes - 1``.
        clusters: ``(N,)`` integers, sub-clusters.
        num_classes: C.
        temperature: tau, also of classes with one sub-cluster or none.

    Returns:
        ``(C,)`` without gradient.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N d + N log N) time, O(N d) memory.

    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.1]])
    >>> sbcl_class_temperature(z, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 3]), 2)
    tensor([0.1521, 0.0479])
    """
    check_matrix("embeddings", embeddings)
    check_positive("temperature", temperature)
    check_block_size("num_classes", num_classes)
    check_indices("labels", labels, embeddings.shape[0], num_classes, check=True)
    check_indices("clusters", clusters, embeddings.shape[0], None, check=False)
    (rows,) = unit_rows(embeddings.detach())
    label = labels.long()
    distance = torch.linalg.vector_norm(rows - class_means(rows, label, num_classes)[label], dim=1)
    count = torch.bincount(label, minlength=num_classes).to(rows.dtype)
    spread = rows.new_zeros(num_classes).index_add(0, label, distance) / count.clamp(min=1)
    pairs = torch.unique(torch.stack([label, clusters.long()], dim=1), dim=0)
    several = torch.bincount(pairs[:, 0], minlength=num_classes) > 1
    result = rows.new_full((num_classes,), temperature)
    if not bool(several.any()):
        return result
    density = (spread / torch.log(count + 10))[several]
    low, high = torch.quantile(density, density.new_tensor([0.2, 0.8]))
    density = density.clamp(low, high)
    mean = density.mean()
    if float(mean) > 0:
        result[several] = temperature * density / mean
    return result


def sbcl_subclusters(
    embeddings: Tensor,
    labels: Tensor,
    *,
    min_size: int = 10,
    iterations: int = 10,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    r"""Cuts every class into sub-clusters of about the size of the smallest class, by balanced k-means.

    C. Hou et al., "Subclass-balancing Contrastive Learning for Long-tailed Recognition", 2023. Confidence: V for the
    number of sub-clusters, :math:`\max(1, \lfloor n_c / \max(n_{min}, \delta) \rfloor)`; how rows are balanced is this
    package's convention: in rounds, every row without a cluster asks for the nearest centre that has room, and each
    centre takes the nearest of them up to :math:`\lceil n_c / k \rceil`.

    Args:
        embeddings: ``(N, d)``; normalised here.
        labels: ``(N,)`` integers.
        min_size: delta, the least size a sub-cluster is meant to have.
        iterations: of k-means.
        generator: draws the first centres.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        ``(N,)`` sub-clusters, numbered through all classes.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(iterations N k d) time a class for a few rounds of requests, O(N d) memory plus the tiles.

    >>> import torch
    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1.0, 1.0]])
    >>> draw = torch.Generator().manual_seed(0)
    >>> clusters = sbcl_subclusters(z, torch.tensor([0, 0, 0, 0, 1]), min_size=2, generator=draw)
    >>> bool(clusters[0] == clusters[1] != clusters[2] == clusters[3]), clusters.unique().numel()
    (True, 3)
    """
    check_matrix("embeddings", embeddings)
    check_indices("labels", labels, embeddings.shape[0], None, check=False)
    check_block_size("min_size", min_size)
    check_block_size("iterations", iterations)
    (rows,) = unit_rows(embeddings.detach())
    clusters = torch.zeros_like(labels, dtype=torch.int64)
    classes, sizes = torch.unique(labels, return_counts=True)
    if classes.numel() == 0:
        return clusters
    target = max(int(sizes.min()), min_size)
    first = 0
    for one, size in zip(classes.tolist(), sizes.tolist(), strict=True):
        members = (labels == one).nonzero().squeeze(1)
        parts = max(1, size // target)
        clusters[members] = first + _balanced_kmeans(rows[members], parts, iterations, generator, memory_budget)
        first += parts
    return clusters


def _balanced_kmeans(
    rows: Tensor, parts: int, iterations: int, generator: torch.Generator | None, memory_budget: int
) -> Tensor:
    if parts == 1:
        return torch.zeros(rows.shape[0], dtype=torch.int64, device=rows.device)
    centers = _spread_rows(rows, parts, generator)
    assigned = _balanced_assignment(rows, centers, memory_budget)
    for _ in range(iterations):
        centers = normalize_rows(class_means(rows, assigned, parts))
        following = _balanced_assignment(rows, centers, memory_budget)
        if torch.equal(following, assigned):
            break
        assigned = following
    return assigned


def _spread_rows(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Rows to start from, each drawn by its squared distance from those before (k-means++)."""
    device = rows.device if generator is None else generator.device
    odds = rows.new_ones(rows.shape[0])
    chosen: list[Tensor] = []
    for _ in range(count):
        # Equal rows alone leave nothing to draw by.
        weight = odds if bool((odds > 0).any()) else torch.ones_like(odds)
        pick = torch.multinomial(weight.to(device), 1, generator=generator).to(rows.device)
        distance = ((rows - rows[pick]) ** 2).sum(dim=1)
        odds = torch.minimum(odds, distance) if chosen else distance
        chosen.append(pick)
    return rows[torch.cat(chosen)]


def _balanced_assignment(rows: Tensor, centers: Tensor, memory_budget: int) -> Tensor:
    """A centre for every row, none with more than its even share (rounded up)."""
    capacity = -(-rows.shape[0] // centers.shape[0])
    assigned = torch.full((rows.shape[0],), -1, dtype=torch.int64, device=rows.device)
    room = torch.full((centers.shape[0],), capacity, device=rows.device)
    while bool((assigned < 0).any()):
        waiting, free = (assigned < 0).nonzero().squeeze(1), (room > 0).nonzero().squeeze(1)
        best = pair_topk(rows[waiting], centers[free], 1, similarity="sqeuclidean", memory_budget=memory_budget)
        wanted = free[best.indices[:, 0]]
        by_distance = torch.argsort(best.values[:, 0], descending=True, stable=True)
        order = by_distance[torch.argsort(wanted[by_distance], stable=True)]
        asked = torch.bincount(wanted, minlength=centers.shape[0])
        rank = torch.arange(order.shape[0], device=rows.device) - (asked.cumsum(0) - asked)[wanted[order]]
        taken = order[rank < room[wanted[order]]]
        assigned[waiting[taken]] = wanted[taken]
        room -= torch.bincount(wanted[taken], minlength=centers.shape[0])
    return assigned


def _mean_similarity(rows: Tensor, positive_sum: Tensor, count: Tensor) -> Tensor:
    return (rows * positive_sum).sum(dim=1) / count.to(rows.dtype)
