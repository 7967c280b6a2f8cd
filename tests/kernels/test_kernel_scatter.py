"""Unsorted indices: golden tables, gradients, backends against the reference, agreement with the sorted form."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphcl.kernels import (
    SegmentBackend,
    scatter_logsumexp,
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_softmax,
    scatter_sum,
    segment_logsumexp,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
)

INF = float("inf")
SCATTER_INSTALLED = importlib.util.find_spec("torch_scatter") is not None
FAST_BACKENDS: list[SegmentBackend] = ["torch", "torch_scatter"] if SCATTER_INSTALLED else ["torch"]
BACKENDS: list[SegmentBackend] = ["reference", "auto", *FAST_BACKENDS]
REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "sum": scatter_sum,
    "mean": scatter_mean,
    "max": scatter_max,
    "min": scatter_min,
    "logsumexp": scatter_logsumexp,
    "softmax": scatter_softmax,
}
SORTED: dict[str, Callable[..., Tensor]] = {
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "min": segment_min,
    "logsumexp": segment_logsumexp,
    "softmax": segment_softmax,
}
# Group 0 is a single element, 1 has a tie at rows 0 and 2, 2 is empty, 3 is a pair of equals, 4 is empty.
INDEX = torch.tensor([1, 3, 1, 0, 3, 1])
SRC = torch.tensor([5.0, 4.0, 5.0, -1.0, 4.0, 2.0], dtype=torch.float64)
LSE_TIED = 5.0 + float(torch.log(2 + torch.exp(torch.tensor(-3.0, dtype=torch.float64))))
WEIGHT = float(torch.exp(torch.tensor(5.0 - LSE_TIED, dtype=torch.float64)))
GOLDEN = {
    "sum": [-1.0, 12.0, 0.0, 8.0, 0.0],
    "mean": [-1.0, 4.0, 0.0, 4.0, 0.0],
    "max": [-1.0, 5.0, 0.0, 4.0, 0.0],
    "min": [-1.0, 2.0, 0.0, 4.0, 0.0],
    "logsumexp": [-1.0, LSE_TIED, -INF, 4.0 + 0.6931471805599453, -INF],
    "softmax": [WEIGHT, 0.5, WEIGHT, 1.0, 0.5, 1 - 2 * WEIGHT],
}
GOLDEN_GRADIENT = {
    "sum": [1.0] * 6,
    "mean": [1 / 3, 0.5, 1 / 3, 1.0, 0.5, 1 / 3],
    "max": [1.0, 1.0, 0.0, 1.0, 0.0, 0.0],
    "min": [0.0, 1.0, 0.0, 1.0, 0.0, 1.0],
    "logsumexp": [WEIGHT, 0.5, WEIGHT, 1.0, 0.5, 1 - 2 * WEIGHT],
    "softmax": [0.0] * 6,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_golden_values_and_gradients(name: str, width: int, backend: SegmentBackend) -> None:
    """Both branches: narrow rows are added in place, wide ones after a sort."""
    src = SRC.unsqueeze(1).repeat(1, width).requires_grad_()
    out = REDUCTIONS[name](src, INDEX, 5, backend=backend)
    expected = torch.tensor(GOLDEN[name], dtype=torch.float64).unsqueeze(1).expand(-1, width)
    torch.testing.assert_close(out, expected, rtol=1e-14, atol=1e-14)
    finite = torch.where(torch.isfinite(out), out, torch.zeros_like(out))
    (gradient,) = torch.autograd.grad(finite.sum(), src)
    expected = torch.tensor(GOLDEN_GRADIENT[name], dtype=torch.float64).unsqueeze(1).expand(-1, width)
    torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("trailing", [(), (3,), (2, 9)], ids=str)
def test_gradcheck_with_random_upstream_gradient(name: str, backend: SegmentBackend, trailing: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    src = torch.randn(7, *trailing, generator=generator, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 2, 4, 0, 2, 1])
    shape = REDUCTIONS[name](src, index, 5, backend=backend).shape
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
    filled = torch.ones(7, dtype=torch.bool) if name == "softmax" else torch.bincount(index, minlength=5) > 0
    assert torch.autograd.gradcheck(
        lambda x: (REDUCTIONS[name](x, index, 5, backend=backend) * upstream)[filled].sum(), (src,)
    )


@pytest.mark.parametrize("name", REDUCTIONS)
def test_second_derivatives(name: str) -> None:
    src = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: REDUCTIONS[name](x, torch.tensor([1, 0, 1, 0, 1]), 2), (src,))


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trailing", [(), (5,), (3, 7)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_error_of_a_backend_is_at_most_that_of_the_reference(
    name: str, trailing: tuple[int, ...], dtype: torch.dtype, backend: SegmentBackend
) -> None:
    if backend == "torch_scatter" and dtype != torch.float32:
        dtype = torch.float64  # the package adds in half types
    generator = torch.Generator().manual_seed(8)
    src = torch.randn(60, *trailing, generator=generator, dtype=torch.float64).to(dtype)
    index = torch.randint(0, 20, (60,), generator=generator)
    truth_src = src.double().requires_grad_()
    truth = REDUCTIONS[name](truth_src, index, 22, backend="reference")
    finite = torch.isfinite(truth)
    upstream = torch.randn(truth.shape, generator=generator, dtype=torch.float64).to(dtype)
    upstream = torch.where(finite, upstream, torch.zeros_like(upstream))
    (truth_gradient,) = torch.autograd.grad(truth, truth_src, upstream.double())
    errors = {}
    for choice in ("reference", backend):
        leaf = src.clone().requires_grad_()
        out = REDUCTIONS[name](leaf, index, 22, backend=choice)
        (gradient,) = torch.autograd.grad(out, leaf, upstream)
        assert torch.equal(torch.isfinite(out), finite)
        errors[choice] = (out.double() - truth)[finite].abs(), (gradient.double() - truth_gradient).abs()
    for mine, plain in zip(errors[backend], errors["reference"], strict=True):
        assert (mine <= plain + 8 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("trailing", [(), (4,), (2, 16)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_sorted_index_equals_segments_and_order_of_rows_does_not_matter(name: str, trailing: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(5)
    index = torch.randint(0, 9, (40,), generator=generator).sort().values
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.bincount(index, minlength=10).cumsum(0)])
    src = torch.randn(40, *trailing, generator=generator, dtype=torch.float64)
    expected = SORTED[name](src, offsets)
    torch.testing.assert_close(REDUCTIONS[name](src, index, 10), expected, rtol=1e-12, atol=1e-12)
    shuffle = torch.randperm(40, generator=generator)
    shuffled = REDUCTIONS[name](src[shuffle], index[shuffle], 10)
    torch.testing.assert_close(shuffled, expected[shuffle] if name == "softmax" else expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_zero_sizes_and_strides(name: str, backend: SegmentBackend) -> None:
    reduce = REDUCTIONS[name]
    none = torch.zeros(0, dtype=torch.int64)
    fill = -INF if name == "logsumexp" else 0.0
    expected = torch.zeros(0, 3) if name == "softmax" else torch.full((2, 3), fill)
    assert torch.equal(reduce(torch.zeros(0, 3), none, 2, backend=backend), expected)
    assert reduce(torch.zeros(0, 3), none, 0, backend=backend).shape == (0, 3)
    assert reduce(torch.zeros(4, 0), torch.tensor([0, 1, 0, 1]), 2, backend=backend).shape[1:] == (0,)
    src = torch.randn(32, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    index = torch.arange(12) % 4
    torch.testing.assert_close(
        reduce(src.T, index[::2], 4, backend=backend),
        reduce(src.T.contiguous(), index[::2].contiguous(), 4, backend="reference"),
        rtol=1e-12,
        atol=1e-12,
    )


def test_integers_add_exactly() -> None:
    index = torch.tensor([0, 1, 0])
    assert scatter_sum(torch.tensor([2**53, 7, 1]), index, 3).tolist() == [2**53 + 1, 7, 0]
    assert scatter_max(torch.tensor([[2], [7], [5]]), index, 3, empty=-1).tolist() == [[5], [7], [-1]]


def test_narrow_half_sums_do_not_stall() -> None:
    ones = torch.ones(4096, dtype=torch.bfloat16)
    assert scatter_sum(ones, torch.zeros(4096, dtype=torch.int64), 1).item() == 4096.0


@pytest.mark.parametrize("name", REDUCTIONS)
def test_repeated_runs_agree_to_the_bit_under_deterministic_algorithms(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    src = torch.randn(20_000, 16, generator=generator, requires_grad=True)
    index = torch.randint(0, 50, (20_000,), generator=generator)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [REDUCTIONS[name](src, index, 50) for _ in range(2)]
        gradients = [torch.autograd.grad(out.square().sum(), src)[0] for out in runs]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(gradients[0], gradients[1])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(IndexError, match=r"index holds 5, outside 0 .. 4"):
        scatter_sum(torch.ones(2), torch.tensor([5, 0]), 5)
    with pytest.raises(IndexError, match=r"index holds -1, outside 0 .. 4"):
        scatter_softmax(torch.ones(2), torch.tensor([-1, 0]), 5)
    with pytest.raises(IndexError, match=r"index holds 2147483648, outside 0 .. 4"):
        scatter_max(torch.ones(1), torch.tensor([2**31]), 5)
    with pytest.raises(ValueError, match=r"index must have shape \(2,\), one entry per row of src, got \(3,\)"):
        scatter_sum(torch.ones(2), torch.tensor([0, 0, 0]), 5)
    with pytest.raises(TypeError, match=r"index must be int64 or int32, got dtype torch.float32"):
        scatter_sum(torch.ones(2), torch.ones(2), 5)
    with pytest.raises(ValueError, match="dim_size must be an integer of at least 0, got -1"):
        scatter_sum(torch.ones(0), torch.zeros(0, dtype=torch.int64), -1)
    with pytest.raises(ValueError, match=r"dim_size must be an integer of at least 0, got 2\.5"):
        scatter_sum(torch.ones(0), torch.zeros(0, dtype=torch.int64), 2.5)  # type: ignore[arg-type]


def test_check_can_be_switched_off() -> None:
    """Without the check a wrong index is caught, if at all, by torch itself and not by our message."""
    with pytest.raises((IndexError, RuntimeError)) as raised:
        scatter_sum(torch.ones(2), torch.tensor([9, 0]), 5, check=False)
    assert "outside 0 .." not in str(raised.value)


@pytest.mark.parametrize("backend", ["reference", *FAST_BACKENDS])
def test_segments_of_infinities_are_not_empty(backend: SegmentBackend) -> None:
    index = torch.tensor([2, 0, 2])
    low = torch.full((3, 2), -INF, dtype=torch.float64, requires_grad=True)
    high = torch.full((3, 2), INF, dtype=torch.float64)
    top = scatter_max(low, index, 3, empty=7.0, backend=backend)
    assert top[:, 0].tolist() == [-INF, 7.0, -INF]
    assert scatter_min(high, index, 3, empty=7.0, backend=backend)[:, 1].tolist() == [INF, 7.0, INF]
    (grad,) = torch.autograd.grad(top[:, 0], low, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert grad[:, 0].tolist() == [3.0, 1.0, 0.0]


@pytest.mark.parametrize("backend", ["reference", *FAST_BACKENDS])
def test_nothing_but_empty_segments_has_gradient_zero(backend: SegmentBackend) -> None:
    index = torch.zeros(0, dtype=torch.int64)
    for function in (scatter_sum, scatter_mean, scatter_max, scatter_min, scatter_logsumexp, scatter_softmax):
        src = torch.zeros(0, 2, requires_grad=True)
        (grad,) = torch.autograd.grad(function(src, index, 3, backend=backend).sum(), src)
        assert grad.shape == (0, 2)


@pytest.mark.parametrize("backend", ["reference", *FAST_BACKENDS])
def test_extremes_of_empty_segments_keep_the_integer_type(backend: SegmentBackend) -> None:
    out = scatter_max(torch.tensor([3, 5], dtype=torch.int32), torch.tensor([1, 1]), 2, backend=backend)
    assert out.dtype == torch.int32
    assert out.tolist() == [0, 5]
