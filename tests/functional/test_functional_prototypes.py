"""SwAV, PALM, MLCD, ND, Proto-Triplet and ICNN against dense formulas and loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.functional import icnn, mlcd, nearest_centers, norm_direction, palm, proto_triplet, swav
from graphcl.kernels import sinkhorn


def batch(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def gradients(value: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(one) for one in inputs]
    found = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    return [torch.zeros_like(one) if g is None else g for one, g in zip(inputs, found, strict=True)]


def same(value: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    """Equal values and equal gradients in all inputs."""
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    for got, wanted in zip(gradients(value, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


# SwAV


def dense_swav(views: list[Tensor], prototypes: Tensor, code_views: int, queues: list[Tensor] | None = None) -> Tensor:
    centers = normalize(prototypes)
    scores = [normalize(view) @ centers.T for view in views]
    loss = torch.zeros(views[0].shape[0], dtype=torch.float64)
    for v in range(code_views):
        balanced = scores[v]
        if queues is not None:
            balanced = torch.cat([normalize(queues[v]) @ centers.T, balanced])
        codes = sinkhorn(balanced.detach(), epsilon=0.1, iterations=2)[-len(scores[v]) :]
        for u, other in enumerate(scores):
            if u != v:
                loss = loss - (codes * torch.log_softmax(other / 0.3, dim=1)).sum(dim=1)
    return loss / code_views / (len(views) - 1)


@pytest.mark.parametrize(("num_views", "code_views"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("memory_budget", [1 << 20, 300])
def test_swav_equals_the_dense_form(num_views: int, code_views: int, memory_budget: int) -> None:
    views, prototypes = [batch(7, 4, seed=v) for v in range(num_views)], batch(5, 4, seed=9)
    loss = swav(
        views,
        prototypes,
        code_views=code_views,
        temperature=0.3,
        epsilon=0.1,
        iterations=2,
        reduction="none",
        memory_budget=memory_budget,
    )
    same(
        loss * batch(7, seed=8).detach(),
        dense_swav(views, prototypes, code_views) * batch(7, seed=8).detach(),
        *views,
        prototypes,
    )


def test_swav_queues_balance_the_codes() -> None:
    views, prototypes = [batch(4, 3), batch(4, 3, seed=1)], batch(6, 3, seed=2)
    queues = [batch(10, 3, seed=3), batch(8, 3, seed=4)]
    loss = swav(views, prototypes, queues=queues, temperature=0.3, epsilon=0.1, iterations=2)
    same(loss, dense_swav(views, prototypes, 2, queues).mean(), *views, prototypes)
    assert not torch.equal(loss, swav(views, prototypes, temperature=0.3, epsilon=0.1, iterations=2))


def test_swav_learnable_temperature_and_weights() -> None:
    views, prototypes = [batch(4, 3).detach(), batch(4, 3, seed=1).detach()], batch(6, 3, seed=2).detach()
    tau = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: swav(views, prototypes, temperature=t), tau)
    weight = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    each = swav(views, prototypes, reduction="none")
    torch.testing.assert_close(swav(views, prototypes, weight=weight), (each * weight).sum() / 4)


def test_swav_degenerate() -> None:
    assert float(swav([torch.zeros(0, 3), torch.zeros(0, 3)], torch.eye(3))) == 0.0
    zero = torch.zeros(4, 3, requires_grad=True)
    loss = swav([zero, zero], torch.eye(3))
    assert float(loss.detach()) == pytest.approx(math.log(3), rel=1e-6)
    assert (torch.autograd.grad(loss, zero)[0] == 0).all()
    cold = swav([batch(4, 3), batch(4, 3, seed=1)], batch(3, 3, seed=2), temperature=1e-3, epsilon=1e-3)
    assert torch.isfinite(cold)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: swav([torch.eye(2)], torch.eye(2)), "views must hold at least 2 views, got 1"),
        (lambda: swav([torch.eye(2)] * 2, torch.eye(2), code_views=3), r"code_views must lie in 1 \.\. 2"),
        (lambda: swav([torch.eye(2)] * 2, torch.eye(2), queues=[torch.eye(2)]), "one queue for each of 2 code views"),
        (lambda: swav([torch.eye(2)] * 2, torch.eye(3)), "same number of features, got 2 and 3"),
        (lambda: swav([torch.eye(2), torch.eye(3)[:, :2]], torch.eye(2)), "same number of rows, got 2 and 3"),
    ],
)
def test_swav_wrong_arguments(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# PALM


def loop_palm(
    x: Tensor, labels: list[int], prototypes: Tensor, classes: list[int], top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    f, old = normalize(x), normalize(prototypes.detach())
    number, count = len(f), len(old)

    def codes(centers: Tensor) -> list[list[float]]:
        return sinkhorn(f.detach() @ centers.detach().T, epsilon=0.2, iterations=3).tolist()

    before, kept = codes(old), []
    for i in range(number):
        own = [p for p in range(count) if classes[p] == labels[i]]
        own.sort(key=lambda p: -before[i][p])
        kept.append(own[:top_k] if top_k else own)
    share = torch.zeros(number, count, dtype=torch.float64)
    for i in range(number):
        total = sum(before[i][p] for p in kept[i])
        for p in kept[i]:
            share[i, p] = before[i][p] / total
    share = share / share.sum(dim=0).clamp(min=1e-300)
    new = normalize(0.8 * old + 0.2 * share.T @ f)
    after, terms = codes(new), []
    for i in range(number):
        logits = f[i] @ new.detach().T / 0.1
        total = sum(after[i][p] for p in kept[i])
        pull = sum((after[i][p] / total * logits[p] for p in kept[i]), torch.zeros((), dtype=torch.float64))
        if kept[i]:
            terms.append(torch.logsumexp(logits, 0) - pull)
    contrasts = []
    for p in range(count):
        mates = [q for q in range(count) if q != p and classes[q] == classes[p]]
        others = [q for q in range(count) if q != p]
        logits = new @ new[p] / 0.5
        if mates:
            contrasts.append(torch.logsumexp(logits[others], 0) - logits[mates].mean())
    return torch.stack(terms).mean(), torch.stack(contrasts).mean(), new


@pytest.mark.parametrize("top_k", [0, 1, 2, 100])
def test_palm_equals_the_loop(top_k: int) -> None:
    x, prototypes = batch(8, 4), batch(6, 4, seed=1)
    labels, classes = [0, 1, 0, 2, 1, 2, 0, 7], [0, 1, 2, 0, 1, 0]
    step = palm(
        x,
        torch.tensor(labels),
        prototypes,
        torch.tensor(classes),
        top_k=top_k,
        momentum=0.8,
        epsilon=0.2,
        prototype_weight=0.5,
    )
    mle, contrast, new = loop_palm(x, labels, prototypes, classes, top_k)
    same(step.loss, mle + 0.5 * contrast, x)
    torch.testing.assert_close(step.prototypes, new, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(step.mle, mle)
    torch.testing.assert_close(step.prototype_contrast, contrast)
    assert not torch.autograd.grad(step.loss, prototypes, allow_unused=True)[0]


def test_palm_degenerate() -> None:
    labels, classes = torch.tensor([0, 0]), torch.tensor([0, 1])
    empty = palm(torch.zeros(0, 3), labels[:0], torch.eye(3)[:2], classes)
    assert float(empty.loss) == 0.0
    torch.testing.assert_close(empty.prototypes, torch.eye(3)[:2])
    foreign = palm(torch.eye(3)[:2].requires_grad_(), labels + 5, torch.eye(3)[:2], classes)
    assert float(foreign.loss.detach()) == 0.0
    zero = torch.zeros(2, 3, requires_grad=True)
    step = palm(zero, labels, torch.eye(3)[:2], classes)
    assert torch.isfinite(step.loss)
    assert (torch.autograd.grad(step.loss, zero)[0] == 0).all()
    with pytest.raises(ValueError, match=r"momentum must lie in 0 \.\. 1, got 2"):
        palm(torch.eye(2), labels, torch.eye(2), classes, momentum=2)
    with pytest.raises(ValueError, match="top_k must not be negative, got -1"):
        palm(torch.eye(2), labels, torch.eye(2), classes, top_k=-1)


# MLCD


def loop_mlcd(
    x: Tensor, y: Tensor, positives: list[set[int]], sampled: list[int], scale: float, margin: float
) -> Tensor:
    s = normalize(x) @ normalize(y).T
    losses = []
    for i, own in enumerate(positives):
        if own:
            pull = torch.stack([torch.exp(-scale * (s[i, p] - margin)) for p in own]).sum()
            push = sum(
                (torch.exp(scale * s[i, j]) for j in sampled if j not in own), torch.zeros((), dtype=torch.float64)
            )
            losses.append(torch.log(1 + pull) + torch.log(1 + push))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("sampled", [None, [4, 1, 0], [2], []])
@pytest.mark.parametrize("memory_budget", [1 << 20, 200])
def test_mlcd_equals_the_loop(sampled: list[int] | None, memory_budget: int) -> None:
    x, y = batch(4, 3), batch(5, 3, seed=1)
    positives = [{0, 4}, {1}, set(), {0, 1, 2, 3, 4}]
    pairs = torch.tensor([(i, p) for i, own in enumerate(positives) for p in own]).T
    loss = mlcd(
        x,
        y,
        pairs,
        negatives=None if sampled is None else torch.tensor(sampled, dtype=torch.int64),
        scale=4.0,
        margin=0.2,
        memory_budget=memory_budget,
    )
    expected = loop_mlcd(x, y, positives, list(range(5)) if sampled is None else sampled, 4.0, 0.2)
    same(loss, expected, x, y)


def test_mlcd_is_the_product_form() -> None:
    # 1 + AB + A + B = (1 + A)(1 + B)
    x, y = batch(1, 3).detach(), batch(4, 3, seed=1).detach()
    s = (normalize(x) @ normalize(y).T)[0]
    a, b = torch.exp(-2 * s[:2]).sum(), torch.exp(2 * s[2:]).sum()
    loss = mlcd(x, y, torch.tensor([[0, 0], [0, 1]]), scale=2.0)
    torch.testing.assert_close(loss, torch.log(1 + a * b + a + b))


def test_mlcd_degenerate() -> None:
    x = torch.eye(3, requires_grad=True)
    none = mlcd(x, torch.eye(3), torch.zeros(2, 0, dtype=torch.int64))
    assert float(none) == 0.0
    assert (torch.autograd.grad(none, x)[0] == 0).all()
    large = mlcd(x, torch.eye(3), nearest_centers(x, torch.eye(3), 1), scale=1000.0)
    assert torch.isfinite(large)
    with pytest.raises(ValueError, match="scale must be a finite number above 0, got 0"):
        mlcd(x, torch.eye(3), torch.tensor([[0], [0]]), scale=0.0)
    with pytest.raises(IndexError, match="negatives holds 3"):
        mlcd(x, torch.eye(3), torch.tensor([[0], [0]]), negatives=torch.tensor([3]))


def test_mlcd_gradient() -> None:
    pairs = torch.tensor([[0, 0, 1, 2], [0, 2, 1, 1]])
    weight = batch(3, seed=5).detach()
    assert torch.autograd.gradcheck(
        lambda a, b: (mlcd(a, b, pairs, scale=2.0, reduction="none") * weight).sum(), (batch(3, 4), batch(4, 4, seed=1))
    )


def test_nearest_centers() -> None:
    x, y = batch(6, 3).detach(), batch(5, 3, seed=1).detach()
    offsets, columns = nearest_centers(x, y, 2)
    s = normalize(x) @ normalize(y).T
    for i in range(6):
        assert columns[offsets[i] : offsets[i + 1]].tolist() == sorted(s[i].topk(2).indices.tolist())
    offsets, columns = nearest_centers(x, y, 5, min_similarity=0.5)
    for i in range(6):
        wanted = {int(s[i].argmax()), *(s[i] >= 0.5).nonzero().flatten().tolist()}
        assert set(columns[offsets[i] : offsets[i + 1]].tolist()) == wanted


# ND


def test_norm_direction() -> None:
    s, t, means = batch(5, 3), batch(5, 3, seed=1).detach(), batch(2, 3, seed=2).detach()
    labels = torch.tensor([0, 1, 1, 0, 1])
    expected = 1 - (s * normalize(means)[labels]).sum(1) / torch.maximum(s.norm(dim=1), t.norm(dim=1))
    same(norm_direction(s, t, labels, means, reduction="none"), expected, s)
    weight = batch(5, seed=4).detach()
    assert torch.autograd.gradcheck(lambda z: (norm_direction(z, t, labels, means, reduction="none") * weight).sum(), s)


def test_norm_direction_degenerate() -> None:
    zero = torch.zeros(2, 3, requires_grad=True)
    loss = norm_direction(zero, torch.zeros(2, 3), torch.tensor([0, 1]), torch.eye(3))
    assert float(loss) == 1.0
    assert (torch.autograd.grad(loss, zero)[0] == 0).all()
    assert float(norm_direction(zero[:0], zero[:0], torch.tensor([], dtype=torch.int64), torch.eye(3))) == 0.0
    with pytest.raises(IndexError, match="labels holds 3"):
        norm_direction(zero, zero, torch.tensor([0, 3]), torch.eye(3))


# Proto-Triplet


@pytest.mark.parametrize("memory_budget", [1 << 20, 1, 500])
def test_proto_triplet_equals_the_loop(memory_budget: int) -> None:
    q, p, labels = batch(6, 3), batch(4, 3, seed=1), torch.tensor([0, 1, 2, 3, 0, 0])
    losses = []
    for i in range(6):
        own = (q[i] - p[labels[i]]).norm()
        losses.append(sum(torch.relu(own - (q[i] - p[c]).norm() + 0.7) for c in range(4) if c != labels[i]) / 3)
    loss = proto_triplet(q, p, labels, margin=0.7, reduction="none", memory_budget=memory_budget)
    same(loss, torch.stack([torch.as_tensor(one) for one in losses]), q, p)


def test_proto_triplet_gradient_and_degenerate() -> None:
    labels = torch.tensor([0, 1, 1])
    assert torch.autograd.gradcheck(
        lambda a, b: proto_triplet(a, b, labels, memory_budget=1), (batch(3, 2), batch(3, 2, seed=1))
    )
    single = torch.ones(3, 2, requires_grad=True)
    loss = proto_triplet(single, torch.ones(1, 2), torch.zeros(3, dtype=torch.int64))
    assert float(loss) == 0.0
    on_top = proto_triplet(single, torch.ones(2, 2), labels)
    assert float(on_top) == 0.5
    assert torch.isfinite(torch.autograd.grad(on_top, single)[0]).all()
    assert float(proto_triplet(torch.zeros(0, 2), torch.ones(2, 2), labels[:0])) == 0.0


# ICNN


def loop_icnn(x: Tensor, labels: list[int], k: int) -> Tensor:
    """The published score, neighbour by neighbour."""
    n, eps = len(x), 1e-7
    reduced = k + 2 >= n
    k = n - 2 if reduced else k
    zero = torch.zeros((), dtype=torch.float64)
    same_means, other_rows, fractions = [], [], []
    for i in range(n):
        d = {j: torch.sqrt(((x[i] - x[j]) ** 2).sum() + 1e-6) for j in range(n) if j != i}
        near = sorted(d, key=lambda j: (float(d[j]), j))[: k + 1]
        others = [d[j] for j in near if labels[j] != labels[i]]
        nearest_other = torch.stack(others).min() + eps if others else None
        ratios = {j: d[j] / nearest_other if nearest_other is not None else zero for j in near[:k]}
        top = torch.clamp(torch.stack(list(ratios.values())).max(), min=1.0)
        mates = [ratios[j] / top for j in near[:k] if labels[j] == labels[i]]
        if mates:
            same_means.append(torch.stack(mates).sum() / (len(mates) + eps))
        other_rows.append([d[j] for j in near[:k] if labels[j] != labels[i]])
        fractions.append(len(mates) / k)
    a = 1 - (torch.stack(same_means).sum() / (len(same_means) + eps) if same_means else zero)
    flat = [one for row in other_rows for one in row]
    if flat:
        top = torch.stack(flat).max() + eps
        rows = [torch.stack(row).sum() / top / (len(row) + eps) for row in other_rows if row]
        b = torch.stack(rows).sum() / (len(rows) + eps)
    else:
        b = zero + 1
    gamma = 1.0 if reduced else sum(fractions) / n
    return -torch.log(((a + b) / 2 + gamma) / 2)


@pytest.mark.parametrize("k", [1, 3, 4, 6, 20])
@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, 2, 2], [0] * 8, list(range(8)), [0, 1, 1, 1, 1, 1, 1, 1]])
def test_icnn_equals_the_loop(k: int, labels: list[int]) -> None:
    x = batch(8, 3)
    loss = icnn(x, torch.tensor(labels), k=k, memory_budget=200)
    assert isinstance(loss, Tensor)
    same(loss, loop_icnn(x, labels, k), x)


def test_icnn_with_keys_drops_the_nearest() -> None:
    x, labels = batch(8, 3), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    own, parts = icnn(x, labels, k=3, return_components=True)
    keyed = icnn(x, labels, keys=x, key_labels=labels, k=3)
    assert isinstance(keyed, Tensor)
    torch.testing.assert_close(keyed, own)
    score = (0.5 * (parts["same_class"] + parts["other_class"]) + parts["neighbours"]) / 2
    torch.testing.assert_close(own, -torch.log(score))


def test_icnn_degenerate() -> None:
    few = torch.zeros(2, 3, requires_grad=True)
    loss = icnn(few, torch.tensor([0, 1]))
    assert isinstance(loss, Tensor)
    assert float(loss) == 0.0
    twins = torch.ones(6, 3, requires_grad=True)
    loss = icnn(twins, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert isinstance(loss, Tensor)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, twins)[0]).all()
    with pytest.raises(ValueError, match="keys and key_labels belong together"):
        icnn(twins, torch.zeros(6, dtype=torch.int64), keys=twins)
