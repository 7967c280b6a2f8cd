"""InfoNCE whose negatives come from the anchor's own cluster (multistage contrastive learning, MCL)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    paired_similarity,
    refuse_key_ids,
    softplus,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import AnyOf, Backend, CandidateRule, EqualIds, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices, check_same_space

__all__ = ["cluster_restricted_info_nce", "compose_stages"]


def cluster_restricted_info_nce(
    z1: Tensor,
    z2: Tensor,
    clusters: Tensor,
    *,
    keys: Tensor | None = None,
    key_clusters: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    min_negatives: int = 0,
    temperature: float | Tensor = 0.1,
    symmetric: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE with negatives from the anchor's cluster only, so that what the clusters share cannot solve the task.

    J. Zhang et al., "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning", 2024,
    https://arxiv.org/abs/2402.11816. Confidence: C. Train in stages: cluster the embeddings of the last stage, restrict
    the negatives of the next one to the clusters so far, and concatenate the embeddings of all stages at the end. In a
    batch this is an id rule; drawing every batch inside one cluster gives the same loss.

    Use it when a shortcut feature, once learned, keeps the others from being learned.

    .. math:: L_i = -\log \frac{e^{s_{ii}/\tau}}{\sum_{j : c_j = c_i} e^{s_{ij}/\tau}}, \qquad
        s_{ij} = \cos(z^1_i, z^2_j)

    Args:
        z1: ``(N, d)`` anchors.
        z2: ``(N, d)``; row i is the positive of anchor i.
        clusters: ``(N,)`` integers; or ``(T, N)``, the clusters of T stages, coarse to fine: samples then share a
            cluster when they share those of all stages, as `compose_stages` numbers them.
        keys: ``(C, d)`` negatives instead of the other rows of ``z2``. To use both a queue and the batch, concatenate
            them.
        key_clusters: ``(C,)`` or ``(T, C)``, the clusters of the keys, numbered like ``clusters``.
        ids: ``(N,)`` integers; samples with equal ids are never negatives of each other.
        key_ids: ``(C,)`` ids of the keys.
        min_negatives: an anchor with fewer negatives in the batch takes its parent's instead: the samples that share
            one stage less with it, up to the whole batch, or all keys. 2 is the value for multistage training.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        symmetric: also contrasts ``z2`` with ``z1`` and averages both ways. Not with keys: call the function once a
            direction, each with its own keys.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none`` (``(2 N,)`` when symmetric). An anchor without negatives has loss 0.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N C d) time (once more if symmetric), O((N + C) (d + T)) memory plus the tiles.

    >>> import torch
    >>> cluster_restricted_info_nce(torch.eye(3), torch.eye(3), torch.tensor([0, 0, 1]), temperature=1.0)
    tensor(0.2088)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    num = z1.shape[0]
    if min_negatives < 0:
        raise ValueError(f"min_negatives must not be negative, got {min_negatives}")
    stages = _stages("clusters", clusters, num)
    x, y = unit_rows(z1, z2)
    if keys is None:
        refuse_key_ids(key_ids)
        if key_clusters is not None:
            raise ValueError("key_clusters belong to keys, got key_clusters without keys")
        far, anchors, candidates = y, slice(num), slice(num)
        names: Tensor | None = torch.arange(num, device=z1.device) if ids is None else ids
        others = different_ids(num, num, ids, ids) or (ExcludeSameIndex(),)
    else:
        if symmetric:
            raise ValueError("symmetric needs z1 and z2 as candidates; with keys call once a direction")
        if key_clusters is None:
            raise ValueError("keys need key_clusters, got None")
        check_same_space("z1", z1, "keys", keys)
        key_stages = _stages("key_clusters", key_clusters, keys.shape[0])
        if key_stages.shape[0] != stages.shape[0]:
            raise ValueError(
                f"key_clusters must hold as many stages as clusters, got {key_stages.shape[0]} and {stages.shape[0]}"
            )
        (far,) = unit_rows(keys)
        anchors, candidates = slice(num), slice(num, None)
        others = different_ids(num, keys.shape[0], ids, key_ids)
        names = None if ids is None or key_ids is None else torch.cat([ids.long(), key_ids.long()])
        stages = torch.cat([stages.long(), key_stages.long()], dim=1)
    rules = (_same_cluster(stages, names, anchors, candidates, min_negatives), *others)
    positive = paired_similarity(x, y) / temperature

    def one_way(near: Tensor, far: Tensor) -> Tensor:
        negatives = pair_logsumexp(
            near, far, temperature=temperature, rules=rules, memory_budget=memory_budget, backend=backend
        ).logsumexp
        return softplus(negatives - positive)

    loss = torch.cat([one_way(x, y), one_way(y, x)]) if symmetric else one_way(x, far)
    if symmetric and weight is not None:
        weight = weight.repeat(2)
    return reduce_anchors(loss, reduction, weight=weight)


def compose_stages(stages: Sequence[Tensor], num_clusters: int | Sequence[int] = 10) -> Tensor:
    r"""One pseudo-label from the clusters of several stages, in mixed radix.

    J. Zhang et al., "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning", 2024. Confidence:
    C; distinct stages are composed (the released script repeats one of them).

    .. math:: c_i = (\dots (c^0_i K_1 + c^1_i) K_2 + c^2_i) \dots

    Args:
        stages: T of ``(N,)`` integers, stage t in ``0 .. K_t - 1``.
        num_clusters: K of every stage, or one for each.

    Returns:
        ``(N,)`` int64.

    Raises:
        ValueError, IndexError: no stages, or clusters out of range.

    Complexity: O(T N).

    >>> import torch
    >>> compose_stages([torch.tensor([0, 1, 1]), torch.tensor([2, 0, 9])])
    tensor([ 2, 10, 19])
    """
    sizes = [num_clusters] * len(stages) if isinstance(num_clusters, int) else list(num_clusters)
    if not stages or len(sizes) != len(stages):
        raise ValueError(
            f"stages must not be empty and have a number of clusters each, got {len(stages)}, {len(sizes)}"
        )
    label = torch.zeros_like(stages[0], dtype=torch.int64)
    for position, (stage, size) in enumerate(zip(stages, sizes, strict=True)):
        check_block_size("num_clusters", size)
        check_indices(f"stages[{position}]", stage, stages[0].shape[0], size, check=True)
        label = label * size + stage
    return label


def _stages(name: str, clusters: Tensor, num: int) -> Tensor:
    """``(T, num)`` clusters of T >= 1 stages."""
    if clusters.dim() not in (1, 2) or clusters.shape[-1] != num or clusters.dtype.is_floating_point:
        raise ValueError(
            f"{name} must be integers of shape ({num},) or (stages, {num}), "
            f"got shape {tuple(clusters.shape)} of {clusters.dtype}"
        )
    stages = clusters[None] if clusters.dim() == 1 else clusters
    if stages.shape[0] == 0:
        raise ValueError(f"{name} must hold at least one stage, got none")
    return stages


def _same_cluster(
    stages: Tensor, names: Tensor | None, anchors: slice, candidates: slice, min_negatives: int
) -> CandidateRule:
    """Equal clusters in as many stages as leave the anchor ``min_negatives`` negatives, all of them without a minimum.

    ``stages`` holds the clusters of anchors and candidates, ``names`` their ids: equal ones are no negatives of each
    other.
    """
    prefixes = [_dense(stages[: depth + 1].T) for depth in range(stages.shape[0])]
    finest = prefixes[-1]
    if min_negatives == 0:
        return EqualIds(finest[anchors], finest[candidates])

    def equal(numbers: Tensor) -> Tensor:
        """How many candidates carry the number of each anchor."""
        return torch.bincount(numbers[candidates], minlength=numbers.shape[0])[numbers[anchors]]

    undecided = torch.ones_like(finest[anchors], dtype=torch.bool)
    rules: list[CandidateRule] = []
    for prefix in reversed([torch.zeros_like(finest), *prefixes]):
        negatives = equal(prefix)
        if names is not None:
            negatives = negatives - equal(_dense(torch.stack([prefix, names.long()], dim=1)))
        here = undecided & (negatives >= min_negatives)
        rules.append(EqualIds(torch.where(here, prefix[anchors], -1), prefix[candidates]))
        undecided &= ~here
    # Too few even among all candidates: what there is.
    rules.append(EqualIds(torch.where(undecided, 0, -1), torch.zeros_like(finest[candidates])))
    return AnyOf(rules)


def _dense(rows: Tensor) -> Tensor:
    """Numbers 0, 1, ... for the distinct rows of integers."""
    numbers: Tensor = torch.unique(rows, dim=0, return_inverse=True)[1]
    return numbers
