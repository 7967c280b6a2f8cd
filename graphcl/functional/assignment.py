"""Soft assignments of rows to clusters, their sharpened targets, and the divergence between the two."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import check_matrix, check_positive, check_same_space, check_vector, compute_dtype

__all__ = ["assignment_divergence", "student_t_assignment", "target_distribution"]


def student_t_assignment(z: Tensor, centers: Tensor, *, freedom: float = 1.0) -> Tensor:
    r"""Soft assignment of rows to centres by a Student t kernel, whose heavy tail keeps far rows in play.

    L. van der Maaten, G. Hinton, "Visualizing Data using t-SNE", 2008,
    https://jmlr.org/papers/v9/vandermaaten08a.html; as an assignment: J. Xie, R. Girshick, A. Farhadi, "Unsupervised
    Deep Embedding for Clustering Analysis", 2016, https://arxiv.org/abs/1511.06335.

    .. math:: q_{ik} = \frac{(1 + \|z_i - \mu_k\|^2 / \nu)^{-(\nu + 1)/2}}
        {\sum_l (1 + \|z_i - \mu_l\|^2 / \nu)^{-(\nu + 1)/2}}

    Args:
        z: ``(N, d)``.
        centers: ``(K, d)``, K at least 1.
        freedom: ν, positive.

    Returns:
        ``(N, K)``, rows sum to 1; float64 for float64 inputs and float32 otherwise. Differentiable in both.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N K d) time, O(N K + (N + K) d) memory.

    >>> import torch
    >>> student_t_assignment(torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    tensor([[0.6667, 0.3333]])
    """
    check_same_space("z", z, "centers", centers)
    check_positive("freedom", freedom)
    if centers.shape[0] == 0:
        raise ValueError("centers must hold at least one row")
    wide = compute_dtype(z.dtype)
    # Distances do not change when both sides are moved; small coordinates keep their expansion exact.
    middle = centers.detach().to(wide).mean(dim=0)
    x, y = z.to(wide) - middle, centers.to(wide) - middle
    squares = (x * x).sum(dim=1, keepdim=True) - 2 * (x @ y.T) + (y * y).sum(dim=1)
    return torch.softmax(-0.5 * (freedom + 1) * torch.log1p(squares.clamp(min=0) / freedom), dim=1)


@torch.no_grad()
def target_distribution(q: Tensor, mass: Tensor | None = None) -> Tensor:
    r"""Sharpened assignment that gives every cluster about the same say: the target of self-training.

    J. Xie, R. Girshick, A. Farhadi, "Unsupervised Deep Embedding for Clustering Analysis", 2016,
    https://arxiv.org/abs/1511.06335.

    .. math:: p_{ik} = \frac{q_{ik}^2 / f_k}{\sum_l q_{il}^2 / f_l}, \qquad f_k = \sum_i q_{ik}

    Args:
        q: ``(N, K)`` non-negative.
        mass: f ``(K,)``; by default of these rows. In a mini-batch, that of all rows.

    Returns:
        ``(N, K)``, detached; rows sum to 1. A cluster without mass gets nothing, and a row without mass stays 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N K).

    >>> import torch
    >>> target_distribution(torch.tensor([[0.8, 0.2], [0.4, 0.6]]))
    tensor([[0.9143, 0.0857],
            [0.2286, 0.7714]])
    """
    check_matrix("q", q)
    if mass is None:
        mass = q.sum(dim=0)
    check_vector("mass", mass, q.shape[1], device=q.device)
    sharp = torch.where(mass > 0, q * q / torch.where(mass > 0, mass, torch.ones_like(mass)), torch.zeros_like(q))
    total = sharp.sum(dim=1, keepdim=True)
    return sharp / torch.where(total > 0, total, torch.ones_like(total))


def assignment_divergence(
    target: Tensor, q: Tensor, *, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Kullback-Leibler divergence of assignments from their targets.

    .. math:: \operatorname{mean}_i \sum_k p_{ik} \log \frac{p_{ik}}{q_{ik}}

    Args:
        target: p ``(N, K)``, rows sum to 1; gradients flow into it unless it is detached.
        q: ``(N, K)``, of the same dtype.
        weight: ``(N,)`` non-negative weights of the rows.
        reduction: ``mean`` over rows, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(N,)`` for ``none``. Entries of q are held at the smallest normal number.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N K).

    >>> import torch
    >>> assignment_divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    tensor(0.6931)
    """
    check_same_space("target", target, "q", q)
    if target.shape != q.shape:
        raise ValueError(f"target must have shape {tuple(q.shape)}, got {tuple(target.shape)}")
    tiny = torch.finfo(q.dtype).tiny
    divergence = (torch.xlogy(target, target.clamp(min=tiny)) - target * q.clamp(min=tiny).log()).sum(dim=1)
    return reduce_anchors(divergence, reduction, weight=weight)
