"""Objectives that are each other's special cases, on random batches: equal values and equal gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize, one_hot, softplus

from graphcl.functional import (
    bacon_soft,
    dcl,
    decoupled_softmax,
    info_nce,
    m3col_mix,
    meco,
    mlcd,
    multi_label_softmax,
    multi_positive_info_nce,
    nt_xent,
    sepclr_joint_entropy,
    sup_con,
    uniformity,
    z_loss,
)
from graphcl.kernels import ExcludeSameIndex, pair_logsumexp

Loss = Callable[[Tensor, Tensor], Tensor]
random_batches = given(seed=st.integers(0, 10**6), rows=st.integers(2, 9), tau=st.floats(0.05, 2.0))
some = settings(max_examples=15, deadline=None)


def views(seed: int, rows: int, dim: int = 4) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.requires_grad_(), y.requires_grad_()


def assert_same(first: Loss, second: Loss, x: Tensor, y: Tensor) -> None:
    results = []
    for loss in (first, second):
        value = loss(x, y)
        upstream = torch.linspace(-1.0, 2.0, value.numel(), dtype=value.dtype).view(value.shape)
        gradients = torch.autograd.grad((value * upstream).sum(), [x, y], allow_unused=True)
        results.append([value.detach(), *(torch.zeros_like(x) if g is None else g for g in gradients)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def diagonal(rows: int) -> Tensor:
    return torch.arange(rows).repeat(2, 1)


@some
@random_batches
def test_decoupled_with_its_positive_is_nt_xent(seed: int, rows: int, tau: float) -> None:
    assert_same(
        lambda x, y: nt_xent(x, y, temperature=tau, reduction="none"),
        lambda x, y: softplus(dcl(x, y, temperature=tau, reduction="none"), threshold=1e3),
        *views(seed, rows),
    )


@some
@random_batches
def test_one_positive_makes_own_and_shared_denominators_info_nce(seed: int, rows: int, tau: float) -> None:
    x, y = views(seed, rows)
    for denominator in ("own", "shared"):
        assert_same(
            lambda x, y: info_nce(x, y, temperature=tau, reduction="none"),
            lambda x, y, form=denominator: multi_positive_info_nce(  # type: ignore[misc]
                x, y, diagonal(rows), denominator=form, temperature=tau, reduction="none"
            ),
            x,
            y,
        )


@some
@random_batches
@example(seed=878, rows=5, tau=0.0625)  # a loss of 21.5: torch's softplus stops at 20
def test_one_positive_makes_both_softmaxes_over_labels_equal(seed: int, rows: int, tau: float) -> None:
    assert_same(
        lambda x, y: multi_label_softmax(x, y, diagonal(rows), temperature=tau, reduction="none"),
        lambda x, y: decoupled_softmax(x, y, diagonal(rows), temperature=tau, reduction="none"),
        *views(seed, rows),
    )


@some
@random_batches
def test_one_positive_makes_both_forms_of_sup_con_nt_xent(seed: int, rows: int, tau: float) -> None:
    x, y = views(seed, rows)
    labels = torch.arange(rows).repeat(2)
    for form in ("out", "in"):
        assert_same(
            lambda x, y: nt_xent(x, y, temperature=tau, reduction="none"),
            lambda x, y, form=form: sup_con(  # type: ignore[misc]
                torch.cat([x, y]), labels, form=form, temperature=tau, reduction="none"
            ),
            x,
            y,
        )


@some
@random_batches
def test_identity_as_soft_positives_is_the_hard_loss(seed: int, rows: int, tau: float) -> None:
    x, y = views(seed, rows)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(rows, dtype=torch.float64)
    assert_same(
        lambda x, y: info_nce(x, y, symmetric=True, temperature=tau),
        lambda x, y: m3col_mix(x, y, order, ones, temperature=tau),
        x,
        y,
    )
    classes = one_hot(torch.arange(rows)).double()
    assert_same(
        lambda x, y: nt_xent(x, y, temperature=tau), lambda x, y: bacon_soft(x, y, classes, temperature=tau), x, y
    )


@some
@random_batches
def test_both_softplus_forms_multiply_out(seed: int, rows: int, tau: float) -> None:
    pairs = (torch.eye(rows) + torch.diag(torch.ones(rows - 1), 1)).nonzero().T

    def expanded(x: Tensor, y: Tensor) -> Tensor:
        logits = normalize(x) @ normalize(y).T / tau
        positive = torch.zeros(rows, rows, dtype=torch.bool).index_put((pairs[0], pairs[1]), torch.tensor(True))
        a = (-logits).exp().masked_fill(~positive, 0.0).sum(dim=1)
        b = logits.exp().masked_fill(positive, 0.0).sum(dim=1)
        return torch.log1p(a * b + a + b)

    assert_same(lambda x, y: mlcd(x, y, pairs, scale=1 / tau, reduction="none"), expanded, *views(seed, rows))


@some
@random_batches
def test_joint_entropy_is_an_energy_of_features_side_by_side(seed: int, rows: int, tau: float) -> None:
    def energy(x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([normalize(x), y], dim=1)
        total = pair_logsumexp(both, both, temperature=2 * tau, similarity="sqeuclidean").logsumexp
        return total - math.log(rows)

    assert_same(lambda x, y: sepclr_joint_entropy(x, y, temperature=tau, reduction="none"), energy, *views(seed, rows))


@some
@random_batches
def test_uniformity_is_an_energy_of_inner_products_on_the_sphere(seed: int, rows: int, tau: float) -> None:
    t = 1 / tau

    def energy(x: Tensor, _: Tensor) -> Tensor:
        unit = normalize(x)
        total = pair_logsumexp(unit, unit, temperature=1 / (2 * t), rules=ExcludeSameIndex()).logsumexp
        return torch.logsumexp(total, dim=0) - 2 * t - math.log(rows * (rows - 1))

    assert_same(lambda x, _: uniformity(x, t=t), energy, *views(seed, rows))


@some
@random_batches
def test_compositional_estimation_is_one_global_decoupled_anchor(seed: int, rows: int, tau: float) -> None:
    def decoupled(x: Tensor, y: Tensor) -> Tensor:
        return torch.logsumexp(y[:, 0] / tau, dim=0) - math.log(rows) - x[:, 0].mean() / tau

    assert_same(
        lambda x, y: meco(x[:, 0] / tau, y[:, 0] / tau, torch.zeros(rows, dtype=torch.float64)).loss,
        decoupled,
        *views(seed, rows),
    )


@some
@random_batches
def test_z_loss_needs_two_moments_of_the_logits(seed: int, rows: int, tau: float) -> None:
    target = torch.arange(rows).flip(0)

    def dense(x: Tensor, y: Tensor) -> Tensor:
        logits = x @ y.T
        spread = logits.std(dim=1, correction=0)
        score = (logits.gather(1, target[:, None]).squeeze(1) - logits.mean(dim=1)) / spread
        return softplus((3.0 - score) / tau, threshold=1e3) * tau

    assert_same(
        lambda x, y: z_loss(x, y, target, slope=1 / tau, threshold=3.0, reduction="none"), dense, *views(seed, rows)
    )
