"""SRA-CL: retrieval without leaks, the synthesiser, cold items, and the objective against a slow one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from graphcl.data import (
    IdMap,
    Interactions,
    ItemFeatures,
    Split,
    attribute_vectors,
    cooccurrence_vectors,
    feature_vectors,
    join_vectors,
    leave_one_out,
    read_item_features,
)
from graphcl.data.features import Incidence
from graphcl.data.splits import TRAIN
from graphcl.errors import InputError
from graphcl.functional import nt_xent
from graphcl.models import SRACL, SRACLConfig
from graphcl.nn import SampleSynthesizer
from graphcl.pipelines import SequentialRecommender
from graphcl.pipelines.batches import training_windows
from graphcl.pipelines.contrast_rows import ContrastSource
from graphcl.pipelines.semantic_rows import mean_vectors, retrieve_rows, similar_items

ITEMS = 11
SEQUENCES = [[1, 2, 3, 4], [5], [6, 7], [], [8, 9, 10, 11, 1, 2, 3, 4], [2, 3, 2, 7], [3, 4, 7, 11, 4]]
OFFSETS = np.concatenate([[0], np.cumsum([len(sequence) for sequence in SEQUENCES])])
FLAT = np.array([item for sequence in SEQUENCES for item in sequence])
VECTORS = np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32)
SIZES: dict[str, Any] = {"hidden": 8, "inner": 8, "layers": 1, "max_length": 5, "dropout": 0.0, "neighbours": 3}
QUICK: dict[str, Any] = {**SIZES, "epochs": 2, "batch_size": 64, "progress": False}


def prefix_rows() -> Any:
    return training_windows(FLAT, OFFSETS, max_length=5, rows="prefix")


@pytest.mark.parametrize("pool", ["users", "prefixes"])
@pytest.mark.parametrize("same_user", [False, True])
def test_retrieval_is_the_best_of_what_is_allowed(pool: str, same_user: bool) -> None:
    rows = prefix_rows()
    found = retrieve_rows(rows, OFFSETS, VECTORS, k=3, max_length=5, pool=pool, same_user=same_user)
    owner = np.searchsorted(OFFSETS, rows.start, side="right") - 1
    of_pool = np.searchsorted(OFFSETS, found.start, side="right") - 1
    expected = 6 if pool == "users" else rows.num_windows
    assert found.start.size == expected
    for row in range(rows.num_windows):
        own = VECTORS[FLAT[rows.start[row] : rows.start[row] + rows.length[row]] - 1].mean(0)
        scores = []
        for candidate in range(expected):
            items = FLAT[found.start[candidate] : found.start[candidate] + found.length[candidate]]
            mean = VECTORS[items - 1].mean(0)
            cosine = float(own @ mean / np.linalg.norm(own) / np.linalg.norm(mean))
            excluded = candidate == row if (pool == "prefixes" and same_user) else of_pool[candidate] == owner[row]
            scores.append(-np.inf if excluded and not (same_user and pool == "users") else cosine)
        best = np.sort(scores)[::-1][:3]
        given = found.neighbours[row]
        np.testing.assert_allclose([scores[place] for place in given], best, atol=1e-5)
        if not same_user:
            assert not (of_pool[given] == owner[row]).any()


def test_similar_items_leave_out_themselves_padding_and_untrained_ones() -> None:
    vectors = VECTORS.copy()
    vectors[4] = vectors[7] = vectors[0]  # exact duplicates
    vectors[9] = 0.0
    trained = np.ones(ITEMS, dtype=bool)
    trained[7] = False
    near, cold = similar_items(vectors, trained, 4)
    assert not near[0].any()
    assert not near[10].any()  # nothing is known of it
    for item in range(1, ITEMS + 1):
        assert item not in near[item].tolist()
        assert 8 not in near[item].tolist()
        assert 10 not in near[item].tolist()
    assert int(near[1, 0]) == 5
    assert sorted(near[8, :2].tolist()) == [1, 5]
    assert torch.equal(cold[8], near[8])
    assert not cold[[1, 2, 3, 4, 5, 6, 7, 9, 11]].any()
    few, _ = similar_items(VECTORS[:3], np.array([True, True, False]), 4)
    assert few.tolist() == [[0] * 4, [2, 0, 0, 0], [1, 0, 0, 0], few[3].tolist()]
    assert sorted(few[3, :2].tolist()) == [1, 2]


def test_synthesizer_equals_attention_over_pairs_and_has_its_gradient() -> None:
    synthesizer = SampleSynthesizer(4, 3, dropout=0.0, generator=torch.Generator().manual_seed(0)).double()
    generator = torch.Generator().manual_seed(1)
    own, vectors, encoded = (
        torch.randn(n, d, dtype=torch.float64, generator=generator) for n, d in ((2, 4), (5, 4), (5, 3))
    )
    places = torch.tensor([[0, 3, 4], [2, 1, -1]])
    weights = synthesizer.probabilities(own, vectors, places)
    for row in range(2):
        kept = [place for place in places[row].tolist() if place >= 0]
        pairs = [torch.cat([own[row] @ synthesizer.projection, vectors[v] @ synthesizer.projection]) for v in kept]
        logits = torch.nn.functional.leaky_relu(torch.stack(pairs) @ synthesizer.attention, 0.2)
        torch.testing.assert_close(weights[row, : len(kept)], logits.softmax(0))
    assert float(weights[1, 2].detach()) == 0.0
    parameters = (synthesizer.projection, synthesizer.attention, encoded.requires_grad_())
    assert torch.autograd.gradcheck(lambda *_: 0.73 * synthesizer(own, vectors, places, encoded), parameters)
    assert not synthesizer(own, vectors, torch.full((2, 3), -1), encoded).any()


@pytest.mark.parametrize("fresh_view", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_objective_equals_the_slow_one(fresh_view: bool, learned: bool) -> None:
    config = SRACLConfig(
        fresh_view=fresh_view, learned_weights=learned, substitution_rate=1.0, synthesizer_dropout=0.0, **SIZES
    )
    model = SRACL(ITEMS, config, semantic_dim=6, generator=torch.Generator().manual_seed(0)).double()
    # One neighbour an item and a rate of 1 leave nothing to chance.
    near, cold = similar_items(VECTORS, np.ones(ITEMS, dtype=bool), 1)
    model.set_item_neighbours(torch.nn.functional.pad(near, (0, 2)), torch.nn.functional.pad(cold, (0, 2)))
    rows = prefix_rows()
    retrieval = retrieve_rows(rows, OFFSETS, VECTORS, k=3, max_length=5)
    windows = training_windows(FLAT, OFFSETS, max_length=5, stride=1)
    batch = next(ContrastSource(windows, 100, 0, rows, None, retrieval).batches(0, 0, 1))
    contrast = batch.contrast
    assert contrast is not None
    retrieved = contrast.retrieved
    assert retrieved is not None
    h = model(contrast.rows.items, contrast.rows.lengths)
    items, lengths = retrieved.sequences.padded()
    neighbours = model(items, lengths)
    weights = torch.full(retrieved.places.shape, 1 / 3, dtype=torch.float64)
    if learned:
        vectors = (retrieved.own_vectors.double(), retrieved.vectors.double())
        weights = model.synthesizer.probabilities(*vectors, retrieved.places)
    positives = (weights[..., None] * neighbours[retrieved.places]).sum(1)
    swapped = model(near[contrast.rows.items][..., 0], contrast.rows.lengths)
    user = nt_xent(h, positives, temperature=1.0, similarity="dot")
    item = nt_xent(swapped, swapped, temperature=1.0, similarity="dot")
    entropy, _, _ = model.next_item_loss(batch)
    loss, parts = model.objective(batch)
    torch.testing.assert_close(loss, entropy + 0.1 * user + 0.1 * item)
    torch.testing.assert_close(parts["user_contrast"], user.detach())
    paper = model.config.model_copy(update={"user_contrast": "paper"})
    model.config = paper
    assert float(model.objective(batch)[1]["user_contrast"]) != pytest.approx(float(user.detach()))
    model.config = config
    with pytest.raises(ValueError, match="needs batches with retrieved sequences"):
        model.objective(replace(batch, contrast=replace(contrast, retrieved=None)))


def shop() -> tuple[Interactions, IdMap, np.ndarray[Any, Any]]:
    """Users that walk round twelve items; a thirteenth has features like item 3 and no interaction."""
    user = np.repeat(np.arange(40), 8)
    item = (np.repeat(np.arange(40) % 12, 8) + np.tile(np.arange(8), 40)) % 12
    ids = IdMap(np.arange(13) + 500)
    vectors = np.eye(13, dtype=np.float32)
    vectors[12] = vectors[3] + 0.01 * vectors[4]
    return Interactions.from_arrays(user, item + 500), ids, vectors


def test_an_item_without_interactions_is_ranked_and_read_by_its_features(tmp_path: Path) -> None:
    log, ids, vectors = shop()
    features = read_item_features({"text": (ids.external, vectors)}, ids)
    recommender = SequentialRecommender("sracl", semantics="features", **QUICK)
    recommender.fit(log, tmp_path / "run", item_features=features)
    assert recommender.num_items == 13
    histories = [[512], [503], [500, 512, 501]]
    lists = recommender.recommend_for_histories(histories, k=13)
    assert set(lists.filter(lists["history"] == 0)["item"]) == {500 + n for n in range(13)}
    first, second = (lists.filter(lists["history"] == n)["score"].to_list() for n in (0, 1))
    assert first == second  # a cold item is read as the trained one nearest to it
    table = {int(item): row for item, row in zip(*vars(recommender.embed("items")).values(), strict=True)}
    assert np.isfinite(table[512]).all()
    loaded = SequentialRecommender.load(tmp_path / "run")
    assert loaded.recommend_for_histories(histories, k=13).equals(lists)
    alone, among = loaded.recommend_for_histories([[512]], k=13), lists.filter(lists["history"] == 0)
    assert alone.drop("score").equals(among.drop("score"))
    assert alone["score"].to_list() == pytest.approx(first, rel=1e-5)
    with pytest.raises(InputError, match="needs features of the items"):
        SequentialRecommender("sracl", semantics="features", **QUICK).fit(log)
    with pytest.raises(InputError, match="sasrec does not read item features"):
        SequentialRecommender("sasrec").fit(log, item_features=features)


def prepared(split: Split, item_features: Any = None, **settings: Any) -> tuple[Any, Any, Any, Any]:
    """Item vectors, neighbours of items, and everything that rows retrieve, as training makes them."""
    recommender = SequentialRecommender("sracl", **{**QUICK, **settings})
    recommender._given_features = item_features
    accepted = recommender._accept(split)
    model = recommender._build_model(accepted, torch.Generator().manual_seed(0))
    source = recommender._training(model, accepted)[0]
    assert isinstance(source, ContrastSource)
    assert source.retrieval is not None
    return recommender._vectors, model.item_neighbours, model.trained_neighbours, source.retrieval


def test_held_out_items_change_no_vector_and_no_neighbour() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(60), 8)
    log = Interactions.from_arrays(user, np.concatenate([rng.permutation(30)[:8] for _ in range(60)]))
    split = leave_one_out(log)
    held_out = split.part != TRAIN
    item = split.interactions.item.copy()
    item[held_out] = rng.permutation(item[held_out])
    assert not np.array_equal(item, split.interactions.item)
    table = pl.DataFrame({"item": np.arange(30), "kind": [f"k{n % 7} c{n % 5}" for n in range(30)]})
    first, second = (
        Split(replace(split.interactions, item=items, item_features=table), split.part, split.protocol)
        for items in (split.interactions.item, item)
    )
    for settings in ({"semantics": "attributes+cooccurrence"}, {"semantics": "cooccurrence", "pool": "prefixes"}):
        one, other = prepared(first, **settings), prepared(second, **settings)
        for made, again in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(made, again)
        for name, made in vars(one[3]).items():
            np.testing.assert_array_equal(made, vars(other[3])[name])
        assert one[1].any()
    # The vectors of a row are those of its own prefix: a row retrieves nothing by items that come later.
    vectors, _, _, retrieval = prepared(first, semantics="cooccurrence")
    sequences = first.train_sequences()
    rows = training_windows(sequences.items + 1, sequences.offsets, max_length=5, rows="prefix")
    own = mean_vectors(vectors, rows.items, rows.start, rows.length)
    np.testing.assert_allclose(retrieval.own_vectors, own, atol=1e-6)


def test_the_source_of_the_vectors_is_a_setting(tmp_path: Path) -> None:
    log, ids, vectors = shop()
    attributes = pl.DataFrame({"item": ids.external, "kind": [f"k{n % 4}" for n in range(13)]})
    split = leave_one_out(replace(log, item_features=attributes))
    np.savez(tmp_path / "llm.npz", ids=ids.external[:12], vectors=vectors[:12])
    features = read_item_features({"image": (ids.external[:12], vectors[:12, :5])}, log.item_ids)
    made = {
        name: prepared(split, features, semantics=source, semantic_dim=4)[0]
        for name, source in {
            "attributes": "attributes",
            "cooccurrence": "cooccurrence",
            "both": "attributes+cooccurrence",
            "list": ["attributes", "cooccurrence"],
            "file": str(tmp_path / "llm.npz"),
            "features": "features",
            "narrow": {"cooccurrence": {"width": 2}},
        }.items()
    }
    expected = attribute_vectors(attributes, log.item_ids, width=4).vectors
    np.testing.assert_array_equal(made["attributes"], expected)
    np.testing.assert_array_equal(made["cooccurrence"], cooccurrence_vectors(split, width=4).vectors)
    parts = [attribute_vectors(attributes, log.item_ids, width=4), cooccurrence_vectors(split, width=4)]
    np.testing.assert_array_equal(made["both"], join_vectors(parts).vectors)
    np.testing.assert_array_equal(made["list"], made["both"])
    np.testing.assert_allclose(made["file"], vectors[:12] / np.linalg.norm(vectors[:12], axis=1, keepdims=True))
    assert made["features"].shape == (12, 5)
    assert made["narrow"].shape == (12, 2)
    joint = prepared(split, semantic_dim=4)[0]
    np.testing.assert_array_equal(joint, made["both"])  # attributes and co-occurrence are all that is there
    joined = join_vectors([feature_vectors(features), parts[1]]).vectors
    np.testing.assert_array_equal(prepared(split, features, semantic_dim=4)[0], joined)
    assert prepared(leave_one_out(log), semantic_dim=4)[0].shape == (12, 4)
    for source, message in (("atributes", "did you mean 'attributes'"), ("no.npz", "no.npz"), ("features", "needs")):
        with pytest.raises(InputError, match=message):
            prepared(split, semantics=source)


def test_lists_of_features_are_attributes() -> None:
    lists = {n: [f"t{n % 3}", f"u{n % 2}"] for n in range(12)}
    tokens = {token: place for place, token in enumerate(sorted({t for row in lists.values() for t in row}))}
    pairs = np.array([(n, tokens[token]) for n, row in lists.items() for token in row])
    ids = IdMap(np.arange(12))
    features = ItemFeatures(ids, incidence={"tags": Incidence(pairs[:, 0], pairs[:, 1], len(tokens))})
    made, expected = feature_vectors(features, width=3), attribute_vectors(lists, ids, width=3)
    np.testing.assert_allclose(made.vectors @ made.vectors.T, expected.vectors @ expected.vectors.T, atol=1e-6)


def test_a_run_in_two_parts_equals_one(tmp_path: Path) -> None:
    log, ids, _ = shop()
    split = leave_one_out(
        replace(log, item_features=pl.DataFrame({"item": ids.external, "kind": [f"k{n % 4}" for n in range(13)]}))
    )
    settings = {**QUICK, "semantics": "attributes+cooccurrence", "dropout": 0.2, "weight_average": 0.9, "epochs": 3}
    whole = SequentialRecommender("sracl", **settings).fit(split, tmp_path / "whole")
    SequentialRecommender("sracl", **{**settings, "epochs": 1}).fit(split, tmp_path / "parts")
    parts = SequentialRecommender("sracl", **settings).fit(split, tmp_path / "parts", resume=True)
    first, second = (dict(run._fitted()[0].state_dict()) for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [r["loss"] for r in whole.training_history] == [r["loss"] for r in parts.training_history]
    assert whole.training_history[-1]["user_contrast"] > 0
    with pytest.raises(InputError):  # other vectors are other data
        SequentialRecommender("sracl", **{**settings, "semantics": "cooccurrence"}).fit(
            split, tmp_path / "parts", resume=True
        )
