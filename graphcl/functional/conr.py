"""ConR: a contrastive regulariser for regression whose positives share a label and whose negatives only look alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._embeddings import check_labels, check_temperature, logits_of, unit_rows
from graphcl.functional._pair_terms import different_ids, refuse_key_ids
from graphcl.functional._sorted_labels import window_among
from graphcl.functional.reduction import Reduction, check_reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, ExcludeSameIndex, PairTile, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space

__all__ = ["conr"]


def conr(
    embeddings: Tensor,
    targets: Tensor,
    predictions: Tensor,
    *,
    keys: Tensor | None = None,
    key_targets: Tensor | None = None,
    key_predictions: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
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
    never its own negative; with ``ids`` it is not its own positive either. With keys, j runs over the keys, which keep
    their own targets and predictions, and N stays the number of anchors. The paper adds this to the regression loss
    with coefficient 4.

    Args:
        embeddings: ``(N, d)`` anchors, and candidates unless keys are given; normalised here.
        targets: ``(N,)`` regression targets y.
        predictions: ``(N,)`` current predictions; no gradient flows to them.
        keys: ``(M, d)`` candidates other than the anchors.
        key_targets: ``(M,)`` targets of the keys.
        key_predictions: ``(M,)`` predictions for the keys; no gradient flows to them.
        ids: ``(N,)`` integers marking equal rows; a row with the id of the anchor is neither positive nor negative.
            Without keys the default is the row itself.
        key_ids: ``(M,)`` ids of the keys.
        sample_weight: ``(N,)`` non-negative weights of the anchors, ones by default.
        window: w.
        temperature: positive number or 0-dim tensor.
        push: e.
        push_form: ``exponential`` is the formula above, ``linear`` the dense-map variant
            :math:`\eta_{ij} = |y_i - y_j| \omega_i e`.
        denominator: ``released`` reproduces the published code, where every candidate that is not a positive, the
            anchor included, adds 1 to the positive sum.
        reduction: ``mean`` divides by N, invalid anchors included, as published; ``sum``; ``none``.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes, temperature or options that do not fit.

    Complexity: O(N M d) time, O((N + M) d) memory; the sums over positives use prefix sums along the sorted targets.

    Confidence: V for ``released`` (executed, value and gradient agree), formula for ``clean``; ``keys``, ``ids`` and
    ``key_ids`` are conventions of this package.

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
    anchors, order = _sorted_side("", unit_rows("embeddings", embeddings), targets, predictions, ids)
    candidates = anchors
    if keys is None:
        refuse_key_ids(key_ids)
        for name, given in (("key_targets", key_targets), ("key_predictions", key_predictions)):
            if given is not None:
                raise ValueError(f"{name} belong to keys, got {name} without keys")
    elif key_targets is None or key_predictions is None:
        raise ValueError(f"keys need {'key_targets' if key_targets is None else 'key_predictions'}, got None")
    else:
        check_same_space("embeddings", embeddings, "keys", keys)
        candidates, _ = _sorted_side("key_", unit_rows("keys", keys), key_targets, key_predictions, key_ids)
    x, rows, num_keys = anchors.rows, anchors.rows.shape[0], candidates.rows.shape[0]
    if sample_weight is None:
        sample_weight = x.new_ones(rows)
    check_labels("sample_weight", sample_weight, rows, integer=False)
    weight = sample_weight.detach().to(x.dtype)[order]
    pairs = _RegressionPairs(anchors, candidates, float(window), push, push_form)
    distinct = different_ids(rows, num_keys, anchors.ids, candidates.ids)
    itself: tuple[CandidateRule, ...] = (ExcludeSameIndex(),) if candidates is anchors and not distinct else ()
    positive = pair_logsumexp(
        x,
        candidates.rows,
        temperature=temperature,
        rules=(_InsideWindow(pairs), *itself, *distinct),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    negative = pair_logsumexp(
        x,
        candidates.rows,
        temperature=temperature,
        anchor_bias=weight.log(),
        rules=(pairs, *distinct),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    similarity, positives = _positives(anchors, candidates, float(window))
    # A weight of 0 hides the negatives of an anchor from the sum, but then the anchor contributes nothing anyway.
    valid = (positives > 0) & (negative > -torch.inf)
    total = torch.logaddexp(positive.masked_fill(~valid, 0.0), negative.masked_fill(~valid, 0.0))
    if denominator == "released":
        total = torch.logaddexp(total, (num_keys - positives).to(x.dtype).log())
    mean = similarity / positives.clamp_min(1)
    loss = reduce_anchors(total - logits_of(mean, temperature), "none", valid=valid, weight=weight)
    if reduction == "none":
        return torch.zeros_like(loss).index_copy(0, order, loss)
    return loss.sum() / max(rows, 1) if reduction == "mean" else loss.sum()


@dataclass(frozen=True, eq=False)
class _Side:
    """Anchors or candidates, sorted by target."""

    rows: Tensor
    targets: Tensor
    predictions: Tensor
    ids: Tensor | None


def _sorted_side(
    prefix: str, rows: Tensor, targets: Tensor, predictions: Tensor, ids: Tensor | None
) -> tuple[_Side, Tensor]:
    """Rows by ascending target: the positives of an anchor are then a contiguous run, and few tiles hold any. With the
    order that sorts them.
    """
    check_labels(f"{prefix}targets", targets, rows.shape[0], integer=False)
    check_labels(f"{prefix}predictions", predictions, rows.shape[0], integer=False)
    if ids is not None:
        check_indices(f"{prefix}ids", ids, rows.shape[0], None, check=False)
    order = torch.argsort(targets, stable=True)
    named = None if ids is None else ids[order]
    return _Side(rows[order], targets.detach()[order], predictions.detach()[order], named), order


@dataclass(frozen=True, eq=False)
class _RegressionPairs:
    """Negatives with their push weight: targets further apart than the window, predictions inside it."""

    anchors: _Side
    candidates: _Side
    window: float
    push: float
    push_form: Literal["exponential", "linear"]

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        distance = self.target_distance(tile)
        predicted = _distance(self.anchors.predictions, self.candidates.predictions, tile)
        negative = (distance > self.window) & (predicted <= self.window)
        if not bool(negative.any()):
            return False
        log_weight = self.push * distance if self.push_form == "exponential" else torch.log(self.push * distance)
        return log_weight.masked_fill(~negative, -torch.inf)

    def target_distance(self, tile: PairTile) -> Tensor:
        return _distance(self.anchors.targets, self.candidates.targets, tile)


@dataclass(frozen=True, eq=False)
class _InsideWindow:
    """Pairs whose targets differ by at most the window."""

    pairs: _RegressionPairs
    mask_only: bool = field(default=True, init=False, repr=False)

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        near = self.pairs.target_distance(tile) <= self.pairs.window
        return near if bool(near.any()) else False


def _distance(values: Tensor, others: Tensor, tile: PairTile) -> Tensor:
    return (values[tile.rows, None] - others[None, tile.columns]).abs()


def _positives(anchors: _Side, candidates: _Side, window: float) -> tuple[Tensor, Tensor]:
    """For every anchor, the sum of its similarities with its positives, and their number."""
    x, y = anchors.rows, candidates.rows
    first, last = window_among(anchors.targets, candidates.targets, window)
    similarity, count = _run_sum(x, y, first, last), last - first
    if anchors.ids is not None and candidates.ids is not None:
        # The rows of one id, in the order of their targets, are a run of their own.
        grouped = torch.argsort(candidates.ids, stable=True)
        own, names = anchors.ids.long(), candidates.ids[grouped].long()
        begin, end = torch.searchsorted(names, own), torch.searchsorted(names, own, right=True)
        first, last = window_among(anchors.targets, candidates.targets[grouped], window, begin, end)
        similarity, count = similarity - _run_sum(x, y[grouped], first, last), count - (last - first)
    elif candidates is anchors:
        similarity, count = similarity - (x * x).sum(dim=1), count - 1
    return similarity, count


def _run_sum(x: Tensor, y: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Sum of the similarities of every row of x with rows ``first`` to ``last - 1`` of y."""
    running = torch.cat([y.new_zeros(1, y.shape[1], dtype=torch.float64), y.to(torch.float64).cumsum(dim=0)])
    return (x * (running[last] - running[first]).to(x.dtype)).sum(dim=1)
