"""ND loss as a module that remembers the class means of the teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphcl.functional._group_sums import class_means
from graphcl.functional.norm_direction import norm_direction
from graphcl.functional.reduction import Reduction, check_reduction

__all__ = ["NormDirection"]


class NormDirection(nn.Module):
    """Norm and direction of student features; see `graphcl.functional.norm_direction`.

    Args:
        num_classes: C.
        dim: d.
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: ``forward(student (N, d), teacher (N, d), labels (N,), *, weight (N,))``.

    >>> import torch
    >>> loss = NormDirection(2, 2)
    >>> loss.fit(torch.eye(2), torch.tensor([0, 1]))
    >>> loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    tensor(0.5000)
    """

    def __init__(self, num_classes: int, dim: int, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        if num_classes < 1 or dim < 1:
            raise ValueError(f"num_classes and dim must be at least 1, got {num_classes} and {dim}")
        check_reduction(reduction)
        self.reduction: Reduction = reduction
        self.class_means: Tensor
        self.register_buffer("class_means", torch.zeros(num_classes, dim))

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Take the class means of ``(n, d)`` features of the teacher on the training set."""
        if features.dim() != 2 or features.shape[1] != self.class_means.shape[1]:
            raise ValueError(
                f"features must have shape (rows, {self.class_means.shape[1]}), got shape {tuple(features.shape)}"
            )
        self.class_means.copy_(class_means(features.detach(), labels, self.class_means.shape[0]))

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, *, weight: Tensor | None = None) -> Tensor:
        return norm_direction(
            student, teacher, labels, self.class_means.to(student), weight=weight, reduction=self.reduction
        )
