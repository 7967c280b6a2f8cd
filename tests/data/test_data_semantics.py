"""Semantic vectors of every source, and that nothing of validation or test reaches them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from graphcl.data import IdMap, Interactions, leave_one_out, read_item_features
from graphcl.data import semantics as s
from graphcl.data.splits import TRAIN, Split
from graphcl.errors import InputError, MissingPackageError


def random_split(seed: int = 0, users: int = 40, items: int = 30) -> Split:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 8)
    return leave_one_out(
        Interactions.from_arrays(user, np.concatenate([rng.permutation(items)[:8] for _ in range(users)]))
    )


def test_attribute_vectors_are_the_dense_decomposition() -> None:
    rng = np.random.default_rng(0)
    table = {item: [f"t{token}" for token in rng.integers(12, size=4)] for item in range(40)}
    made = s.attribute_vectors(table, IdMap(np.arange(40)), width=5)
    tokens = sorted({token for row in table.values() for token in row})
    counts = np.array([[row.count(token) for token in tokens] for row in table.values()], dtype=float)
    x = counts * (1 + np.log(41 / (1 + (counts > 0).sum(0))))
    u, values, _ = np.linalg.svd(x / np.linalg.norm(x, axis=1, keepdims=True), full_matrices=False)
    expected = u[:, :5] * values[:5]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(made.vectors @ made.vectors.T, expected @ expected.T, atol=1e-5)
    assert made.content_hash() == s.attribute_vectors(table, IdMap(np.arange(40)), width=5).content_hash()


def test_cooccurrence_is_the_slow_count() -> None:
    split = random_split()
    sequences = split.train_sequences()
    counts = np.zeros((30, 30))
    for user in range(len(sequences)):
        row = sequences[user]
        for one in range(len(row)):
            for other in range(len(row)):
                if 0 < abs(one - other) <= 2:
                    counts[row[one], row[other]] += 1
    total = counts.sum(1)
    smooth = total**0.75 / (total**0.75).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = np.maximum(np.nan_to_num(np.log(counts / (total[:, None] * smooth)), neginf=0.0), 0.0)
    u, values, _ = np.linalg.svd(matrix)
    expected = u[:, :6] * np.sqrt(values[:6])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    made = s.cooccurrence_vectors(split, width=6, window=2)
    np.testing.assert_allclose(made.vectors @ made.vectors.T, expected @ expected.T, atol=1e-4)


def test_validation_and_test_items_do_not_reach_any_vector() -> None:
    split = random_split()
    held_out = split.part != TRAIN
    item = split.interactions.item.copy()
    item[held_out] = np.random.default_rng(1).permutation(item[held_out])
    rows = split.interactions
    other = Split(
        Interactions(user=rows.user, item=item, user_ids=rows.user_ids, item_ids=rows.item_ids),
        split.part,
        split.protocol,
    )
    assert not np.array_equal(item, rows.item)
    made, again = (s.semantic_vectors(part, "cooccurrence") for part in (split, other))
    np.testing.assert_array_equal(made.vectors, again.vectors)
    np.testing.assert_array_equal(s.prefix_vectors(made, split), s.prefix_vectors(again, other))


def test_prefix_and_history_vectors_are_means() -> None:
    split = random_split()
    made = s.cooccurrence_vectors(split, width=6)
    sequences, rows = split.train_sequences(), s.prefix_vectors(made, split)
    for user in (0, 7, 39):
        items = sequences[user]
        for end in range(1, len(items) + 1):
            mean = made.vectors[items[:end]].mean(0)
            np.testing.assert_allclose(rows[sequences.offsets[user] + end - 1], mean / np.linalg.norm(mean), atol=2e-5)
    np.testing.assert_allclose(s.history_vectors(made, sequences), rows[sequences.offsets[1:] - 1], atol=2e-5)


def test_files_and_joins(tmp_path: Path) -> None:
    split = random_split()
    ids = split.interactions.item_ids
    rows = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    np.savez(tmp_path / "llm.npz", ids=ids.external, vectors=rows)
    made = s.semantic_vectors(split, {"cooccurrence": {"width": 6, "weight": 2.0}, str(tmp_path / "llm.npz"): None})
    parts = s.cooccurrence_vectors(split, width=6), s.file_vectors(tmp_path / "llm.npz", ids)
    cosine = made.vectors @ made.vectors.T
    expected = (4 * parts[0].vectors @ parts[0].vectors.T + parts[1].vectors @ parts[1].vectors.T) / 5
    np.testing.assert_allclose(cosine, expected, atol=1e-5)


def test_texts_are_encoded_once_each() -> None:
    calls: list[list[str]] = []

    def encode(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        return [[float(len(text)), 1.0] for text in texts]

    frame = pl.DataFrame({"item": [1, 2, 3], "title": ["soap", "soap", None], "tags": [["a", "b"], ["a", "b"], []]})
    made = s.text_vectors(frame, IdMap([1, 2, 3]), encode=encode)
    assert calls == [["title: soap. tags: a, b"]]
    assert made.present.tolist() == [True, True, False]


def test_bad_sources_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_split()
    for source, message in (
        ("atributes", "did you mean 'attributes'"),
        ("attributes", "no table of items"),
        ({"cooccurrence": {"widht": 3}}, "cooccurrence has no setting 'widht'; did you mean 'width'"),
        ({"llm.npz": {"width": 3}}, "llm.npz has no setting 'width'; use weight"),
        ({"joint": {"weight": 2}}, "joint has no setting 'weight'; name its parts"),
        ({"cooccurrence": 3}, "settings of cooccurrence are 3, not a mapping"),
        (3, "source of semantic vectors is a name or a path, got 3"),
        ([{"cooccurrence": {}}], "source of semantic vectors is a name or a path, got"),
        ("nowhere.npz", "nowhere.npz"),
        ([], "no source"),
    ):
        with pytest.raises(InputError, match=message):
            s.semantic_vectors(split, source)
    with pytest.raises(InputError, match="listed twice"):
        s.attribute_vectors(pl.DataFrame({"item": [1, 1], "a": ["x", "y"]}), IdMap([1]))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'graphcl\[text\]'"):
        s.text_vectors({1: "soap"}, IdMap([1]))


def test_settings_of_every_part_are_checked_before_any_vector_is_made() -> None:
    split = random_split()
    count, share, weight = "an integer of at least 1", "a number from 0 to 1", "a number from 1e-6 to 1e6"
    for part, name, values, allowed in (
        ("attributes", "width", (0, -1, 2.5, "a", None, True), count),
        ("features", "width", (0, "a"), count),
        ("cooccurrence", "width", (0, "a"), count),
        ("cooccurrence", "window", (0, 1.5, "a", None, False), count),
        ("cooccurrence", "shift", ("a", float("inf"), float("nan"), None, True, [1]), "a finite number"),
        ("cooccurrence", "context", ("a", -0.1, 1.1, float("nan")), share),
        ("text", "model", (3, None), "the name or folder of a model"),
        ("text", "batch_size", (0, "a"), count),
        ("text", "encode", (3,), "a function"),
        ("llm.npz", "weight", (0, "a"), weight),
        ("cooccurrence", "weight", (0, -1, "a", float("nan"), float("inf"), 10**400, 1e-9, True, None), weight),
    ):
        for value in values:
            message = re.escape(f"setting {name!r} of {part} does not accept {value!r}; give {allowed}")
            for source in ({part: {name: value}}, {"cooccurrence": {}, part: {name: value}}):
                with pytest.raises(InputError, match=message):
                    s.semantic_vectors(split, source)
    for arguments in ({"width": 0}, {"window": "a"}, {"shift": "1"}, {"context": 2}):
        with pytest.raises(InputError, match=f"setting '{next(iter(arguments))}' of cooccurrence does not accept"):
            s.cooccurrence_vectors(split, **arguments)
    with pytest.raises(InputError, match="setting 'width' of attributes does not accept 0"):
        s.attribute_vectors({1: "a"}, IdMap([1]), width=0)
    with pytest.raises(InputError, match="setting 'batch_size' of text does not accept 0"):
        s.text_vectors({1: "a"}, IdMap([1]), batch_size=0)
    with pytest.raises(InputError, match="setting 'width' of features does not accept 0"):
        s.feature_vectors(read_item_features({"image": ([1], [[1.0]])}, IdMap([1])), width=0)


def test_numbers_may_be_of_numpy_or_the_text_that_yaml_makes_of_1e_3(tmp_path: Path) -> None:
    split = random_split()
    expected = s.join_vectors([s.cooccurrence_vectors(split, width=4, shift=1e-3)] * 2, [0.5, 1.0])
    first = {"width": np.int64(4), "shift": "1e-3", "weight": np.float32(0.5)}
    file = tmp_path / "same.npz"
    np.savez(file, ids=split.interactions.item_ids.external, vectors=expected.vectors[:, :4])
    made = s.semantic_vectors(split, {"cooccurrence": first, str(file): {}})
    np.testing.assert_allclose(made.vectors @ made.vectors.T, expected.vectors @ expected.vectors.T, atol=1e-5)


def test_weights_that_do_not_fit_are_refused() -> None:
    part = s.SemanticVectors(IdMap([1]), np.ones((1, 1), dtype=np.float32), np.array([True]))
    assert s.join_vectors([part]).vectors.tolist() == [[1.0]]
    for parts, weights, message in (
        ([], None, "there are no vectors to join"),
        ([part], [1.0, 2.0], "2 weights for 1 parts"),
        ([part], ["a"], "weight does not accept 'a'; give a number from 1e-6 to 1e6"),
        ([part, part], [1.0, 0.0], "weight does not accept 0.0; give a number from 1e-6 to 1e6"),
    ):
        with pytest.raises(InputError, match=message):
            s.join_vectors(parts, weights)  # type: ignore[arg-type]
