"""What a set of recommendation lists shows of the catalogue: coverage, popularity and inequality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["ExposureMetrics", "exposure_metrics"]


@dataclass(frozen=True)
class ExposureMetrics:
    """Exposure of the catalogue in recommendation lists.

    Attributes:
        values: flat name such as ``"Coverage@20"`` to value.
        users: number of lists.
    """

    values: Mapping[str, float]
    users: int

    def to_dict(self) -> dict[str, float]:
        """Flat ``{"Coverage@20": ..., "Popularity@20": ..., "Gini@20": ...}``."""
        return dict(self.values)


def exposure_metrics(
    recommended: Tensor | npt.NDArray[np.integer[Any]],
    train_counts: Tensor | npt.NDArray[np.integer[Any]],
    *,
    ks: Sequence[int] = (5, 10, 20),
) -> ExposureMetrics:
    """Item coverage, mean log-popularity and Gini index of the first ``k`` places of recommendation lists.

    With ``e_j`` the number of lists that show item ``j`` in their first ``k`` places and ``c_j`` its training count:

        Coverage@k   = #{j : e_j > 0} / V
        Popularity@k = sum_j e_j log(1 + c_j) / sum_j e_j
        Gini@k       = sum_j (2 j - V - 1) e_(j) / (V sum_j e_j),  e_(1) <= ... <= e_(V)

    Gini is 0 when every item is shown equally often and near 1 when few items take all places.

    Args:
        recommended: ``[N, K]`` item indices, best first; ``-1`` marks an empty place; ``K`` bounds the cut-offs.
        train_counts: ``[V]`` occurrences of each item in the training part.
        ks: cut-offs.

    Returns:
        The values by flat name.

    Raises:
        ValueError: a cut-off outside ``1..K``, or no recommendation at all.
        IndexError: an item index outside ``-1..V-1``.

    Complexity:
        Time O(len(ks) (N K + V log V)), memory O(N K + V).

    Example:
        >>> lists = torch.tensor([[0, 1], [0, 2]])
        >>> metrics = exposure_metrics(lists, torch.tensor([9, 1, 1, 0]), ks=[1, 2])
        >>> metrics.to_dict()["Coverage@1"], metrics.to_dict()["Coverage@2"]
        (0.25, 0.75)
    """
    lists = torch.as_tensor(recommended)
    counts = torch.as_tensor(train_counts).to(lists.device)
    num_items = counts.shape[0]
    if lists.dim() != 2 or not ks or min(ks) < 1 or max(ks) > lists.shape[1]:
        raise ValueError(f"ks must lie within the lists of shape {tuple(lists.shape)}, got {list(ks)}")
    if lists.numel() and (int(lists.min()) < -1 or int(lists.max()) >= num_items):
        raise IndexError(f"recommended holds an item outside -1..{num_items - 1}")
    log_popularity = torch.log1p(counts.double())
    values: dict[str, float] = {}
    for k in ks:
        shown = lists[:, :k].flatten()
        exposure = torch.bincount(shown[shown >= 0], minlength=num_items).double()
        total = exposure.sum()
        if total == 0:
            raise ValueError("recommended holds no item")
        place = torch.arange(1, num_items + 1, dtype=torch.float64, device=lists.device)
        gini = ((2 * place - num_items - 1) * exposure.sort().values).sum() / (num_items * total)
        values[f"Coverage@{k}"] = float((exposure > 0).double().mean())
        values[f"Popularity@{k}"] = float((exposure * log_popularity).sum() / total)
        values[f"Gini@{k}"] = float(gini)
    return ExposureMetrics(values, lists.shape[0])
