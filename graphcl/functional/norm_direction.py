"""Norm and direction of student features against class means of a teacher (ND loss)."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_views, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import check_indices, check_same_space

__all__ = ["norm_direction"]


def norm_direction(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    class_means: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""ND loss: students point to the class mean of the teacher and are at least as long as their teacher.

    Y. Wang, L. Cheng, M. Duan, Y. Wang, Z. Feng, S. Kong, "Improving Knowledge Distillation via Regularizing Feature
    Norm and Direction", 2023, https://arxiv.org/abs/2305.17007. Confidence: V. Use it beside a distillation
    loss that leaves the length of the student's features free.

    .. math:: L_i = 1 - \frac{\langle s_i, e_{y_i} \rangle}{\max(\|s_i\|, \|t_i\|)}, \qquad
        e_c = n(\text{mean of the teacher's features of class } c)

    Args:
        student: ``(N, d)``, not normalised.
        teacher: ``(N, d)``, not normalised, no gradient.
        labels: ``(N,)`` integers in ``0 .. C - 1``.
        class_means: ``(C, d)`` means of the teacher's features; normalised here, no gradient.
        weight: ``(N,)`` non-negative weights of the rows.
        reduction: ``mean``, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(N,)`` for ``none``. The gradient flows through the norm of a student that is longer than its
        teacher. A row whose student and teacher are both zero has loss 1 and no gradient.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N d) time and memory.

    >>> import torch
    >>> norm_direction(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.eye(2))
    tensor(0.5000)
    """
    check_views("student", student, "teacher", teacher)
    check_same_space("student", student, "class_means", class_means)
    check_indices("labels", labels, student.shape[0], class_means.shape[0], check=True)
    (direction,) = unit_rows(class_means.detach())
    s, t = student.to(direction.dtype), teacher.detach().to(direction.dtype)
    length = torch.maximum(torch.linalg.vector_norm(s, dim=1), torch.linalg.vector_norm(t, dim=1))
    nothing = length == 0
    along = (s * direction[labels.long()]).sum(dim=1) / length.masked_fill(nothing, 1.0)
    return reduce_anchors(1.0 - along.masked_fill(nothing, 0.0), reduction, weight=weight)
