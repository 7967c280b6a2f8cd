"""What a clustering model has to beat: k-means on features, k-means on smoothed features, spectral clustering."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from graphcl.kernels import SparseMatrix, normalize_rows, normalize_symmetric, spmm

__all__ = ["BASELINES", "cluster_baseline", "kmeans_labels", "smoothed_features", "spectral_labels"]

IntArray = npt.NDArray[np.int64]

# Above so many rows k-means works in mini-batches, and the eigenvectors of spectral clustering are not computed.
_MINIBATCH_ROWS = 100_000
SPECTRAL_ROWS = 50_000


def smoothed_features(x: Tensor, adjacency: SparseMatrix, *, steps: int = 2) -> Tensor:
    r"""Features averaged over neighbourhoods without training.

    F. Wu, T. Zhang, A. Souza, C. Fifty, T. Yu, K. Weinberger, "Simplifying Graph Convolutional Networks", 2019,
    https://arxiv.org/abs/1902.07153.

    .. math:: S^R X, \quad S = \tilde D^{-1/2} (A + I) \tilde D^{-1/2}

    Args:
        x: ``(N, f)``.
        adjacency: symmetric ``(N, N)`` without self-loops.
        steps: R.

    Returns:
        ``(N, f)``.

    Complexity: O(R E f) time, O(N f) memory.

    Example:
        >>> import torch
        >>> edge = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(2, 2))
        >>> smoothed_features(torch.tensor([[0.0], [2.0]]), edge, steps=1)
        tensor([[1.0000],
                [1.0000]])
    """
    operator = normalize_symmetric(adjacency, self_loops=1.0).to(x.dtype)
    for _ in range(steps):
        x = spmm(operator, x)
    return x


def kmeans_labels(points: Tensor, num_clusters: int, *, seed: int, restarts: int = 10) -> IntArray:
    """Clusters of k-means (scikit-learn, k-means++ starts; mini-batches above 100,000 rows).

    Args:
        points: ``(N, f)`` finite.
        num_clusters: K.
        seed: of the starts.
        restarts: the best of so many by inertia.

    Returns:
        ``(N,)`` in 0..K-1.

    Complexity: O(restarts iterations N K f) time.

    Example:
        >>> import torch
        >>> labels = kmeans_labels(torch.tensor([[0.0], [0.1], [9.0]]), 2, seed=0)
        >>> labels[0] == labels[1] != labels[2]
        np.True_
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if points.shape[0] > _MINIBATCH_ROWS:
        fit = MiniBatchKMeans(num_clusters, n_init=min(restarts, 3), random_state=seed, batch_size=4096)
    else:
        fit = KMeans(num_clusters, n_init=restarts, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters leave some empty
        labels: npt.NDArray[np.int32] = fit.fit_predict(points.detach().cpu().numpy())
    return labels.astype(np.int64)


def spectral_labels(adjacency: SparseMatrix, num_clusters: int, *, seed: int) -> IntArray:
    """Clusters of spectral clustering on the graph alone (scikit-learn, sparse).

    A. Ng, M. Jordan, Y. Weiss, "On Spectral Clustering: Analysis and an algorithm", 2001,
    https://proceedings.neurips.cc/paper/2001/hash/801272ee79cfde7fa5960571fee36b9b-Abstract.html. Attributes are not
    used, and on a graph of many components the leading eigenvectors only tell components apart.

    Args:
        adjacency: symmetric ``(N, N)`` with weights that are not negative.
        num_clusters: K, below N.
        seed: of the iteration and of k-means.

    Returns:
        ``(N,)`` in 0..K-1.

    Complexity: a shift-invert Lanczos iteration with one sparse factorisation, whose fill grows faster than E.

    Example:
        >>> import torch
        >>> cliques = torch.block_diag(*[torch.ones(5, 5) - torch.eye(5)] * 2)
        >>> cliques[0, 5] = cliques[5, 0] = 0.1
        >>> labels = spectral_labels(SparseMatrix.from_torch(cliques.to_sparse()), 2, seed=0)
        >>> int((labels[:5] == labels[0]).sum()), int((labels[5:] == labels[0]).sum())
        (5, 0)
    """
    from scipy.sparse import csr_array
    from sklearn.cluster import SpectralClustering

    graph = adjacency.to_scipy().astype(np.float64)
    # scikit-learn takes 32-bit indices only.
    narrow = (graph.data, graph.indices.astype(np.int32), graph.indptr.astype(np.int32))
    fit = SpectralClustering(
        num_clusters, affinity="precomputed", eigen_solver="arpack", assign_labels="kmeans", random_state=seed
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        labels: npt.NDArray[np.int32] = fit.fit_predict(csr_array(narrow, shape=graph.shape))
    return labels.astype(np.int64)


def _on_features(x: Tensor, adjacency: SparseMatrix, num_clusters: int, seed: int) -> IntArray:
    return kmeans_labels(x, num_clusters, seed=seed)


def _on_unit_features(x: Tensor, adjacency: SparseMatrix, num_clusters: int, seed: int) -> IntArray:
    return kmeans_labels(normalize_rows(x), num_clusters, seed=seed)


def _on_smoothed(x: Tensor, adjacency: SparseMatrix, num_clusters: int, seed: int) -> IntArray:
    return kmeans_labels(smoothed_features(x, adjacency), num_clusters, seed=seed)


def _on_unit_smoothed(x: Tensor, adjacency: SparseMatrix, num_clusters: int, seed: int) -> IntArray:
    smoothed = smoothed_features(normalize_rows(x), adjacency)
    return kmeans_labels(normalize_rows(smoothed), num_clusters, seed=seed)


def _spectral(x: Tensor, adjacency: SparseMatrix, num_clusters: int, seed: int) -> IntArray:
    return spectral_labels(adjacency, num_clusters, seed=seed)


_BASELINES: dict[str, Callable[[Tensor, SparseMatrix, int, int], IntArray]] = {
    "k-means": _on_features,
    "k-means, unit rows": _on_unit_features,
    "k-means, smoothed": _on_smoothed,
    "k-means, smoothed unit rows": _on_unit_smoothed,
    "spectral": _spectral,
}
BASELINES = tuple(_BASELINES)


def cluster_baseline(name: str, x: Tensor, adjacency: SparseMatrix, num_clusters: int, *, seed: int) -> IntArray | None:
    """Clusters by a method without training; see `BASELINES` for the names.

    ``unit rows`` scales features to unit length first, which is what suits bags of words; ``smoothed`` averages them
    over two steps of the graph, and with unit rows scales again after.

    Args:
        name: one of `BASELINES`.
        x: ``(N, f)`` finite features.
        adjacency: symmetric ``(N, N)`` without self-loops.
        num_clusters: K.
        seed: of k-means and of the eigenvectors' start.

    Returns:
        ``(N,)`` in 0..K-1; None where the method does not apply: spectral clustering above 50,000 nodes or with K = N.

    Raises:
        ValueError: for another name.

    Complexity: see `kmeans_labels` and `spectral_labels`.

    Example:
        >>> import torch
        >>> edge = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(3, 3))
        >>> labels = cluster_baseline("k-means, smoothed", torch.tensor([[0.0], [2.0], [1.1]]), edge, 1, seed=0)
        >>> labels.tolist()
        [0, 0, 0]
    """
    if name not in _BASELINES:
        raise ValueError(f"name must be one of {', '.join(BASELINES)}, got {name!r}")
    if name == "spectral" and (x.shape[0] > SPECTRAL_ROWS or num_clusters >= x.shape[0]):
        return None
    return _BASELINES[name](x, adjacency, num_clusters, seed)
