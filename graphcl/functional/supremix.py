"""SupReMix: supervised contrast for regression with mixtures as hard negatives and hard positives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._embeddings import check_labels, check_temperature, logits_of, unit_views
from graphcl.functional._sorted_labels import label_window
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, LabelDistanceWeight, PairTile, pair_logsumexp, segment_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size

__all__ = ["supremix"]

_BUFFERS_PER_TILE = 6


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

    Use it for regression targets on a scale, where labels between two samples have meaning.

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

    Complexity: with n = V N anchors, w rows and l distinct labels inside a window, O(n^2 d + n w l) time, O(n d) memory
    plus tiles; O(n (w d + max_mixtures)) in place of O(n w l) when sampling.

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
        entries = max(memory_budget // (_BUFFERS_PER_TILE * query.element_size()), 1)
        for group, partners in _label_groups(keys, y, window):
            sampled = max_mixtures if max_mixtures is not None and partners.pairs > max_mixtures else None
            width = partners.rows + sampled if sampled is not None else partners.widest_tile
            block = max(entries // width, 1)
            count[group] = partners.pairs
            if sampled is None:
                mean[group] = partners.mean(entries)
            for start in range(group.start, group.stop, block):
                rows = slice(start, min(start + block, group.stop))
                if sampled is None:
                    total[rows], softmax_mean[rows] = partners.sweep(query[rows], entries)
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


def _label_groups(keys: Tensor, y: Tensor, window: float) -> Iterator[tuple[slice, _Partners]]:
    """Runs of equal sorted labels that have partners on both sides, with those partners."""
    if y.shape[0] == 0:
        return
    first, last = label_window(y, window)
    labels, group_of, sizes = torch.unique_consecutive(y, return_inverse=True, return_counts=True)
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    starts = offsets[:-1]
    reach = zip(offsets.tolist(), group_of[first[starts]].tolist(), group_of[last[starts] - 1].tolist(), strict=False)
    for group, (start, lowest, highest) in enumerate(reach):
        if lowest < group < highest:
            low = _Side(keys, labels[group] - labels, offsets, lowest, group)
            high = _Side(keys, labels - labels[group], offsets, group + 1, highest + 1)
            yield slice(start, int(offsets[group + 1])), _Partners(low, high)


class _Side:
    """Partners on one side of a label: their rows, grouped by label, and the gap of every label."""

    def __init__(self, keys: Tensor, gaps: Tensor, offsets: Tensor, first: int, last: int) -> None:
        begin = int(offsets[first])
        self.keys = keys[begin : int(offsets[last])]
        self.gaps = gaps[first:last].to(keys.dtype)
        self.offsets = offsets[first : last + 1] - begin
        self.sizes = self.offsets.diff()
        self.label_of = torch.repeat_interleave(self.sizes, output_size=self.keys.shape[0])


class _Partners:
    """Lower and upper partners of the anchors of one label.

    The share alpha of a mixture depends on the labels of its parts only, so over the rows of a lower label j and an
    upper label k the sum of ``e^{alpha s_ij + (1 - alpha) s_ik}`` is a product of two sums, and costs the sum of the
    two numbers of rows instead of their product.
    """

    def __init__(self, low: _Side, high: _Side) -> None:
        self.low, self.high = low, high
        self.rows = low.keys.shape[0] + high.keys.shape[0]
        self.pairs = low.keys.shape[0] * high.keys.shape[0]
        self.widest_tile = int(low.sizes.max()) * high.gaps.shape[0] + high.keys.shape[0]

    def share(self, labels: slice) -> Tensor:
        """Share alpha of the lower labels ``labels`` in the mixture with each upper label."""
        return self.high.gaps / (self.high.gaps + self.low.gaps[labels, None])

    def label_blocks(self, number: int) -> Iterator[slice]:
        number = max(number, 1)
        for start in range(0, self.low.gaps.shape[0], number):
            yield slice(start, min(start + number, self.low.gaps.shape[0]))

    def mean(self, entries: int) -> Tensor:
        """Mean of all mixtures."""
        low, high = self.low, self.high
        on_low, on_high = torch.zeros_like(low.gaps), torch.zeros_like(high.gaps)
        for labels in self.label_blocks(entries // high.gaps.shape[0]):
            share = self.share(labels)
            on_low[labels] = share @ high.sizes.to(share.dtype)
            on_high += low.sizes[labels].to(share.dtype) @ (1 - share)
        return (on_low[low.label_of] @ low.keys + on_high[high.label_of] @ high.keys) / self.pairs

    def sweep(self, query: Tensor, entries: int) -> tuple[Tensor, Tensor]:
        """Log-sum-exp over all mixtures and their softmax mean, some lower labels at a time."""
        low, high = self.low, self.high
        to_low, to_high = low.keys @ query.T, high.keys @ query.T
        peak = query.new_full((query.shape[0],), -torch.inf)
        mass = torch.zeros_like(peak)
        on_low, on_high = torch.zeros_like(to_low), torch.zeros_like(to_high)
        for labels in self.label_blocks(entries // (query.shape[0] * self.widest_tile)):
            rows = slice(int(low.offsets[labels.start]), int(low.offsets[labels.stop]))
            label_of = low.label_of[rows] - labels.start
            share = self.share(labels)
            # (lower rows, anchors, upper labels) and (upper rows, anchors, lower labels)
            low_logits = to_low[rows, :, None] * share[label_of][:, None, :]
            high_logits = to_high[:, :, None] * (1 - share).T[high.label_of][:, None, :]
            low_sum = segment_logsumexp(low_logits, low.offsets[labels.start : labels.stop + 1] - rows.start)
            high_sum = segment_logsumexp(high_logits, high.offsets)
            joint = low_sum + high_sum.permute(2, 1, 0)
            new_peak = torch.maximum(peak, joint.amax(dim=(0, 2)))
            decay = (peak - new_peak).exp()
            weight = (joint - new_peak[:, None]).exp()
            mass = mass * decay + weight.sum(dim=(0, 2))
            on_low *= decay
            on_high *= decay
            low_part = low_logits.sub_(low_sum[label_of]).exp_()
            on_low[rows] = low_part.mul_((weight * share[:, None, :])[label_of]).sum(dim=2)
            high_part = high_logits.sub_(high_sum[high.label_of]).exp_()
            on_high += high_part.mul_((weight * (1 - share)[:, None, :]).permute(2, 1, 0)[high.label_of]).sum(dim=2)
            peak = new_peak
        return peak + mass.log(), (on_low.T @ low.keys + on_high.T @ high.keys) / mass[:, None]

    def sample(self, query: Tensor, number: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """As `sweep` and `mean`, from ``number`` mixtures drawn for every anchor."""
        low, high = self.low, self.high
        shape = (query.shape[0], number)
        below = torch.randint(low.keys.shape[0], shape, generator=generator, device=query.device)
        above = torch.randint(high.keys.shape[0], shape, generator=generator, device=query.device)
        low_gap, high_gap = low.gaps[low.label_of[below]], high.gaps[high.label_of[above]]
        share = high_gap / (high_gap + low_gap)
        to_low, to_high = query @ low.keys.T, query @ high.keys.T
        logits = share * to_low.gather(1, below) + (1 - share) * to_high.gather(1, above)
        total = torch.logsumexp(logits, dim=1) + math.log(self.pairs / number)

        def mixed(weights: Tensor) -> Tensor:
            on_low = torch.zeros_like(to_low).scatter_add(1, below, weights * share)
            on_high = torch.zeros_like(to_high).scatter_add(1, above, weights * (1 - share))
            return on_low @ low.keys + on_high @ high.keys

        return total, mixed(torch.softmax(logits, dim=1)), mixed(torch.full_like(logits, 1.0 / number))
