"""Adaptive multi-head contrast: several projection heads, and a temperature for every pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphcl.functional._pair_terms import check_views, logsumexp_rows, paired_similarity, softplus, unit_rows
from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices

__all__ = ["amcl"]


def amcl(
    heads1: Sequence[Tensor],
    heads2: Sequence[Tensor],
    temperatures: Sequence[Tensor | nn.Module],
    *,
    ids: Tensor | None = None,
    regularization: float = 0.1,
    floats_per_pair: int = 20,
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
        temperatures: one entry a head: an ``(N, N)`` tensor, or a module from ``(b, d)`` unit rows of the first view
            and the ``(N, d)`` unit rows of the second to ``(b, N)`` temperatures, such as
            `graphcl.losses.PairTemperature`. Modules are called for a block of anchors at a time, again in backward.
        ids: ``(N,)`` integers; other rows with the id of the anchor leave the sums.
        regularization: beta.
        floats_per_pair: how many numbers are held for a pair, backward included; sets the height of a block. About 20
            with `graphcl.losses.PairTemperature`; a network that keeps its hidden layers of all pairs needs more.
        return_components: also return the parts.
        reduction: over the N anchors: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for a block (one anchor at least).

    Returns:
        A scalar, or ``(N,)`` for ``none``; with ``return_components`` also ``info_nce`` and ``regularization``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(H N^2 (d + h)) time with h for the temperature module; O(H N d) memory plus a block, when the
    temperatures are modules.

    >>> import torch
    >>> amcl([torch.eye(3)], [torch.eye(3)], [torch.ones(3, 3)], regularization=0.0)
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
        if not isinstance(temperature, Tensor | nn.Module):
            raise TypeError(f"temperatures must be tensors or modules, got {type(temperature).__name__}")
        terms = _terms_by_blocks(x, y, temperature, ids, floats_per_pair, memory_budget)
        contrast.append(terms[:, 0])
        penalty.append(terms[:, 1])
    parts = {
        "info_nce": reduce_anchors(torch.stack(contrast).sum(dim=0), reduction),
        "regularization": reduce_anchors(regularization * torch.stack(penalty).sum(dim=0), reduction),
    }
    loss = parts["info_nce"] + parts["regularization"]
    return (loss, parts) if return_components else loss


def _terms_by_blocks(
    x: Tensor,
    y: Tensor,
    temperature: Tensor | nn.Module,
    ids: Tensor | None,
    floats_per_pair: int,
    memory_budget: int,
) -> Tensor:
    """``(N, 2)`` InfoNCE and regulariser of every anchor."""
    rows = [x, y, torch.arange(x.shape[0], device=x.device)]
    # Temperatures come as rows of a matrix, or from a network on a block of anchors and all candidates.
    parameters = {} if isinstance(temperature, Tensor) else dict(temperature.named_parameters())
    if isinstance(temperature, Tensor):
        rows.append(temperature)

    def terms(anchors: Tensor, positives: Tensor, own: Tensor, *rest: Tensor) -> Tensor:
        if isinstance(temperature, Tensor):
            tau, candidates = rest
        else:
            candidates, *weights = rest
            tau = functional_call(temperature, dict(zip(parameters, weights, strict=True)), (anchors, candidates))
        equal = None if ids is None else ids[own][:, None] == ids[None, :]
        return torch.stack(_terms(anchors, positives, candidates, tau, own, equal), dim=1)

    shared = [y, *parameters.values()]
    return over_row_blocks(
        terms, rows, shared, num_columns=x.shape[0], floats_per_pair=floats_per_pair, memory_budget=memory_budget
    )


def _terms(
    anchors: Tensor, positives: Tensor, candidates: Tensor, tau: Tensor, own_column: Tensor, left_out: Tensor | None
) -> tuple[Tensor, Tensor]:
    num = anchors.shape[0]
    if tau.shape != (num, candidates.shape[0]):
        raise ValueError(
            f"a temperature module must return shape ({num}, {candidates.shape[0]}), got shape {tuple(tau.shape)}"
        )
    own = torch.arange(num, device=tau.device), own_column
    logits = (anchors @ candidates.T) / tau
    positive = paired_similarity(anchors, positives) / tau[own]
    energy = 0.5 * anchors.shape[1] * torch.log(tau) + 1.0 / tau
    if left_out is None:
        negatives = logsumexp_rows(logits.index_put(own, logits.new_tensor(-torch.inf)))
        return softplus(negatives - positive), energy.mean(dim=1)
    negatives = logsumexp_rows(logits.masked_fill(left_out, -torch.inf))
    used = (~left_out).index_put(own, left_out.new_tensor(True))
    penalty = torch.where(used, energy, torch.zeros_like(energy)).sum(dim=1) / used.sum(dim=1)
    return softplus(negatives - positive), penalty
