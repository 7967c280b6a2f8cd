"""The source of SRA-CL's item vectors from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcl.cli.app import run
from graphcl.pipelines import SequentialRecommender

SMALL = ["--epochs=1", *(f"--set={pair}" for pair in ("hidden=8", "layers=1", "max_length=5", "progress=false"))]


def test_sources_by_name_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, items, vectors = tmp_path / "log.csv", tmp_path / "items.csv", tmp_path / "llm.npz"
    rows = [f"{user},{(user * 5 + step) % 9},{step}" for user in range(30) for step in range(7)]
    log.write_text("\n".join(["user,item,time", *rows]))
    items.write_text("\n".join(["item,kind,title", *(f"{n},k{n % 3},name of {n}" for n in range(9))]))
    np.savez(vectors, ids=np.arange(9), vectors=np.eye(9, 4) + 0.1)
    train = ["train", "sracl", "--data", str(log), "--load", f"item_features={items}", *SMALL]
    for number, (source, width) in enumerate(
        (
            ("attributes+cooccurrence", 16),
            ("{attributes: {width: 2}, cooccurrence: {width: 3}}", 5),
            (str(vectors), 4),
            ("joint", 16),
        )
    ):
        out = tmp_path / f"run-{number}"
        assert run([*train, "--set", f"semantics={source}", "--set", "semantic_dim=8", "--out", str(out)]) == 0
        loaded = SequentialRecommender.load(out)
        assert loaded._vectors is not None
        assert loaded._vectors.shape == (9, width)
    capsys.readouterr()
    for source, message in (("atributes", "did you mean 'attributes'"), ("7", "semantics"), ("no.npz", "no.npz")):
        assert run([*train, "--set", f"semantics={source}", "--out", str(tmp_path / "bad")]) == 2
        line = capsys.readouterr().err.splitlines()
        assert len(line) == 1
        assert message in line[0]
    assert not (tmp_path / "bad").exists()
