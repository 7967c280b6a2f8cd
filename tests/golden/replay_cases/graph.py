"""Cases of graph contrastive learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphcl.kernels import SparseMatrix, normalize_symmetric
from replay_cases.registry import Case, case


def sparse_of(dense: list[list[float]]) -> SparseMatrix:
    """The non-zero entries of a dense matrix, in float64."""
    matrix = torch.tensor(dense, dtype=torch.float64)
    rows, columns = matrix.nonzero(as_tuple=True)
    shape = matrix.shape[0], matrix.shape[1]
    return SparseMatrix.from_coo(rows, columns, matrix[rows, columns], shape=shape)


@case("normalize_adj")
def normalize_adj(one: Case) -> Mapping[str, Any]:
    # The reference transposes and takes row sums of the untransposed matrix.
    return {"A_norm": normalize_symmetric(sparse_of(one.inputs["A"])).T.to_dense()}
