"""Contrast of rows of different classes through a gate that depends on the pair of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    logsumexp_rows,
    refuse_key_ids,
    softplus,
    unit_rows,
)
from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import normalize_rows
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_same_space

__all__ = ["hydra"]


def hydra(
    z: Tensor,
    labels: Tensor,
    partner_labels: Tensor,
    gates: Tensor,
    *,
    include_self: bool = False,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor:
    r"""Pair-conditioned contrast (SimLAP): under the gate of a pair of classes, the partner class is the positive one.

    "Rethinking Positive Pairs in Contrastive Learning", 2024. Confidence: T. Use it to learn in which respects two
    classes (node types, relations) are alike: the gate picks the features in which they are compared.

    .. math:: \ell_{ij} = \cos(z_i \circ g_i, z_j \circ g_i) / \tau, \qquad
        L = \operatorname{mean}_{i, p:\, y_p = y'_i} \log\bigl(1 + e^{N_i - \ell_{ip}}\bigr), \quad
        N_i = \log \sum_{j:\, y_j \notin \{y_i, y'_i\}} e^{\ell_{ij}}

    Args:
        z: ``(N, d)``.
        labels: ``(N,)`` integers, the class y of each anchor.
        partner_labels: ``(N,)`` integers, the class y' it is paired with (a permutation of the labels in training).
        gates: ``(N, d)`` weights of the features, in (0, 1) from `graphcl.losses.PairGate`.
        include_self: where both classes are equal, the anchor is a positive of itself, as released.
        keys: ``(C, d)`` candidates other than ``z``.
        key_labels: ``(C,)`` classes of the keys.
        ids: ``(N,)`` integers; a row with the id of the anchor is neither positive nor negative.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number or 0-dim tensor; the published scale is 10.
        reduction: ``mean`` over all positive pairs, ``sum`` over them, or ``none``.
        memory_budget: upper bound in bytes for a block of pairs (one anchor at least).

    Returns:
        A scalar, or for ``none`` ``(N,)`` with the sum over the positives of each anchor. A positive without negatives
        has loss 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N C d) time with two products a pair (again in backward), O((N + C) d) memory plus one block.

    >>> import torch
    >>> hydra(torch.eye(3), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), torch.ones(3, 3))
    tensor(0.6931)
    """
    check_views("z", z, "gates", gates)
    check_temperature(temperature)
    if isinstance(temperature, Tensor) and temperature.dim() != 0:
        raise ValueError(f"temperature must be a number or a 0-dim tensor, got shape {tuple(temperature.shape)}")
    num = z.shape[0]
    for name, value in (("labels", labels), ("partner_labels", partner_labels)):
        check_indices(name, value, num, None, check=False)
    here = torch.arange(num, device=z.device)
    if keys is None:
        refuse_key_ids(key_ids)
        if key_labels is not None:
            raise ValueError("key_labels belong to keys, got key_labels without keys")
        keys, key_labels = z, labels
        own = own_keys = here if ids is None else ids
        places = here
        different_ids(num, num, ids, ids)
    else:
        check_same_space("z", z, "keys", keys)
        if key_labels is None:
            raise ValueError("keys need key_labels, got None")
        if include_self:
            raise ValueError("include_self needs the anchors as candidates, got keys")
        check_indices("key_labels", key_labels, keys.shape[0], None, check=False)
        named = bool(different_ids(num, keys.shape[0], ids, key_ids))
        # Without ids nothing is left out: the anchors get names that no key has.
        own = ids if named and ids is not None else torch.zeros_like(here)
        places = torch.full_like(key_labels, -1)
        own_keys = key_ids if named and key_ids is not None else places
    x, y = unit_rows(z, keys)
    gate = gates.to(x.dtype)
    candidate_labels: Tensor = key_labels
    rows = (normalize_rows(x * gate) * gate, gate * gate, labels, partner_labels, own, here)
    scale = torch.as_tensor(temperature, dtype=x.dtype, device=x.device).reciprocal()

    def block(
        gated: Tensor,
        square: Tensor,
        label: Tensor,
        partner: Tensor,
        own_rows: Tensor,
        place: Tensor,
        y: Tensor,
        y_square: Tensor,
        scale: Tensor,
    ) -> Tensor:
        length = square @ y_square.T
        gone = length <= torch.finfo(length.dtype).tiny
        nothing_shared = bool(gone.any())
        logits = scale * (gated @ y.T) * (length.masked_fill(gone, 1.0) if nothing_shared else length).rsqrt()
        if nothing_shared:
            logits = logits.masked_fill(gone, 0.0)
        other = own_rows[:, None] != own_keys[None, :]
        allowed = other | (place[:, None] == places[None, :]) if include_self else other
        is_partner = candidate_labels[None, :] == partner[:, None]
        negative = ~is_partner & (candidate_labels[None, :] != label[:, None]) & other
        positive = is_partner & allowed
        total = logsumexp_rows(logits.masked_fill(~negative, -torch.inf))
        row, column = positive.nonzero(as_tuple=True)
        terms = softplus(total[row] - logits[row, column])
        loss = total.new_zeros(total.shape).index_add(0, row, terms)
        return torch.stack([loss, positive.sum(dim=1).to(loss.dtype)], dim=1)

    found = over_row_blocks(
        block, rows, (y, y * y, scale), num_columns=y.shape[0], floats_per_pair=12, memory_budget=memory_budget
    )
    loss, count = found[:, 0], found[:, 1].detach()
    if reduction == "mean":
        return reduce_anchors(loss / count.clamp(min=1.0), valid=count > 0, weight=count)
    return reduce_anchors(loss, reduction)
