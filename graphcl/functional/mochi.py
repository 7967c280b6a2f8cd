"""Hard negatives mixed in embedding space."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphcl.functional._draws import draw_integers, draw_uniform
from graphcl.functional._group_sums import equal_group_pairs
from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    different_ids,
    logsumexp_rows,
    merge_logsumexp,
    paired_similarity,
    softplus,
    unit_rows,
)
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import Backend, edge_dot, pair_logsumexp, pair_topk
from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size, check_same_space

__all__ = ["HardMixtures", "draw_hard_mixtures", "hard_negatives", "mochi"]


class HardMixtures(NamedTuple):
    """Which hard negatives are mixed, by rank in the list of the query (0 = hardest), and with which weights.

    Attributes:
        first, second: ``(N, s1)`` ranks of the two negatives of a pair mixture.
        alpha: ``(N, s1)`` weight of the first.
        partner: ``(N, s2)`` ranks of the negatives that are mixed with the query.
        beta: ``(N, s2)`` weight of the query, below 1/2.
    """

    first: Tensor
    second: Tensor
    alpha: Tensor
    partner: Tensor
    beta: Tensor


def draw_hard_mixtures(
    queries: Tensor,
    num_hard: int,
    num_pair_mixtures: int,
    num_query_mixtures: int,
    *,
    generator: torch.Generator | None = None,
) -> HardMixtures:
    r"""Draw ranks uniformly, :math:`\alpha \sim U(0, 1)` and :math:`\beta \sim U(0, 1/2)` for `mochi`.

    Y. Kalantidis et al., "Hard Negative Mixing for Contrastive Learning", 2020, https://arxiv.org/abs/2010.01028.

    Args:
        queries: ``(N, d)``, for the number of rows, type and device.
        num_hard: length of the list of hard negatives of a query.
        num_pair_mixtures: s1.
        num_query_mixtures: s2.
        generator: of the draws, on the device of the queries.

    Returns:
        `HardMixtures`.

    Raises:
        ValueError: ``num_hard`` below 1 or a negative number of mixtures.

    Complexity: O(N (s1 + s2)).

    >>> import torch
    >>> drawn = draw_hard_mixtures(torch.zeros(2, 3), 4, 5, 6)
    >>> drawn.alpha.shape, bool((drawn.beta < 0.5).all())
    (torch.Size([2, 5]), True)
    """
    check_block_size("num_hard", num_hard)
    if min(num_pair_mixtures, num_query_mixtures) < 0:
        raise ValueError(f"numbers of mixtures must not be negative, got {num_pair_mixtures} and {num_query_mixtures}")
    num, device = queries.shape[0], queries.device

    def ranks(width: int) -> Tensor:
        return draw_integers(num_hard, num, width, device=device, generator=generator)

    wide = queries.detach()
    first, second = ranks(num_pair_mixtures), ranks(num_pair_mixtures)
    alpha = draw_uniform(num, num_pair_mixtures, like=wide, generator=generator)
    partner = ranks(num_query_mixtures)
    beta = draw_uniform(num, num_query_mixtures, like=wide, high=0.5, generator=generator)
    return HardMixtures(first, second, alpha, partner, beta)


def hard_negatives(
    queries: Tensor,
    queue: Tensor,
    num_hard: int,
    *,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    """Positions of the rows of the queue with the highest cosine to each query, rows of the same sample left out.

    Args:
        queries: ``(N, d)``.
        queue: ``(Q, d)``.
        num_hard: how many.
        ids: ``(N,)`` integers; rows of the queue with the id of the query are no negatives.
        queue_ids: ``(Q,)`` ids of the queue.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_topk`.

    Returns:
        ``(N, num_hard)`` integers in order of falling cosine; -1 where there are no more negatives.

    Raises:
        ValueError, TypeError: naming the argument and the value.

    Complexity: O(N Q d) time, O((N + Q) d + N num_hard) memory plus one tile.

    >>> import torch
    >>> hard_negatives(torch.eye(2), torch.eye(2), 2)
    tensor([[0, 1],
            [1, 0]])
    """
    check_same_space("queries", queries, "queue", queue)
    different_ids(queries.shape[0], queue.shape[0], ids, queue_ids)
    exclude = None if ids is None or queue_ids is None else equal_group_pairs(ids, queue_ids)
    return pair_topk(
        queries, queue, num_hard, similarity="cosine", exclude=exclude, memory_budget=memory_budget, backend=backend
    ).indices


def mochi(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    num_hard: int = 1024,
    num_pair_mixtures: int = 1024,
    num_query_mixtures: int = 128,
    mixtures: HardMixtures | None = None,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
    temperature: float | Tensor = 0.2,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""MoCHi: momentum contrast with further negatives that are mixed from the hardest ones of each query.

    Y. Kalantidis et al., "Hard Negative Mixing for Contrastive Learning", 2020, https://arxiv.org/abs/2010.01028.
    Confidence: C; the default numbers of mixtures are recalled from the paper for queues of 16 thousand rows and more.
    Use it after a warm-up, when the queue is large but few of its rows are hard.

    .. math:: C_i = \{k_i\} \cup \text{queue} \cup \{n(\alpha n_a + (1-\alpha) n_b)\} \cup
        \{n(\beta q_i + (1-\beta) n_c)\}, \qquad L_i = -\log \frac{e^{\langle q_i, k_i\rangle/\tau}}
        {\sum_{v \in C_i} e^{\langle q_i, v\rangle/\tau}}

    with :math:`n_a, n_b, n_c` among the hardest negatives of query i. Mixtures are constants, and only their logits are
    formed: they follow from the inner products of the query and of the two negatives.

    Args:
        queries: ``(N, d)``.
        keys: ``(N, d)``, constants; row i is the positive of query i.
        queue: ``(Q, d)`` negatives, constants.
        num_hard: how many hard negatives are mixed from.
        num_pair_mixtures: s1, mixtures of two negatives.
        num_query_mixtures: s2, mixtures of the query with a negative.
        mixtures: ranks and weights instead of drawn ones. Ranks count on from the start of the list where a query has
            fewer hard negatives.
        generator: of the draws.
        ids: ``(N,)`` integers; rows of the queue with the id of the query are no negatives.
        queue_ids: ``(Q,)`` ids of the queue.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles of pairs.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or ``(N,)`` for ``none``. A query without negatives has loss 0.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N (Q + s1 + s2) d) time, O((N + Q) d + N (num_hard + s1 + s2)) memory plus the tiles.

    >>> import torch
    >>> mochi(torch.eye(2), torch.eye(2), torch.zeros(3, 2), num_pair_mixtures=1, num_query_mixtures=0, temperature=1.0)
    tensor(0.9048)
    """
    check_views("queries", queries, "keys", keys)
    check_same_space("queries", queries, "queue", queue)
    check_temperature(temperature)
    x, k, negatives = unit_rows(queries, keys.detach(), queue.detach())
    rules = different_ids(x.shape[0], negatives.shape[0], ids, queue_ids)
    total = pair_logsumexp(
        x, negatives, temperature=temperature, rules=rules, memory_budget=memory_budget, backend=backend
    ).logsumexp
    if mixtures is None:
        mixtures = draw_hard_mixtures(x, num_hard, num_pair_mixtures, num_query_mixtures, generator=generator)
    hard = hard_negatives(
        x, negatives, num_hard, ids=ids, queue_ids=queue_ids, memory_budget=memory_budget, backend=backend
    )
    synthetic = _mixture_similarities(x, negatives, hard, mixtures, memory_budget, backend)
    per_row = isinstance(temperature, Tensor) and temperature.dim() == 1
    logits = (synthetic.T / temperature).T if per_row else synthetic / temperature
    total = merge_logsumexp([total, logsumexp_rows(logits)])
    return reduce_anchors(softplus(total - paired_similarity(x, k) / temperature), reduction, weight=weight)


def positions_of_ranks(hard: Tensor, ranks: Tensor) -> Tensor:
    """Rows of the queue behind ranks in the list of each query; -1 for a query without negatives."""
    available = (hard >= 0).sum(dim=1, keepdim=True)
    if ranks.dim() != 2 or ranks.shape[0] != hard.shape[0]:
        raise ValueError(f"ranks must have shape ({hard.shape[0]}, mixtures), got shape {tuple(ranks.shape)}")
    return hard.gather(1, ranks % available.clamp(min=1))


def _mixture_similarities(
    x: Tensor, negatives: Tensor, hard: Tensor, mixtures: HardMixtures, memory_budget: int, backend: Backend
) -> Tensor:
    """``(N, s1 + s2)`` cosines of the queries with their mixtures, -inf where a query has no negative to mix."""
    first, second, partner = (
        positions_of_ranks(hard, ranks) for ranks in (mixtures.first, mixtures.second, mixtures.partner)
    )
    alpha, beta = mixtures.alpha.to(x), mixtures.beta.to(x)
    constant = x.detach()

    def dots(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        listed = edge_dot(
            left,
            right,
            rows.clamp(min=0).flatten(),
            columns.clamp(min=0).flatten(),
            memory_budget=memory_budget,
            backend=backend,
            check=False,
        )
        return listed.view(columns.shape)

    if negatives.shape[0] == 0:
        return x.new_full((x.shape[0], first.shape[1] + partner.shape[1]), -torch.inf)
    own = torch.arange(x.shape[0], device=x.device)[:, None]
    squares = (negatives * negatives).sum(dim=1)
    own_squares = (constant * constant).sum(dim=1, keepdim=True)
    pair = alpha * dots(x, negatives, own.expand_as(first), first)
    pair = pair + (1.0 - alpha) * dots(x, negatives, own.expand_as(second), second)
    pair_norm = (
        alpha**2 * squares[first]
        + (1.0 - alpha) ** 2 * squares[second]
        + 2.0 * alpha * (1.0 - alpha) * dots(negatives, negatives, first, second)
    )
    to_partner = dots(x, negatives, own.expand_as(partner), partner)
    query = beta * paired_similarity(x, constant)[:, None] + (1.0 - beta) * to_partner
    query_norm = (
        beta**2 * own_squares + (1.0 - beta) ** 2 * squares[partner] + 2.0 * beta * (1.0 - beta) * to_partner.detach()
    )
    similarity = torch.cat([_over_norm(pair, pair_norm), _over_norm(query, query_norm)], dim=1)
    return similarity.masked_fill(torch.cat([first, partner], dim=1) < 0, -torch.inf)


def _over_norm(product: Tensor, squared_norm: Tensor) -> Tensor:
    """Product with a mixture divided by its length; 0 where the mixture vanishes."""
    gone = squared_norm <= torch.finfo(squared_norm.dtype).eps
    return (product / squared_norm.masked_fill(gone, 1.0).sqrt()).masked_fill(gone, 0.0)
