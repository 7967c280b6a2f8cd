"""Queries and labels: the extreme classification format, sparse rows, the generator, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphcl.data import (
    LabelledQueries,
    RetrievalData,
    SparseRows,
    dataset_info,
    load_dataset,
    load_graph,
    load_retrieval,
    read_extreme_folder,
    read_extreme_text,
    read_sparse_rows,
    synthetic_tags,
)
from graphcl.errors import InputError

TRAIN = "4 5 3\n0,2 0:1.5 4:2\n 1:0.5\n1\n\n"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_rows_of_the_format(tmp_path: Path) -> None:
    queries = read_extreme_text(written(tmp_path, "train.txt", TRAIN))
    assert isinstance(queries.features, SparseRows)
    assert queries.features.width == 5
    assert queries.features.offsets.tolist() == [0, 2, 3, 3, 3]
    assert queries.features.columns.tolist() == [0, 4, 1]
    assert queries.features.values.tolist() == [1.5, 2.0, 0.5]
    assert queries.labels.offsets.tolist() == [0, 2, 2, 3, 3]
    assert queries.labels.columns.tolist() == [0, 2, 1]
    assert queries.labels.width == 3
    # Without the leading space, and with a repeated label and Windows line ends.
    again = read_extreme_text(written(tmp_path, "other.txt", "2 5 3\r\n1:0.5\r\n2,2,0 4:1e-1\r\n"))
    assert again.labels.offsets.tolist() == [0, 0, 2]
    assert again.labels.columns.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4 5\n", "row 1: the first row is not a header N D L"),
        ("", "the file is empty"),
        ("1 5 3\n0,x 0:1\n", "row 2: 'x' is not a label; write whole numbers from 0 up"),
        ("1 5 3\n3 0:1\n", "row 2: label 3 is beyond the 3 of the header"),
        ("2 5 3\n0 0:1\n0 5:1\n", "row 3: feature 5 is beyond the 5 of the header"),
        ("1 5 3\n0 1:one\n", "row 2: '1:one' is not a feature and a finite value; write feature:value"),
        ("1 5 3\n0 1:nan\n", "row 2: '1:nan' is not a feature and a finite value"),
        ("1 5 3\n0 7\n", "row 2: '7' is not a feature and a finite value"),
        ("1 5 3\n0 -1:2\n", "row 2: '-1' is not a feature"),
        ("3 5 3\n0 0:1\n", "there are 1 rows and the header says 3"),
        ("1 5 3\n0 0:1\n1 0:1\n", "row 3: there are more rows than the 1 of the header"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, "train.txt", text)
    with pytest.raises(InputError) as caught:
        read_extreme_text(path)
    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)


def test_both_layouts_of_a_folder_read_the_same(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    written(one, "small_train.txt", "2 3 2\n0,1 0:1\n1 2:2\n")
    written(one, "small_test.txt", "1 3 2\n0 1:1\n")
    written(one, "label_features.txt", "2 3\n0:1\n1:1 2:1\n")
    written(one, "labels.txt", "red\nblue\n")
    written(two, "trn_X_Xf.txt", "2 3\n0:1\n2:2\n")
    written(two, "trn_X_Y.txt", "2 2\n1:1 0:1\n1:1\n")
    written(two, "tst_X_Xf.txt", "1 3\n1:1\n")
    written(two, "tst_X_Y.txt", "1 2\n0:1\n")
    np.save(two / "lbl_X_Xf.npy", np.eye(2))
    written(two, "Yf.txt", "red\nblue\n")
    first, second = read_extreme_folder(one), load_retrieval(two)
    for a, b in ((first.train, second.train), (first.test, second.test)):
        assert a is not None
        assert b is not None
        assert isinstance(a.features, SparseRows)
        assert isinstance(b.features, SparseRows)
        assert np.array_equal(a.features.values, b.features.values)
        assert np.array_equal(a.labels.columns, b.labels.columns)
    assert first.names().tolist() == second.names().tolist() == ["red", "blue"]
    assert isinstance(first.label_features, SparseRows)
    assert isinstance(second.label_features, np.ndarray)
    assert first.content_hash() != second.content_hash()
    assert first.content_hash() == read_extreme_folder(one).content_hash()


def test_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no training queries"):
        read_extreme_folder(tmp_path)
    written(tmp_path, "train.txt", "1 3 2\n0 0:1\n")
    written(tmp_path, "test.txt", "1 4 2\n0 0:1\n")
    with pytest.raises(InputError, match="the test queries have 4 sparse features, the training queries 3"):
        read_extreme_folder(tmp_path)
    written(tmp_path, "test.txt", "1 3 5\n0 0:1\n")
    with pytest.raises(InputError, match="there are 5 labels in test and 2 in training"):
        read_extreme_folder(tmp_path)
    (tmp_path / "test.txt").unlink()
    written(tmp_path, "labels.txt", "red\nred\n")
    with pytest.raises(InputError, match="two labels have the same name"):
        read_extreme_folder(tmp_path)
    written(tmp_path, "labels.txt", "red\n")
    with pytest.raises(InputError, match="1 rows of label names and 2 labels"):
        read_extreme_folder(tmp_path)
    written(tmp_path, "other_train.txt", "1 3 2\n0 0:1\n")
    with pytest.raises(InputError, match="there are 2 files of train queries"):
        read_extreme_folder(tmp_path)
    with pytest.raises(InputError, match="there is no data set of queries and labels 'synthetic-tag'; did you mean"):
        load_retrieval("synthetic-tag")
    with pytest.raises(InputError, match="unknown option 'words'"):
        load_retrieval("synthetic-tags", words=3)
    with pytest.raises(InputError, match="does not fit: there must be at least 10 queries"):
        load_retrieval("synthetic-tags", num_queries=3)


def test_sparse_rows() -> None:
    rows = SparseRows(np.array([0, 2, 2, 3]), np.array([0, 3, 1]), np.array([3.0, 4.0, 0.0], dtype=np.float32), 4)
    assert rows.unit_rows().values.tolist() == pytest.approx([0.6, 0.8, 0.0])
    taken = rows.take(np.array([2, 0, 1, 0]))
    assert taken.offsets.tolist() == [0, 1, 3, 3, 5]
    assert taken.columns.tolist() == [1, 0, 3, 0, 3]
    assert SparseRows.from_lists([], 4).num_rows == 0
    with pytest.raises(ValueError, match=r"columns must lie in 0\.\.1"):
        SparseRows.from_lists([[2]], 2)
    with pytest.raises(ValueError, match="1 rows of features and 2 of labels"):
        LabelledQueries(np.ones((1, 2), dtype=np.float32), SparseRows.from_lists([[0], [0]]))
    with pytest.raises(InputError, match="holds no training query"):
        RetrievalData(LabelledQueries(SparseRows.from_lists([], 3), SparseRows.from_lists([], 3)))


def test_a_matrix_of_its_own(tmp_path: Path) -> None:
    rows = read_sparse_rows(written(tmp_path, "lbl.txt", "2 3\n\n2:1 0:-4\n"))
    assert rows.offsets.tolist() == [0, 0, 2]
    with pytest.raises(InputError, match="row 1: the first row is not a header of the numbers of rows and columns"):
        read_sparse_rows(written(tmp_path, "bad.txt", "0:1\n"))


def test_generated_tags_share_words_with_their_texts() -> None:
    data = synthetic_tags(400, num_labels=60, num_words=300, seed=1)
    assert data.content_hash() == synthetic_tags(400, num_labels=60, num_words=300, seed=1).content_hash()
    assert isinstance(data.train.features, SparseRows)
    assert isinstance(data.label_features, SparseRows)
    words, names = (np.zeros((rows.num_rows, 300)) for rows in (data.train.features, data.label_features))
    for table, rows in ((words, data.train.features), (names, data.label_features)):
        table[np.repeat(np.arange(rows.num_rows), rows.sizes), rows.columns] = rows.values
    overlap = words @ (names > 0).T
    mine = np.zeros_like(overlap, dtype=np.bool_)
    mine[np.repeat(np.arange(320), data.train.labels.sizes), data.train.labels.columns] = True
    assert overlap[mine].mean() > 3 * overlap[~mine].mean()


def test_the_recipe_says_what_it_is() -> None:
    recipe = dataset_info("synthetic-tags")
    data = load_retrieval("synthetic-tags")
    assert data.test is not None
    assert recipe.counts["queries"] == data.train.num_queries + data.test.num_queries
    assert recipe.counts["labels"] == data.num_labels
    with pytest.raises(InputError, match="holds queries and labels, not a log of interactions; load it with load_retr"):
        load_dataset("synthetic-tags")
    with pytest.raises(InputError, match="holds queries and labels, not a graph"):
        load_graph("synthetic-tags")
