from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import polars as pl
import pytest
import torch
from torch_geometric.data import Data

from graphcl.data.graph_generators import stochastic_block_model
from graphcl.errors import InputError
from graphcl.metrics.clustering import clustering_accuracy, nmi
from graphcl.models import PamC
from graphcl.models.base_clustering import ClusteringBatch
from graphcl.pipelines import NodeClusterer, clustering, create_pipeline, load_pipeline
from graphcl.pipelines.clustering import oracle_values

NODES = 90
QUICK: dict[str, Any] = {
    "epochs": 6, "warmup_epochs": 6, "widths": [16, 8], "progress": False, "measure_every": 2,
}  # fmt: skip


@cache
def _made(seed: int) -> Data:
    return stochastic_block_model(NODES, 3, num_features=8, separation=1.5, mixing=0.1, seed=seed)


def blocks(seed: int = 0) -> Data:
    """Three groups that features and edges agree on."""
    return _made(seed).clone()


def clusterer(model: str = "pamc", **settings: Any) -> NodeClusterer:
    return NodeClusterer(model, **{**QUICK, **settings})


@pytest.mark.parametrize("model", ["pamc", "scgc", "scgc_star"])
def test_planted_groups_are_found(model: str) -> None:
    graph = blocks()
    fitted = clusterer(model, epochs=8, warmup_epochs=8).fit(graph)
    metrics = fitted.evaluate().metrics
    assert metrics.accuracy is not None
    assert metrics.accuracy > 0.95
    assert metrics.num_clusters == 3


def test_results_have_the_shape_that_is_promised() -> None:
    names = [f"paper {number}" for number in range(NODES)]
    graph = blocks()
    graph.node_ids = names
    fitted = clusterer().fit(graph)
    table = fitted.predict()
    assert table.columns == ["node", "cluster", "confidence"]
    assert table["node"].to_list() == names
    shares = fitted.predict_proba()
    assert shares.vectors.shape == (NODES, 3)
    np.testing.assert_allclose(shares.vectors.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(shares.vectors.argmax(axis=1), table["cluster"].to_numpy())
    np.testing.assert_allclose(shares.vectors.max(axis=1), table["confidence"].to_numpy())
    assert fitted.embed().vectors.shape == (NODES, 8)
    assert fitted.embed("nodes").ids.tolist() == names
    assert fitted.num_clusters == 3
    unknown: Any = "items"
    with pytest.raises(ValueError, match="what must be 'nodes', got 'items'"):
        fitted.embed(unknown)


def test_metrics_are_those_of_the_clusters_that_are_given_out() -> None:
    graph = blocks()
    fitted = clusterer().fit(graph)
    clusters = fitted.predict()["cluster"].to_numpy()
    found = fitted.evaluate()
    assert found.metrics.accuracy == clustering_accuracy(graph.y, clusters)
    assert found.metrics.nmi == nmi(graph.y, clusters)
    assert "last epoch (12)" in found.protocol["result"]
    assert found.protocol["clusters"] == "3, the number of classes"
    renamed = np.array(["a", "b", "c"])[graph.y.numpy()]
    assert fitted.evaluate(labels=renamed).metrics == found.metrics
    assert fitted.evaluate(renamed).metrics == found.metrics
    some = torch.where(torch.arange(NODES) < 50, graph.y, -1)
    assert fitted.evaluate(labels=some).metrics.accuracy == clustering_accuracy(graph.y[:50], clusters[:50])
    for labels, message in (([0] * 89, "89 labels for 90 nodes"), ([-1] * NODES, "no node has a label")):
        with pytest.raises(InputError, match=message):
            fitted.evaluate(labels=labels)
    with pytest.raises(InputError, match="clustering has no valid part"):
        fitted.evaluate("valid")


def test_without_labels_only_what_needs_none_is_measured() -> None:
    graph = blocks()
    del graph.y
    with_labels = clusterer(num_clusters=3).fit(blocks())
    without = clusterer(num_clusters=3).fit(graph)
    metrics = without.evaluate().metrics
    assert metrics.accuracy is None
    assert metrics.modularity is not None
    assert metrics.silhouette is not None
    # Labels change nothing in training.
    assert without.predict().equals(with_labels.predict())


def test_the_last_epoch_is_the_result_and_the_oracle_only_looks_on(tmp_path: Path) -> None:
    plain = clusterer().fit(blocks())
    watched = clusterer(oracle=True).fit(blocks(), tmp_path / "run")
    assert watched.predict().equals(plain.predict())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    history = watched.training_history
    for name in ("accuracy", "nmi", "ari", "macro_f1"):
        column = [record.get(f"oracle_{name}", -1.0) for record in history]
        assert metrics["oracle"][name] == {"value": max(column), "epoch": 1 + column.index(max(column))}
        assert column[-1] == metrics["test"][name]
    assert not any(name.startswith("oracle") for record in plain.training_history for name in record)
    graph = blocks()
    del graph.y
    with pytest.raises(InputError, match="an oracle was asked for and the graph has no labels"):
        clusterer(oracle=True, num_clusters=3).fit(graph)


def test_oracle_is_the_first_of_equal_values() -> None:
    rows = [{"epoch": 1, "oracle_ari": 0.5}, {"epoch": 2, "oracle_ari": 0.5}, {"epoch": 3.0}]
    assert oracle_values(rows) == {"ari": {"value": 0.5, "epoch": 1}}


def test_history_names_the_parts_of_the_loss_and_the_quality() -> None:
    history = clusterer().fit(blocks()).training_history
    assert len(history) == 12
    assert all("kl" not in record and "modularity" not in record for record in history[:6])
    assert all("kl" in record and "contrast" in record for record in history[6:])
    measured = [record["epoch"] for record in history if "modularity" in record]
    assert measured == [8, 10, 12]
    for epoch in measured:
        record = history[int(epoch) - 1]
        assert {"conductance", "silhouette", "changed", "clusters_used"} <= record.keys()
        assert 0 <= record["changed"] <= 1


def test_training_may_end_when_the_clusters_settle() -> None:
    settings: dict[str, Any] = {"epochs": 40, "measure_every": 1, "stop_share": 0.02, "patience": 3}
    history = clusterer(**settings).fit(blocks()).training_history
    assert len(history) < 46
    assert max(record["changed"] for record in history[-3:]) < 0.02
    assert len(clusterer(epochs=40, measure_every=60).fit(blocks()).training_history) == 46


def test_seeds_repeat_and_differ() -> None:
    first, again = clusterer(seed=1).fit(blocks()), clusterer(seed=1).fit(blocks())
    np.testing.assert_array_equal(first.embed().vectors, again.embed().vectors)
    assert not np.array_equal(first.embed().vectors, clusterer(seed=2).fit(blocks()).embed().vectors)


@pytest.mark.parametrize("model", ["pamc", "scgc_star"])
def test_one_batch_of_all_nodes_trains_as_the_full_graph(model: str) -> None:
    full = clusterer(model).fit(blocks())
    batched = clusterer(model, batch_size=NODES).fit(blocks())
    # The batch is shuffled, so sums differ in the last bits.
    np.testing.assert_allclose(batched.embed().vectors, full.embed().vectors, atol=2e-3)
    for ours, theirs in zip(batched.training_history, full.training_history, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)


@pytest.mark.parametrize("encoder", ["sgc", "gcn", "SAGEConv"])
def test_small_batches_find_planted_groups(encoder: str) -> None:
    settings: dict[str, Any] = {"epochs": 4, "warmup_epochs": 4, "fanout": 5, "encoder": encoder}
    metrics = clusterer(batch_size=32, **settings).fit(blocks()).evaluate().metrics
    assert metrics.accuracy is not None
    assert metrics.accuracy > 0.9


def test_a_run_folder_says_it_all_and_loads_again(tmp_path: Path) -> None:
    fitted = clusterer().fit(blocks(), tmp_path / "run")
    run = tmp_path / "run"
    names = {file.name for file in run.iterdir()}
    assert names == {"config.yaml", "metrics.json", "history.csv", "model.safetensors", "analysis.json",
                     "manifest.json", "graph.safetensors", "nodes.parquet", "clusters.parquet", "node_map.parquet",
                     "checkpoints"}  # fmt: skip
    for again in (NodeClusterer.load(run), load_pipeline(run)):
        assert isinstance(again, NodeClusterer)
        assert again.predict().equals(fitted.predict())
        assert again.evaluate().to_dict() == fitted.evaluate().to_dict()
        assert again.get_config() == fitted.get_config()
    assert pl.read_parquet(run / "clusters.parquet").equals(fitted.predict())
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"] == fitted.evaluate().metrics.to_dict()
    assert metrics["baselines"][0]["name"] == "k-means"
    assert all("metrics" in entry for entry in metrics["baselines"])
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["data"]["source"] == "a graph in memory"
    assert manifest["data"]["nodes"] == NODES
    analysis = json.loads((run / "analysis.json").read_text())
    assert sum(analysis["sizes"]) == NODES
    assert sum(map(sum, analysis["confusion"]["counts"])) == NODES
    assert sum(map(sum, analysis["blocks"])) == 2 * manifest["data"]["edges"]
    fitted.save(tmp_path / "copy")
    assert NodeClusterer.load(tmp_path / "copy").predict().equals(fitted.predict())


@pytest.mark.parametrize("steps", [4, 9])  # in the warm-up, and after it
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole = clusterer().fit(blocks())
    monkeypatch.setattr(clustering, "_CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        objective, done = PamC.objective, []

        def interrupted(self: PamC, batch: ClusteringBatch) -> Any:
            done.append(batch.phase)
            if len(done) > steps:
                raise MemoryError
            return objective(self, batch)

        patched.setattr(PamC, "objective", interrupted)
        with pytest.raises(MemoryError):
            clusterer().fit(blocks(), tmp_path / "run")
    with pytest.raises(InputError, match="an unfinished run"):
        clusterer().fit(blocks(), tmp_path / "run")
    with pytest.raises(InputError, match="other data"):
        clusterer().fit(blocks(seed=1), tmp_path / "run", resume=True)
    with pytest.raises(InputError, match=r"started with widths=\[16, 8\]"):
        clusterer(widths=[8]).fit(blocks(), tmp_path / "run", resume=True)
    resumed = clusterer().fit(blocks(), tmp_path / "run", resume=True)
    np.testing.assert_array_equal(resumed.embed().vectors, whole.embed().vectors)
    assert resumed.predict().equals(whole.predict())
    changed = [[record.get("changed") for record in fitted.training_history] for fitted in (resumed, whole)]
    assert changed[0] == changed[1]


def test_vectors_and_graphs_of_networkx_are_clustered() -> None:
    rng = np.random.default_rng(0)
    vectors = np.repeat(4 * np.eye(3), 30, axis=0) + rng.standard_normal((90, 3)) * 0.3
    found = clusterer(num_clusters="stability", max_clusters=5, epochs=10).fit(vectors.astype(np.float32))
    assert found.num_clusters == 3
    truth = np.repeat(np.arange(3), 30)
    accuracy = found.evaluate(labels=truth).metrics.accuracy
    assert accuracy is not None
    assert accuracy > 0.95
    assert "estimated by stability" in found.evaluate().protocol["clusters"]
    caveman = networkx.relabel_nodes(networkx.connected_caveman_graph(3, 8), lambda node: f"m{node}")
    table = clusterer(num_clusters=3, epochs=10, warmup_epochs=10).fit(caveman).predict()
    assert table["node"][0] == "m0"
    groups = [table["cluster"][start : start + 8].n_unique() for start in (0, 8, 16)]
    assert sum(groups) <= 4


def test_isolated_nodes_and_zero_rows_are_no_fault() -> None:
    graph = blocks()
    keep = (graph.edge_index >= 20).all(dim=0)
    graph.edge_index = graph.edge_index[:, keep]
    graph.x = graph.x.clone()
    graph.x[:30] = 0
    for model in ("pamc", "scgc_star"):
        fitted = clusterer(model).fit(graph)
        assert np.isfinite(fitted.embed().vectors).all()
        assert fitted.predict().height == NODES


def test_as_many_clusters_as_nodes_and_equal_rows_stay_finite() -> None:
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    same = Data(x=torch.ones(5, 3), edge_index=edges)
    fitted = clusterer(num_clusters=5).fit(same)
    assert np.isfinite(fitted.predict_proba().vectors).all()


def test_bad_settings_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="num_clusters"):
        NodeClusterer(num_clusters=1)
    with pytest.raises(InputError, match="did you mean 'warmup_epochs'"):
        NodeClusterer(warmup_epoch=3)
    with pytest.raises(InputError, match="unknown model 'pam'"):
        NodeClusterer("pam")
    with pytest.raises(InputError, match="2 devices were asked for"):
        clusterer(devices=2, accelerator="cpu").fit(blocks())
    with pytest.raises(InputError, match="the clusterer is not fitted"):
        NodeClusterer().predict()
    made = create_pipeline("pamc", {"epochs": 3})
    assert isinstance(made, NodeClusterer)
    assert made.get_config()["epochs"] == 3
