"""Mixup between samples across two modalities, and the soft targets that follow it."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._draws import draw_beta, draw_permutation, draw_uniform
from graphcl.functional._pair_terms import (
    both_directions,
    check_temperature,
    check_views,
    merge_logsumexp,
    paired_similarity,
    unit_rows,
)
from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional._soft_targets import expected_rows
from graphcl.functional.feature_transform import as_columns
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, EqualIds, edge_dot, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices, check_vector

__all__ = ["draw_mixing", "m3col_mix", "mix_batch", "soft_clip"]


def draw_mixing(
    x: Tensor,
    *,
    concentration: float = 0.15,
    probability: float = 0.5,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Draw partners and weights for `mix_batch`.

    "Harnessing Shared Relations via Multimodal Mixup", 2024. Confidence: V.

    .. math:: \beta_i \sim \mathrm{Beta}(c, c) \text{ with probability } p, \text{ else } 1

    Args:
        x: ``(N, d)``, for the number of rows, type and device.
        concentration: c.
        probability: p.
        generator: of the draws.

    Returns:
        Permutation ``(N,)`` and weights ``(N,)``.

    Raises:
        ValueError: a probability outside 0 .. 1 or a concentration that is not positive.

    Complexity: O(N).

    >>> import torch
    >>> draw_mixing(torch.zeros(3, 2), probability=0.0)[1]
    tensor([1., 1., 1.])
    """
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability must lie in 0 .. 1, got {probability}")
    num = x.shape[0]
    permutation = draw_permutation(num, device=x.device, generator=generator)
    weights = draw_beta(num, first=concentration, second=concentration, like=x, generator=generator)
    mixed = draw_uniform(num, like=x, generator=generator) < probability
    return permutation, torch.where(mixed, weights, torch.ones_like(weights))


def mix_batch(x: Tensor, permutation: Tensor, weights: Tensor) -> Tensor:
    r"""Mix every row of a batch with the row of its partner.

    "Harnessing Shared Relations via Multimodal Mixup", 2024. Confidence: V.

    .. math:: \tilde x_i = \beta_i x_i + (1 - \beta_i) x_{\pi(i)}

    Args:
        x: ``(N, d)``: inputs of an encoder, or embeddings.
        permutation: ``(N,)`` pi.
        weights: ``(N,)`` beta.

    Returns:
        ``(N, d)``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N d).

    >>> import torch
    >>> mix_batch(torch.eye(2), torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    tensor([[0.7500, 0.2500],
            [0.0000, 1.0000]])
    """
    check_indices("permutation", permutation, x.shape[0], x.shape[0], check=True)
    check_vector("weights", weights, x.shape[0], device=x.device)
    share = as_columns(weights.to(x.dtype))
    return share * x + (1.0 - share) * x[permutation]


def m3col_mix(
    mixed: Tensor,
    other: Tensor,
    permutation: Tensor,
    weights: Tensor,
    *,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Contrast of mixed samples of one modality with the plain ones of another: both mixed samples are targets.

    "Harnessing Shared Relations via Multimodal Mixup", 2024. Confidence: V, except that where a sample is its own
    partner the two shares add up (the release overwrites one). Use it when samples share relations across modalities;
    mix each modality in turn, and go over to `soft_clip` after a third of the training.

    .. math:: T = \beta_i \text{ at } (i, i) \; + \; 1 - \beta_i \text{ at } (i, \pi(i)), \qquad
        L = -\frac{1}{2N} \sum_{ij} T_{ij} \bigl( \log \operatorname{softmax}_j \ell_{ij}
        + \log \operatorname{softmax}_i \ell_{ij} \bigr), \quad \ell_{ij} = \cos(\tilde x_i, y_j) / \tau

    Args:
        mixed: ``(N, d)`` embeddings of mixed samples; see `mix_batch`.
        other: ``(N, d)`` embeddings of the plain samples in the other modality.
        permutation: ``(N,)`` partner of each sample, a permutation.
        weights: ``(N,)`` beta, the share of the sample itself.
        ids: ``(N,)`` integers; a row with the id of one of the targets of an anchor is never its negative.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        reduction: ``mean`` over the 2 N anchors, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(2 N,)`` for ``none``, mixed rows first.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> m3col_mix(torch.eye(2), torch.eye(2), torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), temperature=1.0)
    tensor(0.8133)
    """
    check_views("mixed", mixed, "other", other)
    check_temperature(temperature)
    num = mixed.shape[0]
    check_indices("permutation", permutation, num, num, check=True)
    check_vector("weights", weights, num, device=mixed.device)
    if bool((torch.bincount(permutation.long(), minlength=num) != 1).any()):
        raise ValueError("permutation must name every row once")
    x, y = unit_rows(mixed, other)
    own_share = weights.to(x.dtype)
    here = torch.arange(num, device=x.device)
    forward, inverse = permutation.long(), torch.argsort(permutation)
    if ids is None:
        totals = both_directions(
            x, y, temperature=temperature, similarity="dot", rules=(), backend=backend, memory_budget=memory_budget
        )
    else:
        check_indices("ids", ids, num, None, check=False)
        # Targets come back below: here are the samples that are neither target.
        rest = [
            pair_logsumexp(
                left,
                right,
                temperature=temperature,
                rules=(EqualIds(ids, ids, keep=False), EqualIds(ids[partner], ids, keep=False)),
                memory_budget=memory_budget,
                backend=backend,
            ).logsumexp
            for left, right, partner in ((x, y, forward), (y, x, inverse))
        ]
        totals = rest[0], rest[1]
    losses = []
    for left, right, partner, share, total in (
        (x, y, forward, 1.0 - own_share, totals[0]),
        (y, x, inverse, (1.0 - own_share)[inverse], totals[1]),
    ):
        own = paired_similarity(left, right) / temperature
        partnered = edge_dot(left, right, here, partner, memory_budget=memory_budget, backend=backend) / temperature
        if ids is not None:
            apart = torch.where(partner == here, torch.full_like(partnered, -torch.inf), partnered)
            total = merge_logsumexp([total, own, apart])
        losses.append(own_share * (total - own) + share * (total - partnered))
    return reduce_anchors(torch.cat(losses), reduction)


def soft_clip(
    z1: Tensor,
    z2: Tensor,
    *,
    detach_targets: bool = True,
    temperature: float | Tensor = 0.125,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""CLIP loss whose targets are the similarities inside the second modality.

    "Harnessing Shared Relations via Multimodal Mixup", 2024. Confidence: V; detached targets are this package's
    default, the release differentiates through them. Use it late in training, when the second modality's own
    similarities can be trusted.

    .. math:: T_{ij} = \operatorname{softmax}_j \langle y_i, y_j \rangle / \tau, \qquad
        L = -\frac{1}{2N} \sum_{ij} T_{ij} \bigl( \log \operatorname{softmax}_j \langle x_i, y_j \rangle / \tau
        + \log \operatorname{softmax}_j \langle y_i, x_j \rangle / \tau \bigr)

    on unit rows. The softmax sums stream through the engine; the targets enter through the mean rows
    :math:`\sum_j T_{ij} y_j` and :math:`\sum_j T_{ij} x_j`.

    Args:
        z1: ``(N, d)`` first modality.
        z2: ``(N, d)`` second modality, which gives the targets.
        detach_targets: no gradient through T.
        temperature: positive number or 0-dim tensor.
        reduction: ``mean`` over the 2 N anchors, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(2 N,)`` for ``none``.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> soft_clip(torch.eye(2), torch.eye(2), temperature=1.0)
    tensor(0.5822)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    if isinstance(temperature, Tensor) and temperature.dim() != 0:
        raise ValueError(f"temperature must be a number or a 0-dim tensor, got shape {tuple(temperature.shape)}")
    x, y = unit_rows(z1, z2)
    totals = both_directions(
        x, y, temperature=temperature, similarity="dot", rules=(), memory_budget=memory_budget, backend=backend
    )
    if detach_targets:
        mean = expected_rows(y, y, x, temperature=temperature, memory_budget=memory_budget, backend=backend)
        mean_y, mean_x = mean.chunk(2, dim=1)
        positive = torch.cat([(x * mean_y).sum(dim=1), (y * mean_x).sum(dim=1)])
    else:
        positive = _expected_with_gradient(x, y, temperature, memory_budget)
    return reduce_anchors(torch.cat(totals) - positive / temperature, reduction)


def _expected_with_gradient(x: Tensor, y: Tensor, temperature: float | Tensor, memory_budget: int) -> Tensor:
    """The similarities that T expects of x with y, then of y with x, differentiable through T as well."""

    def expected(guide_rows: Tensor, x_rows: Tensor, y_rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
        target = torch.softmax(guide_rows @ y.T, dim=1)
        return torch.stack([(x_rows * (target @ y)).sum(dim=1), (y_rows * (target @ x)).sum(dim=1)], dim=1)

    positive = over_row_blocks(
        expected,
        (y / temperature, x, y),
        (x, y),
        num_columns=y.shape[0],
        floats_per_pair=5,
        memory_budget=memory_budget,
    )
    return positive.T.flatten()
