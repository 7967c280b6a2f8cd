"""RecBole's YAML and atomic files without RecBole: what they mean here, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcl.errors import InputError, MissingPackageError
from graphcl.integrations.recbole import load_recbole, read_recbole_settings, recbole_model
from graphcl.pipelines import SequentialRecommender

YAML = """
model: SASRec
dataset: shop
USER_ID_FIELD: uid
load_col: {inter: [uid, item_id, rating, timestamp]}
user_inter_num_interval: "[3,inf)"
item_inter_num_interval: "(0,inf)"
val_interval: {rating: "[2,inf)"}
eval_args: {split: {LS: valid_and_test}, order: TO, group_by: user, mode: {valid: full, test: full}}
MAX_ITEM_LIST_LENGTH: 6
hidden_size: 8
n_heads: 1
inner_size: 8
hidden_dropout_prob: 0.2
epochs: 1
train_batch_size: 64
valid_metric: MRR@10
show_progress: False
train_neg_sample_args: ~
"""


def test_a_yaml_file_and_an_atomic_file_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "shop").mkdir()
    rows = [f"u{user}\ti{rng.integers(12)}\t{1 + (step > 0)}\t{9 - step}" for user in range(20) for step in range(7)]
    rows += ["lonely\ti0\t5\t1", "lonely\ti1\t5\t2"]
    header = "uid:token\titem_id:token\trating:float\ttimestamp:float"
    (tmp_path / "shop" / "shop.inter").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "run.yaml").write_text(YAML)
    pipeline, split, found = load_recbole(tmp_path / "run.yaml", data_path=str(tmp_path))
    assert found.listed == ("show_progress",)
    assert (found.user_core, found.item_core, found.min_value) == (3, 1, 2.0)
    config = pipeline.get_config()
    assert {name: config[name] for name in ("max_length", "hidden", "dropout", "batch_size", "metric")} == {
        "max_length": 6, "hidden": 8, "dropout": 0.2, "batch_size": 64, "metric": "MRR@10",
    }  # fmt: skip
    assert split.interactions.num_users == 20
    assert split.interactions.num_interactions == 120
    assert isinstance(pipeline, SequentialRecommender)
    assert pipeline.fit(split).evaluate().metrics.to_dict()["HR@20"] == 1.0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
        ({"loss_type": "BPR"}, "loss_type cannot be 'BPR'"),
        ({"model": "BERT4Rec"}, "no model of ours"),
        ({"user_inter_num_interval": "[3,9]"}, "lower bound alone"),
        ({"eval_args": {"order": "RO"}}, "order 'RO'"),
        ({"eval_args": {"mode": {"test": "uni100"}}}, "mode 'uni100'"),
        ({"eval_args": {"split": {"LS": "test_only"}}}, "has no counterpart"),
        ({"valid_metric": "AUC"}, "valid_metric"),
        ({"load_col": {"inter": ["item_id"]}}, "does not load the user column"),
        ({"val_interval": {"price": "[1,inf)"}}, "filter by rating"),
        ({"dataset": None}, "name no dataset"),
    ],
)
def test_what_has_no_counterpart_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recbole_settings([], **{"model": "SASRec", "dataset": "x", **more})


def test_a_ratio_split_and_bad_files(tmp_path: Path) -> None:
    found = read_recbole_settings([], model="LightGCN", dataset="x", eval_args={"split": {"RS": [8, 1, 1]}})
    assert found.ratios == pytest.approx((0.8, 0.1, 0.1))
    (tmp_path / "a.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match=r"a.yaml: not a mapping"):
        read_recbole_settings(tmp_path / "a.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_recbole_settings(tmp_path / "b.yaml")


def test_without_recbole_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "recbole.model.abstract_recommender", None)
    recbole_model.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pip install 'graphcl\[recbole\]'"):
        recbole_model("sasrec")
