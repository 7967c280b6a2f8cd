"""Edge lists, feature tables, labels and vectors from files and frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from torch_geometric.data import Data

from graphcl.data import diagnose_graph, load_graph, read_edge_list, read_vectors
from graphcl.errors import InputError

EDGES = [("ann", "bob"), ("bob", "cy"), ("cy", "ann"), ("ann", "ann"), ("ann", "bob")]
FEATURES = {"id": ["cy", "ann", "dee", "bob"], "age": [3, 1, 4, 2], "height": [0.3, 0.1, 0.4, 0.2]}
SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "blanks": "   "}


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def features(folder: Path, **changes: Any) -> Path:
    frame = pl.DataFrame({**FEATURES, **changes})
    frame.write_csv(folder / "nodes.csv")
    return folder / "nodes.csv"


def named_edges(data: Data) -> list[tuple[Any, Any]]:
    ids = data.node_ids
    return [(ids[a], ids[b]) for a, b in data.edge_index.T.tolist()]


@pytest.mark.parametrize("separator", list(SEPARATORS))
@pytest.mark.parametrize("header", ["source,target", "", "first,second"])
@pytest.mark.parametrize("comments", ["", "# Directed graph\n# Nodes: 4\n\n"])
def test_edge_lists_of_text(tmp_path: Path, separator: str, header: str, comments: str) -> None:
    mark = SEPARATORS[separator]
    rows = [header.replace(",", mark)] if header else []
    rows += [f"{a}{mark}{b}" for a, b in EDGES]
    path = text(tmp_path / "edges.txt", comments + "\n".join(rows) + "\n\n")
    if header == "first,second":
        # Words above words: nothing says that this line is a header, and no node has these names.
        with pytest.raises(InputError, match="node 'first' is not in the feature table"):
            load_graph(path, features=features(tmp_path))
        return
    data = load_graph(path, features=features(tmp_path)).graph
    assert named_edges(data) == EDGES
    assert data.node_ids.tolist() == ["ann", "bob", "cy", "dee"]
    np.testing.assert_allclose(data.x.numpy(), [[1, 0.1], [2, 0.2], [3, 0.3], [4, 0.4]], rtol=1e-6)


def test_what_stays_and_what_the_doctor_says(tmp_path: Path) -> None:
    path = text(tmp_path / "edges.csv", "source,target\n" + "\n".join(f"{a},{b}" for a, b in EDGES))
    report = diagnose_graph(path, features=features(tmp_path))
    assert report.nodes["node"].isolated == 1
    edge = report.edges["edge"]
    assert (edge.edges, edge.self_loops, edge.repeated, edge.one_way) == (5, 1, 1, 3)
    assert {warning.problem.split(" ", 1)[1] for warning in report.warnings} >= {
        "nodes of type node have no edge",
        "edges of type edge are self-loops",
        "edges of type edge repeat another one",
        "edges of type edge run one way",
    }
    assert report.components == 2
    assert any("self-loops" in line for line in report.lines())


@pytest.mark.parametrize("kind", ["csv", "parquet", "polars", "pandas", "npy", "npz", "sparse", "array", "tensor"])
def test_features_of_every_kind(tmp_path: Path, kind: str) -> None:
    edges = pl.DataFrame({"source": [0, 1, 2], "target": [1, 2, 0]})
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    frame = pl.DataFrame({"node": [0, 1, 2, 3], "a": x[:, 0], "b": x[:, 1]})
    path = tmp_path / f"x.{'npz' if kind == 'sparse' else kind}"
    source: Any = path
    if kind == "csv":
        frame.write_csv(path)
    elif kind == "parquet":
        frame.write_parquet(path)
    elif kind in ("npy", "npz"):
        np.save(path, x) if kind == "npy" else np.savez(path, x=x)
    elif kind == "sparse":
        sp.save_npz(path, sp.csr_array(x))
    else:
        source = {"polars": frame, "pandas": pd.DataFrame(frame.to_dict()), "array": x, "tensor": torch.from_numpy(x)}[
            kind
        ]
    data = read_edge_list(edges, source)
    assert data.x.tolist() == x.tolist()
    assert data.edge_index.tolist() == [[0, 1, 2], [1, 2, 0]]
    assert data.node_ids.tolist() == [0, 1, 2, 3]


def test_integer_ids_sort_by_size_and_meet_their_text(tmp_path: Path) -> None:
    edges = text(tmp_path / "e.csv", "src,dst,weight\n10,9,2\n9,100,0.5\n")
    frame = pl.DataFrame({"id": [100, 9, 10], "x": [3.0, 1.0, 2.0]})
    data = read_edge_list(edges, frame)
    assert data.node_ids.tolist() == [9, 10, 100]
    assert data.x[:, 0].tolist() == [1, 2, 3]
    assert data.edge_index.tolist() == [[1, 0], [0, 2]]
    assert data.edge_weight.tolist() == [2, 0.5]


def test_a_graph_without_features(tmp_path: Path) -> None:
    data = load_graph(text(tmp_path / "e.edges", "5 7\n7 11\n")).graph
    assert data.node_ids.tolist() == [5, 7, 11]
    assert data.get("x") is None
    weighted = load_graph(text(tmp_path / "w.edges", "5 7 0.5\n7 11 2\n")).graph
    assert weighted.edge_weight.tolist() == [0.5, 2]


def test_quoted_fields(tmp_path: Path) -> None:
    path = text(tmp_path / "e.csv", 'source,target\n"a, b","c\nd"\n"c\nd",e\n')
    assert named_edges(read_edge_list(path)) == [("a, b", "c\nd"), ("c\nd", "e")]
    with pytest.raises(InputError, match=r"e\.csv, row 4: 1 fields where 2 are expected"):
        read_edge_list(text(tmp_path / "e.csv", 'source,target\n"a, b","c\nd"\nx\n'))


def test_labels_from_everywhere(tmp_path: Path) -> None:
    edges = pl.DataFrame({"source": ["a", "b"], "target": ["b", "c"]})
    frame = pl.DataFrame({"id": ["c", "a", "b"], "f": [3.0, 1.0, 2.0]})
    by_row = ["red", "blue", "red"]  # of c, a, b
    np.save(tmp_path / "y.npy", np.array(by_row))
    text(tmp_path / "y.txt", "red\nblue\nred\n")
    text(tmp_path / "keyed.csv", "id,label\nb,red\na,blue\nc,red\n")
    expected = [0, 1, 1]
    for labels in (np.array(by_row), by_row, tmp_path / "y.npy", tmp_path / "y.txt", str(tmp_path / "keyed.csv")):
        data = read_edge_list(edges, frame, labels)
        assert data.y.tolist() == expected
        assert data.label_names == ("blue", "red")
    for column in ("label", "y", "class"):
        assert read_edge_list(edges, frame.with_columns(pl.Series(column, by_row))).y.tolist() == expected
    other = frame.with_columns(pl.Series("colour", by_row))
    assert read_edge_list(edges, other, "colour").y.tolist() == expected
    text(tmp_path / "some.csv", "node,class\nb,7\n")
    assert read_edge_list(edges, frame, tmp_path / "some.csv").y.tolist() == [-1, 0, -1]
    bare = pl.DataFrame({"id": ["c", "b"], "label": [1, 2]})
    assert read_edge_list(edges, labels=bare).y.tolist() == [-1, 1, 0]


@pytest.mark.parametrize(
    ("edges", "nodes", "message"),
    [
        ("source,target\nann,eve\n", {}, r"e\.csv, row 2, column 'target': node 'eve' is not in the feature table"),
        ("source,target\nann,bob\nann,\n", {}, r"e\.csv, row 3, column 'target': the node id is missing"),
        ("source,target\nann,bob\nann\n", {}, r"e\.csv, row 3: 1 fields where 2 are expected"),
        ("source,target\n", {}, "it has no edge; give at least one edge"),
        ("# nothing\n\n", {}, "it holds no row"),
        ("", {}, "the file is empty"),
        ("source,source\na,b\n", {}, r"row 1, column 'source': two columns have this name"),
        ("source\nann\n", {}, "it has no two columns of node ids"),
        ("source,target,weight\nann,bob,x\n", {}, r"row 2, column 'weight': the weight is no finite number: 'x'"),
        ("source,target,weight\nann,bob,-1\n", {}, r"row 2, column 'weight': the weight -1 is negative"),
        (
            "source,target\nann,bob\n",
            {"id": ["a", "b", "c", "a"]},
            r"nodes\.csv, row 5, column 'id': node 'a' occurs tw",
        ),
        (
            "source,target\nann,bob\n",
            {"id": ["a", None, "c", "d"]},
            r"nodes\.csv, row 3, column 'id': the node id is mi",
        ),
        (
            "source,target\nann,bob\n",
            {"age": [1, None, 2, 3]},
            r"nodes\.csv, row 3, column 'age': the feature is missin",
        ),
        (
            "source,target\nann,bob\n",
            {"age": ["1", "x", "2", "3"]},
            r"row 3, column 'age': the feature is no finite num",
        ),
        (
            "source,target\nann,bob\n",
            {"height": [1.0, 2.0, float("nan"), 3.0]},
            r"row 4, column 'height': the feature is no f",
        ),
        (
            "source,target\nann,bob\n",
            {"height": [1.0, 2.0, float("inf"), 3.0]},
            r"row 4, column 'height': the feature is no f",
        ),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, edges: str, nodes: dict[str, Any], message: str) -> None:
    path = text(tmp_path / "e.csv", edges)
    with pytest.raises(InputError, match=message):
        load_graph(path, features=features(tmp_path, **nodes), format="edges")


def test_bad_labels_are_named(tmp_path: Path) -> None:
    edges, nodes = pl.DataFrame({"source": ["ann"], "target": ["bob"]}), features(tmp_path)
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"y\.npy: there are labels of shape \(3,\) for 4 nodes"):
        read_edge_list(edges, nodes, tmp_path / "y.npy")
    with pytest.raises(InputError, match=r"y\.csv, row 3, column 'id': node 'eve' is not in the graph"):
        read_edge_list(edges, nodes, text(tmp_path / "y.csv", "id,label\nann,1\neve,2\n"))
    with pytest.raises(InputError, match=r"y\.csv, row 3, column 'id': node 'ann' occurs twice"):
        read_edge_list(edges, nodes, text(tmp_path / "y.csv", "id,label\nann,1\nann,2\n"))
    with pytest.raises(InputError, match="there is no such column; the columns are 'id', 'age', 'height'"):
        read_edge_list(edges, nodes, "colour")
    with pytest.raises(InputError, match="there is no column or file 'colour' of labels"):
        read_edge_list(edges, None, "colour")
    np.save(tmp_path / "y.npy", np.array([None] * 4), allow_pickle=True)
    with pytest.raises(InputError, match=r"y\.npy: it is no array of numbers or texts: .*allow_pickle"):
        read_edge_list(edges, nodes, tmp_path / "y.npy")


@pytest.mark.parametrize("kind", ["csv", "headerless", "parquet", "npy", "npz"])
def test_vectors_become_a_neighbour_graph(tmp_path: Path, kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    frame = pl.DataFrame(x, schema=[f"f{i}" for i in range(5)], orient="row")
    path = tmp_path / f"v.{'csv' if kind == 'headerless' else kind}"
    if kind in ("csv", "headerless"):
        frame.write_csv(path, include_header=kind == "csv")
    elif kind == "parquet":
        frame.write_parquet(path)
    elif kind == "npy":
        np.save(path, x)
    else:
        np.savez(path, x=x)
    data = load_graph(path, k=2, metric="euclidean").graph
    np.testing.assert_allclose(data.x.numpy(), x, rtol=1e-5)
    expected = read_vectors(x, k=2, metric="euclidean")
    assert torch.equal(data.edge_index, expected.edge_index)
    assert data.get("node_ids") is None


def test_vectors_keep_their_order_and_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"name": ["z", "a", "m"], "f": [1.0, 2.0, 3.0], "g": [1.0, 0.0, 1.0], "class": [5, 9, 5]})
    data = read_vectors(frame, k=1)
    assert data.node_ids.tolist() == ["z", "a", "m"]
    assert data.x[:, 0].tolist() == [1, 2, 3]
    assert data.y.tolist() == [0, 1, 0]
    path = text(tmp_path / "v.csv", "word,f,g\nx,1,2\ny,3,4\n")
    assert load_graph(path).graph.node_ids.tolist() == ["x", "y"]
    keyed = text(tmp_path / "y.csv", "id,label\ny,1\nx,0\n")
    assert load_graph(path, labels=str(keyed)).graph.y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"v\.csv, row 3, column 'b': the feature is no finite number: 'x'"),
        ("a,b\n1,2\n3,\n", r"v\.csv, row 3, column 'b': the feature is missing"),
        ("id,label\n1,2\n3,4\n", "it has no column of features"),
        ("id,a\n", "it has no row"),
    ],
)
def test_bad_vectors_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_graph(text(tmp_path / "v.csv", content), format="vectors")


def test_paths_and_options_that_do_not_fit(tmp_path: Path) -> None:
    path = text(tmp_path / "e.csv", "source,target\na,b\n")
    with pytest.raises(InputError, match=r"\(format edges\) has no option 'feature'; did you mean 'features'\?"):
        load_graph(path, feature="x.csv")
    with pytest.raises(InputError, match=r"\(format edges\) has no option 'k'"):
        load_graph(path, k=3)
    with pytest.raises(InputError, match="the format 'edge' is unknown; did you mean 'edges'"):
        load_graph(path, format="edge")
    with pytest.raises(InputError, match=r"there is no such file or folder; did you mean 'e\.csv'\?"):
        load_graph(tmp_path / "e2.csv")
    with pytest.raises(InputError, match=r"the format of a \.doc file is unknown"):
        load_graph(text(tmp_path / "e.doc", "x"))
    with pytest.raises(InputError, match="no graph format is recognised in this folder"):
        load_graph(tmp_path)
    with pytest.raises(InputError, match="did you mean 'cora'"):
        load_graph("corra")
    with pytest.raises(InputError, match="ml-100k is a log of interactions, not a graph"):
        load_graph("ml-100k")
    with pytest.raises(InputError, match="it is no Parquet file"):
        load_graph(text(tmp_path / "e.parquet", "x"))
    path.write_bytes(b"source,target\na,\xff\n")
    with pytest.raises(InputError, match=r"e\.csv, row 2: byte .* is not UTF-8"):
        read_edge_list(path)
    with pytest.raises(InputError, match="a table cannot be read from int"):
        read_edge_list(3)


def test_many_edges_take_linear_memory(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    ends = generator.integers(0, 50_000, (200_000, 2))
    pl.DataFrame(ends, schema=["source", "target"], orient="row").write_csv(tmp_path / "big.csv")
    data = load_graph(tmp_path / "big.csv").graph
    assert data.num_edges == 200_000
    assert np.array_equal(data.node_ids[data.edge_index.T.numpy()], ends)
