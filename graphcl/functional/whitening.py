"""Whitening of groups of features, and the contrast of differently grouped whitenings of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._draws import draw_permutation
from graphcl.functional._pair_terms import check_views
from graphcl.functional.infonce import info_nce
from graphcl.functional.reduction import Reduction
from graphcl.kernels import Backend
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_matrix, compute_dtype

__all__ = ["group_whiten", "shuffled_group_whitening"]


def group_whiten(
    x: Tensor,
    groups: int,
    permutation: Tensor | None = None,
    *,
    stop_gradient: bool = True,
    ridge: float = 1e-5,
) -> Tensor:
    r"""Whiten groups of features over the batch: inside a group the covariance becomes the identity.

    "Whitening-based Contrastive Learning of Sentence Embeddings", 2023. Confidence: V; the ridge is this package's
    addition (0 gives the release). Uses the statistics of the batch also in evaluation: the result depends on the
    batch.

    .. math:: X_g \leftarrow (X_g - \bar X_g) \Sigma_g^{-1/2}, \qquad
        \Sigma_g = \tfrac1N X_g^\top X_g + \epsilon \tfrac{\operatorname{tr} \Sigma_g}{d/G} I

    Args:
        x: ``(N, d)``.
        groups: G, which divides d; take it so large that d / G is well below N.
        permutation: ``(d,)`` order in which features are put into groups (the result is put back in order); as they
            stand by default.
        stop_gradient: the whitening matrix is a constant, as released.
        ridge: epsilon.

    Returns:
        ``(N, d)``. A direction without variance becomes 0.

    Raises:
        ValueError, TypeError: naming the argument and the value; also when d / G >= N without a ridge.

    Complexity: O(N d^2 / G + d^3 / G^2) time, O(N d + d^2 / G) memory.

    >>> import torch
    >>> x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    >>> white = group_whiten(x, 2, ridge=0.0)[:, :3]
    >>> torch.allclose(white.T @ white / 50, torch.eye(3), atol=1e-5)
    True
    """
    check_matrix("x", x)
    check_block_size("groups", groups)
    num, dim = x.shape
    if dim % groups != 0:
        raise ValueError(f"groups must divide the number of features, got {groups} and {dim}")
    width = dim // groups
    if ridge < 0:
        raise ValueError(f"ridge must not be negative, got {ridge}")
    if ridge == 0 and num <= width:
        raise ValueError(f"without a ridge a group needs more rows than features, got {num} rows and {width} features")
    rows = x.to(compute_dtype(x.dtype))
    if permutation is not None:
        check_indices("permutation", permutation, dim, dim, check=True)
        rows = rows[:, permutation]
    grouped = (rows - rows.mean(dim=0)).view(num, groups, width).transpose(0, 1)
    source = grouped.detach() if stop_gradient else grouped
    covariance = source.transpose(1, 2) @ source / max(num, 1)
    if ridge > 0:
        spread = covariance.diagonal(dim1=1, dim2=2).mean(dim=1)
        covariance = covariance + ridge * torch.diag_embed(spread[:, None].expand(groups, width))
    root: Tensor = _InverseRoot.apply(covariance)  # type: ignore[no-untyped-call]
    white = (grouped @ root).transpose(0, 1).reshape(num, dim)
    return white if permutation is None else white[:, torch.argsort(permutation)]


def shuffled_group_whitening(
    views: Tensor | Sequence[Tensor],
    groups: int,
    permutations: Sequence[Tensor] | None = None,
    *,
    stop_gradient: bool = True,
    ridge: float = 1e-5,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.05,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE between three whitenings of a batch, each with its features shuffled into other groups.

    "Whitening-based Contrastive Learning of Sentence Embeddings", 2023. Confidence: V. Use it when embeddings collapse
    into few directions: whitening keeps them apart, the shuffles give several positives from one batch.

    .. math:: L = \mathrm{InfoNCE}(z^a, z^b) + \mathrm{InfoNCE}(z^a, z^c)

    Args:
        views: ``(N, d)``, whitened three times, or three ``(N, d)`` views (copies under different dropout).
        groups: G of `group_whiten`.
        permutations: three ``(d,)`` shuffles; drawn by default.
        stop_gradient: the whitening matrices are constants, as released.
        ridge: of `group_whiten`.
        generator: of the shuffles.
        ids: ``(N,)`` integers; a row with the id of the anchor is never its negative.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d^2 / G + N^2 d) time, O(N d + d^2 / G) memory plus the tiles.

    >>> import torch
    >>> x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    >>> order = [torch.arange(6)] * 3
    >>> shuffles = [torch.tensor([5, 0, 3, 1, 4, 2]), *order[1:]]
    >>> bool(shuffled_group_whitening(x, 2, order) < shuffled_group_whitening(x, 2, shuffles))
    True
    """
    copies = [views] * 3 if isinstance(views, Tensor) else list(views)
    if len(copies) != 3:
        raise ValueError(f"views must hold one matrix or three, got {len(copies)}")
    for position in (1, 2):
        check_views("views[0]", copies[0], f"views[{position}]", copies[position])
    if permutations is None:
        dim, device = copies[0].shape[1], copies[0].device
        permutations = [draw_permutation(dim, device=device, generator=generator) for _ in copies]
    if len(permutations) != 3:
        raise ValueError(f"permutations must hold three shuffles, got {len(permutations)}")
    first, second, third = (
        group_whiten(copy, groups, permutation, stop_gradient=stop_gradient, ridge=ridge)
        for copy, permutation in zip(copies, permutations, strict=True)
    )
    terms = [
        info_nce(
            first,
            other,
            ids=ids,
            temperature=temperature,
            reduction=reduction,
            memory_budget=memory_budget,
            backend=backend,
        )
        for other in (second, third)
    ]
    return terms[0] + terms[1]


class _InverseRoot(torch.autograd.Function):
    """Inverse square root of symmetric matrices, 0 on their null space.

    The gradient divides by sums of roots instead of differences of eigenvalues, so equal eigenvalues do no harm.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        floor = values[..., -1:].clamp(min=0.0) * matrix.shape[-1] * torch.finfo(matrix.dtype).eps
        alive = values > floor
        inverse = torch.where(alive, values.masked_fill(~alive, 1.0).rsqrt(), torch.zeros_like(values))
        ctx.save_for_backward(inverse, vectors)
        root: Tensor = (vectors * inverse[..., None, :]) @ vectors.transpose(-1, -2)
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        inverse, vectors = ctx.saved_tensors
        rotated = vectors.transpose(-1, -2) @ upstream @ vectors
        left, right = inverse[..., :, None], inverse[..., None, :]
        # (a^-1/2 - b^-1/2) / (a - b) with r = a^-1/2, q = b^-1/2 is -(r q)^2 / (r + q).
        total = left + right
        quotient = -((left * right) ** 2) / total.masked_fill(total == 0, 1.0)
        gradient: Tensor = vectors @ (rotated * quotient) @ vectors.transpose(-1, -2)
        return 0.5 * (gradient + gradient.transpose(-1, -2))
