"""InfoNCE whose negatives are clusters: sizes, means and spreads stand for the rows (block and meta-node forms)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphcl.functional._group_sums import equal_group_pairs
from graphcl.functional._neighbor_sums import neighbor_logsumexp
from graphcl.functional._pair_terms import (
    check_temperature,
    check_views,
    in_space,
    logsumexp_rows,
    merge_logsumexp,
    paired_similarity,
    refuse_key_ids,
    softplus,
)
from graphcl.functional._row_blocks import over_row_blocks
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels import (
    Backend,
    ExcludePairs,
    ExcludeSameIndex,
    Similarity,
    SparseMatrix,
    cluster_sum,
    normalize_rows,
    pair_logsumexp,
    scatter_logsumexp,
)
from graphcl.kernels._arguments import (
    MEMORY_BUDGET,
    check_indices,
    check_matrix,
    check_same_space,
    check_vector,
    compute_dtype,
)
from graphcl.kernels._product import distance_product

__all__ = ["BlockCorrection", "block_info_nce", "meta_node_repulsion", "neighbor_attraction", "pamc"]

BlockCorrection = Literal["none", "diagonal", "full"]


def block_info_nce(
    anchors: Tensor,
    positives: Tensor,
    assignment: Tensor,
    *,
    keys: Tensor | None = None,
    num_clusters: int | None = None,
    correction: BlockCorrection = "none",
    detach_clusters: bool = False,
    ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    similarity: Similarity = "cosine",
    symmetric: bool = False,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""InfoNCE with the negatives of a cluster replaced by their mean: N x K products instead of N x C.

    The idea of meta-nodes is that of G. K. Kulatilleke, M. Portmann, S. S. Chandra, "Efficient block contrastive
    learning via parameter-free meta-node approximation", 2022, https://arxiv.org/abs/2209.14067; this form keeps the
    value of `info_nce` and is this package's convention. Confidence: P. Use it in place of `info_nce` when N x C
    products take too long and the rows are clustered tightly against the temperature, or with ``correction`` also when
    they are not. It takes every argument of `info_nce`, so ``functools.partial(block_info_nce, assignment=ids)`` goes
    wherever that one does; with both views as keys and equal ids for twins it stands in for `nt_xent`.

    .. math:: L_i = \log\Bigl(1 + \sum_k n_{ik}\, e^{(\langle x_i, c_{ik} \rangle + v_{ik} / 2\tau)/\tau
        - s(x_i, y_i)/\tau}\Bigr)

    where n, c are number and mean of the negatives of anchor i in cluster k (its own row, or the rows with its id,
    taken out exactly, as in `info_nce`), and v the variance of their similarities: 0 for ``none`` (first order),
    :math:`\sum_f x_{if}^2 \Sigma_{k,ff}` for ``diagonal``, :math:`x_i^T \Sigma_k x_i` for ``full``.

    Error: if the logits of anchor i with the members of one cluster span at most w (at most the cluster's diameter
    times the norm of the anchor over the temperature), ``none`` is below the exact loss by at most :math:`w^2/8`
    (inequalities of Jensen and Hoeffding), and ``full`` differs by at most :math:`w^3/(36\sqrt 3)`, from the third
    cumulant of a bounded variable. Clusters of one row are exact. ``diagonal`` leaves out correlations between
    features: nearly as good as ``full`` for rows without clusters, but no better than ``none`` for tight clusters on
    the sphere, whose spread is all across the mean.

    When to trust it: where the standard deviation of an anchor's logits within a cluster, averaged as the softmax
    weighs the clusters, is below 0.3. There, over all K, tightnesses and N of benchmarks/block_error.py, ``none`` was
    within 0.041 of the loss and 4% of the gradient, ``full`` within 0.001 and 0.4%. Above 0.3 ask for more clusters
    (at least as many as there are groups: merged groups give a close value and a wrong gradient) or a higher
    temperature; the number of rows hardly matters.

    Args:
        anchors: ``(N, d)`` rows x.
        positives: ``(N, d)``; row i is the positive of anchor i.
        assignment: of the candidates, which are the keys or else the positives: hard ids ``(C,)``, or soft non-negative
            weights ``(C, K)`` whose rows sum to 1. Empty clusters are left out.
        keys: ``(C, d)`` negatives; by default the other rows of ``positives``.
        num_clusters: K; by default the largest id and one.
        correction: ``none``, ``diagonal`` or ``full``.
        detach_clusters: no gradient through the clusters; anchors and positives keep theirs.
        ids: ``(N,)`` integers; a candidate with the id of the anchor is never its negative. Needs hard ids of clusters.
        key_ids: ``(C,)`` ids of the keys.
        temperature: positive number, 0-dim tensor, or ``(N,)``.
        similarity: ``cosine``, ``dot`` or ``sqeuclidean``. Means are means of the normalised rows for ``cosine``.
        symmetric: also contrasts ``positives`` with the clusters of ``anchors`` under the same assignment. Not with
            keys.
        weight: ``(N,)`` non-negative weights of the anchors.
        reduction: ``mean``, ``sum`` or ``none``.
        memory_budget: upper bound in bytes for the tiles.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, or for ``none`` ``(N,)``, ``(2 N,)`` when symmetric. An anchor without negatives has loss 0.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N K d) time and O((N + C + K) d) memory plus the tiles; ``full`` takes d (d + 1) / 2 more columns, for
    narrow embeddings. Soft weights are N x K by themselves.

    >>> import torch
    >>> rows = torch.eye(3)
    >>> block_info_nce(rows, rows, torch.tensor([0, 1, 2]), temperature=1.0)
    tensor(0.5514)
    """
    check_views("anchors", anchors, "positives", positives)
    check_temperature(temperature)
    if isinstance(temperature, Tensor) and temperature.dim() == 1:
        check_vector("temperature", temperature, anchors.shape[0], device=anchors.device)
    if correction not in ("none", "diagonal", "full"):
        raise ValueError(f"correction must be 'none', 'diagonal' or 'full', got {correction!r}")
    if keys is not None:
        if symmetric:
            raise ValueError("symmetric needs the positives as candidates; with keys call once a direction")
        check_same_space("anchors", anchors, "keys", keys)
        space, (x, y, candidates) = in_space(similarity, anchors, positives, keys)
        if (ids is None) != (key_ids is None):
            given = "key_ids" if ids is None else "ids"
            raise ValueError(f"ids and key_ids are compared with each other, got only {given}")
    else:
        refuse_key_ids(key_ids)
        space, (x, y) = in_space(similarity, anchors, positives)
        candidates, key_ids = y, ids
    soft = assignment.is_floating_point()
    if soft and ids is not None:
        raise ValueError("ids need hard clusters, got soft weights")
    num_candidates = candidates.shape[0]
    if not soft:
        check_indices("assignment", assignment, num_candidates, None, check=False)
        if num_clusters is None:
            num_clusters = int(assignment.max()) + 1 if num_candidates > 0 else 0
        assignment = assignment.long()
    elif assignment.dim() != 2 or assignment.shape[0] != num_candidates:
        raise ValueError(
            f"assignment must have shape ({num_candidates}, clusters) as soft weights, got {tuple(assignment.shape)}"
        )
    else:
        num_clusters = assignment.shape[1] if num_clusters is None else num_clusters
        assignment = assignment.to(x.dtype)
    if ids is None:
        own = None if keys is not None else torch.arange(x.shape[0], device=x.device)
        key_own = own
    else:
        check_indices("ids", ids, x.shape[0], None, check=False)
        own, key_own = ids, key_ids

    def negatives(left: Tensor, right: Tensor) -> Tensor:
        if detach_clusters:
            right = right.detach()
        if space == "sqeuclidean":
            left, right = distance_product(left, right)
        pairs = _Pairs(left, right, 1.0 / temperature, correction, memory_budget, backend)
        if soft:
            return _soft_logsumexp(pairs, assignment, num_clusters, own is not None)
        return _hard_logsumexp(pairs, assignment, num_clusters, own, key_own)

    positive = paired_similarity(x, y, space) / temperature
    loss = softplus(negatives(x, candidates) - positive)
    if symmetric:
        loss = torch.cat([loss, softplus(negatives(y, x) - positive)])
        weight = None if weight is None else weight.repeat(2)
    return reduce_anchors(loss, reduction, weight=weight)


def pamc(
    z: Tensor,
    assignment: Tensor,
    edge_index: Tensor | SparseMatrix,
    *,
    edge_weight: Tensor | None = None,
    num_clusters: int | None = None,
    num_anchors: int | None = None,
    detach_meta_nodes: bool = False,
    temperature: float = 1.0,
    return_components: bool = False,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""PamC: nodes attract their weighted neighbours, and the meta-nodes of the clusters repel each other.

    G. K. Kulatilleke, M. Portmann, S. S. Chandra, "Efficient block contrastive learning via parameter-free meta-node
    approximation", 2022, https://arxiv.org/abs/2209.14067. Confidence: V. Use it to train node embeddings for
    clustering on large graphs: its cost is linear in nodes and edges. Its value is not that of an InfoNCE over all
    nodes; `block_info_nce` approximates that one, and `scgc` is the exact form that this one replaces.

    .. math:: L = -\operatorname{mean}_i \log \sum_{j} G_{ij} e^{s_{ij}/\tau}
        + \operatorname{mean}_a \log \sum_b e^{S_{ab}/\tau}, \qquad S_{ab} = \cos(M_a, M_b), \; M = A^T z

    with s the cosine, and s and S set to 0 on the diagonal. The two terms are `neighbor_attraction` and
    `meta_node_repulsion`.

    Args:
        z: ``(n, d)`` node embeddings; in a mini-batch the anchors first, then the neighbours they need.
        assignment: of the anchors: hard ids ``(N,)`` or soft weights ``(N, K)`` (A in the formula). Empty clusters are
            left out.
        edge_index: stored entries (i, j) of the influence matrix G, which may hold the diagonal: ``(2, E)``, or a
            `SparseMatrix` ``(N, n)``, which saves sorting them in every call.
        edge_weight: ``(E,)`` positive entries; ones by default. A `SparseMatrix` holds them itself.
        num_clusters: K; by default the largest id and one.
        num_anchors: N; by default all n rows.
        detach_meta_nodes: no gradient through the meta-nodes.
        temperature: positive number; the released code multiplies by the inverse of it.
        return_components: also return the parts.
        memory_budget: upper bound in bytes for the tiles of pairs of clusters.
        backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        A scalar, with ``return_components`` also a dictionary of ``neighbors`` and ``meta_nodes``. Nodes without stored
        entries are left out of the first mean (the released code adds 1e-10 inside both logarithms).

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(E d + N d + K^2 d) time, O(n d + E + K d) memory.

    >>> import torch
    >>> z, loops = torch.eye(2), torch.tensor([[0, 1], [0, 1]])
    >>> pamc(z, torch.tensor([0, 1]), loops)
    tensor(0.6931)
    """
    check_matrix("z", z)
    check_temperature(temperature)
    num_anchors = check_anchors(num_anchors, z)
    attraction = neighbor_attraction(
        z, edge_index, edge_weight=edge_weight, num_anchors=num_anchors, temperature=temperature
    )
    anchors = z[:num_anchors]
    repulsion = meta_node_repulsion(
        anchors.detach() if detach_meta_nodes else anchors,
        assignment.detach() if detach_meta_nodes else assignment,
        num_clusters=num_clusters,
        temperature=temperature,
        memory_budget=memory_budget,
        backend=backend,
    )
    parts = {
        "neighbors": -reduce_anchors(attraction, valid=attraction > -torch.inf),
        "meta_nodes": reduce_anchors(repulsion),
    }
    loss = parts["neighbors"] + parts["meta_nodes"]
    return (loss, parts) if return_components else loss


def neighbor_attraction(
    z: Tensor,
    edge_index: Tensor | SparseMatrix,
    *,
    edge_weight: Tensor | None = None,
    num_anchors: int | None = None,
    temperature: float = 1.0,
) -> Tensor:
    r"""Log of every node's weighted sum of similarities with its neighbours: the positives of `pamc` and `scgc`.

    .. math:: \log \sum_{j} G_{ij} e^{s_{ij}/\tau}, \qquad s_{ij} = \cos(z_i, z_j), \; s_{ii} = 0

    Args:
        z: ``(n, d)``, anchors first.
        edge_index: ``(2, E)`` stored entries of G, or a `SparseMatrix` ``(N, n)`` with its values.
        edge_weight: ``(E,)`` positive entries; ones by default.
        num_anchors: N; by default all n rows.
        temperature: positive number.

    Returns:
        ``(N,)``; -inf with gradient 0 for a node without stored entries.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(E d) time, O(n d + E) memory.

    >>> import torch
    >>> neighbor_attraction(torch.ones(2, 1), torch.tensor([[0, 0], [0, 1]]))
    tensor([1.3133,   -inf])
    """
    check_matrix("z", z)
    check_temperature(temperature)
    num_anchors = check_anchors(num_anchors, z)
    if isinstance(edge_index, SparseMatrix):
        if edge_weight is not None:
            raise ValueError("edge_weight belongs to listed pairs, got it beside a SparseMatrix, which holds its own")
        influence = edge_index
        if influence.shape != (num_anchors, z.shape[0]):
            raise ValueError(f"edge_index must have shape {(num_anchors, z.shape[0])}, got {influence.shape}")
    else:
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"edge_index must have shape (2, edges), got {tuple(edge_index.shape)}")
        if edge_weight is not None:
            check_vector("edge_weight", edge_weight, edge_index.shape[1], device=z.device)
        rows, columns = edge_index.long()
        influence = SparseMatrix.from_coo(rows, columns, edge_weight, shape=(num_anchors, z.shape[0]))
    unit = normalize_rows(z.to(compute_dtype(z.dtype)))
    if influence.values is not None and not bool((influence.values > 0).all()):
        raise ValueError(f"edge_weight must be above 0, got {float(influence.values.min())}")
    return neighbor_logsumexp(unit, influence, temperature)


def meta_node_repulsion(
    z: Tensor,
    assignment: Tensor,
    *,
    num_clusters: int | None = None,
    temperature: float = 1.0,
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
) -> Tensor:
    r"""Log of every meta-node's sum of similarities with all meta-nodes: the negatives of `pamc`.

    .. math:: \log \sum_b e^{S_{ab}/\tau}, \qquad S_{ab} = \cos(M_a, M_b), \; S_{aa} = 0, \; M = A^T z

    Sums serve as means: only their direction counts.

    Args:
        z: ``(N, d)``.
        assignment: hard ids ``(N,)`` or soft weights ``(N, K)``.
        num_clusters: K; by default the largest id and one.
        temperature: positive number.
        memory_budget, backend: see `graphcl.kernels.pair_logsumexp`.

    Returns:
        One value for each cluster that is not empty, in the order of the clusters; at least 0.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(N d + K^2 d) time for hard ids, O(N K d) for soft weights; O(N d + K d) memory.

    >>> import torch
    >>> meta_node_repulsion(torch.eye(2), torch.tensor([0, 2]), num_clusters=4)
    tensor([0.6931, 0.6931])
    """
    check_matrix("z", z)
    check_temperature(temperature)
    if assignment.is_floating_point():
        num_clusters = assignment.shape[-1] if num_clusters is None else num_clusters
        assignment = assignment.to(z.dtype)
    elif num_clusters is None:
        num_clusters = int(assignment.max()) + 1 if assignment.numel() > 0 else 0
    meta_nodes = cluster_sum(z, assignment, num_clusters)
    filled = (assignment.sum(dim=0) if assignment.is_floating_point() else _counts(assignment, num_clusters)) > 0
    meta_nodes = meta_nodes[filled]
    others = pair_logsumexp(
        meta_nodes,
        meta_nodes,
        temperature=temperature,
        similarity="cosine",
        rules=ExcludeSameIndex(),
        memory_budget=memory_budget,
        backend=backend,
    ).logsumexp
    return softplus(others)


def check_anchors(num_anchors: int | None, z: Tensor) -> int:
    """The number of rows of ``z``, from the first on, that are anchors."""
    if num_anchors is None:
        return z.shape[0]
    if isinstance(num_anchors, bool) or not isinstance(num_anchors, int) or not 0 <= num_anchors <= z.shape[0]:
        raise ValueError(f"num_anchors must lie in 0 .. {z.shape[0]} (rows of z), got {num_anchors!r}")
    return num_anchors


class _Pairs(NamedTuple):
    """Rows whose inner products, times the scale of the anchor, are the logits; and how to sum them."""

    x: Tensor
    y: Tensor
    scale: float | Tensor
    correction: BlockCorrection
    memory_budget: int
    backend: Backend

    def moments(self) -> Tensor:
        """``(C, d + q)``: every row and its products, whose sums over a cluster are first and second moments."""
        return self.y if self.correction == "none" else torch.cat([self.y, _products(self.y, self.correction)], dim=1)

    def queries(self) -> Tensor:
        """``(N, d + q)``: what a mean, and a covariance, is multiplied by to give mean + variance / 2 of the logits."""
        scale = self.scale[:, None] if isinstance(self.scale, Tensor) and self.scale.dim() == 1 else self.scale
        x = self.x * scale
        if self.correction == "none":
            return x
        squares = 0.5 * _products(x, self.correction)
        if self.correction == "full":
            first, second = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
            squares = squares * torch.where(first == second, 1.0, 2.0).to(x.dtype)
        return torch.cat([x, squares], dim=1)

    def statistics(self, total: Tensor, count: Tensor) -> Tensor:
        """``(n, d + q)`` means and covariances from sums of moments and numbers of rows, 0 where there is no row."""
        average = total / count.clamp(min=1)[:, None]
        if self.correction == "none":
            return average
        mean, second = average[:, : self.x.shape[1]], average[:, self.x.shape[1] :]
        covariance = second - _products(mean, self.correction)
        # Variances of equal rows are 0 up to rounding; below 0 they would be scaled up by cold temperatures.
        return torch.cat([mean, covariance.clamp(min=0) if self.correction == "diagonal" else covariance], dim=1)


def _products(x: Tensor, correction: BlockCorrection) -> Tensor:
    """Squares of the features, or products of every two of them."""
    if correction == "diagonal":
        return x * x
    first, second = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return x[:, first] * x[:, second]


def _counts(assignment: Tensor, num_clusters: int) -> Tensor:
    return torch.bincount(assignment.long(), minlength=num_clusters)


def _log_count(count: Tensor, dtype: torch.dtype) -> Tensor:
    return count.to(dtype).log()


def _hard_logsumexp(
    pairs: _Pairs, assignment: Tensor, num_clusters: int, own: Tensor | None, key_own: Tensor | None
) -> Tensor:
    """Log-sum-exp over clusters, with the candidates of the anchor's own id taken out of theirs.

    An anchor meets a cluster that holds nothing of its own in the engine. The few it has something in (one, without
    ids) are listed, and meet it with sums from which its own part is subtracted.
    """
    moments, queries = pairs.moments(), pairs.queries()
    total = cluster_sum(moments, assignment, num_clusters)
    count = _counts(assignment, num_clusters)

    def against_clusters(rules: tuple[ExcludePairs, ...]) -> Tensor:
        return pair_logsumexp(
            queries,
            pairs.statistics(total, count),
            candidate_bias=_log_count(count, moments.dtype),
            rules=rules,
            memory_budget=pairs.memory_budget,
            backend=pairs.backend,
        ).logsumexp

    if own is None or key_own is None:
        return against_clusters(())
    # One cell for every id and cluster that occur together.
    cells, cell_of_key = torch.unique(torch.stack([key_own.long(), assignment], dim=1), dim=0, return_inverse=True)
    offsets, cell = equal_group_pairs(own.long(), cells[:, 0].contiguous())
    cluster = cells[cell, 1]
    cell_count = _counts(cell_of_key, cells.shape[0])
    rest_count = count[cluster] - cell_count[cell]
    rest = pairs.statistics(
        total[cluster] - cluster_sum(moments, cell_of_key, cells.shape[0], check=False)[cell], rest_count
    )
    rows = torch.repeat_interleave(torch.arange(own.shape[0], device=own.device), offsets.diff())
    logits = (queries[rows] * rest).sum(dim=1) + _log_count(rest_count, rest.dtype)
    near = scatter_logsumexp(logits, rows, own.shape[0], check=False)
    return merge_logsumexp([against_clusters((ExcludePairs(offsets, cluster),)), near])


def _soft_logsumexp(pairs: _Pairs, assignment: Tensor, num_clusters: int, leave_own: bool) -> Tensor:
    """The same for soft weights: every anchor has a part in every cluster, so all N x K pairs are corrected."""
    moments = pairs.moments()
    total = cluster_sum(moments, assignment, num_clusters)
    queries = pairs.queries()
    if leave_own:
        shares, own = assignment, moments
    else:
        shares, own = queries.new_zeros(queries.shape[0], num_clusters), torch.zeros_like(queries)
    return over_row_blocks(
        _soft_block(pairs.x.shape[1], pairs.correction),
        [queries, own, shares],
        [total, assignment.sum(dim=0)],
        num_columns=num_clusters,
        floats_per_pair=16,
        memory_budget=pairs.memory_budget,
    )


def _soft_block(width: int, correction: BlockCorrection) -> Callable[..., Tensor]:
    def block(query: Tensor, own: Tensor, share: Tensor, total: Tensor, mass: Tensor) -> Tensor:
        """``(b,)`` from queries and own moments of b anchors, their shares ``(b, K)`` and the sums of the clusters."""
        rest = mass - share
        # Shares are sums in floating point: what is left of a cluster after its only member is rounding.
        filled = rest > 16 * torch.finfo(rest.dtype).eps * mass
        rest = torch.where(filled, rest, torch.ones_like(rest))
        x, y, first = query[:, :width], own[:, :width], total[:, :width]
        mean = (x @ first.T - share * (x * y).sum(dim=1, keepdim=True)) / rest
        logits = mean
        if correction != "none":
            twice, squares = query[:, width:], own[:, width:]
            second = (twice @ total[:, width:].T - share * (twice * squares).sum(dim=1, keepdim=True)) / rest
            if correction == "full":
                spread = second - 0.5 * mean**2
            else:
                # sum_f (x_f^2 / 2) (M_f - w y_f)^2, expanded so that no (b, K, d) appears.
                product = (twice * y**2).sum(dim=1, keepdim=True)
                square = twice @ (first**2).T - 2 * share * ((twice * y) @ first.T) + share**2 * product
                spread = second - square / rest**2
            logits = mean + spread.clamp(min=0)
        return logsumexp_rows((logits + rest.log()).masked_fill(~filled, -torch.inf))

    return block
