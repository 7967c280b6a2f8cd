"""The contrastive term of cMIM: one view, and negatives that count by their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    count_different,
    different_ids,
    in_space,
    paired_similarity,
    refuse_key_ids,
    softplus,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_matrix, check_same_space

__all__ = ["cmim"]


def cmim(
    z: Tensor,
    second_draw: Tensor | None = None,
    *,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Contrast of one view with itself, insensitive to the batch size because negatives enter by their mean.

    "cMIM: A Contrastive Mutual Information Framework for Unified Generative and Discriminative Representation
    Learning". Confidence: U, the form is this package's convention. Use it beside a reconstruction term, when no
    augmentation makes sense.

    .. math:: L_i = -\log \frac{g_{ii}}{g_{ii} + \operatorname{mean}_{j \ne i} g_{ij}}, \qquad
        g_{ij} = e^{\cos(z_i, z_j) / \tau}

    Args:
        z: ``(N, d)``.
        second_draw: ``(N, d)`` second draw from the encoder's distribution for the self term; ``z`` itself by default.
        keys: ``(C, d)`` negatives instead of the other rows of ``z``.
        ids: ``(N,)`` integers; a candidate with the id of the anchor is never its negative.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``. An anchor without negatives has loss 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> cmim(torch.eye(3), temperature=1.0)
    tensor(0.3133)
    """
    check_matrix("z", z)
    check_temperature(temperature)
    twin = z if second_draw is None else second_draw
    check_views("z", z, "second_draw", twin)
    space, (x, self_term) = in_space("cosine", z, twin)
    num = x.shape[0]
    if keys is None:
        refuse_key_ids(key_ids)
        y, key_ids = x, ids
        rules: tuple[CandidateRule, ...] = different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)
    else:
        check_same_space("z", z, "keys", keys)
        (y,) = in_space("cosine", keys)[1]
        rules = different_ids(num, keys.shape[0], ids, key_ids)
    if ids is not None and key_ids is not None:
        count = count_different(ids, key_ids)
    else:
        count = torch.full((num,), y.shape[0] - (1 if keys is None else 0), device=x.device)
    negatives = pair_logsumexp(
        x, y, temperature=temperature, similarity=space, rules=rules, memory_budget=memory_budget, backend=backend
    ).logsumexp - torch.log(count.clamp(min=1).to(x.dtype))
    positive = paired_similarity(x, self_term) / temperature
    return reduce_anchors(softplus(negatives - positive), reduction, weight=weight)
