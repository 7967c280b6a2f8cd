"""Soft-mask contrast by the similarity of paths in a tree (SPACE-2 on taxonomies)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphcl.functional._embeddings import check_temperature, logits_of, unit_rows
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, CandidateRule, ExcludeSameIndex, PairTile, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_indices

__all__ = ["PathJaccard", "path_similarity", "space2", "tree_paths", "tree_soft_contrast"]

# So flat that the softmax is the given weights themselves: its mean similarity is their weighted mean.
_FLAT_TEMPERATURE = 1e30


def tree_paths(parents: Tensor, nodes: Tensor) -> Tensor:
    """Path of every node from its root down to itself.

    Args:
        parents: ``(T,)`` integers, the parent of every tree node, -1 for roots.
        nodes: ``(n,)`` integers, the tree node of every row.

    Returns:
        ``(n, H)`` int64, H the greatest depth among the rows: ancestors from the root down, then -1.

    Raises:
        ValueError, TypeError, IndexError: nodes or parents out of range, or parents that run in a circle.

    Complexity: O(n H) time and memory.

    >>> import torch
    >>> tree_paths(torch.tensor([-1, 0, 0, 2]), torch.tensor([0, 3]))
    tensor([[ 0, -1, -1],
            [ 0,  2,  3]])
    """
    check_indices("parents", parents, None, None, check=False)
    if bool(((parents < -1) | (parents >= parents.shape[0])).any()):
        raise IndexError(f"parents must lie in -1 .. {parents.shape[0] - 1}")
    check_indices("nodes", nodes, None, parents.shape[0], check=True)
    up = torch.cat([parents.long(), parents.new_full((1,), -1).long()])
    upwards: list[Tensor] = []
    current = nodes.long()
    while bool((current >= 0).any()):
        if len(upwards) == parents.shape[0]:
            raise ValueError("parents run in a circle: a path is longer than the number of nodes")
        upwards.append(current)
        current = up[current]
    if not upwards:
        return torch.empty(nodes.shape[0], 0, dtype=torch.int64, device=nodes.device)
    path = torch.stack(upwards[::-1], dim=1)
    # Shorter paths start with -1; move their ancestors to the front.
    depth = (path >= 0).sum(dim=1, keepdim=True)
    source = torch.arange(path.shape[1], device=path.device) + path.shape[1] - depth
    return path.gather(1, source.clamp_max(path.shape[1] - 1)).masked_fill(source >= path.shape[1], -1)


@dataclass(frozen=True, eq=False)
class PathJaccard:
    r"""Candidate rule that adds the logarithm of the Jaccard index of the paths of anchor and candidate.

    .. math:: w_{ij} = \frac{|G_n(i) \cap G_n(j)|}{|G_n(i) \cup G_n(j)|}

    with :math:`G_n` the runs of n consecutive ancestors: 1 compares the ancestors themselves, 2 the parent-child edges.
    In a tree, equal ancestors stand at equal depth and are a common beginning of both paths. Pairs that share nothing
    are left out.

    Args:
        anchor_paths: ``(A, H)`` integers, ancestors from the root down, then -1; see `tree_paths`.
        candidate_paths: ``(C, H)``.
        order: n.

    Complexity: H integer comparisons a pair.

    >>> import torch
    >>> from graphcl.kernels import pair_logsumexp
    >>> paths = torch.tensor([[0, 1], [0, 2]])
    >>> pair_logsumexp(torch.zeros(2, 1), torch.zeros(2, 1), rules=PathJaccard(paths, paths)).logsumexp.exp()
    tensor([1.3333, 1.3333])
    """

    anchor_paths: Tensor
    candidate_paths: Tensor
    order: int = 1

    def check(self, num_anchors: int, num_candidates: int, device: torch.device, check: bool) -> None:
        _check_paths("PathJaccard.anchor_paths", self.anchor_paths, num_anchors)
        _check_paths("PathJaccard.candidate_paths", self.candidate_paths, num_candidates)
        check_block_size("PathJaccard.order", self.order)
        if self.anchor_paths.shape[1] != self.candidate_paths.shape[1]:
            raise ValueError(
                "PathJaccard.anchor_paths and candidate_paths must have the same depth, "
                f"got {self.anchor_paths.shape[1]} and {self.candidate_paths.shape[1]}"
            )

    def log_weight_tile(self, tile: PairTile) -> Tensor | bool:
        shared, either = _shared_runs(self.anchor_paths[tile.rows], self.candidate_paths[tile.columns], self.order)
        return (shared / either.clamp_min(1)).log()


def path_similarity(paths: Tensor, other: Tensor | None = None, *, orders: Sequence[int] = (1, 2, 3, 4)) -> Tensor:
    """Mean Jaccard index of the runs of 1, 2, 3 and 4 consecutive ancestors of two sets of paths, as a dense matrix.

    The graded similarity of two label trees in SPACE-2, for paths. A run length that neither path reaches is skipped.
    Meant for small sets and inspection; objectives use `PathJaccard` tile by tile.

    Args:
        paths: ``(A, H)`` integers, see `tree_paths`.
        other: ``(C, H)``, default ``paths``.
        orders: run lengths.

    Returns:
        ``(A, C)`` float32 in [0, 1].

    Raises:
        ValueError, TypeError: paths of the wrong shape or type.

    Complexity: O(A C H) time, O(A C) memory.

    >>> import torch
    >>> path_similarity(torch.tensor([[0, 1], [0, 2]]), orders=(1,))
    tensor([[1.0000, 0.3333],
            [0.3333, 1.0000]])
    """
    _check_paths("paths", paths, None)
    other = paths if other is None else other
    _check_paths("other", other, None)
    total = torch.zeros(paths.shape[0], other.shape[0], device=paths.device)
    counted = torch.zeros_like(total)
    for order in orders:
        shared, either = _shared_runs(paths, other, order)
        total += shared / either.clamp_min(1)
        counted += either > 0
    return total / counted.clamp_min(1)


def tree_soft_contrast(
    embeddings: Tensor,
    paths: Tensor,
    *,
    order: int = 1,
    temperature: float | Tensor = 0.07,
    keys: Tensor | None = None,
    key_paths: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Soft-mask supervised contrast: every other row is a positive to the degree that the two paths agree.

    Use it for rows at the leaves of a taxonomy, in one space.

    .. math:: L_i = - \sum_{j \neq i} \frac{w_{ij}}{\sum_k w_{ik}}
        \Big(\ell_{ij} - \log \sum_{k \neq i} e^{\ell_{ik}}\Big)

    with the Jaccard weights of `PathJaccard`. Equal rows share their path and are full positives.

    Args:
        embeddings: ``(N, d)``; normalised here.
        paths: ``(N, H)`` integers, ancestors from the root down, then -1; see `tree_paths`.
        order: length of the runs of ancestors that are compared.
        temperature: positive number or 0-dim tensor.
        keys: ``(K, d)`` candidates instead of the other rows of ``embeddings``.
        key_paths: ``(K, H)`` paths of ``keys``.
        reduction: over anchors that share something with a candidate.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes, paths or temperature that do not fit.

    Complexity: O(N K d) time for the sum over all candidates and O((N + K) H d) for the positives, through the sums of
    the rows below every node (O(N K (d + H)) where ``paths`` are not those of a tree); O((N + K) (d + H)) memory.

    Confidence: C for the soft-mask form (public code read); paths of a taxonomy in place of label trees are a
    convention of this package.

    >>> import torch
    >>> paths = torch.tensor([[0, 1], [0, 1], [2, 3]])
    >>> tree_soft_contrast(torch.eye(3), paths, temperature=1.0)
    tensor(0.6931)
    """
    check_temperature(temperature)
    x = unit_rows("embeddings", embeddings)
    _check_paths("paths", paths, x.shape[0])
    if (keys is None) != (key_paths is None):
        raise ValueError("keys and key_paths go together: pass both or neither")
    itself: list[CandidateRule] = []
    if keys is None or key_paths is None:
        y, key_paths, itself = x, paths, [ExcludeSameIndex()]
    else:
        y = unit_rows("keys", keys).to(x.dtype)
    total = pair_logsumexp(
        x, y, temperature=temperature, rules=itself, memory_budget=memory_budget, backend=backend
    ).logsumexp
    likeness = PathJaccard(paths, key_paths, order)
    likeness.check(x.shape[0], y.shape[0], x.device, check=True)
    sums = _tree_levels(paths, key_paths, order)
    if sums is None:
        positives = pair_logsumexp(
            x,
            y,
            temperature=_FLAT_TEMPERATURE,
            rules=[likeness, *itself],
            moments=1,
            memory_budget=memory_budget,
            backend=backend,
        )
        mean = torch.zeros_like(total) if positives.mean is None else positives.mean
        valid = positives.logsumexp.detach() > -torch.inf
    else:
        mean, valid = _mean_similarity(x, y, sums, leave_out_itself=len(itself) > 0)
    return reduce_anchors(total.masked_fill(~valid, 0.0) - logits_of(mean, temperature), reduction, valid=valid)


def space2(
    subspaces: Sequence[Tensor],
    paths: Tensor,
    *,
    orders: Sequence[int] = (1, 2, 3, 4),
    temperature: float | Tensor = 0.07,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""SPACE-2 on taxonomies: one soft-mask contrast a sub-space, each with its own grain of tree similarity, averaged.

    "SPACE-2: Tree-Structured Semi-Supervised Contrastive Pre-training for Task-Oriented Dialog Understanding" (2022).

    Use it for rows at the leaves of a taxonomy, when coarse and fine likeness should not share one space.

    .. math:: L = \frac{1}{|\text{orders}|} \sum_n L^{\text{soft}}(h_n, G_n)

    Args:
        subspaces: one ``(N, d')`` projection of the same rows for every order; normalised here.
        paths: ``(N, H)`` integers, see `tree_paths`.
        orders: length of the runs of ancestors compared in each sub-space.
        temperature: positive number or 0-dim tensor.
        reduction: over anchors, in every sub-space for itself.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes, paths or temperature that do not fit.

    Complexity: O(|orders| N^2 d') time, O(|orders| N d' + N H) memory.

    Confidence: C for the form; the released code compares ten n-gram sets of dialog label trees, this package the runs
    of taxonomy paths.

    >>> import torch
    >>> paths = torch.tensor([[0, 1], [0, 1], [2, 3]])
    >>> space2([torch.eye(3), torch.eye(3)], paths, orders=(1, 2), temperature=1.0)
    tensor(0.6931)
    """
    if len(subspaces) != len(orders) or len(orders) == 0:
        raise ValueError(f"subspaces must hold one projection an order, {len(orders)}, got {len(subspaces)}")
    losses = [
        tree_soft_contrast(
            subspace,
            paths,
            order=order,
            temperature=temperature,
            reduction=reduction,
            memory_budget=memory_budget,
            backend=backend,
        )
        for subspace, order in zip(subspaces, orders, strict=True)
    ]
    return torch.stack(losses).mean(dim=0)


class _Level(NamedTuple):
    """One depth of the tree and the candidates with one number of runs: they share a node there or they do not.

    Attributes:
        anchor_node: ``(A,)`` node of the anchors.
        keys: ``(k,)`` positions of the candidates.
        key_node: ``(k,)`` their node.
        num_nodes: how many there are.
        share: ``(A,)`` float64, what this depth adds to the Jaccard index; 0 for anchors that do not reach it.
    """

    anchor_node: Tensor
    keys: Tensor
    key_node: Tensor
    num_nodes: int
    share: Tensor


class _TreeLevels(NamedTuple):
    levels: list[_Level]
    itself: Tensor  # (A,) bool: the anchor has runs, so that its index with itself is 1
    sharing: Tensor  # (A,) number of candidates that share a run


def _tree_levels(paths: Tensor, key_paths: Tensor, order: int) -> _TreeLevels | None:
    r"""The Jaccard index of all pairs as a sum over depths; None where a node has two parents.

    Pairs that meet in a node at depth h share the h nodes down to it. So
    :math:`w_{ij} = \sum_{h \le c_{ij}} (f_h - f_{h - 1})` with the depth c of the last node in common and f_h the index
    of two paths with h nodes in common, and sums over j need only sums over the rows below every node.
    """
    num = paths.shape[0]
    both = torch.cat([paths, key_paths]).long()
    runs = ((both >= 0).sum(dim=1) - (order - 1)).clamp_min(0)
    own, others = runs[:num], runs[num:]
    prefix = torch.zeros_like(runs)
    levels: list[_Level] = []
    sharing = torch.zeros_like(own)
    for depth in range(1, both.shape[1] + 1):
        node = both[:, depth - 1]
        reached = node >= 0
        last = prefix
        _, prefix = torch.unique(torch.stack([torch.where(reached, last, -1), node], dim=1), dim=0, return_inverse=True)
        inside = prefix[reached]
        if torch.unique(inside).numel() != torch.unique(node[reached]).numel():
            return None
        if depth < order:
            continue
        num_nodes = int(prefix.max()) + 1 if prefix.numel() > 0 else 0
        here = reached[num:]
        if depth == order:
            count = torch.bincount(prefix[num:][here], minlength=num_nodes)
            sharing = torch.where(reached[:num], count[prefix[:num]], 0)
        for number in torch.unique(others[here]).tolist():
            keys = torch.nonzero(here & (others == number)).squeeze(1)
            shared = depth - order + 1
            most = (own + number).double()
            share = shared / (most - shared) - (shared - 1) / (most - (shared - 1))
            share = torch.where(reached[:num], share, 0.0)
            levels.append(_Level(prefix[:num], keys, prefix[num:][keys], num_nodes, share))
    return _TreeLevels(levels, own > 0, sharing)


def _mean_similarity(x: Tensor, y: Tensor, tree: _TreeLevels, *, leave_out_itself: bool) -> tuple[Tensor, Tensor]:
    """Mean similarity of every anchor with the candidates under the weights of the tree, and which have a positive."""
    weight = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    for level in tree.levels:
        count = torch.bincount(level.key_node, minlength=level.num_nodes)
        weight += level.share * count[level.anchor_node]
    rows: Tensor = _TreeSums.apply(y, tree.levels, x.shape[0])  # type: ignore[no-untyped-call]
    similarity = (x * rows).sum(dim=1)
    sharing = tree.sharing
    if leave_out_itself:
        own = tree.itself.to(x.dtype)
        similarity = similarity - own * (x * x).sum(dim=1)
        weight = weight - tree.itself.double()
        sharing = sharing - tree.itself.long()
    valid = sharing > 0
    return similarity.masked_fill(~valid, 0.0) / weight.masked_fill(~valid, 1.0).to(x.dtype), valid


class _TreeSums(torch.autograd.Function):
    """``sum_j w_ij y_j`` for every anchor, one depth at a time."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, levels: list[_Level], num_anchors: int) -> Tensor:
        ctx.levels, ctx.shape = levels, y.shape
        total = y.new_zeros(num_anchors, y.shape[1])
        for level in levels:
            below = y.new_zeros(level.num_nodes, y.shape[1]).index_add_(0, level.key_node, y[level.keys])
            total.addcmul_(below[level.anchor_node], level.share.to(y.dtype)[:, None])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        total = upstream.new_zeros(ctx.shape)
        for level in ctx.levels:
            weighted = upstream * level.share.to(upstream.dtype)[:, None]
            below = upstream.new_zeros(level.num_nodes, ctx.shape[1]).index_add_(0, level.anchor_node, weighted)
            total.index_add_(0, level.keys, below[level.key_node])
        return total, None, None


def _shared_runs(left: Tensor, right: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Number of runs of ``order`` ancestors in both paths, and in either."""
    common = torch.zeros(left.shape[0], right.shape[0], dtype=torch.int32, device=left.device)
    for depth in range(left.shape[1]):
        common += (left[:, None, depth] == right[None, :, depth]) & (left[:, None, depth] >= 0)
    shared = (common - (order - 1)).clamp_min(0)
    own = ((left >= 0).sum(dim=1) - (order - 1)).clamp_min(0)
    others = ((right >= 0).sum(dim=1) - (order - 1)).clamp_min(0)
    return shared, own[:, None] + others[None, :] - shared


def _check_paths(name: str, paths: Tensor, rows: int | None) -> None:
    if paths.dim() != 2 or (rows is not None and paths.shape[0] != rows):
        raise ValueError(
            f"{name} must have shape ({'rows' if rows is None else rows}, depth), got shape {tuple(paths.shape)}"
        )
    if paths.dtype.is_floating_point or paths.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer tensor, got dtype {paths.dtype}")
