from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphcl import functional
from graphcl.losses import (
    AMCL,
    CACR,
    CMIM,
    CUA,
    CWCL,
    DCL,
    DCLW,
    HardContrastive,
    InfoNCE,
    ISogCLR,
    MultiPositiveInfoNCE,
    NTXent,
    SogCLR,
    SupCon,
    Temperature,
)
from graphcl.testing import check_loss


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, Y, LABELS = rows(6, 3), rows(6, 3, seed=1), torch.tensor([0, 1, 0, 2, 1, 0])
PAIRS = torch.tensor([[0, 1, 5], [2, 2, 0]])

DOT_BOTH = {"similarity": "dot", "symmetric": True}
IN_FORM = {"form": "in", "base_temperature": 0.1}
OWN = {"denominator": "own"}
Same = tuple[nn.Module, tuple[Any, ...], Callable[..., Any], dict[str, Any]]
SAME: list[Same] = [
    (InfoNCE(0.3, similarity="dot", symmetric=True), (X, Y), functional.info_nce, DOT_BOTH),
    (NTXent(0.3, symmetric=False), (X, Y), functional.nt_xent, {"symmetric": False}),
    (SupCon(0.3, form="in", base_temperature=0.1), (X, LABELS), functional.sup_con, IN_FORM),
    (MultiPositiveInfoNCE(0.3, denominator="own"), (X, Y, PAIRS), functional.multi_positive_info_nce, OWN),
    (DCL(0.3, similarity="sqeuclidean"), (X, Y), functional.dcl, {"similarity": "sqeuclidean"}),
    (DCLW(0.3, sigma=0.2, symmetric=False), (X, Y), functional.dclw, {"sigma": 0.2, "symmetric": False}),
    (HardContrastive(0.3, fraction=0.5), (X, Y), functional.hard_contrastive, {"fraction": 0.5}),
    (CUA(0.3, t=1.0, cross_uniformity_weight=1.0), (X, Y), functional.cua, {"t": 1.0, "cross_uniformity_weight": 1.0}),
    (CWCL(0.3, average=True), (X, Y, rows(6, 2)), functional.cwcl, {"average": True}),
    (CMIM(0.3), (X, Y), functional.cmim, {}),
]


@pytest.mark.parametrize(("module", "inputs", "function", "options"), SAME, ids=lambda value: type(value).__name__)
def test_module_equals_its_function(
    module: nn.Module, inputs: tuple[Any, ...], function: Callable[..., Any], options: dict[str, Any]
) -> None:
    assert torch.equal(module(*inputs), function(*inputs, temperature=0.3, **options))
    assert module.state_dict() == {}


def test_ids_keys_and_weights_reach_the_function() -> None:
    keys, ids, key_ids = rows(4, 3, seed=3), torch.arange(6), torch.tensor([0, 3, 9, 9])
    weight = rows(6, seed=4).abs()
    common: dict[str, Tensor] = {"keys": keys, "ids": ids, "key_ids": key_ids, "weight": weight}
    assert torch.equal(
        InfoNCE(0.3)(X, Y, **common),
        functional.info_nce(X, Y, temperature=0.3, **common),  # type: ignore[arg-type]
    )
    named = {"keys": keys, "key_labels": torch.tensor([0, 1, 2, 2]), "ids": ids, "key_ids": key_ids}
    assert torch.equal(
        SupCon(0.3)(X, LABELS, **named),
        functional.sup_con(X, LABELS, temperature=0.3, **named),  # type: ignore[arg-type]
    )


def test_cacr_module() -> None:
    module = CACR(positive_sharpness=1.2, negative_sharpness=0.9, detach_weights=True, attraction_weight=0.5)
    loss, parts = module(X, Y, X + Y, ids=LABELS, return_components=True)
    expected, wanted = functional.cacr(
        [X, Y, X + Y],
        ids=LABELS,
        positive_sharpness=1.2,
        negative_sharpness=0.9,
        detach_weights=True,
        attraction_weight=0.5,
        return_components=True,
    )
    assert torch.equal(loss, expected)
    assert torch.equal(parts["repulsion"], wanted["repulsion"])


def test_amcl_module_learns_its_temperatures_and_saves_them() -> None:
    def build(seed: int) -> AMCL:
        return AMCL(3, num_heads=2, hidden=4, generator=torch.Generator().manual_seed(seed))

    first, second = rows(2, 5, 3), rows(2, 5, 3, seed=1)
    module, other = build(0), build(1)
    loss = module(first, second)
    networks = list(module.temperatures)
    assert torch.equal(loss, torch.as_tensor(functional.amcl(list(first), list(second), networks)))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    assert not torch.equal(other(first, second), loss)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(first, second), loss)


@pytest.mark.parametrize("bimodal", [False, True])
@pytest.mark.parametrize("kind", [SogCLR, ISogCLR])
def test_sogclr_continues_after_a_checkpoint(kind: type[SogCLR], bimodal: bool) -> None:
    def run(module: SogCLR, steps: range) -> list[float]:
        values = []
        for step in steps:
            module.set_epoch(step)
            ids = torch.randperm(10, generator=torch.Generator().manual_seed(step))[:4]
            values.append(float(module(rows(4, 3, seed=step), rows(4, 3, seed=50 + step), ids)))
        return values

    straight, resumed = kind(10, bimodal=bimodal, gamma_epochs=4), kind(10, bimodal=bimodal, gamma_epochs=4)
    run(straight, range(3))
    resumed.load_state_dict(straight.state_dict())
    assert int(resumed.epoch) == 2
    assert run(straight, range(3, 6)) == run(resumed, range(3, 6))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_sogclr_module_equals_two_functional_steps_and_leaves_other_samples_alone() -> None:
    module = ISogCLR(8, dtype=torch.float64)
    state = functional.SogCLRState(
        torch.full((8,), -torch.inf, dtype=torch.float64),
        torch.full((8,), 0.1, dtype=torch.float64),
        torch.zeros(8, dtype=torch.float64),
    )
    for seed, ids in enumerate((torch.tensor([1, 4, 6]), torch.tensor([6, 7, 1]))):
        x, y = rows(3, 3, seed=seed).double(), rows(3, 3, seed=9 + seed).double()
        step = functional.sogclr(
            x,
            y,
            functional.SogCLRState(*(part[ids] for part in state)),
            temperature_update=functional.TemperatureUpdate(),
        )
        loss, parts = module(x, y, ids, return_components=True)
        assert torch.allclose(loss, step.loss, rtol=1e-12)
        assert torch.allclose(parts["objective"], step.objective, rtol=1e-12)
        for part, new in zip(state, step.states[0], strict=True):
            part[ids] = new
    assert torch.allclose(module.temperatures(), state.temperature, rtol=1e-12)
    assert module.temperatures()[[0, 2, 3, 5]].tolist() == [0.1] * 4


def test_sogclr_in_evaluation_does_not_move() -> None:
    module = ISogCLR(5).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(rows(4, 3), rows(4, 3, seed=1), torch.arange(4))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(IndexError, match="ids holds 5"):
        module(rows(2, 3), rows(2, 3), torch.tensor([0, 5]))


IDS = torch.arange(6)
CONTRACTS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], Callable[[], nn.Module] | None]] = {
    "InfoNCE": (lambda: InfoNCE(Temperature(0.2, learnable=True)), (X, Y), lambda: InfoNCE(1e-3)),
    "NTXent": (NTXent, (X, Y), lambda: NTXent(1e-3)),
    "SupCon": (lambda: SupCon(0.5), (X, LABELS), lambda: SupCon(1e-3)),
    "DCL": (DCL, (X, Y), lambda: DCL(1e-3)),
    "HardContrastive": (lambda: HardContrastive(num_negatives=2), (X, Y), lambda: HardContrastive(1e-3, fraction=0.5)),
    "CUA": (lambda: CUA(0.5), (X, Y), lambda: CUA(1e-3)),
    "CACR": (CACR, (X, Y, rows(6, 3, seed=2)), None),
    "CMIM": (CMIM, (X,), lambda: CMIM(1e-3)),
    "AMCL": (lambda: AMCL(3, num_heads=6, hidden=4, generator=torch.Generator().manual_seed(0)), (), None),
}


@pytest.mark.parametrize("name", [name for name, contract in CONTRACTS.items() if contract[1]])
def test_modules_keep_the_public_contract(name: str) -> None:
    make, inputs, cold = CONTRACTS[name]
    check_loss(make, inputs, make_cold=cold)


@pytest.mark.parametrize("make", [lambda: InfoNCE(reduction="max"), lambda: AMCL(2, reduction="max")])  # type: ignore[arg-type]
def test_an_unknown_reduction_is_refused_at_once(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'max'"):
        make()


def test_hard_contrastive_needs_one_way_to_choose() -> None:
    with pytest.raises(ValueError, match="give one of num_negatives and fraction"):
        HardContrastive()
