"""ConR: a contrastive regulariser for regression whose positives share a label and whose negatives only look alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._embeddings import check_labels, check_temperature, logits_of, unit_rows
from graphcl.functional._sorted_labels import label_window
from graphcl.functional.reduction import Reduction, check_reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, PairTile, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["conr"]


def conr(
    embeddings: Tensor,
    targets: Tensor,
    predictions: Tensor,
    *,
    sample_weight: Tensor | None = None,
    window: float = 1.0,
    temperature: float | Tensor = 0.07,
    push: float = 0.01,
    push_form: Literal["exponential", "linear"] = "exponential",
    denominator: Literal["clean", "released"] = "clean",
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""ConR: pull rows with close targets together, push away rows with distant targets but close predictions.

    Mahsa Keramati, Lili Meng, R. David Evans, "ConR: Contrastive Regularizer for Deep Imbalanced Regression" (2023),
    https://arxiv.org/abs/2309.06651

    Use it beside a regression loss whose targets are rare in parts of their range.

    .. math::
        P_i = \{j \neq i : |y_i - y_j| \le w\}, \quad
        N_i = \{j : |y_i - y_j| > w, |\hat y_i - \hat y_j| \le w\}, \quad \eta_{ij} = \omega_i e^{e |y_i - y_j|}

        L = \frac{1}{N} \sum_{i \text{ valid}} \frac{\omega_i}{|P_i|} \sum_{p \in P_i} - \log
        \frac{e^{\ell_{ip}}}{\sum_{P_i} e^{\ell_{ij}} + \sum_{N_i} \eta_{ij} e^{\ell_{ij}}}

    An anchor is valid with at least one positive and one negative. Equal rows share their target, so a duplicate is
    never its own negative. The paper adds this to the regression loss with coefficient 4.

    Args:
        embeddings: ``(N, d)``; normalised here.
        targets: ``(N,)`` regression targets y.
        predictions: ``(N,)`` current predictions; no gradient flows to them.
        sample_weight: ``(N,)`` non-negative weights of the samples, ones by default.
        window: w.
        temperature: positive number or 0-dim tensor.
        push: e.
        push_form: ``exponential`` is the formula above, ``linear`` the dense-map variant
            :math:`\eta_{ij} = |y_i - y_j| \omega_i e`.
        denominator: ``released`` reproduces the published code, where every row that is not a positive, the anchor
            included, adds 1 to the positive sum.
        reduction: ``mean`` divides by N, invalid anchors included, as published; ``sum``; ``none``.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes, temperature or options that do not fit.

    Complexity: O(N^2 d) time, O(N d) memory; the sums over positives use prefix sums along the sorted targets.

    Confidence: V for ``released`` (executed, value and gradient agree), formula for ``clean``.

    >>> import torch
    >>> z = torch.eye(3)
    >>> conr(z, torch.tensor([0.0, 0.5, 3.0]), torch.tensor([0.0, 0.1, 0.2])).round(decimals=4)
    tensor(0.4713)
    """
    check_temperature(temperature)
    check_reduction(reduction)
    if push_form not in ("exponential", "linear"):
        raise ValueError(f"push_form must be 'exponential' or 'linear', got {push_form!r}")
    if denominator not in ("clean", "released"):
        raise ValueError(f"denominator must be 'clean' or 'released', got {denominator!r}")
    x = unit_rows("embeddings", embeddings)
    rows = x.shape[0]
    check_labels("targets", targets, rows, integer=False)
    check_labels("predictions", predictions, rows, integer=False)
    if sample_weight is None:
        sample_weight = x.new_ones(rows)
    check_labels("sample_weight", sample_weight, rows, integer=False)
    # Sorted by target, the positives of a row are a contiguous run, and tiles far from the diagonal hold none.
    order = torch.argsort(targets, stable=True)
    x, y, weight = x[order], targets.detach()[order], sample_weight.detach().to(x.dtype)[order]
    pairs = _RegressionPairs(y, predictions.detach()[order], float(window), push, push_form)
    first, last = label_window(y, float(window), closed=True)
    positives = last - first - 1
    positive = pair_logsumexp(
        x,
        x,
        temperature=temperature,
        rules=(_InsideWindow(pairs), ExcludeSameIndex()),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    negative = pair_logsumexp(
        x,
        x,
        temperature=temperature,
        anchor_bias=weight.log(),
        rules=pairs,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    # A weight of 0 hides the negatives of an anchor from the sum, but then the anchor contributes nothing anyway.
    valid = (positives > 0) & (negative > -torch.inf)
    total = torch.logaddexp(positive.masked_fill(~valid, 0.0), negative.masked_fill(~valid, 0.0))
    if denominator == "released":
        total = torch.logaddexp(total, (rows - positives).to(x.dtype).log())
    mean = (_window_sum(x, first, last) - (x * x).sum(dim=1)) / positives.clamp_min(1)
    loss = reduce_anchors(total - logits_of(mean, temperature), "none", valid=valid, weight=weight)
    if reduction == "none":
        return torch.zeros_like(loss).index_copy(0, order, loss)
    return loss.sum() / max(rows, 1) if reduction == "mean" else loss.sum()


@dataclass(frozen=True, eq=False)
class _RegressionPairs:
    """Negatives with their push weight: targets further apart than the window, predictions inside it."""

    targets: Tensor
    predictions: Tensor
    window: float
    push: float
    push_form: Literal["exponential", "linear"]

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        distance = _distance(self.targets, tile)
        negative = (distance > self.window) & (_distance(self.predictions, tile) <= self.window)
        if not bool(negative.any()):
            return False
        log_weight = self.push * distance if self.push_form == "exponential" else torch.log(self.push * distance)
        return log_weight.masked_fill(~negative, -torch.inf)


@dataclass(frozen=True, eq=False)
class _InsideWindow:
    """Pairs whose targets differ by at most the window."""

    pairs: _RegressionPairs
    mask_only: bool = field(default=True, init=False, repr=False)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        near = _distance(self.pairs.targets, tile) <= self.pairs.window
        return near if bool(near.any()) else False


def _distance(values: Tensor, tile: PairTile) -> Tensor:
    return (values[tile.rows, None] - values[None, tile.columns]).abs()


def _window_sum(x: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Sum of the similarities of every row with rows ``first`` to ``last - 1``."""
    running = torch.cat([x.new_zeros(1, x.shape[1], dtype=torch.float64), x.to(torch.float64).cumsum(dim=0)])
    return (x * (running[last] - running[first]).to(x.dtype)).sum(dim=1)
