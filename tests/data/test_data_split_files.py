from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcl.data import (
    Interactions,
    Split,
    diagnose,
    find_published_split,
    hold_out_validation,
    load_dataset,
    read_json_split,
    read_labelled_split,
    read_text_split,
)
from graphcl.data.registry import InteractionRecipe
from graphcl.data.split_files import load_json, load_labelled, load_text
from graphcl.errors import InputError

ROWS = ["0\t5\t0", "0\t6\t2", "1\t6\t0", "1\t7\t1", "2\t5\t2"]


def labelled(folder: Path, rows: list[str], header: str = "userID\titemID\tx_label") -> Path:
    path = folder / "toy.inter"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def external(split: Split, part: int) -> list[tuple[int, int]]:
    rows = split.interactions
    chosen = split.part == part
    users = rows.user_ids.to_external(rows.user[chosen]).tolist()
    return list(zip(users, rows.item_ids.to_external(rows.item[chosen]).tolist(), strict=True))


def test_labels_are_the_split(tmp_path: Path) -> None:
    split = read_labelled_split(labelled(tmp_path, ROWS))
    assert external(split, 0) == [(0, 5), (1, 6)]
    assert external(split, 1) == [(1, 7)]
    assert external(split, 2) == [(0, 6), (2, 5)]
    assert split.protocol == "given by x_label"


def test_users_and_items_without_a_training_row_are_reported(tmp_path: Path) -> None:
    notes = read_labelled_split(labelled(tmp_path, ROWS)).interactions.report.notes
    assert notes == (
        "1 users have no training row, 1 of them have test rows",
        "1 items have no training row, 0 test rows are of them",
    )


def test_the_doctor_reads_a_published_split(tmp_path: Path) -> None:
    lines = diagnose(labelled(tmp_path, ROWS)).lines()
    assert any("1 users have no training row, 1 of them have test rows" in line for line in lines)
    assert any("(labelled)" in line for line in lines)


def test_words_and_other_names(tmp_path: Path) -> None:
    rows = ["a,x,train", "a,y,valid", "b,y,train", "b,x,test"]
    path = labelled(tmp_path, rows, "who,what,part").rename(tmp_path / "toy.csv")
    split = read_labelled_split(path, user="who", item="what", label="part")
    assert split.counts["valid"] == split.counts["test"] == 1
    assert split.interactions.user_ids.kind == "text"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0\t5\t0", "0\t6\t3"], "row 3, column 'x_label': unknown label '3'; use 0 for train"),
        (["0\t5\t0", "\t6\t2"], "row 3, column 'userID': user id is missing"),
        (["0\t5\t1", "0\t6\t2"], "there is no training row"),
        (["0\t5\t0", "0\t6\t1"], "there is no test row"),
        (["0\t5\t0", "0\t5\t2"], "user 0 and item 5 are both in train and in test; keep the pair in one part"),
    ],
)
def test_bad_tables_are_one_clear_line(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_labelled_split(labelled(tmp_path, rows))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_label_column_lists_the_columns(tmp_path: Path) -> None:
    path = labelled(tmp_path, ["0\t5\t0"], "userID\titemID\tlable")
    with pytest.raises(InputError, match=r"there is no label column; the columns are 'userID', 'itemID', 'lable'"):
        read_labelled_split(path)


def test_json_parts(tmp_path: Path) -> None:
    for name, text in (("train", '{"0": [5, 7], "10": [6], "2": []}'), ("val", '{"0": [6]}'), ("test", '{"10": [5]}')):
        (tmp_path / f"{name}.json").write_text(text)
    split = read_json_split(*(tmp_path / f"{name}.json" for name in ("train", "val", "test")))
    assert external(split, 0) == [(0, 5), (0, 7), (10, 6)]
    assert external(split, 1) == [(0, 6)]
    assert external(split, 2) == [(10, 5)]
    found = find_published_split(tmp_path)
    assert found is not None
    assert found.part.tolist() == split.part.tolist()
    assert load_dataset(tmp_path).split().protocol == "given by files"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "this is no JSON object from users to lists"),
        ('{"0": [5', "malformed JSON"),
        ('{"0": [5.5]}', "user '0' has an item that is no id"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        read_json_split(tmp_path / "train.json", None, tmp_path / "train.json")


def test_text_parts(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 5 7\n1 6\n2\n\n")
    (tmp_path / "test.txt").write_text("1 5\n0 6 \n")
    split = read_text_split(tmp_path / "train.txt", tmp_path / "test.txt")
    assert external(split, 0) == [(0, 5), (0, 7), (1, 6)]
    assert external(split, 2) == [(0, 6), (1, 5)]
    assert not (split.part == 1).any()


def test_a_table_with_labels_is_found_by_path(tmp_path: Path) -> None:
    dataset = load_dataset(labelled(tmp_path, ROWS))
    assert dataset.split().counts["train"] == 2
    (tmp_path / "log.csv").write_text("user,item\n1,2\n1,3\n1,4\n2,2\n")
    assert find_published_split(tmp_path / "log.csv") is None
    assert load_dataset(tmp_path / "log.csv").split().protocol == "leave-one-out"


def test_validation_is_held_out_by_user() -> None:
    log = Interactions.from_arrays([1] * 11 + [2] * 2, [*range(11), 0, 1])
    given = Split(log, np.array([0] * 10 + [2] + [0, 2], dtype=np.uint8), "given by files")
    split = hold_out_validation(given, 0.3, seed=4)
    assert split.counts["valid"] == 3
    assert split.counts["test"] == 2
    held = split.interactions.item[split.part == 1].tolist()
    assert hold_out_validation(given, 0.3, seed=4).interactions.item[split.part == 1].tolist() == held
    assert split.protocol.endswith("0.3 of each user's training rows held out for validation (seed 4)")
    with pytest.raises(ValueError, match="already has validation rows"):
        hold_out_validation(split)
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        hold_out_validation(given, 1.0)


def recipe(name: str, roles: list[str]) -> InteractionRecipe:
    files = [{"name": role, "role": role, "sha256": "0" * 64, "bytes": 1, "source": "here"} for role in roles]
    fields = {"name": "toy", "description": "", "licence": "", "format": name, "files": files, "split": "as-published"}
    return InteractionRecipe.model_validate(fields)


def test_recipes_of_every_format(tmp_path: Path) -> None:
    first = load_labelled(recipe("labelled", ["interactions"]), {"interactions": labelled(tmp_path, ROWS)})
    assert first.split().counts["train"] == 2
    for name, text in (("train", '{"0": [0, 1]}'), ("test", '{"0": [2]}')):
        (tmp_path / f"{name}.json").write_text(text)
    np.save(tmp_path / "image.npy", np.eye(3))
    paths = {"interactions": tmp_path / "train.json", "test": tmp_path / "test.json"}
    paths["item_features.image"] = tmp_path / "image.npy"
    second = load_json(recipe("json-split", ["interactions", "test"]), paths)
    assert second.item_features is not None
    assert second.item_features.modalities == ("image",)
    (tmp_path / "train.txt").write_text("0 5\n")
    (tmp_path / "test.txt").write_text("0 6\n")
    paths = {"interactions": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    assert load_text(recipe("text-split", ["interactions", "test"]), paths).split().counts["test"] == 1
