"""The public contract of losses catches losses that break it."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from graphcl.losses import Loss, Temperature
from graphcl.testing import ContractError, check_loss

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_loss.py"


def views() -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    return first, second


def distance(z1: Tensor, z2: Tensor) -> Tensor:
    return ((z1 - z2) ** 2).sum(dim=1)


def not_scalar(z1: Tensor, z2: Tensor) -> Tensor:
    return distance(z1, z2)


def wrong_gradient(z1: Tensor, z2: Tensor) -> Tensor:
    loss = distance(z1, z2).mean()
    return 2 * loss - loss.detach()


def depends_on_order(z1: Tensor, z2: Tensor) -> Tensor:
    return distance(z1, z2)[0]


def stock_normalisation(z1: Tensor, z2: Tensor) -> Tensor:
    return -(nn.functional.normalize(z1, eps=1e-12) * z2).sum()


def collapses_on_duplicates(z1: Tensor, z2: Tensor) -> Tensor:
    return distance(z1, z2).mean() + (1 / torch.pdist(z1)).mean()


def coarse_in_float32(z1: Tensor, z2: Tensor) -> Tensor:
    coarse = torch.float64 if z1.dtype == torch.float64 else torch.bfloat16
    return distance(z1, z2).to(coarse).mean().to(z1.dtype)


class CountsOutsideItsState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        value = distance(z1, z2).mean() * self.scale
        self.scale = 2.0
        return value


class OverflowsWhenCold(nn.Module):
    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = Temperature(temperature)

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        return torch.log(torch.exp(z1 @ z2.T / self.temperature()).sum(dim=1)).mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (not_scalar, "finite: the loss must be a scalar"),
        (wrong_gradient, "gradient: differs from differences"),
        (depends_on_order, "permutation: the value changes"),
        (stock_normalisation, "zero rows: the gradient reaches"),
        (collapses_on_duplicates, "finite: .* with all embeddings equal"),
        (coarse_in_float32, "precision: float32 differs"),
    ],
)
def test_a_broken_loss_is_named(loss: Loss, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_loss(lambda: loss, views())


def test_state_outside_the_state_dictionary_is_found() -> None:
    from graphcl.testing import check_state_round_trip

    with pytest.raises(ContractError, match="state: the value differs after saving and loading"):
        check_state_round_trip(CountsOutsideItsState, views())


def test_overflow_at_a_low_temperature_is_found() -> None:
    make: Callable[[], Loss] = OverflowsWhenCold
    check_loss(make, views())
    with pytest.raises(ContractError, match="at a low temperature"):
        check_loss(make, views(), make_cold=lambda: OverflowsWhenCold(1e-3))


def test_order_may_be_declared_to_matter() -> None:
    def first_differs(z1: Tensor, z2: Tensor) -> Tensor:
        weight = torch.arange(1, len(z1) + 1)
        return (weight * distance(z1, z2)).mean()

    check_loss(lambda: first_differs, views(), permutable=False)


def test_only_what_requires_gradients_is_differentiated_where_something_does() -> None:
    def by_distance_of_targets(z1: Tensor, z2: Tensor, target: Tensor) -> Tensor:
        return (distance(z1, z2) * torch.floor(target).clamp(min=0.5)).mean()

    first, second = views()
    target = torch.arange(len(first)) + 1.0
    check_loss(lambda: by_distance_of_targets, (first.requires_grad_(), second.requires_grad_(), target))
    with pytest.raises(ContractError, match="gradient: differs from differences"):
        check_loss(lambda: by_distance_of_targets, (first.detach(), second.detach(), target))


def test_the_example_of_a_custom_loss_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the loss keeps the contract"
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (lines[1], lines[-1]))
    assert last < first / 2
