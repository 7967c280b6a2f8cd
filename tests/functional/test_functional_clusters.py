"""SBCL, BaCon, cluster-restricted negatives, InterCLR and DBPM against dense formulas and loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.functional import (
    bacon_log_prior,
    bacon_regularizer,
    bacon_sampling_rate,
    bacon_soft,
    bad_pair_weights,
    cluster_restricted_info_nce,
    compose_stages,
    dbpm,
    info_nce,
    interclr,
    nt_xent,
    sample_cluster_negatives,
    sample_cluster_positives,
    sbcl,
    sbcl_class_temperature,
    sbcl_subclusters,
    sup_con,
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


def mean_of_logs(logits: Tensor, weights: Tensor, candidates: Tensor) -> Tensor:
    """A1 on dense matrices."""
    total = torch.logsumexp(logits.masked_fill(~candidates, -torch.inf), dim=1)
    return total - (weights * logits).sum(dim=1) / weights.sum(dim=1)


# SBCL


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("memory_budget", [1 << 20, 300])
def test_sbcl_equals_the_dense_form(ranked: bool, memory_budget: int) -> None:
    z1, z2 = batch(6, 4), batch(6, 4, seed=1)
    labels, clusters = torch.tensor([0, 1, 0, 2, 1, 2]), torch.tensor([0, 1, 2, 3, 1, 4])
    tau_c = torch.tensor([0.2, 0.1, 0.15], dtype=torch.float64)
    z = normalize(torch.cat([z1, z2]))
    y, c, s = labels.repeat(2), clusters.repeat(2), z @ z.T
    eye = torch.eye(12, dtype=torch.bool)
    twin = eye.roll(6, 0)
    mates = (c[:, None] == c) & ~eye
    first = mean_of_logs(s / 0.1, mates.double(), ~eye)
    classmates, candidates, tau = (y[:, None] == y) & ~eye, ~eye, torch.full((12, 1), 0.1, dtype=torch.float64)
    if ranked:
        outside = ~mates | twin
        classmates, candidates, tau = classmates & outside, ~eye & outside, tau_c[y][:, None]
    second = mean_of_logs(s / tau, classmates.double(), candidates)
    loss, parts = sbcl(
        z1,
        z2,
        labels,
        clusters,
        class_temperature=tau_c if ranked else None,
        gamma=0.5,
        reduction="none",
        return_components=True,
        memory_budget=memory_budget,
    )
    same(loss, 0.1 / 0.07 * first + 0.5 * second, z1, z2)
    torch.testing.assert_close(parts["cluster"], first)
    torch.testing.assert_close(parts["class"], second)


def test_sbcl_with_one_cluster_a_class_is_supervised_contrast() -> None:
    z1, z2, labels = batch(5, 3), batch(5, 3, seed=1), torch.tensor([0, 1, 0, 1, 2])
    loss = sbcl(z1, z2, labels, labels, base_temperature=0.1, gamma=0.25)
    torch.testing.assert_close(loss, 1.25 * sup_con(torch.cat([z1, z2]), labels.repeat(2), temperature=0.1))


def test_sbcl_gradient_and_empty() -> None:
    labels, clusters = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])
    tau = torch.tensor([0.5, 0.7], dtype=torch.float64)
    weight = batch(6, seed=3).detach()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        value = sbcl(a, b, labels, clusters, class_temperature=tau, temperature=0.5, reduction="none")
        return (torch.as_tensor(value) * weight).sum()

    assert torch.autograd.gradcheck(loss, (batch(3, 2), batch(3, 2, seed=1)))
    none = torch.zeros(0, 3)
    assert sbcl(none, none, labels[:0], clusters[:0]) == 0.0
    with pytest.raises(IndexError, match="labels holds 1, outside 0"):
        sbcl(torch.eye(3), torch.eye(3), labels, clusters, class_temperature=torch.tensor([0.1]))


def test_sbcl_class_temperature_follows_the_formula() -> None:
    z, labels = batch(40, 3).detach(), torch.arange(40) % 5
    clusters = torch.where(labels == 4, 99, torch.arange(40))
    got = sbcl_class_temperature(z, labels, clusters, 6, temperature=0.2)
    unit = normalize(z)
    density = []
    for c in range(4):
        rows = unit[labels == c]
        density.append(float((rows - rows.mean(0)).norm(dim=1).mean()) / math.log(len(rows) + 10))
    values = torch.tensor(density, dtype=torch.float64)
    low, high = (float(torch.quantile(values, q)) for q in (0.2, 0.8))
    clipped = values.clamp(low, high)
    torch.testing.assert_close(got[:4], 0.2 * clipped / clipped.mean())
    assert got[4:].tolist() == [0.2, 0.2]


@pytest.mark.parametrize("seed", range(3))
def test_sbcl_subclusters_are_balanced(seed: int) -> None:
    labels = torch.tensor([0] * 23 + [1] * 7 + [2] * 12)
    z = batch(42, 3, seed=seed).detach()
    clusters = sbcl_subclusters(z, labels, min_size=4, generator=torch.Generator().manual_seed(seed))
    again = sbcl_subclusters(z, labels, min_size=4, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(clusters, again)
    for one, parts, size in ((0, 3, 23), (1, 1, 7), (2, 1, 12)):
        counts = torch.unique(clusters[labels == one], return_counts=True)[1]
        assert len(counts) <= parts
        assert int(counts.max()) <= -(-size // parts)
    assert len(torch.unique(torch.stack([labels, clusters]), dim=1).T) == len(torch.unique(clusters))
    assert sbcl_subclusters(z[:0], labels[:0]).shape == (0,)


def test_sbcl_subclusters_find_separate_groups_and_take_equal_rows() -> None:
    angle = torch.tensor([0.0, 1.5, 3.0, 4.5], dtype=torch.float64).repeat(6)  # the last four are a class of their own
    labels = torch.tensor([0] * 20 + [1] * 4)
    z = torch.stack([angle.cos(), angle.sin()], dim=1) + batch(24, 2).detach() * 0.03
    clusters = sbcl_subclusters(z, labels, min_size=5, generator=torch.Generator().manual_seed(0))[:20]
    assert sorted(len(torch.unique(clusters[angle[:20] == one])) for one in (0.0, 1.5, 3.0, 4.5)) == [1, 1, 1, 1]
    assert torch.bincount(clusters).tolist() == [5, 5, 5, 5]
    equal = sbcl_subclusters(torch.ones(24, 2), labels, min_size=5, generator=torch.Generator().manual_seed(0))
    assert torch.bincount(equal).tolist() == [5, 5, 5, 5, 4]


# BaCon


@pytest.mark.parametrize("memory_budget", [1 << 20, 300])
def test_bacon_soft_equals_the_dense_form(memory_budget: int) -> None:
    z1, z2 = batch(5, 3), batch(5, 3, seed=1)
    p = torch.softmax(batch(5, 2, seed=2).detach(), dim=1)
    mask = p @ p.T
    mask.fill_diagonal_(1.0)
    weights = mask.repeat(2, 2) * (1 - torch.eye(10, dtype=torch.float64))
    z = normalize(torch.cat([z1, z2]))
    expected = mean_of_logs(z @ z.T / 0.3, weights, ~torch.eye(10, dtype=torch.bool))
    loss = bacon_soft(z1, z2, p, temperature=0.3, reduction="none", memory_budget=memory_budget)
    same(loss, expected, z1, z2)
    factored = bacon_soft(
        z1, z2, mask, other_probabilities=torch.eye(5, dtype=torch.float64), temperature=0.3, reduction="none"
    )
    torch.testing.assert_close(factored, expected)


def test_bacon_soft_of_disjoint_classes_is_nt_xent() -> None:
    z1, z2 = batch(4, 3), batch(4, 3, seed=1)
    loss = bacon_soft(z1, z2, torch.eye(4, dtype=torch.float64), temperature=0.3)
    torch.testing.assert_close(loss, nt_xent(z1, z2, temperature=0.3))


def test_bacon_soft_gradient_and_faults() -> None:
    p = torch.softmax(batch(3, 2, seed=2).detach(), dim=1)
    tau = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64, requires_grad=True)
    weight = batch(6, seed=3).detach()
    assert torch.autograd.gradcheck(
        lambda a, b, t: (bacon_soft(a, b, p, temperature=t, reduction="none") * weight).sum(),
        (batch(3, 2), batch(3, 2, seed=1), tau),
    )
    assert float(bacon_soft(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 3))) == 0.0
    with pytest.raises(ValueError, match="probabilities must not be negative, got -1"):
        bacon_soft(torch.eye(2), torch.eye(2), -torch.eye(2))
    with pytest.raises(ValueError, match=r"probabilities must have shape \(2, 3\)"):
        bacon_soft(torch.eye(2), torch.eye(2), torch.eye(3))


def test_bacon_regularizer() -> None:
    logits, counts = batch(6, 3), torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64)
    mean = torch.softmax(logits / 0.4, dim=1).mean(dim=0) * counts**-1.1
    q = mean / mean.sum()
    same(bacon_regularizer(logits, counts, temperature=0.4), (q * q.log()).sum() + math.log(3), logits)
    assert torch.autograd.gradcheck(lambda o: bacon_regularizer(o, counts, temperature=0.4), logits)
    assert float(bacon_regularizer(torch.zeros(0, 3), counts.float())) == 0.0
    assert torch.isfinite(bacon_regularizer(logits * 1e4, counts))
    assert bacon_regularizer(logits.bfloat16(), counts).dtype == torch.float32
    with pytest.raises(ValueError, match=r"counts must be above 0, got 0\.0"):
        bacon_regularizer(logits, counts * 0)


def test_bacon_frequencies() -> None:
    counts = torch.tensor([8.0, 2.0, 0.0])
    expected = torch.tensor([0.8, 0.2, 0.0]).sqrt().add(1e-12).log()
    torch.testing.assert_close(bacon_log_prior(counts), expected)
    rate = bacon_sampling_rate(torch.tensor([8.0, 2.0]), torch.tensor([True, False]), known_power=0.0)
    assert rate.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="counts must be a vector"):
        bacon_log_prior(torch.zeros(3))
    with pytest.raises(ValueError, match="known must be a bool tensor"):
        bacon_sampling_rate(torch.ones(2), torch.ones(2))


# Cluster-restricted negatives


def loop_restricted(
    z1: Tensor,
    z2: Tensor,
    stages: list[list[int]],
    least: int,
    ids: list[int],
    keys: tuple[Tensor, list[list[int]], list[int]] | None = None,
) -> Tensor:
    """``keys``: embeddings, clusters of every stage, ids; by default the rows of z2."""
    far, far_stages, far_ids = (z2, stages, ids) if keys is None else keys
    positive = (normalize(z1) * normalize(z2)).sum(dim=1) / 0.2
    s, losses = normalize(z1) @ normalize(far).T / 0.2, []
    for i in range(len(s)):
        chosen: list[int] = []
        for depth in range(len(stages), -1, -1):
            both = list(zip(stages[:depth], far_stages[:depth], strict=True))
            chosen = [j for j in range(len(far)) if far_ids[j] != ids[i] and all(mine[i] == st[j] for mine, st in both)]
            if len(chosen) >= least:
                break
        losses.append(torch.logsumexp(torch.cat([positive[i : i + 1], s[i, chosen]]), 0) - positive[i])
    return torch.stack(losses)


@pytest.mark.parametrize("least", [0, 1, 2, 4, 50])
@pytest.mark.parametrize("ids", [None, [0, 1, 2, 3, 4, 5, 6, 0]])
@pytest.mark.parametrize("memory_budget", [1 << 20, 200])
def test_cluster_restricted_equals_the_loop(least: int, ids: list[int] | None, memory_budget: int) -> None:
    z1, z2 = batch(8, 3), batch(8, 3, seed=1)
    stages = [[0, 0, 0, 0, 0, 1, 1, 2], [5, 5, 5, 6, 6, 5, 5, 5], [0, 0, 1, 0, 0, 0, 1, 0]]
    loss = cluster_restricted_info_nce(
        z1,
        z2,
        torch.tensor(stages),
        min_negatives=least,
        ids=None if ids is None else torch.tensor(ids),
        temperature=0.2,
        reduction="none",
        memory_budget=memory_budget,
    )
    same(loss, loop_restricted(z1, z2, stages, least, ids or list(range(8))), z1, z2)


@pytest.mark.parametrize("least", [0, 1, 2, 4, 50])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("memory_budget", [1 << 20, 200])
def test_cluster_restricted_with_keys_equals_the_loop(least: int, named: bool, memory_budget: int) -> None:
    z1, z2, keys = batch(5, 3), batch(5, 3, seed=1), batch(9, 3, seed=2)
    stages = [[0, 0, 1, 2, 7], [5, 5, 5, 6, 6], [0, 1, 1, 0, 1]]
    key_stages = [[0, 0, 0, 1, 1, 2, 3, 0, 0], [5, 6, 5, 5, 5, 6, 5, 5, 9], [0, 0, 1, 1, 1, 0, 0, 0, 1]]
    ids, key_ids = [0, 1, 2, 3, 4], [0, 5, 0, 2, 6, 7, 8, 1, 9]
    loss = cluster_restricted_info_nce(
        z1,
        z2,
        torch.tensor(stages),
        keys=keys,
        key_clusters=torch.tensor(key_stages),
        ids=torch.tensor(ids) if named else None,
        key_ids=torch.tensor(key_ids, dtype=torch.int32) if named else None,
        min_negatives=least,
        temperature=0.2,
        reduction="none",
        memory_budget=memory_budget,
    )
    far = (keys, key_stages, key_ids if named else [-1] * 9)
    same(loss, loop_restricted(z1, z2, stages, least, ids, far), z1, z2, keys)


def test_cluster_restricted_gradient_with_keys() -> None:
    clusters, key_clusters = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 1, 1, 0, 3])
    ids, key_ids = torch.arange(4), torch.tensor([0, 9, 1, 8, 2])
    tau = torch.tensor([0.5, 0.7, 0.9, 0.6], dtype=torch.float64, requires_grad=True)
    upstream = batch(4, seed=3).detach()

    def loss(z1: Tensor, z2: Tensor, keys: Tensor, temperature: Tensor) -> Tensor:
        value = cluster_restricted_info_nce(
            z1,
            z2,
            clusters,
            keys=keys,
            key_clusters=key_clusters,
            ids=ids,
            key_ids=key_ids,
            temperature=temperature,
            reduction="none",
        )
        return (value * upstream).sum()

    inputs = (batch(4, 2), batch(4, 2, seed=1), batch(5, 2, seed=2), tau)
    assert all((grad != 0).any() for grad in torch.autograd.grad(loss(*inputs), inputs))
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("least", [0, 2])
def test_cluster_restricted_keys_that_are_the_second_view_change_nothing(least: int) -> None:
    z1, z2, clusters, ids = batch(6, 3), batch(6, 3, seed=1), torch.tensor([0, 1, 0, 1, 1, 2]), torch.arange(6)
    plain = cluster_restricted_info_nce(z1, z2, clusters, min_negatives=least)
    keyed = cluster_restricted_info_nce(
        z1, z2, clusters, keys=z2, key_clusters=clusters[None], ids=ids, key_ids=ids, min_negatives=least
    )
    same(keyed, plain, z1, z2)


def test_cluster_restricted_keys_of_one_cluster_are_those_of_info_nce() -> None:
    z1, z2, keys = batch(5, 3), batch(5, 3, seed=1), batch(7, 3, seed=2)
    ids, key_ids, one = torch.arange(5), torch.arange(7) - 2, torch.zeros(7, dtype=torch.int64)
    got = cluster_restricted_info_nce(z1, z2, one[:5], keys=keys, key_clusters=one, ids=ids, key_ids=key_ids)
    same(got, info_nce(z1, z2, keys=keys, ids=ids, key_ids=key_ids), z1, z2, keys)
    for count in (0, 5):
        none = cluster_restricted_info_nce(
            z1[:count], z2[:count], one[:count], keys=keys[:0], key_clusters=one[:0], min_negatives=2
        )
        assert float(none.detach()) == 0.0


CLUSTER_FAULTS: list[tuple[dict[str, Tensor | bool], str]] = [
    ({"keys": torch.eye(3)}, "keys need key_clusters, got None"),
    ({"key_clusters": torch.arange(3)}, "key_clusters belong to keys, got key_clusters without keys"),
    ({"key_ids": torch.arange(3)}, "key_ids belong to keys, got key_ids without keys"),
    ({"keys": torch.eye(3), "key_clusters": torch.arange(2)}, r"key_clusters must be integers of shape \(3,\)"),
    (
        {"keys": torch.eye(3), "key_clusters": torch.zeros(2, 3, dtype=torch.int64)},
        "key_clusters must hold as many stages as clusters, got 2 and 1",
    ),
    ({"keys": torch.eye(2), "key_clusters": torch.arange(2)}, "z1 and keys must have the same number of features"),
    (
        {"keys": torch.eye(3), "key_clusters": torch.arange(3), "ids": torch.arange(3)},
        "ids and key_ids are compared with each other, got only ids",
    ),
    (
        {"keys": torch.eye(3), "key_clusters": torch.arange(3), "symmetric": True},
        "symmetric needs z1 and z2 as candidates; with keys call once a direction",
    ),
]


@pytest.mark.parametrize(("options", "message"), CLUSTER_FAULTS)
def test_cluster_restricted_faults_of_keys(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_restricted_info_nce(torch.eye(3), torch.eye(3), torch.arange(3), **options)


def test_cluster_restricted_of_one_cluster_is_info_nce() -> None:
    z1, z2, one = batch(5, 3), batch(5, 3, seed=1), torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(cluster_restricted_info_nce(z1, z2, one), info_nce(z1, z2))
    torch.testing.assert_close(
        cluster_restricted_info_nce(z1, z2, one, symmetric=True), info_nce(z1, z2, symmetric=True)
    )
    alone = cluster_restricted_info_nce(z1, z2, torch.arange(5))
    assert float(alone.detach()) == 0.0
    assert (torch.autograd.grad(alone, z1)[0] == 0).all()
    assert float(cluster_restricted_info_nce(z1[:0].detach(), z2[:0].detach(), one[:0], min_negatives=2)) == 0.0
    with pytest.raises(ValueError, match=r"clusters must be integers of shape \(5,\)"):
        cluster_restricted_info_nce(z1, z2, one[:3])
    with pytest.raises(ValueError, match="clusters must hold at least one stage"):
        cluster_restricted_info_nce(z1, z2, one.expand(0, 5))


def test_compose_stages() -> None:
    stages = [torch.tensor([0, 2, 1]), torch.tensor([1, 0, 1]), torch.tensor([3, 3, 0])]
    assert compose_stages(stages, [3, 2, 4]).tolist() == [(0 * 2 + 1) * 4 + 3, (2 * 2 + 0) * 4 + 3, (1 * 2 + 1) * 4]
    with pytest.raises(IndexError, match=r"stages\[0\] holds 2, outside 0 \.\. 1"):
        compose_stages(stages, 2)
    with pytest.raises(ValueError, match="stages must not be empty"):
        compose_stages([])


# InterCLR


def test_interclr_equals_the_loop() -> None:
    q, memory = batch(4, 3), batch(7, 3, seed=1)
    positives, negatives = torch.tensor([0, 3, -1, 6]), torch.tensor([[1, 2], [4, -1], [5, 6], [-1, -1]])
    s, losses = normalize(q) @ normalize(memory).T, []
    for i, p in enumerate(positives.tolist()):
        if p >= 0:
            logits = [(s[i, p] + 0.5) / 0.2, *(s[i, j] / 0.2 for j in negatives[i].tolist() if j >= 0)]
            losses.append(torch.logsumexp(torch.stack(logits), 0) - logits[0])
    loss = interclr(q, memory, positives, negatives)
    same(loss, torch.stack(losses).mean(), q, memory)
    assert torch.autograd.gradcheck(lambda a, b: interclr(a, b, positives, negatives, memory_budget=100), (q, memory))
    none = interclr(q, memory, torch.full((4,), -1), negatives)
    assert float(none.detach()) == 0.0
    assert (torch.autograd.grad(none, q)[0] == 0).all()
    with pytest.raises(IndexError, match="positives holds 8"):
        interclr(q, memory, torch.tensor([7, 0, 0, 0]), negatives)
    with pytest.raises(ValueError, match=r"negatives must have shape \(4, k\)"):
        interclr(q, memory, positives, negatives[:2])


def test_sample_cluster_positives_is_uniform_over_the_others() -> None:
    clusters = torch.tensor([3, 1, 3, 3, 1, 2, -1, -1])
    ids = torch.arange(8).repeat(600)
    drawn = sample_cluster_positives(clusters, ids, generator=torch.Generator().manual_seed(0)).reshape(600, 8)
    assert set(drawn[:, 5].tolist()) == {-1}
    assert set(drawn[:, 6].tolist()) == {-1}
    assert set(drawn[:, 1].tolist()) == {4}
    for own, others in ((0, (2, 3)), (2, (0, 3)), (3, (0, 2))):
        assert set(drawn[:, own].tolist()) == set(others)
        assert 230 < int((drawn[:, own] == others[0]).sum()) < 370


@pytest.mark.parametrize("hardness", ["semi-hard", "hard", "random", "semi-easy"])
def test_sample_cluster_negatives(hardness: str) -> None:
    q, memory = batch(3, 4).detach(), batch(20, 4, seed=1).detach()
    clusters, own = torch.arange(20) % 4, torch.tensor([0, 1, 7])
    drawn = sample_cluster_negatives(
        q,
        memory,
        clusters,
        own,
        4,
        pool=6,
        hardness=hardness,  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(0),
    )
    s = normalize(q) @ normalize(memory).T
    for i in range(3):
        allowed = [j for j in range(20) if clusters[j] != own[i]]
        allowed.sort(key=lambda j, i=i: -float(s[i, j]))  # type: ignore[misc]
        pool = {"hard": allowed[:4], "semi-hard": allowed[:6], "semi-easy": allowed[-6:], "random": allowed}[hardness]
        assert len(set(drawn[i].tolist())) == 4
        assert set(drawn[i].tolist()) <= set(pool)


def test_sample_cluster_negatives_fills_up_with_minus_one() -> None:
    drawn = sample_cluster_negatives(torch.eye(3), torch.eye(3), torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 5)
    assert sorted(drawn[0].tolist()) == [-1, -1, -1, -1, 2]
    assert sorted(drawn[2].tolist()) == [-1, -1, -1, 0, 1]
    with pytest.raises(ValueError, match="hardness must be 'semi-hard'"):
        sample_cluster_negatives(
            torch.eye(2),
            torch.eye(2),
            torch.arange(2),
            torch.arange(2),
            hardness="easy",  # type: ignore[arg-type]
        )


# DBPM


@pytest.mark.parametrize("normalise", ["peak", "none"])
def test_dbpm_equals_the_loop(normalise: str) -> None:
    z1, z2 = batch(6, 3), batch(6, 3, seed=1)
    history = [0.2, 1.0, 1.95, 0.9, 1.9, 0.1]
    losses = nt_xent(z1, z2, temperature=0.2, reduction="none").reshape(2, 6).mean(dim=0)
    weights = []
    for value, past in zip(losses.tolist(), history, strict=True):
        bad = past <= 1.0 - 2 * 0.3 or past >= 1.0 + 3 * 0.3
        density = math.exp(-0.5 * ((value - 1.0) / 0.3) ** 2)
        scale = 0.3 * math.sqrt(2 * math.pi) if normalise == "none" else 1.0
        weights.append(density / scale if bad else 1.0)
    expected = (losses * torch.tensor(weights, dtype=torch.float64)).mean()
    loss, parts = dbpm(
        z1,
        z2,
        torch.tensor(history, dtype=torch.float64),
        mean=1.0,
        deviation=0.3,
        normalise=normalise,  # type: ignore[arg-type]
        return_components=True,
    )
    same(loss, expected, z1, z2)
    torch.testing.assert_close(parts["pair_loss"], losses)
    assert parts["pair_weight"].tolist() == pytest.approx(weights)
    assert not parts["pair_weight"].requires_grad


def test_dbpm_without_history_is_nt_xent() -> None:
    z1, z2 = batch(4, 3), batch(4, 3, seed=1)
    torch.testing.assert_close(torch.as_tensor(dbpm(z1, z2)), nt_xent(z1, z2, temperature=0.2))
    assert bad_pair_weights(torch.ones(3), torch.ones(3), mean=1.0, deviation=0.0).tolist() == [1.0] * 3
    assert dbpm(torch.zeros(0, 3), torch.zeros(0, 3)) == 0.0


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: bad_pair_weights(torch.ones(2), torch.ones(3), mean=0.0, deviation=1.0), r"must have shape \(2,\)"),
    (
        lambda: bad_pair_weights(torch.ones(2), torch.ones(2), mean=0.0, deviation=-1.0),
        "deviation must not be negative",
    ),
    (
        lambda: bad_pair_weights(torch.ones(2), torch.ones(2), mean=0.0, deviation=1.0, normalise="sum"),  # type: ignore[arg-type]
        "normalise must be 'peak' or 'none', got 'sum'",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_dbpm_wrong_arguments(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
