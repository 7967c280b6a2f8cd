"""Alignment and uniformity as losses, and the objectives that close the gap between two encoders with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.functional._at_once import with_gradient_at_once
from graphcl.functional._pair_terms import (
    check_views,
    count_different,
    different_ids,
    logsumexp_rows,
    unit_rows,
)
from graphcl.functional.infonce import info_nce
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_matrix, check_positive

__all__ = ["Tolerance", "alignment", "cua", "tolerance", "uniformity"]


def alignment(
    z1: Tensor, z2: Tensor, *, alpha: float = 2.0, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Mean distance between the unit rows of positive pairs.

    T. Wang, P. Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020, https://arxiv.org/abs/2005.10242. Confidence: P.

    Use it beside `uniformity`, as a loss or to watch training.

    .. math:: L_i = \| n(z^1_i) - n(z^2_i) \|^\alpha

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view.
        alpha: positive exponent.
        weight: ``(N,)`` non-negative weights of the pairs.
        reduction: ``mean``, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(N,)`` for ``none``. Equal rows have gradient 0 for every exponent.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d) time and memory.

    >>> import torch
    >>> alignment(torch.eye(2), torch.eye(2).flip(0))
    tensor(2.)
    """
    check_views("z1", z1, "z2", z2)
    check_positive("alpha", alpha)
    x, y = unit_rows(z1, z2)
    square = ((x - y) ** 2).sum(dim=1)
    if alpha != 2.0:
        apart = square > 0
        square = torch.where(apart, square, torch.ones_like(square)) ** (alpha / 2) * apart
    return reduce_anchors(square, reduction, weight=weight)


def uniformity(
    z: Tensor,
    *,
    other: Tensor | None = None,
    ids: Tensor | None = None,
    t: float = 2.0,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Logarithm of the mean Gaussian potential of pairs of different samples: small when rows spread over the sphere.

    T. Wang, P. Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere", 2020, https://arxiv.org/abs/2005.10242. Confidence: P.

    Use it beside `alignment`, as a loss or to see embeddings collapse.

    .. math:: U = \log \operatorname{mean}_{i \ne j} e^{-t \| n(z_i) - n(z_j) \|^2}

    Args:
        z: ``(N, d)``.
        other: ``(N, d)``; pairs are then formed between ``z_i`` and ``other_j``, still for different i and j.
        ids: ``(N,)`` integers; pairs with equal ids are left out.
        t: positive width.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar; 0 if no pair is left.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> uniformity(torch.eye(3))
    tensor(-4.)
    """
    check_matrix("z", z)
    check_positive("t", t)
    if other is not None:
        check_views("z", z, "other", other)
    x, y = unit_rows(z, z if other is None else other)
    num = x.shape[0]
    rules = different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)
    pairs = num * (num - 1) if ids is None else int(count_different(ids, ids).sum())
    if pairs == 0:
        return (x.sum() + y.sum()) * 0.0
    # -t |x - y|^2 = 2 t <x, y> - t |x|^2 - t |y|^2, where the norms are constants: 1, or 0 for a zero row.
    total = pair_logsumexp(
        x,
        y,
        temperature=1.0 / (2.0 * t),
        anchor_bias=-t * _squared_norms(x),
        candidate_bias=-t * _squared_norms(y),
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    return logsumexp_rows(total) - torch.log(total.new_tensor(float(pairs)))


class Tolerance(NamedTuple):
    """Mean cosine over pairs of one class, and the same sum divided by the number of all pairs."""

    same_pairs: Tensor
    all_pairs: Tensor


def tolerance(z: Tensor, labels: Tensor) -> Tolerance:
    r"""Mean cosine of different samples of one class: how much the embedding tolerates samples that mean the same.

    F. Wang, H. Liu, "Understanding the Behaviour of Contrastive Loss", 2021, https://arxiv.org/abs/2012.09740.
    Confidence: P. The printed definition is an expectation over all pairs, so both divisors are returned.

    Use it as a measure beside `uniformity`: temperature trades one for the other.

    .. math:: T = \frac{\sum_{i \ne j} [c_i = c_j] \cos(z_i, z_j)}{\sum_{i \ne j} [c_i = c_j]} \quad\text{or}\quad
        \frac{\sum_{i \ne j} [c_i = c_j] \cos(z_i, z_j)}{N (N - 1)}

    Args:
        z: ``(N, d)``.
        labels: ``(N,)`` integers.

    Returns:
        `Tolerance` of two scalars; 0 where there is no pair.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N d) time and memory: pairs enter through one sum of rows a class.

    >>> import torch
    >>> tolerance(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 0]))
    Tolerance(same_pairs=tensor(0.3333), all_pairs=tensor(0.3333))
    """
    check_matrix("z", z)
    check_indices("labels", labels, z.shape[0], None, check=False)
    (x,) = unit_rows(z)
    classes, index, count = torch.unique(labels, return_inverse=True, return_counts=True)
    class_sum = x.new_zeros(classes.shape[0], x.shape[1]).index_add(0, index, x)
    total = (class_sum**2).sum() - (x**2).sum()
    same, every = int((count * (count - 1)).sum()), x.shape[0] * (x.shape[0] - 1)
    return Tolerance(total / max(same, 1), total / max(every, 1))


def cua(
    z1: Tensor,
    z2: Tensor,
    *,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    t: float = 2.0,
    uniformity_weight: float = 1.0,
    alignment_weight: float = 1.0,
    cross_uniformity_weight: float = 0.0,
    return_components: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Symmetric InfoNCE with uniformity and alignment, which closes the gap between two encoders (CUA, CUAXU).

    A. Fahim, A. Murphy, A. Fyshe, "It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap", 2024.
    Confidence: C. Use it for any two encoders whose clouds stay apart: ids and texts, graph and features.

    .. math:: L = \text{InfoNCE}_{sym} + \tfrac12 \bigl(U(z^1) + U(z^2)\bigr) + \text{alignment}
        \;\bigl[ {} + \log \operatorname{mean}_{i \ne j} e^{-t\|z^1_i - z^2_j\|^2} \bigr]

    Args:
        z1: ``(N, d)`` embeddings of the first encoder.
        z2: ``(N, d)`` embeddings of the second.
        ids: ``(N,)`` integers; rows with equal ids repel nowhere.
        temperature: of the InfoNCE term: positive number, 0-dim tensor, or ``(N,)``.
        t: width of the uniformity terms.
        uniformity_weight: of the mean of the two uniformities.
        alignment_weight: of the alignment.
        cross_uniformity_weight: of the cross term; 1 gives CUAXU, 0 (default) gives CUA.
        return_components: also return the parts.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, with ``return_components`` also a dictionary of ``info_nce``, ``uniformity``, ``alignment`` and, when
        weighted, ``cross_uniformity``, each before its weight.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> cua(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(-3.4486)
    """

    def uniform(z: Tensor, other: Tensor | None = None) -> Tensor:
        return uniformity(z, other=other, ids=ids, t=t, memory_budget=memory_budget, backend=backend)

    # Sweeps over all pairs, each of which is done with its memory before the next.
    def spread(*rows: Tensor) -> Tensor:
        return with_gradient_at_once(uniform, *rows)

    contrast = info_nce(
        z1, z2, ids=ids, temperature=temperature, symmetric=True, memory_budget=memory_budget, backend=backend
    )
    parts = {
        "info_nce": contrast,
        "uniformity": 0.5 * (spread(z1) + spread(z2)),
        "alignment": alignment(z1, z2),
    }
    loss = contrast + uniformity_weight * parts["uniformity"] + alignment_weight * parts["alignment"]
    if cross_uniformity_weight != 0.0:
        parts["cross_uniformity"] = spread(z1, z2)
        loss = loss + cross_uniformity_weight * parts["cross_uniformity"]
    return (loss, parts) if return_components else loss


def _squared_norms(unit: Tensor) -> Tensor:
    """1 for unit rows, 0 for zero rows."""
    return (unit.detach() != 0).any(dim=1).to(unit.dtype)
