"""SupReMix: supervised contrast for regression with mixtures as hard negatives and hard positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._embeddings import check_labels, check_temperature, logits_of, unit_views
from graphcl.functional._sorted_labels import label_window
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, LabelDistanceWeight, PairTile, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size

__all__ = ["supremix"]

_BUFFERS_PER_TILE = 4


def supremix(
    views: Sequence[Tensor] | Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 0.3,
    anchor_share: float | Tensor | None = None,
    share_distribution: tuple[int, int] = (2, 8),
    window: float = 5.0,
    max_mixtures: int | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""SupReMix: rows of equal label against all others weighted by label distance, plus mixtures on both sides.

    "Mixup Your Own Pairs: Supervised Contrastive Learning for Regression with Mixup" (2023).

    Anchors are the rows of all views. With positives P (equal label) and mixed positives M,

    .. math:: L_i = D_i - \frac{1}{|P_i| + |M_i|} \sum_{p \in P_i \cup M_i} \ell_{ip}, \qquad
        e^{D_i} = \sum_{j \neq i} (|y_i - y_j| + 1) e^{\ell_{ij}}
        + \sum_{k: y_k \neq y_i} ((1 - \lambda_i) |y_i - y_k| + 1) e^{\ell_{i, m_{ik}}} + \sum_{m \in M_i} e^{\ell_{im}}

    Mixed negatives :math:`m_{ik} = \lambda_i z_i + (1 - \lambda_i) z_k`; mixed positives
    :math:`\alpha z_j + (1 - \alpha) z_k` for :math:`y_j < y_i < y_k`, both gaps below the window, with
    :math:`\alpha = (y_k - y_i) / (y_k - y_j)`. Mixtures carry no gradient, are not normalised again, and are never
    stored: their similarities are linear in those of their parts. Equal rows share their label, so a duplicate is never
    its own negative.

    Args:
        views: V >= 1 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        labels: ``(N,)`` regression targets.
        temperature: positive number or 0-dim tensor.
        anchor_share: lambda in [0, 1), one number or ``(V N,)``; drawn when None.
        share_distribution: integers (a, b) of the Beta(a, b) of that draw, one a row.
        window: bound of both label gaps of a mixed positive.
        max_mixtures: mixed positives sampled (uniformly, with replacement) for an anchor that has more; they stand for
            all of them with equal weight, which leaves the sums unbiased. None takes all.
        generator: of the draws.
        reduction: over anchors with a positive, real or mixed.
        memory_budget: upper bound in bytes for tiles.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(V N,)`` for ``none``, views one after the other.

    Raises:
        ValueError, TypeError: shapes, dtypes, temperature or constants that do not fit.

    Complexity: with n = V N anchors and w rows inside a window, O(n^2 d + n w^2) time, O(n d) memory plus tiles;
    O(n max_mixtures) in place of O(n w^2) when sampling.

    Confidence: T (released lines compared with their separate maxima for real and mixed logits, which change the value;
    one common maximum here). Sampling is a convention of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> supremix([z, z], torch.tensor([1.0, 2.0, 3.0]), temperature=1.0, anchor_share=0.2).round(decimals=4)
    tensor(2.4229)
    """
    check_temperature(temperature)
    if not window > 0:
        raise ValueError(f"window must be above 0, got {window}")
    if max_mixtures is not None:
        check_block_size("max_mixtures", max_mixtures)
    z = unit_views(views, at_least=1)
    num_views, num_rows, dim = z.shape
    check_labels("labels", labels, num_rows, integer=False)
    x, y = z.reshape(num_views * num_rows, dim), labels.detach().repeat(num_views)
    keys = x.detach()
    share = _anchor_shares(anchor_share, share_distribution, x, generator)
    same = (keys * keys).sum(dim=1)  # 1, or 0 for a zero row
    real = pair_logsumexp(
        x,
        x,
        temperature=temperature,
        rules=(ExcludeSameIndex(), LabelDistanceWeight(y, y, torch.log1p)),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    mixed_negative = pair_logsumexp(
        x,
        keys,
        temperature=temperature / (1 - share),
        anchor_bias=logits_of(share * same, temperature),
        rules=_MixedNegatives(y, share),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    query = logits_of(x, temperature)
    order = torch.argsort(y, stable=True)
    mixed = _PositiveMixtures.apply(  # type: ignore[no-untyped-call]
        query[order], keys[order], y[order], window, max_mixtures, generator, memory_budget
    )
    place = torch.empty_like(order).index_copy(0, order, torch.arange(order.shape[0], device=order.device))
    mixed_positive, mixed_count, mixed_mean = (part[place] for part in mixed)
    same_label, class_of = torch.unique(y, return_inverse=True)
    class_sum = x.new_zeros(same_label.shape[0], dim).index_add(0, class_of, x)
    count = torch.bincount(class_of, minlength=same_label.shape[0])[class_of] - 1
    positive = (query * (class_sum[class_of] - x + mixed_count[:, None] * mixed_mean)).sum(dim=1)
    number = count + mixed_count
    valid = number > 0
    total = torch.logsumexp(torch.stack([real, mixed_negative, mixed_positive]).masked_fill(~valid, 0.0), dim=0)
    return reduce_anchors(total - positive / number.clamp_min(1), reduction, valid=valid)


@dataclass(frozen=True, eq=False)
class _MixedNegatives:
    """Weight of the mixture of an anchor with each row of another label: its label distance plus one."""

    labels: Tensor
    share: Tensor

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        distance = (self.labels[tile.rows, None] - self.labels[None, tile.columns]).abs()
        weight = torch.log1p((1 - self.share[tile.rows, None]) * distance)
        return weight.masked_fill(distance == 0, -torch.inf)


def _anchor_shares(
    share: float | Tensor | None, distribution: tuple[int, int], x: Tensor, generator: torch.Generator | None
) -> Tensor:
    if share is None:
        a, b = (check_block_size("share_distribution", value) for value in distribution)
        # The a-th smallest of a + b - 1 uniform numbers is Beta(a, b) distributed.
        draws = torch.rand(x.shape[0], a + b - 1, generator=generator, dtype=x.dtype, device=x.device)
        return draws.kthvalue(a, dim=1).values
    shares = torch.as_tensor(share, dtype=x.dtype, device=x.device).detach()
    if shares.dim() > 0 and shares.shape != (x.shape[0],):
        raise ValueError(f"anchor_share must be a number or have shape ({x.shape[0]},), got {tuple(shares.shape)}")
    if bool(((shares < 0) | (shares >= 1)).any()):
        raise ValueError(f"anchor_share must lie in [0, 1), got {float(shares.flatten()[0])}")
    return shares.expand(x.shape[0])


class _PositiveMixtures(torch.autograd.Function):
    """Log-sum-exp of ``<q_i, m>`` over the mixed positives m of every anchor, how many they are, and their mean.

    Rows are sorted by label, so rows of one label share their lower and upper partners, two runs of rows. The mixtures
    are constants, hence the gradient of the log-sum-exp in q_i is the softmax mean of the mixtures, found in the same
    sweep; only that ``(n, d)`` tensor is kept for backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        y: Tensor,
        window: float,
        max_mixtures: int | None,
        generator: torch.Generator | None,
        memory_budget: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        total = query.new_full((query.shape[0],), -torch.inf)
        count = torch.zeros(query.shape[0], dtype=torch.int64, device=query.device)
        mean, softmax_mean = torch.zeros_like(query), torch.zeros_like(query)
        for group, lower, upper in _label_groups(y, window):
            pairs = (lower.stop - lower.start) * (upper.stop - upper.start)
            if pairs == 0:
                continue
            partners = _Partners(keys, y, float(y[group.start]), lower, upper)
            sampled = max_mixtures if max_mixtures is not None and pairs > max_mixtures else None
            width = sampled if sampled is not None else upper.stop - upper.start
            block = max(memory_budget // (_BUFFERS_PER_TILE * query.element_size() * width), 1)
            count[group] = pairs
            for start in range(group.start, group.stop, block):
                rows = slice(start, min(start + block, group.stop))
                if sampled is None:
                    height = max(block // (rows.stop - rows.start), 1)
                    total[rows], softmax_mean[rows] = partners.sweep(query[rows], height)
                    mean[rows] = partners.mean()
                else:
                    total[rows], softmax_mean[rows], mean[rows] = partners.sample(query[rows], sampled, generator)
        ctx.save_for_backward(softmax_mean)
        ctx.mark_non_differentiable(count, mean)
        return total, count, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        (softmax_mean,) = ctx.saved_tensors
        return grad[:, None] * softmax_mean, None, None, None, None, None, None


def _label_groups(y: Tensor, window: float) -> list[tuple[slice, slice, slice]]:
    """Runs of equal sorted labels, each with the runs of lower and of higher labels inside the window."""
    if y.shape[0] == 0:
        return []
    first, last = label_window(y, window, closed=False)
    _, sizes = torch.unique_consecutive(y, return_counts=True)
    stops = sizes.cumsum(0)
    starts = stops - sizes
    rows = zip(starts.tolist(), stops.tolist(), first[starts].tolist(), last[starts].tolist(), strict=True)
    return [(slice(a, b), slice(low, a), slice(b, high)) for a, b, low, high in rows]


class _Partners:
    """Lower and upper partners of the anchors of one label."""

    def __init__(self, keys: Tensor, y: Tensor, label: float, lower: slice, upper: slice) -> None:
        self.low, self.high = keys[lower], keys[upper]
        self.low_gap = label - y[lower].to(keys.dtype)
        self.high_gap = y[upper].to(keys.dtype) - label

    def share(self, rows: slice) -> Tensor:
        """Share alpha of the lower partners ``rows`` in the mixture with each upper partner."""
        return self.high_gap / (self.high_gap + self.low_gap[rows, None])

    def mean(self) -> Tensor:
        """Mean of all mixtures."""
        low_sum, high_sum = self.low.new_zeros(self.low.shape[1]), self.low.new_zeros(self.high.shape[0])
        block = max(self.low.shape[0] // 16, 1)
        for start in range(0, self.low.shape[0], block):
            share = self.share(slice(start, start + block))
            low_sum += share.sum(dim=1) @ self.low[start : start + block]
            high_sum += (1 - share).sum(dim=0)
        return (low_sum + high_sum @ self.high) / (self.low.shape[0] * self.high.shape[0])

    def sweep(self, query: Tensor, height: int) -> tuple[Tensor, Tensor]:
        """Log-sum-exp over all mixtures and their softmax mean, ``height`` lower partners at a time."""
        to_low, to_high = query @ self.low.T, query @ self.high.T
        peak = to_low.new_full((query.shape[0],), -torch.inf)
        mass = torch.zeros_like(peak)
        on_low, on_high = torch.zeros_like(to_low), torch.zeros_like(to_high)
        for start in range(0, self.low.shape[0], height):
            rows = slice(start, start + height)
            share = self.share(rows)
            logits = to_low[:, rows, None] * share
            logits += to_high[:, None, :] * (1 - share)
            new_peak = torch.maximum(peak, logits.amax(dim=(1, 2)))
            decay = (peak - new_peak).exp()
            weight = logits.sub_(new_peak[:, None, None]).exp_()
            mass = mass * decay + weight.sum(dim=(1, 2))
            on_low *= decay[:, None]
            on_high *= decay[:, None]
            on_low[:, rows] = torch.einsum("alu,lu->al", weight, share)
            on_high += torch.einsum("alu,lu->au", weight, 1 - share)
            peak = new_peak
        return peak + mass.log(), (on_low @ self.low + on_high @ self.high) / mass[:, None]

    def sample(self, query: Tensor, number: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """As `sweep` and `mean`, from ``number`` mixtures drawn for every anchor."""
        shape = (query.shape[0], number)
        low = torch.randint(self.low.shape[0], shape, generator=generator, device=query.device)
        high = torch.randint(self.high.shape[0], shape, generator=generator, device=query.device)
        share = self.high_gap[high] / (self.high_gap[high] + self.low_gap[low])
        to_low, to_high = query @ self.low.T, query @ self.high.T
        logits = share * to_low.gather(1, low) + (1 - share) * to_high.gather(1, high)
        weight = torch.softmax(logits, dim=1)
        pairs = query.new_tensor(float(self.low.shape[0] * self.high.shape[0] / number))
        total = torch.logsumexp(logits, dim=1) + pairs.log()

        def mixed(weights: Tensor) -> Tensor:
            on_low = torch.zeros_like(to_low).scatter_add(1, low, weights * share)
            on_high = torch.zeros_like(to_high).scatter_add(1, high, weights * (1 - share))
            return on_low @ self.low + on_high @ self.high

        return total, mixed(weight), mixed(torch.full_like(weight, 1.0 / number))
