"""With RecBole 1.2.1 (`make test-recbole`): a model in each trainer, and equal metrics of equal scores."""

from __future__ import annotations

import doctest
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

# The files of RecBole alone, which other tests read data from, are not enough.
pytest.importorskip(
    "recbole.trainer", reason="RecBole is not importable: run `make test-recbole`", exc_type=ImportError
)
import recbole

from graphcl.errors import InputError
from graphcl.integrations.recbole import (
    load_recbole,
    read_recbole_settings,
    recbole_model,
    recbole_trainer,
    run_recbole,
)
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
    (folder / "tiny").mkdir(parents=True)
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


SHIPPED = Path(str(recbole.__file__)).parent / "properties"


@pytest.mark.parametrize(
    ("file", "model", "refused"),
    [
        ("overall", "SASRec", {"eval_args"}),  # a random order
        ("dataset/sample", "SASRec", set()),
        ("dataset/ml-100k", "SASRec", set()),
        ("quick_start_config/sequential", "SASRec", set()),
        ("quick_start_config/sequential_DIN", "SASRec", {"eval_args", "valid_metric"}),  # sampled candidates, AUC
        ("quick_start_config/sequential_DIN_on_ml-100k", "SASRec", set()),
        ("quick_start_config/sequential_embedding_model", "SASRec", set()),
        ("quick_start_config/special_sequential_on_ml-100k", "SASRec", set()),
        ("model/SASRec", "SASRec", set()),
        ("model/SASRec", "MCLRec", set()),
        ("model/GRU4Rec", "GRU4Rec", set()),
    ],
)
def test_shipped_settings_load_unless_they_change_a_number(file: str, model: str, refused: set[str]) -> None:
    found = set()
    for name, value in yaml.safe_load((SHIPPED / f"{file}.yaml").read_text(encoding="utf-8")).items():
        try:
            read_recbole_settings([], **{"model": model, "dataset": "ml-100k", name: value})
        except InputError:
            found.add(name)
    assert found == refused


@pytest.mark.parametrize("model", ["SASRec", "GRU4Rec"])
def test_shipped_files_describe_the_model_that_recbole_makes(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test"])
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.utils import get_model as recbole_class

    names = ("overall", f"model/{model}", "dataset/sample", "dataset/ml-100k", "quick_start_config/sequential")
    files = [SHIPPED / f"{name}.yaml" for name in names]
    pipeline, split, _ = load_recbole(files, model=model, dataset="ml-100k", data_path=SETTINGS["data_path"])
    config = Config(model, "ml-100k", config_dict={"train_neg_sample_args": None, "use_gpu": False})
    data = create_dataset(config)
    assert split.interactions.num_items == data.item_num - 1
    theirs = recbole_class(model)(config, data)
    ours = get_model(model.lower())(data.item_num - 1, pipeline.model_config)  # type: ignore[attr-defined]
    # Ours keeps queries, keys and values in one matrix.
    assert sum(weight.numel() for weight in ours.parameters()) == sum(weight.numel() for weight in theirs.parameters())
    assert pipeline.get_config()["dropout"] == (0.5 if model == "SASRec" else 0.3)


def test_files_beside_the_interactions_are_read_as_recbole_reads_them(in_folder: Path) -> None:
    from recbole.config import Config
    from recbole.data import create_dataset

    settings = tiny(in_folder)
    (in_folder / "tiny" / "tiny.item").write_text("item_id:token\n" + "".join(f"i{n}\n" for n in range(3, 20)))
    (in_folder / "tiny" / "tiny.user").write_text("user_id:token\n" + "".join(f"u{n}\n" for n in range(35)))
    given = {name: value for name, value in settings.items() if name != "neighbours"}
    every: dict[str, Any] = {"load_col": None}
    for more in (
        {},
        every,
        {**every, "filter_inter_by_user_or_item": False},
        {**every, "item_inter_num_interval": "[9,inf)", "user_inter_num_interval": "[6,inf)"},
        {"load_col": {"inter": "*", "item": ["item_id"]}},
    ):
        data = create_dataset(Config(recbole_model("sasrec"), "tiny", config_dict={**settings, **more}))
        log = load_recbole([], model="sasrec", dataset="tiny", **{**given, **more})[1].interactions
        assert (log.num_items, log.num_interactions) == (data.item_num - 1, len(data.inter_feat))


def test_recbole_s_names_set_the_sizes_of_gru4rec(in_folder: Path) -> None:
    sizes = {"embedding_size": 32, "hidden_size": 20, "num_layers": 2, "epochs": 1}
    model = run_recbole("gru4rec", "tiny", config={**tiny(in_folder), **sizes})["trainer"].model.model
    assert (model.config.hidden, model.config.inner, model.config.layers) == (32, 20, 2)


@pytest.mark.parametrize("name", ["sasrec", "sracl"])
def test_histories_are_cut_to_our_own_length(name: str, in_folder: Path) -> None:
    settings = {**tiny(in_folder), "epochs": 1}
    lengths = {"MAX_ITEM_LIST_LENGTH": 10, "max_length": 3}
    result = run_recbole(name, "tiny", config={**settings, **lengths})
    same = run_recbole(name, "tiny", config={**settings, "MAX_ITEM_LIST_LENGTH": 3})
    assert result["trainer"].model.model.config.max_length == 3
    assert result["test_result"] == same["test_result"]
    trainer = result["trainer"]
    trainer.config["MAX_ITEM_LIST_LENGTH"] = 10
    with pytest.raises(InputError, match="set MAX_ITEM_LIST_LENGTH to 3, or use run_recbole"):
        recbole_model(name)(trainer.config, result["test_data"].dataset)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("cl4srec", {"contrast_wieght": 0.9}, "did you mean 'contrast_weight'"),
        ("sasrec", {"hiden_size": 8}, "did you mean 'hidden_size'"),
        ("sasrec", {"loss_type": "BPR"}, "full softmax"),
        ("sasrec", {"train_neg_sample_args": {"distribution": "uniform"}}, "set train_neg_sample_args to None"),
    ],
)
def test_settings_that_would_be_lost_or_do_harm_are_refused(
    name: str, given: dict[str, Any], message: str, in_folder: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run_recbole(name, "tiny", config={**tiny(in_folder), **given})
    (in_folder / "more.yaml").write_text(yaml.safe_dump(given))
    settings = {key: value for key, value in tiny(in_folder / "x").items() if key not in given}
    with pytest.raises(InputError, match=message):
        run_recbole(name, "tiny", [in_folder / "more.yaml"], settings)


def test_settings_of_other_models_and_parts_are_not_taken_for_misspelt(in_folder: Path) -> None:
    # Of another model of ours, of models and transforms of RecBole, of our pipeline, and of the user's own.
    given = {"contrast_weight": 1, "mask_ratio": 0.2, "item_dropout": 0.1, "patience": 4, "my_part": 5}
    result = run_recbole("sasrec", "tiny", config={**tiny(in_folder), **given, "epochs": 1})
    assert result["test_result"]["hit@10"] >= 0


@pytest.mark.parametrize("function", [recbole_model, run_recbole, recbole_trainer], ids=lambda one: one.__name__)
def test_the_examples_run(function: Callable[..., Any], in_folder: Path) -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(function) or "")
    for example in examples:
        example.options.pop(doctest.SKIP, None)  # which the environment without RecBole needs
    names = dict(inspect.getmodule(function).__dict__)
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTest(examples, names, function.__name__, None, None, None))
    assert examples
    assert not runner.failures


def test_every_sequential_model_has_a_class() -> None:
    for name in list_models("sequential"):
        assert recbole_model(name).__name__.startswith("Graphcl")
