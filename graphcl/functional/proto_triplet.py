"""Triplet hinge on distances to prototypes (Proto-Triplet)."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_same_space, compute_dtype

__all__ = ["proto_triplet"]


def proto_triplet(
    embeddings: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.5,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    r"""Proto-Triplet: every row is nearer to its own prototype than to each other one, by a margin.

    After M. Mendez-Ruiz et al., "SuSana Distancia is all you need: Enforcing class separability in metric learning via
    two novel distance-based loss functions for few-shot image classification", 2023, https://arxiv.org/abs/2305.09062.
    Confidence: U; the exact form is a convention of this package.

    Use it in few-shot episodes, with prototypes from the support rows.

    .. math:: L_i = \frac{1}{K - 1} \sum_{c \ne y_i} \bigl[ \|q_i - p_{y_i}\| - \|q_i - p_c\| + m \bigr]_+

    Args:
        embeddings: ``(N, d)`` rows q, used as they are.
        prototypes: ``(K, d)``, for instance the class means of a support set.
        labels: ``(N,)`` integers in ``0 .. K - 1``.
        margin: m.
        weight: ``(N,)`` non-negative weights of the rows.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the distances held at once.

    Returns:
        A scalar, or ``(N,)`` for ``none``; 0 with a single prototype.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N K d) time, O((N + K) d) memory plus one block of distances, also in backward.

    >>> import torch
    >>> proto_triplet(torch.tensor([[0.0], [3.0]]), torch.tensor([[0.0], [3.0]]), torch.tensor([0, 0]))
    tensor(1.7500)
    """
    check_same_space("embeddings", embeddings, "prototypes", prototypes)
    check_indices("labels", labels, embeddings.shape[0], prototypes.shape[0], check=True)
    check_block_size("memory_budget", memory_budget)
    wide = compute_dtype(embeddings.dtype)
    rows, centers = embeddings.to(wide), prototypes.to(wide)
    num_classes = centers.shape[0]

    def hinge(block: Tensor, label: Tensor, points: Tensor) -> Tensor:
        # Plain differences, not an expanded square: the hinge compares distances that may be close.
        distance = torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")
        excess = torch.relu(distance.gather(1, label[:, None]) - distance + margin)
        return excess.scatter(1, label[:, None], 0.0).sum(dim=1) / max(num_classes - 1, 1)

    loss = over_row_blocks(
        hinge,
        (rows, labels.long()),
        (centers,),
        num_columns=num_classes,
        floats_per_pair=6,
        memory_budget=memory_budget,
    )
    return reduce_anchors(loss, reduction, weight=weight)
