"""Modules of many views, regression, ranking and extreme multi-label: same numbers as the functions, own state only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphcl import functional, losses
from graphcl.losses import Loss, LossOutput, Temperature
from graphcl.losses.protocol import split_output


def random_rows(seed: int, rows: int = 6) -> Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


A, B, C = (random_rows(seed) for seed in range(3))
LABELS = torch.tensor([0, 1, 0, 2, 1, 2])
TARGETS = torch.tensor([0.0, 0.5, 2.0, 3.0, 3.5, 4.2])
PAIRS = torch.stack([torch.arange(6), torch.tensor([5, 4, 3, 2, 1, 0])])
DISTANCES = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 2, 0]])
LEVELS = 3 - DISTANCES.clamp_max(3) - (DISTANCES == 2).long()
GRADES = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))

CASES: dict[str, tuple[nn.Module, tuple[Any, ...], Callable[[], LossOutput]]] = {
    "MVInfoNCE": (
        losses.MVInfoNCE(0.3, denominator="cross"),
        ([A, B, C],),
        lambda: functional.mv_infonce([A, B, C], temperature=0.3, denominator="cross"),
    ),
    "MVDHEL": (losses.MVDHEL(0.3), ([A, B, C],), lambda: functional.mv_dhel([A, B, C], temperature=0.3)),
    "PairwiseNTXent": (
        losses.PairwiseNTXent(0.3),
        ([A, B, C],),
        lambda: functional.pairwise_nt_xent([A, B, C], temperature=0.3),
    ),
    "MeanViewNTXent": (
        losses.MeanViewNTXent(0.3),
        ([A, B, C],),
        lambda: functional.mean_view_nt_xent([A, B, C], temperature=0.3),
    ),
    "PolyView": (losses.PolyView(0.3), ([A, B, C],), lambda: functional.poly_view([A, B, C], temperature=0.3)),
    "PMRL": (
        losses.PMRL(0.3, 0.4, instance_weight=0.5),
        ([A, B, C],),
        lambda: functional.pmrl(
            [A, B, C], temperature=0.3, instance_temperature=0.4, instance_weight=0.5, return_components=True
        ),
    ),
    "SupReMix": (
        losses.SupReMix(0.4, window=2.0),
        ([A, B], TARGETS),
        lambda: functional.supremix([A, B], TARGETS, temperature=0.4, window=2.0, anchor_share=0.2),
    ),
    "ConR": (
        losses.ConR(0.2, push=0.1, denominator="released"),
        (A, TARGETS, TARGETS.flip(0)),
        lambda: functional.conr(A, TARGETS, TARGETS.flip(0), temperature=0.2, push=0.1, denominator="released"),
    ),
    "GroCo": (
        losses.GroCo(2, steepness=3.0),
        ([A, B],),
        lambda: functional.groco([A, B], num_negatives=2, steepness=3.0),
    ),
    "MultiLabelSoftmax": (
        losses.MultiLabelSoftmax(0.5),
        (A, B, PAIRS),
        lambda: functional.multi_label_softmax(A, B, PAIRS, temperature=0.5),
    ),
    "DecoupledSoftmax": (
        losses.DecoupledSoftmax(0.5, similarity="cosine"),
        (A, B, PAIRS),
        lambda: functional.decoupled_softmax(A, B, PAIRS, temperature=0.5, similarity="cosine"),
    ),
    "SoftTopK": (
        losses.SoftTopK(2, alpha=3.0, temperature=0.5),
        (A, B, PAIRS),
        lambda: functional.soft_top_k(A, B, PAIRS, k=2, alpha=3.0, temperature=0.5),
    ),
    "ZLoss": (
        losses.ZLoss(1.5, 3.0),
        (A, B, LABELS),
        lambda: functional.z_loss(A, B, LABELS, slope=1.5, threshold=3.0),
    ),
    "ListwiseWasserstein": (
        losses.ListwiseWasserstein(0.5),
        (GRADES, GRADES.T),
        lambda: functional.listwise_wasserstein(GRADES, GRADES.T, temperature=0.5),
    ),
    "MultiSimilarity": (
        losses.MultiSimilarity(3.0, 20.0, 0.4),
        (A, LABELS),
        lambda: functional.multi_similarity(A, LABELS, alpha=3.0, beta=20.0, base=0.4),
    ),
    "HierarchicalMultiSimilarity": (
        losses.HierarchicalMultiSimilarity(DISTANCES, bases=[0.7, 0.3]),
        (A, LABELS),
        lambda: functional.hierarchical_multi_similarity(A, LABELS, DISTANCES, bases=[0.7, 0.3]),
    ),
    "DyCL": (
        losses.DyCL(LEVELS, scale=4.0),
        (A, B, LABELS),
        lambda: functional.dycl(A, B, LABELS, LEVELS, scale=4.0),
    ),
    "SmoothHierarchicalAP": (
        losses.SmoothHierarchicalAP(0.1, 10.0, 0.2),
        (A, B, PAIRS, torch.ones(6)),
        lambda: functional.smooth_hierarchical_ap(A, B, PAIRS, torch.ones(6), temperature=0.1, slope=10.0, margin=0.2),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_module_gives_the_numbers_of_its_function(name: str) -> None:
    module, inputs, function = CASES[name]
    options = {"anchor_share": 0.2} if name == "SupReMix" else {}
    assert isinstance(module, Loss)
    value, parts = split_output(module(*inputs, **options))
    wanted, wanted_parts = split_output(function())
    assert torch.equal(value, wanted)
    assert {key: part.item() for key, part in parts.items()} == {k: p.item() for k, p in wanted_parts.items()}


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (losses.MVInfoNCE, ([A, B],)),
        (losses.MVDHEL, ([A, B],)),
        (losses.PolyView, ([A, B],)),
        (losses.PairwiseNTXent, ([A, B],)),
        (losses.ConR, (A, TARGETS, TARGETS.flip(0))),
        (losses.SupReMix, ([A, B], TARGETS)),
        (losses.DecoupledSoftmax, (A, B, PAIRS)),
        (losses.MultiLabelSoftmax, (A, B, PAIRS)),
        (losses.ListwiseWasserstein, (GRADES, GRADES.T)),
    ],
)
def test_learnable_temperature_is_the_only_state_and_learns(build: Any, inputs: tuple[Any, ...]) -> None:
    module = build(Temperature(0.3, learnable=True))
    assert list(module.state_dict()) == ["temperature.log_temperature"]
    parameter = next(module.parameters())
    (grad,) = torch.autograd.grad(module(*inputs), [parameter])
    assert float(grad.abs()) > 0
    assert not build(0.3).state_dict()


def test_both_temperatures_of_pmrl_learn() -> None:
    module = losses.PMRL(Temperature(0.3, learnable=True), Temperature(0.4, learnable=True))
    loss, _ = module([A, B, C])
    assert all(float(grad.abs()) > 0 for grad in torch.autograd.grad(loss, list(module.parameters())))


def test_tables_are_saved_and_moved_with_the_module() -> None:
    for module, name in (
        (losses.HierarchicalMultiSimilarity(DISTANCES), "distances"),
        (losses.DyCL(LEVELS), "levels"),
    ):
        assert list(module.state_dict()) == [name]
        assert getattr(module.double(), name).dtype == torch.int64


def test_projections_of_space2_follow_the_generator_and_learn() -> None:
    paths = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 4, -1], [5, 6, -1], [5, 6, -1], [0, 1, 2]])
    first, second = (losses.SPACE2(4, 3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    loss = first(A, paths)
    assert torch.equal(loss, second(A, paths))
    subspaces = [torch.tanh(A @ w.T + b) for w, b in zip(first.weight, first.bias, strict=True)]
    torch.testing.assert_close(loss, functional.space2(subspaces, paths))
    grads = torch.autograd.grad(loss, list(first.parameters()))
    assert all(torch.isfinite(grad).all() and float(grad.abs().max()) > 0 for grad in grads)
    other = losses.SPACE2(4, 3)
    other.load_state_dict(first.state_dict())
    assert torch.equal(other(A, paths), loss)


def test_supremix_draws_from_the_generator() -> None:
    module = losses.SupReMix()
    values = [module([A, B], TARGETS, generator=torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_unknown_reduction_is_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="reduction must be"):
        losses.MVInfoNCE(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction must be"):
        losses.ZLoss(reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction must be"):
        losses.SmoothHierarchicalAP(reduction="max")  # type: ignore[arg-type]


def test_conr_hands_its_keys_on() -> None:
    given: dict[str, Any] = {
        "keys": B,
        "key_targets": TARGETS.flip(0),
        "key_predictions": TARGETS,
        "ids": torch.arange(len(A)),
        "key_ids": torch.arange(len(B)) // 2,
        "sample_weight": torch.linspace(0.5, 1.0, len(A)).to(A.dtype),
    }
    inputs = (A, TARGETS, TARGETS.flip(0))
    assert torch.equal(losses.ConR(0.2)(*inputs, **given), functional.conr(*inputs, temperature=0.2, **given))
