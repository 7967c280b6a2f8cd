from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch_geometric.data import Data, HeteroData

from graphcl.cli.app import run
from graphcl.data.graphs import GraphDataset
from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.models import MEOW, HeCo
from graphcl.pipelines import NodeEmbedder, create_pipeline, load_pipeline
from graphcl.pipelines.embedding_evaluation import ProbePlan, evaluate_embeddings
from graphcl.pipelines.embedding_graphs import embedding_graph, read_embedding_graph
from graphcl.report import write_report

PAPERS, CLASSES = 60, 3
QUICK: dict[str, Any] = {
    "hidden": 8,
    "learning_rate": 3e-3,
    "epochs": 3,
    "progress": False,
    "probe_repeats": 3,
    "clusterings": 2,
}


def bibliography(*, labels: bool = True, masks: bool = True) -> HeteroData:
    """Papers whose authors, subjects and words tell their class; splits as HeCo's folders have them."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(PAPERS) % CLASSES
    graph = HeteroData(target="paper", metapaths=("PAP", "PSP"))
    words = torch.nn.functional.one_hot(y, CLASSES).float().repeat(1, 3)
    graph["paper"].x = (words + torch.rand(words.shape, generator=generator) > 0.8).float()
    graph["author"].num_nodes, graph["subject"].num_nodes = 12, 6
    papers = torch.arange(PAPERS)
    authors = y * 4 + torch.randint(4, (PAPERS,), generator=generator)
    graph["paper", "to", "author"].edge_index = torch.stack([papers, authors])
    graph["paper", "to", "subject"].edge_index = torch.stack([papers, 2 * y + papers % 2])
    if labels:
        graph["paper"].y = y
    if masks:
        graph.splits = ("20", "40")
        part = torch.stack([papers % 4, (papers + 1) % 4], dim=1)
        graph["paper"].train_mask, graph["paper"].val_mask, graph["paper"].test_mask = part < 2, part == 2, part == 3
    return graph


@cache
def fitted() -> NodeEmbedder:
    return NodeEmbedder("meow", clusters=(3, 6), **QUICK).fit(bibliography())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedding") / "run"
    NodeEmbedder("meow", clusters=(3, 6), **QUICK).fit(bibliography(), out)
    return out


def test_probes_clusters_and_measures_of_every_split() -> None:
    found = fitted().evaluate()
    metrics = found.metrics.to_dict()
    for split in ("20", "40"):
        assert (metrics[f"macro_f1@{split}"] or 0) > 0.5
        assert metrics[f"macro_f1_std@{split}"] is not None
        assert (metrics[f"auc@{split}"] or 0) > 0.5
        assert (metrics[f"knn_accuracy@{split}"] or 0) > 0.5
    assert (metrics["nmi"] or 0) > 0.1
    assert metrics["effective_rank"] is not None
    assert [probe["split"] for probe in found.probes] == ["20", "40"]
    assert [found.probes[0][part] for part in ("train", "val", "test")] == [30, 15, 15]
    assert "epoch 3 (last); no label was seen" in found.protocol["result"]
    assert set(found.to_dict()) == {"protocol", "metrics", "probes"}
    valid = fitted().evaluate("valid").metrics.to_dict()
    assert set(valid) == {"macro_f1@20", "micro_f1@20", "macro_f1@40", "micro_f1@40"}


def test_labels_do_not_touch_training() -> None:
    bare = NodeEmbedder("meow", clusters=(3, 6), **QUICK).fit(bibliography(labels=False, masks=False))
    np.testing.assert_array_equal(bare.embed().vectors, fitted().embed("nodes").vectors)
    metrics = bare.evaluate()
    assert set(metrics.metrics.to_dict()) == {"effective_rank", "uniformity"}
    assert "only measures without labels" in metrics.protocol["labels"]
    with pytest.raises(InputError, match="has no labels to validate on"):
        bare.evaluate("valid")


def test_without_masks_there_are_clusters_and_random_splits() -> None:
    embedder = NodeEmbedder("heco", num_positives=2, **QUICK).fit(bibliography(masks=False))
    found = embedder.evaluate()
    assert {"nmi", "ari", "logistic_accuracy_random"} < set(found.metrics.to_dict())
    (probe,) = found.probes
    assert (probe["split"], probe["train"], probe["val"], probe["test"]) == ("random", 6, 6, 48)
    assert probe["logistic_accuracy"] == found.metrics.to_dict()["logistic_accuracy_random"]
    assert probe["logistic_accuracy"] > 1 / CLASSES
    assert "mean of 5" in found.protocol["random splits"]
    without = NodeEmbedder("heco", num_positives=2, random_splits=0, **QUICK).fit(bibliography(masks=False)).evaluate()
    assert without.probes == ()
    assert "no train_mask" in without.protocol["probe"]
    assert "logistic_accuracy_random" not in fitted().evaluate().metrics.to_dict()


def test_the_random_splits_share_no_node_and_keep_their_order_from_the_labels() -> None:
    labels = torch.arange(100) % 2
    z = torch.nn.functional.one_hot(labels, 2).float()
    embedded = embedding_graph(Data(x=z, edge_index=torch.tensor([[0, 1], [1, 0]]), y=labels))
    plan = ProbePlan(repeats=2, clusterings=1, random_splits=3)
    assert evaluate_embeddings(z, embedded, plan).metrics.to_dict()["logistic_accuracy_random"] == 1.0
    chance = evaluate_embeddings(torch.randn(100, 2), embedded, plan).metrics.to_dict()["logistic_accuracy_random"]
    assert chance is not None
    assert chance < 0.75


def typed_networkx() -> Any:
    import networkx

    graph = networkx.MultiGraph()
    for paper in range(12):
        graph.add_node(f"p{paper}", type="paper", x=[float(paper % 3), 1.0])
        for author in (paper % 4, (paper + 1) % 4):
            graph.add_node(f"a{author}", type="author")
            graph.add_edge(f"p{paper}", f"a{author}", type="writes")
    return graph


def test_a_networkx_graph_keeps_its_types_where_the_model_wants_them() -> None:
    embedder = NodeEmbedder("heco", target="paper", num_positives=2, **QUICK).fit(typed_networkx())
    found = embedder.embed()
    assert found.vectors.shape == (12, 8)
    assert list(found.ids[:2]) == ["p0", "p1"]
    with pytest.raises(InputError, match="trains on a heterogeneous graph"):
        NodeEmbedder("heco", **QUICK).fit(Data(x=torch.eye(3), edge_index=torch.tensor([[0, 1], [1, 2]])))


def test_a_heterogeneous_graph_without_metapaths_gets_those_there_and_back() -> None:
    graph = bibliography()
    del graph.metapaths
    found = embedding_graph(graph)
    assert [tuple(kind[2] for kind in path) for path in found.graph.metapaths] == [
        ("author", "paper"), ("subject", "paper"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["torch", "ours"])
def test_sparse_features_of_a_type_stay_sparse_and_are_checked(form: str) -> None:
    graph = bibliography()
    dense = graph["paper"].x
    sparse = dense.to_sparse_csr()
    graph["paper"].x = sparse if form == "torch" else SparseMatrix.from_torch(sparse)
    found = embedding_graph(graph).graph["paper"].x
    assert isinstance(found, SparseMatrix)
    torch.testing.assert_close(found.to_dense(), dense)
    values = found.entry_values().clone()
    values[-1] = float("nan")
    graph["paper"].x = found.with_values(values)
    with pytest.raises(InputError, match=f"row {PAPERS}, column '.': the feature is nan"):
        embedding_graph(graph)
    graph["paper"].x, graph["paper"].num_nodes = found, PAPERS + 1
    with pytest.raises(InputError, match=f"there are {PAPERS} rows of features for {PAPERS + 1} nodes"):
        embedding_graph(graph)


def test_a_run_is_saved_loaded_and_reported(folder: Path) -> None:
    loaded = load_pipeline(folder)
    assert isinstance(loaded, NodeEmbedder)
    np.testing.assert_allclose(loaded.embed().vectors, fitted().embed().vectors, atol=1e-6)
    assert loaded.evaluate().to_dict()["metrics"] == pytest.approx(fitted().evaluate().metrics.to_dict(), nan_ok=True)
    assert NodeEmbedder.from_config(loaded.get_config()).get_config()["hidden"] == 8
    table = pl.read_parquet(folder / "node_map.parquet")
    assert table.columns == ["node", "x", "y", "label"]
    page = write_report(folder).read_text(encoding="utf-8")
    for text in ("Probes", "Macro-F1", "Meta-paths", "PAP, masked", "Clusters and geometry", "Training loss", "±"):
        assert text in page


def test_the_command_line_evaluates_and_embeds(folder: Path, tmp_path: Path) -> None:
    assert run(["evaluate", str(folder)]) == 0
    assert run(["embed", str(folder), "--what", "nodes", "--out", str(tmp_path / "z.npz")]) == 0
    with np.load(tmp_path / "z.npz") as saved:
        assert saved["vectors"].shape == (PAPERS, 8)
        assert saved["ids"].tolist() == list(range(PAPERS))


def test_a_damaged_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("graph.safetensors", "nodes.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    pl.DataFrame({"node": [1, 2]}).write_parquet(tmp_path / "nodes.parquet")
    with pytest.raises(InputError, match="names 2 nodes, the graph has 60"):
        read_embedding_graph(tmp_path)


def test_a_graph_survives_its_file(tmp_path: Path) -> None:
    typed = bibliography()
    typed["author"].x = SparseMatrix.from_coo(torch.tensor([3]), torch.tensor([1]), torch.ones(1), shape=(12, 4))
    plain = Data(
        x=torch.eye(4), edge_index=torch.tensor([[0, 1], [1, 0]]), edge_weight=torch.tensor([2.0, 2.0]),
        y=torch.tensor([0, 1, 0, -1]), node_ids=["a", "b", "c", "d"],
    )  # fmt: skip
    for number, graph in enumerate((typed, plain)):
        before = embedding_graph(graph)
        (tmp_path / str(number)).mkdir()
        before.write(tmp_path / str(number))
        after = read_embedding_graph(tmp_path / str(number))
        assert after.content_hash() == before.content_hash()
        assert after.ids.to_list() == before.ids.to_list()
        assert [split.name for split in after.splits] == [split.name for split in before.splits]


def test_a_preset_goes_with_the_name_of_the_data_set() -> None:
    assert NodeEmbedder("heco").get_config() == {"model": "heco"}
    quick = {**QUICK, "metapaths": ("PAP", "PSP")}
    named = NodeEmbedder("heco", num_positives=2, **quick).fit(GraphDataset("acm", bibliography())).get_config()
    assert (named["preset"], named["attention_dropout"], named["probe_learning_rate"]) == ("acm", 0.5, 0.05)
    assert (named["num_positives"], named["patience"], named["min_epochs"], named["keep"]) == (2, 5, 100, "best")
    assert MEOW.presets["acm"].probe_learning_rate == 0.03
    assert NodeEmbedder("heco", preset="dblp").settings.patience == HeCo.presets["dblp"].patience
    with pytest.raises(InputError, match="unknown preset 'acn'; did you mean 'acm'"):
        NodeEmbedder("heco", preset="acn")


def test_stopping_by_validation_keeps_the_best_epoch() -> None:
    embedder = NodeEmbedder("heco", num_positives=2, stop="validation", validate_every=1, **QUICK).fit(bibliography())
    assert embedder.settings.keep == "best"
    assert all("valid_macro_f1" in record for record in embedder.training_history)
    assert "chosen by the linear probe on the validation nodes" in embedder.evaluate().protocol["result"]
    with pytest.raises(InputError, match="stop=validation needs labelled nodes, and a graph in memory has no masks"):
        NodeEmbedder("heco", stop="validation", **QUICK).fit(bibliography(masks=False))


def test_an_interrupted_run_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    short = {**QUICK, "epochs": 1}
    NodeEmbedder("meow", clusters=(3, 6), **short).fit(bibliography(), tmp_path / "run")
    resumed = NodeEmbedder("meow", clusters=(3, 6), **QUICK).fit(bibliography(), tmp_path / "run", resume=True)
    np.testing.assert_allclose(resumed.embed().vectors, fitted().embed().vectors, atol=1e-6)
    with pytest.raises(InputError, match="learning_rate"):
        NodeEmbedder("meow", clusters=(3, 6), **{**QUICK, "learning_rate": 0.5}).fit(
            bibliography(), tmp_path / "run", resume=True
        )


def test_mini_batches_visit_every_node() -> None:
    embedder = NodeEmbedder("meow", clusters=(3, 6), norm="row", batch_size=25, fanout=(3, 3), **QUICK)
    embedder.fit(bibliography())
    assert embedder.embed().vectors.shape == (PAPERS, 8)
    assert np.isfinite(embedder.embed().vectors).all()


def test_what_cannot_be_embedded_is_refused() -> None:
    with pytest.raises(InputError, match="meow trains on a heterogeneous graph"):
        NodeEmbedder("meow").fit(Data(x=torch.eye(3), edge_index=torch.tensor([[0], [1]])))
    with pytest.raises(InputError, match="venue"):
        NodeEmbedder("meow", target="venue").fit(bibliography())
    with pytest.raises(InputError, match="not fitted"):
        NodeEmbedder("meow").embed()
    with pytest.raises(ValueError, match="what must be 'nodes'"):
        fitted().embed("items")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'clusters'"):
        create_pipeline("meow", {"cluster": (3,)})
    lacking = bibliography()
    del lacking["paper"].test_mask
    with pytest.raises(InputError, match="has train_mask and lacks test_mask"):
        embedding_graph(lacking)
    short = bibliography()
    short["paper"].val_mask = torch.ones(3, dtype=torch.bool)
    with pytest.raises(InputError, match=r"val_mask has shape \(3,\)"):
        embedding_graph(short)
