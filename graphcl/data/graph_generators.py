"""Made-up graphs with structure to find: a stochastic block model with attributes, and the digits of scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.errors import InputError
from graphcl.graphs.conversion import as_data
from graphcl.graphs.knn import Metric, Symmetry

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["digits_graph", "stochastic_block_model"]


def stochastic_block_model(
    num_nodes: int = 2000,
    num_classes: int = 5,
    *,
    average_degree: float = 10.0,
    mixing: float = 0.2,
    num_features: int = 32,
    separation: float = 0.5,
    seed: int | np.random.Generator = 0,
) -> Data:
    r"""Draw an attributed graph from a stochastic block model.

    Holland, Laskey, Leinhardt 1983, https://doi.org/10.1016/0378-8733(83)90021-7. Classes are of equal size (up to
    one node). Every pair of nodes is joined independently, with one probability inside a class and one between
    classes, set so that a node has ``average_degree`` neighbours, a share ``mixing`` of them in other classes. The
    features of a node are the centre of its class, :math:`\mathcal N(0, s^2 I)`, plus :math:`\mathcal N(0, I)`.

    Args:
        num_nodes: at least 1.
        num_classes: 1 to num_nodes.
        average_degree: expected neighbours a node.
        mixing: share in [0, 1] of neighbours in other classes; ``1 - 1 / num_classes`` is a random graph.
        num_features: at least 1.
        separation: standard deviation s of the centres.
        seed: of all draws, or a NumPy generator.

    Returns:
        ``Data`` with ``x`` float32, ``edge_index`` in both directions without self-loops or repeats, sorted, ``y``.
        Nodes are in random order.

    Raises:
        InputError: an argument is out of range, or asks for more neighbours than there are nodes.

    Complexity:
        O(N f + E + K^2) time and memory; no pair of nodes is looked at that is not joined.

    Example:
        >>> data = stochastic_block_model(200, 4, mixing=0.0)
        >>> bool((data.y[data.edge_index[0]] == data.y[data.edge_index[1]]).all())
        True
    """
    from torch_geometric.data import Data

    _check(num_nodes, num_classes, average_degree, mixing, num_features, separation)
    generator = np.random.default_rng(seed)
    label = generator.permutation(np.arange(num_nodes) % num_classes)
    # Nodes of class c are members[start[c]:start[c + 1]].
    members = np.argsort(label, kind="stable")
    size = np.bincount(label, minlength=num_classes)
    edges = _block_edges(generator, members, size, average_degree, mixing)
    both = np.concatenate([edges, edges[::-1]], axis=1)
    # One sort of one key a directed edge; the list is then in the order of its targets, as PyG likes it.
    key = np.sort(both[1] * num_nodes + both[0])
    target, source = np.divmod(key, num_nodes)
    centre = generator.standard_normal((num_classes, num_features), dtype=np.float32) * np.float32(separation)
    x = generator.standard_normal((num_nodes, num_features), dtype=np.float32)
    x += centre[label]
    return Data(
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(np.stack([source, target])),
        y=torch.from_numpy(label.astype(np.int64)),
    )


def digits_graph(k: int = 5, *, metric: Metric = "cosine", symmetric: Symmetry = "union") -> Data:
    """The 1,797 handwritten digits that come with scikit-learn, linked with their nearest neighbours.

    Alpaydin, Kaynak 1998, https://doi.org/10.24432/C50P49 (test part). Needs no file and no network.

    Args:
        k: neighbours a digit.
        metric: see `graphcl.graphs.knn_graph`.
        symmetric: likewise.

    Returns:
        ``Data`` with ``x`` (1797, 64) in [0, 1], ``edge_index`` and ``y`` in 0..9.

    Raises:
        ValueError: as `graphcl.graphs.knn_graph`.

    Complexity:
        Below a second.

    Example:
        >>> digits_graph().num_nodes
        1797
    """
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    x = (pixels / 16.0).astype(np.float32)
    return as_data(torch.from_numpy(x), labels=digit, k=k, metric=metric, symmetric=symmetric)


def _check(
    num_nodes: int, num_classes: int, average_degree: float, mixing: float, num_features: int, separation: float
) -> None:
    for name, value, valid, remedy in (
        ("num_nodes", num_nodes, num_nodes >= 1, "give at least 1"),
        ("num_classes", num_classes, 1 <= num_classes <= num_nodes, f"give 1 to num_nodes ({num_nodes})"),
        ("average_degree", average_degree, 0 <= average_degree < num_nodes, f"give 0 to below num_nodes ({num_nodes})"),
        ("mixing", mixing, 0 <= mixing <= 1, "give a share in [0, 1]"),
        ("num_features", num_features, num_features >= 1, "give at least 1"),
        ("separation", separation, separation >= 0, "give at least 0"),
    ):
        if not valid:
            raise InputError(f"{name} is {value}", remedy)
    if num_classes == 1 and mixing > 0:
        raise InputError(f"mixing is {mixing} with a single class", "give mixing=0, or more classes")


def _block_edges(
    generator: np.random.Generator,
    members: NDArray[np.int64],
    size: NDArray[np.int64],
    average_degree: float,
    mixing: float,
) -> NDArray[np.int64]:
    """Undirected edges (2, M), each once."""
    num_nodes, wanted = members.size, members.size * average_degree / 2
    pairs_inside = float((size * (size - 1) // 2).sum())
    pairs_between = num_nodes * (num_nodes - 1) / 2 - pairs_inside
    inside = _probability(wanted * (1 - mixing), pairs_inside, "inside a class")
    between = _probability(wanted * mixing, pairs_between, "between classes")
    start = np.concatenate([[0], np.cumsum(size)])
    parts = []
    for a in range(size.size):
        for b in range(a, size.size):
            pairs = int(size[a] * (size[a] - 1) // 2 if a == b else size[a] * size[b])
            count = int(generator.binomial(pairs, inside if a == b else between))
            if not count:
                continue
            code = generator.choice(pairs, count, replace=False, shuffle=False)
            first, second = _unordered(code) if a == b else np.divmod(code, size[b])
            parts.append(np.stack([members[start[a] + first], members[start[b] + second]]))
    return np.concatenate(parts, axis=1) if parts else np.empty((2, 0), dtype=np.int64)


def _probability(edges: float, pairs: float, where: str) -> float:
    if edges > pairs:
        raise InputError(
            f"{edges:.0f} edges {where} are asked for, but there are {pairs:.0f} pairs",
            "lower average_degree, or change mixing or num_classes",
        )
    return edges / pairs if pairs else 0.0


def _unordered(code: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair number c as (high, low) with high > low and c = high (high - 1) / 2 + low."""
    high = ((1 + np.sqrt(1 + 8 * code.astype(np.float64))) / 2).astype(np.int64)
    # The root is off by one at most.
    high -= high * (high - 1) // 2 > code
    high += high * (high + 1) // 2 <= code
    return high, code - high * (high - 1) // 2
