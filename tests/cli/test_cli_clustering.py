"""Clustering from the command line: a run with every command on it, and bad graphs of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.cli.app import run
from graphcl.data.graph_generators import stochastic_block_model

SMALL = ["--epochs", "3", "--set", "warmup_epochs=3", "--set", "widths=[16,8]", "--set", "progress=false"]


def write_graph(
    folder: Path,
    *,
    nodes: int = 60,
    extra_edges: str = "",
    edges: bool = True,
    features: str | None = None,
    labels: int | None = None,
) -> list[str]:
    """Files of a graph of three groups with text ids; the arguments that read them."""
    graph = stochastic_block_model(nodes, 3, num_features=4, separation=1.5, mixing=0.1, seed=0)
    assert graph.edge_index is not None
    rows = [f"n{a},n{b}" for a, b in graph.edge_index.T.tolist()] if edges else []
    (folder / "edges.csv").write_text("source,target\n" + "\n".join(rows) + "\n" + extra_edges)
    if features is None:
        assert graph.x is not None
        lines = [
            ",".join([f"n{node}", *(f"{value:.4f}" for value in row)]) for node, row in enumerate(graph.x.tolist())
        ]
        features = "\n".join(lines)
    (folder / "features.csv").write_text("node,a,b,c,d\n" + features + "\n")
    arguments = ["--data", str(folder / "edges.csv"), "--features", str(folder / "features.csv")]
    if labels is not None:
        np.save(folder / "labels.npy", np.arange(labels) % 3)
        arguments += ["--labels", str(folder / "labels.npy")]
    return arguments


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clustering")
    graph = write_graph(folder)
    assert run(["train", "pamc", *graph, "--out", str(folder / "run"), *SMALL, "--set", "num_clusters=3"]) == 0
    return folder / "run"


def test_train_prints_the_table_and_leaves_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    load = [part for option in ("num_nodes=60", "num_classes=3") for part in ("--load", option)]
    assert run(["train", "scgc_star", "--data", "sbm", *load, "--out", str(out), *SMALL]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("accuracy", "nmi", "modularity", "k-means", "spectral", "last epoch (6)", str(out / "report.html")):
        assert word in text
    assert (out / "report.html").is_file()


def test_evaluate_recomputes_the_saved_metrics(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    saved = json.loads((trained / "metrics.json").read_text())
    assert found["metrics"] == saved["test"]
    assert found["protocol"] == saved["protocol"]
    assert saved["test"]["accuracy"] is None
    assert saved["test"]["modularity"] > 0.3


def test_clusters_and_embeddings_come_with_the_ids_of_the_files(trained: Path, tmp_path: Path) -> None:
    table, vectors = tmp_path / "clusters.csv", tmp_path / "nodes.parquet"
    assert run(["embed", str(trained), "--what", "clusters", "--out", str(table)]) == 0
    clusters = pl.read_csv(table)
    assert clusters.columns == ["node", "cluster", "confidence"]
    assert set(clusters["node"]) == {f"n{node}" for node in range(60)}
    assert run(["embed", str(trained), "--out", str(vectors)]) == 0
    assert pl.read_parquet(vectors)["id"].to_list() == clusters["node"].to_list()
    assert run(["embed", str(trained), "--what", "items", "--out", str(vectors)]) == 2
    assert run(["recommend", str(trained), "--users", "all", "--out", str(table)]) == 2


def test_an_untidy_graph_is_read_and_what_was_done_is_noted(tmp_path: Path) -> None:
    loops, copies = "n0,n0\nn5,n5\n", "n1,n2\n" * 3
    graph = write_graph(tmp_path, extra_edges=loops + copies, labels=60)
    assert run(["train", "pamc", *graph, "--out", str(tmp_path / "run"), *SMALL]) == 0
    facts = json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]
    assert facts["self_loops_dropped"] == 2
    assert facts["repeated_edges_merged"] >= 2
    assert facts["nodes"] == 60
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["accuracy"] is not None


def bad(folder: Path, case: str) -> list[str]:
    """Arguments of `graphcl train pamc` that are at fault."""
    nan = "\n".join(f"n{node},1,{'nan' if node == 7 else node},0,1" for node in range(60))
    match case:
        case "labels of another length":
            return write_graph(folder, labels=59)
        case "more clusters than nodes":
            return [*write_graph(folder), "--set", "num_clusters=61"]
        case "one cluster":
            return [*write_graph(folder), "--set", "num_clusters=1"]
        case "NaN feature":
            return [*write_graph(folder, features=nan), "--set", "num_clusters=3"]
        case "no edge":
            return [*write_graph(folder, edges=False), "--set", "num_clusters=3"]
        case "loops only":
            return [*write_graph(folder, edges=False, extra_edges="n1,n1\n"), "--set", "num_clusters=3"]
        case "unknown setting":
            return [*write_graph(folder), "--set", "cluster_number=3"]
        case "option of interactions":
            return [*write_graph(folder), "--set", "num_clusters=3", "--k-core", "5"]
        case "oracle without labels":
            return [*write_graph(folder), "--set", "num_clusters=3", "--set", "oracle=true"]
        case "heterogeneous":
            return ["--data", "acm"]
        case "no such graph":
            return ["--data", "corra"]
    raise AssertionError(case)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("labels of another length", "59"),
        ("more clusters than nodes", "61 clusters of 60 nodes"),
        ("one cluster", "num_clusters"),
        ("NaN feature", "nan"),
        ("no edge", "edge"),
        ("loops only", "no edge between two nodes"),
        ("unknown setting", "unknown setting 'cluster_number'"),
        ("option of interactions", "--k-core does not apply"),
        ("oracle without labels", "the graph has no labels"),
        ("heterogeneous", "acm"),
        ("no such graph", "corra"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str, message: str
) -> None:
    monkeypatch.delenv("GRAPHCL_DATA", raising=False)
    out = tmp_path / "run"
    assert run(["train", "pamc", *bad(tmp_path, case), "--out", str(out), *SMALL]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message.lower() in error[0].lower()
    assert "; " in error[0]  # the remedy
    assert not out.exists()
