"""HTCL end to end: mining, both stages, cold items, the collaborative pipeline fed with its vectors, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graphcl.cli.app import run
from graphcl.data import Interactions, Split, read_item_features
from graphcl.data.splits import TEST, TRAIN, VALID
from graphcl.errors import InputError
from graphcl.pipelines import CollaborativeRecommender, ItemAligner, SequentialRecommender, load_pipeline
from graphcl.pipelines.preference_pairs import AlignmentSource, mine_preferences

QUICK: dict[str, Any] = {
    "epochs": 6, "semantic_epochs": 2, "batch_size": 32, "hidden": 8, "inner": 16, "progress": False,
}  # fmt: skip
ITEMS, GROUPS = 40, 4


def tasteful_log() -> Split:
    """Users like the items of a group; the last ten items are for validation and test alone."""
    generator = np.random.default_rng(0)
    users: list[int] = []
    items: list[int] = []
    for number in range(60):
        own = np.flatnonzero(np.arange(ITEMS) % GROUPS == number % GROUPS)
        chosen = generator.permutation(own)[:7]
        users += [number] * chosen.size
        items += chosen.tolist()
    user, item = np.array(users), np.array(items)
    part = np.where(item < 30, TRAIN, np.where(item < 35, VALID, TEST)).astype(np.uint8)
    order = np.lexsort((part, user))
    return Split(Interactions.from_arrays(user[order], item[order]), part[order], "whole items")


def media() -> dict[str, Any]:
    """Pictures that show the group among noise, texts that say something else."""
    generator = np.random.default_rng(1)
    group = np.eye(GROUPS)[np.arange(ITEMS) % GROUPS]
    picture = np.hstack([group, 1.5 * generator.standard_normal((ITEMS, 6))])
    return {"picture": (np.arange(ITEMS), picture), "text": (np.arange(ITEMS), generator.random((ITEMS, 5)))}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[ItemAligner, Path]:
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {**QUICK, "epochs": 30, "learning_rate": 0.01, "item_modalities": ["picture"], "pairs_per_item": 8}
    return ItemAligner("htcl", **settings).fit(tasteful_log(), out, item_features=media()), out


def test_second_stage_finds_groups_of_items_that_nobody_met(fitted: tuple[ItemAligner, Path]) -> None:
    aligner, _ = fitted
    settings = {**QUICK, "epochs": 10, "semantic_epochs": 10, "learning_rate": 0.01, "item_modalities": ["picture"]}
    first = ItemAligner("htcl", **settings).fit(tasteful_log(), item_features=media())
    group = np.arange(ITEMS) % GROUPS

    def agreement(vectors: np.ndarray[Any, Any]) -> float:
        """How often the nearest met item of an unmet one is of its group."""
        nearest = (vectors[30:] @ vectors[:30].T).argmax(1)
        return float((group[nearest] == group[30:]).mean())

    assert agreement(aligner.embed("items").vectors) > agreement(first.embed("items").vectors)
    assert agreement(aligner.embed("items").vectors) >= 0.7


def test_vectors_serve_as_item_features(fitted: tuple[ItemAligner, Path], tmp_path: Path) -> None:
    aligner, out = fitted
    assert run(["embed", str(out), "--out", str(tmp_path / "items.npz")]) == 0
    split = tasteful_log()
    features = read_item_features({"htcl": tmp_path / "items.npz"}, split.interactions.item_ids)
    np.testing.assert_allclose(features.vectors["htcl"], aligner.embed("items").vectors)
    given = {"epochs": 1, "hidden": 4, "neighbours": 3, "progress": False}
    recommender = CollaborativeRecommender("mmhcl", **given).fit(split, item_features=features)
    assert recommender.evaluate("test").protocol["modalities"].startswith("htcl")
    settings = {"epochs": 1, "hidden": 8, "max_length": 6, "progress": False, "accelerator": "cpu"}
    sequential = SequentialRecommender("sracl", **settings).fit(split, item_features=features)
    assert np.isfinite(list(sequential.evaluate("test").metrics.to_dict().values())).all()


def test_saved_run_measures_and_serves_alike(fitted: tuple[ItemAligner, Path]) -> None:
    aligner, out = fitted
    loaded = load_pipeline(out)
    assert isinstance(loaded, ItemAligner)
    saved = json.loads((out / "metrics.json").read_text())
    measured = loaded.evaluate("test")
    assert {name: saved["test"][name] for name in measured.metrics.to_dict()} == measured.metrics.to_dict()
    assert measured.protocol["item modalities"] == "picture"
    assert loaded.recommend([3], 4).equals(aligner.recommend([3], 4))
    assert loaded.semantic_recall((40,))[40] == 1.0


def test_mining_is_that_of_sets() -> None:
    log = Interactions.from_arrays([0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 3, 1, 2], value=[5.0, 5, 1, 4, 5, 2, 5, 4])
    pairs = mine_preferences(log, neighbours=2, liked=4, disliked=2)
    # Admirers: item 0 {0, 1}, item 1 {0, 1, 2}, item 2 {2}, item 3 nobody.
    found = {
        (anchor, int(pairs.neighbours[place])): float(pairs.similarity[place])
        for anchor in range(4)
        for place in range(pairs.offsets[anchor], pairs.offsets[anchor + 1])
    }
    assert found == pytest.approx({(0, 1): 2 / 6**0.5, (1, 0): 2 / 6**0.5, (1, 2): 1 / 3**0.5, (2, 1): 1 / 3**0.5})
    assert pairs.disliked is not None
    assert pairs.disliked.toarray().astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_steps_of_both_stages() -> None:
    split = tasteful_log()
    pairs = mine_preferences(split.train, neighbours=5)
    usable = np.ones(ITEMS, dtype=np.bool_)
    usable[4] = False
    source = AlignmentSource(pairs, np.arange(20), 16, 3, 1, 2, 1, usable)
    first = list(source.batches(0))
    assert sorted(torch.cat([batch.items for batch in first]).tolist()) == list(range(20))
    assert sum(batch.total for batch in first) == pytest.approx(source.num_targets)
    second = list(source.batches(1))
    assert sum(batch.total for batch in second) == source.num_targets
    for batch in second:
        assert batch.anchors is not None
        assert batch.positives is not None
        assert batch.excluded is not None
        assert bool((batch.anchors % GROUPS == batch.positives % GROUPS).all())
        assert not bool(((batch.anchors == 4) | (batch.positives == 4)).any())
        assert set(batch.items.tolist()) <= set(range(20)) & set(batch.anchors.tolist())
        admirers = pairs.admirers.toarray()
        for row, anchor in enumerate(batch.anchors.tolist()):
            span = batch.excluded[1][batch.excluded[0][row] : batch.excluded[0][row + 1]].tolist()
            positive = int(batch.positives[row])
            others = batch.positives.tolist()
            expected = [
                column
                for column, other in enumerate(others)
                if column != row and (admirers[anchor, other] >= 1 or other in (anchor, positive))
            ]
            assert span == expected


def test_dislikes_give_negatives() -> None:
    log = Interactions.from_arrays([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 3], value=[5.0, 5, 1, 4, 5, 2])
    pairs = mine_preferences(log, liked=4, disliked=2)
    source = AlignmentSource(pairs, np.arange(4), 4, 0, 0, 4, 1, np.ones(4, dtype=np.bool_))
    (one, *_) = list(source.batches(0))
    assert one.negatives is not None
    assert set(one.negatives.tolist()) <= {2, 3}


def test_command_line_and_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = tasteful_log()
    with pytest.raises(InputError, match="there are no item features"):
        ItemAligner("htcl", **QUICK).fit(split)
    with pytest.raises(InputError, match="item_modalities: there is no modality 'audio'; use one of picture, text"):
        ItemAligner("htcl", **{**QUICK, "item_modalities": ["audio"]}).fit(split, item_features=media())
    with pytest.raises(InputError, match="semantic_epochs 9 is above epochs 6"):
        ItemAligner("htcl", **{**QUICK, "semantic_epochs": 9})
    with pytest.raises(InputError, match="no two items with features please one user"):
        ItemAligner("htcl", **{**QUICK, "liked": 9.0}).fit(
            Interactions.from_arrays([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 3], value=np.ones(6)), item_features=media()
        )
    log = split.interactions
    table = tmp_path / "log.csv"
    rows = "\n".join(f"{user},{item},{time}" for time, (user, item) in enumerate(zip(log.user, log.item, strict=True)))
    table.write_text(f"user,item,time\n{rows}\n")
    for name, (ids, values) in media().items():
        np.savez(tmp_path / f"{name}.npz", ids=ids, rows=values)
    files = f"item_features={{picture: {tmp_path}/picture.npz, text: {tmp_path}/text.npz}}"
    arguments = ["train", "htcl", "--data", str(table), "--out", str(tmp_path / "run"), "--set", files]
    settings = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]
    assert run([*arguments, *settings]) == 0
    assert "item to text R" in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()
    assert run(["train", "htcl", "--data", str(table), "--out", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "other").exists()
