"""Bundles: tables, the published layout, sessions, parts, and what is wrong with bad files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.data import (
    Interactions,
    load_bundles,
    load_dataset,
    load_graph,
    read_bundle_folder,
    read_bundles,
    session_bundles,
    sorted_bundles,
    split_bundles,
    synthetic_bundles,
)
from graphcl.errors import InputError


def write_tables(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = ["outfit,product"]
    for bundle in range(30):
        rows += [f"o{bundle},p{item}" for item in rng.choice(20, 5, replace=False)]
    (folder / "outfits.csv").write_text("\n".join(rows) + "\n")
    clicks = [f"u{rng.integers(9)},p{rng.integers(22)}" for _ in range(80)]
    (folder / "clicks.csv").write_text("user,product\n" + "\n".join(clicks) + "\n")
    pl.DataFrame({"item": [f"p{n}" for n in range(20)], "colour": ["red", "blue"] * 10}).write_csv(folder / "items.csv")
    return folder / "outfits.csv"


def test_tables_share_one_catalogue(tmp_path: Path) -> None:
    table = write_tables(tmp_path)
    bundles = read_bundles(
        table, item="product", interactions=tmp_path / "clicks.csv", features=tmp_path / "items.csv", seed=1
    )
    assert bundles.num_bundles == 30
    assert bundles.log is not None
    assert bundles.log.item_ids == bundles.item_ids
    assert bundles.features is not None
    assert bundles.features.modalities == ("colour",)
    again = read_bundles(
        table, item="product", interactions=tmp_path / "clicks.csv", features=tmp_path / "items.csv", seed=1
    )
    assert bundles.content_hash() == again.content_hash()
    assert bundles.content_hash() != read_bundles(table, item="product").content_hash()


def test_parts_are_apart_and_hide_half() -> None:
    bundles = synthetic_bundles(100, 60, 20, styles=5)
    test = bundles.partial("test")
    assert test.bundles.size == 20
    sizes = bundles.sizes[test.bundles]
    shown, hidden = np.diff(test.shown[0]), np.diff(test.hidden[0])
    assert (shown + hidden == sizes).all()
    assert (np.abs(shown - hidden) <= 1).all()
    for row, bundle in enumerate(test.bundles):
        visible = test.shown[1][test.shown[0][row] : test.shown[0][row + 1]]
        found = test.hidden[1][test.hidden[0][row] : test.hidden[0][row + 1]]
        whole = bundles.table.item[bundles.table.user == bundle]
        assert sorted([*visible, *found]) == sorted(whole)
    train = set(np.flatnonzero(bundles.part == 0))
    assert not train & set(test.bundles) | (set(bundles.partial("valid").bundles) & set(test.bundles))
    assert bundles.training[0][-1] == bundles.sizes[bundles.part == 0].sum()


def test_repeated_rows_count_once_and_order_stays() -> None:
    bundles = sorted_bundles(Interactions.from_arrays([1, 0, 1, 1, 0], [9, 4, 9, 3, 2]))
    assert bundles.table.user.tolist() == [0, 0, 1, 1]
    assert bundles.item_ids.external[bundles.table.item].tolist() == [4, 2, 9, 3]


def test_holes_in_features_and_feedback() -> None:
    bundles = synthetic_bundles(50, 60, 30, styles=5)
    holed = bundles.without_features(0.5, seed=1)
    assert holed.features is not None
    for name, rows in holed.features.vectors.items():
        assert 0.2 < holed.features.present[name].mean() < 0.8
        assert not rows[~holed.features.present[name]].any()
    assert holed.interacted.sum() < bundles.interacted.sum()
    assert bundles.without_features(0.0).content_hash() == bundles.content_hash()


def test_sessions_become_bundles_of_users_who_give_no_feedback() -> None:
    user = np.repeat(np.arange(40), 12)
    time = np.tile(np.r_[np.arange(6), 5000 + np.arange(6)], 40)
    log = Interactions.from_arrays(user, (user * 7 + np.tile(np.arange(12), 40)) % 50, time=time, value=time * 0 + 4.0)
    bundles = session_bundles(log, gap=100, min_items=4, max_items=5, makers=0.5)
    # Two sessions of six items each; the sixth item of a session is too little for a bundle of its own.
    assert bundles.num_bundles == 40
    assert (bundles.sizes == 5).all()
    assert bundles.log is not None
    assert np.unique(bundles.log.user).size == 20
    with pytest.raises(InputError, match="sessions need times"):
        session_bundles(Interactions.from_arrays(user, user))
    with pytest.raises(InputError, match="no session is long enough"):
        session_bundles(log, gap=100, min_items=9)


def write_published(folder: Path) -> Path:
    (folder / "count.json").write_text(json.dumps({"#U": 4, "#B": 6, "#I": 8}))
    (folder / "ui_full.txt").write_text("0, 1, 2\n1, 3\n3, 7, 0\n")
    (folder / "bi_train.txt").write_text("0, 1, 2, 3\n1, 4, 5\n2, 6, 7, 1\n")
    for part, bundle in (("valid", 3), ("test", 4)):
        (folder / f"bi_{part}_input.txt").write_text(f"{bundle}, 0, 1\n")
        (folder / f"bi_{part}_gt.txt").write_text(f"{bundle}, 2, 5\n")
    np.save(folder / "content_feature.npy", np.random.default_rng(0).random((8, 3)))
    np.save(folder / "item_cf_feature.npy", np.random.default_rng(1).random((8, 4)))
    return folder


def test_published_layout(tmp_path: Path) -> None:
    bundles = read_bundle_folder(write_published(tmp_path))
    assert bundles.counts() == {
        "bundles": 6, "items": 8, "affiliations": 16, "users": 4, "interactions": 5, "train": 4, "valid": 1, "test": 1,
    }  # fmt: skip
    assert bundles.partial("test").hidden[1].tolist() == [2, 5]
    assert bundles.training[1].tolist() == [1, 2, 3, 4, 5, 6, 7, 1]
    assert bundles.features is not None
    assert bundles.features.modalities == ("content",)
    assert bundles.vectors is not None
    assert bundles.vectors.shape == (8, 4)
    assert load_bundles(tmp_path).protocol == "as published"


def test_faults_of_the_published_layout(tmp_path: Path) -> None:
    folder = write_published(tmp_path)
    (folder / "bi_train.txt").write_text("0, 1, 2\n1, 9\n")
    with pytest.raises(InputError, match=r"bi_train.txt, row 2: item 9 is outside 0..7; mend the line or count.json"):
        read_bundle_folder(folder)
    (folder / "bi_train.txt").write_text("0, one\n")
    with pytest.raises(InputError, match="row 1: not a list of ids"):
        read_bundle_folder(folder)
    write_published(folder)
    (folder / "item_cf_feature.npy").unlink()
    (folder / "item_cf_feature.pt").write_bytes(b"pickle")
    with pytest.raises(InputError, match="is a pickle, which can run code"):
        read_bundle_folder(folder)
    (folder / "count.json").write_text("{}")
    with pytest.raises(InputError, match="numbers #U, #B and #I"):
        read_bundle_folder(folder)
    (folder / "count.json").unlink()
    with pytest.raises(InputError, match="there is no such file"):
        load_bundles(folder)


def test_faults_of_tables(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no bundle column was recognised among 'a', 'b'"):
        read_bundles(table)
    table.write_text("bundle,item\n1,2\n1,\n")
    with pytest.raises(InputError, match=r"t.csv, row 3"):
        read_bundles(table)
    table.write_text("bundle,item\n1,2\n1,3\n")
    with pytest.raises(InputError, match="no bundle is left for the valid part"):
        read_bundles(table)
    made = synthetic_bundles(50, 60, 20, styles=5)
    with pytest.raises(InputError, match="are no shares"):
        split_bundles(made, (0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="4 items a style"):
        synthetic_bundles(50, 10, 20, styles=5)


def test_names_know_their_kind() -> None:
    assert load_bundles("synthetic-bundles", num_bundles=50).num_bundles == 50
    with pytest.raises(InputError, match="unknown option 'num_bundle'; did you mean 'num_bundles'"):
        load_bundles("synthetic-bundles", num_bundle=5)
    with pytest.raises(InputError, match="an option of synthetic-bundles does not fit"):
        load_bundles("synthetic-bundles", num_bundles="many")
    with pytest.raises(InputError, match="did you mean 'synthetic-bundles'"):
        load_bundles("synthetic-bundle")
    with pytest.raises(InputError, match="holds bundles, not a log"):
        load_dataset("synthetic-bundles")
    with pytest.raises(InputError, match="holds bundles, not a graph"):
        load_graph("synthetic-bundles")
