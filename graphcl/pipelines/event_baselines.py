"""Anomaly scores without embeddings: rare entities, rare pairs, and a one-class machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASELINES", "baseline_scores"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

BASELINES = ("rare entities", "rare pairs", "one-class SVM")
_ONE_CLASS_ROWS = 200_000


def baseline_scores(name: str, training: IntArray, sizes: list[int], events: IntArray, *, seed: int = 0) -> FloatArray:
    r"""Scores of events by a method that sees the same training events as the model.

    ``rare entities``: :math:`-\sum_i \log p(e_i)`. ``rare pairs``: :math:`-\sum_{i<j} \log \frac{p(e_i, e_j)}{p(e_i)
    p(e_j)}`, counts plus 1/2. ``one-class SVM``: linear, by stochastic gradient on indicators of the entities and of
    their hashed pairs, of a sample of the training events.

    Args:
        name: one of the above.
        training: ``(E, m)`` codes.
        sizes: entities of each type.
        events: ``(n, m)`` codes, -1 for unknown entities.
        seed: of the machine and its sample.

    Returns:
        ``(n,)``, high for anomalies.

    Raises:
        ValueError: an unknown name.

    Complexity: O((E + n) m^2 log E).
    """
    if name == "rare entities":
        return -sum((_log_share(training[:, i], sizes[i], events[:, i]) for i in range(len(sizes))), start=np.zeros(1))
    if name == "rare pairs":
        return -_pair_information(training, sizes, events)
    if name == "one-class SVM":
        return _one_class(training, sizes, events, seed)
    raise ValueError(f"name must be one of {', '.join(BASELINES)}, got {name!r}")


def _log_share(training: IntArray, size: int, values: IntArray) -> FloatArray:
    """Log frequency of values in training, with half a count more each; -1 is counted as never seen."""
    count = np.append(np.bincount(training, minlength=size).astype(np.float64), 0.0)
    logs: FloatArray = np.log((count + 0.5) / (training.size + 0.5 * (size + 1)))
    return logs[values]


def _pair_information(training: IntArray, sizes: list[int], events: IntArray) -> FloatArray:
    total = np.zeros(events.shape[0])
    for i in range(len(sizes)):
        for j in range(i + 1, len(sizes)):
            known, place = np.unique(training[:, i] * sizes[j] + training[:, j], return_counts=True)
            asked = events[:, i] * sizes[j] + events[:, j]
            unknown = (events[:, i] < 0) | (events[:, j] < 0)
            at = np.minimum(np.searchsorted(known, asked), known.size - 1)
            count = np.where((known[at] == asked) & ~unknown, place[at], 0)
            joint = np.log((count + 0.5) / (training.shape[0] + 0.5))
            total += joint - _log_share(training[:, i], sizes[i], events[:, i])
            total -= _log_share(training[:, j], sizes[j], events[:, j])
    return total


def _one_class(training: IntArray, sizes: list[int], events: IntArray, seed: int) -> FloatArray:
    from scipy.sparse import csr_array
    from sklearn.linear_model import SGDOneClassSVM

    width = 2**18

    def indicators(codes: IntArray) -> csr_array:
        shifted, starts = codes + 1, np.cumsum([0, *(size + 1 for size in sizes)])
        entities = shifted + starts[:-1]
        pairs = [
            starts[-1] + (entities[:, i] * 1_000_003 + entities[:, j] * 7_919 + i * 31 + j) % width
            for i in range(len(sizes))
            for j in range(i + 1, len(sizes))
        ]
        columns = np.concatenate([entities, np.stack(pairs, axis=1)], axis=1)
        # scikit-learn takes 32-bit indices only; a part of a log has far fewer than 2^31 of them.
        offsets = np.arange(0, columns.size + 1, columns.shape[1], dtype=np.int32)
        entries = np.ones(columns.size), columns.ravel().astype(np.int32), offsets
        return csr_array(entries, shape=(codes.shape[0], int(starts[-1]) + width))

    generator = np.random.default_rng(seed)
    if training.shape[0] > _ONE_CLASS_ROWS:
        training = training[generator.choice(training.shape[0], _ONE_CLASS_ROWS, replace=False)]
    machine = SGDOneClassSVM(nu=0.05, random_state=seed % 2**32).fit(indicators(training))
    scores: FloatArray = -machine.decision_function(indicators(events))
    return scores
