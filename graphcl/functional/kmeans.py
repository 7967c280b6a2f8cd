"""Lloyd's k-means on rows, by inner product or distance, from given centroids or from drawn ones."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from graphcl.kernels import matmul_nt
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_no_nan

__all__ = ["Clustering", "kmeans", "nearest_centroids"]

Metric = Literal["dot", "euclidean"]


class Clustering(NamedTuple):
    """Result of `kmeans`.

    Attributes:
        centroids: ``(K, d)`` means of the members.
        assignments: ``(N,)`` int64.
        similarity: ``(N,)`` inner product with the own centroid, or minus half the squared distance to it.
    """

    centroids: Tensor
    assignments: Tensor
    similarity: Tensor


@torch.no_grad()
def kmeans(
    x: Tensor,
    num_clusters: int,
    *,
    centroids: Tensor | None = None,
    metric: Metric = "dot",
    iterations: int = 20,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Clustering:
    r"""k-means without gradient: assign every row to its best centroid, make the centroids the means, repeat.

    With ``dot`` the best centroid is that of the largest inner product and centroids are plain means, as in the
    clusterings that MEOW (2022, https://arxiv.org/abs/2212.13847) trains with. Confidence: C. It stops early when no
    row moves. A centroid that nobody chose takes half of a large cluster.

    .. math:: c(i) = \arg\max_k \langle x_i, \mu_k \rangle, \qquad
        \mu_k = \frac{1}{|\{i : c(i) = k\}|} \sum_{i : c(i) = k} x_i

    Args:
        x: ``(N, d)``.
        num_clusters: K, at most N.
        centroids: ``(K, d)`` to start from (those of the last epoch, say); drawn rows when None.
        metric: ``dot`` or ``euclidean``.
        iterations: most rounds.
        restarts: how many draws to try; the clustering of the highest total similarity is kept. One where centroids are
            given.
        generator: draws rows.
        memory_budget: upper bound in bytes for a block of rows against all centroids.

    Returns:
        `Clustering`; the assignments are those to the returned centroids.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(iterations restarts N K d) time, O((N + K) d) memory plus a block.

    >>> import torch
    >>> rows, start = torch.tensor([[0.0], [0.2], [5.0]]), torch.tensor([[0.0], [4.0]])
    >>> found = kmeans(rows, 2, centroids=start, metric="euclidean")
    >>> found.assignments, found.centroids
    (tensor([0, 0, 1]), tensor([[0.1000],
            [5.0000]]))
    """
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"x must be a float matrix (rows, d), got {x.dtype} of shape {tuple(x.shape)}")
    if not 1 <= num_clusters <= x.shape[0]:
        raise ValueError(f"num_clusters must lie in 1 .. {x.shape[0]} (rows), got {num_clusters}")
    if centroids is not None and centroids.shape != (num_clusters, x.shape[1]):
        raise ValueError(
            f"centroids must have shape ({num_clusters}, {x.shape[1]}), got shape {tuple(centroids.shape)}"
        )
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be 'dot' or 'euclidean', got {metric!r}")
    check_block_size("iterations", iterations)
    check_block_size("restarts", restarts)
    check_no_nan("x", x)
    best: Clustering | None = None
    for _ in range(1 if centroids is not None else restarts):
        start = centroids
        if start is None:
            start = x[torch.randperm(x.shape[0], generator=generator, device=x.device)[:num_clusters]]
        found = _lloyd(x, start, metric, iterations, memory_budget)
        if best is None or float(found.similarity.sum()) > float(best.similarity.sum()):
            best = found
    if best is None:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    return best


@torch.no_grad()
def nearest_centroids(
    x: Tensor, centroids: Tensor, *, metric: Metric = "dot", memory_budget: int = MEMORY_BUDGET
) -> tuple[Tensor, Tensor]:
    """Best centroid of every row and how similar it is; the first of equal ones.

    The assignment step of `kmeans`, a definition of this package.

    Args:
        x: ``(N, d)``.
        centroids: ``(K, d)``.
        metric: ``dot`` or ``euclidean``.
        memory_budget: upper bound in bytes for a block of rows against all centroids.

    Returns:
        ``(N,)`` similarity (inner product, or minus half the squared distance) and ``(N,)`` int64 positions.

    Complexity: O(N K d) time, O(N) memory plus a block.

    >>> import torch
    >>> nearest_centroids(torch.eye(2), torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    (tensor([1., 2.]), tensor([1, 0]))
    """
    height = max(1, memory_budget // (4 * x.element_size() * max(1, centroids.shape[0])))
    offset = (centroids**2).sum(dim=1) / 2 if metric == "euclidean" else None
    best, position = x.new_empty(x.shape[0]), torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    for start in range(0, x.shape[0], height):
        part = slice(start, start + height)
        score = matmul_nt(x[part], centroids)
        if offset is not None:
            score -= offset
        torch.max(score, dim=1, out=(best[part], position[part]))
    if offset is not None:
        best -= (x**2).sum(dim=1) / 2
    return best, position


def _lloyd(x: Tensor, centroids: Tensor, metric: Metric, iterations: int, memory_budget: int) -> Clustering:
    similarity, assignments = nearest_centroids(x, centroids, metric=metric, memory_budget=memory_budget)
    for _ in range(iterations):
        centroids = _means(x, assignments, centroids)
        similarity, moved = nearest_centroids(x, centroids, metric=metric, memory_budget=memory_budget)
        if torch.equal(moved, assignments):
            break
        assignments = moved
    return Clustering(centroids, assignments, similarity)


def _means(x: Tensor, assignments: Tensor, centroids: Tensor) -> Tensor:
    count = torch.bincount(assignments, minlength=centroids.shape[0])
    total = torch.zeros_like(centroids).index_add_(0, assignments, x)
    means = total / count.clamp(min=1)[:, None].to(x.dtype)
    empty = (count == 0).nonzero()[:, 0]
    if empty.shape[0]:
        # The largest clusters share with those that nobody chose: both ends of a small step.
        donors = torch.argsort(count, descending=True, stable=True)[: empty.shape[0]]
        donors = donors[torch.arange(empty.shape[0], device=x.device) % donors.shape[0]]
        sign = torch.where(torch.arange(x.shape[1], device=x.device) % 2 == 0, 1.0, -1.0).to(x.dtype) / 1024
        means[empty] = means[donors] * (1 + sign)
        means[donors] = means[donors] * (1 - sign)
    return means
