"""Events of several typed entities as an unnormalised model, fitted by noise-contrastive estimation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphcl.functional._draws import draw_integers, draw_uniform
from graphcl.functional._pair_terms import softplus
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import check_matrix, check_vector, compute_dtype

__all__ = [
    "NoiseEvents",
    "ape_nce",
    "draw_noise_events",
    "event_score",
    "noise_contrastive_estimation",
    "unigram_log_probabilities",
]


class NoiseEvents(NamedTuple):
    """Noise draws: in draw r of event b the value of type ``types[b, r]`` becomes ``values[b, r]``; ``(B, k)`` each."""

    types: Tensor
    values: Tensor


def noise_contrastive_estimation(data_logits: Tensor, noise_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Logistic loss that tells data from noise: noise-contrastive estimation of an unnormalised model.

    M. Gutmann, A. Hyvarinen, "Noise-contrastive estimation: A new estimation principle for unnormalized statistical
    models", 2010. Confidence: C. Logits are ``score + c - log k - log p_noise``; with a learned c the term log k is
    redundant.

    Use it to train a score whose normaliser has too many terms to sum.

    .. math:: L_b = \operatorname{mean}_r \log(1 + e^{-\ell_{br}}) + \sum_r \log(1 + e^{\ell'_{br}})

    Args:
        data_logits: ``(B,)`` logits of the data, or ``(B, k)``, one for every paired draw, averaged.
        noise_logits: ``(B, k)`` logits of the noise.
        reduction: ``mean`` over the B data points, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(B,)`` for ``none``.

    Raises:
        ValueError: shapes that do not match.

    Complexity: O(B k).

    >>> import torch
    >>> noise_contrastive_estimation(torch.zeros(2), torch.zeros(2, 3))
    tensor(2.7726)
    """
    if noise_logits.dim() != 2 or data_logits.shape not in (noise_logits.shape[:1], noise_logits.shape):
        raise ValueError(
            "noise_logits must have shape (B, k) and data_logits (B,) or (B, k), "
            f"got {tuple(noise_logits.shape)} and {tuple(data_logits.shape)}"
        )
    data = softplus(-data_logits)
    if data.dim() == 2:
        data = data.sum(dim=1) / max(data.shape[1], 1)
    return reduce_anchors(data + softplus(noise_logits).sum(dim=1), reduction)


def event_score(
    tables: Sequence[Tensor],
    events: Tensor,
    pair_weights: Tensor | None = None,
    *,
    type_weights: Tensor | None = None,
) -> Tensor:
    r"""Score of events: weighted sum of the inner products of their entities. Minus the score measures anomaly.

    "Entity Embedding-based Anomaly Detection for Heterogeneous Categorical Events", 2016. Confidence: P.

    .. math:: S(e) = \sum_{i < j} w_{ij} \langle v_{a_i}, v_{a_j} \rangle

    Args:
        tables: embeddings of the entities of each of the m types, ``(A_i, d)``.
        events: ``(B, m)`` integers, the entity of each type.
        pair_weights: ``(m (m - 1) / 2,)`` w in the order (0,1), (0,2), ..., (1,2), ...; ones by default.
        type_weights: ``(m,)`` instead: :math:`w_{ij} = a_i a_j`, in O(B m d) time.

    Returns:
        ``(B,)``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(B m^2 d) time, O(B m d) memory.

    >>> import torch
    >>> event_score([torch.ones(2, 3), 2 * torch.ones(4, 3)], torch.tensor([[1, 3]]))
    tensor([6.])
    """
    check_events(tables, events)
    if type_weights is not None:
        if pair_weights is not None:
            raise ValueError("give pair_weights or type_weights, got both")
        check_vector("type_weights", type_weights, len(tables), device=events.device)
        weighted = _entities(tables, events) * type_weights[:, None]
        together = (weighted.sum(dim=1) ** 2).sum(dim=1)
        return 0.5 * (together - (weighted**2).sum(dim=(1, 2)))
    rows = _entities(tables, events)
    return 0.5 * (rows * _contexts(rows, pair_weights)).sum(dim=(1, 2))


def unigram_log_probabilities(counts: Tensor, *, power: float = 1.0) -> Tensor:
    r"""Log probability of each entity of a type under its (tempered) frequency, :math:`\log p_a \propto c_a^\alpha`.

    Args:
        counts: ``(A,)`` non-negative occurrences.
        power: alpha; 3/4 flattens the distribution.

    Returns:
        ``(A,)``; -inf for entities that never occur.

    Raises:
        ValueError: no occurrence at all.

    Complexity: O(A).

    >>> import torch
    >>> unigram_log_probabilities(torch.tensor([1, 3])).exp()
    tensor([0.2500, 0.7500])
    """
    if counts.dim() != 1 or not bool((counts > 0).any()) or bool((counts < 0).any()):
        raise ValueError("counts must be a vector of non-negative numbers, not all of them 0")
    dtype = counts.dtype if counts.dtype.is_floating_point else torch.get_default_dtype()
    return torch.log_softmax(power * counts.to(dtype).log(), dim=0)


def draw_noise_events(
    events: Tensor,
    log_probabilities: Sequence[Tensor],
    num_noise: int,
    *,
    generator: torch.Generator | None = None,
) -> NoiseEvents:
    """Draw context-dependent noise: one type of an observed event, chosen uniformly, takes a new entity.

    "Entity Embedding-based Anomaly Detection for Heterogeneous Categorical Events", 2016. Confidence: P. A draw that
    hits the observed entity is kept.

    Args:
        events: ``(B, m)`` integers.
        log_probabilities: one ``(A_i,)`` vector a type, the noise distribution of its entities.
        num_noise: k, draws for every event.
        generator: of the draws, on the device of the events.

    Returns:
        `NoiseEvents`.

    Raises:
        ValueError: shapes that do not match.

    Complexity: O(B k log A) after O(A) for each type.

    >>> import torch
    >>> certain = torch.tensor([-torch.inf, 0.0])
    >>> draw_noise_events(torch.zeros(2, 3, dtype=torch.int64), [certain] * 3, 2).values
    tensor([[1, 1],
            [1, 1]])
    """
    if num_noise < 1:
        raise ValueError(f"num_noise must be at least 1, got {num_noise}")
    if events.dim() != 2 or len(log_probabilities) != events.shape[1]:
        raise ValueError(f"log_probabilities must hold {events.shape[-1]} vectors, got {len(log_probabilities)}")
    shape = events.shape[0], num_noise
    types = draw_integers(events.shape[1], *shape, device=events.device, generator=generator)
    uniform = draw_uniform(*shape, like=log_probabilities[0].double(), generator=generator)
    values = torch.zeros_like(types)
    for kind, log_probability in enumerate(log_probabilities):
        cumulative = log_probability.double().exp().cumsum(0)
        chosen = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        last = int(torch.isfinite(log_probability).nonzero()[-1])
        values = torch.where(types == kind, chosen.clamp(max=last), values)
    return NoiseEvents(types, values)


def ape_nce(
    tables: Sequence[Tensor],
    events: Tensor,
    noise: NoiseEvents,
    log_probabilities: Sequence[Tensor],
    *,
    pair_weights: Tensor | None = None,
    constant: float | Tensor = 0.0,
    positive_noise: Literal["paired", "mean"] = "paired",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""APE: embeddings of the entities of categorical events, fitted by noise-contrastive estimation.

    "Entity Embedding-based Anomaly Detection for Heterogeneous Categorical Events", 2016. Confidence: P for the model,
    U for the noise correction of the data (paired, this package's convention), C for its mean over types. Use it to
    score how unusual a combination of entities is.

    .. math:: L_b = \operatorname{mean}_r \log\bigl(1 + e^{-(S(e_b) + c - \log k - \log P(a_{t_r}))}\bigr)
        + \sum_{r=1}^k \log\bigl(1 + e^{S(e'_{br}) + c - \log k - \log P(a'_r)}\bigr)

    where draw r replaces the entity :math:`a_{t_r}` of type :math:`t_r` by :math:`a'_r`.

    Args:
        tables: embeddings of the entities of each of the m types, ``(A_i, d)``.
        events: ``(B, m)`` integers, the entity of each type.
        noise: see `draw_noise_events`.
        log_probabilities: one ``(A_i,)`` vector a type, log P of the noise.
        pair_weights: see `event_score`.
        constant: c, a number or a learned 0-dim tensor.
        positive_noise: what stands for the noise of an observed event: ``paired`` takes the entity each draw replaces,
            ``mean`` the mean of log P over all types.
        reduction: ``mean`` over events, ``sum`` or ``none``.

    Returns:
        A scalar, or ``(B,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(B (m^2 + k) d) time, O(B (m + k) d) memory: a noise event differs from its event in one entity.

    >>> import torch
    >>> tables, events = [torch.zeros(2, 3)] * 2, torch.tensor([[0, 1]])
    >>> even = [torch.tensor([0.5, 0.5]).log()] * 2
    >>> noise = NoiseEvents(torch.tensor([[0]]), torch.tensor([[1]]))
    >>> ape_nce(tables, events, noise, even)
    tensor(1.5041)
    """
    check_events(tables, events)
    if positive_noise not in ("paired", "mean"):
        raise ValueError(f"positive_noise must be 'paired' or 'mean', got {positive_noise!r}")
    if len(log_probabilities) != len(tables):
        raise ValueError(f"log_probabilities must hold {len(tables)} vectors, got {len(log_probabilities)}")
    types, values = (part.long() for part in noise)
    if types.dim() != 2 or types.shape[0] != events.shape[0] or types.shape != values.shape:
        raise ValueError(
            f"noise must hold matrices of {events.shape[0]} rows, got {tuple(types.shape)} and {tuple(values.shape)}"
        )
    rows = _entities(tables, events)
    contexts = _contexts(rows, pair_weights)
    score = 0.5 * (rows * contexts).sum(dim=(1, 2))
    event = torch.arange(events.shape[0], device=events.device)[:, None].expand_as(types)
    change = _entities_of_types(tables, types, values) - rows[event, types]
    noise_score = score[:, None] + (change * contexts[event, types]).sum(dim=2)
    log_tables = [log[:, None].to(rows.dtype) for log in log_probabilities]
    drawn = _entities_of_types(log_tables, types, values).squeeze(2)
    observed = _entities(log_tables, events).squeeze(2)
    offset = constant - math.log(max(types.shape[1], 1))
    if positive_noise == "paired":
        data = score[:, None] + offset - observed.gather(1, types)
    else:
        data = score + offset - observed.mean(dim=1)
    return noise_contrastive_estimation(data, noise_score + offset - drawn, reduction=reduction)


def check_events(tables: Sequence[Tensor], events: Tensor) -> None:
    """Tables of one width, and events with one valid entity of each type."""
    if len(tables) < 2:
        raise ValueError(f"tables must hold at least 2 types, got {len(tables)}")
    for position, table in enumerate(tables):
        check_matrix(f"tables[{position}]", table)
        if table.shape[1] != tables[0].shape[1] or table.dtype != tables[0].dtype:
            raise ValueError(
                f"tables must share width and type, got {tuple(tables[0].shape)} of {tables[0].dtype} "
                f"and {tuple(table.shape)} of {table.dtype}"
            )
    if events.dim() != 2 or events.shape[1] != len(tables):
        raise ValueError(f"events must have shape (B, {len(tables)}), got shape {tuple(events.shape)}")
    if events.dtype.is_floating_point or events.dtype == torch.bool:
        raise TypeError(f"events must be an integer tensor, got dtype {events.dtype}")
    for position, table in enumerate(tables):
        column = events[:, position]
        if column.numel() > 0 and not 0 <= int(column.min()) <= int(column.max()) < table.shape[0]:
            raise IndexError(f"events[:, {position}] must lie in 0 .. {table.shape[0] - 1}")


def _entities(tables: Sequence[Tensor], events: Tensor) -> Tensor:
    """``(B, m, d)`` rows of the entities of events."""
    rows = torch.stack([table[events[:, position].long()] for position, table in enumerate(tables)], dim=1)
    return rows.to(compute_dtype(rows.dtype))


def _entities_of_types(tables: Sequence[Tensor], types: Tensor, values: Tensor) -> Tensor:
    """``(B, k, d)`` rows of entities of the given types."""
    found = tables[0].new_zeros(*types.shape, tables[0].shape[1], dtype=compute_dtype(tables[0].dtype))
    for position, table in enumerate(tables):
        places = (types == position).nonzero(as_tuple=True)
        chosen = values[places]
        if chosen.numel() > 0 and not 0 <= int(chosen.min()) <= int(chosen.max()) < table.shape[0]:
            raise IndexError(f"noise values of type {position} must lie in 0 .. {table.shape[0] - 1}")
        found = found.index_put(places, table[chosen].to(found.dtype))
    return found


def _contexts(rows: Tensor, pair_weights: Tensor | None) -> Tensor:
    """``(B, m, d)``: for each entity the weighted sum of the other entities of its event."""
    num_types = rows.shape[1]
    if pair_weights is None:
        return rows.sum(dim=1, keepdim=True) - rows
    pairs = num_types * (num_types - 1) // 2
    check_vector("pair_weights", pair_weights, pairs, device=rows.device)
    upper = torch.triu_indices(num_types, num_types, offset=1, device=rows.device)
    weights = pair_weights.to(rows.dtype)
    matrix = rows.new_zeros(num_types, num_types).index_put((upper[0], upper[1]), weights)
    return (matrix + matrix.T) @ rows
