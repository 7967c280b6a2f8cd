"""Cases of the recommenders on user-item graphs and hypergraphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from graphcl.data import read_labelled_split
from graphcl.functional import info_nce, synergistic_contrastive
from graphcl.graphs import BipartiteGraph, mmhcl_item_hypergraph
from graphcl.metrics import per_query_metrics, retrieved_ndcg
from graphcl.models import (
    MMHCL,
    SGL,
    CollaborativeModel,
    LightGCL,
    LightGCLConfig,
    LightGCN,
    LightGCNConfig,
    MMHCLConfig,
    PairBatch,
    SGLConfig,
    SimGCL,
    SimGCLConfig,
    XSimGCL,
    XSimGCLConfig,
)
from graphcl.models.mmhcl import user_operator
from graphcl.models.sgl import batch_contrast
from graphcl.pipelines.training import TrainingPlan
from graphcl.views.graphs import add_signed_noise
from replay_cases.graph import sparse_of
from replay_cases.multimodal import matrix_of
from replay_cases.registry import Case, case, data_file

_MODALITY = re.compile(r"(image|text|audio): dim (\d+), k=(-?[\d.]+)")


def graph_of(one: Case, key: str = "R_train") -> BipartiteGraph:
    return BipartiteGraph.from_matrix(sparse_of(one.inputs[key]))


def table(one: Case, *keys: str) -> Tensor:
    formula = one.inputs.get("formula", "")
    return torch.cat([matrix_of(one.inputs[key], formula) for key in keys])


def batch_of(one: Case) -> PairBatch:
    users, positives = (torch.tensor(one.inputs[key]) for key in ("users", "pos"))
    negatives = torch.tensor(one.inputs["neg"]) if "neg" in one.inputs else None
    return PairBatch(users, positives, negatives, None, total=one.inputs.get("batch_size", users.shape[0]))


def with_table(model: CollaborativeModel, rows: Tensor) -> CollaborativeModel:
    model.double()
    model.embedding.data = rows
    return model


def item_features(one: Case) -> dict[str, Tensor]:
    """The modalities that the text of the case names, in its order."""
    text = one.inputs["features"]
    items = one.inputs.get("n_items") or len(one.inputs["R_train"][0])
    only = re.search(r"\(([\w ,]+) only\)", text)
    out = {}
    for name, width, k in _MODALITY.findall(text):
        if only is None or name in only[1]:
            i, j = torch.arange(items, dtype=torch.float64)[:, None], torch.arange(int(width), dtype=torch.float64)
            out[name] = torch.sin(0.7 * (i * int(width) + j) + 0.9 * i**2 + float(k))
    return out


def mmhcl_of(one: Case) -> MMHCL:
    inputs = one.inputs
    config = MMHCLConfig(
        hidden=3,
        layers=inputs["UI_layers"],
        user_layers=inputs["User_layers"],
        item_layers=inputs["Item_layers"],
        regularization=inputs.get("regs", 0.0),
        temperature=inputs.get("tau", 0.6),
        user_weight=inputs.get("user_w", 1.0),
        item_weight=inputs.get("item_w", 1.0),
        neighbours=inputs["topk"],
    )
    incidence = mmhcl_item_hypergraph(item_features(one), inputs["topk"]).incidence
    model = MMHCL(graph_of(one), config, item_incidence=incidence)
    with_table(model, table(one, "user_id_table", "item_id_table"))
    assert model.user_second is not None
    assert model.item_second is not None
    model.user_second.data, model.item_second.data = table(one, "u2u_table"), table(one, "i2i_table")
    return model


@case("lightgcn.mean_with_ego", "lightgcn.sum")
def lightgcn(one: Case) -> Mapping[str, Any]:
    config = LightGCNConfig(hidden=3, layers=one.inputs["layers"], reduce="sum" if "sum" in one.id else "mean")
    users, items = with_table(LightGCN(graph_of(one), config), table(one, "users0", "items0"))()
    return {"users": users, "items": items}


@case("mmhcl.forward")
def mmhcl_forward(one: Case) -> Mapping[str, Any]:
    both = mmhcl_of(one).embeddings()
    return {
        "user_final": both.users,
        "item_final": both.items,
        "user_branch": both.second_users,
        "item_branch": both.second_items,
    }


@case("mmhcl.contrastive")
def mmhcl_contrastive(one: Case) -> Mapping[str, Any]:
    z1, z2 = table(one, "z1").requires_grad_(), table(one, "z2").requires_grad_()
    loss = synergistic_contrastive(z1, z2, temperature=one.inputs["tau"])
    grad1, grad2 = torch.autograd.grad(loss, (z1, z2))
    return {"loss": loss, "grad_z1": grad1, "grad_z2": grad2}


@case("mmhcl.bpr")
def mmhcl_bpr(one: Case) -> Mapping[str, Any]:
    parts = mmhcl_of(one).objective(batch_of(one))[1]
    return {"mf_loss": parts["bpr"], "emb_loss": parts["regularization"]}


@case("mmhcl.train_step")
def mmhcl_train_step(one: Case) -> Mapping[str, Any]:
    model = mmhcl_of(one)
    total, parts = model.objective(batch_of(one))
    stacked, users, items = torch.autograd.grad(total, model.tables())
    return {
        "total": total,
        "cl_user": parts["user_contrast"] / one.inputs["user_w"],
        "cl_item": parts["item_contrast"] / one.inputs["item_w"],
        "grad_user_id": stacked[: model.num_users],
        "grad_item_id": stacked[model.num_users :],
        "grad_u2u": users,
        "grad_i2i": items,
    }


@case("mmhcl.lr_schedule")
def mmhcl_lr_schedule(one: Case) -> Mapping[str, Any]:
    recommended = MMHCL.recommended
    plan = TrainingPlan(
        epochs=1, learning_rate=recommended["learning_rate"], lr_decay=recommended["learning_rate_decay"]
    )
    return {"lr": [plan.learning_rate_after(epoch) for epoch in one.inputs["epochs"]]}


@case("metrics.mmhcl")
def mmhcl_metrics(one: Case) -> Mapping[str, Any]:
    hits = torch.tensor(one.inputs["hits_top20"], dtype=torch.bool)
    found = torch.arange(1, hits.shape[0] + 1, dtype=torch.float64)[hits]
    ranks = torch.cat([found, found.new_full((one.inputs["n_pos"] - found.shape[0],), torch.inf)])
    offsets = torch.tensor([0, ranks.shape[0]])
    standard = {name: value[0] for name, value in per_query_metrics(ranks, offsets, ks=(10, 20)).items()}
    reference = retrieved_ndcg(ranks, offsets, ks=(10, 20), depth=hits.shape[0])
    names = {"recall": "Recall", "precision": "Precision", "hit": "HR", "ndcg_std": "NDCG", "ndcg_ref": "NDCG_ref"}
    every = {**standard, **reference}
    return {name: every[f"{names[name.split('@')[0]]}@{name.split('@')[1]}"] for name in one.expected}


@case("selfrec.losses")
def selfrec_losses(one: Case) -> Mapping[str, Any]:
    batch = batch_of(one)
    config = LightGCNConfig(
        hidden=3,
        layers=one.inputs["layers"],
        bpr_floor=1e-5,
        regularizer="row_norms",
        regularization=one.inputs["reg"],
    )
    model = with_table(LightGCN(graph_of(one), config), table(one, "users0", "items0"))
    users, items = model()
    parts = model.objective(batch)[1]
    without = PairBatch(batch.users, batch.positives, None, None, batch.total)
    softmax = LightGCNConfig(**{**config.model_dump(), "objective": "full_softmax"})
    pairs = with_table(LightGCN(graph_of(one), softmax), table(one, "users0", "items0")).objective(without)[1]
    return {
        "bpr": parts["bpr"],
        "l2_user_pos_neg": parts["regularization"],
        "l2_user_pos": pairs["regularization"],
        "infonce_users_vs_pos": info_nce(users[batch.users], items[batch.positives], temperature=one.inputs["tau"]),
    }


@case("sgl.edge_drop")
def sgl_edge_drop(one: Case) -> Mapping[str, Any]:
    batch, graph, tau = batch_of(one), graph_of(one), one.inputs["tau"]
    model = SGL(graph, SGLConfig(hidden=3, layers=one.inputs["layers"], temperature=tau))
    with_table(model, table(one, "users0", "items0"))
    views = [
        BipartiteGraph.from_arrays(
            *zip(*one.inputs[key], strict=True), num_users=graph.num_users, num_items=graph.num_items
        )
        for key in ("kept_edges_view1", "kept_edges_view2")
    ]
    model.set_views(*views)
    first, second = (model.split(view) for view in model.view_embeddings())
    user = sides(first, second, batch, 0)
    item = sides(first, second, batch, 1)

    def contrast(batch: PairBatch, negatives: Any) -> Tensor:
        return batch_contrast(first, second, batch, temperature=tau, negatives=negatives)

    none = torch.zeros(0, dtype=torch.int64)
    return {
        "view1_users": first[0],
        "view1_items": first[1],
        "view2_users": second[0],
        "view2_items": second[1],
        "joint": contrast(batch, "joint"),
        "separate_user": user(tau),
        "separate_item": item(tau),
        "full_user_sum": contrast(PairBatch(batch.users, none, None, None, 1), "all"),
        "full_item_sum": contrast(PairBatch(none, batch.positives, None, None, 1), "all"),
    }


def sides(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], batch: PairBatch, side: int
) -> Callable[[float], Tensor]:
    """InfoNCE of one side over the distinct ids of the batch."""
    ids = torch.unique((batch.users, batch.positives)[side])
    return lambda tau: info_nce(first[side][ids], second[side][ids], temperature=tau)


class NumberedNoise:
    """Noise N_c of the file, c counting the draws."""

    def __init__(self, eps: float, model: Any) -> None:
        self.eps, self.model, self.drawn = eps, model, 0

    def __call__(self, layer: Tensor) -> Tensor:
        self.drawn += 1

        def noise(rows: int, columns: int) -> Tensor:
            i, j = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(columns, dtype=torch.float64)
            return torch.frac(0.37 * (i * columns + j) + 0.11 * self.drawn + 0.05 * i**2)

        return add_signed_noise(layer, noise(*layer.shape), self.eps)


@case("simgcl")
def simgcl(one: Case) -> Mapping[str, Any]:
    config = SimGCLConfig(hidden=3, layers=one.inputs["layers"], noise=one.inputs["eps"], temperature=one.inputs["tau"])
    model = SimGCL(graph_of(one), config)
    with_table(model, table(one, "users0", "items0"))
    noise = NumberedNoise(one.inputs["eps"], model)
    clean = model.split(model.convolution(model.embedding, model.operator()))
    first, second = (model.split(model.convolution(model.embedding, model.operator(), noise)) for _ in range(2))
    batch = batch_of(one)
    return {
        "clean_users": clean[0],
        "clean_items": clean[1],
        "view1_users": first[0],
        "view1_items": first[1],
        "view2_users": second[0],
        "view2_items": second[1],
        "cl_user": sides(first, second, batch, 0)(config.temperature),
        "cl_item": sides(first, second, batch, 1)(config.temperature),
    }


@case("xsimgcl")
def xsimgcl(one: Case) -> Mapping[str, Any]:
    config = XSimGCLConfig(
        hidden=3,
        layers=one.inputs["layers"],
        noise=one.inputs["eps"],
        temperature=one.inputs["tau"],
        contrast_layer=one.inputs["l_star"],
    )
    model = XSimGCL(graph_of(one), config)
    with_table(model, table(one, "users0", "items0"))
    model.perturb = NumberedNoise(one.inputs["eps"], model)  # type: ignore[method-assign]
    final, layer = (model.split(rows) for rows in model.noisy_pass())
    batch = batch_of(one)
    return {
        "final_users": final[0],
        "final_items": final[1],
        "layer1_users": layer[0],
        "layer1_items": layer[1],
        "cl_user": sides(final, layer, batch, 0)(config.temperature),
        "cl_item": sides(final, layer, batch, 1)(config.temperature),
    }


def lightgcl_of(one: Case, form: Any) -> LightGCL:
    config = LightGCLConfig(
        hidden=3,
        layers=one.inputs["layers"],
        rank=one.inputs["q"],
        temperature=one.inputs["temp"],
        form=form,
        contrast_weight=1.0,
        regularization=1.0,
    )
    model = LightGCL(graph_of(one), config, generator=torch.Generator().manual_seed(0))
    with_table(model, table(one, "users0", "items0"))
    return model


@case("lightgcl.released")
def lightgcl_released(one: Case) -> Mapping[str, Any]:
    model = lightgcl_of(one, "released")
    layers = model.layers(low_rank=True)
    parts = model.objective(batch_of(one))[1]
    return {
        "singular_values_all": torch.linalg.svdvals(model.graph.normalized_ratings(torch.float64).to_dense()),
        "E_u": layers.users,
        "E_i": layers.items,
        "G_u": layers.global_users,
        "G_i": layers.global_items,
        "bpr": parts["bpr"],
        "cl_unweighted": parts["contrast"],
        "l2_unweighted": parts["regularization"],
    }


@case("lightgcl.original")
def lightgcl_original(one: Case) -> Mapping[str, Any]:
    model = lightgcl_of(one, "original")
    weights = [matrix_of(part, one.inputs["formula"]) for part in one.inputs["W"].split("W_")[1:]]
    model.transform.data = torch.stack(weights)
    layers = model.layers(low_rank=True)
    parts = model.objective(batch_of(one))[1]
    return {
        "E_u": layers.users,
        "E_i": layers.items,
        "Z_u_2": layers.local_terms[1][0],
        "G_u_2": layers.global_terms[1][0],
        "loss_r": parts["bpr"],
        "loss_s": parts["contrast"],
    }


@case("real_data.clothing", "real_data.sports")
def real_data(one: Case) -> Mapping[str, Any]:
    """Counts and propagated values of the other data sets that MMHCL was run on."""
    name = one.id.removeprefix("real_data.")
    split = read_labelled_split(data_file("mm-sports" if name == "sports" else name, f"{name}.inter"))
    graph = BipartiteGraph.from_interactions(split.train)
    users, items = graph.num_users, graph.num_items
    ratings = graph.ratings.to_scipy()
    shared = (ratings @ ratings.T).tocsr()
    shared.setdiag(0)
    shared.eliminate_zeros()
    entries = shared.indptr[1:] - shared.indptr[:-1]
    model = with_table(LightGCN(graph, LightGCNConfig(hidden=4, layers=2)), wave(users + items, 4, 0))
    first_users, first_items = model()
    operator = user_operator(graph, torch.float64)
    second = operator @ (operator @ wave(users, 4, 1))
    return {
        "n_users": users,
        "n_items": items,
        "n_train": int((split.part == 0).sum()),
        "ui_adj_nnz": graph.adjacency().num_entries,
        "u2u_nnz": shared.nnz,
        "u2u_max_row_nnz": int(entries.max()),
        "u2u_isolated_users": int((entries == 0).sum()),
        "lightgcn2_abs_sum_users": first_users.abs().sum(),
        "lightgcn2_abs_sum_items": first_items.abs().sum(),
        "lightgcn2_user_100": first_users[100],
        "lightgcn2_item_200": first_items[200],
        "u2u2_abs_sum": second.abs().sum(),
        "u2u2_user_100": second[100],
    }


def wave(rows: int, columns: int, k: float) -> Tensor:
    """X(rows, columns, k) of the file."""
    return torch.sin(0.1 * torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns) + k)
