"""Geometry of embeddings: alignment, uniformity, tolerance, gap, rank, hubness, cosines of pairs; in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from graphcl import functional
from graphcl.kernels import knn, normalize_rows, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_matrix, check_same_space

__all__ = [
    "ContrastiveGap",
    "EmbeddingGeometry",
    "Hubness",
    "SimilarityDistribution",
    "Tolerance",
    "alignment",
    "contrastive_gap",
    "effective_rank",
    "embedding_geometry",
    "hubness",
    "similarity_distribution",
    "spectrum",
    "tolerance",
    "uniformity",
]

_ROWS = 8192


@dataclass(frozen=True)
class Tolerance:
    """Mean cosine of samples of one class, over such pairs and over all pairs.

    Attributes:
        same_pairs: divided by the number of pairs of one class.
        all_pairs: divided by the number of all pairs, as printed in the paper.
    """

    same_pairs: float
    all_pairs: float


@dataclass(frozen=True)
class ContrastiveGap:
    """How far the clouds of two encoders stand apart on the sphere.

    Attributes:
        centroid_distance: between the means of the unit rows.
        separability: share of held-out rows (every second one) that a linear discriminant of the others puts on the
            right side; 0.5 for one cloud, 1 for two that a plane parts.
        pair_cosine: mean over matching rows.
        other_cosine: mean over rows that do not match; None for a single row.
    """

    centroid_distance: float
    separability: float
    pair_cosine: float
    other_cosine: float | None


@dataclass(frozen=True)
class Hubness:
    """How unequally rows occur among the nearest neighbours of others.

    Attributes:
        skewness: of the number of occurrences; near 0 without hubs.
        largest: occurrences of the most frequent row.
        antihubs: share of rows that are nobody's neighbour.
        occurrences: ``(C,)`` int64.
    """

    skewness: float
    largest: int
    antihubs: float
    occurrences: Tensor


@dataclass(frozen=True)
class SimilarityDistribution:
    """Histograms of the cosines of positive and of negative pairs.

    Attributes:
        edges: rising bin edges from -1 to 1.
        positive: counts of positive pairs.
        negative: counts of negative pairs.
        positive_mean: None without positive pairs.
        negative_mean: None without negative pairs.
        overlap: area under the lower one of both normalised histograms, 0 for parted and 1 for equal ones; None where
            one is empty.
    """

    edges: tuple[float, ...]
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    positive_mean: float | None
    negative_mean: float | None
    overlap: float | None


@dataclass(frozen=True)
class EmbeddingGeometry:
    """Figures of one embedding, or of two views of the same rows; None where their input was not given."""

    uniformity: float
    effective_rank: float
    hubness_skewness: float
    antihubs: float
    alignment: float | None
    tolerance_same_pairs: float | None
    tolerance_all_pairs: float | None
    centroid_distance: float | None
    separability: float | None
    pair_cosine: float | None
    other_cosine: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers by name, ready for JSON."""
        return asdict(self)


@torch.no_grad()
def alignment(z1: Tensor, z2: Tensor, *, alpha: float = 2.0) -> float:
    """Mean distance between the unit rows of positive pairs to the power alpha; see `graphcl.functional.alignment`.

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        alpha: positive exponent.

    Returns:
        The mean; 0 is perfect.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> alignment(torch.eye(2), torch.eye(2).flip(0))
    2.0
    """
    return float(functional.alignment(z1, z2, alpha=alpha))


@torch.no_grad()
def uniformity(z: Tensor, *, other: Tensor | None = None, t: float = 2.0, memory_budget: int = MEMORY_BUDGET) -> float:
    """Log of the mean Gaussian potential of different rows; see `graphcl.functional.uniformity`.

    Args:
        z: ``(N, d)``.
        other: ``(N, d)`` rows of a second encoder to pair with instead.
        t: positive width.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        From -4 t (opposite rows) to 0 (equal rows).

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> round(uniformity(torch.eye(3)), 4)
    -4.0
    """
    return float(functional.uniformity(z, other=other, t=t, memory_budget=memory_budget))


@torch.no_grad()
def tolerance(z: Tensor, labels: Tensor) -> Tolerance:
    """Mean cosine of samples of one class, in both forms; see `graphcl.functional.tolerance`.

    Args:
        z: ``(N, d)``.
        labels: ``(N,)`` integers.

    Returns:
        `Tolerance`; 0 where there is no pair.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d).

    >>> tolerance(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]))
    Tolerance(same_pairs=1.0, all_pairs=0.3333333432674408)
    """
    found = functional.tolerance(z, labels)
    return Tolerance(float(found.same_pairs), float(found.all_pairs))


@torch.no_grad()
def contrastive_gap(z1: Tensor, z2: Tensor, *, ridge: float = 1e-3) -> ContrastiveGap:
    r"""Diagnostics of the gap between two encoders of the same samples.

    A. Fahim, A. Murphy, A. Fyshe, "It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap", 2024.
    The discriminant is :math:`(\Sigma + \rho I)^{-1} (m_1 - m_2)` with the pooled covariance of the even rows; the odd
    rows are classified by it. Which classifier is used is a choice of this package.

    Args:
        z1: ``(N, d)`` unit rows are taken.
        z2: ``(N, d)``; row i belongs to row i of ``z1``.
        ridge: rho, a share of the mean variance.

    Returns:
        `ContrastiveGap`. With a single row it is classified by itself.

    Raises:
        ValueError, TypeError: no rows, or rows that do not match.

    Complexity: O(N d^2 + d^3) time, O(N d + d^2) memory.

    >>> contrastive_gap(torch.eye(4)[[0, 0]], torch.eye(4)[[1, 1]]).centroid_distance
    1.4142135623730951
    """
    check_same_space("z1", z1, "z2", z2)
    if z1.shape[0] != z2.shape[0] or z1.shape[0] == 0:
        raise ValueError(f"z1 and z2 must have as many rows, at least one, got {z1.shape[0]} and {z2.shape[0]}")
    first, second = normalize_rows(z1.double()), normalize_rows(z2.double())
    num = first.shape[0]
    pair_sum = float((first * second).sum())
    total = float(first.sum(dim=0) @ second.sum(dim=0))
    known = slice(0, None, 2)
    held_out = slice(1, None, 2) if num > 1 else known
    means = first[known].mean(dim=0), second[known].mean(dim=0)
    centred = torch.cat([first[known] - means[0], second[known] - means[1]])
    covariance = centred.T @ centred / centred.shape[0]
    width = covariance.shape[0]
    level = ridge * float(covariance.diagonal().mean()) + torch.finfo(torch.float64).eps
    direction = torch.linalg.solve(covariance + level * torch.eye(width).to(covariance), means[0] - means[1])
    middle = 0.5 * (means[0] + means[1])
    margins = torch.cat([(first[held_out] - middle) @ direction, -((second[held_out] - middle) @ direction)])
    # Ties, of equal clouds above all, count half.
    separability = float((margins > 0).double().mean() + 0.5 * (margins == 0).double().mean())
    return ContrastiveGap(
        centroid_distance=float(torch.linalg.vector_norm(first.mean(dim=0) - second.mean(dim=0))),
        separability=separability,
        pair_cosine=pair_sum / num,
        other_cosine=(total - pair_sum) / (num * (num - 1)) if num > 1 else None,
    )


@torch.no_grad()
def spectrum(z: Tensor, *, center: bool = True) -> Tensor:
    """Eigenvalues of the covariance of the rows, largest first: how many directions an embedding uses.

    Args:
        z: ``(N, d)``.
        center: False leaves the mean in.

    Returns:
        ``(d,)`` float64, at least 0. Their square roots times the root of N are the singular values.

    Raises:
        ValueError, TypeError: not a float matrix, or no rows.

    Complexity: O(N d^2 + d^3) time, O(d^2) memory plus a block of rows.

    >>> spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor([1., 0.], dtype=torch.float64)
    """
    check_matrix("z", z)
    if z.shape[0] == 0:
        raise ValueError("z has no rows")
    mean = torch.stack([block.sum(dim=0) for block in _row_blocks(z)]).sum(dim=0) / z.shape[0]
    gram = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64, device=z.device)
    for block in _row_blocks(z):
        rows = block - mean if center else block
        gram += rows.T @ rows
    eigenvalues: Tensor = torch.linalg.eigvalsh(gram / z.shape[0])
    return eigenvalues.flip(0).clamp(min=0)


@torch.no_grad()
def effective_rank(z: Tensor, *, center: bool = False) -> float:
    r"""Number of directions that an embedding uses: the exponential of the entropy of its singular values.

    O. Roy, M. Vetterli, "The effective rank: A measure of effective dimensionality", 2007.

    .. math:: \operatorname{erank} = \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \sigma_k / \sum_l \sigma_l

    Args:
        z: ``(N, d)``.
        center: subtract the mean row first.

    Returns:
        Between 1 and min(N, d); 0 for rows that are all zero.

    Raises:
        ValueError, TypeError: not a float matrix, or no rows.

    Complexity: that of `spectrum`.

    >>> round(effective_rank(torch.eye(4)), 4)
    4.0
    """
    eigenvalues = spectrum(z, center=center)
    # Squaring the rows has rounded what is below this share.
    eigenvalues = eigenvalues[eigenvalues > eigenvalues[:1] * z.shape[1] * torch.finfo(torch.float64).eps]
    if eigenvalues.numel() == 0:
        return 0.0
    share = eigenvalues.sqrt() / eigenvalues.sqrt().sum()
    return float(torch.exp(-(share * share.log()).sum()))


@torch.no_grad()
def hubness(z: Tensor, k: int = 10, *, queries: Tensor | None = None, memory_budget: int = MEMORY_BUDGET) -> Hubness:
    """Occurrences of rows among the k nearest neighbours (by cosine) of the others.

    M. Radovanovic, A. Nanopoulos, M. Ivanovic, "Hubs in Space: Popular Nearest Neighbors in High-Dimensional Data",
    2010.

    Args:
        z: ``(C, d)``.
        k: neighbours a row.
        queries: ``(Q, d)`` rows that look for neighbours in ``z``; by default z itself, without the row.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        `Hubness`.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(Q C d) time, O((Q + C) d + Q k) memory plus the tiles.

    >>> hubness(torch.eye(3), 1).occurrences
    tensor([2, 1, 0])
    """
    if z.dim() == 2 and z.shape[0] == 0:
        raise ValueError("z has no rows")
    if queries is None:
        found = knn(z, k, similarity="cosine", memory_budget=memory_budget).indices
    else:
        found = pair_topk(queries, z, k, similarity="cosine", memory_budget=memory_budget).indices
    occurrences = torch.bincount(found[found >= 0], minlength=z.shape[0])
    count = occurrences.double()
    deviation = count - count.mean()
    spread = float((deviation**2).mean())
    return Hubness(
        skewness=float((deviation**3).mean()) / spread**1.5 if spread > 0 else 0.0,
        largest=int(occurrences.max()),
        antihubs=float((occurrences == 0).double().mean()),
        occurrences=occurrences,
    )


@torch.no_grad()
def similarity_distribution(
    anchors: Tensor,
    candidates: Tensor | None = None,
    *,
    labels: Tensor | None = None,
    positives: Tensor | None = None,
    bins: int = 100,
    max_anchors: int | None = None,
    generator: torch.Generator | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> SimilarityDistribution:
    """Cosines of all positive and all negative pairs, counted over common bins.

    Args:
        anchors: ``(N, d)``.
        candidates: ``(C, d)``; by default the anchors, each without itself.
        labels: ``(N,)`` integers; equal labels are positive. Needs as many candidates as anchors.
        positives: ``(2, E)`` distinct pairs (anchor, candidate) instead. Without labels or positives row i is the
            positive of anchor i.
        bins: number of equal bins from -1 to 1.
        max_anchors: take a random part of the anchors where there are more.
        generator: of that draw, on the CPU; needed with ``max_anchors``.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        `SimilarityDistribution`.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N C d) time, O((N + C) d + E) memory plus the tiles.

    >>> found = similarity_distribution(torch.eye(2), torch.eye(2), bins=2)
    >>> found.positive, found.negative, found.overlap
    ((0, 2), (0, 2), 1.0)
    """
    own = candidates is None
    other = anchors if candidates is None else candidates
    check_same_space("anchors", anchors, "candidates", other)
    check_block_size("bins", bins)
    num, width = anchors.shape[0], other.shape[0]
    if labels is not None and positives is not None:
        raise ValueError("positives are given by labels or as pairs, got both")
    if labels is not None:
        if width != num:
            raise ValueError(f"labels need as many candidates as anchors, got {width} and {num}")
        check_indices("labels", labels, num, None, check=False)
    elif positives is None:
        if own or width != num:
            raise ValueError("without labels or positives, candidates must be the matching rows of the anchors")
        positives = torch.arange(num, device=anchors.device).repeat(2, 1)
    else:
        if positives.dim() != 2 or positives.shape[0] != 2:
            raise ValueError(f"positives must have shape (2, pairs), got {tuple(positives.shape)}")
        check_indices("positives[0]", positives[0], None, num, check=True)
        check_indices("positives[1]", positives[1], None, width, check=True)
        if own and bool((positives[0] == positives[1]).any()):
            raise ValueError("positives hold a pair of a row and itself, which is never counted")
    taken = torch.arange(num, device=anchors.device)
    if max_anchors is not None and max_anchors < num:
        check_block_size("max_anchors", max_anchors)
        if generator is None:
            raise ValueError("max_anchors needs a generator, got None")
        taken = torch.randperm(num, generator=generator)[:max_anchors].sort().values.to(anchors.device)
    x, y = normalize_rows(anchors.float()), normalize_rows(other.float())
    every, near = _Histogram(bins), _Histogram(bins)
    if positives is not None:
        place = torch.full((num,), -1, device=anchors.device)
        place[taken] = torch.arange(taken.shape[0], device=anchors.device)
        pair_place, order = place[positives[0].long()].sort()
        pair_column = positives[1].long()[order]
    height = max(1, memory_budget // (16 * max(width, 1)))
    for start in range(0, taken.shape[0], height):
        rows = taken[start : start + height]
        cosine = x[rows] @ y.T
        keep = torch.ones_like(cosine, dtype=torch.bool)
        if own:
            keep[torch.arange(rows.shape[0], device=rows.device), rows] = False
        every.add(cosine[keep])
        if labels is not None:
            near.add(cosine[keep & (labels[rows, None] == labels[None, :])])
        else:
            first, last = torch.searchsorted(pair_place, torch.tensor([start, start + rows.shape[0]]).to(place))
            near.add(cosine[pair_place[first:last] - start, pair_column[first:last]])
    far = every - near
    shares = [part.counts / part.number for part in (near, far) if part.number > 0]
    return SimilarityDistribution(
        edges=tuple(torch.linspace(-1.0, 1.0, bins + 1, dtype=torch.float64).tolist()),
        positive=tuple(near.counts.tolist()),
        negative=tuple(far.counts.tolist()),
        positive_mean=near.mean(),
        negative_mean=far.mean(),
        overlap=float(torch.minimum(*shares).sum()) if len(shares) == 2 else None,
    )


@torch.no_grad()
def embedding_geometry(
    z: Tensor,
    other: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    k: int = 10,
    t: float = 2.0,
    memory_budget: int = MEMORY_BUDGET,
) -> EmbeddingGeometry:
    """All figures of this module that the inputs allow.

    Args:
        z: ``(N, d)``.
        other: ``(N, d)`` second view or encoder, row by row; gives alignment and the gap.
        labels: ``(N,)`` integers; gives tolerance.
        k: neighbours for hubness.
        t: width of uniformity.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        `EmbeddingGeometry`.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d + N d^2) time, O(N d + d^2) memory plus the tiles.

    >>> found = embedding_geometry(torch.eye(4), labels=torch.tensor([0, 0, 1, 1]), k=1)
    >>> round(found.effective_rank, 4), found.tolerance_same_pairs, found.alignment
    (4.0, 0.0, None)
    """
    hubs = hubness(z, k, memory_budget=memory_budget)
    tolerated = None if labels is None else tolerance(z, labels)
    gap = None if other is None else contrastive_gap(z, other)
    return EmbeddingGeometry(
        uniformity=uniformity(z, t=t, memory_budget=memory_budget),
        effective_rank=effective_rank(z),
        hubness_skewness=hubs.skewness,
        antihubs=hubs.antihubs,
        alignment=None if other is None else alignment(z, other),
        tolerance_same_pairs=None if tolerated is None else tolerated.same_pairs,
        tolerance_all_pairs=None if tolerated is None else tolerated.all_pairs,
        centroid_distance=None if gap is None else gap.centroid_distance,
        separability=None if gap is None else gap.separability,
        pair_cosine=None if gap is None else gap.pair_cosine,
        other_cosine=None if gap is None else gap.other_cosine,
    )


class _Histogram:
    """Counts over equal bins from -1 to 1, and the sum of what was counted."""

    def __init__(self, bins: int) -> None:
        self.counts = torch.zeros(bins, dtype=torch.int64)
        self.total = 0.0

    @property
    def number(self) -> int:
        return int(self.counts.sum())

    def add(self, cosines: Tensor) -> None:
        # Counts come back as float32, which is exact up to 2^24; rounding may carry cosines past 1.
        for part in torch.split(cosines.clamp(-1.0, 1.0), 2**24):
            self.counts += torch.histc(part, self.counts.shape[0], -1.0, 1.0).to(self.counts)
            self.total += float(part.sum(dtype=torch.float64))

    def mean(self) -> float | None:
        return self.total / self.number if self.number > 0 else None

    def __sub__(self, other: _Histogram) -> _Histogram:
        rest = _Histogram(self.counts.shape[0])
        rest.counts = self.counts - other.counts
        rest.total = self.total - other.total
        return rest


def _row_blocks(z: Tensor) -> Iterator[Tensor]:
    for block in torch.split(z, _ROWS):
        yield block.double()
