"""Expectations under a softmax over the candidates, for targets that a teacher spreads over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphcl.kernels import Backend, CandidateRule, pair_logsumexp

LogSumExp = Callable[[Tensor, Tensor], Tensor]


def expected_rows(
    teacher: Tensor,
    candidates: Tensor,
    more: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    candidate_bias: Tensor | None = None,
    rules: Sequence[CandidateRule] = (),
    memory_budget: int,
    backend: Backend,
) -> Tensor:
    r"""``(A, d + p)`` means :math:`m_i = \sum_j \pi_{ij} [y_j, v_j]`, pi the softmax of the teacher's logits.

    The probabilities are constants; gradients go to the rows that are averaged. No A x C matrix: zeros appended to the
    teacher t leave its log-sum-exp :math:`D_i` over :math:`[y_j, v_j]` as it is, and
    :math:`m_i = \tau \, \partial D_i / \partial [t_i, 0]`. The gradient :math:`\sum_i \pi_{ij} g_i` of the rows
    comes from the same sweep with g appended to t and zeros to y. A teacher without candidates gives 0.

    Args:
        teacher: ``(A, d)``, raw inner products with the candidates over ``temperature`` are its logits.
        candidates: ``(C, d)`` y.
        more: ``(C, p)`` v.
        temperature: of the teacher: a number, a 0-dim tensor or ``(A,)``.
        candidate_bias: ``(C,)`` added to the logits of the teacher.
        rules: of the candidates.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Complexity: O(A C (d + p)) time, O((A + C) (d + p)) memory plus the tiles.
    """
    fixed = temperature.detach() if isinstance(temperature, Tensor) else temperature
    bias = None if candidate_bias is None else candidate_bias.detach()

    def log_sum(anchors: Tensor, keys: Tensor) -> Tensor:
        return pair_logsumexp(
            anchors,
            keys,
            temperature=fixed,
            candidate_bias=bias,
            rules=rules,
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp

    scale = fixed[:, None] if isinstance(fixed, Tensor) and fixed.dim() == 1 else fixed
    result: Tensor = _ExpectedRows.apply(  # type: ignore[no-untyped-call]
        teacher.detach(), candidates if more is None else torch.cat([candidates, more], dim=1), log_sum, scale
    )
    return result


def expected_similarity(
    teacher: Tensor,
    student: Tensor,
    candidates: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    candidate_bias: Tensor | None = None,
    rules: Sequence[CandidateRule] = (),
    memory_budget: int,
    backend: Backend,
) -> Tensor:
    r"""``(A,)`` sums :math:`\sum_j \pi_{ij} \langle student_i, y_j \rangle` over the candidates; see `expected_rows`.

    Gradients go to the student ``(A, d)`` and, through the similarity, to the candidates.
    """
    mean = expected_rows(
        teacher,
        candidates,
        temperature=temperature,
        candidate_bias=candidate_bias,
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    )
    return (student * mean).sum(dim=1)


class _ExpectedRows(torch.autograd.Function):
    """Forward and backward as the docstring of `expected_rows` says."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, rows: Tensor, log_sum: LogSumExp, scale: float | Tensor) -> Tensor:
        ctx.save_for_backward(teacher, rows)
        ctx.log_sum, ctx.scale = log_sum, scale
        with torch.enable_grad():
            leaf = nn.functional.pad(teacher, (0, rows.shape[1] - teacher.shape[1])).requires_grad_()
            (slope,) = torch.autograd.grad(log_sum(leaf, rows.detach()).sum(), leaf)
        return slope * scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        teacher, rows = ctx.saved_tensors
        with torch.enable_grad():
            leaf = torch.zeros_like(rows).requires_grad_()
            anchors = torch.cat([teacher, upstream * ctx.scale], dim=1)
            total = ctx.log_sum(anchors, torch.cat([rows[:, : teacher.shape[1]], leaf], dim=1))
            (to_rows,) = torch.autograd.grad(total.sum(), leaf)
        return None, to_rows, None, None
