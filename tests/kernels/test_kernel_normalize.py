"""normalize_rows."""

from __future__ import annotations

import pytest
import torch

from graphcl.kernels import normalize_rows


def test_golden() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0], [5e-13, 5e-13]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(normalize_rows(x), expected)


def test_gradcheck_with_random_upstream() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: (normalize_rows(x) * weight).sum(), (x,))
    assert torch.autograd.gradgradcheck(lambda x: (normalize_rows(x) * weight).sum(), (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_zero_rows_have_zero_gradient(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=dtype).requires_grad_()
    unit = normalize_rows(x)
    assert unit.dtype == dtype
    (unit * 7.0).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad[0].tolist() == [0.0, 0.0]
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e37])
def test_extreme_rows_keep_unit_length(scale: float) -> None:
    """Squares of these entries leave the range of float32."""
    x = (torch.tensor([[3.0, 4.0]]) * scale).requires_grad_()
    unit = normalize_rows(x, eps=1e-35)
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8]]))
    unit[0, 0].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad * scale, torch.tensor([[0.128, -0.096]]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_whose_squares_overflow_beside_ordinary_and_zero_rows(dtype: torch.dtype) -> None:
    large = float(torch.finfo(dtype).max) / 8
    x = torch.tensor([[3.0 * large, 4.0 * large], [3.0, 4.0], [0.0, 0.0]], dtype=dtype).requires_grad_()
    unit = normalize_rows(x)
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]], dtype=dtype))
    unit[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad[1:], torch.tensor([[0.128, -0.096], [0.0, 0.0]], dtype=dtype))


def test_gradient_equals_autograd_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 7, generator=generator, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    (found,) = torch.autograd.grad(normalize_rows(x), x, upstream)
    (expected,) = torch.autograd.grad(x / x.norm(dim=1, keepdim=True), x, upstream)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_zero_size(shape: tuple[int, int]) -> None:
    assert normalize_rows(torch.zeros(shape)).shape == shape


def test_non_contiguous() -> None:
    x = torch.arange(1.0, 13.0).reshape(3, 4).T[::2]
    torch.testing.assert_close(normalize_rows(x), torch.nn.functional.normalize(x))


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(rows, features\), got shape \(3,\)"):
        normalize_rows(torch.zeros(3))
    with pytest.raises(TypeError, match=r"x must be a float tensor, got dtype torch.int64"):
        normalize_rows(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"eps must be a finite number above 0, got -1"):
        normalize_rows(torch.zeros(3, 2), eps=-1.0)
