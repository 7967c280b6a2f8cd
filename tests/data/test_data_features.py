from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from scipy.sparse import csr_array, save_npz

from graphcl.data import IdMap, Incidence, ItemFeatures, read_item_features, read_item_incidence, table_features
from graphcl.errors import InputError

IDS = IdMap([2, 5, 9])
ROWS = np.arange(6.0).reshape(3, 2)


def check(features: ItemFeatures, name: str = "image") -> None:
    """Item 5 has row 0 and item 2 row 1; item 9 lacks the modality and item 7 is unknown."""
    assert features.vectors[name].tolist() == [[2.0, 3.0], [0.0, 1.0], [0.0, 0.0]]
    assert features.present[name].tolist() == [True, True, False]
    assert features.unknown[name] == 1


def test_every_format(tmp_path: Path) -> None:
    keys = np.array([5, 2, 7])
    np.savez(tmp_path / "a.npz", ids=keys, vectors=ROWS)
    save_file({"ids": keys, "vectors": ROWS}, tmp_path / "a.safetensors")
    save_file({"vectors": ROWS}, tmp_path / "b.safetensors", metadata={"ids": json.dumps([5, 2, 7])})
    listed = pl.DataFrame({"item": keys, "image": ROWS.tolist()})
    listed.write_parquet(tmp_path / "a.parquet")
    numbers = pl.DataFrame({"item": keys, "x": ROWS[:, 0], "y": ROWS[:, 1]})
    numbers.write_parquet(tmp_path / "b.parquet")
    numbers.write_csv(tmp_path / "a.csv")
    listed.write_ndjson(tmp_path / "a.jsonl")
    files = ["a.npz", "a.safetensors", "b.safetensors", "a.parquet", "b.parquet", "a.csv", "a.jsonl"]
    for source in [*(tmp_path / name for name in files), (keys, ROWS), listed, numbers]:
        check(read_item_features({"image": source}, IDS))


def test_row_numbers_are_item_ids(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.arange(20.0).reshape(10, 2))
    features = read_item_features(tmp_path / "image.npy", IDS)
    assert features.vectors["image"][:, 0].tolist() == [4.0, 10.0, 18.0]
    assert features.unknown["image"] == 7
    np.save(tmp_path / "short.npy", np.ones((6, 2)))
    short = read_item_features({"image": str(tmp_path / "short.npy")}, IDS)
    assert short.present["image"].tolist() == [True, True, False]


def test_several_modalities_in_one_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", ids=np.array([2, 9]), image=np.eye(2), text=np.ones((2, 5)))
    features = read_item_features(tmp_path / "both.npz", IDS)
    assert features.modalities == ("image", "text")
    named = read_item_features({"media": tmp_path / "both.npz"}, IDS)
    assert named.modalities == ("media.image", "media.text")
    assert features.without("image").modalities == ("text",)
    with pytest.raises(InputError, match="there is no modality 'audio'; use one of image, text"):
        features.without("audio")


def test_text_ids() -> None:
    ids = IdMap(["a", "b"])
    assert read_item_features({"x": (["b"], np.ones((1, 2)))}, ids).present["x"].tolist() == [False, True]
    with pytest.raises(InputError, match="rows without ids belong to integer item ids"):
        read_item_features({"x": np.ones((2, 2))}, ids)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pl.DataFrame({"item": [2, 5], "v": [[1.0, 2.0], [1.0]]}), "different widths: 2 in row 1, 1 in row 2"),
        (([2, 5], [[1.0, 2.0], [1.0]]), "different widths: 2 in row 1, 1 in row 2"),
        (([2, 2], np.ones((2, 2))), "item id 2 has two rows of features"),
        (([2, 5], np.array([[1.0, 2.0], [np.nan, 0.0]])), "features of item 5 hold a value that is missing"),
        (
            ([2, 5], np.array([[np.inf, 2.0], [1.0, 0.0]])),
            "features of item 2 hold a value that is missing or not",
        ),
        (([2], np.ones((2, 2))), "1 ids for 2 rows of features"),
        (([70, 71], np.ones((2, 2))), "no row of the 2 belongs to an item of the interactions; key them by item ids"),
        (([2, 5], np.array(["a", "b"])), "features must be numbers of shape"),
        (([2, 5], np.ones(2)), "features must be numbers of shape"),
        (pl.DataFrame({"item": [2], "t": ["red"]}), "column 't' holds String"),
        (pl.DataFrame({"item": [2], "n": [1.0], "v": [[1.0]]}), "both number columns and list columns"),
        (pl.DataFrame({"item": [2, 5], "n": [1.0, None]}), "features of item 5 hold a value that is missing"),
    ],
)
def test_bad_features_are_one_clear_line(source: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_item_features({"image": source}, IDS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"not numpy")
    with pytest.raises(InputError, match="no readable NumPy file"):
        read_item_features(tmp_path / "a.npy", IDS)
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="no readable NumPy file"):
        read_item_features(tmp_path / "pickled.npy", IDS)
    (tmp_path / "a.safetensors").write_bytes(b"12345678901234567890")
    with pytest.raises(InputError, match="no readable safetensors file"):
        read_item_features(tmp_path / "a.safetensors", IDS)
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"features cannot be read from \.pt files"):
        read_item_features(tmp_path / "a.pt", IDS)
    save_npz(tmp_path / "sparse.npz", csr_array(np.eye(2)))
    with pytest.raises(InputError, match="this is a sparse matrix"):
        read_item_features(tmp_path / "sparse.npz", IDS)
    with pytest.raises(InputError, match="there is no modality"):
        read_item_features({}, IDS)


def test_unknown_items_can_be_refused() -> None:
    with pytest.raises(InputError, match="features name the unknown item 7"):
        read_item_features({"image": ([2, 7], np.ones((2, 2)))}, IDS, on_unknown="raise")
    with pytest.raises(ValueError, match="on_unknown must be"):
        read_item_features({"image": ([2], np.ones((1, 2)))}, IDS, on_unknown="drop")  # type: ignore[arg-type]


def test_align_moves_rows_and_lists() -> None:
    features = read_item_features({"image": ([5, 9], np.array([[1.0], [2.0]]))}, IDS)
    lists = Incidence(np.array([0, 2]), np.array([1, 1]), 3)
    both = ItemFeatures(IDS, features.vectors, features.present, {"text": lists})
    moved = both.align(IdMap([1, 2, 9]))
    assert moved.vectors["image"].tolist() == [[0.0], [0.0], [2.0]]
    assert moved.present["image"].tolist() == [False, False, True]
    assert moved.incidence["text"].node.tolist() == [1, 2]
    assert both.align(IDS) is both
    assert moved.content_hash() != both.content_hash() == both.align(IDS).content_hash()
    with pytest.raises(InputError, match="no item of the features is in the catalogue"):
        both.align(IdMap([100]))


def test_published_neighbour_lists(tmp_path: Path) -> None:
    matrix = csr_array(np.array([[1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 2, 0]], dtype=np.float32))
    save_npz(tmp_path / "lists.npz", matrix)
    features = read_item_incidence(tmp_path / "lists.npz", IdMap([0, 2]), ["image", "text"])
    assert features.incidence["image"].node.tolist() == [0, 1]
    assert features.incidence["image"].hyperedge.tolist() == [0, 2]
    assert features.incidence["text"].hyperedge.tolist() == [0, 2, 1]
    assert features.unknown == {"image": 1, "text": 1}
    assert features.lines()[0] == "image: 2 neighbours, 2 of 2 items have some; 1 rows of unknown items left out"
    with pytest.raises(InputError, match="6 columns do not divide into 4 modalities"):
        read_item_incidence(tmp_path / "lists.npz", IdMap([0]), "abcd")
    np.savez(tmp_path / "dense.npz", a=np.eye(2))
    with pytest.raises(InputError, match="this is no SciPy sparse matrix"):
        read_item_incidence(tmp_path / "dense.npz", IdMap([0]), ["image"])


def test_attributes_become_modalities() -> None:
    frame = pl.DataFrame(
        {
            "item": [2, 5, 9],
            "genre": [["war", "drama"], ["drama"], ["war", "comedy"]],
            "title": ["The Big Sea", "Big Sea (again)", ""],
            "year": ["1990", "1991", "1960"],
        }
    )
    features = table_features(frame, IDS)
    assert features.modalities == ("genre", "title", "year")
    genre, title, year = (features.vectors[name] for name in features.modalities)
    assert genre.shape == (3, 2)  # comedy occurs once and can link nothing
    assert genre[0] @ genre[1] > 0 == genre[1] @ genre[2]
    assert features.present["title"].tolist() == [True, True, False]
    assert title[0] @ title[1] > 0
    unit = year / np.linalg.norm(year, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2]
    with pytest.raises(InputError, match="no column beside the item id"):
        table_features(frame.select("item"), IDS)


def test_unknown_items_join_when_asked_for() -> None:
    features = read_item_features(
        {"image": ([2, 7], np.eye(2)), "text": (["9", "8"], np.eye(2))}, IDS, on_unknown="join"
    )
    assert features.item_ids.external.tolist() == [2, 5, 7, 8, 9]
    assert features.present["image"].tolist() == [True, False, True, False, False]
    assert features.present["text"].tolist() == [False, False, False, True, True]
    by_row = read_item_features({"image": np.ones((12, 2))}, IDS, on_unknown="join")
    assert by_row.item_ids == IDS  # a row number names no item
    with pytest.raises(InputError, match="column 'text': no row of the 2 belongs to an item of the interactions"):
        read_item_features({"image": ([2, 7], np.eye(2)), "text": ([7, 8], np.eye(2))}, IDS, on_unknown="join")
