"""RecBole's YAML and atomic files without RecBole: what they mean here, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcl.errors import InputError, MissingPackageError
from graphcl.integrations.recbole import load_recbole, read_recbole_settings, recbole_model
from graphcl.pipelines import SequentialRecommender, create_pipeline

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
        ({"train_neg_sample_args": {"distribution": "popularity"}}, "leave negative sampling out"),
        ({"clip_grad_norm": {"max_norm": 5}}, "clips no gradients"),
        ({"shuffle": False}, "shuffles its rows"),
        ({"transform": "mask_itemseq"}, "set it to null"),
        ({"benchmark_filename": ["train", "valid", "test"]}, "join the files"),
        ({"alias_of_item_id": ["item_id_list"]}, "set it to null"),
        ({"encoding": "latin-1"}, "UTF-8"),
        ({"eval_step": 2}, "validate after every epoch"),
        ({"stopping_step": "ten"}, "give a whole number"),
        ({"unload_col": {"inter": ["timestamp"]}}, "take it out of unload_col"),
        ({"load_col": ["user_id"]}, r"write load_col: \{inter:"),
        ({"model": "LightGCN", "require_pow": False}, "takes squares"),
        ({"model": "CL4SRec", "encoder": "gru5rec"}, "did you mean 'gru4rec'"),
    ],
)
def test_what_has_no_counterpart_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recbole_settings([], **{"model": "SASRec", "dataset": "x", **more})


# Excerpts of the files that RecBole 1.2.1 ships; test_recbole_environment.py reads the files themselves.
OVERALL: dict[str, Any] = {
    "gpu_id": "0", "worker": 0, "seed": 2020, "state": "INFO", "data_path": "dataset/", "dataset_save_path": None,
    "wandb_project": "recbole", "shuffle": True, "epochs": 300, "train_batch_size": 2048, "learner": "adam",
    "train_neg_sample_args": {
        "distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0,
    },
    "eval_step": 1, "stopping_step": 10, "clip_grad_norm": None, "weight_decay": 0.0, "loss_decimal_place": 4,
    "require_pow": False, "enable_amp": False, "enable_scaler": False, "transform": None,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "user", "order": "RO", "mode": "full"},
    "repeatable": False, "metrics": ["Recall", "MRR"], "topk": [10], "valid_metric": "MRR@10",
}  # fmt: skip
ML_100K: dict[str, Any] = {
    "field_separator": "\t", "seq_separator": " ", "USER_ID_FIELD": "user_id", "seq_len": None, "threshold": None,
    "HEAD_ENTITY_ID_FIELD": "head_id", "kg_reverse_r": False, "entity_kg_num_interval": None,
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]}, "unload_col": None, "unused_col": None,
    "rm_dup_inter": None, "val_interval": None, "filter_inter_by_user_or_item": True,
    "user_inter_num_interval": None, "alias_of_user_id": None, "alias_of_entity_id": None, "preload_weight": None,
    "normalize_field": None, "normalize_all": True, "MAX_ITEM_LIST_LENGTH": 50,
}  # fmt: skip
SEQUENTIAL: dict[str, Any] = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}, "repeatable": True,
}  # fmt: skip
SASREC: dict[str, Any] = {
    "n_layers": 2, "n_heads": 2, "hidden_size": 64, "inner_size": 256, "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "initializer_range": 0.02,
    "loss_type": "CE",
}  # fmt: skip
GRU4REC: dict[str, Any] = {
    "embedding_size": 64, "hidden_size": 128, "num_layers": 1, "dropout_prob": 0.3, "loss_type": "CE",
}  # fmt: skip


@pytest.mark.parametrize(("model", "own"), [("SASRec", SASREC), ("GRU4Rec", GRU4REC)])
def test_what_recbole_ships_loads(model: str, own: dict[str, Any]) -> None:
    for name, value in (ML_100K | SEQUENTIAL | own | {**OVERALL, "eval_args": None}).items():
        read_recbole_settings([], **{"model": model, "dataset": "ml-100k", name: value})
    found = read_recbole_settings([], model=model, dataset="ml-100k", **(OVERALL | own | ML_100K | SEQUENTIAL))
    assert {"seq_len", "threshold", "wandb_project", "kg_reverse_r", "normalize_all"} <= set(found.listed)
    assert found.ratios is None
    config = create_pipeline(found.model, found.settings).get_config()
    expected = {"epochs": 300, "batch_size": 2048, "patience": 11, "metric": "MRR@10", "seen": "keep", "seed": 2020}
    assert {name: config[name] for name in expected} == expected
    with pytest.raises(InputError, match=r"order 'RO' has no counterpart; use TO"):
        read_recbole_settings([], model=model, dataset="ml-100k", **OVERALL)


@pytest.mark.parametrize(
    ("model", "given", "meant", "listed"),
    [
        ("GRU4Rec", {"embedding_size": 32, "hidden_size": 100}, {"hidden": 32, "inner": 100}, ()),
        ("GRU4Rec", {"hidden_size": 100, "num_layers": 2}, {"inner": 100, "layers": 2}, ()),
        ("GRU4Rec", {"dropout_prob": 0.1, "hidden_dropout_prob": 0.4, "n_heads": 2}, {"dropout": 0.1},
         ("hidden_dropout_prob", "n_heads")),
        ("CL4SRec", {"encoder": "gru4rec", "embedding_size": 32, "hidden_size": 100},
         {"encoder": "gru4rec", "hidden": 32, "inner": 100}, ()),
        ("SASRec", {"embedding_size": 32, "hidden_size": 100, "num_layers": 3}, {"hidden": 100},
         ("embedding_size", "num_layers")),
        ("SASRec", {"hidden_size": 100, "hidden": 20, "attention_dropout": None},
         {"hidden": 20, "attention_dropout": None}, ()),
        ("SASRec", {"repeatable": False, "seq_len": None}, {"seen": "exclude"}, ("seq_len",)),
        ("LightGCN", {"embedding_size": 32, "hidden_size": 100, "repeatable": False, "eval_step": 2,
         "stopping_step": 4},
         {"hidden": 32, "seen": "exclude", "mask": "all_known", "validate_every": 2, "patience": 10},
         ("hidden_size",)),
    ],
)  # fmt: skip
def test_a_name_means_what_it_means_to_the_model(
    model: str, given: dict[str, Any], meant: dict[str, Any], listed: tuple[str, ...]
) -> None:
    found = read_recbole_settings([], model=model, dataset="x", **given)
    assert (found.settings, found.listed) == (meant, listed)
    create_pipeline(found.model, found.settings)


def test_our_own_settings_stand_beside_those_of_recbole(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "hidden_size: 32\ncontrast_weight: 0.2\nschedule: two_stage\nencoder: sasrec\n"
        "weight_average: 0\nseen: exclude\n"
    )
    found = read_recbole_settings(tmp_path / "run.yaml", model="mclrec", dataset="x")
    config = create_pipeline("mclrec", found.settings).get_config()
    expected = {"hidden": 32, "contrast_weight": 0.2, "schedule": "two_stage", "weight_average": 0.0, "seen": "exclude"}
    assert {name: config[name] for name in expected} == expected
    found = read_recbole_settings([], model="sracl", dataset="x", semantics="llm.npz", alpha=0.3)
    assert found.settings == {"semantics": "llm.npz", "user_weight": 0.3}
    with pytest.raises(
        InputError, match="contrast_weight is a setting of cl4srec, duorec, mclrec, not of sasrec; leave"
    ):
        read_recbole_settings(tmp_path / "run.yaml", model="sasrec", dataset="x")
    with pytest.raises(InputError, match="did you mean 'contrast_weight'"):
        read_recbole_settings([], model="mclrec", dataset="x", contrast_wieght=0.9)


def test_rows_and_items_are_those_that_the_files_beside_name(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [f"u{user}\ti{(user + step) % 6}\t{step}" for user in range(6) for step in range(4)]
    (folder / "shop.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n")
    (folder / "shop.item").write_text("\n".join(["item_id:token", *(f"i{n}" for n in (0, 1, 2, 3, 4, 7, 8))]) + "\n")
    (folder / "shop.user").write_text("\n".join(["user_id:token", *(f"u{n}" for n in range(5))]) + "\n")
    given: dict[str, Any] = {"model": "SASRec", "dataset": "shop", "data_path": str(tmp_path)}

    def sizes(**more: Any) -> tuple[int, int, int]:
        log = load_recbole([], **given, **more)[1].interactions
        return log.num_users, log.num_items, log.num_interactions

    assert sizes() == sizes(load_col={"inter": ["user_id", "item_id", "timestamp"]}) == (6, 6, 24)
    # User u5 and item i5, of users 2 to 5, are not named; i7 and i8 have no interactions.
    assert sizes(load_col=None) == (5, 7, 20 - 3)
    assert sizes(load_col={"inter": "*", "item": ["item_id"]}) == (6, 7, 24 - 4)
    assert sizes(load_col=None, filter_inter_by_user_or_item=False) == (6, 8, 24)
    assert sizes(load_col=None, item_inter_num_interval="[1,inf)") == (5, 5, 20 - 3)
    (folder / "shop.user").write_text("user_id:token\nann\n")
    with pytest.raises(InputError, match=r"shop.user: names no user of .*shop.inter; set filter_inter"):
        sizes(load_col=None)


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
