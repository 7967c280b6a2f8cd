"""With RecBole 1.2.1 (`make test-recbole`): a model in each trainer, and equal metrics of equal scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# The files of RecBole alone, which other tests read data from, are not enough.
pytest.importorskip(
    "recbole.trainer", reason="RecBole is not importable: run `make test-recbole`", exc_type=ImportError
)
import recbole

from graphcl.errors import InputError
from graphcl.integrations.recbole import load_recbole, recbole_model, run_recbole
from graphcl.metrics import rank_of_targets, ranking_metrics
from graphcl.models import get_model, list_models

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


def tiny(folder: Path) -> dict[str, Any]:
    """A data set of forty users in RecBole's format, and settings for it."""
    (folder / "tiny").mkdir()
    rng = np.random.default_rng(0)
    rows = [f"u{u}\ti{(u * 3 + t * (1 + u % 2)) % 17}\t{t}" for u in range(40) for t in range(4 + int(rng.integers(9)))]
    rng.shuffle(rows)
    (folder / "tiny" / "tiny.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    )
    own = {"data_path": str(folder), "train_batch_size": 64, "MAX_ITEM_LIST_LENGTH": 5, "neighbours": 3, "epochs": 2}
    return {**SETTINGS, **IN_RECBOLE, **own, "checkpoint_dir": str(folder), "save_dataset": False}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    return tmp_path


CONTRASTIVE = ("cl4srec", "duorec", "mclrec", "sracl")


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_contrastive_terms_take_part(name: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, float]] = []
    model_class = get_model(name, task="sequential")
    objective = "encoder_objective" if name == "mclrec" else "objective"
    plain = getattr(model_class, objective)

    def watched(self: Any, *given: Any) -> Any:
        loss, parts = plain(self, *given)
        seen.append({"loss": float(loss.detach()), **{part: float(value) for part, value in parts.items()}})
        return loss, parts

    monkeypatch.setattr(model_class, objective, watched)
    result = run_recbole(name, "tiny", config=tiny(in_folder))
    assert 0 <= result["test_result"]["ndcg@10"] <= 1
    expected = {
        "cl4srec": {"contrast"}, "duorec": {"contrast"}, "mclrec": {"meta_contrast", "regularizer"},
        "sracl": {"user_contrast", "item_contrast"},
    }[name]  # fmt: skip
    assert seen
    for parts in seen:
        assert expected <= parts.keys()
        assert sum(abs(parts[part]) for part in expected) > 0
        assert parts["loss"] != pytest.approx(parts["cross_entropy"], rel=1e-6)
    if name == "mclrec":  # the augmenters learn, by steps of their own
        trained = result["trainer"].model.model
        fresh = model_class(trained.num_items, trained.config, generator=torch.Generator().manual_seed(0))
        for group in ("encoder", "augmenters"):
            pairs = zip(getattr(trained, group).parameters(), getattr(fresh, group).parameters(), strict=True)
            assert any(not torch.equal(one, other) for one, other in pairs)


def test_batches_are_those_of_recbole(in_folder: Path) -> None:
    result = run_recbole("duorec", "tiny", config={**tiny(in_folder), "epochs": 1})
    model = result["trainer"].model
    from recbole.data import create_dataset, data_preparation

    train, _, _ = data_preparation(result["trainer"].config, create_dataset(result["trainer"].config))
    model = recbole_model("duorec")(result["trainer"].config, train.dataset)
    partners = 0
    for interaction in train:
        batch = model.batch_of(interaction)
        items, lengths = interaction[model.ITEM_SEQ], interaction[model.ITEM_SEQ_LEN]
        assert torch.equal(batch.targets, interaction[model.POS_ITEM_ID])
        assert torch.equal(batch.contrast.rows.lengths, lengths)
        assert torch.equal(batch.contrast.rows.items, items[:, : batch.contrast.rows.items.shape[1]])
        found, sizes = batch.sequences.padded()
        assert torch.equal(sizes, lengths)
        assert torch.equal(found, batch.contrast.rows.items)
        other = batch.contrast.same_target
        partners += int((other.lengths != lengths).sum())
    assert partners > 0
    loss = model.calculate_loss(interaction)
    assert float(loss.detach()) > 0


def test_what_cannot_be_trained_in_recbole_is_refused(in_folder: Path) -> None:
    settings = tiny(in_folder)
    joint = run_recbole("mclrec", "tiny", config={**settings, "schedule": "joint", "epochs": 1})
    trainer = joint["trainer"]
    assert not trainer.groups
    from recbole.data import create_dataset, data_preparation

    train, _, _ = data_preparation(trainer.config, create_dataset(trainer.config))
    trainer.config["schedule"] = "three_step"
    model = recbole_model("mclrec")(trainer.config, train.dataset)
    with pytest.raises(InputError, match="set schedule to joint"):
        model.calculate_loss(next(iter(train)))
    with pytest.raises(InputError, match="no table of items"):
        run_recbole("sracl", "tiny", config={**settings, "semantics": "attributes"})


def test_vectors_of_a_file_are_keyed_by_external_id(in_folder: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((17, 4)).astype(np.float32)
    np.savez(in_folder / "llm.npz", ids=np.array([f"i{n}" for n in range(17)]), vectors=vectors)
    settings = {**tiny(in_folder), "semantics": str(in_folder / "llm.npz"), "epochs": 1}
    result = run_recbole("sracl", "tiny", config=settings)
    model, data = result["trainer"].model, result["test_data"].dataset
    tokens = [str(token) for token in data.id2token(data.iid_field, np.arange(1, 18))]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    own = np.stack([unit[int(token[1:])] for token in tokens])
    nearest = (own @ own.T - 2 * np.eye(17)).argmax(1) + 1
    assert model.model.item_neighbours[1:, 0].tolist() == nearest.tolist()


def test_every_sequential_model_has_a_class() -> None:
    for name in list_models("sequential"):
        assert recbole_model(name).__name__.startswith("Graphcl")
