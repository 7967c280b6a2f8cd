"""Properties that every prototype, cluster, hierarchy and consistency objective has, on random batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import (
    bacon_soft,
    cluster_restricted_info_nce,
    comet_id,
    comet_sample,
    dbpm,
    hiclr,
    icnn,
    interclr,
    mlcd,
    norm_direction,
    palm,
    propagation_consistency,
    proto_triplet,
    sbcl,
    sepclr,
    sepclr_joint_entropy,
    swav,
    uniclr,
)

Objective = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]
BUDGET = 2**26


def _fixed(x: Tensor, count: int = 3) -> Tensor:
    """Rows that do not move with the batch."""
    draw = torch.Generator().manual_seed(99)
    return torch.randn(count, x.shape[1], dtype=torch.float64, generator=draw).to(x.dtype)


def _same(labels: Tensor) -> Tensor:
    return (labels[:, None] == labels).nonzero().T


def _one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, 3).double() * 0.6 + 0.1


#: name -> f(x, y, labels, temperature, memory_budget); cosine objectives
COSINE: dict[str, Objective] = {
    "swav": lambda x, y, c, t, m: swav([x, y], _fixed(x), temperature=t, memory_budget=m),
    "palm": lambda x, y, c, t, m: palm(x, c, _fixed(x), torch.arange(3), top_k=1, temperature=t).loss,
    "mlcd": lambda x, y, c, t, m: mlcd(
        x, _fixed(x), torch.stack([torch.arange(len(c)), c]), scale=1 / t, memory_budget=m
    ),
    "sbcl": lambda x, y, c, t, m: torch.as_tensor(sbcl(x, y, c // 2, c, temperature=t, memory_budget=m)),
    "sbcl_rank": lambda x, y, c, t, m: torch.as_tensor(
        sbcl(x, y, c // 2, c, class_temperature=x.new_tensor([t, 2 * t]), temperature=t, memory_budget=m)
    ),
    "bacon_soft": lambda x, y, c, t, m: bacon_soft(x, y, _one_hot(c), temperature=t, memory_budget=m),
    "clusters": lambda x, y, c, t, m: cluster_restricted_info_nce(
        x, y, torch.stack([c // 2, c]), min_negatives=2, temperature=t, memory_budget=m
    ),
    "interclr": lambda x, y, c, t, m: interclr(
        x, _fixed(x, 6), c, torch.stack([c + 1, c + 3], dim=1), temperature=t, memory_budget=m
    ),
    "dbpm": lambda x, y, c, t, m: torch.as_tensor(
        dbpm(x, y, c + 0.5, mean=1.5, deviation=0.3, temperature=t, memory_budget=m)
    ),
    "hiclr": lambda x, y, c, t, m: torch.as_tensor(
        hiclr([x, y], x + y, _fixed(x, 5), neighbors=1, temperature=t, memory_budget=m)
    ),
    "uniclr": lambda x, y, c, t, m: uniclr([x, y], [y, -x], soft_temperature=0.5, temperature=t, memory_budget=m),
    "comet_id": lambda x, y, c, t, m: comet_id(
        x[:, None], y[:, None], c, temperature=t, normalize_time=False, memory_budget=m
    ),
    "propagation": lambda x, y, c, t, m: propagation_consistency(x, y, _same(c), memory_budget=m),
    "propagation_all": lambda x, y, c, t, m: propagation_consistency(x, y, gamma=1.0, memory_budget=m),
}
#: objectives of embeddings as they are
RAW: dict[str, Objective] = {
    "comet_sample": lambda x, y, c, t, m: comet_sample(x[:, None], y[:, None], temperature=t, memory_budget=m),
    "sepclr": lambda x, y, c, t, m: torch.as_tensor(
        sepclr([x, y], [y, x], c > 0, salient_weight=1.0, background_weight=1.0, memory_budget=m)
    ),
    "sepclr_entropy": lambda x, y, c, t, m: sepclr_joint_entropy(x, y, temperature=t, memory_budget=m),
    "norm_direction": lambda x, y, c, t, m: norm_direction(x, y, c, _fixed(x)),
    "proto_triplet": lambda x, y, c, t, m: proto_triplet(x, _fixed(x), c, memory_budget=m),
    "icnn": lambda x, y, c, t, m: torch.as_tensor(icnn(x, c, k=2, memory_budget=m)),
}
OBJECTIVES = COSINE | RAW
SWAPPABLE = ("swav", "sbcl", "sbcl_rank", "bacon_soft", "dbpm", "comet_sample")
#: positives above the diagonal take other denominators than those below
ORDERED = ("comet_id",)

every = pytest.mark.parametrize("name", list(OBJECTIVES))


def batch(seed: int, num: int = 6, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, num, dim, dtype=torch.float64, generator=draw)
    return x, y, torch.randint(0, 3, (num,), generator=draw)


def value_and_gradient(name: str, x: Tensor, y: Tensor, labels: Tensor, tau: float, budget: int) -> list[Tensor]:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = OBJECTIVES[name](x, y, labels, tau, budget)
    gradients = torch.autograd.grad(value, [x, y], allow_unused=True)
    return [value.detach(), *(g if g is not None else torch.zeros_like(x) for g in gradients)]


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ORDERED])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(2, 9), tau=st.floats(0.05, 2.0))
def test_rows_may_come_in_any_order(name: str, seed: int, num: int, tau: float) -> None:
    x, y, labels = batch(seed, num)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    plain = value_and_gradient(name, x, y, labels, tau, BUDGET)
    mixed = value_and_gradient(name, x[order], y[order], labels[order], tau, BUDGET)
    assert torch.allclose(plain[0], mixed[0], rtol=1e-9, atol=1e-11)
    for first, second in zip(plain[1:], mixed[1:], strict=True):
        assert torch.allclose(first[order], second, rtol=1e-7, atol=1e-9)


@every
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(2, 7))
def test_blocks_of_one_pair_give_the_same(name: str, seed: int, num: int) -> None:
    x, y, labels = batch(seed, num)
    whole = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    blocks = value_and_gradient(name, x, y, labels, 0.3, 1)
    for first, second in zip(whole, blocks, strict=True):
        assert torch.allclose(first, second, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in COSINE if name != "hiclr"])  # its keys are a sum of both views here
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_cosine_objectives_do_not_see_the_scale(name: str, seed: int, scale: float) -> None:
    factors = scale ** torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    x, y, labels = batch(seed)
    plain = OBJECTIVES[name](x, y, labels, 0.3, BUDGET)
    scaled = OBJECTIVES[name](x * factors, y * factors.flip(0), labels, 0.3, BUDGET)
    assert torch.allclose(plain, scaled, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SWAPPABLE)
def test_views_may_be_swapped(name: str) -> None:
    x, y, labels = batch(1)
    plain, swapped = (OBJECTIVES[name](a, b, labels, 0.3, BUDGET) for a, b in ((x, y), (y, x)))
    assert torch.allclose(plain, swapped, rtol=1e-11)


@every
def test_zero_rows_harm_nobody(name: str) -> None:
    x, y, labels = batch(2)
    x[1] = 0.0
    y[1] = 0.0
    value, *gradients = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    assert bool(value.isfinite())
    for gradient in gradients:
        assert bool(gradient.isfinite().all())
        if name in COSINE:
            assert torch.equal(gradient[1], torch.zeros(4, dtype=torch.float64))


@every
@pytest.mark.parametrize("num", [0, 1, 2, 5])
def test_all_duplicates_are_finite(name: str, num: int) -> None:
    x = batch(3, 1)[0].expand(num, 4)
    value, *gradients = value_and_gradient(name, x, x, torch.zeros(num, dtype=torch.int64), 0.3, BUDGET)
    assert bool(value.isfinite())
    for gradient in gradients:
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "palm"])
def test_an_empty_batch_costs_nothing(name: str) -> None:
    x = torch.zeros(0, 4)
    assert float(OBJECTIVES[name](x, x, torch.zeros(0, dtype=torch.int64), 0.3, BUDGET)) == 0.0


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_low_temperature_is_finite(name: str, dtype: torch.dtype) -> None:
    x, y, labels = batch(4)
    for tensor in value_and_gradient(name, x.to(dtype), y.to(dtype), labels, 1e-3, BUDGET):
        assert bool(tensor.isfinite().all())


@every
def test_float32_agrees_with_float64(name: str) -> None:
    x, y, labels = batch(5, 12, 8)
    exact = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    single = value_and_gradient(name, x.float(), y.float(), labels, 0.3, BUDGET)
    for wide, narrow in zip(exact, single, strict=True):
        assert narrow.dtype == torch.float32
        assert torch.allclose(wide, narrow.double(), rtol=1e-4, atol=1e-5)


@every
def test_bfloat16_inputs_are_accumulated_in_float32(name: str) -> None:
    x, y, labels = batch(5, 12, 8)
    x, y = x.bfloat16(), y.bfloat16()
    half = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    exact = value_and_gradient(name, x.double(), y.double(), labels, 0.3, BUDGET)
    assert half[0].dtype == torch.float32
    assert half[1].dtype == torch.bfloat16
    assert torch.allclose(exact[0], half[0].double(), rtol=0.05, atol=0.05)


@every
def test_rows_need_not_be_contiguous(name: str) -> None:
    x, y, labels = batch(6)
    strided = torch.stack([x, y], dim=2)
    plain = OBJECTIVES[name](x, y, labels, 0.3, BUDGET)
    assert torch.allclose(OBJECTIVES[name](strided[..., 0], strided[..., 1], labels, 0.3, BUDGET), plain, rtol=1e-12)
