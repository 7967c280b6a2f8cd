"""Contrast over more than two views of every instance: MV-InfoNCE, MV-DHEL and their baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from graphcl.functional._embeddings import check_labels, check_temperature, logits_of, unit_rows, unit_views
from graphcl.functional._pair_terms import softplus
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import (
    AnyOf,
    Backend,
    CandidateRule,
    EqualIds,
    ExcludeSameIndex,
    pair_logsumexp,
    pair_logsumexp_both,
)
from graphcl.kernels._arguments import MEMORY_BUDGET

__all__ = ["mean_view_nt_xent", "mv_dhel", "mv_infonce", "pairwise_nt_xent", "poly_view"]


def mv_infonce(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = 0.2,
    denominator: Literal["all", "cross"] = "all",
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""MV-InfoNCE: one softmax an instance over all its view pairs.

    "A Principled Framework for Multi-View Contrastive Learning" (2025).

    Use it for three or more views that are all to be aligned at once.

    .. math:: L_i = \log \sum_{(l; m, j)} e^{\langle z^l_i, z^m_j \rangle / \tau}
        - \log \sum_{l \neq l'} e^{\langle z^l_i, z^{l'}_i \rangle / \tau}

    The released code sums (l; m, j) over everything but the pair of a row with itself (``denominator="all"``); the
    printed formula takes different views only, m != l (``"cross"``).

    Args:
        views: V >= 2 tensors ``(N, d)``, row i of each showing instance i, or one ``(V, N, d)`` tensor.
        temperature: positive number or 0-dim tensor.
        denominator: ``all`` or ``cross``.
        keys: ``(K, d)`` further negatives of every row, for instance a queue.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        key_ids: ``(K,)`` ids of ``keys``, compared with ``ids``.
        reduction: over instances.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes, temperature or options that do not fit.

    Complexity: O(V^2 N^2 d) time, O(V N (d + V)) memory.

    Confidence: V (released function executed, value and gradient agree); ``cross`` is the printed formula; ``keys``,
    ``ids`` and ``key_ids`` are conventions of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> mv_infonce([z, z, z], temperature=1.0)
    tensor(0.7437)
    """
    if denominator not in ("all", "cross"):
        raise ValueError(f"denominator must be 'all' or 'cross', got {denominator!r}")
    check_temperature(temperature)
    z = unit_views(views)
    num_views, num_instances, dim = z.shape
    rows = z.reshape(num_views * num_instances, dim)
    more = _further_keys(keys, ids, key_ids, z)
    device = z.device
    view = torch.arange(num_views, device=device).repeat_interleave(num_instances)
    rules: list[CandidateRule] = [ExcludeSameIndex()]
    if denominator == "cross":
        rules = [EqualIds(view, torch.cat([view, view.new_full((more.shape[0],), num_views)]), keep=False)]
    if ids is not None:
        rules.append(_same_instance_or_other_id(ids, key_ids, num_instances, num_views, more.shape[0]))
    total = pair_logsumexp(
        rows,
        _extended(rows, more),
        temperature=temperature,
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    total = torch.logsumexp(total.view(num_views, num_instances), dim=0)
    # Every unordered pair of views stands for two ordered ones.
    positive = torch.logsumexp(logits_of(_view_pairs(z), temperature), dim=1) + torch.log(z.new_tensor(2.0))
    return reduce_anchors(total - positive, reduction)


def mv_dhel(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = 0.2,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""MV-DHEL: energies within each view, decoupled from the alignment of all view pairs.

    "A Principled Framework for Multi-View Contrastive Learning" (2025).

    Use it for three or more views when negatives should not weaken the alignment of positives.

    .. math:: L_i = \sum_l \log \sum_{j \neq i} e^{\langle z^l_i, z^l_j \rangle / \tau}
        - \log \sum_{l < l'} e^{\langle z^l_i, z^{l'}_i \rangle / \tau}

    as in the released code; the printed form counts ordered pairs (a constant log 2) and keeps j = i in the energies.

    Args:
        views: V >= 2 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        temperature: positive number or 0-dim tensor.
        keys: ``(K, d)`` further negatives of every row.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        key_ids: ``(K,)`` ids of ``keys``, compared with ``ids``.
        reduction: over instances that have a negative.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes or temperature that do not fit.

    Complexity: O(V N^2 d) time, O(V N (d + V)) memory.

    Confidence: V (released function executed, value and gradient agree); ``keys``, ``ids`` and ``key_ids`` are
    conventions of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> mv_dhel([z, z], temperature=1.0)
    tensor(0.3863)
    """
    check_temperature(temperature)
    z = unit_views(views)
    more = _further_keys(keys, ids, key_ids, z)
    num_instances = z.shape[1]
    rule: CandidateRule = ExcludeSameIndex()
    if ids is not None:
        check_labels("ids", ids, num_instances, integer=True)
        rule = EqualIds(ids, _candidate_ids(ids, key_ids, more.shape[0]), keep=False)
    energies = [
        pair_logsumexp(
            view,
            _extended(view, more),
            temperature=temperature,
            rules=rule if ids is None else (rule, ExcludeSameIndex()),
            memory_budget=memory_budget,
            backend=backend,
        ).logsumexp
        for view in z
    ]
    energy = torch.stack(energies)
    positive = torch.logsumexp(logits_of(_view_pairs(z), temperature), dim=1)
    valid = (energy > -torch.inf).all(dim=0)
    # Energies of instances without negatives are -inf; masking them first keeps the sum over views finite.
    return reduce_anchors(energy.masked_fill(~valid, 0.0).sum(dim=0) - positive, reduction, valid=valid)


def pairwise_nt_xent(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = 0.2,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""NT-Xent averaged over all pairs of views, the usual way to use a two-view loss with more views.

    Use it as the baseline for three or more views.

    .. math:: L = \frac{2}{V (V - 1)} \sum_{l < l'} \text{NT-Xent}(z^l, z^{l'})

    Baseline of "A Principled Framework for Multi-View Contrastive Learning" (2025).

    Args:
        views: V >= 2 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        temperature: positive number or 0-dim tensor.
        keys: ``(K, d)`` further negatives of every row.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        key_ids: ``(K,)`` ids of ``keys``, compared with ``ids``.
        reduction: over instances.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes or temperature that do not fit.

    Complexity: O(V^2 N^2 d) time (every product once, and those within a view only V times), O(V N d) memory.

    Confidence: C (formula taken from public code that was read); ``keys``, ``ids`` and ``key_ids`` are
    conventions of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> pairwise_nt_xent([z, z, z], temperature=1.0)
    tensor(0.9048)
    """
    check_temperature(temperature)
    z = unit_views(views)
    contrast = _TwoSets(temperature, _further_keys(keys, ids, key_ids, z), ids, key_ids, memory_budget, backend)
    own = [contrast.own(view) for view in z]
    losses = [
        contrast.loss(z[left], z[right], own[left], own[right])
        for left in range(z.shape[0])
        for right in range(left + 1, z.shape[0])
    ]
    return reduce_anchors(torch.stack(losses).mean(dim=0), reduction)


def mean_view_nt_xent(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = 0.2,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""NT-Xent of every view against the mean of the other views.

    Use it for three or more views at the price of two: one softmax a view instead of one a pair of views.

    .. math:: L = \frac{1}{V} \sum_l \text{NT-Xent}\Big(z^l, \frac{1}{V - 1} \sum_{m \neq l} z^m\Big)

    The mean of unit rows is not normalised again, as in the released baseline of "A Principled Framework for Multi-View
    Contrastive Learning" (2025).

    Args:
        views: V >= 2 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        temperature: positive number or 0-dim tensor.
        keys: ``(K, d)`` further negatives of every row.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        key_ids: ``(K,)`` ids of ``keys``, compared with ``ids``.
        reduction: over instances.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes or temperature that do not fit.

    Complexity: O(V N^2 d) time, O(V N d) memory.

    Confidence: C (formula taken from public code that was read); ``keys``, ``ids`` and ``key_ids`` are
    conventions of this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> mean_view_nt_xent([z, z, z], temperature=1.0)
    tensor(0.9048)
    """
    check_temperature(temperature)
    z = unit_views(views)
    contrast = _TwoSets(temperature, _further_keys(keys, ids, key_ids, z), ids, key_ids, memory_budget, backend)
    others = (z.sum(dim=0, keepdim=True) - z) / (z.shape[0] - 1)
    losses = [
        contrast.loss(view, mean, contrast.own(view), contrast.own(mean)) for view, mean in zip(z, others, strict=True)
    ]
    return reduce_anchors(torch.stack(losses).mean(dim=0), reduction)


def poly_view(
    views: Sequence[Tensor] | Tensor,
    *,
    temperature: float | Tensor = 0.2,
    keys: Tensor | None = None,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Geometric poly-view contrast: each other view of an instance against all views of all other instances.

    Amitis Shidani et al., "Poly-View Contrastive Learning" (2024), https://arxiv.org/abs/2403.05490

    Use it for three or more views when the information of every single view about the others counts.

    .. math:: L_i = \frac{1}{V (V - 1)} \sum_{\alpha \neq \beta}
        - \log \frac{e^{\ell_{\alpha\beta,i}}}{e^{\ell_{\alpha\beta,i}} + \sum_{\gamma, j \neq i}
        e^{\langle z^\alpha_i, z^\gamma_j \rangle / \tau}}, \qquad
        \ell_{\alpha\beta,i} = \langle z^\alpha_i, z^\beta_i \rangle / \tau

    Args:
        views: V >= 2 tensors ``(N, d)``, or one ``(V, N, d)`` tensor; normalised here.
        temperature: positive number or 0-dim tensor.
        keys: ``(K, d)`` further negatives of every row.
        ids: ``(N,)`` integers equal for instances that must not be each other's negatives.
        key_ids: ``(K,)`` ids of ``keys``, compared with ``ids``.
        reduction: over instances.
        memory_budget: upper bound in bytes for the tiles of the pair engine.
        backend: of the pair engine.

    Returns:
        Scalar, or ``(N,)`` for ``none``.

    Raises:
        ValueError, TypeError: shapes, dtypes or temperature that do not fit.

    Complexity: O(V^2 N^2 d) time, O(V N (d + V)) memory.

    Confidence: C (formula taken from public code that was read); ``keys``, ``ids`` and ``key_ids`` are conventions of
    this package.

    >>> import torch
    >>> z = torch.eye(3)
    >>> poly_view([z, z], temperature=1.0)
    tensor(0.9048)
    """
    check_temperature(temperature)
    z = unit_views(views)
    num_views, num_instances, dim = z.shape
    rows = z.reshape(num_views * num_instances, dim)
    more = _further_keys(keys, ids, key_ids, z)
    instance = torch.arange(num_instances, device=z.device) if ids is None else ids
    check_labels("ids", instance, num_instances, integer=True)
    anchor_ids = instance.repeat(num_views)
    candidate_ids = torch.cat([anchor_ids, _candidate_ids(instance, key_ids, more.shape[0])[num_instances:]])
    negative = pair_logsumexp(
        rows,
        _extended(rows, more),
        temperature=temperature,
        rules=EqualIds(anchor_ids, candidate_ids, keep=False),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp.view(num_views, num_instances)
    gram = logits_of(torch.einsum("and,bnd->abn", z, z), temperature)
    loss = softplus(negative[:, None, :] - gram)
    other = ~torch.eye(num_views, dtype=torch.bool, device=z.device)
    return reduce_anchors(loss[other].mean(dim=0), reduction)


class _TwoSets:
    """NT-Xent of two prepared sets of rows whose log-sum-exps within a set may be shared between pairs of sets."""

    def __init__(
        self,
        temperature: float | Tensor,
        keys: Tensor,
        ids: Tensor | None,
        key_ids: Tensor | None,
        memory_budget: int,
        backend: Backend,
    ) -> None:
        self.temperature, self.keys, self.ids, self.key_ids = temperature, keys, ids, key_ids
        self.memory_budget: int = memory_budget
        self.backend: Backend = backend

    def own(self, rows: Tensor) -> Tensor:
        """Log-sum-exp of every row over the other rows of its set and the further keys."""
        rules: list[CandidateRule] = [ExcludeSameIndex()]
        if self.ids is not None:
            check_labels("ids", self.ids, rows.shape[0], integer=True)
            rules.append(EqualIds(self.ids, _candidate_ids(self.ids, self.key_ids, self.keys.shape[0]), keep=False))
        return pair_logsumexp(
            rows,
            _extended(rows, self.keys),
            temperature=self.temperature,
            rules=rules,
            memory_budget=self.memory_budget,
            backend=self.backend,
        ).logsumexp

    def loss(self, left: Tensor, right: Tensor, own_left: Tensor, own_right: Tensor) -> Tensor:
        """Mean over the two directions, ``(N,)``."""
        rules = () if self.ids is None else _same_instance_or_other_id(self.ids, None, left.shape[0], 1, 0)
        both = pair_logsumexp_both(
            left,
            right,
            temperature=self.temperature,
            rules=rules,
            memory_budget=self.memory_budget,
            backend=self.backend,
        )
        total = torch.logaddexp(own_left, both.rows) + torch.logaddexp(own_right, both.columns)
        return total / 2 - logits_of((left * right).sum(dim=1), self.temperature)


def _view_pairs(z: Tensor) -> Tensor:
    """``(N, V (V - 1) / 2)`` similarities of the unordered pairs of views of every instance."""
    left, right = torch.triu_indices(z.shape[0], z.shape[0], offset=1, device=z.device)
    return torch.einsum("and,bnd->nab", z, z)[:, left, right]


def _further_keys(keys: Tensor | None, ids: Tensor | None, key_ids: Tensor | None, z: Tensor) -> Tensor:
    if key_ids is not None and (keys is None or ids is None):
        raise ValueError("key_ids belong to keys and are compared with ids: pass all three")
    if keys is None:
        return z.new_empty(0, z.shape[2])
    return unit_rows("keys", keys).to(z.dtype)


def _extended(rows: Tensor, more: Tensor) -> Tensor:
    """The rows and further keys, without a copy where there are none."""
    return torch.cat([rows, more]) if more.shape[0] > 0 else rows


def _candidate_ids(ids: Tensor, key_ids: Tensor | None, num_keys: int) -> Tensor:
    """Ids of the instances followed by those of the keys; keys without ids get fresh ones."""
    if key_ids is None:
        first = int(ids.max()) + 1 if ids.numel() > 0 else 0
        key_ids = torch.arange(first, first + num_keys, device=ids.device)
    check_labels("key_ids", key_ids, num_keys, integer=True)
    return torch.cat([ids.long(), key_ids.long()])


def _same_instance_or_other_id(
    ids: Tensor, key_ids: Tensor | None, num_instances: int, num_views: int, num_keys: int
) -> CandidateRule:
    """Keeps the other views of the same instance, and leaves out rows of other instances that carry its id."""
    check_labels("ids", ids, num_instances, integer=True)
    instance = torch.arange(num_instances, device=ids.device)
    candidate_instance = torch.cat([instance.repeat(num_views), instance.new_full((num_keys,), -1)])
    key_part = _candidate_ids(ids, key_ids, num_keys)[num_instances:]
    return AnyOf(
        [
            EqualIds(instance.repeat(num_views), candidate_instance),
            EqualIds(ids.long().repeat(num_views), torch.cat([ids.long().repeat(num_views), key_part]), keep=False),
        ]
    )
