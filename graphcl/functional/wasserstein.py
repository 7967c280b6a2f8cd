"""List-wise ranking with graded relevance as the transport cost between two batches of distributions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._embeddings import check_temperature, logits_of
from graphcl.kernels._arguments import check_matrix

__all__ = ["listwise_wasserstein"]

_RELATIVE_SINGULAR_VALUE = 1e-10


def listwise_wasserstein(scores: Tensor, relevance: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    r"""Squared Wasserstein-2 distance between the Gaussians fitted to predicted and to relevant list distributions.

    "Beyond Contrastive Learning: Synthetic Data Enables List-wise Training with Multiple Levels of Relevance" (2025).

    Use it for lists with graded relevance, in which the order within the relevant part counts as well.

    .. math:: X = \text{softmax}(\text{scores} / \tau), \quad Y = \text{softmax}(\text{relevance}), \qquad
        L = \|\mu_X - \mu_Y\|^2 + \text{Tr} \Sigma_X + \text{Tr} \Sigma_Y
        - 2 \| C_X C_Y^\top \|_*

    The b rows are samples; C are centred rows divided by sqrt(b - 1), and the nuclear norm of the b x b matrix equals
    :math:`\text{Tr} (\Sigma_X^{1/2} \Sigma_Y \Sigma_X^{1/2})^{1/2}` of the n x n covariances. Singular values below
    1e-10 of the largest pass no gradient. The loss couples the rows of a batch and has no value of its own for one of
    them, hence no ``reduction``; a single row has no covariance and gives the squared distance alone.

    Args:
        scores: ``(b, n)`` scores of n documents for b queries.
        relevance: ``(b, n)`` graded relevance; documents of other queries have relevance 0. A constant.
        temperature: positive number or 0-dim tensor.

    Returns:
        Scalar in the accumulation type; computed in float64.

    Raises:
        ValueError, TypeError: shapes, dtypes or temperature that do not fit.

    Complexity: O(b^2 n + b^3) time, O(b n + b^2) memory.

    Confidence: V (released class executed; it adds 1e-15 to eigenvalues and so differs by about 1e-7).

    >>> import torch
    >>> grades = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    >>> listwise_wasserstein(grades, grades).abs() < 1e-12
    tensor(True)
    """
    check_matrix("scores", scores)
    if relevance.shape != scores.shape:
        raise ValueError(f"relevance must have the shape of scores {tuple(scores.shape)}, got {tuple(relevance.shape)}")
    check_temperature(temperature)
    # Differences of nearly equal traces and norms are left at the end, so float32 would keep few digits.
    predicted = torch.softmax(logits_of(scores.to(torch.float64), temperature), dim=1)
    wanted = torch.softmax(relevance.detach().to(torch.float64), dim=1)
    rows = scores.shape[0]
    if rows == 0 or scores.shape[1] == 0:
        return predicted.sum().to(scores.dtype)
    predicted_mean, wanted_mean = predicted.mean(dim=0), wanted.mean(dim=0)
    distance = ((predicted_mean - wanted_mean) ** 2).sum()
    if rows > 1:
        left = (predicted - predicted_mean) / (rows - 1) ** 0.5
        right = (wanted - wanted_mean) / (rows - 1) ** 0.5
        distance = distance + (left * left).sum() + (right * right).sum() - 2 * _nuclear_norm(left @ right.T)
    return distance.to(scores.dtype if scores.dtype == torch.float64 else torch.float32)


def _nuclear_norm(matrix: Tensor) -> Tensor:
    norm: Tensor = _NuclearNorm.apply(matrix)  # type: ignore[no-untyped-call]
    return norm


class _NuclearNorm(torch.autograd.Function):
    """Sum of singular values, with U V^T of the singular values that are not rounding as its gradient."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        kept = s > _RELATIVE_SINGULAR_VALUE * s[:1]
        ctx.save_for_backward((u * kept) @ vh)
        norm: Tensor = s.sum()
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        direction: Tensor = ctx.saved_tensors[0]
        return grad * direction
