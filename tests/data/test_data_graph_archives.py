"""Graphs in npz and zip archives, and made-up graphs."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graphcl.data import digits_graph, load_graph, stochastic_block_model
from graphcl.data.graph_generators import _unordered
from graphcl.errors import InputError

DATA = os.environ.get("GRAPHCL_DATA")
A = sp.csr_array(np.array([[0, 1, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32))
X = np.arange(6, dtype=np.float32).reshape(3, 2)
Y = np.array([5, 5, 6])


def parts(matrix: Any, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}data": matrix.data,
        f"{prefix}indices": matrix.indices,
        f"{prefix}indptr": matrix.indptr,
        f"{prefix}shape": np.array(matrix.shape),
    }


def layouts() -> dict[str, dict[str, Any]]:
    names = np.array(["a", None], dtype=object)
    return {
        "gnn-benchmark": {**parts(A, "adj_"), **parts(sp.csr_array(X), "attr_"), "labels": Y, "node_names": names},
        "dense features": {**parts(A, "adj_"), "attr_matrix": X, "labels": Y},
        "dotted": {**parts(A, "adj_matrix."), **parts(sp.csr_array(X), "attr_matrix."), "labels": Y},
        "edge index": {"edge_index": np.stack(A.nonzero()), "x": X, "y": Y},
    }


@pytest.mark.parametrize("layout", list(layouts()))
def test_npz_layouts(tmp_path: Path, layout: str) -> None:
    np.savez(tmp_path / "g.npz", **layouts()[layout])
    data = load_graph(tmp_path / "g.npz").graph
    assert sorted(zip(*data.edge_index.tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert data.x.tolist() == X.tolist()
    assert data.y.tolist() == [0, 0, 1]
    assert data.label_names == (5, 6)


def test_npz_of_vectors(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(tmp_path / "v.npz", features=x, labels=np.arange(12) % 2)
    data = load_graph(tmp_path / "v.npz").graph
    assert data.num_nodes == 12
    assert data.y.tolist() == [0, 1] * 6
    assert load_graph(tmp_path / "v.npz", k=1).graph.num_edges < data.num_edges


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": X}, "no graph and no vectors are in it, only other"),
        ({**parts(A, "adj_"), "labels": Y[:2], "x": X}, r"g\.npz: there are 2 labels for 3 nodes"),
        ({**parts(A, "adj_"), "x": np.array([[object()]] * 3)}, "the array x cannot be read: .*pickle"),
        ({**parts(A, "adj_"), "x": X[:2]}, "there are 2 rows of features for 3 nodes"),
        ({"adj_indices": A.indices, "x": X}, "the array adj_data is missing"),
        ({**parts(A, "adj_"), "adj_indices": A.indices + 9, "x": X}, r"adj_\*: "),
        ({"edge_index": np.array([[0], [7]]), "x": X}, r"edge 0 joins nodes \[0, 7\]"),
        ({"x": np.array([[1.0], [np.nan]])}, r"g\.npz, row 2, column '0': the feature is nan"),
    ],
)
def test_bad_npz_files(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "g.npz", **content)
    with pytest.raises(InputError, match=message):
        load_graph(tmp_path / "g.npz")


def test_damaged_npz(tmp_path: Path) -> None:
    (tmp_path / "g.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"g\.npz: it is no npz file"):
        load_graph(tmp_path / "g.npz")


def zipped(path: Path, arrays: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(name, buffer.getvalue())
    return path


def test_zip_of_dense_arrays(tmp_path: Path) -> None:
    arrays = {"toy/toy_adj.npy": A.toarray(), "toy/toy_feat.npy": X, "toy/toy_label.npy": Y, "readme.txt": np.ones(1)}
    data = load_graph(zipped(tmp_path / "toy.zip", arrays)).graph
    assert data.num_edges == 4
    assert data.x.tolist() == X.tolist()
    assert data.y.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"toy_adj.npy": A.toarray()}, r"there is no \*_feat\.npy in it"),
        ({"toy_adj.npy": np.ones(3), "toy_feat.npy": X}, r"its adjacency has shape \(3,\)"),
        ({"toy_adj.npy": np.ones((2, 3)), "toy_feat.npy": X}, r"toy\.zip: the adjacency matrix has shape \(2, 3\)"),
        ({"toy_adj.npy": np.array([[None]]), "toy_feat.npy": X}, "it is damaged: .*allow_pickle"),
    ],
)
def test_bad_zip_files(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_graph(zipped(tmp_path / "toy.zip", arrays))


def test_no_zip_at_all(tmp_path: Path) -> None:
    (tmp_path / "toy.zip").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"toy\.zip: it is damaged"):
        load_graph(tmp_path / "toy.zip")


def test_block_model_has_the_asked_degree_and_mixing() -> None:
    data = stochastic_block_model(6000, 6, average_degree=12, mixing=0.25, num_features=4, separation=3.0)
    assert data.num_edges / 6000 == pytest.approx(12, rel=0.02)
    crossing = (data.y[data.edge_index[0]] != data.y[data.edge_index[1]]).double().mean()
    assert float(crossing) == pytest.approx(0.25, abs=0.01)
    assert torch.bincount(data.y).tolist() == [1000] * 6
    keys = data.edge_index[0] * 6000 + data.edge_index[1]
    assert torch.unique(keys).numel() == keys.numel()
    assert torch.equal(torch.sort(keys).values, torch.sort(data.edge_index[1] * 6000 + data.edge_index[0]).values)
    assert not bool((data.edge_index[0] == data.edge_index[1]).any())
    centres = torch.stack([data.x[data.y == c].mean(dim=0) for c in range(6)])
    assert float((data.x - centres[data.y]).std()) == pytest.approx(1.0, abs=0.02)


def test_edges_of_a_block_model_are_uniform_over_pairs() -> None:
    count = torch.zeros(8, 8)
    for seed in range(300):
        data = stochastic_block_model(8, 2, average_degree=3, mixing=1 / 3, num_features=1, seed=seed)
        # Nodes are renamed by class, since a node has another class in every draw.
        order = torch.argsort(torch.argsort(data.y, stable=True))
        count[order[data.edge_index[0]], order[data.edge_index[1]]] += 1
    half = torch.arange(8) // 4
    between = half.unsqueeze(1) != half
    inside = ~between & ~torch.eye(8, dtype=torch.bool)
    for where, expected in ((inside, 300 * 2 / 3), (between, 300 * 1 / 4)):
        assert bool(((count[where] - expected).abs() < 5 * expected**0.5).all())
    assert bool((count.diagonal() == 0).all())


def test_block_model_is_drawn_from_its_seed() -> None:
    one, same, other = (stochastic_block_model(100, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.edge_index, same.edge_index)
    assert not torch.equal(one.x, other.x)
    drawn = stochastic_block_model(100, 2, seed=np.random.default_rng(1))
    assert torch.equal(one.x, drawn.x)


def test_pair_numbers_are_exact_also_where_roots_round() -> None:
    for code in (np.arange(5000), np.array([2**52 - 1, 2**51 + 12345, 10**15])):
        high, low = _unordered(code.astype(np.int64))
        assert np.array_equal(high * (high - 1) // 2 + low, code)
        assert bool(((low >= 0) & (low < high)).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_nodes": 0}, "num_nodes is 0; give at least 1"),
        ({"num_nodes": 4, "num_classes": 5, "average_degree": 1}, r"num_classes is 5; give 1 to num_nodes \(4\)"),
        ({"num_nodes": 4, "num_classes": 2, "average_degree": 4}, r"average_degree is 4; give 0 to below num_nodes"),
        ({"mixing": 1.5}, r"mixing is 1\.5; give a share in \[0, 1\]"),
        ({"num_classes": 1}, r"mixing is 0\.2 with a single class; give mixing=0"),
        (
            {"num_nodes": 10, "num_classes": 5, "average_degree": 5},
            "edges inside a class are asked for, but there are 5",
        ),
        ({"num_features": 0}, "num_features is 0"),
        ({"separation": -1.0}, r"separation is -1\.0"),
    ],
)
def test_block_models_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_graph("sbm", **arguments)


def test_the_smallest_block_models() -> None:
    assert stochastic_block_model(1, 1, average_degree=0, mixing=0).num_edges == 0
    full = stochastic_block_model(4, 1, average_degree=3, mixing=0)
    assert full.num_edges == 12


def test_digits_come_with_scikit_learn() -> None:
    data = digits_graph(3, symmetric="none")
    assert data.x.shape == (1797, 64)
    assert float(data.x.max()) == 1.0
    assert data.num_edges == 3 * 1797
    assert load_graph("digits").recipe is not None
    with pytest.raises(InputError, match="digits has no option 'neighbours'; it takes k, metric, symmetric"):
        load_graph("digits", neighbours=3)


if DATA:

    def test_dblp_clustering_has_its_published_numbers() -> None:
        data = load_graph("dblp-clustering").graph
        assert (data.num_nodes, data.num_edges, data.num_features) == (4057, 7056, 334)
        assert torch.bincount(data.y).tolist() == [1197, 745, 1109, 1006]
        assert set(torch.unique(data.x).tolist()) == {0.0, 1.0}
