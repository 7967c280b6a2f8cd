from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from graphcl.functional import multi_positive_info_nce, nt_xent
from graphcl.losses import InfoNCE, MultiPositiveInfoNCE, NTXent, PairTemperature, Temperature
from graphcl.losses import temperature as temperature_module


def test_fixed_temperature_is_the_number_itself() -> None:
    temperature = Temperature(0.07)
    assert temperature() == 0.07
    assert list(temperature.parameters()) == []
    assert temperature.state_dict() == {}


def test_learned_temperature_starts_at_its_value_and_is_saved() -> None:
    temperature = Temperature(0.3, learnable=True)
    value = temperature()
    assert isinstance(value, torch.Tensor)
    assert value.item() == pytest.approx(0.3)
    other = Temperature(0.9, learnable=True)
    other.load_state_dict(temperature.state_dict())
    assert torch.equal(torch.as_tensor(other()), value)


def test_learned_temperature_stays_between_its_bounds_and_comes_back() -> None:
    temperature = Temperature(0.1, learnable=True, minimum=0.05, maximum=0.2)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=100.0)
    for sign, bound in ((1.0, 0.05), (-1.0, 0.2), (1.0, 0.05)):
        optimizer.zero_grad()
        (sign * torch.as_tensor(temperature())).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert torch.as_tensor(temperature()).item() == pytest.approx(bound, rel=1e-6)


def test_per_sample_temperatures_learn_only_where_they_are_used() -> None:
    loss = InfoNCE(Temperature(0.5, learnable=True, num_samples=6))
    z1, z2 = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    loss(z1, z2, ids=torch.tensor([4, 0, 2])).backward()
    (parameter,) = loss.parameters()
    gradient = parameter.grad
    assert gradient is not None
    assert (gradient != 0).tolist() == [True, False, True, False, True, False]


def test_losses_with_per_sample_temperatures_equal_those_with_a_vector() -> None:
    temperature = Temperature(0.5, learnable=True, num_samples=4)
    log_temperature = temperature.log_temperature
    assert log_temperature is not None
    with torch.no_grad():
        log_temperature.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    z1, z2 = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([3, 1])
    got = NTXent(temperature)(z1, z2, ids=ids)
    assert torch.allclose(got, nt_xent(z1, z2, temperature=torch.tensor([0.4, 0.2])))
    pairs = torch.tensor([[0, 1], [1, 1]])
    got = MultiPositiveInfoNCE(temperature)(z1, z2, pairs, ids=ids)
    assert torch.allclose(got, multi_positive_info_nce(z1, z2, pairs, temperature=torch.tensor([0.4, 0.2])))


def test_temperature_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="initial must be a finite number above 0, got 0"):
        Temperature(0)
    with pytest.raises(ValueError, match="initial must lie between minimum and maximum, got 5"):
        Temperature(5, learnable=True, maximum=1)
    with pytest.raises(ValueError, match="num_samples needs learnable=True"):
        Temperature(0.1, num_samples=3)
    with pytest.raises(ValueError, match="temperatures of 3 samples need ids"):
        Temperature(0.1, learnable=True, num_samples=3)()
    with pytest.raises(ValueError, match="low must be above 0 and below high"):
        PairTemperature(2, low=2.0, high=1.0)


def test_pair_temperature_equals_the_network_on_both_embeddings() -> None:
    network = PairTemperature(3, 5, low=0.1, high=0.9, generator=torch.Generator().manual_seed(2)).double()
    a, b = (torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (2, 4))
    got = network(a, b)
    weight = torch.cat([network.anchor_weight, network.candidate_weight], dim=1)
    for i in range(2):
        for j in range(4):
            hidden = torch.relu(weight @ torch.cat([a[i], b[j]]) + network.bias)
            score = (network.output_weight @ hidden + network.output_bias).item()
            assert got[i, j].item() == pytest.approx(0.1 + 0.8 / (1 + math.exp(-score)))
    assert len(network.state_dict()) == 5


@pytest.mark.parametrize("elements", [1, 6, 2**17])
def test_pair_temperature_has_the_gradient_of_the_network_in_any_tile(
    elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temperature_module, "_TILE_ELEMENTS", elements)
    monkeypatch.setattr(temperature_module, "_TILE_ROWS", 2)
    generator = torch.Generator().manual_seed(0)
    network = PairTemperature(3, 5, generator=generator).double()
    a, b, upstream = (
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((3, 3), (7, 3), (3, 7))
    )
    names = [name for name, _ in network.named_parameters()]

    def value(*inputs: Tensor) -> Tensor:
        parameters = dict(zip(names, inputs[2:], strict=True))
        temperatures: Tensor = functional_call(network, parameters, inputs[:2])
        return (temperatures * upstream).sum()

    inputs = (a, b, *network.parameters())
    assert torch.autograd.gradcheck(value, tuple(one.detach().clone().requires_grad_() for one in inputs))
    assert network(a[:0], b).shape == (0, 7)
    assert network(a, b[:0]).shape == (3, 0)
