"""Soft assignments of embeddings to clusters: parameters, targets, and how they are first set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.functional import student_t_assignment, target_distribution
from graphcl.kernels import normalize_rows, sinkhorn

__all__ = ["SinkhornPrototypes", "StudentT"]


class StudentT(nn.Module):
    """Centres with a Student t kernel; the target sharpens the assignment and balances the clusters.

    J. Xie, R. Girshick, A. Farhadi, "Unsupervised Deep Embedding for Clustering Analysis", 2016,
    https://arxiv.org/abs/1511.06335. See `graphcl.functional.student_t_assignment` and
    `graphcl.functional.target_distribution`.

    Args:
        num_clusters: K.
        dim: d.
        freedom: of the kernel.
        radius: put rows on a sphere of this radius first, for embeddings that were trained by cosines and whose lengths
            mean nothing; None takes them as they are.
        generator: draws the first centres.

    Shapes: ``forward(z (N, d)) -> q (N, K)``; ``target(z, q, mass) -> p (N, K)``, detached.

    Complexity: O(N K d) time, O(N K) memory.

    Example:
        >>> layer = StudentT(2, 3)
        >>> layer.initialize(torch.eye(3)[:2])
        >>> layer(torch.eye(3)[:1])
        tensor([[0.7500, 0.2500]], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(
        self,
        num_clusters: int,
        dim: int,
        *,
        freedom: float = 1.0,
        radius: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(num_clusters, dim)
        if radius is not None and not radius > 0:
            raise ValueError(f"radius must be above 0, got {radius}")
        self.freedom = freedom
        self.radius = radius
        self.centers = nn.Parameter(torch.empty(num_clusters, dim))
        nn.init.xavier_normal_(self.centers, generator=generator)

    def place(self, z: Tensor) -> Tensor:
        """Rows where the centres live: on the sphere, or as they are."""
        return z if self.radius is None else self.radius * normalize_rows(z)

    def forward(self, z: Tensor) -> Tensor:
        return student_t_assignment(self.place(z), self.centers, freedom=self.freedom)

    def target(self, z: Tensor, q: Tensor, mass: Tensor | None = None) -> Tensor:
        """What ``q`` is to become; ``mass`` ``(K,)`` is the sum of q over all rows where these are only some."""
        return target_distribution(q, mass)

    @torch.no_grad()
    def initialize(self, centers: Tensor) -> None:
        """Set the centres, ``(K, d)`` in the space of `place`."""
        self.centers.copy_(centers)


class SinkhornPrototypes(nn.Module):
    r"""Unit prototypes with a softmax over cosines; the target is the balanced transport of rows to prototypes.

    M. Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020,
    https://arxiv.org/abs/2006.09882.

    .. math:: q_{ik} = \operatorname{softmax}_k \cos(z_i, c_k)/\tau, \qquad
        p = \operatorname{Sinkhorn}_\epsilon \cos(z, c)

    Balance holds within the rows at hand: in mini-batches every batch spreads over the clusters.

    Args:
        num_clusters: K.
        dim: d.
        temperature: τ.
        epsilon: entropy of the target.
        iterations: of Sinkhorn.
        generator: draws the first prototypes.

    Shapes: ``forward(z (N, d)) -> q (N, K)``; ``target(z, q, mass) -> p (N, K)``, detached.

    Complexity: O(N K (d + iterations)) time, O(N K) memory.

    Example:
        >>> layer = SinkhornPrototypes(2, 3)
        >>> layer.initialize(torch.eye(3)[:2])
        >>> layer.target(torch.eye(3)[[0, 0, 1, 1]], layer(torch.eye(3)[[0, 0, 1, 1]])).round()
        tensor([[1., 0.],
                [1., 0.],
                [0., 1.],
                [0., 1.]])
    """

    def __init__(
        self,
        num_clusters: int,
        dim: int,
        *,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(num_clusters, dim)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.centers = nn.Parameter(torch.empty(num_clusters, dim))
        nn.init.xavier_normal_(self.centers, generator=generator)

    def place(self, z: Tensor) -> Tensor:
        """Unit rows."""
        return normalize_rows(z)

    def forward(self, z: Tensor) -> Tensor:
        return torch.softmax(self._cosine(z) / self.temperature, dim=1)

    @torch.no_grad()
    def target(self, z: Tensor, q: Tensor, mass: Tensor | None = None) -> Tensor:
        """What ``q`` is to become; ``q`` and ``mass`` are for the signature of `StudentT` and not read."""
        return sinkhorn(self._cosine(z), epsilon=self.epsilon, iterations=self.iterations).to(z.dtype)

    @torch.no_grad()
    def initialize(self, centers: Tensor) -> None:
        """Set the prototypes, ``(K, d)`` in the space of `place`."""
        self.centers.copy_(normalize_rows(centers))

    def _cosine(self, z: Tensor) -> Tensor:
        return normalize_rows(z) @ normalize_rows(self.centers).T


def _check_sizes(num_clusters: int, dim: int) -> None:
    if num_clusters < 1 or dim < 1:
        raise ValueError(f"num_clusters and dim must be at least 1, got {num_clusters} and {dim}")
