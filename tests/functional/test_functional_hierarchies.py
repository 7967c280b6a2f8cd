"""HiCLR, UniCLR, COMET, propagation consistency and SepCLR against dense formulas and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, normalize

from graphcl.functional import (
    comet,
    comet_id,
    comet_observation,
    comet_sample,
    hiclr,
    info_nce,
    nt_xent,
    propagation_consistency,
    sepclr,
    sepclr_joint_entropy,
    sepclr_uniformity,
    sup_con,
    uniclr,
)


def batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def same(value: object, expected: Tensor, *inputs: Tensor) -> None:
    """Equal values and equal gradients in all inputs."""
    assert isinstance(value, Tensor)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    for got, wanted in zip(
        torch.autograd.grad(value.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


# HiCLR


def dense_hiclr(
    views: list[Tensor], key: Tensor, queue: Tensor, tau: float, neighbors: int, same_id: Tensor
) -> tuple[Tensor, Tensor]:
    n = len(key)
    bank, k = normalize(queue), normalize(key)
    logits = []
    for view in views:
        q = normalize(view)
        from_queue = (q @ bank.T / tau).masked_fill(same_id, -torch.inf)
        logits.append(torch.cat([(q * k).sum(1, keepdim=True) / tau, from_queue], dim=1))
    contrast = []
    for i in range(n):
        positive = {0}
        for one in logits:
            order = one[i, 1:].detach().argsort(descending=True)[:neighbors]
            positive |= {1 + int(j) for j in order if one[i, 1 + j] > -torch.inf}
        contrast.append(torch.logsumexp(logits[0][i], 0) - logits[0][i, sorted(positive)].mean())
    consistency = torch.zeros(n, dtype=torch.float64)
    for weak, strong in pairwise(logits):
        p, log_p = torch.softmax(weak.detach(), dim=1), torch.log_softmax(strong, dim=1)
        consistency = consistency - torch.where(p > 0, p * log_p.masked_fill(p == 0, 0.0), 0.0).sum(dim=1)
    return torch.stack(contrast), consistency


@pytest.mark.parametrize("num_views", [1, 2, 3])
@pytest.mark.parametrize("neighbors", [0, 1, 2])
@pytest.mark.parametrize("with_ids", [False, True])
def test_hiclr_equals_the_dense_form(num_views: int, neighbors: int, with_ids: bool) -> None:
    views = [batch(5, 3, seed=v) for v in range(num_views)]
    key, queue = batch(5, 3, seed=8), batch(7, 3, seed=9)
    ids, queue_ids = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 1, 9, 9, 4, 9, 2])
    same_id = ids[:, None] == queue_ids if with_ids else torch.zeros(5, 7, dtype=torch.bool)
    loss, parts = hiclr(
        views,
        key,
        queue,
        ids=ids if with_ids else None,
        queue_ids=queue_ids if with_ids else None,
        neighbors=neighbors,
        directional_weight=0.3,
        temperature=0.4,
        reduction="none",
        return_components=True,
        memory_budget=200,
    )
    contrast, consistency = dense_hiclr(views, key, queue, 0.4, neighbors, same_id)
    same(loss, contrast + 0.3 * consistency, *views, key, queue)
    torch.testing.assert_close(parts["contrast"], contrast)
    torch.testing.assert_close(parts["consistency"], consistency)


def test_hiclr_of_one_view_is_info_nce() -> None:
    q, key, queue = batch(5, 3), batch(5, 3, seed=1), batch(7, 3, seed=2)
    torch.testing.assert_close(
        torch.as_tensor(hiclr([q], key, queue, temperature=0.2)), info_nce(q, key, keys=queue, temperature=0.2)
    )


def test_hiclr_degenerate() -> None:
    z = torch.eye(3, requires_grad=True)
    no_queue = torch.as_tensor(hiclr([z, z], z, z[:0], neighbors=1))
    assert float(no_queue.detach()) == 0.0
    assert (torch.autograd.grad(no_queue, z)[0] == 0).all()
    assert torch.isfinite(torch.as_tensor(hiclr([z, -z], z, -z, temperature=1e-3)))
    assert hiclr([z[:0].detach()], z[:0].detach(), z.detach()) == 0.0
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    q, key, queue = batch(3, 2).detach(), batch(3, 2, seed=1).detach(), batch(4, 2, seed=2).detach()
    teacher = dense_hiclr([q, key], key, queue, 0.5, 0, torch.zeros(3, 4, dtype=torch.bool))
    got = torch.as_tensor(hiclr([q, key], key, queue, temperature=tau, reduction="none"))
    torch.testing.assert_close(got.detach(), teacher[0] + 0.5 * teacher[1])
    assert torch.isfinite(torch.autograd.grad(got.sum(), tau)[0])
    with pytest.raises(ValueError, match="views must hold at least one view"):
        hiclr([], z, z)
    with pytest.raises(ValueError, match="neighbors must not be negative, got -1"):
        hiclr([z], z, z, neighbors=-1)


# UniCLR


@pytest.mark.parametrize("soft", [None, 0.5])
@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("memory_budget", [1 << 20, 300])
def test_uniclr_equals_the_loop(soft: float | None, num_views: int, memory_budget: int) -> None:
    inliers = [batch(3, 3, seed=v) for v in range(num_views)]
    outliers = [batch(4, 3, seed=10 + v) for v in range(num_views)]
    z = torch.cat([normalize(one) for one in [*inliers, *outliers]])
    num_in, n = 3 * num_views, len(z)
    s = z @ z.T
    weights = [1.0] * n
    if soft is not None:
        raw = [
            float(torch.exp(s.detach()[i, [j for j in range(num_in) if j != i]] / soft).sum()) for i in range(num_in)
        ]
        weights[:num_in] = [one / sum(raw) for one in raw]
    losses = []
    for i in range(n):
        if i < num_in:
            positives = [j for j in range(num_in) if j != i]
        else:
            positives = [j for j in range(num_in, n) if j != i and (j - num_in) % 4 == (i - num_in) % 4]
        w = torch.tensor([weights[j] for j in positives], dtype=torch.float64)
        others = [j for j in range(n) if j != i]
        losses.append(torch.logsumexp(s[i, others] / 0.5, 0) - (w * s[i, positives]).sum() / w.sum() / 0.5)
    loss = uniclr(inliers, outliers, soft_temperature=soft, reduction="none", memory_budget=memory_budget)
    same(loss, torch.stack(losses), *inliers, *outliers)


def test_uniclr_without_outliers_is_supervised_contrast_of_one_class() -> None:
    a, b = batch(4, 3), batch(4, 3, seed=1)
    expected = sup_con(torch.cat([a, b]), torch.zeros(8, dtype=torch.int64), temperature=0.5)
    torch.testing.assert_close(uniclr([a, b]), expected)


def test_uniclr_outlier_ids_and_degenerate() -> None:
    a, b, o = batch(2, 3), batch(2, 3, seed=1), batch(3, 3, seed=2)
    labels = torch.tensor([0, 0, 0, 0, 5, 5, 6, 5, 5, 6])
    expected = sup_con(torch.cat([a, b, o, o]), labels, temperature=0.5)
    torch.testing.assert_close(uniclr([a, b], [o, o], outlier_ids=torch.tensor([5, 5, 6])), expected)
    none = torch.zeros(0, 3)
    assert float(uniclr([none, none], soft_temperature=0.5)) == 0.0
    single = uniclr([torch.ones(1, 3)], soft_temperature=0.5)
    assert float(single) == 0.0
    assert torch.isfinite(uniclr([a, b], [o, o], temperature=1e-3, soft_temperature=1e-3))
    with pytest.raises(ValueError, match=r"as many views as inliers \(2\) or none, got 1"):
        uniclr([a, b], [o])
    weight = batch(10, seed=7).detach()
    assert torch.autograd.gradcheck(
        lambda x, y, w: (uniclr([x, y], [w, w], reduction="none") * weight).sum(), (a, b, o)
    )


# COMET


def slices(h1: Tensor, h2: Tensor, along: int) -> Tensor:
    values = []
    for x, y in zip(h1.unbind(along), h2.unbind(along), strict=True):
        z = torch.cat([x, y])
        logits = (z @ z.T).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
        twin = torch.arange(len(z)).roll(len(x))
        values.append(torch.logsumexp(logits, 1) - logits[torch.arange(len(z)), twin])
    return torch.stack(values)


LEVELS: list[tuple[Callable[..., Tensor], int]] = [(comet_sample, 1), (comet_observation, 0)]


@pytest.mark.parametrize(("level", "along"), LEVELS)
def test_comet_slices(level: Callable[..., Tensor], along: int) -> None:
    h1, h2 = batch(3, 5, 2), batch(3, 5, 2, seed=1)
    same(level(h1, h2, reduction="none", memory_budget=200), slices(h1, h2, along), h1, h2)
    scales, a, b = [], h1, h2
    while True:
        scales.append(slices(a, b, along).mean())
        if a.shape[1] == 1:
            break
        a, b = (max_pool1d(h.transpose(1, 2), 2).transpose(1, 2) for h in (a, b))
    assert len(scales) == 3
    same(level(h1, h2, pyramid=True), torch.stack(scales).mean(), h1, h2)
    assert torch.autograd.gradcheck(lambda x, y: level(x, y, pyramid=True), (h1, h2))
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum' with a pyramid"):
        level(h1, h2, pyramid=True, reduction="none")
    with pytest.raises(ValueError, match=r"h1 must have shape \(batch, time, channels\), got shape \(3, 5\)"):
        level(h1[:, :, 0], h2)
    assert float(level(h1[:0].detach(), h2[:0].detach())) == 0.0


def test_comet_sample_ids() -> None:
    h1, h2, ids = batch(4, 1, 3), batch(4, 1, 3, seed=1), torch.tensor([0, 0, 1, 2])
    expected = nt_xent(h1[:, 0], h2[:, 0], ids=ids, temperature=1.0, similarity="dot")
    torch.testing.assert_close(comet_sample(h1, h2, ids=ids), expected)


@pytest.mark.parametrize("ids", [[0, 1, 0, 1, 1, 2], [0] * 6, [0, 1, 2, 3, 4, 4]])
@pytest.mark.parametrize("normalize_time", [True, False])
def test_comet_id_equals_the_loop(ids: list[int], normalize_time: bool) -> None:
    h1, h2 = batch(6, 4, 2), batch(6, 4, 2, seed=1)
    x, y = (normalize((normalize(h, dim=1) if normalize_time else h).flatten(1)) for h in (h1, h2))
    s = x @ y.T / 0.1
    upper = [torch.logsumexp(s[i], 0) - s[i, j] for i in range(6) for j in range(i + 1, 6) if ids[i] == ids[j]]
    lower = [torch.logsumexp(s[:, j], 0) - s[i, j] for i in range(6) for j in range(i) if ids[i] == ids[j]]
    expected = 0.5 * (torch.stack(upper).mean() + torch.stack(lower).mean())
    loss = comet_id(h1, h2, torch.tensor(ids), normalize_time=normalize_time, memory_budget=200)
    same(loss, expected, h1, h2)


def test_comet_id_degenerate() -> None:
    h = torch.ones(3, 2, 2, requires_grad=True)
    loss = comet_id(h, h, torch.arange(3))
    assert float(loss.detach()) == 0.0
    assert (torch.autograd.grad(loss, h)[0] == 0).all()
    assert torch.isfinite(comet_id(h, -h, torch.tensor([0, 0, 1]), temperature=1e-3))
    ids = torch.tensor([0, 0, 1])
    assert torch.autograd.gradcheck(lambda a, b: comet_id(a, b, ids), (batch(3, 2, 2), batch(3, 2, 2, seed=1)))


def test_comet_sums_its_levels() -> None:
    h1, h2 = batch(4, 3, 2), batch(4, 3, 2, seed=1)
    trials, patients = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1])
    loss, parts = comet(h1, h2, trials, patients, weights=(1.0, 2.0, 3.0, 4.0), return_components=True)
    torch.testing.assert_close(parts["observation"], comet_observation(h1, h2, pyramid=True))
    torch.testing.assert_close(parts["sample"], comet_sample(h1, h2, pyramid=True))
    torch.testing.assert_close(parts["trial"], comet_id(h1, h2, trials))
    torch.testing.assert_close(parts["patient"], comet_id(h1, h2, patients))
    expected = sum(k * one for k, one in zip((1.0, 2.0, 3.0, 4.0), parts.values(), strict=True))
    torch.testing.assert_close(loss, torch.as_tensor(expected))
    with pytest.raises(ValueError, match="weights must hold 4 numbers"):
        comet(h1, h2, trials, patients, weights=(1.0,))


# Propagation


def dense_propagation(x: Tensor, k: Tensor, adjacency: Tensor, gamma: float, values: Tensor) -> Tensor:
    cosine = normalize(x) @ normalize(x).T
    positive = cosine.detach() > 0
    base = torch.where(positive, cosine, 1.0) + (1e-6 if gamma < 1 else 0.0)
    weight = torch.where(positive & adjacency, base**gamma, 0.0)
    return -2.0 * (normalize(weight @ normalize(values)) * normalize(k.detach())).sum(dim=1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("graph", ["none", "pairs", "rows"])
@pytest.mark.parametrize("memory_budget", [1 << 20, 300])
def test_propagation_equals_the_dense_form(gamma: float, graph: str, memory_budget: int) -> None:
    x, k, values = batch(6, 3), batch(6, 2, seed=1), batch(6, 2, seed=2)
    dense = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.3
    edges: Tensor | tuple[Tensor, Tensor] | None = None
    if graph == "pairs":
        edges = dense.nonzero().T
        edges = torch.cat([edges, edges[:, :3]], dim=1)  # repeated edges count once
    elif graph == "rows":
        edges = (torch.cat([torch.zeros(1, dtype=torch.int64), dense.sum(1).cumsum(0)]), dense.nonzero()[:, 1])
    adjacency = torch.ones(6, 6, dtype=torch.bool) if graph == "none" else dense | torch.eye(6, dtype=torch.bool)
    loss = propagation_consistency(
        x, k, edges, values=values, gamma=gamma, reduction="none", memory_budget=memory_budget
    )
    expected = dense_propagation(x, k, adjacency, gamma, values)
    same(loss + 0.0 * x.sum(), expected + 0.0 * x.sum(), x, values)
    assert not k.grad


def test_propagation_without_sharpness_is_the_mean_of_positive_neighbours() -> None:
    x, k = batch(5, 3).detach(), batch(5, 3, seed=1).detach()
    unit = normalize(x)
    mean = torch.stack([unit[(unit @ one) > 0].mean(dim=0) for one in unit])
    for gamma, tolerance in ((0.0, 1e-12), (1e-9, 1e-7)):
        loss = propagation_consistency(x, k, gamma=gamma)
        expected = -2 * (normalize(mean) * normalize(k)).sum(1).mean()
        torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)


def test_propagation_pairs() -> None:
    x, k, edges = batch(4, 3), batch(6, 3, seed=1), torch.tensor([[0, 1], [1, 2]])
    pairs = torch.tensor([[0, 0, 3], [5, 1, 2]])
    each = [propagation_consistency(x, k[[j] * 4], edges, reduction="none")[i] for i, j in pairs.T.tolist()]
    same(propagation_consistency(x, k, edges, pairs=pairs), torch.stack(each).mean(), x)
    with pytest.raises(ValueError, match=r"pairs must have shape \(2, pairs\)"):
        propagation_consistency(x, k, edges, pairs=pairs[0])
    with pytest.raises(IndexError, match=r"pairs\[1\] holds 5"):
        propagation_consistency(x, k[:3], edges, pairs=pairs)


def test_propagation_gradient_and_degenerate() -> None:
    k, edges = batch(4, 3, seed=1).detach(), torch.tensor([[0, 1, 2], [1, 2, 3]])
    weight = batch(4, seed=5).detach()
    for where in (edges, None):
        assert torch.autograd.gradcheck(
            lambda z, e=where: (propagation_consistency(z, k, e, reduction="none", memory_budget=100) * weight).sum(),
            batch(4, 3),
        )
    zero = torch.zeros(3, 2, requires_grad=True)
    for where in (torch.tensor([[0, 1], [1, 0]]), None):
        loss = propagation_consistency(zero, torch.ones(3, 2), where)
        assert float(loss.detach()) == 0.0
        assert (torch.autograd.grad(loss, zero)[0] == 0).all()
    alone = propagation_consistency(k, k, torch.zeros(2, 0, dtype=torch.int64))
    assert float(alone) == pytest.approx(-2.0)
    assert float(propagation_consistency(k[:0], k[:0], torch.zeros(2, 0, dtype=torch.int64))) == 0.0
    assert float(propagation_consistency(k[:0], k[:0])) == 0.0
    with pytest.raises(ValueError, match="gamma must not be negative, got -1"):
        propagation_consistency(k, k, gamma=-1)
    with pytest.raises(ValueError, match=r"targets must have as many features as the values \(3\), got 2"):
        propagation_consistency(k, k[:, :2])


# SepCLR


def loop_uniformity(x: Tensor, tau: float) -> Tensor:
    values = [-((x[i] - x[j]) ** 2).sum() / (2 * tau) for i in range(len(x)) for j in range(i)]
    return torch.logsumexp(torch.stack(values), 0) - math.log(len(values))


def loop_entropy(c: Tensor, s: Tensor, tau: float) -> Tensor:
    z = torch.cat([normalize(c), s], dim=1)
    squared = ((z[:, None] - z) ** 2).sum(dim=2)
    return (torch.logsumexp(-squared / (2 * tau), dim=1) - math.log(len(z))).mean()


@pytest.mark.parametrize("memory_budget", [1 << 20, 200])
def test_sepclr_terms(memory_budget: int) -> None:
    x, s = batch(6, 4), batch(6, 2, seed=1)
    same(sepclr_uniformity(x, temperature=0.7, memory_budget=memory_budget), loop_uniformity(x, 0.7), x)
    entropy = sepclr_joint_entropy(x, s, temperature=0.7, memory_budget=memory_budget)
    same(entropy, loop_entropy(x, s, 0.7), x, s)


def test_sepclr_is_the_sum_of_its_terms() -> None:
    c, s = [batch(6, 3), batch(6, 3, seed=1)], [batch(6, 2, seed=2), batch(6, 2, seed=3)]
    target = torch.tensor([True, False, True, True, False, True])
    loss, parts = sepclr(
        c, s, target, salient_weight=2.0, background_weight=3.0, entropy_weight=4.0, return_components=True
    )
    unit, shown = [normalize(one) for one in c], [one * target[:, None] for one in s]
    common = ((unit[0] - unit[1]) ** 2).sum(1).mean() + sum(loop_uniformity(one, 0.5) for one in unit)
    salient = ((s[0] - s[1]) ** 2).sum(1)[target].mean() + sum(loop_uniformity(one, 0.5) for one in shown)
    background = 0.5 * sum((one**2).sum(1)[~target].mean() for one in s)
    entropy = 0.5 * sum(loop_entropy(a, b, 0.5) for a, b in zip(c, shown, strict=True))
    same(loss, common + 2 * salient + 3 * background + 4 * entropy, *c, *s)
    for name, expected in (("common", common), ("salient", salient), ("background", background)):
        torch.testing.assert_close(parts[name], torch.as_tensor(expected))


def test_sepclr_degenerate() -> None:
    one = torch.ones(1, 3, requires_grad=True)
    loss = torch.as_tensor(sepclr([one, one], [one, one], torch.tensor([True])))
    assert float(loss.detach()) == 0.0
    assert torch.isfinite(torch.autograd.grad(loss, one)[0]).all()
    none = torch.zeros(0, 3)
    assert sepclr([none, none], [none, none], torch.zeros(0, dtype=torch.bool)) == 0.0
    twins = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    assert float(sepclr_uniformity(twins).detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(sepclr_uniformity(twins, ids=torch.zeros(4, dtype=torch.int64)).detach()) == 0.0
    x, ids = batch(4, 3), torch.tensor([0, 0, 1, 2])
    kept = [(i, j) for i in range(4) for j in range(i) if ids[i] != ids[j]]
    logits = torch.stack([-((x[i] - x[j]) ** 2).sum() for i, j in kept])
    same(sepclr_uniformity(x, ids=ids), torch.logsumexp(logits, 0) - math.log(len(kept)), x)
    with pytest.raises(ValueError, match=r"is_target must be bool of shape \(4,\)"):
        sepclr([x, x], [x, x], ids)
    with pytest.raises(ValueError, match="must hold 2 views each, got 1 and 2"):
        sepclr([x], [x, x], ids > 0)
    with pytest.raises(ValueError, match="salient must have 4 rows like common, got 3"):
        sepclr_joint_entropy(x, x[:3])
