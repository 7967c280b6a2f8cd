"""Cases of the structures that recommenders propagate along: hypergraphs, user-item graphs, diffusion."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from graphcl.graphs import BipartiteGraph, Hypergraph, mmhcl_item_hypergraph, ppr_diffusion, users_sharing_items
from graphcl.kernels import SparseMatrix
from graphcl.nn import HypergraphConv, LightGCNConv
from replay_cases.registry import Case, case, data_file

_MODALITY = re.compile(r"(\w+): dim (\d+), k=([\d.]+)")


def item_hypergraph(one: Case) -> Hypergraph:
    """The hypergraph of the modalities that a case names: image and text, and audio where it asks for it."""
    items = one.inputs["n_items"]
    wanted = ("image", "text", "audio") if one.id.endswith("3mod") else ("image", "text")
    features = {}
    for name, width, shift in _MODALITY.findall(one.inputs["features"]):
        if name in wanted:
            row, column = torch.arange(items, dtype=torch.float64)[:, None], torch.arange(int(width))[None, :]
            features[name] = torch.sin(0.7 * (row * int(width) + column) + 0.9 * row**2 + float(shift))
    return mmhcl_item_hypergraph(features, one.inputs["topk"])


@case("mmhcl.i2i_incidence_2mod", "mmhcl.i2i_sym_2mod", "mmhcl.i2i_sym_3mod")
def item_graph(one: Case) -> Mapping[str, Any]:
    hypergraph = item_hypergraph(one)
    incidence = hypergraph.incidence.to_dense()
    wide = Hypergraph(hypergraph.incidence.with_values(hypergraph.incidence.entry_values().double()))
    operator = HypergraphConv("mmhcl_item").build(wide)
    computed = {"incidence": incidence, "dense": operator.to_dense()}
    return {name: value for name, value in computed.items() if name in one.expected}


@case("ppr_diffusion")
def pagerank(one: Case) -> Mapping[str, Any]:
    nodes = one.inputs["n"]
    ring = [(node, (node + 1) % nodes) for node in range(nodes)]
    ends = torch.tensor([*ring, (0, 2)]).T
    both = torch.cat([ends, ends.flip(0)], dim=1)
    ones = torch.ones(both.shape[1], dtype=torch.float64)
    adjacency = SparseMatrix.from_edge_index(both, ones, num_nodes=nodes)
    return {"S": ppr_diffusion(adjacency, one.inputs["alpha"])}


@case("real_data.tiktok")
def tiktok(one: Case) -> Mapping[str, Any]:
    rows = np.loadtxt(data_file("tiktok", "tiktok.inter"), skiprows=1, dtype=np.int64)
    user, item, part = rows.T
    kept = part == 0
    return user_side(user[kept], item[kept], int(user.max()) + 1, int(item.max()) + 1)


@case("real_data.baby")
def baby(one: Case) -> Mapping[str, Any]:
    lists = {int(user): items for user, items in json.loads(data_file("amazon-baby", "train.json").read_text()).items()}
    user = np.repeat(list(lists), [len(items) for items in lists.values()])
    item = np.concatenate([np.asarray(items, dtype=np.int64) for items in lists.values()])
    stored = np.load(data_file("amazon-baby", "i2i_incidence_topk5.npz"))
    ones = np.ones(len(stored["indices"]))
    incidence = scipy.sparse.csr_array((ones, stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
    hypergraph = Hypergraph.from_scipy(incidence)
    wide = Hypergraph(hypergraph.incidence.with_values(torch.ones(hypergraph.num_incidences, dtype=torch.float64)))
    items = HypergraphConv("mmhcl_item", num_layers=2)(table(hypergraph.num_nodes, 2), wide)
    own = int((hypergraph.incidence.row_offsets.diff() > 0).sum())
    return {
        **user_side(user, item, max(lists) + 1, hypergraph.num_nodes),
        "incidence_nnz": hypergraph.num_incidences,
        "i2i_nnz": int(hypergraph.count_neighbours().sum()) + own,
        "i2i2_abs_sum": items.abs().sum(),
        "i2i2_item_200": items[200],
    }


def table(rows: int, shift: float) -> Tensor:
    """X(rows, 4, shift) of the oracle."""
    return torch.sin(0.1 * torch.arange(rows * 4, dtype=torch.float64).reshape(rows, 4) + shift)


def user_side(user: np.ndarray[Any, Any], item: np.ndarray[Any, Any], users: int, items: int) -> dict[str, Any]:
    graph = BipartiteGraph.from_arrays(user, item, np.ones(len(user)), num_users=users, num_items=items)
    neighbours = users_sharing_items(graph).count_neighbours()
    mean = LightGCNConv(2)(table(users + items, 0), graph.normalized_operator())
    twice = HypergraphConv("mmhcl_user", num_layers=2)(table(users, 1), Hypergraph(graph.ratings))
    return {
        "n_users": users,
        "n_items": items,
        "n_train": graph.num_edges,
        "ui_adj_nnz": graph.normalized().num_entries,
        "u2u_nnz": int(neighbours.sum()),
        "u2u_max_row_nnz": int(neighbours.max()),
        "u2u_isolated_users": int((neighbours == 0).sum()),
        "lightgcn2_abs_sum_users": mean[:users].abs().sum(),
        "lightgcn2_abs_sum_items": mean[users:].abs().sum(),
        "lightgcn2_user_100": mean[100],
        "lightgcn2_item_200": mean[users + 200],
        "u2u2_abs_sum": twice.abs().sum(),
        "u2u2_user_100": twice[100],
    }
