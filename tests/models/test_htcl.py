"""HTCL against its formulas written as loops, its stages, and its frozen parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl.models import HTCL, AlignmentBatch, AlignmentInputs, HTCLConfig, build_config
from graphcl.models.htcl import preference_contrast

ITEMS = 8


def toy_inputs() -> AlignmentInputs:
    draws = torch.Generator().manual_seed(1)
    both = torch.ones(ITEMS, dtype=torch.bool)
    both[7] = False
    items = torch.randn(ITEMS, 5, generator=draws)
    items[7] = 0.0
    return AlignmentInputs(items, torch.randn(ITEMS, 3, generator=draws), both)


def toy_model(**settings: Any) -> HTCL:
    config = build_config(HTCLConfig, {"hidden": 4, "inner": 6, "dropout": 0.0, **settings})
    return HTCL(toy_inputs(), config, generator=torch.Generator().manual_seed(0)).double()


def toy_batch(**changes: Any) -> AlignmentBatch:
    given: dict[str, Any] = {
        "items": torch.tensor([0, 2, 3]),
        "anchors": torch.tensor([0, 2, 3]),
        "positives": torch.tensor([1, 4, 5]),
        "negatives": torch.tensor([6, -1, 2]),
        "excluded": (torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0])),
        "total": 3.0,
    }
    return AlignmentBatch(**{**given, **changes})


def preference_by_loops(
    anchors: Tensor, positives: Tensor, negatives: Tensor, known: list[bool], pairs: set[tuple[int, int]], tau: float
) -> float:
    losses = []
    for i, anchor in enumerate(anchors):
        terms = [math.exp(float(anchor @ p) / tau) for j, p in enumerate(positives) if (i, j) not in pairs]
        if known[i]:
            terms.append(math.exp(float(anchor @ negatives[i]) / tau))
        losses.append(-math.log(math.exp(float(anchor @ positives[i]) / tau) / sum(terms)))
    return sum(losses) / len(losses)


def test_objective_is_that_of_the_formulas() -> None:
    model = toy_model(semantic_weight=0.3)
    batch = toy_batch()
    z = model.item_embeddings().detach()
    parts = model.objective(batch)[1]
    assert batch.anchors is not None
    assert batch.positives is not None
    assert batch.negatives is not None
    rows = z[batch.anchors], z[batch.positives], z[batch.negatives.clamp(min=0)]
    expected = preference_by_loops(*rows, [True, False, True], {(0, 2), (2, 0)}, 0.07)
    assert float(parts["preference"]) == pytest.approx(expected)
    texts = model.encode_texts(model.inputs.texts[batch.items]).detach()
    logits = z[batch.items] @ texts.T / 0.07
    own = torch.arange(3)
    both = [torch.nn.functional.cross_entropy(side, own) for side in (logits, logits.T)]
    torch.testing.assert_close(parts["semantic"], 0.3 * (both[0] + both[1]) / 2)
    first = model.objective(AlignmentBatch(batch.items, total=3))[1]
    torch.testing.assert_close(first["semantic"], (both[0] + both[1]) / 2)


def test_gradients_of_the_preference_contrast() -> None:
    draws = torch.Generator().manual_seed(2)
    rows = [torch.randn(4, 3, generator=draws, dtype=torch.float64).requires_grad_() for _ in range(3)]
    known = torch.tensor([True, False, True, True])
    excluded = torch.tensor([0, 1, 1, 1, 3]), torch.tensor([2, 0, 1])
    assert torch.autograd.gradcheck(
        lambda a, p, n: 1.3 * preference_contrast(a, p, n, known=known, excluded=excluded, temperature=0.5), rows
    )
    assert torch.autograd.gradcheck(lambda a, p, n: preference_contrast(a, p, temperature=0.5) + n.sum(), rows)


@pytest.mark.parametrize("freeze", ["none", "text", "text_and_first_layer"])
def test_second_stage_freezes_what_is_named(freeze: str) -> None:
    model = toy_model(freeze=freeze)
    model.objective(AlignmentBatch(torch.tensor([0, 1, 2]), total=3))[0].backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in model.parameters())
    model.zero_grad()
    model.objective(toy_batch())[0].backward()  # type: ignore[no-untyped-call]
    still = {name.split(".")[0] + name[10:12] for name, weight in model.named_parameters() if weight.grad is None}
    text, first = {"text_tower.0", "text_tower.3"}, {"item_tower.0"}
    assert still == {"none": set(), "text": text, "text_and_first_layer": text | first}[freeze]


def test_temperature_is_learned_and_has_a_floor() -> None:
    model = toy_model()
    loss = model.objective(toy_batch())[0]
    assert model.temperature.log_temperature is not None
    assert float(torch.autograd.grad(loss, model.temperature.log_temperature)[0]) != 0.0
    with torch.no_grad():
        model.temperature.log_temperature.fill_(-9.0)
    assert float(torch.as_tensor(model.temperature()).detach()) == pytest.approx(0.01)


def test_vectors_are_of_unit_length_and_zero_without_features() -> None:
    lengths = toy_model().item_embeddings().norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0] * 7 + [0.0], dtype=torch.float64))


def test_one_item_alone_gives_no_loss() -> None:
    loss, _ = toy_model().objective(AlignmentBatch(torch.tensor([2]), total=1))
    assert float(loss.detach()) == 0.0


def test_weights_alone_restore_a_model() -> None:
    model, other = toy_model(), HTCL(toy_inputs(), HTCLConfig(hidden=4, inner=6)).double().eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.item_embeddings(), other.item_embeddings(), rtol=0, atol=0)


def test_bad_inputs_are_named() -> None:
    both = torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="as many rows"):
        HTCL(AlignmentInputs(torch.eye(3), torch.eye(2), both))
    with pytest.raises(ValueError, match="texts holds NaN"):
        HTCL(AlignmentInputs(torch.eye(2), torch.full((2, 2), torch.nan), both))
