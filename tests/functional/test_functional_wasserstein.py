"""The list-wise Wasserstein loss against matrix square roots of covariances in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import listwise_wasserstein


def problem(rows: int, documents: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, documents, generator=generator, dtype=torch.float64)
    return scores, torch.randint(0, 4, (rows, documents), generator=generator).double()


def matrix_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    return root


def slow_wasserstein(scores: Tensor, relevance: Tensor, tau: float) -> float:
    x, y = torch.softmax(scores / tau, dim=1), torch.softmax(relevance, dim=1)
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    root = matrix_root(cov_x)
    cross = matrix_root(root @ cov_y @ root)
    mean = ((x.mean(dim=0) - y.mean(dim=0)) ** 2).sum()
    return float(mean + cov_x.trace() + cov_y.trace() - 2 * cross.trace())


@pytest.mark.parametrize(("rows", "documents"), [(2, 3), (6, 9), (9, 4), (3, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_covariance_form(rows: int, documents: int, seed: int) -> None:
    scores, relevance = problem(rows, documents, seed)
    got = listwise_wasserstein(scores, relevance, temperature=0.5)
    assert float(got) == pytest.approx(slow_wasserstein(scores, relevance, 0.5), abs=1e-7)


@pytest.mark.parametrize(("rows", "documents"), [(1, 3), (2, 3), (5, 7), (6, 3)])
def test_gradients(rows: int, documents: int) -> None:
    scores, relevance = problem(rows, documents)
    tau = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)

    def weighted(s: Tensor, t: Tensor) -> Tensor:
        return 1.7 * listwise_wasserstein(s, relevance, temperature=t)

    assert torch.autograd.gradcheck(weighted, (scores.requires_grad_(), tau))


def test_zero_where_the_lists_agree_and_positive_elsewhere() -> None:
    scores, relevance = problem(5, 6)
    assert float(listwise_wasserstein(relevance, relevance)) == pytest.approx(0.0, abs=1e-12)
    assert float(listwise_wasserstein(scores, relevance)) > 0.01


def test_relevance_is_a_constant() -> None:
    scores, relevance = problem(4, 5)
    scores.requires_grad_()
    relevance.requires_grad_()
    loss = listwise_wasserstein(scores, relevance)
    assert torch.autograd.grad(loss, [relevance], allow_unused=True)[0] is None


def test_degenerate_batches_have_finite_gradients() -> None:
    for rows, documents in ((0, 3), (1, 3), (4, 1)):
        scores = torch.ones(rows, documents, requires_grad=True)
        loss = listwise_wasserstein(scores, torch.ones(rows, documents))
        assert loss.item() == pytest.approx(0.0, abs=1e-12)
        assert torch.isfinite(torch.autograd.grad(loss, [scores])[0]).all()
    equal = torch.ones(4, 5, requires_grad=True)
    loss = listwise_wasserstein(equal, torch.eye(4, 5))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, [equal])[0]).all()


def test_order_of_rows_and_documents_and_type() -> None:
    scores, relevance = problem(6, 5)
    value = listwise_wasserstein(scores, relevance)
    rows, columns = torch.tensor([3, 1, 5, 0, 2, 4]), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(listwise_wasserstein(scores[rows], relevance[rows]), value)
    torch.testing.assert_close(listwise_wasserstein(scores[:, columns], relevance[:, columns]), value)
    single = listwise_wasserstein(scores.float(), relevance)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), value, rtol=1e-5, atol=1e-7)
    assert listwise_wasserstein(scores.bfloat16(), relevance).dtype == torch.float32
    assert torch.isfinite(listwise_wasserstein(scores, relevance, temperature=1e-3))


def test_arguments_are_named() -> None:
    scores, relevance = problem(4, 5)
    with pytest.raises(ValueError, match=r"relevance must have the shape of scores \(4, 5\), got \(4, 4\)"):
        listwise_wasserstein(scores, relevance[:, :4])
    with pytest.raises(ValueError, match="temperature must be above 0"):
        listwise_wasserstein(scores, relevance, temperature=0.0)
