"""Cross-modal contrast whose positives are all pairs, weighted by a teacher."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from graphcl.functional._pair_terms import (
    both_directions,
    check_temperature,
    check_views,
    different_ids,
    in_space,
    paired_similarity,
    softplus,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["cwcl"]


def cwcl(
    z1: Tensor,
    z2: Tensor,
    teacher: Tensor,
    *,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    similarity: Literal["cosine", "dot"] = "cosine",
    average: bool = False,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Contrast of two modalities where a frozen teacher of the first says how alike every pair is.

    R. S. Srinivasa et al., "CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss", 2023,
    https://arxiv.org/abs/2309.14580. Confidence: P. Use it to bring an encoder next to one that is already trained.

    .. math:: L_i = -\frac{1}{\sum_j w_{ij}} \sum_j w_{ij} \log \operatorname{softmax}_j \frac{s(z^1_i, z^2_j)}{\tau}
        - \log \operatorname{softmax}_i \frac{s(z^2_i, z^1_i)}{\tau}, \qquad w_{ij} = \frac{\cos(t_i, t_j) + 1}{2}

    The weights are never formed: with :math:`M = \sum_j t_j y_j^\top`,
    :math:`\sum_j w_{ij} s_{ij} = \frac12 (x_i \cdot \sum_j y_j + t_i^\top M x_i)`.

    Args:
        z1: ``(N, d)`` embeddings of the modality the teacher knows.
        z2: ``(N, d)`` embeddings of the other modality.
        teacher: ``(N, d_t)`` frozen embeddings of the samples; no gradient.
        ids: ``(N,)`` integers; in the direction from ``z2`` to ``z1``, rows with equal ids are no negatives.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        similarity: ``cosine`` or ``dot``.
        average: halves the sum of the two directions.
        return_components: also return the parts.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also ``weighted`` and ``reverse``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d + N d d_t) time, O(N d + d d_t) memory plus the tiles.

    >>> import torch
    >>> cwcl(torch.eye(2), torch.eye(2), torch.tensor([[1.0], [-1.0]]), temperature=1.0)
    tensor(0.6265)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    if teacher.dim() != 2 or teacher.shape[0] != z1.shape[0]:
        raise ValueError(f"teacher must have shape ({z1.shape[0]}, features), got shape {tuple(teacher.shape)}")
    if similarity not in ("cosine", "dot"):
        raise ValueError(f"similarity must be 'cosine' or 'dot', got {similarity!r}")
    space, (x, y) = in_space(similarity, z1, z2)
    rows, columns = both_directions(
        x, y, temperature=temperature, similarity=space, rules=(), memory_budget=memory_budget, backend=backend
    )
    t = unit_rows(teacher.detach())[0].to(x.dtype)
    weight_sum = 0.5 * (x.shape[0] + t @ t.sum(dim=0))
    positive_sum = 0.5 * (x @ y.sum(dim=0) + ((t @ (t.T @ y)) * x).sum(dim=1))
    weighted = rows - positive_sum / weight_sum / temperature
    positive = paired_similarity(x, y) / temperature
    if ids is None:
        reverse = columns - positive
    else:
        negatives = pair_logsumexp(
            y,
            x,
            temperature=temperature,
            rules=different_ids(x.shape[0], x.shape[0], ids, ids),
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp
        reverse = softplus(negatives - positive)
    scale = 0.5 if average else 1.0
    parts = {
        "weighted": reduce_anchors(scale * weighted, reduction),
        "reverse": reduce_anchors(scale * reverse, reduction),
    }
    loss = parts["weighted"] + parts["reverse"]
    return (loss, parts) if return_components else loss
