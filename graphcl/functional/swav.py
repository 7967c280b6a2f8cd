"""Swapped prediction of cluster codes (SwAV)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.functional._pair_terms import check_temperature, check_views, unit_rows
from graphcl.functional._soft_targets import expected_similarity
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, pair_logsumexp, sinkhorn_potentials
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_positive, check_same_space

__all__ = ["swav"]


def swav(
    views: Sequence[Tensor],
    prototypes: Tensor,
    *,
    queues: Sequence[Tensor] | None = None,
    code_views: int = 2,
    temperature: float | Tensor = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""SwAV: every view predicts the balanced cluster codes of another view of the same sample.

    M. Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020,
    https://arxiv.org/abs/2006.09882. Confidence: V. Use it when groups of similar samples matter more than telling
    every sample apart; there are no negatives but the other prototypes.

    .. math:: L = \frac{1}{V_c (V - 1)} \sum_{v \le V_c} \sum_{u \ne v}
        -\sum_k q^v_{ik} \log \operatorname{softmax}_k \frac{\langle z^u_i, c_k \rangle}{\tau}, \qquad
        q^v = \operatorname{Sinkhorn}_\epsilon(\operatorname{sg} \langle z^v_i, c_k \rangle)

    The codes are never stored: the two dual vectors of the transport plan give them back in every tile.

    Args:
        views: V of ``(N, d)``, row i of each from sample i. The first ``code_views`` give codes, all predict.
        prototypes: ``(K, d)``; normalised here.
        queues: for each code view ``(Q, d)`` earlier rows of that view, which help to balance the codes of a batch that
            is small beside K. They take no part in the loss.
        code_views: how many views give codes.
        temperature: of the prediction: positive number or 0-dim tensor.
        epsilon: entropy of the codes.
        iterations: of Sinkhorn.
        weight: ``(N,)`` non-negative weights of the samples.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``. No gradient flows through the codes.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(V (iterations + V) N K d) time, O((V N + K) d) memory plus the tiles.

    >>> import torch
    >>> swav([torch.eye(3), torch.eye(3)], torch.eye(3), temperature=1.0)
    tensor(0.5514)
    """
    if len(views) < 2:
        raise ValueError(f"views must hold at least 2 views, got {len(views)}")
    if not 1 <= code_views <= len(views):
        raise ValueError(f"code_views must lie in 1 .. {len(views)} (views), got {code_views}")
    if queues is not None and len(queues) != code_views:
        raise ValueError(f"queues must hold one queue for each of {code_views} code views, got {len(queues)}")
    for position, view in enumerate(views):
        check_views("views[0]", views[0], f"views[{position}]", view)
    check_same_space("views[0]", views[0], "prototypes", prototypes)
    check_temperature(temperature)
    check_positive("epsilon", epsilon)
    check_block_size("iterations", iterations)
    *rows, centers = unit_rows(*views, prototypes)
    log_sums = [
        pair_logsumexp(row, centers, temperature=temperature, memory_budget=memory_budget, backend=backend).logsumexp
        for row in rows
    ]
    loss = torch.zeros_like(log_sums[0])
    for source in range(code_views):
        balanced = rows[source]
        if queues is not None:
            check_same_space(f"views[{source}]", views[source], f"queues[{source}]", queues[source])
            balanced = torch.cat([unit_rows(queues[source].detach())[0], balanced])
        dual = sinkhorn_potentials(
            balanced.detach(),
            centers.detach(),
            epsilon=epsilon,
            iterations=iterations,
            memory_budget=memory_budget,
            backend=backend,
        )
        for target, row in enumerate(rows):
            if target != source:
                predicted = expected_similarity(
                    rows[source],
                    row,
                    centers,
                    temperature=epsilon,
                    candidate_bias=-dual.columns,
                    memory_budget=memory_budget,
                    backend=backend,
                )
                loss = loss + log_sums[target] - predicted / temperature
    return reduce_anchors(loss / (code_views * (len(rows) - 1)), reduction, weight=weight)
