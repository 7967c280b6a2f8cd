"""Heterogeneous graphs: the folders of HeCo and MEOW with their traps, tables of typed edges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import HeteroData

from graphcl.data import diagnose_graph, graph_counts, load_graph, read_typed_edges
from graphcl.data.heterogeneous import FolderSchema, read_heterogeneous_folder
from graphcl.errors import InputError
from graphcl.graphs import there_and_back

DATA = os.environ.get("GRAPHCL_DATA")
PA = "0\t0\n0\t1\n1\t1\n2\t2\n3\t0\n"
PS = "0\t0\n1\t1\n2\t0\n3\t1\n"


def folder(path: Path, **changes: Any) -> Path:
    """Four papers with authors 0 to 2 and subjects 0 and 1; labels from 1, as floats; features with an empty end."""
    files: dict[str, Any] = {
        "pa.txt": PA,
        "ps.txt": PS,
        "labels.npy": np.array([1.0, 3.0, 2.0, 1.0]),
        "p_feat.npz": sp.csr_array(np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])),
        "train_20.npy": np.array([0, 0]),
        "val_20.npy": np.array([1]),
        "test_20.npy": np.array([3]),
        "train_60.npy": np.array([0, 1]),
        "val_60.npy": np.array([2], dtype=np.int32),
        "test_60.npy": np.array([3]),
        "nei_a.npy": np.array([[0, 1], [1]], dtype=object),
        **{name.replace("__", "."): content for name, content in changes.items()},
    }
    for name, content in files.items():
        if content is None:
            continue
        if isinstance(content, str):
            (path / name).write_text(content)
        elif isinstance(content, np.ndarray):
            with (path / name).open("wb") as file:
                np.save(file, content, allow_pickle=True)
        else:
            sp.save_npz(path / name, content)
    return path


def test_the_folder_layout_with_its_traps(tmp_path: Path) -> None:
    graph = load_graph(folder(tmp_path)).graph
    assert graph.node_types == ["author", "paper", "subject"]
    assert graph["paper"].y.tolist() == [0, 2, 1, 0]
    assert graph.label_names == (1, 2, 3)
    assert graph["paper"].x.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert (graph["author"].num_nodes, graph["subject"].num_nodes) == (3, 2)
    assert "x" not in graph["author"]
    assert graph["paper", "to", "author"].edge_index.tolist() == [[0, 0, 1, 2, 3], [0, 1, 1, 2, 0]]
    assert graph["author", "rev_to", "paper"].edge_index.tolist() == [[0, 1, 1, 2, 0], [0, 0, 1, 2, 3]]
    assert graph.splits == ("20", "60")
    assert graph["paper"].train_mask.T.tolist() == [[True, False, False, False], [True, True, False, False]]
    assert graph["paper"].val_mask[:, 1].tolist() == [False, False, True, False]
    assert graph.target == "paper"
    there, back = ("paper", "to", "author"), ("author", "rev_to", "paper")
    assert graph.metapaths[0] == (there, back)
    assert [len(path) for path in graph.metapaths] == [2, 2]


def test_the_first_column_is_of_the_first_letter_also_when_it_is_not_the_target(tmp_path: Path) -> None:
    files: dict[str, Any] = dict.fromkeys(["ps.txt", "p_feat.npz", "train_60.npy", "val_60.npy", "test_60.npy"])
    split = {"train_20__npy": np.array([0]), "val_20__npy": np.array([1]), "test_20__npy": np.array([2])}
    path = folder(tmp_path, **files, labels__npy=np.array([0, 1, 1]), pc__txt="0\t0\n1\t0\n2\t1\n3\t1\n", **split)
    graph = load_graph(path).graph
    assert graph.target == "author"
    chain = [
        ("author", "rev_to", "paper"),
        ("paper", "to", "conf"),
        ("conf", "rev_to", "paper"),
        ("paper", "to", "author"),
    ]
    assert graph.metapaths == ((chain[0], chain[3]), tuple(chain))
    graph = load_graph(path, metapaths="apcpa", target="a").graph
    assert graph.metapaths == (tuple(chain),)
    assert load_graph(path, metapaths=["author-paper-author"]).graph.metapaths == ((chain[0], chain[3]),)


def test_a_dense_array_under_the_name_of_a_sparse_one(tmp_path: Path) -> None:
    graph = load_graph(folder(tmp_path, a_feat__npz=np.arange(6.0).reshape(3, 2))).graph
    assert graph["author"].x.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_target_nodes_without_edges_are_known_by_their_labels(tmp_path: Path) -> None:
    path = folder(tmp_path, p_feat__npz=None, labels__npy=np.array([0, 1, 0, 1, 0, 1]))
    with pytest.raises(InputError, match=r"6 labels fit no type \(a: 3, p: 4, s: 2\); name the letter of the target"):
        load_graph(path)
    graph = load_graph(path, target="paper").graph
    assert graph["paper"].num_nodes == 6
    assert graph["paper"].y.tolist() == [0, 1, 0, 1, 0, 1]
    with pytest.raises(InputError, match="no edge names the target type 'movie'; use one of a"):
        load_graph(path, target="movie")


def test_actors_play_in_movies(tmp_path: Path) -> None:
    files: dict[str, Any] = dict.fromkeys(["pa.txt", "ps.txt", "p_feat.npz"])
    graph = load_graph(folder(tmp_path, **files, ma__txt=PA, md__txt=PS)).graph
    assert graph.node_types == ["actor", "director", "movie"]
    named = FolderSchema("m", {"a": "singer"}, ("mam",))
    assert read_heterogeneous_folder(tmp_path, named).metapaths[0][0] == ("movie", "to", "singer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels__npy": None}, "there is no labels.npy in it; give it"),
        ({"labels__npy": np.array([1, None, 2, 1])}, r"labels\.npy: it is no array of numbers or texts"),
        ({"labels__npy": np.array([1.5, 1, 2, 1])}, r"labels\.npy: the label 1\.5 is not a whole number"),
        ({"pa__txt": "0\t0\n1\tx\n"}, r"pa\.txt, row 2: it is not two columns of whole numbers"),
        ({"pa__txt": "0\t0\t1\n"}, r"pa\.txt: it has 3 columns; give two"),
        ({"pa__txt": "0\t0\n-1\t0\n"}, r"pa\.txt, row 2: node -1 is negative"),
        ({"pa__txt": "0\t0\n9\t0\n"}, "edges name node 9 of type 'p', which has 4 rows of features"),
        ({"p_feat__npz": np.array([[1.0], [np.nan], [0], [0]])}, r"p_feat\.npz, row 2, column '0': the feature is nan"),
        ({"p_feat__npz": "no npz"}, r"p_feat\.npz: it is no npz file"),
        ({"p_feat__npz": np.array([[None]])}, r"p_feat\.npz: it is no npz file: .*allow_pickle"),
        ({"val_60__npy": None}, r"there is no val_60\.npy in it"),
        ({"val_60__npy": np.array([4])}, r"val_60\.npy: it names node 4 of 4"),
        ({"val_60__npy": np.array([0.5])}, r"val_60\.npy: it holds float64 of shape \(1,\)"),
        ({"val_60__npy": np.array([3])}, "node 3 is in val_60 and in test_60; give parts that share no node"),
        ({"labels__npy": np.array([1, 2])}, "there are 2 labels for 4 nodes of type 'p'; give one label a target node"),
    ],
)
def test_bad_folders_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_graph(folder(tmp_path, **changes), target="p")


def test_unknown_metapaths_list_the_schema(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the graph has node types author, paper, subject"):
        load_graph(folder(tmp_path), metapaths="pxp")
    with pytest.raises(InputError, match=r"has no option 'k'; .*it takes target, metapaths"):
        load_graph(tmp_path, k=3)
    with pytest.raises(InputError, match="there is no such folder"):
        read_heterogeneous_folder(tmp_path / "none")


def test_the_doctor_on_types(tmp_path: Path) -> None:
    report = diagnose_graph(folder(tmp_path))
    assert report.kind == "heterogeneous"
    assert report.nodes["paper"].zero_rows == 1
    assert report.nodes["paper"].classes == (2, 1, 1)
    assert report.edges["paper to author"].edges == 5
    assert report.edges["paper to author"].one_way is None
    assert report.same_label_edges is None
    assert report.to_dict()["nodes"]["author"]["features"] is None


TYPED = pl.DataFrame(
    {
        "source": ["7", "7", "8", "x", "8"],
        "source_type": ["author", "author", "author", "paper", "author"],
        "target": ["x", "y", "y", "y", "7"],
        "target_type": ["paper", "paper", "paper", "paper", "author"],
        "edge_type": ["writes", "writes", "writes", "cites", "knows"],
    }
)


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet", "tsv"])
def test_tables_of_typed_edges(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"edges.{kind}"
    if kind == "parquet":
        TYPED.write_parquet(path)
    elif kind != "frame":
        TYPED.write_csv(path, separator="\t" if kind == "tsv" else ",")
    features = {
        "paper": pl.DataFrame({"id": ["y", "z", "x"], "f": [2.0, 3.0, 1.0], "label": ["b", "a", "a"]}),
        "author": pl.DataFrame({"id": ["8", "7"], "g": [0.8, 0.7]}),
    }
    graph = read_typed_edges(TYPED if kind == "frame" else path, features, target="paper")
    assert graph["paper"].node_ids.tolist() == ["x", "y", "z"]
    assert graph["paper"].x.tolist() == [[1], [2], [3]]
    assert graph["paper"].y.tolist() == [0, 1, 0]
    assert [str(each) for each in graph["author"].node_ids] == ["7", "8"]
    assert graph["author", "writes", "paper"].edge_index.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert graph["paper", "rev_writes", "author"].edge_index.tolist() == [[0, 1, 1], [0, 0, 1]]
    assert graph["paper", "rev_cites", "paper"].edge_index.tolist() == [[1], [0]]
    assert graph["author", "knows", "author"].edge_index.tolist() == [[1], [0]]
    assert graph.metapaths == ((("paper", "rev_writes", "author"), ("author", "writes", "paper")),)


def test_typed_edges_by_path_with_a_folder_of_features(tmp_path: Path) -> None:
    TYPED.drop("edge_type").filter(pl.col("source_type") != pl.col("target_type")).write_csv(tmp_path / "edges.csv")
    (tmp_path / "features").mkdir()
    pl.DataFrame({"id": ["x", "y"], "f": [1, 2]}).write_csv(tmp_path / "features" / "paper.csv")
    pl.DataFrame({"id": ["x", "y"], "label": [0, 1]}).write_csv(tmp_path / "labels.csv")
    dataset = load_graph(
        tmp_path / "edges.csv", features=str(tmp_path / "features"), labels=str(tmp_path / "labels.csv"), target="paper"
    )
    graph = dataset.graph
    assert dataset.kind == "heterogeneous"
    assert graph["paper"].y.tolist() == [0, 1]
    assert "x" not in graph["author"]
    assert graph_counts(graph) == {
        "nodes.author": 2, "nodes.paper": 2, "edges.author-paper": 3, "features.paper": 1, "classes": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"target": ["x", "y", "q", "y", "7"]}, {"features": {"paper": pl.DataFrame({"id": ["x", "y"], "f": [1, 2]})}},
         r"row 3, column 'target': node 'q' is not in the feature table of its type"),
        ({"source": ["7", None, "8", "x", "8"]}, {}, r"row 2, column 'source': the node id is missing"),
        ({"source_type": ["author", "author", None, "paper", "author"]}, {}, r"row 3, column 'source_type': the type"),
        ({}, {"features": {"venue": np.ones((1, 1))}}, "features are given for the type 'venue', which no edge has"),
        ({}, {"target": "venue"}, "there is no node type 'venue'; use one of author, paper"),
        ({}, {"labels": [0, 1]}, "labels are given, but not of which node type; name it with target="),
        ({}, {"features": "nowhere"}, "nowhere: there is no such folder of features"),
        ({}, {"metapaths": "pxp", "target": "paper"}, "no node type begins with 'x'; the graph has node types"),
        ({}, {}, "target"),
    ],
)  # fmt: skip
def test_bad_typed_tables_are_named(changes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    table = TYPED.with_columns(**{name: pl.Series(values) for name, values in changes.items()})
    with pytest.raises(InputError, match=message):
        read_typed_edges(table, **options)


def test_missing_columns_of_types_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no column 'target_type'; the columns are 'source', 'source_type'"):
        read_typed_edges(TYPED.drop("target_type"))
    with pytest.raises(InputError, match=r"it holds no features of author, paper; name files such as author\.csv"):
        read_typed_edges(TYPED, tmp_path)
    with pytest.raises(InputError, match="it has no edge"):
        read_typed_edges(TYPED.clear())


def products(graph: HeteroData, letters: str) -> tuple[int, Any]:
    """Non-zeros of a meta-path's product from the edges of the graph, and the product."""
    path = next(p for p in graph.metapaths if "".join([p[0][0][0], *(step[2][0] for step in p)]) == letters)
    matrix = None
    for first, relation, second in path:
        shape = int(graph[first].num_nodes), int(graph[second].num_nodes)
        rows, columns = graph[first, relation, second].edge_index.numpy()
        step = sp.csr_array((np.ones(rows.size, dtype=np.int64), (rows, columns)), shape=shape)
        matrix = step if matrix is None else matrix @ step
    assert matrix is not None
    return int(matrix.nnz), matrix


if DATA:

    def test_acm_has_its_published_numbers() -> None:
        graph = load_graph("acm").graph
        assert torch.bincount(graph["paper"].y).tolist() == [1993, 965, 1061]
        assert [int(n) for n in graph["paper"].train_mask.sum(dim=0)] == [60, 120, 180]
        assert [int(n) for n in graph["paper"].test_mask.sum(dim=0)] == [1000] * 3
        for column, each in enumerate((20, 40, 60)):
            assert torch.bincount(graph["paper"].y[graph["paper"].train_mask[:, column]]).tolist() == [each] * 3
        for letters, expected in (("pap", 57853), ("psp", 4338213)):
            count, product = products(graph, letters)
            assert count == expected
            stored = sp.csr_array(sp.load_npz(Path(str(DATA), "acm", f"{letters}.npz")))
            assert abs(product - stored).nnz == 0

    def test_dblp_has_its_published_numbers() -> None:
        graph = load_graph("dblp").graph
        assert torch.bincount(graph["author"].y).tolist() == [1197, 745, 1109, 1006]
        assert int((graph["author"].x == 0).all(dim=1).sum()) == 39
        assert products(graph, "apa")[0] == 11113
        assert products(graph, "apcpa")[0] == 5000495
        assert there_and_back(graph, "author") == graph.metapaths

    @pytest.mark.parametrize("name", ["acm", "dblp"])
    def test_a_folder_without_a_recipe_gives_the_same(name: str) -> None:
        known, found = load_graph(name).graph, load_graph(Path(str(DATA), name)).graph
        assert found.metapaths == known.metapaths
        assert graph_counts(found) == graph_counts(known)
        assert set(found.node_types) == set(known.node_types)
