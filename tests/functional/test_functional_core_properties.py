"""Properties that every objective of the softmax core has, on random batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphcl.functional import (
    SogCLRState,
    amcl,
    cacr,
    cmim,
    cua,
    cwcl,
    dcl,
    dclw,
    hard_contrastive,
    info_nce,
    multi_positive_info_nce,
    nt_xent,
    simple_contrastive,
    sogclr,
    sogclr_bimodal,
    sup_con,
    uniformity,
)

Objective = Callable[[Tensor, Tensor, Tensor, float, int], Tensor]


def _state(x: Tensor, tau: float) -> SogCLRState:
    start = torch.zeros(len(x), dtype=x.dtype if x.dtype == torch.float64 else torch.float32)
    return SogCLRState(start, start + tau, start)


def _pairs(labels: Tensor) -> Tensor:
    return (labels[:, None] == labels[None, :]).nonzero().T


def _teacher(labels: Tensor) -> Tensor:
    return torch.stack([labels.double().cos(), labels.double().sin()], dim=1)


#: name -> f(x, y, labels, temperature, memory_budget)
OBJECTIVES: dict[str, Objective] = {
    "info_nce": lambda x, y, c, t, m: info_nce(x, y, temperature=t, symmetric=True, memory_budget=m),
    "info_nce_ids": lambda x, y, c, t, m: info_nce(x, y, ids=c, temperature=t, memory_budget=m),
    "info_nce_keys": lambda x, y, c, t, m: info_nce(x, y, keys=y * 2, ids=c, key_ids=c, temperature=t, memory_budget=m),
    "nt_xent": lambda x, y, c, t, m: nt_xent(x, y, temperature=t, memory_budget=m),
    "nt_xent_ids": lambda x, y, c, t, m: nt_xent(x, y, ids=c, temperature=t, memory_budget=m),
    "sup_con_out": lambda x, y, c, t, m: sup_con(torch.cat([x, y]), c.repeat(2), temperature=t, memory_budget=m),
    "sup_con_in": lambda x, y, c, t, m: sup_con(x, c, form="in", temperature=t, memory_budget=m),
    "sparse_shared": lambda x, y, c, t, m: multi_positive_info_nce(x, y, _pairs(c), temperature=t, memory_budget=m),
    "sparse_own": lambda x, y, c, t, m: multi_positive_info_nce(
        x, y, _pairs(c), denominator="own", temperature=t, memory_budget=m
    ),
    "dcl": lambda x, y, c, t, m: dcl(x, y, temperature=t, memory_budget=m),
    "dclw": lambda x, y, c, t, m: dclw(x, y, ids=c, temperature=t, detach_weight=False, memory_budget=m),
    "hard": lambda x, y, c, t, m: hard_contrastive(x, y, fraction=0.5, temperature=t, memory_budget=m),
    "simple": lambda x, y, c, t, m: simple_contrastive(x, y),
    "uniformity": lambda x, y, c, t, m: uniformity(x, t=1 / t, memory_budget=m),
    "cua": lambda x, y, c, t, m: torch.as_tensor(
        cua(x, y, temperature=t, cross_uniformity_weight=1.0, memory_budget=m)
    ),
    "cacr": lambda x, y, c, t, m: torch.as_tensor(cacr([x, y, x + y], negative_sharpness=1 / t, memory_budget=m)),
    "cacr_detached": lambda x, y, c, t, m: torch.as_tensor(
        cacr([x, y], ids=c, negative_sharpness=1 / t, detach_weights=True, memory_budget=m)
    ),
    "cwcl": lambda x, y, c, t, m: torch.as_tensor(cwcl(x, y, _teacher(c), temperature=t, memory_budget=m)),
    "amcl": lambda x, y, c, t, m: torch.as_tensor(
        amcl([x], [y], [torch.full((len(x), len(x)), t, dtype=x.dtype)], memory_budget=m)
    ),
    "cmim": lambda x, y, c, t, m: cmim(x, y, temperature=t, memory_budget=m),
    "sogclr": lambda x, y, c, t, m: sogclr(x, y, _state(x, t), memory_budget=m).loss,
    "sogclr_bimodal": lambda x, y, c, t, m: sogclr_bimodal(x, y, _state(x, t), _state(x, t), memory_budget=m).loss,
}
SWAPPABLE = ("info_nce", "nt_xent", "nt_xent_ids", "sup_con_out", "dcl", "dclw", "cua", "sogclr")
# Their surrogates measure e^{s/tau} against a state of u = 1, which no low temperature keeps in range of float32.
UNBOUNDED_AT_LOW_TEMPERATURE = ("sogclr", "sogclr_bimodal")
BUDGET = 2**26

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


@every
@settings(max_examples=8, deadline=None)
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
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(2, 9))
def test_blocks_of_one_pair_give_the_same(name: str, seed: int, num: int) -> None:
    x, y, labels = batch(seed, num)
    whole = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    blocks = value_and_gradient(name, x, y, labels, 0.3, 1)
    for first, second in zip(whole, blocks, strict=True):
        assert torch.allclose(first, second, rtol=1e-10, atol=1e-12)


@every
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_cosine_objectives_do_not_see_the_scale(name: str, seed: int, scale: float) -> None:
    if name == "cacr":  # its third view here is a sum of the other two, so both must be scaled alike
        factors = torch.full((6, 1), scale, dtype=torch.float64)
    else:
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
def test_zero_rows_have_zero_gradient_and_harm_nobody(name: str) -> None:
    x, y, labels = batch(2)
    x[1] = 0.0
    y[1] = 0.0
    value, *gradients = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    assert bool(value.isfinite())
    for gradient in gradients:
        assert bool(gradient.isfinite().all())
        assert torch.equal(gradient[1], torch.zeros(4, dtype=torch.float64))


@every
@pytest.mark.parametrize("num", [1, 2, 5])
def test_all_duplicates_are_finite(name: str, num: int) -> None:
    x = batch(3, 1)[0].expand(num, 4)
    for tensor in value_and_gradient(name, x, x, torch.zeros(num, dtype=torch.int64), 0.3, BUDGET):
        assert bool(tensor.isfinite().all())


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_low_temperature_is_finite(name: str, dtype: torch.dtype) -> None:
    tau = 0.05 if name in UNBOUNDED_AT_LOW_TEMPERATURE else 1e-3
    x, y, labels = batch(4)
    for tensor in value_and_gradient(name, x.to(dtype), y.to(dtype), labels, tau, BUDGET):
        assert bool(tensor.isfinite().all())


@every
def test_narrow_types_agree_with_float64(name: str) -> None:
    x, y, labels = batch(5, 12, 8)
    exact = value_and_gradient(name, x, y, labels, 0.3, BUDGET)
    single = value_and_gradient(name, x.float(), y.float(), labels, 0.3, BUDGET)
    for wide, narrow in zip(exact, single, strict=True):
        assert narrow.dtype == torch.float32
        assert torch.allclose(wide, narrow.double(), rtol=2e-5, atol=2e-6)
    half = value_and_gradient(name, x.bfloat16(), y.bfloat16(), labels, 0.3, BUDGET)
    assert half[0].dtype == torch.float32
    assert half[1].dtype == torch.bfloat16
    assert torch.allclose(exact[0], half[0].double(), rtol=0.05, atol=0.05)


@every
def test_rows_need_not_be_contiguous(name: str) -> None:
    x, y, labels = batch(6)
    strided = torch.stack([x, y], dim=2)
    plain = OBJECTIVES[name](x, y, labels, 0.3, BUDGET)
    assert torch.allclose(OBJECTIVES[name](strided[..., 0], strided[..., 1], labels, 0.3, BUDGET), plain, rtol=1e-12)
