"""Retrieval from the command line: every command on a run, and bad input of every kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from graphcl.cli.app import run
from graphcl.data import SparseRows, synthetic_tags

SMALL = ["--epochs", "2", "--set", "dim=8", "--set", "batch_size=64", "--set", "progress=false"]


def matrix(rows: SparseRows) -> str:
    lines = [
        " ".join(f"{rows.columns[at]}:{rows.values[at]:g}" for at in range(rows.offsets[row], rows.offsets[row + 1]))
        for row in range(rows.num_rows)
    ]
    return "\n".join([f"{rows.num_rows} {rows.width}", *lines, ""])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrieval")
    data = synthetic_tags(300, num_labels=40, num_words=200, seed=0)
    source = folder / "tags"
    source.mkdir()
    for prefix, part in (("trn", data.train), ("tst", data.test)):
        assert part is not None
        assert isinstance(part.features, SparseRows)
        (source / f"{prefix}_X_Xf.txt").write_text(matrix(part.features))
        (source / f"{prefix}_X_Y.txt").write_text(matrix(part.labels))
    assert isinstance(data.label_features, SparseRows)
    (source / "lbl_X_Xf.txt").write_text(matrix(data.label_features))
    (source / "Yf.txt").write_text("\n".join(data.names().tolist()))
    assert run(["train", "dual_encoder", "--data", str(source), "--out", str(folder / "run"), *SMALL]) == 0
    return folder


def test_evaluate_retrieve_embed_and_report(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(trained / "run"), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    saved = json.loads((trained / "run" / "metrics.json").read_text())
    assert evaluated["metrics"]["PSP@5"] == pytest.approx(saved["test"]["PSP@5"])
    out, queries = tmp_path / "labels.csv", trained / "tags" / "tst_X_Xf.txt"
    assert run(["retrieve", str(trained / "run"), "--queries", str(queries), "--out", str(out), "-k", "3"]) == 0
    assert "wrote 180 labels for 60 queries" in capsys.readouterr().out
    found = pl.read_csv(out)
    assert found.columns == ["query", "rank", "label", "score"]
    assert found["label"].str.starts_with("tag-").all()
    assert run(["embed", str(trained / "run"), "--out", str(tmp_path / "e.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "e.parquet")["id"][1] == "tag-0001"
    page = (trained / "run" / "report.html").read_text()
    for words in ("Retrieved labels", "Common and rare labels", "Examples", "nearest queries"):
        assert words in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "dual_encoder", "--data", "no/folder", "--out", "OUT"], "there is no such file or folder"),
        (["train", "dual_encoder", "--data", "synthetic-tag", "--out", "OUT"], "did you mean 'synthetic-tags'?"),
        (["train", "dual_encoder", "--data", "TAGS", "--out", "OUT", "--set", "labls=ids"], "did you mean 'labels'?"),
        (["train", "dual_encoder", "--data", "TAGS", "--out", "OUT", "--load", "x=1"], "unknown option 'x'"),
        (
            ["train", "dual_encoder", "--data", "TAGS", "--out", "OUT", "--split", "ratio"],
            "trains on queries and labels",
        ),
        (["train", "sasrec", "--data", "synthetic-tags", "--out", "OUT"], "holds queries and labels, not a log"),
        (["retrieve", "RUN", "--queries", "no.txt", "--out", "OUT.csv"], "no.txt: there is no such file"),
        (["retrieve", "RUN", "--queries", "BAD", "--out", "OUT.csv"], "row 2: 'x' is not a column"),
        (["retrieve", "RUN", "--queries", "QUERIES", "--out", "OUT.csv", "-k", "99"], "k must lie in 1..40, got 99"),
        (["retrieve", "RUN", "--queries", "QUERIES", "--out", "OUT.txt"], "unknown file type '.txt'"),
        (["retrieve", "RUN", "--queries", "TEXTS", "--out", "OUT.csv"], "training read no texts"),
        (["retrieve", "RUN", "--queries", "QUERIES", "--text", "x", "--out", "OUT.csv"], "--text does not apply"),
        (["train", "dual_encoder", "--data", "TEXTS", "--out", "OUT"], "pip install 'graphcl[text]'"),
        (["recommend", "RUN", "--users", "all", "--out", "OUT.csv"], "recommends nothing"),
    ],
)
def test_bad_input_is_one_line(
    trained: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    (trained / "bad.txt").write_text("1 200\nx:1\n")
    (trained / "texts.csv").write_text("text,labels\nred soap,a\n")
    places = {
        "TAGS": trained / "tags",
        "RUN": trained / "run",
        "TEXTS": trained / "texts.csv",
        "BAD": trained / "bad.txt",
        "QUERIES": trained / "tags" / "tst_X_Xf.txt",
        "OUT": tmp_path / "out",
        "OUT.txt": tmp_path / "o.txt",
        "OUT.csv": tmp_path / "o.csv",
    }
    assert run([str(places.get(part, part)) for part in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_texts_through_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def encode(self, texts: list[str], **_: Any) -> np.ndarray[Any, Any]:
            return np.array([[float(text.count(letter)) for letter in "abcdef"] for text in texts])

    module = ModuleType("sentence_transformers")
    vars(module)["SentenceTransformer"] = Fake
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    rows = "".join(f"{'abcdef'[n % 6] * (1 + n % 3)}\t{'abcdef'[n % 6]}\n" for n in range(60))
    data, new, out = tmp_path / "train.tsv", tmp_path / "new.csv", tmp_path / "labels.csv"
    data.write_text("words\ttag\n" + rows)
    new.write_text("words\nccc\n")
    folder, small = tmp_path / "run", [*SMALL, "--set", "watch=P@1", "--epochs", "20"]
    load = ["--load", "text=words", "--load", f"cache={tmp_path / 'cache'}"]
    assert run(["train", "dual_encoder", "--data", str(data), "--out", str(folder), *load, *small]) == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1
    retrieve = ["retrieve", str(folder), "--queries", str(new), "--out", str(out), "-k", "1"]
    assert run([*retrieve, "--text", "words"]) == 0
    assert pl.read_csv(out)["label"].to_list() == ["c"]
    capsys.readouterr()
    assert run(retrieve) == 2
    assert "no column of text was recognised among 'words'" in capsys.readouterr().err
