"""Cases of meta-path views, MEOW, AdaMEOW and HeCo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphcl.functional import adameow, cluster_density, heco, meow_info_nce, meow_prototype_nce, nearest_centroids
from graphcl.graphs import (
    masked_adjacency,
    metapath_adjacency,
    metapath_contexts,
    normalize_transposed,
    pathsim_neighbours,
)
from graphcl.kernels import SparseMatrix, cluster_mean, normalize_rows
from graphcl.models.meow import MEOW, MEOWConfig
from graphcl.nn.heterogeneous import (
    ContextAggregation,
    NodeAttention,
    SemanticAttention,
    SharedEncoder,
    TypeFeatures,
    TypeTransform,
)
from replay_cases.graph import sparse_of
from replay_cases.registry import Case, case


def wave(spec: Mapping[str, Any]) -> Tensor:
    """``amp sin(step (i cols + j) + k)`` in float64."""
    position = torch.arange(spec["rows"] * spec["cols"], dtype=torch.float64).reshape(spec["rows"], spec["cols"])
    values: Tensor = spec["amp"] * torch.sin(spec["step"] * position + spec["k"])
    return values


def unit_wave(spec: Mapping[str, Any]) -> Tensor:
    return normalize_rows(wave(spec)).detach().requires_grad_()


def paper_graph(one: Case) -> HeteroData:
    """The papers, authors and subjects of the case that the inputs name."""
    given = one.inputs if "pa" in one.inputs else one.referenced(one.inputs["graph"]).inputs
    graph = HeteroData(target="paper", metapaths=["PAP", "PSP"])
    for kind, size in (("paper", "n_p"), ("author", "n_a"), ("subject", "n_s")):
        graph[kind].num_nodes = given[size]
    graph["paper", "to", "author"].edge_index = torch.tensor(given["pa"]).T
    graph["paper", "to", "subject"].edge_index = torch.tensor(given["ps"]).T
    return graph


def in_double(matrix: SparseMatrix) -> SparseMatrix:
    return matrix.with_values(matrix.entry_values().double())


def kept_columns(matrix: SparseMatrix, rows: Mapping[str, Any]) -> dict[str, list[int]]:
    offsets, columns = matrix.row_offsets.tolist(), matrix.columns.tolist()
    return {row: sorted(columns[offsets[int(row)] : offsets[int(row) + 1]]) for row in rows}


@case("metapath_counts")
def metapath_counts(one: Case) -> Mapping[str, Any]:
    graph = paper_graph(one)
    counts = {path: metapath_adjacency(graph, path).to_dense() for path in ("PAP", "PSP")}
    return {**counts, "PAP_bool": metapath_adjacency(graph, "PAP", weights="boolean").to_dense().int()}


@case("pathsim_topk")
def pathsim_topk(one: Case) -> Mapping[str, Any]:
    graph = paper_graph(one)
    scores = metapath_adjacency(graph, "PAP", weights="pathsim")
    kept = metapath_adjacency(graph, "PAP", k=one.inputs["k"])
    return {"pathsim": scores.to_dense(), "kept_columns": kept_columns(kept, one.expected["kept_columns"])}


@case("pathsim_topk_counts")
def pathsim_topk_counts(one: Case) -> Mapping[str, Any]:
    counts = sparse_of(one.inputs["counts"])
    scores = pathsim_neighbours(counts, weights="pathsim")
    kept = pathsim_neighbours(counts, k=one.inputs["k"])
    return {"pathsim": scores.to_dense(), "kept_columns": kept_columns(kept, one.expected["kept_columns"])}


@case("mask_edges_p0")
def mask_edges(one: Case) -> Mapping[str, Any]:
    counts = metapath_adjacency(paper_graph(one), "PAP")
    return {"A_norm": normalize_transposed(masked_adjacency(counts, one.inputs["ratio"])).to_dense()}


@case("context_mean")
def context_mean(one: Case) -> Mapping[str, Any]:
    graph = paper_graph(one)
    edges = graph["paper", "to", "author"].edge_index
    graph["paper", "to", "author"].edge_index = edges[:, edges[0] != one.inputs["zero_row"]]
    (context,) = metapath_contexts(graph, "PAP")
    return {"agg": context.mean @ wave(one.inputs["h_a"]).float()}


@case("gcn_global_layernorm")
def gcn_global_layernorm(one: Case) -> Mapping[str, Any]:
    operator = in_double(normalize_transposed(metapath_adjacency(paper_graph(one), "PAP")))
    first, second = wave(one.inputs["W1"]), wave(one.inputs["W2"])
    encoder = SharedEncoder(first.shape[0], first.shape[1]).double()
    with torch.no_grad():
        encoder.first.copy_(first)
        encoder.second.copy_(second)
        encoder.slope.fill_(one.inputs["prelu"])
    return {"Z": encoder(wave(one.inputs["X"]), operator)}


@case("semantic_attention")
def semantic_attention(one: Case) -> Mapping[str, Any]:
    attention = SemanticAttention(one.inputs["W"]["cols"]).double()
    with torch.no_grad():
        attention.fc.weight.copy_(wave(one.inputs["W"]))
        attention.fc.bias.copy_(wave(one.inputs["b"])[0])
        attention.att.copy_(wave(one.inputs["a"]))
    mixed, beta = attention([wave(spec) for spec in one.inputs["E"]])
    return {"beta": beta, "z": mixed}


@case("heco_intra_attention")
def heco_intra_attention(one: Case) -> Mapping[str, Any]:
    attention = NodeAttention(one.inputs["h_ref"]["cols"]).double()
    with torch.no_grad():
        attention.att.copy_(wave(one.inputs["a"]))
    neighbours = torch.tensor(one.inputs["neighbours"])
    return {"out": attention(wave(one.inputs["h_ref"]), wave(one.inputs["h_nei"]), neighbours)}


@case("meow_info_nce")
def meow_info(one: Case) -> Mapping[str, Any]:
    za, zb = unit_wave(one.inputs["za"]), unit_wave(one.inputs["zb"])
    clusterings = torch.tensor(one.inputs["clusters"])
    loss = meow_info_nce(za, zb, list(clusterings), temperature=one.inputs["tau"], similarity="dot")
    return {
        "W": len(clusterings) - (clusterings[:, :, None] == clusterings[:, None]).sum(dim=0),
        "loss": loss,
        **gradients(loss, grad_za=za, grad_zb=zb),
    }


def gradients(loss: Tensor, **leaves: Tensor) -> dict[str, Tensor]:
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@case("meow_kmeans_density")
def meow_kmeans_density(one: Case) -> Mapping[str, Any]:
    rows = unit_wave(one.inputs["zb"]).detach()
    assign, density, positive = [], [], True
    for spec in one.inputs["centroids"]:
        similarity, nearest = nearest_centroids(rows, wave(spec))
        assign.append(nearest)
        density.append(cluster_density(similarity, nearest, spec["rows"], temperature=one.inputs["tau"]))
        positive &= bool((similarity > 0).all())
    return {
        "assign": [one.tolist() for one in assign],
        "density": [one.tolist() for one in density],
        "all_best_similarities_positive": positive,
    }


@case("meow_proto_nce")
def meow_proto(one: Case) -> Mapping[str, Any]:
    za = unit_wave(one.inputs["za"])
    terms = [
        meow_prototype_nce(za, wave(centroids), torch.tensor(ids), 0.5 + wave(phi)[0], similarity="dot")
        for centroids, ids, phi in zip(
            one.inputs["centroids_raw"], one.inputs["clusters"], one.inputs["phi_minus_half"], strict=True
        )
    ]
    loss = torch.stack(terms).mean()
    return {"loss": loss, **gradients(loss, grad_za=za)}


@case("adameow_loss")
def adameow_loss(one: Case) -> Mapping[str, Any]:
    za, zb = unit_wave(one.inputs["za"]), unit_wave(one.inputs["zb"])
    first, bias, second = wave(one.inputs["W1"]).requires_grad_(), wave(one.inputs["b1"])[0], wave(one.inputs["w2"])[0]
    last = torch.tensor(one.inputs["b2"], dtype=torch.float64)
    loss = adameow(za, zb, first, bias, second, last, temperature=one.inputs["tau"], similarity="dot")
    hidden = torch.tanh((za[:, None] + zb[None]) @ first.T + bias)
    found = gradients(loss, grad_za=za, grad_zb=zb, grad_W1=first)
    return {"omega": torch.sigmoid(hidden @ second + last), "loss": loss, **found}


@case("heco_contrast")
def heco_contrast(one: Case) -> Mapping[str, Any]:
    positives = metapath_adjacency(paper_graph(one), "PAP", weights="boolean")
    weights = [wave(one.inputs[name]) for name in ("W1", "b1", "W2", "b2")]

    def project(rows: Tensor) -> Tensor:
        hidden = nn.functional.elu(rows @ weights[0].T + weights[1])
        return hidden @ weights[2].T + weights[3]

    first, second = (project(wave(one.inputs[name])) for name in ("z_mp", "z_sc"))
    return {"loss": heco(first, second, positives, temperature=one.inputs["tau"], balance=one.inputs["lam"])}


@case("meow_end_to_end")
def meow_end_to_end(one: Case) -> Mapping[str, Any]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return _end_to_end(one)
    finally:
        torch.set_default_dtype(default)


def _end_to_end(one: Case) -> Mapping[str, Any]:
    graph = paper_graph(one)
    for kind, name in (("paper", "X_p"), ("author", "X_a"), ("subject", "X_s")):
        graph[kind].x = wave(one.inputs[name])
    clusterings = one.inputs["clusters"]
    sizes = tuple(max(ids) + 1 for ids in clusterings)
    config = MEOWConfig(
        hidden=one.inputs["hidden"],
        clusters=sizes,
        temperature=one.inputs["tau"],
        dropout=0.0,
        k=graph["paper"].num_nodes,
        edge_mask=0.0,
        feature_mask=0.0,
        normalize_features="none",
    )
    inputs = MEOW.prepare(graph, config)
    keep = (torch.arange(graph["paper"].x.numel()) % 3 != 0).reshape(graph["paper"].x.shape)
    inputs = replace(inputs, masked=TypeFeatures(graph["paper"].x * keep))
    model = MEOW.from_inputs(inputs, config)
    parameters = _set_parameters(model, one)
    batch = inputs.full()
    with torch.no_grad():
        coarse, embedding = model(batch)
        v = model.projected(embedding)
        model.assignments.copy_(torch.tensor(clusterings))
        model.centroids.copy_(
            torch.cat([cluster_mean(v, ids, k) for ids, k in zip(model.assignments, sizes, strict=True)])
        )
        model.densities.fill_(config.temperature)
    model.kmeans_due = False
    loss, parts = model.objective(batch)
    norms = [
        None if gradient is None else gradient.norm().item()
        for gradient in torch.autograd.grad(loss, parameters, allow_unused=True)
    ]
    # The reference holds a second, unused slope.
    norms.insert(11, None)
    return {
        "loss_info": parts["info"],
        "loss_proto": parts["prototype"],
        "loss_total": loss,
        "embedding_z": embedding,
        "grad_norms": norms,
    }


def _set_parameters(model: MEOW, one: Case) -> list[Tensor]:
    """Fill the parameters by the formula of the case; in its order without the unused slope."""
    transforms = dict(zip(model.types, model.transforms, strict=True))
    ordered: list[tuple[Tensor, bool]] = []
    for kind in ("paper", "author", "subject"):
        transform = transforms[kind]
        assert isinstance(transform, TypeTransform)
        ordered += [(transform.weight, True), (transform.bias, False)]
    for aggregation in model.contexts:
        assert isinstance(aggregation, ContextAggregation)
        ordered += [(parameter, False) for parameter in aggregation.parameters()]
    encoder, attention = model.encoder, model.attention
    ordered += [(encoder.first, False), (encoder.slope, False), (encoder.second, False)]
    ordered += [(parameter, False) for parameter in (attention.att, attention.fc.weight, attention.fc.bias)]
    ordered += [(model.project.weight, False), (model.project.bias, False)]
    listed = [shape for name, shape in one.inputs["parameters"] if name != "Encoder.gc2.act.weight"]
    numbers = [number for number, (name, _) in enumerate(one.inputs["parameters"]) if name != "Encoder.gc2.act.weight"]
    for (parameter, transposed), shape, number in zip(ordered, listed, numbers, strict=True):
        position = torch.arange(parameter.numel(), dtype=torch.float64)
        values = 0.4 * torch.sin(0.7 * position + 0.3 * number + one.inputs["k0"]).reshape(shape)
        with torch.no_grad():
            parameter.copy_(values.T if transposed else values)
    with torch.no_grad():
        encoder.slope.fill_(0.25)
    return [parameter for parameter, _ in ordered]
