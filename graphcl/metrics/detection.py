"""How well a score finds rare events: average precision and the area under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["detection_metrics"]


def detection_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float | None]:
    r"""Average precision, area under the ROC curve, and precision among as many events as there are anomalies.

    .. math:: \text{AP} = \sum_n (R_n - R_{n-1}) P_n

    over the thresholds, from the highest score down; equal scores are one threshold.

    Args:
        scores: ``(E,)``, high for anomalies, finite.
        labels: ``(E,)`` whether an event is an anomaly.

    Returns:
        ``AP``, ``ROC_AUC`` and ``R_precision``; None for each where the labels are all equal.

    Raises:
        ValueError: lengths that differ or scores that are not finite.

    Complexity: O(E log E).

    Example:
        >>> detection_metrics([3.0, 1.0, 2.0, 0.0], [True, False, False, True])
        {'AP': 0.75, 'ROC_AUC': 0.5, 'R_precision': 0.5}
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"scores and labels must be vectors of one length, got {values.shape} and {truth.shape}")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    found = int(truth.sum())
    if found in (0, truth.size):
        return {"AP": None, "ROC_AUC": None, "R_precision": None}
    top = np.argsort(-values, kind="stable")[:found]
    return {
        "AP": float(average_precision_score(truth, values)),
        "ROC_AUC": float(roc_auc_score(truth, values)),
        "R_precision": float(truth[top].mean()),
    }
