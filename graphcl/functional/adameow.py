"""Contrast with negatives weighted by a small network on the pair (AdaMEOW), in linear memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from graphcl.functional._pair_terms import check_temperature, check_views, in_space, paired_similarity
from graphcl.functional._sums_of_tanh import separable, separated_sums
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import matmul_nt
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size

__all__ = ["adameow"]

# Rows of a tile, unit by unit (its buffers should stay in the second-level cache) and by products.
_MOST_ROWS = 64
_MOST_ROWS_SEPARATED = 256
# Numbers held for a pair: logits, softmax, weights, and the hidden unit at hand.
_FLOATS_PER_PAIR = 6
# Outputs up to this size have sigmoids, and sums of them, that are ordinary float32 numbers.
_LARGEST_OUTPUT = 60.0
# Hidden inputs up to this size have exponentials, and products of two, that lose nothing that tanh would show.
_LARGEST_EXPONENT = 40.0


def adameow(
    anchors: Tensor,
    candidates: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    *,
    temperature: float = 1.0,
    similarity: Literal["cosine", "dot"] = "cosine",
    normalize_weights: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    r"""InfoNCE with learned weights of the pairs: a network looks at the sum of both rows.

    J. Yu, X. Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative
    Samples", 2022, https://arxiv.org/abs/2212.13847. Confidence: V. Use it in place of `meow_info_nce` when no number
    of clusters suggests itself.

    .. math:: L_i = -\log \frac{e_{ii}}{\sum_j \omega_{ij}\, e_{ij}}, \quad e_{ij} = e^{\cos(x_i, y_j)/\tau}, \quad
        \omega_{ij} = \sigma\bigl(w_2 \cdot \tanh(W_1 (x_i + y_j) + b_1) + b_2\bigr)

    j = i is in the denominator. The loss has no lower bound: lowering :math:`b_2` lowers every weight, and only a small
    learning rate, weight decay and few epochs hold it. ``normalize_weights`` divides the weights of every row by their
    mean, which removes that direction.

    As :math:`W_1 (x_i + y_j) = W_1 x_i + W_1 y_j`, the hidden inputs are two matrices N x h. A hyperbolic tangent of
    sums is smooth, so that Chebyshev interpolation in the second summand separates it to rounding error into some 10
    to 40 products a hidden unit: the outputs of the network on all pairs are one matrix product, and so are their
    gradients. Hidden inputs or outputs too large for that are evaluated pair by pair.

    Args:
        anchors: ``(N, d)`` rows x.
        candidates: ``(N, d)`` rows y; row i is the positive of anchor i.
        hidden_weight: ``(h, d)`` W1.
        hidden_bias: ``(h,)`` b1.
        out_weight: ``(h,)`` w2.
        out_bias: 0-dim or ``(1,)`` b2.
        temperature: positive number.
        similarity: ``cosine``, or ``dot`` for rows that are normalised already.
        normalize_weights: see above; the authors' form is False.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for a block of rows.

    Returns:
        A scalar, or ``(N,)`` for ``none``; differentiable once in the rows and in the network.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 (d + h r)) time with r products a hidden unit, O(N (d + h r)) memory plus a block of rows against
    all candidates, which backward computes again.

    >>> import torch
    >>> zero = torch.zeros(1)
    >>> adameow(torch.eye(2), torch.eye(2), torch.zeros(1, 2), zero, zero, zero)
    tensor(-0.3799)
    """
    check_views("anchors", anchors, "candidates", candidates)
    check_temperature(temperature)
    check_block_size("memory_budget", memory_budget)
    hidden = hidden_weight.shape[0]
    for name, value, shape in (
        ("hidden_weight", hidden_weight, (hidden, anchors.shape[1])),
        ("hidden_bias", hidden_bias, (hidden,)),
        ("out_weight", out_weight, (hidden,)),
    ):
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got shape {tuple(value.shape)}")
    if out_bias.numel() != 1:
        raise ValueError(f"out_bias must hold one number, got shape {tuple(out_bias.shape)}")
    x, y = in_space(similarity, anchors, candidates)[1]
    hidden_weight, hidden_bias, out_weight, out_bias = (
        part.to(x.dtype) for part in (hidden_weight, hidden_bias, out_weight, out_bias)
    )
    rows = F.linear(x, hidden_weight, hidden_bias)
    columns = F.linear(y, hidden_weight)
    height = memory_budget // (_FLOATS_PER_PAIR * max(1, y.shape[0]) * x.element_size())
    parts = x, y, rows, columns, out_weight, out_bias.reshape(()), 1.0 / temperature, max(1, height)
    with torch.no_grad():
        largest = float(out_weight.abs().sum() + out_bias.abs().sum())
    if largest <= _LARGEST_OUTPUT and separable(columns):
        total, mass = _Separated.apply(*parts, normalize_weights)  # type: ignore[no-untyped-call]
    else:
        total, mass = _WeightedLogSumExp.apply(*parts)  # type: ignore[no-untyped-call]
    loss = total - paired_similarity(x, y) / temperature
    if normalize_weights:
        loss = loss - mass + torch.log(mass.new_tensor(max(y.shape[0], 1)))
    return reduce_anchors(loss, reduction, weight=weight)


class _Separated(torch.autograd.Function):
    """As `_WeightedLogSumExp` where the network's outputs are one matrix product; ``mass`` is 0 where not wanted."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        columns: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        scale: float,
        height: int,
        with_mass: bool,
    ) -> tuple[Tensor, Tensor]:
        left, right = separated_sums(rows, columns, out_weight)
        ctx.height = height = min(height, _MOST_ROWS_SEPARATED)
        total, mass = x.new_empty(x.shape[0]), x.new_zeros(x.shape[0])
        for part in _parts(x.shape[0], height):
            weight = matmul_nt(left[part], right).add_(out_bias).sigmoid_()
            logit = matmul_nt(x[part], y).mul_(scale)
            largest = logit.amax(dim=1)
            if with_mass:
                mass[part] = weight.sum(dim=1).log_()
            total[part] = logit.sub_(largest[:, None]).exp_().mul_(weight).sum(dim=1).log_().add_(largest)
        ctx.save_for_backward(x, y, rows, columns, out_weight, out_bias, total, mass)
        ctx.scale, ctx.with_mass = scale, with_mass
        return total, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_total: Tensor, to_mass: Tensor) -> tuple[Tensor | None, ...]:
        x, y, *network, out_bias, total, mass = ctx.saved_tensors
        leaves = [part.detach().requires_grad_() for part in network]
        with torch.enable_grad():
            left, right = separated_sums(*leaves)
        p, q = left.detach(), right.detach()
        grad_x, grad_y, grad_p, grad_q = (torch.zeros_like(part) for part in (x, y, p, q))
        grad_bias = torch.zeros_like(out_bias)
        for part in _parts(x.shape[0], ctx.height):
            output = matmul_nt(p[part], q).add_(out_bias)
            share = matmul_nt(x[part], y).mul_(ctx.scale).sub_(total[part, None]).exp_()
            share.mul_(to_total[part, None])
            weight = torch.sigmoid(output)
            share.mul_(weight)
            grad_x[part] = matmul_nt(share, y.T)
            grad_y += matmul_nt(share.T, x[part].T)
            if ctx.with_mass:
                share.add_(weight.mul_((to_mass[part] * (-mass[part]).exp())[:, None]))
            # How much an output moves log sigmoid of itself: 1 - sigmoid.
            share.mul_(output.neg_().sigmoid_())
            grad_p[part] = matmul_nt(share, q.T)
            grad_q += matmul_nt(share.T, p[part].T)
            grad_bias += share.sum()
        grads = torch.autograd.grad([left, right], leaves, [grad_p, grad_q])
        return grad_x.mul_(ctx.scale), grad_y.mul_(ctx.scale), *grads, grad_bias, None, None, None


class _WeightedLogSumExp(torch.autograd.Function):
    """Per row: log of the weighted sum of exponentials, and log of the sum of the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        columns: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        scale: float,
        height: int,
    ) -> tuple[Tensor, Tensor]:
        height = min(height, _MOST_ROWS)
        network = _Network(rows, columns, out_weight, out_bias, height)
        total, mass = x.new_empty(x.shape[0]), x.new_empty(x.shape[0])
        for part in _parts(x.shape[0], height):
            log_weight = F.logsigmoid(network.output(part))
            mass[part] = torch.logsumexp(log_weight, dim=1)
            log_weight.add_(matmul_nt(x[part], y), alpha=scale)
            total[part] = torch.logsumexp(log_weight, dim=1)
        ctx.save_for_backward(x, y, rows, columns, out_weight, out_bias, total, mass)
        ctx.scale, ctx.height = scale, height
        return total, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_total: Tensor, to_mass: Tensor) -> tuple[Tensor | None, ...]:
        x, y, rows, columns, out_weight, out_bias, total, mass = ctx.saved_tensors
        network = _Network(rows, columns, out_weight, out_bias, ctx.height)
        grad_x, grad_y = torch.zeros_like(x), torch.zeros_like(y)
        use_mass = bool(to_mass.any())
        for part in _parts(x.shape[0], ctx.height):
            output = network.output(part)
            log_weight = F.logsigmoid(output)
            # How much an output moves log sigmoid of itself: 1 - sigmoid.
            slack = torch.sigmoid(output.neg_())
            share = matmul_nt(x[part], y).mul_(ctx.scale).add_(log_weight).sub_(total[part, None]).exp_()
            share.mul_(to_total[part, None])
            grad_x[part] = matmul_nt(share, y.T)
            grad_y += matmul_nt(share.T, x[part].T)
            if use_mass:
                share.add_(log_weight.sub_(mass[part, None]).exp_().mul_(to_mass[part, None]))
            network.accumulate(part, share.mul_(slack))
        grads = network.gradients()
        return grad_x.mul_(ctx.scale), grad_y.mul_(ctx.scale), *grads, None, None


class _Network:
    """The weight network on all pairs of some rows with all columns, one hidden unit at a time, and its gradients."""

    def __init__(self, rows: Tensor, columns: Tensor, out_weight: Tensor, out_bias: Tensor, height: int) -> None:
        self.rows, self.columns = rows, columns
        self.out_weight, self.out_bias = out_weight, out_bias
        self.units = out_weight.tolist()
        largest = max((float(side.abs().max()) for side in (rows, columns) if side.numel()), default=0.0)
        self.exponentials = None
        if largest <= _LARGEST_EXPONENT:
            self.exponentials = (-2 * rows).exp().T.contiguous(), (2 * columns).exp().T.contiguous()
        # Fresh memory for every unit would cost more than the arithmetic.
        self.buffers = rows.new_empty(2, height, columns.shape[0])
        self.to_rows, self.to_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        self.to_weight, self.to_bias = torch.zeros_like(out_weight), torch.zeros_like(out_bias)

    def falling(self, part: slice, unit: int) -> tuple[Tensor, Tensor]:
        """``r = 1 / (1 + e^(2 z))`` of one hidden unit as ``factor_i v_ij``; its tanh is 1 - 2 r."""
        if self.exponentials is None:
            v = torch.sigmoid(-2 * (self.rows[part, unit, None] + self.columns[None, :, unit]))
            return v.new_ones(v.shape[0]), v
        # 1 / (1 + e^(2 a) e^(2 b)) = e^(-2 a) / (e^(-2 a) + e^(2 b)): one sum and one division a pair.
        rows, columns = self.exponentials
        factor = rows[unit, part]
        out = self.buffers[0, : factor.shape[0]]
        return factor, torch.add(factor[:, None], columns[unit], out=out).reciprocal_()

    def output(self, part: slice) -> Tensor:
        """What goes into the sigmoid, (rows, columns)."""
        constant = self.out_bias + self.out_weight.sum()
        result = constant.expand(self.rows[part].shape[0], self.columns.shape[0]).contiguous()
        for unit, weight in enumerate(self.units):
            factor, v = self.falling(part, unit)
            result.addcmul_(v, factor[:, None], value=-2.0 * weight)
        return result

    def accumulate(self, part: slice, upstream: Tensor) -> None:
        """Add what an upstream gradient of `output` gives: tanh' = 4 r (1 - r), summed over rows and columns."""
        whole = upstream.sum()
        self.to_bias += whole
        ones = upstream.new_ones(upstream.shape[1])
        for unit, weight in enumerate(self.units):
            factor, v = self.falling(part, unit)
            first = torch.mul(upstream, v, out=self.buffers[1, : upstream.shape[0]])
            second = v.mul_(first)
            row_first = torch.mv(first, ones).mul_(factor)
            row_second = torch.mv(second, ones).mul_(factor**2)
            column = torch.mv(first.T, factor).sub_(torch.mv(second.T, factor**2))
            self.to_weight[unit] += whole - 2.0 * row_first.sum()
            self.to_rows[part, unit] = row_first.sub_(row_second).mul_(4.0 * weight)
            self.to_columns[:, unit] += column.mul_(4.0 * weight)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.to_rows, self.to_columns, self.to_weight, self.to_bias


def _parts(num_rows: int, height: int) -> Iterator[slice]:
    for start in range(0, num_rows, height):
        yield slice(start, min(start + height, num_rows))
