from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from graphcl.functional import group_whiten, shuffled_group_whitening


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(x: Tensor) -> Tensor:
    return x.T @ x / len(x)


@pytest.mark.parametrize("order", [None, [3, 0, 5, 1, 4, 2]])
def test_covariance_is_the_identity_in_every_group(order: list[int] | None) -> None:
    x = rows(40, 6) @ rows(6, 6, seed=1)
    shuffle = None if order is None else torch.tensor(order)
    white = group_whiten(x, 2, shuffle, ridge=0.0)
    places = torch.arange(6) if shuffle is None else shuffle
    for group in places.chunk(2):
        torch.testing.assert_close(covariance(white[:, group]), torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6, dtype=torch.float64))


def test_equals_eigenvectors_of_each_group_with_ridge() -> None:
    x, shuffle = rows(12, 4), torch.tensor([2, 0, 3, 1])
    expected = torch.empty_like(x)
    for group in shuffle.chunk(2):
        centred = x[:, group] - x[:, group].mean(dim=0)
        sigma = covariance(centred)
        sigma = sigma + 1e-2 * sigma.trace() / 2 * torch.eye(2, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(sigma)
        expected[:, group] = centred @ vectors @ torch.diag(values**-0.5) @ vectors.T
    torch.testing.assert_close(group_whiten(x, 2, shuffle, ridge=1e-2), expected)


def test_gradients_with_and_without_the_matrix() -> None:
    x, weight = rows(7, 4).requires_grad_(), rows(7, 4, seed=1)
    assert torch.autograd.gradcheck(lambda z: (weight * group_whiten(z, 2, stop_gradient=False)).sum(), (x,))
    constant = torch.autograd.grad((weight * group_whiten(x, 1)).sum(), x)[0]
    centred = x.detach() - x.detach().mean(dim=0)
    sigma = covariance(centred) + 1e-5 * covariance(centred).trace() / 4 * torch.eye(4, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(sigma)
    expected = weight @ vectors @ torch.diag(values**-0.5) @ vectors.T
    torch.testing.assert_close(constant, expected - expected.mean(dim=0))


def test_equal_eigenvalues_have_a_finite_gradient() -> None:
    x = torch.cat([torch.eye(3), -torch.eye(3)]).double().requires_grad_()
    weight = rows(6, 3)
    assert torch.autograd.gradcheck(lambda z: (weight * group_whiten(z, 1, stop_gradient=False, ridge=0.0)).sum(), (x,))


def test_contrast_equals_dense_form() -> None:
    x = rows(10, 6).requires_grad_()
    shuffles = [torch.randperm(6, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    one, two, three = (normalize(group_whiten(x, 2, shuffle)) for shuffle in shuffles)
    own = torch.arange(10)
    expected = cross_entropy(one @ two.T / 0.1, own) + cross_entropy(one @ three.T / 0.1, own)
    got = shuffled_group_whitening(x, 2, shuffles, temperature=0.1)
    torch.testing.assert_close(got, expected)
    ours, theirs = (torch.autograd.grad(value, x)[0] for value in (got, expected))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(shuffled_group_whitening([x, x, x], 2, shuffles, temperature=0.1), expected)


def test_draws_repeat() -> None:
    x = rows(10, 6)
    first, second = (shuffled_group_whitening(x, 2, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_degenerate_cases() -> None:
    for x in (rows(1, 4), rows(0, 4), torch.ones(3, 4, dtype=torch.float64), rows(2, 4)):
        leaf = x.clone().requires_grad_()
        white = group_whiten(leaf, 1, stop_gradient=False)
        (gradient,) = torch.autograd.grad(white.sum(), leaf)
        assert bool(white.isfinite().all())
        assert bool(gradient.isfinite().all())
    assert float(group_whiten(torch.ones(3, 4), 2).abs().sum()) == 0.0


def test_messages() -> None:
    with pytest.raises(ValueError, match="groups must divide"):
        group_whiten(rows(9, 4), 3)
    with pytest.raises(ValueError, match="more rows than features, got 2 rows"):
        group_whiten(rows(2, 4), 2, ridge=0.0)
    with pytest.raises(ValueError, match="one matrix or three, got 2"):
        shuffled_group_whitening([rows(9, 4)] * 2, 2)
    with pytest.raises(ValueError, match="three shuffles, got 1"):
        shuffled_group_whitening(rows(9, 4), 2, [torch.arange(4)])
    with pytest.raises(ValueError, match="ridge must not be negative"):
        group_whiten(rows(9, 4), 2, ridge=-1.0)
