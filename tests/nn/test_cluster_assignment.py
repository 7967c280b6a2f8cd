"""Cluster layers: what they compute, where their centres live, balance of the targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import student_t_assignment, target_distribution
from graphcl.kernels import normalize_rows
from graphcl.nn import SinkhornPrototypes, StudentT


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("radius", [None, 1.0, 3.0])
def test_student_t(radius: float | None) -> None:
    z, centers = drawn(0, 9, 4), drawn(1, 3, 4)
    layer = StudentT(3, 4, freedom=2.0, radius=radius)
    layer.initialize(centers)
    placed = z if radius is None else radius * normalize_rows(z)
    q = layer(z)
    torch.testing.assert_close(layer.place(z), placed)
    torch.testing.assert_close(q, student_t_assignment(placed, centers, freedom=2.0))
    torch.testing.assert_close(layer.target(z, q), target_distribution(q))
    assert layer.centers.requires_grad
    q[:, 0].sum().backward()
    assert layer.centers.grad is not None


def test_prototypes_spread_rows_evenly() -> None:
    # Nine rows lean to one prototype, one to the other.
    z = torch.cat([torch.tensor([[1.0, 0.2]]) + 0.1 * drawn(0, 9, 2), torch.tensor([[0.2, 1.0]])])
    layer = SinkhornPrototypes(2, 2, iterations=20)
    layer.initialize(torch.eye(2) * 5)
    torch.testing.assert_close(layer.centers.detach(), torch.eye(2))
    q = layer(z)
    torch.testing.assert_close(q, torch.softmax(normalize_rows(z) / 0.1, dim=1))
    target = layer.target(z, q)
    assert not target.requires_grad
    torch.testing.assert_close(target.sum(1), torch.ones(10))
    assert q.sum(0).tolist()[0] > 8
    torch.testing.assert_close(target.sum(0), torch.full((2,), 5.0), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("kind", [StudentT, SinkhornPrototypes])
def test_zero_rows_one_cluster_and_seeds(kind: type[StudentT | SinkhornPrototypes]) -> None:
    layer = kind(1, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer.centers, kind(1, 3, generator=torch.Generator().manual_seed(0)).centers)
    z = torch.zeros(4, 3, requires_grad=True)
    q = layer(z)
    assert bool((q == 1).all())
    assert bool(layer.target(z, q).isfinite().all())
    assert bool(torch.autograd.grad(q.sum(), z)[0].isfinite().all())


def test_refusals() -> None:
    for kind in (StudentT, SinkhornPrototypes):
        with pytest.raises(ValueError, match="num_clusters and dim must be at least 1, got 0 and 3"):
            kind(0, 3)
    with pytest.raises(ValueError, match="radius must be above 0, got 0"):
        StudentT(2, 3, radius=0.0)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        SinkhornPrototypes(2, 3, temperature=0.0)
