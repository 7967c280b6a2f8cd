"""Cases of the Triton segment reductions and sparse products, run through Triton's interpreter on CPU tensors.

`tests/kernels/test_kernel_triton.py` runs this file in a process of its own, where TRITON_INTERPRET=1 is set before
anything imports triton. By hand, from this folder: ``TRITON_INTERPRET=1 python -m pytest triton_segment_cases.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl import kernels
from graphcl.kernels import SparseMatrix, sddmm, segment_max, segment_min, segment_softmax, segment_sum, spmm
from graphcl.kernels._csr import CsrPattern
from graphcl.kernels.triton_segment import csr_matmul, sampled_dot

REDUCTIONS = ("sum", "mean", "max", "min", "logsumexp", "softmax")
OFFSETS = torch.tensor([0, 0, 4, 4, 5, 33, 40, 40])  # empty at both ends and inside, a single row, a long segment
ROWS = 40


def source(dtype: torch.dtype, *trailing: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, *trailing, generator=g, dtype=torch.float64).to(dtype).requires_grad_()


def index(dim_size: int) -> Tensor:
    return torch.randint(dim_size, (ROWS,), generator=torch.Generator().manual_seed(1))


def evaluated(call: Callable[[str], Tensor], src: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Result, and gradient under a random upstream that leaves infinite entries out."""
    out = call(backend)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(out.dtype)
    (gradient,) = torch.autograd.grad((out.masked_fill(out == -torch.inf, 0.0) * upstream).sum(), src)
    return out.detach(), gradient


def both_forms(name: str, src: Tensor) -> list[Callable[[str], Tensor]]:
    sorted_form = getattr(kernels, f"segment_{name}")
    unsorted_form = getattr(kernels, f"scatter_{name}")
    return [
        lambda backend: sorted_form(src, OFFSETS, backend=backend),
        lambda backend: unsorted_form(src, index(9), 11, backend=backend),
    ]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("trailing", [(), (3,), (2, 5), (130,)])
def test_reductions_equal_the_reference(name: str, trailing: tuple[int, ...]) -> None:
    src = source(torch.float64, *trailing)
    for call in both_forms(name, src):
        for got, expected in zip(evaluated(call, src, "triton"), evaluated(call, src, "reference"), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_follow_the_error_rule(name: str, dtype: torch.dtype) -> None:
    src = source(dtype, 5)
    exact = src.detach().double().requires_grad_()
    for call, exactly in zip(both_forms(name, src), both_forms(name, exact), strict=True):
        got, truth = evaluated(call, src, "triton"), evaluated(exactly, exact, "reference")
        for a, b, t in zip(got, evaluated(call, src, "torch"), truth, strict=True):
            assert a.dtype == dtype
            hole = torch.isinf(t)
            assert torch.equal(torch.isinf(a), hole)
            error, allowed = ((value.double() - t).masked_fill(hole, 0.0).abs().max() for value in (a, b))
            # The interpreter cuts a bfloat16 off where hardware rounds: up to one unit in the last place.
            rounding = 2.0 * torch.finfo(dtype).eps * t.masked_fill(hole, 0.0).abs().max()
            assert error <= 2 * allowed + rounding


def test_golden_table() -> None:
    src = torch.tensor([1.0, 2.0, 2.0, -1.0, 5.0])
    offsets = torch.tensor([0, 3, 3, 4, 5])
    expected: dict[str, list[float]] = {
        "sum": [5.0, 0.0, -1.0, 5.0],
        "mean": [5.0 / 3.0, 0.0, -1.0, 5.0],
        "max": [2.0, 0.0, -1.0, 5.0],
        "min": [1.0, 0.0, -1.0, 5.0],
        "logsumexp": [2.8619948, -torch.inf, -1.0, 5.0],
        "softmax": [0.1553624, 0.4223188, 0.4223188, 1.0, 1.0],
    }
    for name, values in expected.items():
        got = getattr(kernels, f"segment_{name}")(src, offsets, backend="triton")
        torch.testing.assert_close(got, torch.tensor(values), rtol=1e-6, atol=1e-6)


def test_empty_value_and_ties() -> None:
    src = torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, 4, 4])
    for reduce, winner in ((segment_max, 0), (segment_min, 2)):
        out = reduce(src, offsets, empty=7.0, backend="triton")
        assert out[1] == 7.0
        (gradient,) = torch.autograd.grad(out.sum(), src)
        assert gradient.tolist() == [float(row == winner) for row in range(4)]


def test_infinities_and_nan() -> None:
    inf, nan = torch.inf, torch.nan
    src = torch.tensor([[-inf, 1.0], [-inf, nan], [inf, 0.0], [1.0, -inf]])
    offsets = torch.tensor([0, 2, 4])
    for name in ("sum", "max", "min", "logsumexp"):
        reduce = getattr(kernels, f"segment_{name}")
        got, expected = (reduce(src, offsets, backend=backend) for backend in ("triton", "reference"))
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    massless = torch.tensor([-inf, -inf, 0.0, -inf])
    assert segment_softmax(massless, offsets, backend="triton").tolist() == [0.0, 0.0, 1.0, 0.0]


def test_large_logits_do_not_overflow() -> None:
    src = torch.tensor([1000.0, 1000.0, -1000.0, -1000.0])
    out = kernels.segment_logsumexp(src, torch.tensor([0, 2, 4]), backend="triton")
    torch.testing.assert_close(out, torch.tensor([1000.0, -1000.0]) + torch.tensor(2.0).log())


@pytest.mark.parametrize("rows", [0, 3])
def test_nothing_to_reduce(rows: int) -> None:
    src = torch.zeros(rows, 0 if rows else 2, requires_grad=True)
    offsets = torch.tensor([0, rows, rows])
    for name in REDUCTIONS:
        out = getattr(kernels, f"segment_{name}")(src, offsets, backend="triton")
        (gradient,) = torch.autograd.grad(out.masked_fill(out == -torch.inf, 0.0).sum(), src)
        assert gradient.shape == src.shape
    pattern = CsrPattern(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), 2)
    assert csr_matmul(pattern.offsets, pattern.columns, None, torch.ones(2, 3)).tolist() == [[0.0, 0.0, 0.0]]
    assert sampled_dot(pattern, torch.ones(1, 3), torch.ones(2, 3)).shape == (0,)
    assert sampled_dot(CsrPattern(torch.tensor([0, 1]), torch.tensor([1]), 2), torch.ones(1, 0), torch.ones(2, 0)) == 0


def test_strides_are_followed() -> None:
    base = source(torch.float64, 12).detach()
    for src in (base[:, 3:8], base[:, ::5], base.T.contiguous().T):
        got, expected = (segment_sum(src, OFFSETS, backend=backend) for backend in ("triton", "reference"))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


def test_offsets_past_31_bits() -> None:
    """Two rows 2^31 + 8 numbers apart: memory that is reserved but never touched in between."""
    stride = 2**31 + 8
    far = torch.empty(stride + 4, dtype=torch.float16).as_strided((2, 4), (stride, 1))
    far.copy_(torch.arange(8.0).view(2, 4))
    offsets = torch.tensor([0, 2])
    assert csr_matmul(offsets, None, None, far).tolist() == [[4.0, 6.0, 8.0, 10.0]]
    pattern = CsrPattern(offsets, torch.tensor([0, 1]), 2)
    near = torch.ones(1, 4, dtype=torch.float16)
    assert sampled_dot(pattern, near, far).tolist() == [6.0, 22.0]


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"takes float tensors, got src of dtype torch\.int64"):
        segment_sum(torch.arange(4), torch.tensor([0, 4]), backend="triton")


def matrix(dtype: torch.dtype, valued: bool, rows: int = 9, columns: int = 14) -> SparseMatrix:
    g = torch.Generator().manual_seed(3)
    hit = torch.rand(rows, columns, generator=g) < 0.3
    hit[0], hit[4], hit[8] = False, True, False
    row, column = torch.nonzero(hit, as_tuple=True)
    values = torch.randn(len(row), generator=g, dtype=torch.float64).to(dtype).requires_grad_() if valued else None
    return SparseMatrix.from_coo(row, column, values, shape=(rows, columns))


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("trailing", [(), (5,), (2, 3), (131,)])
def test_spmm_equals_the_reference(valued: bool, trailing: tuple[int, ...]) -> None:
    a = matrix(torch.float64, valued)
    dense = source(torch.float64, *trailing).detach()[:14].requires_grad_()
    wanted = [dense, *([a.values] if a.values is not None else [])]
    results = []
    for backend in ("triton", "reference"):
        out = spmm(a, dense, backend=backend)
        weight = torch.linspace(-1.0, 1.0, out.numel(), dtype=torch.float64).view(out.shape)
        results.append([out.detach(), *torch.autograd.grad((out * weight).sum(), wanted)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("wanted", ["x", "y"])
def test_sddmm_equals_the_reference(wanted: str) -> None:
    a = matrix(torch.float64, False)
    for width in (1, 7, 150):
        operands = {
            "x": source(torch.float64, width).detach()[:9],
            "y": source(torch.float64, width, seed=4).detach()[:14],
        }
        operands[wanted].requires_grad_()
        results = []
        for backend in ("triton", "reference"):
            out = sddmm(a, operands["x"], operands["y"], backend=backend)
            weight = torch.linspace(-1.0, 1.0, out.numel(), dtype=torch.float64)
            results.append([out.detach(), *torch.autograd.grad((out * weight).sum(), operands[wanted])])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sparse_products_in_narrow_types(dtype: torch.dtype) -> None:
    a = matrix(dtype, True)
    dense = source(dtype, 6).detach()[:14]
    arguments: dict[str, Any] = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).eps}
    got = spmm(a, dense, backend="triton")
    assert a.values is not None
    wide = SparseMatrix(a.row_offsets, a.columns, a.values.double(), a.shape)
    torch.testing.assert_close(got.double(), spmm(wide, dense.double(), backend="reference"), **arguments)
    x = source(dtype, 6, seed=5).detach()[:9]
    dots = sddmm(a, x, dense, backend="triton")
    torch.testing.assert_close(dots.double(), sddmm(wide, x.double(), dense.double(), backend="reference"), **arguments)


def test_runs_repeat_to_the_last_bit() -> None:
    src = source(torch.float32, 5)
    first, second = (segment_sum(src, OFFSETS, backend="triton") for _ in range(2))
    assert torch.equal(first, second)
