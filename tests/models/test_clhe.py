"""CLHE against loops over tokens, and what its switches change."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl.errors import InputError
from graphcl.models import CLHE, BundleBatch, BundleInputs, CLHEConfig, build_config
from graphcl.models.clhe import bundle_loss, fill_with_first_item
from graphcl.nn import BundleEncoder, TokenFusion
from graphcl.nn.bundle import pad_sets

ITEMS = 9
BUNDLES = [[0, 2, 3], [4, 1, 6, 5], [7]]
VIEWS: list[list[int]] = [[2], [1, 6], []]


def flat(bundles: list[list[int]]) -> tuple[Tensor, Tensor]:
    sizes = torch.tensor([0, *(len(bundle) for bundle in bundles)])
    return torch.tensor([item for bundle in bundles for item in bundle], dtype=torch.int64), sizes.cumsum(0)


def toy_inputs() -> BundleInputs:
    draws = torch.Generator().manual_seed(3)
    missing = torch.zeros(ITEMS, dtype=torch.bool)
    missing[[1, 8]] = True
    cold = torch.zeros(ITEMS, dtype=torch.bool)
    cold[[0, 8]] = True
    features = {"content": torch.randn(ITEMS, 5, generator=draws), "text": torch.rand(ITEMS, 4, generator=draws)}
    return BundleInputs(ITEMS, features, {"text": missing}, torch.randn(ITEMS, 3, generator=draws), cold)


def toy_model(**settings: Any) -> CLHE:
    torch.manual_seed(0)
    config = build_config(CLHEConfig, {"hidden": 6, **settings})
    model = CLHE(toy_inputs(), config, generator=torch.Generator().manual_seed(0)).double()
    model.on_epoch_start(0, torch.Generator().manual_seed(5))
    return model


def toy_batch() -> BundleBatch:
    return BundleBatch(*flat(BUNDLES), *flat(VIEWS), total=3)


def unit(row: Tensor) -> Tensor:
    return row / row.norm() if float(row.norm()) > 0 else row


def attended(rows: list[Tensor], query: Tensor, key: Tensor) -> Tensor:
    """Mean over the rows of softmax attention whose values are the rows, one pair at a time."""
    out = torch.zeros_like(rows[0])
    for one in rows:
        scores = [float((query @ one) @ (key @ other)) / math.sqrt(one.numel()) for other in rows]
        weights = [math.exp(score - max(scores)) for score in scores]
        out = out + sum(weight / sum(weights) * other for weight, other in zip(weights, rows, strict=True))
    return out / len(rows)


@torch.no_grad()
def item_by_loops(model: CLHE, item: int) -> Tensor:
    tower, known = model.encoder, toy_inputs()
    m = torch.zeros(6, dtype=torch.float64)
    for name, mlp in zip(tower.names, tower.feature_mlps, strict=True):
        if name in known.missing and bool(known.missing[name][item]):
            continue
        x = unit(known.features[name][item].double())
        layers = list(mlp.children())
        for layer in layers:
            x = layer(x)
        m = m + unit(x)
    assert tower.feedback is not None
    assert known.vectors is not None
    assert known.cold is not None
    f = m if bool(known.cold[item]) else tower.feedback(known.vectors[item].double())
    tokens = [unit(token) for token in (m, tower.item_table[item], f)]
    return attended(tokens, tower.fusion.query.weight, tower.fusion.key.weight)


@torch.no_grad()
def bundle_by_loops(model: CLHE, bundle: list[int]) -> Tensor:
    rows = []
    for item in bundle:
        z = item_by_loops(model, item)
        centred = z - z.mean()
        rows.append(centred / torch.sqrt((centred**2).mean() + 1e-9))
    return attended(rows, model.bundle_encoder.query.weight, model.bundle_encoder.key.weight)


def test_items_and_bundles_are_those_of_loops() -> None:
    model = toy_model()
    items = torch.stack([item_by_loops(model, item) for item in range(ITEMS)])
    torch.testing.assert_close(model.encoder(model.inputs), items)
    bundles = torch.stack([bundle_by_loops(model, bundle) for bundle in BUNDLES])
    torch.testing.assert_close(model(*flat(BUNDLES)), bundles)


def test_objective_is_that_of_the_formulas() -> None:
    model = toy_model(item_augment="none", item_weight=0.3, bundle_weight=0.7)
    parts = model.objective(toy_batch())[1]
    z = torch.stack([bundle_by_loops(model, bundle) for bundle in BUNDLES])
    logits = z @ model.candidates().detach().T
    construction = [-torch.log_softmax(row, 0)[bundle].mean() for row, bundle in zip(logits, BUNDLES, strict=True)]
    torch.testing.assert_close(parts["construction"], torch.stack(construction).mean())

    def one_way(a: Tensor, b: Tensor, temperature: float) -> Tensor:
        a, b = torch.nn.functional.normalize(a), torch.nn.functional.normalize(b)
        return torch.nn.functional.cross_entropy(a @ b.T / temperature, torch.arange(a.shape[0]))

    met = torch.stack([item_by_loops(model, item) for item in sorted({i for bundle in BUNDLES for i in bundle})])
    torch.testing.assert_close(parts["item_contrast"], 0.3 * one_way(met, met, 0.5))
    views = torch.stack([bundle_by_loops(model, view) for view in VIEWS if view])
    torch.testing.assert_close(parts["bundle_contrast"], 0.7 * one_way(z[:2], views, 0.2))


def test_no_view_gives_no_bundle_contrast() -> None:
    empty = torch.zeros(4, dtype=torch.int64)
    loss, parts = toy_model().objective(BundleBatch(*flat(BUNDLES), empty[:0], empty, total=3))
    assert float(parts["bundle_contrast"]) == 0.0
    assert bool(torch.isfinite(loss))


def test_gradients_of_encoders_and_loss() -> None:
    draws = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64).requires_grad_()

    fusion, encoder = TokenFusion(4).double(), BundleEncoder(4).double()
    offsets = torch.tensor([0, 2, 5])
    assert torch.autograd.gradcheck(lambda x: fusion(x) * torch.arange(1, 5), (random(2, 3, 4),))
    assert torch.autograd.gradcheck(lambda x: encoder(x, offsets) * torch.arange(1, 5), (random(5, 4),))
    items = torch.tensor([0, 3, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda z, w: 1.7 * bundle_loss(z, w, items, offsets), (random(2, 4), random(4, 4)))


def test_gradients_of_the_whole_objective() -> None:
    model = toy_model(item_weight=0.5, bundle_weight=0.5, item_augment="none")
    loss = model.objective(toy_batch())[0]
    table, weight = model.encoder.item_table, model.bundle_encoder.query.weight
    slopes = torch.autograd.grad(loss, (table, weight))
    for parameter, slope in zip((table, weight), slopes, strict=True):
        step = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-6 * step)
                values.append(float(model.objective(toy_batch())[0]))
                parameter.sub_(sign * 1e-6 * step)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float((slope * step).sum()), rel=1e-4)


def test_every_weight_is_trained_by_default_and_bundle_attention_not_when_frozen() -> None:
    for frozen in (False, True):
        model = toy_model(frozen_bundle_attention=frozen, item_augment="dropout")
        model.objective(toy_batch())[0].backward()  # type: ignore[no-untyped-call]
        without = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
        attention = {"bundle_encoder.query.weight", "bundle_encoder.key.weight"}
        assert without == (attention if frozen else set())
        assert attention <= model.state_dict().keys()


def test_padding_bug_fills_views_with_item_zero() -> None:
    filled = fill_with_first_item(*flat(VIEWS), flat(BUNDLES)[1])
    assert filled[0].tolist() == [2, 0, 0, 1, 6, 0, 0, 0]
    assert filled[1].tolist() == [0, 3, 7, 8]
    model = toy_model(item_weight=0.0)
    buggy = toy_model(item_weight=0.0, reference_padding_bug=True)
    own = BundleBatch(*flat(BUNDLES), *filled, total=3)
    torch.testing.assert_close(buggy.objective(toy_batch())[0], model.objective(own)[0])
    assert not torch.isclose(buggy.objective(toy_batch())[0], model.objective(toy_batch())[0])


@pytest.mark.parametrize("kind", ["dropout", "noise", "modality"])
def test_views_of_items_differ_and_repeat_by_seed(kind: str) -> None:
    model = toy_model(item_augment=kind, item_dropout=0.5, item_noise=0.1)
    tokens = model.encoder.tokens(model.inputs)
    fused = model.encoder.fusion(tokens)
    pairs = []
    for _ in range(2):
        model.on_epoch_start(1, torch.Generator().manual_seed(9))
        pairs.append(model.item_views(tokens, fused))
    assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))
    assert not torch.allclose(*pairs[0])


def test_order_within_a_bundle_company_and_cut_do_not_matter() -> None:
    model = toy_model()
    alone = model(*flat([[6, 5, 1, 4]]))
    torch.testing.assert_close(alone[0], model(*flat(BUNDLES))[1])
    short = toy_model(max_items=2)
    torch.testing.assert_close(short(*flat(BUNDLES)), model(*flat([bundle[:2] for bundle in BUNDLES])))


def test_an_item_of_which_nothing_is_known_is_still_a_vector() -> None:
    bare = CLHE(BundleInputs(4), CLHEConfig(hidden=6))
    assert bool(torch.isfinite(bare.candidates()).all())
    inputs = BundleInputs(4, {"text": torch.zeros(4, 3)}, {"text": torch.ones(4, dtype=torch.bool)})
    model = CLHE(inputs, CLHEConfig(hidden=6))
    loss, _ = model.objective(BundleBatch(*flat([[0, 1], [2, 3]]), *flat([[0], [3]]), total=2))
    gradients = torch.autograd.grad(loss, [model.encoder.item_table, model.decoder.item_table])
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_weights_alone_restore_a_model() -> None:
    model, other = toy_model(), toy_model()
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1.0)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(*flat(BUNDLES)), other(*flat(BUNDLES)), rtol=0, atol=0)
    torch.testing.assert_close(model.candidates(), other.candidates(), rtol=0, atol=0)


def test_a_withheld_item_of_a_pattern_comes_first() -> None:
    """Bundles are four items of one of three groups; the fourth item must be found from the other three."""
    torch.manual_seed(0)
    bundles = [[group * 4 + n for n in range(4)] for group in range(3)]
    model = CLHE(BundleInputs(12), CLHEConfig(hidden=8, item_weight=0.0), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    batch = BundleBatch(*flat(bundles), *flat([bundle[:2] for bundle in bundles]), total=3)
    for _ in range(80):
        optimizer.zero_grad()
        model.objective(batch)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        scores = model(*flat([bundle[:3] for bundle in bundles])) @ model.candidates().T
    for row, bundle in zip(scores, bundles, strict=True):
        row[bundle[:3]] = -torch.inf
        assert int(row.argmax()) == bundle[3]


def test_bad_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="text must have 3 rows, got 2"):
        BundleInputs(3, {"text": torch.eye(2)})
    with pytest.raises(ValueError, match="'image', which is none of"):
        BundleInputs(2, {"text": torch.eye(2)}, {"image": torch.zeros(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="text holds NaN"):
        CLHE(BundleInputs(2, {"text": torch.full((2, 2), torch.nan)}))
    with pytest.raises(InputError, match="did you mean 'bundle_ratio'"):
        build_config(CLHEConfig, {"bundle_ration": 1})


def test_sets_are_padded_with_zeros() -> None:
    padded, real = pad_sets(torch.arange(1.0, 7.0).reshape(3, 2), torch.tensor([0, 1, 3]))
    assert padded.tolist() == [[[1.0, 2.0], [0.0, 0.0]], [[3.0, 4.0], [5.0, 6.0]]]
    assert real.tolist() == [[True, False], [True, True]]
