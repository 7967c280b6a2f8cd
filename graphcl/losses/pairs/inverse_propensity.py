"""Pairs drawn against surface cues: what looks alike is drawn rarely as a positive, what looks apart as a negative."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.kernels import Similarity, edge_dot, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["CandidatePool", "SampledPairs", "candidate_pool", "propensity_weights", "sample_pairs"]


class CandidatePool(NamedTuple):
    """Candidates of every anchor: positions ``(N, m)`` (-1 where there are fewer) and both similarities in [0, 1]."""

    candidates: Tensor
    surface: Tensor
    semantic: Tensor


class SampledPairs(NamedTuple):
    """Positions ``(N,)`` of the drawn positive and negative; -1 where a pool holds none."""

    positive: Tensor
    negative: Tensor


def candidate_pool(
    surface: Tensor,
    semantic: Tensor,
    size: int,
    *,
    similarity: Similarity = "cosine",
    memory_budget: int = MEMORY_BUDGET,
) -> CandidatePool:
    """The candidates nearest to each anchor by meaning, with both similarities.

    Args:
        surface: ``(N, p)`` features of the surface (counts of neighbours, words, popularity).
        semantic: ``(N, q)`` embeddings of a teacher.
        size: m.
        similarity: of both; cosines are moved from [-1, 1] to [0, 1], other similarities are clamped to it.
        memory_budget: upper bound in bytes for the tiles of pairs.

    Returns:
        `CandidatePool` without the anchors themselves.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N^2 q + N m p) time, O(N (m + p + q)) memory plus one tile.

    >>> import torch
    >>> pool = candidate_pool(torch.eye(3), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 1)
    >>> pool.candidates.flatten(), pool.semantic.flatten()
    (tensor([1, 0, 0]), tensor([1.0000, 1.0000, 0.5000]))
    """
    num = semantic.shape[0]
    if surface.shape[0] != num:
        raise ValueError(f"surface and semantic must have the same number of rows, got {surface.shape[0]} and {num}")
    own = torch.arange(num + 1, device=semantic.device)
    found = pair_topk(
        semantic, semantic, size, exclude=(own, own[:-1]), similarity=similarity, memory_budget=memory_budget
    )
    there = found.indices >= 0
    rows, slots = there.nonzero(as_tuple=True)
    looks = edge_dot(
        surface, surface, rows, found.indices[rows, slots], similarity=similarity, memory_budget=memory_budget
    )
    alike = looks.new_zeros(found.indices.shape).index_put((rows, slots), looks)
    values = found.values.masked_fill(~there, 0.0)
    if similarity == "cosine":
        alike, values = 0.5 * (1.0 + alike), 0.5 * (1.0 + values)
    return CandidatePool(found.indices, alike.clamp(0.0, 1.0), values.clamp(0.0, 1.0))


def propensity_weights(
    surface: Tensor, semantic: Tensor, *, threshold: float = 0.5, epsilon: float = 0.05
) -> tuple[Tensor, Tensor]:
    r"""Weights for drawing positives and negatives by the inverse of how much their surface gives them away.

    "DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing Perspective", 2023.
    Confidence: U, the form is this package's convention.

    .. math:: w^+ = \frac{[b - \theta]_+}{\max(a, \epsilon)}, \qquad w^- = \frac{[\theta - b]_+}{\max(1 - a, \epsilon)}

    Args:
        surface: a, similarity of the surfaces in [0, 1], any shape.
        semantic: b, similarity in meaning in [0, 1], the same shape.
        threshold: theta.
        epsilon: keeps weights finite.

    Returns:
        Weights of positives and of negatives, in the shape of the inputs.

    Raises:
        ValueError: shapes that do not match, or an epsilon that is not positive.

    Complexity: O(entries).

    >>> import torch
    >>> propensity_weights(torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25]))
    (tensor([0.5000, 0.0000]), tensor([0.0000, 0.5000]))
    """
    if surface.shape != semantic.shape:
        raise ValueError(
            f"surface and semantic must share a shape, got {tuple(surface.shape)}, {tuple(semantic.shape)}"
        )
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}")
    positive = torch.relu(semantic - threshold) / surface.clamp(min=epsilon)
    negative = torch.relu(threshold - semantic) / (1.0 - surface).clamp(min=epsilon)
    return positive, negative


def sample_pairs(
    pool: CandidatePool,
    *,
    threshold: float = 0.5,
    epsilon: float = 0.05,
    generator: torch.Generator | None = None,
) -> SampledPairs:
    """Draw one positive and one hard negative for every anchor from its pool.

    "DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing Perspective", 2023.
    Confidence: U. The weights only sample; the loss of a drawn pair is not weighted.

    Args:
        pool: see `candidate_pool`; may come from elsewhere.
        threshold: of the similarity in meaning that parts positives from negatives.
        epsilon: see `propensity_weights`.
        generator: of the draws, on the device of the pool.

    Returns:
        `SampledPairs`.

    Raises:
        ValueError: shapes that do not match.

    Complexity: O(N m).

    >>> import torch
    >>> pool = CandidatePool(torch.tensor([[1, 2]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]]))
    >>> sample_pairs(pool)
    SampledPairs(positive=tensor([1]), negative=tensor([2]))
    """
    if pool.candidates.dim() != 2 or pool.candidates.shape != pool.surface.shape:
        raise ValueError(
            "candidates and surface must share a shape (N, m), "
            f"got {tuple(pool.candidates.shape)} and {tuple(pool.surface.shape)}"
        )
    drawn = []
    for weights in propensity_weights(pool.surface, pool.semantic, threshold=threshold, epsilon=epsilon):
        allowed = weights.detach().double().masked_fill(pool.candidates < 0, 0.0)
        able = allowed.sum(dim=1) > 0
        chosen = torch.full_like(pool.candidates[:, 0], -1) if pool.candidates.shape[1] > 0 else able.long() - 1
        if bool(able.any()):
            slots = torch.multinomial(allowed[able], 1, generator=generator)
            chosen[able] = pool.candidates[able].gather(1, slots).squeeze(1)
        drawn.append(chosen)
    return SampledPairs(drawn[0], drawn[1])
