"""Sorted segments: golden tables, gradients, backends against the reference, edge cases and messages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graphcl.kernels import (
    SegmentBackend,
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
    "sum": segment_sum,
    "mean": segment_mean,
    "max": segment_max,
    "min": segment_min,
    "logsumexp": segment_logsumexp,
    "softmax": segment_softmax,
}
# A group of three with a tie, an empty group, a single element, a pair of equals, an empty group at the end.
OFFSETS = torch.tensor([0, 3, 3, 4, 6, 6])
SRC = torch.tensor([2.0, 5.0, 5.0, -1.0, 4.0, 4.0], dtype=torch.float64)
LSE_FIRST = 5.0 + float(torch.log(2 + torch.exp(torch.tensor(-3.0, dtype=torch.float64))))
WEIGHT = float(torch.exp(torch.tensor(5.0 - LSE_FIRST, dtype=torch.float64)))
GOLDEN = {
    "sum": [12.0, 0.0, -1.0, 8.0, 0.0],
    "mean": [4.0, 0.0, -1.0, 4.0, 0.0],
    "max": [5.0, 0.0, -1.0, 4.0, 0.0],
    "min": [2.0, 0.0, -1.0, 4.0, 0.0],
    "logsumexp": [LSE_FIRST, -INF, -1.0, 4.0 + 0.6931471805599453, -INF],
    "softmax": [1 - 2 * WEIGHT, WEIGHT, WEIGHT, 1.0, 0.5, 0.5],
}
# Gradient of the plain sum of the results: ties give all to the first row.
GOLDEN_GRADIENT = {
    "sum": [1.0] * 6,
    "mean": [1 / 3, 1 / 3, 1 / 3, 1.0, 0.5, 0.5],
    "max": [0.0, 1.0, 0.0, 1.0, 1.0, 0.0],
    "min": [1.0, 0.0, 0.0, 1.0, 1.0, 0.0],
    "logsumexp": [1 - 2 * WEIGHT, WEIGHT, WEIGHT, 1.0, 0.5, 0.5],
    "softmax": [0.0] * 6,
}


def random_problem(seed: int, trailing: tuple[int, ...], segments: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 5, (segments,), generator=generator)
    lengths[1] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return torch.randn(int(offsets[-1]), *trailing, generator=generator, dtype=torch.float64), offsets


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_golden_values_and_gradients(name: str, backend: SegmentBackend) -> None:
    src = SRC.clone().requires_grad_()
    out = REDUCTIONS[name](src, OFFSETS, backend=backend)
    torch.testing.assert_close(out, torch.tensor(GOLDEN[name], dtype=torch.float64), rtol=1e-14, atol=1e-14)
    finite = torch.where(torch.isfinite(out), out, torch.zeros_like(out))
    (gradient,) = torch.autograd.grad(finite.sum(), src)
    expected = torch.tensor(GOLDEN_GRADIENT[name], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("trailing", [(), (3,), (2, 2), (17,)], ids=str)
def test_gradcheck_with_random_upstream_gradient(name: str, backend: SegmentBackend, trailing: tuple[int, ...]) -> None:
    src, offsets = random_problem(3, trailing, segments=4)
    src.requires_grad_()
    shape = REDUCTIONS[name](src, offsets, backend=backend).shape
    upstream = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    filled = torch.ones(4, dtype=torch.bool) if name == "softmax" else offsets.diff() > 0

    def weighted(x: Tensor) -> Tensor:
        out = REDUCTIONS[name](x, offsets, backend=backend)
        return (out * upstream).sum() if name == "softmax" else (out * upstream)[filled].sum()

    assert torch.autograd.gradcheck(weighted, (src,))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "logsumexp", "softmax"])
def test_second_derivatives(name: str) -> None:
    src = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    offsets = torch.tensor([0, 2, 5])
    assert torch.autograd.gradgradcheck(lambda x: REDUCTIONS[name](x, offsets), (src,))


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trailing", [(), (1,), (5,), (16,), (3, 7)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_error_of_a_backend_is_at_most_that_of_the_reference(
    name: str, trailing: tuple[int, ...], dtype: torch.dtype, backend: SegmentBackend
) -> None:
    """Against the float64 truth, the fast backend may not be worse than the plain one beyond a rounding."""
    if backend == "torch_scatter" and dtype != torch.float32:
        dtype = torch.float64
    src, offsets = random_problem(11, trailing, segments=20)
    src = src.to(dtype)
    truth_src = src.double().requires_grad_()
    truth = REDUCTIONS[name](truth_src, offsets, backend="reference")
    upstream = torch.randn(truth.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    upstream = torch.where(torch.isfinite(truth), upstream, torch.zeros_like(upstream))
    (truth_gradient,) = torch.autograd.grad(truth, truth_src, upstream.double())
    errors = {}
    for choice in ("reference", backend):
        leaf = src.clone().requires_grad_()
        out = REDUCTIONS[name](leaf, offsets, backend=choice)
        assert out.dtype == dtype
        (gradient,) = torch.autograd.grad(out, leaf, upstream)
        finite = torch.isfinite(truth)
        assert torch.equal(torch.isfinite(out), finite)
        errors[choice] = (out.double() - truth)[finite].abs(), (gradient.double() - truth_gradient).abs()
    step = torch.finfo(dtype).eps
    for mine, plain in zip(errors[backend], errors["reference"], strict=True):
        assert (mine <= plain + 8 * step).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_non_contiguous_rows_and_upstream_gradients(name: str, backend: SegmentBackend) -> None:
    src, offsets = random_problem(7, (6, 4))
    plain = src.clone().requires_grad_()
    strided = src.transpose(1, 2).contiguous().requires_grad_()
    expected = REDUCTIONS[name](plain, offsets, backend="reference")
    out = REDUCTIONS[name](strided.transpose(1, 2), offsets, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(expected.shape[::-1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    upstream = upstream.permute(2, 1, 0)
    upstream = torch.where(torch.isfinite(expected), upstream, torch.zeros(()).double())
    (first,) = torch.autograd.grad(expected, plain, upstream)
    (second,) = torch.autograd.grad(out, strided, upstream)
    torch.testing.assert_close(second.transpose(1, 2), first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_zero_sizes(name: str, backend: SegmentBackend) -> None:
    reduce = REDUCTIONS[name]
    nothing = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    all_empty = reduce(nothing, torch.tensor([0, 0, 0]), backend=backend)
    fill = -INF if name == "logsumexp" else 0.0
    expected = torch.zeros(0, 3) if name == "softmax" else torch.full((2, 3), fill)
    torch.testing.assert_close(all_empty, expected.double(), rtol=0, atol=0)
    assert reduce(nothing, torch.tensor([0]), backend=backend).shape == (0, 3)
    assert reduce(torch.zeros(4, 0), torch.tensor([0, 1, 4]), backend=backend).shape[1:] == (0,)
    assert reduce(torch.zeros(4, 2, 0, 3), torch.tensor([0, 1, 4]), backend=backend).shape[1:] == (2, 0, 3)


@pytest.mark.parametrize("backend", ["auto", *FAST_BACKENDS])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradient_of_no_rows_is_no_rows(name: str, backend: SegmentBackend) -> None:
    nothing = torch.zeros(0, 3, requires_grad=True)
    out = REDUCTIONS[name](nothing, torch.tensor([0, 0]), backend=backend)
    (gradient,) = torch.autograd.grad(out.sum(), nothing)
    assert gradient.shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 20])
def test_empty_argument_of_extremes_carries_no_gradient(width: int, backend: SegmentBackend) -> None:
    src = torch.tensor([[1.0], [3.0]]).repeat(1, width).requires_grad_()
    offsets = torch.tensor([0, 0, 2])
    largest = segment_max(src, offsets, empty=-7.5, backend=backend)
    smallest = segment_min(src, offsets, empty=INF, backend=backend)
    assert largest[:, 0].tolist() == [-7.5, 3.0]
    assert smallest[:, 0].tolist() == [INF, 1.0]
    (gradient,) = torch.autograd.grad(largest.sum(), src)
    assert gradient[:, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_entries_of_minus_infinity(backend: SegmentBackend) -> None:
    """A masked entry weighs nothing; a segment of masked entries has no mass, and no NaN arises in any gradient."""
    src = torch.tensor([-INF, 1.0, -INF, -INF], dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, 2, 4])
    lse = segment_logsumexp(src, offsets, backend=backend)
    assert lse.tolist() == [1.0, -INF]
    (gradient,) = torch.autograd.grad(lse, src, torch.tensor([2.0, 3.0], dtype=torch.float64))
    assert gradient.tolist() == [0.0, 2.0, 0.0, 0.0]
    weights = segment_softmax(src, offsets, backend=backend)
    assert weights.tolist() == [0.0, 1.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(weights, src, torch.arange(4, dtype=torch.float64))
    assert gradient.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert segment_max(src, offsets, backend=backend).tolist() == [1.0, -INF]


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_entries_do_not_overflow(backend: SegmentBackend) -> None:
    src = torch.tensor([1e4, 1e4, -1e4])
    offsets = torch.tensor([0, 2, 3])
    expected = torch.tensor([1e4 + 0.6931472, -1e4])
    torch.testing.assert_close(segment_logsumexp(src, offsets, backend=backend), expected)
    assert segment_softmax(src, offsets, backend=backend).tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("width", [1, 20])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_nan_stays_in_its_segment(name: str, width: int, backend: SegmentBackend) -> None:
    src = torch.tensor([[1.0], [float("nan")], [2.0]]).repeat(1, width).requires_grad_()
    out = REDUCTIONS[name](src, torch.tensor([0, 2, 3]), backend=backend)
    assert torch.isnan(out[0]).all()
    assert torch.isfinite(out[-1]).all()
    (gradient,) = torch.autograd.grad(out.sum(), src)
    assert torch.isfinite(gradient[-1]).all()


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_integers_reduce_exactly(backend: SegmentBackend) -> None:
    big = 2**53 + 1
    src = torch.tensor([big, 2, -5])
    offsets = torch.tensor([0, 2, 2, 3])
    assert segment_sum(src, offsets, backend=backend).tolist() == [big + 2, 0, -5]
    assert segment_max(src, offsets, backend=backend).tolist() == [big, 0, -5]
    assert segment_min(src, offsets, backend=backend).tolist() == [2, 0, -5]


def test_long_half_sums_do_not_stall() -> None:
    """4,096 ones in bfloat16: a half accumulator would stop at 256."""
    for dtype in (torch.bfloat16, torch.float16):
        ones = torch.ones(4096, 2, dtype=dtype)
        assert segment_sum(ones, torch.tensor([0, 4096]))[0].tolist() == [4096.0, 4096.0]
        assert segment_mean(ones, torch.tensor([0, 4096]))[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_row_stride_past_2_to_the_31(backend: SegmentBackend) -> None:
    """Rows 2^30 elements apart (untouched virtual memory between them): 32-bit offsets would wrap."""
    storage = torch.empty(2**31 + 64)
    src = storage.as_strided((3, 20), (2**30, 1))
    for row in range(3):
        src[row] = row + 1.0
    assert segment_sum(src, torch.tensor([0, 2, 3]), backend=backend)[:, 0].tolist() == [3.0, 3.0]
    assert segment_max(src, torch.tensor([0, 2, 3]), backend=backend)[:, 19].tolist() == [2.0, 3.0]


def test_repeated_runs_agree_to_the_bit_under_deterministic_algorithms() -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(0, 900, (50,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    src = torch.randn(int(offsets[-1]), 16, generator=generator)
    torch.use_deterministic_algorithms(True)
    try:
        for reduce in REDUCTIONS.values():
            assert torch.equal(reduce(src, offsets), reduce(src, offsets))
    finally:
        torch.use_deterministic_algorithms(False)


def test_int32_offsets_are_accepted() -> None:
    assert segment_sum(SRC, OFFSETS.int()).tolist() == GOLDEN["sum"]


@pytest.mark.parametrize(
    ("offsets", "error", "message"),
    [
        (torch.tensor([1, 6]), ValueError, r"offsets must start at 0, got 1"),
        (torch.tensor([0, 4]), ValueError, r"offsets must end at 6 \(the number of rows of src\), got 4"),
        (torch.tensor([0, 2**31 + 6]), ValueError, r"offsets must end at 6 .* got 2147483654"),
        (torch.tensor([0, 5, 3, 6]), ValueError, r"offsets\[1\] = 5 and offsets\[2\] = 3"),
        (torch.tensor([], dtype=torch.int64), ValueError, r"offsets must have shape \(segments \+ 1,\)"),
        (torch.tensor([[0, 6]]), ValueError, r"offsets must have one dimension, got shape \(1, 2\)"),
        (torch.tensor([0.0, 6.0]), TypeError, r"offsets must be int64 or int32, got dtype torch.float32"),
    ],
)
def test_bad_offsets_are_named(offsets: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        segment_sum(SRC, offsets)


def test_bad_sources_and_backends_are_named() -> None:
    with pytest.raises(ValueError, match="src must have at least one dimension"):
        segment_sum(torch.tensor(1.0), torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"src must be a tensor of numbers, got dtype torch.bool"):
        segment_sum(torch.ones(2, dtype=torch.bool), torch.tensor([0, 2]))
    with pytest.raises(TypeError, match=r"src must be a float tensor for softmax, got dtype torch.int64"):
        segment_softmax(torch.tensor([1, 2]), torch.tensor([0, 2]))
    with pytest.raises(TypeError, match=r"src must be a real tensor for max, got dtype torch.complex64"):
        segment_max(torch.ones(2, dtype=torch.complex64), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"backend must be one of auto, .*, torch_scatter, got 'x'"):
        segment_sum(SRC, OFFSETS, backend="x")  # type: ignore[arg-type]


def test_check_can_be_switched_off() -> None:
    """Offsets that leave rows out are refused by default and pass unread without the check."""
    short = torch.tensor([0, 2])
    assert segment_mean(SRC, short, check=False).tolist() == [3.5]


def test_torch_scatter_is_asked_for_by_name_or_refused_with_the_command_to_install_it() -> None:
    script = (
        "import sys; sys.modules['torch_scatter'] = None\n"
        "import torch; from graphcl.kernels import segment_sum\n"
        "segment_sum(torch.ones(2), torch.tensor([0, 2]))\n"
        "try:\n    segment_sum(torch.ones(2), torch.tensor([0, 2]), backend='torch_scatter')\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install --no-build-isolation torch-scatter" in done.stdout
    assert "graphcl[scatter]" in done.stdout
