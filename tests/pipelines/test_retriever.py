"""Retriever: parts, measurement, saving, resuming, the index, baselines, bad input."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from graphcl.data import LabelledQueries, RetrievalData, SparseRows, load_retrieval, synthetic_tags
from graphcl.errors import InputError
from graphcl.metrics import retrieval_metrics
from graphcl.pipelines import RetrievalIndex, Retriever, load_pipeline
from graphcl.pipelines.retrieval_baselines import BASELINES, baseline_retrieval
from graphcl.pipelines.retrieval_data import QueryBatches, RetrievalParts

SMALL: dict[str, Any] = {"dim": 16, "batch_size": 64, "learning_rate": 0.02, "progress": False}


@pytest.fixture(scope="module")
def data() -> RetrievalData:
    return synthetic_tags(700, num_labels=60, num_words=300, seed=0)


@pytest.fixture(scope="module")
def run(data: RetrievalData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("retrieval") / "run"
    Retriever(epochs=6, **SMALL).fit(data, out=out)
    return out


def test_parts_are_disjoint_and_as_given(data: RetrievalData) -> None:
    numbered = LabelledQueries(np.arange(100, dtype=np.float32)[:, None], SparseRows.from_lists([[0]] * 100, 2))
    parts = RetrievalParts.of(RetrievalData(numbered), 0.1, 0.2, 3, unit=False)
    rows = [np.asarray(parts.part(name).features).ravel() for name in ("train", "valid", "test")]
    assert [part.size for part in rows] == [72, 8, 20]
    assert sorted(np.concatenate(rows).tolist()) == list(range(100))
    assert parts.split == "test 0.2 of the training queries at random; valid 0.1 of the training queries at random"
    given = RetrievalParts.of(data, 0.1, 0.2, 0, unit=True)
    assert given.part("test").num_queries == 140
    features = given.part("test").features
    assert isinstance(features, SparseRows)
    assert np.bincount(np.repeat(np.arange(140), features.sizes), features.values**2) == pytest.approx(np.ones(140))


def test_batches_cover_the_queries_with_labels_and_are_shared_out() -> None:
    queries = LabelledQueries(
        SparseRows.from_lists([[row] for row in range(7)]), SparseRows.from_lists([[0], [], [1], [0], [1], [], [0, 1]])
    )
    source = QueryBatches(queries, 3, seed=1)
    whole = list(source.batches(0))
    seen = sorted(int(row) for batch in whole for row in batch.features.columns)  # type: ignore[union-attr]
    assert seen == [0, 2, 3, 4, 6]
    assert [batch.starts_epoch for batch in whole] == [True, False]
    shares = [list(source.batches(0, rank, 2)) for rank in range(2)]
    assert [sum(len(b.offsets) - 1 for b in share) for share in shares] == [3, 2]
    assert sum(b.total for share in shares for b in share) == source.num_targets == 5


def test_metrics_are_recomputed_from_the_run_and_beat_the_baselines(run: Path, data: RetrievalData) -> None:
    loaded = load_pipeline(run)
    assert isinstance(loaded, Retriever)
    fresh = loaded.evaluate("test").metrics.to_dict()
    saved = pl.read_json(run / "metrics.json")
    for name, value in fresh.items():
        assert saved["test"].struct.field(name)[0] == pytest.approx(value)
    baselines = {entry["name"]: entry["metrics"] for entry in saved["baselines"][0].to_list()}
    assert set(baselines) == set(BASELINES)
    assert fresh["nDCG@5"] is not None
    assert fresh["nDCG@5"] > baselines["nearest queries"]["nDCG@5"]
    assert fresh["nDCG@5"] > 2 * baselines["common labels"]["nDCG@5"]
    # What `retrieve` gives is what was measured.
    assert data.test is not None
    table = loaded.retrieve(data.test.features, k=20)
    place = {name: number for number, name in enumerate(data.names().tolist())}
    ranked = np.array([place[name] for name in table["label"]]).reshape(-1, 20)
    again = retrieval_metrics(ranked, data.test.labels.offsets, data.test.labels.columns, ks=[5]).values["nDCG@5"]
    assert again == pytest.approx(fresh["nDCG@5"])


def test_the_test_part_takes_no_part_in_training(data: RetrievalData) -> None:
    assert data.test is not None
    fewer = replace(data, test=data.test.take(np.arange(5)))
    settings = {**SMALL, "baselines": False}
    first, second = (Retriever(epochs=2, **settings).fit(given) for given in (data, fewer))
    assert np.array_equal(first.embed().vectors, second.embed().vectors)


@pytest.mark.parametrize(
    "settings",
    [{"labels": "ids"}, {"objective": "soft_top_k"}, {"objective": "softmax"}, {"negatives": "hard", "hidden": 8}],
)
def test_every_form_learns(data: RetrievalData, settings: dict[str, Any]) -> None:
    retriever = Retriever(epochs=4, baselines=False, **SMALL, **settings).fit(data)
    history = [record["valid_nDCG@5"] for record in retriever.training_history]
    assert max(history) > 0.25


def test_a_resumed_run_ends_with_the_same_weights(data: RetrievalData, tmp_path: Path) -> None:
    settings = {**SMALL, "baselines": False, "negatives": "hard", "num_negatives": 5}
    whole = Retriever(epochs=3, **settings).fit(data, out=tmp_path / "whole")
    Retriever(epochs=1, **settings).fit(data, out=tmp_path / "parts")
    resumed = Retriever(epochs=3, **settings).fit(data, out=tmp_path / "parts", resume=True)
    assert np.array_equal(whole.embed().vectors, resumed.embed().vectors)


def test_the_index_alone_finds_the_same_labels(run: Path, data: RetrievalData, tmp_path: Path) -> None:
    retriever = Retriever.load(run)
    assert data.test is not None
    vectors = retriever.encode(data.test.features)
    retriever.index().save(tmp_path / "index")
    expected = retriever.retrieve(data.test.features, k=4)
    for folder in (tmp_path / "index", run):
        names, scores = RetrievalIndex.load(folder).search(vectors, 4)
        assert names.ravel().tolist() == expected["label"].to_list()
        assert scores.ravel().tolist() == expected["score"].to_list()
    index = RetrievalIndex.load(tmp_path / "index")
    best = np.argsort(-(vectors @ index.vectors.T), axis=1, kind="stable")[:, :1]
    assert index.labels[best].tolist() == index.search(vectors, 1)[0].tolist()
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.60"):
        index.search(vectors, 61)
    with pytest.raises(ValueError, match=r"queries must be \(Q, 16\)"):
        index.search(vectors[:, :3], 1)
    (tmp_path / "index" / "labels.parquet").unlink()
    with pytest.raises(InputError, match=r"labels\.parquet"):
        RetrievalIndex.load(tmp_path / "index")
    with pytest.raises(InputError, match="there is no such file"):
        RetrievalIndex.load(tmp_path)


def test_dense_queries_and_numbered_labels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(6, 12))
    labels = generator.integers(0, 6, 300)
    features = (centres[labels] + 0.3 * generator.normal(size=(300, 12))).astype(np.float32)
    queries = LabelledQueries(features, SparseRows.from_lists([[label] for label in labels.tolist()], 6))
    retriever = Retriever(epochs=8, watch="P@1", **SMALL).fit(RetrievalData(queries), out=tmp_path / "run")
    assert (retriever.evaluate("test").metrics.values["P@1"] or 0.0) > 0.9
    loaded = Retriever.load(tmp_path / "run")
    table = loaded.retrieve(features[:2], k=1)
    assert table["label"].dtype == pl.Int64
    assert table["label"].to_list() == labels[:2].tolist()
    assert loaded.embed("queries").vectors.shape == (60, 16)


def test_baselines_by_hand() -> None:
    train = LabelledQueries(
        SparseRows.from_lists([[0, 1], [0, 2], [3]], 4), SparseRows.from_lists([[2], [2, 1], [0]], 3)
    )
    asked = LabelledQueries(SparseRows.from_lists([[3], []], 4), SparseRows.from_lists([[0], []], 3))
    data = RetrievalData(train, label_features=SparseRows.from_lists([[1], [3], [0]], 4))

    def found(name: str) -> Any:
        result = baseline_retrieval(name, data, asked, 2)
        assert result is not None
        return result.tolist()

    assert found("common labels") == [[2, 0], [2, 0]]
    assert found("nearest queries") == [[0, 2], [2, 0]]
    assert found("shared features") == [[1, 2], [2, 0]]
    assert baseline_retrieval("shared features", replace(data, label_features=None), asked, 2) is None
    with pytest.raises(ValueError, match="name must be one of"):
        baseline_retrieval("rare", data, asked, 2)


def test_bad_input_says_what_to_do(run: Path, data: RetrievalData) -> None:
    plain = replace(data, label_features=None)
    with pytest.raises(InputError, match="labels='features' needs features of the labels; give label features"):
        Retriever(labels="features", **SMALL).fit(plain)
    with pytest.raises(InputError, match="one tower needs labels with features of the queries' kind"):
        Retriever(towers="shared", **SMALL).fit(plain)
    few = LabelledQueries(SparseRows.from_lists([[0], [1]]), SparseRows.from_lists([[0], [0]]))
    with pytest.raises(InputError, match=r"2 queries are too few to set a share of 0\.2 aside as test"):
        Retriever(**SMALL).fit(RetrievalData(few))
    unlabelled = LabelledQueries(SparseRows.from_lists([[0]] * 20), SparseRows.from_lists([[]] * 20, 3))
    with pytest.raises(InputError, match="no training query has a label"):
        Retriever(**SMALL).fit(RetrievalData(unlabelled))
    narrow = LabelledQueries(SparseRows.from_lists([[0]] * 20), SparseRows.from_lists([[0]] * 20, 3))
    with pytest.raises(InputError, match=r"nDCG@5 needs 5 labels and there are 3; watch P@1 instead"):
        Retriever(**SMALL).fit(RetrievalData(narrow))
    with pytest.raises(InputError, match="trains on queries and labels, not on list"):
        Retriever(**SMALL).fit([1])
    retriever = Retriever.load(run)
    with pytest.raises(InputError, match="the queries have 5 sparse features, training had 300 sparse features"):
        retriever.retrieve(SparseRows.from_lists([[4]]), k=1)
    with pytest.raises(InputError, match=r"k must lie in 1\.\.60, got 61"):
        retriever.retrieve(SparseRows.from_lists([[4]], 300), k=61)


def test_texts_are_encoded_by_the_model_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts go through one sentence encoder in training and in service; the towers see its vectors."""
    words = [f"w{number}" for number in range(24)]  # twelve name a label, twelve mean nothing

    class Fake:
        def __init__(self, name: str) -> None:
            assert name == "some-model"

        def encode(self, texts: list[str], **_: Any) -> np.ndarray[Any, Any]:
            return np.array([[float(word in text.split()) for word in words] for text in texts])

    module = ModuleType("sentence_transformers")
    vars(module)["SentenceTransformer"] = Fake
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    rows = [f"w{number % 12} w{12 + number * 5 % 12},tag {number % 12}" for number in range(120)]
    (tmp_path / "train.csv").write_text("\n".join(["text,labels", *rows]))
    (tmp_path / "labels.csv").write_text("\n".join(["label,text", *(f"tag {n},w{n}" for n in range(12))]))
    data = load_retrieval(tmp_path, model="some-model")
    retriever = Retriever(epochs=40, **SMALL).fit(data, out=tmp_path / "run")
    assert retriever._fitted()[0].shares_towers
    assert float(retriever.evaluate("test").metrics.values["P@1"] or 0.0) > 0.9
    loaded = load_pipeline(tmp_path / "run")
    assert isinstance(loaded, Retriever)
    found = loaded.retrieve(["w3 w20", "w4"], k=2)
    given = loaded.retrieve(np.eye(24, dtype=np.float32)[[3, 4]] + np.eye(24, dtype=np.float32)[[20, 4]], k=2)
    assert found.equals(given)
    assert found["label"][2] == "tag 4"
    separate = Retriever(epochs=1, towers="two", **SMALL).fit(data)
    assert not separate._fitted()[0].shares_towers
    assert Retriever(epochs=1, labels="ids", **SMALL).fit(data)._fitted()[0].label_source == "ids"
    plain = Retriever(epochs=1, **SMALL).fit(synthetic_tags(100, num_labels=12, num_words=40))
    with pytest.raises(InputError, match="training read no texts"):
        plain.retrieve(["w3"], k=2)
