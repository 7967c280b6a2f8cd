"""Reference backend of the pair kernels: the dense matrix and torch's own differentiation."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.kernels._arguments import compute_dtype
from graphcl.kernels._product import ScaledProduct
from graphcl.kernels.rules import combine_rules


def dense_logits(product: ScaledProduct) -> tuple[Tensor, Tensor]:
    """Similarities and logits as ``(A, C)`` matrices; forbidden pairs hold -inf."""
    wide = compute_dtype(product.x.dtype)
    rows, columns = slice(0, product.num_anchors), slice(0, product.num_candidates)
    similarity = product.x.to(wide) @ product.y.to(wide).T
    scale = product.row_scale
    logits = similarity * (scale[:, None] if isinstance(scale, Tensor) else scale)
    if product.column_scale is not None:
        logits = logits * product.column_scale[None, :]
    if product.row_bias is not None:
        logits = logits + product.row_bias[:, None]
    if product.column_bias is not None:
        logits = logits + product.column_bias[None, :]
    weight = combine_rules(product.rules, product.tile(rows, columns))
    if weight is None:
        return similarity, logits.masked_fill(torch.ones_like(logits, dtype=torch.bool), -torch.inf)
    for log_weight in weight.log_weights:
        logits = logits + log_weight.detach().to(wide)
    if weight.mask is not None:
        logits = logits.masked_fill(~weight.mask, -torch.inf)
    for positions in weight.excluded:
        hole = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        hole.view(-1)[positions] = True
        logits = logits.masked_fill(hole, -torch.inf)
    return similarity, logits


def row_logsumexp(logits: Tensor) -> Tensor:
    """Log-sum-exp over columns; an all -inf row gives -inf with zero gradient."""
    dead = (logits == -torch.inf).all(dim=1)
    if logits.shape[1] == 0:
        return logits.sum(dim=1).masked_fill(dead, -torch.inf)
    alive = logits.masked_fill(dead[:, None], 0.0)
    return torch.logsumexp(alive, dim=1).masked_fill(dead, -torch.inf)


def logsumexp(product: ScaledProduct, moments: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    similarity, logits = dense_logits(product)
    total = row_logsumexp(logits)
    if moments == 0:
        return total, None, None
    dead = (total == -torch.inf)[:, None]
    share = torch.softmax(logits.masked_fill(dead, 0.0), dim=1).masked_fill(dead, 0.0)
    # The shares sum to 1, so the centre drops out; without it large similarities cancel in the gradient.
    centre = (share * similarity).sum(dim=1, keepdim=True).detach()
    mean = (share * (similarity - centre)).sum(dim=1) + centre[:, 0]
    variance = (share * (similarity - mean[:, None]) ** 2).sum(dim=1) if moments == 2 else None
    return total, mean, variance


def logsumexp_both(product: ScaledProduct) -> tuple[Tensor, Tensor]:
    logits = dense_logits(product)[1]
    return row_logsumexp(logits), row_logsumexp(logits.T)
