"""Cases of contrast between meta-nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphcl.functional import pamc
from graphcl.kernels import SparseMatrix, cluster_sum, normalize_by_row, normalize_rows, spmm
from replay_cases.registry import Case, case


def influence(one: Case) -> Tensor:
    """``A + A^2 + ...`` of the row-normalised symmetrised graph with loops, dense."""
    num_nodes = int(one.inputs["n"])
    edges = torch.tensor(one.inputs["edges"]).T
    loops = torch.arange(num_nodes).repeat(2, 1)
    every = torch.unique(torch.cat([edges, edges.flip(0), loops], dim=1), dim=1)
    adjacency = SparseMatrix.from_coo(
        every[0], every[1], torch.ones(every.shape[1]).double(), shape=(num_nodes, num_nodes)
    )
    adjacency = normalize_by_row(adjacency)
    power = torch.eye(num_nodes, dtype=torch.float64)
    total = torch.zeros_like(power)
    for _ in range(int(one.inputs["order"])):
        power = spmm(adjacency, power)
        total += power
    return total


@case("pamc_loss")
def pamc_loss(one: Case) -> Mapping[str, Any]:
    wave = one.inputs["z"]
    position = torch.arange(wave["rows"] * wave["cols"], dtype=torch.float64).reshape(wave["rows"], wave["cols"])
    z = (wave["amp"] * torch.sin(wave["step"] * position + wave["k"])).requires_grad_()
    ids = torch.tensor(one.inputs["cluster_ids"])
    graph = influence(one.referenced(one.inputs["graph"]))
    edges = graph.nonzero().T
    loss = pamc(z, ids, edges, edge_weight=graph[edges[0], edges[1]], temperature=1.0 / float(one.inputs["tau"]))
    assert isinstance(loss, Tensor)
    meta_nodes = cluster_sum(z.detach(), ids, int(ids.max()) + 1)
    cosine = normalize_rows(meta_nodes) @ normalize_rows(meta_nodes).T
    return {
        "meta_nodes": meta_nodes,
        "meta_cosine_zero_diag": cosine - torch.diag(torch.diagonal(cosine)),
        "loss_dense": loss,
        "loss_sparse": loss,
        "grad_z": torch.autograd.grad(loss, z)[0],
    }
