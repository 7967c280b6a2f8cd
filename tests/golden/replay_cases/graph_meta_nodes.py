"""Cases of contrast between meta-nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphcl.functional import assignment_divergence, pamc, scgc, student_t_assignment, target_distribution
from graphcl.graphs import influence_matrix
from graphcl.kernels import SparseMatrix, cluster_sum, normalize_rows
from replay_cases.registry import Case, case


def graph_of(one: Case) -> SparseMatrix:
    """The listed edges in both directions, unweighted."""
    num_nodes = int(one.inputs["n"])
    edges = torch.tensor(one.inputs["edges"]).T
    both = torch.unique(torch.cat([edges, edges.flip(0)], dim=1), dim=1)
    ones = torch.ones(both.shape[1], dtype=torch.float64)
    return SparseMatrix.from_coo(both[0], both[1], ones, shape=(num_nodes, num_nodes))


def edges_of(one: Case) -> tuple[Tensor, Tensor]:
    """Stored entries and values of ``A + A^2 + ...`` of the graph that a case refers to."""
    graph = one.referenced(one.inputs["graph"])
    matrix = influence_matrix(graph_of(graph), int(graph.inputs["order"]))
    return torch.stack([matrix.pattern.rows, matrix.columns]), matrix.entry_values()


def wave(spec: Mapping[str, Any]) -> Tensor:
    """The matrix of sines that an input describes."""
    position = torch.arange(spec["rows"] * spec["cols"], dtype=torch.float64).reshape(spec["rows"], spec["cols"])
    return torch.as_tensor(spec["amp"] * torch.sin(spec["step"] * position + spec["k"]))


@case("pamc_influence")
def pamc_influence(one: Case) -> Mapping[str, Any]:
    graph, order = graph_of(one), int(one.inputs["order"])
    return {
        "A": influence_matrix(graph, 1).to_dense(),
        f"A_pow{order}": influence_matrix(graph, order, accumulate=False).to_dense(),
        f"A_cum{order}": influence_matrix(graph, order).to_dense(),
    }


@case("pamc_loss")
def pamc_loss(one: Case) -> Mapping[str, Any]:
    z = wave(one.inputs["z"]).requires_grad_()
    ids = torch.tensor(one.inputs["cluster_ids"])
    edges, weights = edges_of(one)
    loss = pamc(z, ids, edges, edge_weight=weights, temperature=1.0 / float(one.inputs["tau"]))
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


@case("pamc_student_t")
def pamc_student_t(one: Case) -> Mapping[str, Any]:
    z = wave(one.inputs["z"]).requires_grad_()
    q = student_t_assignment(z, wave(one.inputs["mu"]))
    target = target_distribution(q)
    divergence = assignment_divergence(target, q)
    return {"q": q, "p": target, "kl": divergence, "grad_kl_z": torch.autograd.grad(divergence, z)[0]}


@case("scgc_ncontrast")
def scgc_ncontrast(one: Case) -> Mapping[str, Any]:
    z = wave(one.inputs["z"]).requires_grad_()
    edges, weights = edges_of(one)
    loss = scgc(z, edges, edge_weight=weights, temperature=1.0 / float(one.inputs["tau"]))
    unit = normalize_rows(z.detach())
    cosine = unit @ unit.T
    return {
        "cosine_zero_diag": cosine - torch.diag(torch.diagonal(cosine)),
        "loss": loss,
        "grad_z": torch.autograd.grad(loss, z)[0],
    }


@case("pamc_total")
def pamc_total(one: Case) -> Mapping[str, Any]:
    contrast, student = one.referenced("pamc_loss"), one.referenced("pamc_student_t")
    edges, weights = edges_of(contrast)
    z, ids = wave(contrast.inputs["z"]), torch.tensor(contrast.inputs["cluster_ids"])
    loss = pamc(z, ids, edges, edge_weight=weights, temperature=1.0 / float(contrast.inputs["tau"]))
    assert isinstance(loss, Tensor)
    q = student_t_assignment(z, wave(student.inputs["mu"]))
    divergence = assignment_divergence(target_distribution(q), q)
    return {
        "loss": float(one.inputs["alpha"]) * loss + float(one.inputs["beta"]) * divergence,
        "argmax_q": q.argmax(dim=1),
    }
