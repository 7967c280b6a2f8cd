"""With RecBole 1.2.1 (`make test-recbole`): a model in each trainer, and equal metrics of equal scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

# The files of RecBole alone, which other tests read data from, are not enough.
pytest.importorskip(
    "recbole.trainer", reason="RecBole is not importable: run `make test-recbole`", exc_type=ImportError
)
import recbole

from graphcl.integrations.recbole import load_recbole, recbole_model, run_recbole
from graphcl.metrics import rank_of_targets, ranking_metrics
from graphcl.models import list_models

SETTINGS: dict[str, Any] = {
    "data_path": str(Path(str(recbole.__file__)).parent / "dataset_example"),
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "train_neg_sample_args": None, "loss_type": "CE", "MAX_ITEM_LIST_LENGTH": 10, "hidden_size": 16, "inner_size": 16,
    "n_heads": 1, "n_layers": 1, "epochs": 1, "train_batch_size": 8192, "learning_rate": 0.005,
    "valid_metric": "NDCG@10",
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "seed": 0,
}  # fmt: skip
IN_RECBOLE = {"use_gpu": False, "show_progress": False, "state": "ERROR", "metrics": ["Hit", "NDCG"], "topk": [10],
              "metric_decimal_place": 10, "eval_batch_size": 100_000}  # fmt: skip


def test_one_model_in_both_trainers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where it is, RecBole leaves logs
    monkeypatch.setattr(sys, "argv", ["test"])  # RecBole reads the command line by itself
    result = run_recbole("sasrec", "ml-100k", config={**SETTINGS, **IN_RECBOLE, "checkpoint_dir": str(tmp_path)})
    in_recbole = result["test_result"]
    assert 0 < in_recbole["ndcg@10"] < in_recbole["hit@10"] < 1

    # The scores of that model, measured by our metrics.
    model, data = result["trainer"].model.eval(), result["test_data"].dataset
    with torch.no_grad():
        hidden = model.forward(data.inter_feat[model.ITEM_SEQ], data.inter_feat[model.ITEM_SEQ_LEN])
    ranks = rank_of_targets(hidden, model.model.item_embeddings(), data.inter_feat[model.ITEM_ID] - 1)
    ours = ranking_metrics(ranks, ks=[10]).to_dict()
    assert ours["HR@10"] == pytest.approx(in_recbole["hit@10"], abs=1e-8)
    assert ours["NDCG@10"] == pytest.approx(in_recbole["ndcg@10"], abs=1e-8)

    # The same settings and files in our trainer.
    pipeline, split, _ = load_recbole([], model="SASRec", dataset="ml-100k", **SETTINGS)
    assert split.interactions.num_items == model.n_items - 1
    assert split.test.num_interactions == ranks.numel()
    measured = pipeline.fit(split).evaluate("test").metrics.to_dict()
    assert measured["HR@10"] is not None
    assert measured["HR@10"] > 0


def test_every_sequential_model_has_a_class() -> None:
    for name in list_models("sequential"):
        assert recbole_model(name).__name__.startswith("Graphcl")
