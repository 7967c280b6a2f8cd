"""Planetoid files are read without running their pickles; what else a pickle may ask for is refused."""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graphcl.data.graph_planetoid import PLANETOID_PARTS, read_planetoid, read_planetoid_array
from graphcl.data.graphs import load_graph
from graphcl.errors import InputError

DATA = os.environ.get("GRAPHCL_DATA")
TEST = [7, 4, 5]  # of nodes 0 to 7; node 6 is left out, as 15 papers of Citeseer are


def write(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def written(folder: Path, protocol: int = 2) -> dict[str, Path]:
    """A graph of 8 nodes, 4 of them in allx, 2 of these with a training label."""
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    y = np.eye(2, dtype=np.int32)[[0, 1, 1, 0, 1, 0, 0, 1]]
    links: defaultdict[int, list[int]] = defaultdict(list)
    links.update({0: [1, 1, 0], 1: [0], 2: [3], 3: [2], 4: [7], 7: [4], 5: []})
    parts = {
        "x": sp.csr_matrix(x[:2]),
        "tx": sp.csr_matrix(x[TEST]),
        "allx": sp.csr_matrix(x[:4]),
        "y": y[:2],
        "ty": y[TEST],
        "ally": y[:4],
        "graph": links,
    }
    paths = {part: write(folder / f"ind.toy.{part}", content, protocol) for part, content in parts.items()}
    paths["test.index"] = folder / "ind.toy.test.index"
    paths["test.index"].write_text("7\n4\n5\n")
    return paths


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_parts_come_together_in_the_standard_order(tmp_path: Path, protocol: int) -> None:
    data = read_planetoid(written(tmp_path, protocol))
    expected = torch.arange(24.0).reshape(8, 3)
    expected[6] = 0
    assert torch.equal(data.x, expected)
    assert data.y.tolist() == [0, 1, 1, 0, 1, 0, 0, 1]
    assert sorted(zip(*data.edge_index.tolist(), strict=True)) == [(0, 1), (1, 0), (2, 3), (3, 2), (4, 7), (7, 4)]
    assert data.train_mask.tolist() == [True] * 2 + [False] * 6
    assert data.val_mask.tolist() == [False] * 2 + [True] * 6
    assert data.test_mask.nonzero()[:, 0].tolist() == [4, 5, 7]


def test_a_folder_is_recognised(tmp_path: Path) -> None:
    written(tmp_path)
    assert load_graph(tmp_path).graph.num_nodes == 8
    with pytest.raises(InputError, match="has no option 'k'; leave it out"):
        load_graph(tmp_path, k=3)
    (tmp_path / "ind.toy.ty").unlink()
    with pytest.raises(InputError, match=r"ind\.toy\.ty: there is no such file"):
        load_graph(tmp_path)


class Evil:
    """Pickles to a call that would leave a trace."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("part", ["x", "graph"])
@pytest.mark.parametrize("kind", ["system", "eval", "mkdir", "import", "numpy", "list of evil"])
def test_a_malicious_pickle_is_refused_and_never_runs(tmp_path: Path, part: str, kind: str) -> None:
    trace = tmp_path / "trace"
    evil = {
        "system": Evil(os.system, f"touch {trace}"),
        "eval": Evil(eval, f"open({str(trace)!r}, 'w')"),
        "mkdir": Evil(os.mkdir, str(trace)),
        "import": Evil(__import__, "os"),
        "numpy": Evil(np.save, str(trace), 1),
        "list of evil": [Evil(os.mkdir, str(trace))],
    }[kind]
    paths = written(tmp_path)
    write(paths["x"], evil)
    write(paths["graph"], evil)
    with pytest.raises(InputError, match=r"it asks for .* which is refused: it may run any code"):
        read_planetoid(paths) if part == "graph" else read_planetoid_array(paths["x"])
    assert not list(tmp_path.glob("trace*"))


@pytest.mark.parametrize(
    "stream",
    [
        # The class of arrays is given an attribute; the reader must not carry it to the next file.
        b"cnumpy\nndarray\n(N}Vto_numpy\nV7\nstb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(N}V__defaults__\nV7\nstb.",
        b"c_codecs\nencode\n(N}V__defaults__\nV7\nstb.",
        b"ccollections\ndefaultdict\n(N}V__init__\nV7\nstb.",
        b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nlist\n(lS'b'\ntR.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    ],
)
def test_what_is_admitted_cannot_be_changed(tmp_path: Path, stream: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(stream)
    with pytest.raises(InputError):
        read_planetoid_array(path)
    good = write(tmp_path / "good", np.ones((2, 2)))
    assert read_planetoid_array(good).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([["a"]], dtype=object), "it holds an array of 'O8', not of numbers"),
        (np.array([["a"]]), "it holds an array of 'U1', not of numbers"),
        (np.ones(3), r"it holds an array of shape \(3,\), not a matrix"),
        ([1, 2], "it holds a list, not a matrix"),
    ],
)
def test_arrays_of_anything_but_numbers(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_planetoid_array(write(tmp_path / "x", content))


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">i4", "i1", "?", "<u2"])
def test_every_type_of_number_and_byte_order(tmp_path: Path, dtype: str) -> None:
    values = np.array([[1, 0], [0, 1], [1, 1]], dtype=dtype)
    assert read_planetoid_array(write(tmp_path / "x", values)).tolist() == [[1, 0], [0, 1], [1, 1]]
    assert read_planetoid_array(write(tmp_path / "x", np.asfortranarray(values))).tolist() == [[1, 0], [0, 1], [1, 1]]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    paths = written(tmp_path)
    whole = paths["tx"].read_bytes()
    for size in (0, 1, 20, len(whole) // 2, len(whole) - 1):
        paths["tx"].write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"ind\.toy\.tx: it is no Planetoid file"):
            read_planetoid(paths)
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] = generator.integers(256)
        paths["tx"].write_bytes(bytes(damaged))
        try:
            outcome = str(read_planetoid(paths))
        except InputError as error:
            outcome = str(error)
        assert "ind.toy." in outcome or outcome.startswith("Data(x=[8, 3]")


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("test.index", "7\nx\n", r"ind\.toy\.test\.index, row 2: 'x' is no node number"),
        ("test.index", "\n", "it names no test node"),
        ("test.index", "7\n4\n", "3 rows of tx, 3 of ty, 2 test nodes, 4 rows of allx and 4 of ally do not fit"),
    ],
)
def test_bad_test_indices(tmp_path: Path, part: str, content: str, message: str) -> None:
    paths = written(tmp_path)
    paths[part].write_text(content)
    with pytest.raises(InputError, match=message):
        read_planetoid(paths)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ({0: [9]}, "it names node 9, but there are 8 nodes"),
        ({-1: [1]}, "it names node -1, but there are 8 nodes"),
        ({0: ["a"]}, "it holds a node that is no number"),
        ({0: 1}, "it holds no dictionary of neighbour lists"),
        ([1], "it holds no dictionary of neighbour lists"),
    ],
)
def test_bad_links(tmp_path: Path, links: Any, message: str) -> None:
    paths = written(tmp_path)
    write(paths["graph"], links)
    with pytest.raises(InputError, match=message):
        read_planetoid(paths)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    for part in PLANETOID_PARTS:
        paths = written(tmp_path)
        del paths[part]
        with pytest.raises(InputError, match=f"the part {part!r} is missing"):
            read_planetoid(paths)


if DATA:

    def test_cora_has_its_published_numbers() -> None:
        data = load_graph("cora").graph
        assert (data.num_nodes, data.num_edges, data.num_features) == (2708, 10556, 1433)
        assert torch.bincount(data.y).tolist() == [351, 217, 418, 818, 426, 298, 180]
        assert [int(mask.sum()) for mask in (data.train_mask, data.val_mask, data.test_mask)] == [140, 500, 1000]
        assert torch.bincount(data.y[data.train_mask]).tolist() == [20] * 7
        assert data.x.sum() == 49216
