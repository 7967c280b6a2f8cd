"""How far the scores of relevant items stand apart from those of random items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphcl.metrics.ranking import Csr, csr_of_targets

__all__ = ["ScoreHistograms", "score_histograms"]


@dataclass(frozen=True)
class ScoreHistograms:
    """Counts of positive and negative scores over common bins.

    Attributes:
        edges: ``bins + 1`` rising bin edges.
        positive: counts of target scores per bin.
        negative: counts of sampled non-target scores per bin.
        positive_mean: mean target score.
        negative_mean: mean non-target score; None where every item is a target.
        auc: share of (positive, negative) pairs of the same query in which the positive is higher, ties half; None
            likewise.
    """

    edges: tuple[float, ...]
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    positive_mean: float
    negative_mean: float | None
    auc: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "edges": list(self.edges),
            "positive": list(self.positive),
            "negative": list(self.negative),
            "positive_mean": self.positive_mean,
            "negative_mean": self.negative_mean,
            "auc": self.auc,
        }


@torch.no_grad()
def score_histograms(
    queries: Tensor,
    items: Tensor,
    targets: Tensor | Csr,
    generator: torch.Generator,
    *,
    negatives_per_target: int = 10,
    max_targets: int = 20_000,
    bins: int = 60,
) -> ScoreHistograms:
    """Histograms of the inner-product scores of targets and of uniformly drawn items that are no targets.

    Args:
        queries: ``[N, d]`` float.
        items: ``[V, d]``.
        targets: ``[N]`` or ``(offsets [N+1], columns [T])``.
        generator: source of the draws, on the CPU.
        negatives_per_target: random items for every target; draws that hit a target of the same query are dropped.
        max_targets: a random sample of so many targets is used where there are more.
        bins: number of equal bins between the lowest and the highest score.

    Returns:
        The histograms with both means and the pairwise win rate.

    Raises:
        ValueError: there is no target, or scores are not finite.
        IndexError: a target outside ``0..V-1``.

    Complexity:
        Time and memory O(min(T, max_targets) negatives_per_target d).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> histograms = score_histograms(torch.eye(3), torch.eye(3), torch.arange(3), generator, bins=4)
        >>> histograms.positive, histograms.auc
        ((0, 0, 0, 3), 1.0)
    """
    if bins < 1 or negatives_per_target < 1 or max_targets < 1:
        raise ValueError("bins, negatives_per_target and max_targets must be positive")
    num_items = items.shape[0]
    offsets, columns = csr_of_targets(targets, queries.shape[0], num_items, queries.device)
    if columns.shape[0] == 0:
        raise ValueError("targets is empty: there is no positive score to show")
    rows = torch.repeat_interleave(torch.arange(queries.shape[0], device=queries.device), offsets.diff())
    taken = torch.randperm(columns.shape[0], generator=generator)[:max_targets].to(queries.device)
    drawn = torch.randint(num_items, (taken.shape[0], negatives_per_target), generator=generator).to(queries.device)
    is_target = torch.isin(rows[taken, None] * num_items + drawn, rows * num_items + columns)
    query = queries[rows[taken]].float()
    positive = (query * items[columns[taken]].float()).sum(1)
    negative = torch.stack([(query * items[column].float()).sum(1) for column in drawn.T], dim=1)
    wins = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative).double()
    auc = float(wins[~is_target].mean()) if bool((~is_target).any()) else None
    negative = negative[~is_target]
    scores = torch.cat([positive, negative]).cpu().double().numpy()
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite; the model has diverged")
    edges = np.histogram_bin_edges(scores, bins=bins)
    split = positive.shape[0]
    return ScoreHistograms(
        edges=tuple(edges.tolist()),
        positive=tuple(np.histogram(scores[:split], edges)[0].tolist()),
        negative=tuple(np.histogram(scores[split:], edges)[0].tolist()),
        positive_mean=float(scores[:split].mean()),
        negative_mean=float(scores[split:].mean()) if scores.shape[0] > split else None,
        auc=auc,
    )
