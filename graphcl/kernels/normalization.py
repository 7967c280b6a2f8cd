"""Normalised propagation operators. A node without entries gets 0, never inf or NaN, with gradient 0."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from graphcl.kernels.factored import FactoredMatrix
from graphcl.kernels.sparse import SparseMatrix

__all__ = [
    "add_self_loops",
    "hypergraph_operator",
    "normalize_by_row",
    "normalize_symmetric",
    "shared_hyperedge_operator",
]


def add_self_loops(matrix: SparseMatrix, weight: float = 1.0) -> SparseMatrix:
    """``A + weight I``; an existing diagonal entry stays beside the new one, as in the formula.

    Args:
        matrix: square, ``(N, N)``.
        weight: value of the new entries; an unweighted matrix stays unweighted where it is 1.

    Returns:
        ``(N, N)`` with N more entries, columns ascending within rows.

    Raises:
        ValueError: the matrix is not square.

    Complexity: O(E + N).

    >>> import torch
    >>> edge = SparseMatrix.from_coo(torch.tensor([0]), torch.tensor([1]), shape=(2, 2))
    >>> add_self_loops(edge).to_dense()
    tensor([[1., 1.],
            [0., 1.]])
    """
    size = _square(matrix)
    nodes = torch.arange(size, device=matrix.device)
    values = matrix.values
    if values is not None or weight != 1.0:
        entries = matrix.entry_values()
        values = torch.cat([entries, entries.new_full((size,), weight)])
    return SparseMatrix.from_coo(
        torch.cat([matrix.pattern.rows, nodes]),
        torch.cat([matrix.columns, nodes]),
        values,
        shape=matrix.shape,
        check=False,
    )


def normalize_by_row(matrix: SparseMatrix) -> SparseMatrix:
    r"""Every row divided by its sum: mean aggregation, a random walk.

    .. math:: D^{-1} A, \quad D_{ii} = \sum_j A_{ij}

    Args:
        matrix: ``(M, N)``, values or none.

    Returns:
        ``(M, N)`` on the same pattern, differentiable in the values; a row that sums to 0 becomes 0.

    Complexity: O(E).

    >>> import torch
    >>> star = SparseMatrix.from_coo(torch.tensor([0, 0]), torch.tensor([0, 1]), shape=(2, 2))
    >>> normalize_by_row(star).to_dense()
    tensor([[0.5000, 0.5000],
            [0.0000, 0.0000]])
    """
    return matrix.scale(rows=_reciprocal(matrix.row_sums()))


def normalize_symmetric(matrix: SparseMatrix, *, self_loops: float = 0.0, bipartite: bool = False) -> SparseMatrix:
    r"""Entries divided by the square roots of both degrees, as in GCN (Kipf and Welling, 2017,
    https://arxiv.org/abs/1609.02907) and, bipartite, LightGCN (He et al., 2020, https://arxiv.org/abs/2002.02126).

    .. math:: D^{-1/2} (A + \lambda I) D^{-1/2}, \quad D_{ii} = \sum_j (A + \lambda I)_{ij};
        \qquad \text{bipartite: } D_r^{-1/2} A D_c^{-1/2}

    Args:
        matrix: ``(N, N)``, or ``(M, N)`` with ``bipartite``; values or none.
        self_loops: weight λ of added self loops; 0 adds none.
        bipartite: rows and columns are different nodes; the right factor then uses column sums. A square matrix uses
            row sums on both sides, as PyG's ``gcn_norm`` does.

    Returns:
        Matrix on the same pattern (one with self loops where they are added), differentiable in the values. A node
        whose sum is not positive gets 0.

    Raises:
        ValueError: the matrix is not square and ``bipartite`` is off, or self loops are asked for with it.

    Complexity: O(E + M + N).

    >>> import torch
    >>> edge = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([1, 0]), shape=(3, 3))
    >>> normalize_symmetric(edge, self_loops=1.0).to_dense()
    tensor([[0.5000, 0.5000, 0.0000],
            [0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    if bipartite:
        if self_loops:
            raise ValueError(f"self_loops needs one kind of nodes, got {self_loops} with bipartite=True")
        return matrix.scale(_reciprocal_root(matrix.row_sums()), _reciprocal_root(matrix.column_sums()))
    _square(matrix)
    if self_loops:
        matrix = add_self_loops(matrix, self_loops)
    roots = _reciprocal_root(matrix.row_sums())
    return matrix.scale(roots, roots)


def hypergraph_operator(incidence: SparseMatrix, hyperedge_weight: Tensor | None = None) -> FactoredMatrix:
    r"""Hypergraph convolution of HGNN (Feng et al., 2019, https://arxiv.org/abs/1809.09401), kept factored.

    .. math:: D_v^{-1/2} H W D_e^{-1} H^T D_v^{-1/2}, \quad
        (D_v)_{ii} = \sum_e w_e H_{ie}, \; (D_e)_{ee} = \sum_i H_{ie}

    Args:
        incidence: H, ``(nodes, hyperedges)``, values or none.
        hyperedge_weight: w, ``(hyperedges,)`` or None for ones; it enters both the product and the degrees.

    Returns:
        ``(nodes, nodes)`` operator, differentiable in the values and the weights; isolated nodes and empty hyperedges
        give 0.

    Raises:
        ValueError: ``hyperedge_weight`` of the wrong shape.

    Complexity: O(E) to build; O(E d) to apply, never O(nodes^2).

    >>> import torch
    >>> incidence = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([0, 0]), shape=(3, 1))
    >>> hypergraph_operator(incidence).to_dense()
    tensor([[0.5000, 0.5000, 0.0000],
            [0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    size = incidence.shape[1]
    if hyperedge_weight is not None and hyperedge_weight.shape != (size,):
        raise ValueError(f"hyperedge_weight must have shape ({size},), got shape {tuple(hyperedge_weight.shape)}")
    inner = _reciprocal(incidence.column_sums())
    if hyperedge_weight is None:
        outer = _reciprocal_root(incidence.row_sums())
    else:
        inner = hyperedge_weight * inner
        outer = _reciprocal_root(incidence.scale(columns=hyperedge_weight).row_sums())
    return FactoredMatrix([outer, incidence, inner, incidence.T, outer])


def shared_hyperedge_operator(
    incidence: SparseMatrix, *, normalization: Literal["row", "symmetric"], keep_diagonal: bool
) -> FactoredMatrix:
    r"""Propagation by the number of shared hyperedges, as MMHCL (Guo et al., 2025, https://arxiv.org/abs/2504.16576)
    uses it: no hyperedge degrees, degrees taken from the product.

    .. math:: C = H H^T \;(\text{minus its diagonal}), \quad D = \mathrm{diag}(C 1), \quad
        D^{-1} C \;\text{ or }\; D^{-1/2} C D^{-1/2}

    The user graph of MMHCL is ``row`` without the diagonal on the ratings; its item graph is ``symmetric`` with the
    diagonal on the concatenated neighbour lists.

    Args:
        incidence: H, ``(nodes, hyperedges)``, values or none; duplicate entries must have been merged.
        normalization: ``row`` or ``symmetric``.
        keep_diagonal: whether a node counts as its own neighbour.

    Returns:
        ``(nodes, nodes)`` operator; a node that shares nothing gives 0.

    Raises:
        ValueError: an unknown normalisation.

    Complexity: O(E) to build; O(E d) to apply. H H^T, which may hold up to nodes^2 entries, is never formed.

    >>> import torch
    >>> ratings = SparseMatrix.from_coo(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]), shape=(3, 2))
    >>> shared_hyperedge_operator(ratings, normalization="row", keep_diagonal=False).to_dense()
    tensor([[0., 1., 0.],
            [1., 0., 0.],
            [0., 0., 0.]])
    """
    if normalization not in ("row", "symmetric"):
        raise ValueError(f"normalization must be 'row' or 'symmetric', got {normalization!r}")
    own = None
    if not keep_diagonal:
        values = incidence.values
        own = incidence.row_sums() if values is None else incidence.with_values(values * values).row_sums()
    transposed = incidence.T
    degrees = FactoredMatrix([incidence, transposed], None if own is None else -own).row_sums()
    if normalization == "row":
        scale = _reciprocal(degrees)
        return FactoredMatrix([scale, incidence, transposed], None if own is None else -own * scale)
    scale = _reciprocal_root(degrees)
    diagonal = None if own is None else -own * scale * scale
    return FactoredMatrix([scale, incidence, transposed, scale], diagonal)


def _square(matrix: SparseMatrix) -> int:
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}")
    return matrix.shape[0]


def _reciprocal(sums: Tensor) -> Tensor:
    """1 / x, and 0 with gradient 0 where x is 0."""
    empty = sums == 0
    return sums.masked_fill(empty, 1.0).reciprocal().masked_fill(empty, 0.0)


def _reciprocal_root(sums: Tensor) -> Tensor:
    """x^(-1/2), and 0 with gradient 0 where x is not positive."""
    empty = sums <= 0
    return sums.masked_fill(empty, 1.0).rsqrt().masked_fill(empty, 0.0)
