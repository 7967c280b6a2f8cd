"""Adaptive multi-head contrast: several projection heads, and a temperature for every pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from graphcl.functional._pair_terms import check_views, logsumexp_rows, paired_similarity, softplus, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices

__all__ = ["PairTemperatureFunction", "amcl"]

#: From ``(b, d)`` unit anchors and ``(C, d)`` unit candidates to ``(b, C)`` positive temperatures.
PairTemperatureFunction = Callable[[Tensor, Tensor], Tensor]


def amcl(
    heads1: Sequence[Tensor],
    heads2: Sequence[Tensor],
    temperatures: Sequence[Tensor | PairTemperatureFunction],
    *,
    ids: Tensor | None = None,
    regularization: float = 0.1,
    floats_per_pair: int = 4,
    return_components: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Sum over projection heads of InfoNCE with a learned temperature for every pair.

    "Adaptive Multi-head Contrastive Learning". Confidence: U: summing over heads, the scale of the regulariser and the
    pairs it runs over are this package's convention. Use it when one similarity is too few: views that agree in some
    respects and differ in others.

    .. math:: L = \sum_c \Bigl( -\operatorname{mean}_i \log
        \frac{e^{s^c_{ii}/\tau^c_{ii}}}{\sum_j e^{s^c_{ij}/\tau^c_{ij}}}
        + \beta \operatorname{mean}_{ij} \bigl( \tfrac d2 \log \tau^c_{ij} + 1/\tau^c_{ij} \bigr) \Bigr)

    Args:
        heads1: one ``(N, d)`` projection of the first view a head.
        heads2: one ``(N, d)`` projection of the second view a head.
        temperatures: one entry a head: an ``(N, N)`` tensor, or a function from ``(b, d)`` unit rows of the first view
            and the ``(N, d)`` unit rows of the second to ``(b, N)`` temperatures. Functions (a module such as
            `graphcl.losses.PairTemperature`) are called for a block of anchors at a time, again in backward.
        ids: ``(N,)`` integers; other rows with the id of the anchor leave the sums.
        regularization: beta.
        floats_per_pair: how many numbers a temperature function holds for a pair; sets the height of a block.
        return_components: also return the parts.
        reduction: over the N anchors: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for a block (one anchor at least).

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also ``info_nce`` and ``regularization``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(H N^2 (d + h)) time with h for the temperature function; O(H N d) memory plus a block, when the
    temperatures are functions.

    >>> import torch
    >>> constant = lambda anchors, candidates: torch.ones(len(anchors), len(candidates))
    >>> amcl([torch.eye(3)], [torch.eye(3)], [constant], regularization=0.0)
    tensor(0.5514)
    """
    if not 0 < len(heads1) == len(heads2) == len(temperatures):
        raise ValueError(
            "heads1, heads2 and temperatures must hold one entry a head, "
            f"got {len(heads1)}, {len(heads2)} and {len(temperatures)}"
        )
    check_block_size("memory_budget", memory_budget)
    check_block_size("floats_per_pair", floats_per_pair)
    num = heads1[0].shape[0]
    if ids is not None:
        check_indices("ids", ids, num, None, check=False)
    contrast, penalty = [], []
    for first, second, temperature in zip(heads1, heads2, temperatures, strict=True):
        check_views("heads1", first, "heads2", second)
        check_views("heads1", heads1[0][:, :1], "heads1 of another head", first[:, :1])
        x, y = unit_rows(first, second)
        if isinstance(temperature, Tensor) and temperature.shape != (num, num):
            raise ValueError(f"temperatures must have shape ({num}, {num}), got shape {tuple(temperature.shape)}")
        height = max(1, memory_budget // max(1, floats_per_pair * num * x.element_size()))
        blocks = [
            checkpoint(_block, x, y, temperature, start, min(start + height, num), ids, use_reentrant=False)
            for start in range(0, num, height)
        ]
        contrast.append(torch.cat([block[0] for block in blocks]) if blocks else x.sum(dim=1))
        penalty.append(torch.cat([block[1] for block in blocks]) if blocks else x.sum(dim=1))
    parts = {
        "info_nce": reduce_anchors(torch.stack(contrast).sum(dim=0), reduction),
        "regularization": reduce_anchors(regularization * torch.stack(penalty).sum(dim=0), reduction),
    }
    loss = parts["info_nce"] + parts["regularization"]
    return (loss, parts) if return_components else loss


def _block(
    x: Tensor,
    y: Tensor,
    temperature: Tensor | PairTemperatureFunction,
    start: int,
    stop: int,
    ids: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE and regulariser of the anchors ``start .. stop - 1``."""
    rows = torch.arange(start, stop, device=x.device)
    tau = temperature[start:stop] if isinstance(temperature, Tensor) else temperature(x[start:stop], y)
    if tau.shape != (stop - start, y.shape[0]):
        raise ValueError(
            f"a temperature function must return shape ({stop - start}, {y.shape[0]}), got shape {tuple(tau.shape)}"
        )
    own = torch.zeros(tau.shape, dtype=torch.bool, device=x.device)
    own[rows - start, rows] = True
    left_out = own if ids is None else ids[start:stop, None] == ids[None, :]
    logits = (x[start:stop] @ y.T) / tau
    negatives = logsumexp_rows(logits.masked_fill(left_out, -torch.inf))
    positive = paired_similarity(x[start:stop], y[start:stop]) / tau[rows - start, rows]
    energy = 0.5 * x.shape[1] * torch.log(tau) + 1.0 / tau
    used = own | ~left_out
    penalty = torch.where(used, energy, torch.zeros_like(energy)).sum(dim=1) / used.sum(dim=1)
    return softplus(negatives - positive), penalty
