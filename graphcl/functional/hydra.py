"""Contrast of rows of different classes through a gate that depends on the pair of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    logsumexp_rows,
    refuse_key_ids,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import normalize_rows
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_same_space
from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels._tiles import split

__all__ = ["hydra"]

_BUFFERS = 6  # tiles of temporaries beside the logits of a block


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
    pairs = _PairMasks(
        anchors=_codes(x.dtype, labels, key_labels, partner_labels),
        names=_codes(x.dtype, own, own_keys),
        places=_codes(x.dtype, here, places) if include_self else None,
    )
    with torch.autocast(x.device.type, enabled=False):
        loss, count = _GatedContrast.apply(  # type: ignore[no-untyped-call]
            normalize_rows(x * gate) * gate,
            gate * gate,
            y,
            y * y,
            torch.as_tensor(temperature, dtype=x.dtype, device=x.device).reciprocal(),
            pairs,
            memory_budget,
        )
    if reduction == "mean":
        return reduce_anchors(loss / count.clamp(min=1.0), valid=count > 0, weight=count)
    return reduce_anchors(loss, reduction)


def _codes(dtype: torch.dtype, *ids: Tensor) -> list[Tensor]:
    """Integers renumbered together as floats, which compare faster than integers and write masks that multiply."""
    codes = torch.unique(torch.cat([part.long() for part in ids]), return_inverse=True)[1]
    # 2^24 is where float32 stops counting one by one.
    wide = dtype if codes.numel() <= 2**24 else torch.float64
    return list(codes.to(wide).split([part.shape[0] for part in ids]))


class _PairMasks:
    """Which keys are positives and negatives of an anchor, as tiles of 0 and 1."""

    def __init__(self, anchors: list[Tensor], names: list[Tensor], places: list[Tensor] | None) -> None:
        self.label, self.key_label, self.partner = anchors
        self.name, self.key_name = names
        self.places = places

    def positive(self, rows: slice, columns: slice, like: Tensor) -> Tensor:
        allowed = torch.ne(self.name[rows, None], self.key_name[columns], out=torch.empty_like(like))
        partner = torch.eq(self.partner[rows, None], self.key_label[columns], out=torch.empty_like(like))
        if self.places is None:
            return partner.mul_(allowed)
        place, key_place = self.places
        itself = torch.eq(place[rows, None], key_place[columns], out=torch.empty_like(like))
        return partner.mul_(torch.maximum(allowed, itself, out=allowed))

    def negative(self, rows: slice, columns: slice, like: Tensor) -> Tensor:
        found = torch.ne(self.name[rows, None], self.key_name[columns], out=torch.empty_like(like))
        other = torch.empty_like(like)
        for label in (self.label, self.partner):
            found.mul_(torch.ne(label[rows, None], self.key_label[columns], out=other))
        return found


class _GatedContrast(torch.autograd.Function):
    r"""Sum over the positives of each anchor, and their number.

    With a the gated unit anchors, b the squared gates and y the unit keys, :math:`l = s\, r \langle a, y \rangle`,
    :math:`r = \langle b, y^2 \rangle^{-1/2}`; with :math:`S_i = \sum_p \sigma(N_i - l_{ip})` the gradient of the sum
    is :math:`\partial l_{ij} = S_i e^{l_{ij} - N_i}` at negatives and :math:`-\sigma(N_i - l_{ij})` at positives. A
    block of anchors keeps its logits until N is known; backward computes them again in tiles that stay in cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        y: Tensor,
        y_square: Tensor,
        scale: Tensor,
        pairs: _PairMasks,
        memory_budget: int,
    ) -> tuple[Tensor, Tensor]:
        height, width = _tile_shape(y, memory_budget)
        negatives, pull = a.new_full(a.shape[:1], -torch.inf), a.new_zeros(a.shape[0])
        loss, count = torch.zeros_like(pull), torch.zeros_like(pull)
        for rows in split(a.shape[0], height):
            tiles = []
            for columns in split(y.shape[0], width):
                logits, _ = _gated_logits(a[rows] * scale, b[rows], y[columns], y_square[columns])
                tiles.append((columns, logits))
                allowed = pairs.negative(rows, columns, logits).log_().add_(logits)
                negatives[rows] = torch.logaddexp(negatives[rows], logsumexp_rows(allowed))
            for columns, logits in tiles:
                positive = pairs.positive(rows, columns, logits)
                count[rows] += positive.sum(dim=1)
                margin = logits.sub_(negatives[rows, None])
                pull[rows] += torch.sigmoid(-margin).mul_(positive).sum(dim=1)
                loss[rows] -= torch.nn.functional.logsigmoid(margin).mul_(positive).sum(dim=1)
        ctx.save_for_backward(a, b, y, y_square, scale, negatives, pull)
        ctx.pairs, ctx.tile_shape = pairs, (height, width)
        ctx.mark_non_differentiable(count)
        return loss, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        a, b, y, y_square, scale, negatives, pull = ctx.saved_tensors
        pairs: _PairMasks = ctx.pairs
        height, width = ctx.tile_shape
        alone = negatives == -torch.inf
        level, upstream = negatives.masked_fill(alone, 0.0), upstream.masked_fill(alone, 0.0)
        da, db, dscale = torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(scale)
        # Transposed: the faster product.
        dy, dy_square = (y.new_zeros(y.shape[1], y.shape[0]) for _ in range(2))
        for rows in split(a.shape[0], height):
            for columns in split(y.shape[0], width):
                logits, inverse = _gated_logits(a[rows] * scale, b[rows], y[columns], y_square[columns])
                margin = logits - level[rows, None]
                slope = torch.sigmoid(-margin).mul_(pairs.positive(rows, columns, logits)).neg_()
                # Positives may lie far above the negatives.
                share = margin.clamp_(max=0.0).exp_().mul_(pairs.negative(rows, columns, logits))
                slope.addcmul_(share, pull[rows, None].expand_as(share)).mul_(upstream[rows, None])
                to_length = logits.mul_(slope)
                dscale += to_length.sum() / scale
                to_length.mul_(inverse).mul_(inverse).mul_(-0.5)
                to_product = slope.mul_(inverse).mul_(scale)
                da[rows] += matmul_nt(to_product, y[columns].T)
                db[rows] += matmul_nt(to_length, y_square[columns].T)
                dy[:, columns] += matmul_nt(a[rows].T.contiguous(), to_product.T)
                dy_square[:, columns] += matmul_nt(b[rows].T.contiguous(), to_length.T)
        return da, db, dy.T, dy_square.T, dscale, None, None


def _tile_shape(y: Tensor, memory_budget: int) -> tuple[int, int]:
    """Anchors whose logits over all keys fit the budget with the buffers of a tile, and keys of a tile."""
    check_block_size("memory_budget", memory_budget)
    most_rows, most_columns = (256, 1024) if y.device.type == "cpu" else (4096, 16_384)
    width = max(1, min(y.shape[0], most_columns))
    height = memory_budget // ((y.shape[0] + _BUFFERS * width) * y.element_size())
    return max(1, min(most_rows, height)), width


def _gated_logits(a: Tensor, b: Tensor, y: Tensor, y_square: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of a tile and the inverse length of its gated keys, 0 where the gate leaves nothing of a key."""
    inverse = matmul_nt(b, y_square)
    least = torch.finfo(inverse.dtype).tiny
    gone = inverse <= least if bool((inverse <= least).any()) else None
    inverse.clamp_(min=least).rsqrt_()
    if gone is not None:
        inverse.masked_fill_(gone, 0.0)
    return matmul_nt(a, y).mul_(inverse), inverse
