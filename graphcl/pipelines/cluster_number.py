"""How many clusters: the eigengap of a graph, and the stability of k-means under resampling."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix

__all__ = ["ClusterNumber", "cluster_number_by_eigengap", "cluster_number_by_stability"]

FloatArray = npt.NDArray[np.floating[Any]]
# Below this size all eigenvalues of the dense matrix take milliseconds; above it, Lanczos finds the leading ones.
_DENSE_NODES = 400
_GIVE_NUMBER = "give num_clusters as a number"


@dataclass(frozen=True)
class ClusterNumber:
    """An estimated number of clusters with the evidence for it.

    Args:
        num_clusters: the estimate.
        method: ``eigengap`` or ``stability``.
        scores: candidate number to its evidence: the gap below that many eigenvalues, or the mean agreement (ARI).
        nodes: how many nodes were looked at.
    """

    num_clusters: int
    method: Literal["eigengap", "stability"]
    scores: dict[int, float]
    nodes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        scores = {str(count): round(score, 6) for count, score in self.scores.items()}
        return {"num_clusters": self.num_clusters, "method": self.method, "nodes": self.nodes, "scores": scores}


def cluster_number_by_eigengap(
    adjacency: SparseMatrix,
    *,
    max_clusters: int = 20,
    regularization: float = 1.0,
    min_component: float = 0.01,
    seed: int = 0,
) -> ClusterNumber:
    r"""Number of clusters at the largest gap between neighbouring eigenvalues of the normalised graph.

    U. von Luxburg, "A Tutorial on Spectral Clustering", 2007, https://arxiv.org/abs/0711.0189, section 8.3; degrees
    regularised as in T. Qin, K. Rohe, "Regularized Spectral Clustering under the Degree-Corrected Stochastic
    Blockmodel", 2013, https://arxiv.org/abs/1309.4111. Without the regularisation the leading eigenvectors of a sparse
    graph sit on a few nodes that hang by one edge, and the gap counts those.

    .. math:: \hat K = \arg\max_{k \ge 2} \lambda_k - \lambda_{k+1}, \quad
        \lambda \text{ of } D_\tau^{-1/2} A D_\tau^{-1/2}, \; D_\tau = D + \tau \bar d

    Components with fewer nodes than a share of the largest one carry no evidence and are left out (isolated nodes
    among them); the others are looked at together, and the estimate is at least their number.

    Args:
        adjacency: symmetric ``(N, N)``, weights not negative.
        max_clusters: largest number that is considered.
        regularization: tau, in mean degrees; 0 is the plain normalised Laplacian.
        min_component: least size of a component, as a share of the largest.
        seed: of the start vector of the Lanczos iteration.

    Returns:
        The estimate with the gap of every candidate.

    Raises:
        InputError: when no component has three nodes.

    Complexity: a Lanczos iteration, O((E + N max_clusters) iterations) time, O(E + N max_clusters) memory.

    Example:
        >>> import torch
        >>> cliques = torch.block_diag(*[torch.ones(5, 5) - torch.eye(5)] * 3)
        >>> cluster_number_by_eigengap(SparseMatrix.from_torch(cliques.to_sparse())).num_clusters
        3
    """
    from scipy.sparse import diags_array
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import eigsh

    graph = adjacency.to_scipy().astype(np.float64)
    graph.setdiag(0)
    graph.eliminate_zeros()
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component) if component.size else np.zeros(1, dtype=np.int64)
    large = np.flatnonzero((sizes >= 3) & (sizes >= min_component * sizes.max()))
    if not large.size:
        raise InputError("the graph has no component of three nodes, so it tells no number of clusters", _GIVE_NUMBER)
    kept = np.flatnonzero(np.isin(component, large))
    part = graph[kept][:, kept]
    degree = np.asarray(part.sum(axis=1)).ravel()
    factor = diags_array(1.0 / np.sqrt(degree + regularization * degree.mean()))
    operator = (factor @ part @ factor).tocsr()
    most = min(max_clusters, kept.size - 1)
    wanted = most + 1
    if kept.size <= max(_DENSE_NODES, 2 * wanted):
        values = np.linalg.eigvalsh(operator.toarray())
    else:
        start = np.random.default_rng(seed).standard_normal(kept.size)
        values = eigsh(operator, k=wanted, which="LA", v0=start, return_eigenvectors=False)
    values = np.sort(values)[::-1][:wanted]
    least = max(2, int(large.size))
    if least > most:
        return ClusterNumber(int(large.size), "eigengap", {}, int(kept.size))
    gaps = {k: float(values[k - 1] - values[k]) for k in range(least, most + 1)}
    return ClusterNumber(max(gaps, key=lambda k: gaps[k]), "eigengap", gaps, int(kept.size))


def cluster_number_by_stability(
    points: FloatArray,
    *,
    max_clusters: int = 20,
    repeats: int = 10,
    share: float = 0.8,
    dimensions: int = 16,
    max_points: int = 5000,
    seed: int = 0,
) -> ClusterNumber:
    r"""Number of clusters that k-means finds again on other samples of the same points.

    T. Lange, V. Roth, M. L. Braun, J. M. Buhmann, "Stability-Based Validation of Clustering Solutions", 2004,
    https://doi.org/10.1162/089976604773717621; A. Ben-Hur, A. Elisseeff, I. Guyon, "A stability based method for
    discovering structure in clustered data", 2002. For every K, pairs of samples are clustered apart, both partitions
    are extended to all points by the nearest centre, and their agreement is the adjusted Rand index. The estimate is
    the largest K whose mean agreement is within one standard error of the best.

    Args:
        points: ``(N, f)`` finite.
        max_clusters: largest number that is considered.
        repeats: pairs of samples for each K.
        share: of the points in each sample.
        dimensions: points are first projected on so many leading singular directions; 0 keeps them as they are.
        max_points: a random choice of so many points stands for more.
        seed: of the samples and of k-means.

    Returns:
        The estimate with the mean agreement of every candidate.

    Raises:
        InputError: when there are fewer than four distinct points.
        ValueError: when ``repeats`` is below 2 or ``share`` is not between 0 and 1.

    Complexity: O(max_clusters^2 repeats N dimensions) time with N at most ``max_points``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> centres = np.repeat(10 * np.eye(4), 30, axis=0)
        >>> cluster_number_by_stability(centres + rng.standard_normal((120, 4)), max_clusters=8).num_clusters
        4
    """
    if repeats < 2:
        raise ValueError(f"repeats must be at least 2, got {repeats}")
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(seed)
    total = points.shape[0]
    if total > max_points:
        points = points[np.sort(rng.choice(total, max_points, replace=False))]
    points = _leading_directions(points, dimensions, seed)
    distinct = np.unique(points, axis=0).shape[0]
    most = min(max_clusters, int(share * distinct) - 1)
    if most < 2:
        raise InputError(f"{distinct} distinct points are too few to tell a number of clusters", _GIVE_NUMBER)
    size = max(int(share * points.shape[0]), most + 1)
    agreement: dict[int, FloatArray] = {}
    with warnings.catch_warnings():
        # A sample with many equal points may hold fewer distinct ones than K; its empty clusters lower the agreement.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in range(2, most + 1):
            found = []
            for _ in range(repeats):
                partitions = []
                for _ in range(2):
                    sample = points[rng.choice(points.shape[0], size, replace=False)]
                    fitted = KMeans(k, n_init=3, random_state=int(rng.integers(2**31))).fit(sample)
                    partitions.append(fitted.predict(points))
                found.append(float(adjusted_rand_score(*partitions)))
            agreement[k] = np.asarray(found)
    means = {k: float(values.mean()) for k, values in agreement.items()}
    best = max(means, key=lambda k: means[k])
    slack = float(agreement[best].std(ddof=1)) / np.sqrt(repeats)
    chosen = max(k for k, mean in means.items() if mean >= means[best] - slack)
    return ClusterNumber(chosen, "stability", means, int(points.shape[0]))


def _leading_directions(points: FloatArray, dimensions: int, seed: int) -> FloatArray:
    if not dimensions or points.shape[1] <= dimensions or points.shape[0] <= dimensions:
        return points
    from sklearn.decomposition import TruncatedSVD

    reduced: FloatArray = TruncatedSVD(dimensions, random_state=seed).fit_transform(points)
    return reduced
