from __future__ import annotations

import pytest
import torch
from torch import Tensor

from graphcl.functional import claps, diagonal_rescale, info_nce, moco, quality_weights
from graphcl.kernels import pair_logsumexp
from graphcl.losses.pairs import (
    BadPairMining,
    CandidatePool,
    DiagonalRescaling,
    ExcludeSimilar,
    GroupQueue,
    GroupWhitening,
    PairGate,
    QualityWeights,
    StageClusters,
    adversarial_pairs,
    candidate_pool,
    exclude_known,
    exclude_nearest,
    propensity_weights,
    sample_pairs,
    subtract_group_mean,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_group_queue_counts_and_rule() -> None:
    queue = GroupQueue(5, 3, num_groups=3, integers=("ids",))
    queue.push(rows(4, 3).float(), groups=torch.tensor([0, 1, 1, 0]), ids=torch.arange(4))
    queue.push(rows(2, 3, seed=1).float(), groups=torch.tensor([1, 1]), ids=torch.arange(4, 6))
    assert queue.filled_by_group().tolist() == [1, 4, 0]
    q = rows(3, 3, seed=2).float()
    allowed = pair_logsumexp(torch.zeros(3, 2), torch.zeros(5, 2), rules=queue.rule(torch.tensor([0, 1, 2]))).logsumexp
    assert allowed.exp().round().tolist() == [1.0, 4.0, 0.0]
    loss = moco(q, q, queue.rows, rules=queue.rule(torch.tensor([2, 2, 2])))
    assert float(loss) == 0.0
    with pytest.raises(IndexError, match="groups holds 3"):
        queue.push(rows(1, 3).float(), groups=torch.tensor([3]), ids=torch.tensor([0]))
    with pytest.raises(ValueError, match="push needs"):
        queue.push(rows(1, 3).float(), ids=torch.tensor([0]))
    with pytest.raises(ValueError, match="num_groups"):
        GroupQueue(5, 3, num_groups=0)


def test_subtract_group_mean() -> None:
    z, groups = rows(6, 2), torch.tensor([4, 0, 4, 9, 0, 4])
    got = subtract_group_mean(z, groups)
    for group in (0, 4, 9):
        torch.testing.assert_close(got[groups == group].mean(dim=0), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(got[0] - got[2], z[0] - z[2])
    assert subtract_group_mean(z[:0], groups[:0]).shape == (0, 2)


def test_candidate_pool_equals_loops() -> None:
    surface, semantic = rows(6, 3), rows(6, 2, seed=1)
    pool = candidate_pool(surface, semantic, 3)
    for i in range(6):
        cosine = {j: float(torch.cosine_similarity(semantic[i], semantic[j], dim=0)) for j in range(6) if j != i}
        best = sorted(cosine, key=lambda j: -cosine[j])[:3]
        assert pool.candidates[i].tolist() == best
        assert pool.semantic[i].tolist() == pytest.approx([0.5 * (1 + cosine[j]) for j in best])
        looks = [0.5 * (1 + float(torch.cosine_similarity(surface[i], surface[j], dim=0))) for j in best]
        assert pool.surface[i].tolist() == pytest.approx(looks)
    short = candidate_pool(surface[:2], semantic[:2], 4)
    assert short.candidates.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1]]
    with pytest.raises(ValueError, match="same number of rows"):
        candidate_pool(surface, semantic[:2], 1)


def test_pairs_are_drawn_by_their_weights() -> None:
    surface = torch.tensor([[0.2, 0.8, 0.5, 0.5]]).expand(4000, 4)
    semantic = torch.tensor([[0.9, 0.9, 0.1, 0.2]]).expand(4000, 4)
    positive, negative = propensity_weights(surface[0], semantic[0], threshold=0.5)
    assert positive.tolist() == pytest.approx([0.4 / 0.2, 0.4 / 0.8, 0.0, 0.0])
    assert negative.tolist() == pytest.approx([0.0, 0.0, 0.4 / 0.5, 0.3 / 0.5])
    pool = CandidatePool(torch.tensor([[7, 8, 9, 5]]).expand(4000, 4), surface, semantic)
    drawn = sample_pairs(pool, generator=torch.Generator().manual_seed(0))
    assert abs(float((drawn.positive == 7).double().mean()) - 0.8) < 0.03
    assert abs(float((drawn.negative == 9).double().mean()) - 0.8 / 1.4) < 0.03
    assert set(drawn.positive.tolist()) == {7, 8}
    nothing = CandidatePool(torch.tensor([[3], [-1]]), torch.ones(2, 1), torch.tensor([[0.4], [0.9]]))
    got = sample_pairs(nothing)
    assert (got.positive.tolist(), got.negative.tolist()) == ([-1, -1], [3, -1])
    empty = sample_pairs(CandidatePool(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0), torch.zeros(2, 0)))
    assert empty.positive.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="epsilon"):
        propensity_weights(surface, semantic, epsilon=0.0)
    with pytest.raises(ValueError, match="share a shape"):
        propensity_weights(surface, semantic[:2])


@pytest.mark.parametrize("block", [1, 3, None])
def test_exclude_similar_equals_a_dense_mask(block: int | None) -> None:
    x, y, teacher, keys = rows(5, 3), rows(7, 3, seed=1), rows(5, 2, seed=2), rows(7, 2, seed=3)
    threshold = torch.linspace(-0.5, 0.9, 5, dtype=torch.float64)
    kept = torch.cosine_similarity(teacher[:, None], keys[None], dim=2) <= threshold[:, None]
    expected = torch.logsumexp((x @ y.T).masked_fill(~kept, -torch.inf), dim=1)
    rule = ExcludeSimilar(teacher, keys, threshold)
    torch.testing.assert_close(pair_logsumexp(x, y, rules=rule, block_size=block).logsumexp, expected)
    with pytest.raises(ValueError, match="must have 7 rows"):
        pair_logsumexp(x, y, rules=ExcludeSimilar(teacher, keys[:2], 0.5))
    with pytest.raises(ValueError, match="threshold must be a number"):
        pair_logsumexp(x, y, rules=ExcludeSimilar(teacher, keys, threshold[:2]))


def test_exclude_nearest_and_known() -> None:
    teacher, keys = rows(4, 3), rows(6, 3, seed=1)
    rule = exclude_nearest(teacher, keys, 2)
    best = torch.cosine_similarity(teacher[:, None], keys[None], dim=2).topk(2, dim=1).indices.sort(dim=1).values
    assert torch.equal(rule.columns.view(4, 2), best)
    assert rule.offsets.tolist() == [0, 2, 4, 6, 8]
    assert exclude_nearest(teacher, keys, 9).columns.tolist() == list(range(6)) * 4
    none = exclude_known(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), 3)
    assert none.offsets.tolist() == [0, 0, 0, 0]
    with pytest.raises(IndexError, match="rows holds 3"):
        exclude_known(torch.tensor([3]), torch.tensor([0]), 3)


def test_stage_clusters_compose_and_fall_back() -> None:
    state = StageClusters(7, num_clusters=3, max_stages=2)
    assert state.labels().tolist() == [0] * 7
    state.add(torch.tensor([0, 0, 0, 0, 1, 1, 2]))
    # The single sample of cluster 2 falls back to the root, where it is alone but keeps a label of its own.
    assert state.labels().tolist() == [2 - 1, 1, 1, 1, 2, 2, 0]
    state.add(torch.tensor([0, 0, 1, 2, 1, 1, 0]))
    labels = state.labels()
    groups = [{int(i) for i in (labels == label).nonzero()} for label in torch.unique(labels)]
    assert sorted(map(sorted, groups)) == [[0, 1], [2, 3], [4, 5], [6]]
    resumed = StageClusters(7, num_clusters=3, max_stages=2)
    resumed.load_state_dict(state.state_dict())
    assert torch.equal(resumed.labels(), labels)
    rule = state.rule(torch.tensor([2, 3, 4]))
    counts = pair_logsumexp(torch.zeros(3, 1), torch.zeros(3, 1), rules=rule).logsumexp.exp().round()
    assert counts.tolist() == [2.0, 2.0, 1.0]
    with pytest.raises(ValueError, match="only 2 stages"):
        state.add(torch.zeros(7, dtype=torch.long))


def test_stage_batches_are_full_and_inside_one_label() -> None:
    state = StageClusters(50, num_clusters=4)
    clusters = torch.randint(4, (50,), generator=torch.Generator().manual_seed(0))
    state.add(clusters)
    batches = list(state.batches(4, generator=torch.Generator().manual_seed(1)))
    again = list(state.batches(4, generator=torch.Generator().manual_seed(1)))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert all(len(batch) == 4 and len(torch.unique(clusters[batch])) == 1 for batch in batches)
    assert len(batches) == sum(int(count) // 4 for count in torch.bincount(clusters))
    joined = torch.cat(batches)
    assert len(torch.unique(joined)) == len(joined)
    with pytest.raises(ValueError, match="size must be"):
        list(state.batches(0))
    with pytest.raises(IndexError, match="holds 4"):
        state.add(clusters + 1)
    with pytest.raises(ValueError, match="clusters must have shape"):
        state.add(clusters[:3])


def test_bad_pair_mining_remembers_and_weighs() -> None:
    mining = BadPairMining(4, epochs=4, warmup_epochs=2, noisy_cut=1.2, faulty_cut=1.2, normalise="none").double()
    losses = [torch.tensor([1.0, 1.1, 0.9, 5.0], dtype=torch.float64), torch.tensor([1.2, 1.0, 1.0, 4.0]).double()]
    ids = torch.tensor([2, 0, 1, 3])
    for epoch, loss in enumerate(losses):
        mining.set_epoch(epoch)
        assert mining(loss, ids).tolist() == [1.0] * 4
    mining.set_epoch(2)
    means = (losses[0] / 4 + losses[1] * 2 / 4) / 2
    mean, deviation = means.mean(), means.std(correction=0)
    assert float(mining.mean) == pytest.approx(float(mean))
    assert float(mining.deviation) == pytest.approx(float(deviation))
    current = torch.tensor([1.0, 1.0, 1.0, 3.0], dtype=torch.float64)
    density = torch.distributions.Normal(mean, deviation).log_prob(current[3]).exp()  # type: ignore[no-untyped-call]
    state = {name: value.clone() for name, value in mining.state_dict().items()}
    weights = mining(current, ids)
    assert weights.tolist() == pytest.approx([1.0, 1.0, 1.0, float(density)])
    resumed = BadPairMining(4, epochs=4, warmup_epochs=2, noisy_cut=1.2, faulty_cut=1.2, normalise="none").double()
    resumed.load_state_dict(state)
    assert torch.equal(resumed.eval()(current, ids), weights)
    assert torch.equal(resumed.history.vector("total"), state["history.state_total"])
    with pytest.raises(ValueError, match="pair_loss must have shape"):
        mining(current[:2], ids)
    with pytest.raises(ValueError, match="warmup_epochs"):
        BadPairMining(4, epochs=2, warmup_epochs=3)


def test_bad_pair_mining_adds_repeated_ids_and_spares_new_samples() -> None:
    mining = BadPairMining(5, epochs=1, warmup_epochs=0, faulty_cut=0.0, noisy_cut=0.0)
    mining(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 0, 1]))
    assert mining.history.vector("total").tolist() == [4.0, 8.0, 0.0, 0.0, 0.0]
    assert mining.history.vector("visits").tolist() == [2.0, 1.0, 0.0, 0.0, 0.0]
    mining.set_epoch(0)
    weights = mining(torch.tensor([5.0, 9.0]), torch.tensor([0, 4]))
    assert float(weights[1]) == 1.0


def test_adversarial_pairs_move_as_stated() -> None:
    torch_generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(3, 4).double()
    with torch.no_grad():
        head.weight.copy_(torch.randn(4, 3, generator=torch_generator))
        head.bias.zero_()
    x, y = rows(5, 3), rows(5, 3, seed=1).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 0])

    def task(z: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(head(z), target, reduction="sum")

    made = adversarial_pairs(x, y, task, lambda z: head(z).log_softmax(dim=1), negative_size=0.01)
    torch.testing.assert_close((made.negative - y).norm(dim=1), torch.full((5,), 0.01, dtype=torch.float64))
    assert float(task(made.negative.detach())) > float(task(y.detach()))
    assert head.weight.grad is None
    loss = claps(x, y, made.positive, made.negative)
    assert isinstance(loss, Tensor)
    torch.autograd.backward(loss)
    assert y.grad is not None
    assert bool(y.grad.isfinite().all())
    with torch.no_grad():
        again = adversarial_pairs(x, y, task, lambda z: head(z).log_softmax(dim=1))
    assert not again.positive.requires_grad


def test_adversarial_positive_comes_back_towards_the_prediction() -> None:
    x, y = rows(4, 2), rows(4, 2, seed=1)

    def log_probabilities(z: Tensor) -> Tensor:
        return torch.cat([z, -z], dim=1).log_softmax(dim=1)

    def divergence(z: Tensor) -> Tensor:
        kept = log_probabilities(y)
        return (kept.exp() * (kept - log_probabilities(z))).sum(dim=1)

    size = 0.3
    made = adversarial_pairs(x, y, lambda z: z.sum(), log_probabilities, positive_size=size)
    step = made.positive - y
    assert bool((step.norm(dim=1) <= 2 * size + 1e-9).all())
    start = y.clone().requires_grad_()
    (apart,) = torch.autograd.grad(info_nce(x, start, temperature=0.1), start)
    far = y + size * torch.nn.functional.normalize(apart)
    leaf = far.clone().requires_grad_()
    (slope,) = torch.autograd.grad(divergence(leaf).sum(), leaf)
    torch.testing.assert_close(made.positive, far - size * torch.nn.functional.normalize(slope))


def test_quality_gate_and_transforms() -> None:
    parts1, parts2 = rows(4, 5, 3), rows(4, 5, 3, seed=1)
    attention = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = QualityWeights(2.0)(parts1, parts2, attention, attention)
    front = [torch.einsum("np,npd->nd", attention, parts) for parts in (parts1, parts2)]
    back = [torch.einsum("np,npd->nd", 1 - attention, parts) for parts in (parts1, parts2)]
    torch.testing.assert_close(got, quality_weights(*front, *back, gamma=2.0))
    gate = PairGate(3, 4, hidden=6, generator=torch.Generator().manual_seed(0))
    made = gate(torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0]))
    assert bool(((made > 0) & (made < 1)).all())
    with pytest.raises(ValueError, match="sizes must be"):
        PairGate(0, 4)
    torch.testing.assert_close(DiagonalRescaling(1.3)(parts1[0]), diagonal_rescale(parts1[0], 1.3))
    whiten = GroupWhitening(2)
    first, second = whiten(rows(9, 4)), whiten(rows(9, 4))
    assert not torch.equal(first, second)
    assert torch.equal(GroupWhitening(2, shuffle=False)(rows(9, 4)), GroupWhitening(2, shuffle=False)(rows(9, 4)))
