"""PMRL: the modalities of an instance aligned through the singular values of their matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._embeddings import check_labels, check_temperature, logits_of, unit_views
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import AnyOf, Backend, CandidateRule, EqualIds, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["PrincipalDirection", "pmrl", "principal_direction"]

_SMALLEST_EIGENVALUE = 1e-12


class PrincipalDirection(NamedTuple):
    """Spectrum of the modalities of every instance.

    Attributes:
        singular_values: ``(N, min(V, d))``, descending; 0 where an instance has fewer modalities than that.
        direction: ``(N, d)`` leading left singular vectors, oriented along the sum of the views.
        rank_limit: ``(N,)`` number of singular values that count, ``min(present modalities, d)``.
    """

    singular_values: Tensor
    direction: Tensor
    rank_limit: Tensor


def principal_direction(views: Sequence[Tensor] | Tensor, *, present: Tensor | None = None) -> PrincipalDirection:
    r"""Singular values and leading direction of the matrix of an instance's unit views.

    .. math:: X_i = [n(z^1_i) \dots n(z^V_i)] = U S V^\top, \qquad X_i^\top X_i = V S^2 V^\top, \qquad
        u_i = X_i v_1 / S_1

    Computed from the V x V Gram matrix. The sign of u_i is the one with :math:`\langle u_i, \sum_v n(z^v_i) \rangle
    \ge 0`, and, where that product is zero (two views at an obtuse angle: u_i is their difference), the one along the
    first view; the sign is a constant of differentiation. A singular value whose square is below 1e-12 is raised to
    1e-6 and passes no gradient, and pairs of equal eigenvalues pass no gradient to u_i.

    Args:
        views: V >= 1 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        present: ``(N, V)`` bool, false where an instance lacks a modality; the column is dropped for that instance.

    Returns:
        `PrincipalDirection`.

    Raises:
        ValueError, TypeError: shapes or dtypes that do not fit.

    Complexity: O(N V^2 (V + d)) time, O(N V (V + d)) memory.

    >>> import torch
    >>> principal_direction([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]).singular_values
    tensor([[1., 1.]])
    """
    z = unit_views(views, at_least=1)
    num_views, num_instances, dim = z.shape
    if present is None:
        present = torch.ones(num_instances, num_views, dtype=torch.bool, device=z.device)
    elif present.shape != (num_instances, num_views) or present.dtype != torch.bool:
        raise ValueError(
            f"present must be a bool tensor of shape ({num_instances}, {num_views}), "
            f"got shape {tuple(present.shape)} of {present.dtype}"
        )
    z = z.masked_fill(~present.T[:, :, None], 0.0)
    gram = torch.einsum("and,bnd->nab", z, z)
    eigenvalues, leading = _LeadingEigenpair.apply(gram)  # type: ignore[no-untyped-call]
    rank_limit = present.sum(dim=1).clamp_max(dim)
    counted = torch.arange(min(num_views, dim), device=z.device) < rank_limit[:, None]
    # clamp_min passes no gradient below the bound
    singular = eigenvalues[:, : counted.shape[1]].clamp_min(_SMALLEST_EIGENVALUE).sqrt()
    singular = singular.masked_fill(~counted, 0.0)
    scale = eigenvalues[:, :1].clamp_min(_SMALLEST_EIGENVALUE).sqrt()
    direction = torch.einsum("vnd,nv->nd", z, leading) / scale
    return PrincipalDirection(singular, direction, rank_limit)


@overload
def pmrl(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = ...,
    instance_temperature: float | Tensor = ...,
    instance_weight: float = ...,
    present: Tensor | None = ...,
    ids: Tensor | None = ...,
    reduction: Reduction = ...,
    return_components: Literal[False] = ...,
    memory_budget: int = ...,
    backend: Backend = ...,
) -> Tensor: ...


@overload
def pmrl(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = ...,
    instance_temperature: float | Tensor = ...,
    instance_weight: float = ...,
    present: Tensor | None = ...,
    ids: Tensor | None = ...,
    reduction: Reduction = ...,
    return_components: Literal[True],
    memory_budget: int = ...,
    backend: Backend = ...,
) -> tuple[Tensor, dict[str, Tensor]]: ...


def pmrl(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = 0.05,
    instance_temperature: float | Tensor = 0.1,
    instance_weight: float = 1.0,
    present: Tensor | None = None,
    ids: Tensor | None = None,
    reduction: Reduction = "mean",
    return_components: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""PMRL: make the leading singular value of an instance's modalities dominate, and its direction its own.

    "Principled Multimodal Representation Learning" (2025).

    Use it for three or more modalities of which none is the anchor of the others.

    .. math:: L_i = -\log \frac{e^{S_{i1}/\tau_1}}{\sum_k e^{S_{ik}/\tau_1}}
        - w \log \frac{e^{\langle u_i, u_i \rangle/\tau_2}}{\sum_j e^{\langle u_i, u_j \rangle/\tau_2}}

    with singular values and directions of `principal_direction`.

    Args:
        views: V >= 1 tensors ``(N, d)``, one a modality, or one ``(V, N, d)`` tensor; normalised here.
        temperature: tau_1 of the singular values.
        instance_temperature: tau_2 of the contrast between instances.
        instance_weight: weight w of that contrast.
        present: ``(N, V)`` bool, false where an instance lacks a modality. Instances without any are left out.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        reduction: over instances.
        return_components: also return ``{"intra", "inter"}``.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``; with ``return_components`` a pair of it and the parts, reduced alike.

    Raises:
        ValueError, TypeError: shapes, dtypes or temperatures that do not fit.

    Complexity: O(N V^2 (V + d) + N^2 d) time, O(N V (V + d)) memory.

    Confidence: V, except the sign of the directions: the released code leaves it to the decomposition, which
    randomises the second part; the rule here is this package's, and so are ``ids``.

    >>> import torch
    >>> z = torch.eye(2)
    >>> loss, parts = pmrl([z, z], return_components=True)
    >>> {name: round(float(part), 4) for name, part in parts.items()}
    {'intra': 0.0, 'inter': 0.0}
    """
    check_temperature(temperature)
    check_temperature(instance_temperature)
    spectrum = principal_direction(views, present=present)
    valid = spectrum.rank_limit > 0
    logits = logits_of(spectrum.singular_values, temperature)
    counted = torch.arange(logits.shape[1], device=logits.device) < spectrum.rank_limit.clamp_min(1)[:, None]
    intra_loss = torch.logsumexp(logits.masked_fill(~counted, -torch.inf), dim=1) - logits[:, 0]
    u = spectrum.direction
    empty = torch.zeros(u.shape[0], dtype=u.dtype, device=u.device).masked_fill(~valid, -torch.inf)
    rules: tuple[CandidateRule, ...] = ()
    if ids is not None:
        check_labels("ids", ids, u.shape[0], integer=True)
        instance = torch.arange(u.shape[0], device=u.device)
        rules = (AnyOf([EqualIds(instance, instance), EqualIds(ids, ids, keep=False)]),)
    total = pair_logsumexp(
        u,
        u,
        temperature=instance_temperature,
        rules=rules,
        candidate_bias=None if present is None else empty,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    inter_loss = total - logits_of((u * u).sum(dim=1), instance_temperature)
    intra = reduce_anchors(intra_loss, reduction, valid=valid)
    inter = reduce_anchors(inter_loss, reduction, valid=valid)
    loss = intra + instance_weight * inter
    return (loss, {"intra": intra, "inter": inter}) if return_components else loss


def _oriented(vectors: Tensor) -> Tensor:
    """Vectors with the sign that makes their sum positive or, where it is zero, their first entry."""
    rounding = torch.finfo(vectors.dtype).eps ** 0.5
    total = vectors.sum(dim=1)
    first = vectors.gather(1, (vectors.abs() > rounding).int().argmax(dim=1, keepdim=True)).squeeze(1)
    decisive = torch.where(total.abs() > rounding, total, first)
    return vectors * torch.where(decisive < 0, -1.0, 1.0).to(vectors.dtype)[:, None]


class _LeadingEigenpair(torch.autograd.Function):
    """Eigenvalues of symmetric matrices, descending, and the leading eigenvector, oriented.

    The stock backward divides by differences of all eigenvalues, although the trailing vectors are not used here; with
    equal trailing eigenvalues (two identical modalities are enough) that is infinite. Only the gaps to the leading
    eigenvalue matter, and a gap of rounding size is treated as having no preferred direction.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(gram)
        values, vectors = values.flip(-1), vectors.flip(-1)
        vectors = torch.cat([_oriented(vectors[:, :, 0])[:, :, None], vectors[:, :, 1:]], dim=2)
        ctx.save_for_backward(values, vectors)
        return values, vectors[:, :, 0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_values: Tensor, grad_leading: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors
        grad = torch.einsum("nak,nk,nbk->nab", vectors, grad_values, vectors)
        gap = values[:, :1] - values[:, 1:]
        tolerance = values[:, :1].clamp_min(0.0) * 32 * torch.finfo(values.dtype).eps
        wide = gap > tolerance
        inverse = torch.where(wide, 1.0 / gap.masked_fill(~wide, 1.0), 0.0)
        turn = torch.einsum("nak,na->nk", vectors[:, :, 1:], grad_leading) * inverse
        outer = torch.einsum("nak,nk,nb->nab", vectors[:, :, 1:], turn, vectors[:, :, 0])
        return grad + (outer + outer.transpose(1, 2)) / 2
