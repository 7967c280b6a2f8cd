"""The synergistic contrast of MMHCL: one view against another and against itself, over all nodes of a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, check_views, in_space, paired_similarity
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import AnyOf, Backend, CandidateRule, EqualIds, ExcludePairs, ExcludeSameIndex, pair_logsumexp
from graphcl.kernels._arguments import MEMORY_BUDGET, check_indices

__all__ = ["synergistic_contrastive"]

_REUSED_BYTES = 24 << 20
_FEWEST_ROWS = 64


def synergistic_contrastive(
    z1: Tensor,
    z2: Tensor,
    *,
    anchors: Tensor | None = None,
    ids: Tensor | None = None,
    temperature: float | Tensor = 0.6,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Synergistic contrast: every node of view 1 finds itself in view 2 among all nodes of both views.

    X. Guo et al., "MMHCL: Multi-Modal Hypergraph Contrastive Learning for Recommendation", 2025,
    https://arxiv.org/abs/2504.16576. Confidence: V.

    Use it to tie a first-order embedding of all users or items to their second-order one. It is `nt_xent` with the rows
    of view 1 as the only anchors; given ``anchors`` it is computed for these rows alone, against all N nodes.

    .. math:: L_a = -\frac{c(z^1_a, z^2_a)}{\tau} + \log\Bigl(\sum_b e^{c(z^1_a, z^2_b)/\tau}
        + \sum_{b \ne a} e^{c(z^1_a, z^1_b)/\tau}\Bigr)

    with c the cosine. Uniformly drawn anchors make an unbiased estimate of the mean over all nodes and of its gradient.

    Args:
        z1: ``(N, d)`` first view.
        z2: ``(N, d)`` second view; row i is the positive of row i.
        anchors: ``(A,)`` rows of view 1 to compute the loss for; all N by default.
        ids: ``(N,)`` integers; rows of another node with the same id are never negatives.
        temperature: positive number or 0-dim tensor.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(A,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(A N d) time, O(N d) memory plus the tiles.

    >>> import torch
    >>> synergistic_contrastive(torch.eye(3), torch.eye(3), temperature=1.0)
    tensor(0.9048)
    """
    check_views("z1", z1, "z2", z2)
    check_temperature(temperature)
    count = z1.shape[0]
    space, (first, second) = in_space("cosine", z1, z2)
    rule: CandidateRule
    rules: list[CandidateRule]
    if anchors is None:
        rows, twin, rule = first, second, ExcludeSameIndex()
    else:
        check_indices("anchors", anchors, None, count, check=True)
        own = anchors.long()
        rows, twin = first[own], second[own]
        rule = ExcludePairs(torch.arange(own.shape[0] + 1, device=own.device), own)
        # A larger buffer is mapped, and its pages faulted in, anew at every call: the C library keeps smaller ones.
        least = _FEWEST_ROWS * 2 * count * first.element_size()
        memory_budget = min(memory_budget, max(_REUSED_BYTES, least))
    rules = [rule]
    if ids is not None:
        check_indices("ids", ids, count, None, check=False)
        node = torch.arange(count, device=ids.device)
        here, own_ids = (node, ids) if anchors is None else (node[anchors.long()], ids[anchors.long()])
        # The node itself stays, whatever carries its id.
        rules.append(AnyOf([EqualIds(here, node.repeat(2)), EqualIds(own_ids, ids.repeat(2), keep=False)]))
    # One sweep over both views; of view 1 an anchor leaves itself out, in view 2 it finds its positive.
    total = pair_logsumexp(
        rows,
        torch.cat([first, second]),
        temperature=temperature,
        similarity=space,
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    return reduce_anchors(total - paired_similarity(rows, twin, space) / temperature, reduction)
