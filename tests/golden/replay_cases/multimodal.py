"""Cases of multimodal and collaborative recommendation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphcl.kernels import (
    SparseMatrix,
    hypergraph_operator,
    normalize_by_row,
    normalize_symmetric,
    shared_hyperedge_operator,
)
from replay_cases.graph import sparse_of
from replay_cases.registry import Case, case

_CALL = re.compile(r"X\(\s*(\d+)\s*,\s*(\d+)\s*,\s*(-?[\d.]+)\s*\)")


def matrix_of(text: str, formula: str = "") -> Tensor:
    """The matrix that a text such as ``X(6,3,0.8)`` names: X(n,m,k)[i,j] = sin(step (i m + j) + k)."""
    found = _CALL.search(text)
    if found is None:
        raise ValueError(f"not a matrix formula: {text!r}")
    rows, columns, k = int(found[1]), int(found[2]), float(found[3])
    stated = re.search(r"sin\(([\d.]+)\*", formula)
    step = float(stated[1]) if stated else 0.1
    return torch.sin(step * torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns) + k)


@case("mmhcl.ui_adj_sym", "mmhcl.ui_adj_sym_empty_user")
def ui_adj_sym(one: Case) -> Mapping[str, Any]:
    ratings = sparse_of(one.inputs["R_train"])
    users, items = ratings.shape
    block = normalize_symmetric(ratings, bipartite=True).to_dense()
    dense = torch.zeros(users + items, users + items, dtype=torch.float64)
    dense[:users, users:], dense[users:, :users] = block, block.T
    return {"dense": dense}


@case("mmhcl.u2u_rw", "mmhcl.u2u_rw_empty_user")
def u2u_rw(one: Case) -> Mapping[str, Any]:
    ratings = sparse_of(one.inputs["R_train"])
    return {"dense": shared_hyperedge_operator(ratings, normalization="row", keep_diagonal=False).to_dense()}


@case("hgnn.operator")
def hgnn_operator(one: Case) -> Mapping[str, Any]:
    hyperedges = one.inputs["hyperedges"]
    rows = torch.tensor([vertex for edge in hyperedges for vertex in edge], dtype=torch.int64)
    columns = torch.tensor([number for number, edge in enumerate(hyperedges) for _ in edge], dtype=torch.int64)
    ones = torch.ones(rows.shape[0], dtype=torch.float64)
    incidence = SparseMatrix.from_coo(rows, columns, ones, shape=(one.inputs["n_vertices"], len(hyperedges)))
    x = matrix_of(one.inputs["x"], one.inputs.get("formula", ""))
    operator = hypergraph_operator(incidence)
    mean_of_vertices, mean_of_edges = normalize_by_row(incidence.T), normalize_by_row(incidence)
    return {"L_HGNN": operator.to_dense(), "HGNN_x": operator @ x, "HGNNp_x": mean_of_edges @ (mean_of_vertices @ x)}
