"""Expected similarity under a softmax over the same candidates, for targets that a teacher spreads over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphcl.kernels import Backend, CandidateRule, pair_logsumexp

LogSumExp = Callable[[Tensor, Tensor], Tensor]


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
    r"""``(A,)`` sums :math:`\sum_j \pi_{ij} \langle student_i, y_j \rangle`, pi the softmax of the teacher's logits.

    The probabilities are constants; gradients go to the student and, through the similarity, to the candidates. No
    A x C matrix: with :math:`D_i` the log-sum-exp of the teacher, :math:`\sum_j \pi_{ij} y_j` is
    :math:`\tau \, \partial D_i / \partial t_i`, and the sums for the candidates come from the same pair sweep over rows
    to which the student is appended against zeros. A row without candidates gives 0.

    Args:
        teacher: ``(A, d)``, raw inner products with the candidates over ``temperature`` are its logits.
        student: ``(A, d)``.
        candidates: ``(C, d)``.
        temperature: of the teacher: a number, a 0-dim tensor or ``(A,)``.
        candidate_bias: ``(C,)`` added to the logits of the teacher.
        rules: of the candidates.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Complexity: O(A C d) time, O((A + C) d) memory plus the tiles.
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
    result: Tensor = _ExpectedSimilarity.apply(teacher.detach(), student, candidates, log_sum, scale)  # type: ignore[no-untyped-call]
    return result


class _ExpectedSimilarity(torch.autograd.Function):
    """Forward and backward as the docstring of `expected_similarity` says."""

    @staticmethod
    def forward(
        ctx: Any, teacher: Tensor, student: Tensor, candidates: Tensor, log_sum: LogSumExp, scale: float | Tensor
    ) -> Tensor:
        with torch.enable_grad():
            leaf = teacher.detach().requires_grad_()
            total = log_sum(leaf, candidates.detach())
            (slope,) = torch.autograd.grad(total.sum(), leaf)
        mean = slope * scale
        ctx.save_for_backward(teacher, student, candidates, mean)
        ctx.log_sum, ctx.scale = log_sum, scale
        return (student * mean).sum(dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        teacher, student, candidates, mean = ctx.saved_tensors
        to_student = upstream[:, None] * mean if ctx.needs_input_grad[1] else None
        to_candidates = None
        if ctx.needs_input_grad[2]:
            with torch.enable_grad():
                leaf = torch.zeros_like(candidates).requires_grad_()
                anchors = torch.cat([teacher, upstream[:, None] * student * ctx.scale], dim=1)
                total = ctx.log_sum(anchors, torch.cat([candidates, leaf], dim=1))
                (to_candidates,) = torch.autograd.grad(total.sum(), leaf)
        return None, to_student, to_candidates, None, None
