"""Contrast at the levels of observation, sample, trial and patient (COMET)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from graphcl.functional._group_sums import group_sums
from graphcl.functional._pair_terms import check_temperature
from graphcl.functional.infonce import nt_xent
from graphcl.functional.reduction import Reduction, check_reduction, reduce_anchors
from graphcl.kernels import Backend, normalize_rows, pair_logsumexp_both
from graphcl.kernels._arguments import FLOAT_TYPES, MEMORY_BUDGET, check_indices, compute_dtype

__all__ = ["comet", "comet_id", "comet_observation", "comet_sample"]


def comet_sample(
    h1: Tensor,
    h2: Tensor,
    *,
    ids: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    pyramid: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Sample level of COMET: at every time, a sample finds its other view among all samples.

    Y. Wang, Y. Han, H. Wang, X. Zhang, "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time
    Series", 2023, https://arxiv.org/abs/2310.14017. Confidence: V. On graphs: subgraphs, at every node.

    Use it when whole series, or subgraphs, must be told apart at every time step or node.

    .. math:: L = \operatorname{mean}_t \text{NT-Xent}(h^1_{:, t}, h^2_{:, t}), \quad
        s = \text{raw inner product}

    Args:
        h1: ``(B, T, C)`` first view.
        h2: ``(B, T, C)`` second view.
        ids: ``(B,)`` integers; samples with equal ids are never negatives of each other.
        temperature: positive number or 0-dim tensor; 1 as published.
        pyramid: averages over max-pooled halvings of time, down to length 1.
        reduction: ``mean``, ``sum``, or (without ``pyramid``) ``none`` for ``(T, 2 B)``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(T, 2 B)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(T B^2 C) time, O(T B C) memory plus the tiles of one time.

    >>> import torch
    >>> h = torch.eye(2)[:, None, :]
    >>> comet_sample(h, h)
    tensor(0.5514)
    """

    def level(first: Tensor, second: Tensor) -> Tensor:
        return _over_slices(first.unbind(1), second.unbind(1), ids, temperature, memory_budget, backend)

    return _scales(h1, h2, level, pyramid, reduction)


def comet_observation(
    h1: Tensor,
    h2: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    pyramid: bool = False,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Observation level of COMET: within a sample, a time finds itself in the other view among all times.

    Y. Wang, Y. Han, H. Wang, X. Zhang, "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time
    Series", 2023, https://arxiv.org/abs/2310.14017. Confidence: V. On graphs: nodes, in every subgraph.

    Use it when single time steps, or nodes within a sampled subgraph, must stay recognisable.

    .. math:: L = \operatorname{mean}_i \text{NT-Xent}(h^1_{i, :}, h^2_{i, :}), \quad s = \text{raw inner product}

    Args:
        h1: ``(B, T, C)`` first view.
        h2: ``(B, T, C)`` second view.
        temperature: positive number or 0-dim tensor; 1 as published.
        pyramid: averages over max-pooled halvings of time, down to length 1 (which adds 0).
        reduction: ``mean``, ``sum``, or (without ``pyramid``) ``none`` for ``(B, 2 T)``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(B, 2 T)``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(B T^2 C) time, O(B T C) memory plus the tiles of one sample.

    >>> import torch
    >>> h = torch.eye(2)[None]
    >>> comet_observation(h, h)
    tensor(0.5514)
    """

    def level(first: Tensor, second: Tensor) -> Tensor:
        return _over_slices(first.unbind(0), second.unbind(0), None, temperature, memory_budget, backend)

    return _scales(h1, h2, level, pyramid, reduction)


def comet_id(
    h1: Tensor,
    h2: Tensor,
    ids: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    normalize_time: bool = True,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Trial and patient levels of COMET: samples of one id attract each other.

    Y. Wang, Y. Han, H. Wang, X. Zhang, "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time
    Series", 2023, https://arxiv.org/abs/2310.14017. Confidence: V. On graphs: subgraphs of one component or domain.

    Use it for series, or subgraphs, of which several come from one trial, patient or component.

    .. math:: L = -\frac12 \operatorname{mean}_{i < j,\, y_i = y_j} \log
        \frac{e^{s_{ij}/\tau}}{\sum_k e^{s_{ik}/\tau}} - \frac12 \operatorname{mean}_{i > j,\, y_i = y_j}
        \log \frac{e^{s_{ij}/\tau}}{\sum_k e^{s_{kj}/\tau}}, \qquad s_{ij} = \cos(h^1_i, h^2_j)

    As released, the pair of a sample with itself stays in the denominators but is no positive, and embeddings are
    normalised along time before they are flattened.

    Args:
        h1: ``(B, T, C)`` first view.
        h2: ``(B, T, C)`` second view.
        ids: ``(B,)`` integers, trials or patients.
        temperature: positive number or 0-dim tensor.
        normalize_time: False leaves out the normalisation along time.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp_both`.

    Returns:
        A scalar; 0 when no two samples share an id.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(B^2 T C) time, O(B T C) memory plus the tiles.

    >>> import torch
    >>> h = torch.eye(3)[:, None, :]
    >>> comet_id(h, h, torch.tensor([0, 0, 1]), temperature=1.0)
    tensor(1.5514)
    """
    _check_series(h1, h2)
    check_indices("ids", ids, h1.shape[0], None, check=False)
    check_temperature(temperature)
    x, y = (_flat_unit(h, normalize_time) for h in (h1, h2))
    both = pair_logsumexp_both(x, y, temperature=temperature, memory_budget=memory_budget, backend=backend)
    same, count = group_sums(ids, ids, y)
    pairs = int((count - 1).sum())
    # Every pair above the diagonal takes the row sum of its earlier sample, below it the column sum of that sample.
    later = count - 1 - _rank_in_group(ids)
    total = later.to(x.dtype) * (both.rows + both.columns) - (x * (same - y)).sum(dim=1) / temperature
    # With an id of its own a sample is in no pair.
    return reduce_anchors(total, "sum", valid=count > 1) / max(pairs, 1)


def comet(
    h1: Tensor,
    h2: Tensor,
    trials: Tensor,
    patients: Tensor,
    *,
    weights: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
    id_temperature: float | Tensor = 0.1,
    pyramid: bool = True,
    return_components: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""COMET: the weighted sum of its four levels.

    Y. Wang, Y. Han, H. Wang, X. Zhang, "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time
    Series", 2023, https://arxiv.org/abs/2310.14017. Confidence: V. Use it when samples nest: observations in samples in
    trials in patients, or nodes in subgraphs in components in domains.

    .. math:: L = w_1 L_{observation} + w_2 L_{sample} + w_3 L_{trial} + w_4 L_{patient}

    Args:
        h1: ``(B, T, C)`` first view.
        h2: ``(B, T, C)`` second view.
        trials: ``(B,)`` integers.
        patients: ``(B,)`` integers.
        weights: of observation, sample, trial and patient level.
        id_temperature: of trial and patient level; the others have 1.
        pyramid: of observation and sample level.
        return_components: also return the parts.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, with ``return_components`` also ``observation``, ``sample``, ``trial`` and ``patient``, each before
        its weight.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(T B^2 C + B T^2 C) time, O(B T C) memory plus the tiles.

    >>> import torch
    >>> h = torch.eye(2)[:, None, :]
    >>> comet(h, h, torch.tensor([0, 1]), torch.tensor([0, 1]))
    tensor(0.1379)
    """
    if len(weights) != 4:
        raise ValueError(f"weights must hold 4 numbers (observation, sample, trial, patient), got {len(weights)}")

    def by_id(ids: Tensor) -> Tensor:
        return comet_id(h1, h2, ids, temperature=id_temperature, memory_budget=memory_budget, backend=backend)

    parts = {
        "observation": comet_observation(h1, h2, pyramid=pyramid, memory_budget=memory_budget, backend=backend),
        "sample": comet_sample(h1, h2, pyramid=pyramid, memory_budget=memory_budget, backend=backend),
        "trial": by_id(trials),
        "patient": by_id(patients),
    }
    loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
    return (loss, parts) if return_components else loss


def _check_series(h1: Tensor, h2: Tensor) -> None:
    for name, value in (("h1", h1), ("h2", h2)):
        if value.dim() != 3:
            raise ValueError(f"{name} must have shape (batch, time, channels), got shape {tuple(value.shape)}")
        if value.dtype not in FLOAT_TYPES:
            raise TypeError(f"{name} must be a float tensor, got dtype {value.dtype}")
    if h1.shape != h2.shape or h1.dtype != h2.dtype:
        raise ValueError(
            f"h1 and h2 must have one shape and dtype, got {tuple(h1.shape)} of {h1.dtype} "
            f"and {tuple(h2.shape)} of {h2.dtype}"
        )


def _over_slices(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    ids: Tensor | None,
    temperature: float | Tensor,
    memory_budget: int,
    backend: Backend,
) -> Tensor:
    """``(slices, 2 rows)`` losses of NT-Xent on raw inner products, one slice at a time."""
    return torch.stack(
        [
            nt_xent(
                x,
                y,
                ids=ids,
                temperature=temperature,
                similarity="dot",
                reduction="none",
                memory_budget=memory_budget,
                backend=backend,
            )
            for x, y in zip(first, second, strict=True)
        ]
    )


def _scales(
    h1: Tensor, h2: Tensor, level: Callable[[Tensor, Tensor], Tensor], pyramid: bool, reduction: Reduction
) -> Tensor:
    """One level on the series as they are, or averaged over halvings of their length."""
    _check_series(h1, h2)
    check_reduction(reduction)
    if pyramid and reduction == "none":
        raise ValueError("reduction must be 'mean' or 'sum' with a pyramid, whose scales differ in length, got 'none'")
    if h1.shape[0] == 0 or h1.shape[1] == 0:
        return (h1.sum() + h2.sum()) * 0.0
    losses = level(h1, h2)
    if reduction == "none":
        return losses
    values = [reduce_anchors(losses.flatten(), reduction)]
    while pyramid and h1.shape[1] > 1:
        h1, h2 = (functional.max_pool1d(h.transpose(1, 2), 2).transpose(1, 2) for h in (h1, h2))
        values.append(reduce_anchors(level(h1, h2).flatten(), reduction))
    return torch.stack(values).mean()


def _flat_unit(h: Tensor, normalize_time: bool) -> Tensor:
    """``(B, T C)`` unit rows, from series whose channels are first scaled to unit length along time."""
    wide = h.to(compute_dtype(h.dtype))
    if normalize_time:
        batch, time, channels = wide.shape
        along_time = wide.transpose(1, 2).reshape(batch * channels, time)
        wide = normalize_rows(along_time).reshape(batch, channels, time).transpose(1, 2)
    return normalize_rows(wide.flatten(1))


def _rank_in_group(groups: Tensor) -> Tensor:
    """How many earlier entries share the group of each entry."""
    ordered, order = torch.sort(groups, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.shape[0], device=order.device) - torch.searchsorted(ordered, ordered)
    return rank
