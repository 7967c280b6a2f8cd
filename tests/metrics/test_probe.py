"""Probes against torch's own optimiser in a loop, scikit-learn and hand-made answers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from graphcl.kernels import SparseMatrix
from graphcl.metrics import (
    classification_scores,
    kmeans_probe,
    knn_probe,
    linear_probe,
    link_prediction_probe,
    logistic_probe,
    one_vs_rest_auc,
    sample_non_edges,
    train_linear_probe,
)


def problem(size: int = 90, width: int = 5, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(size) % classes
    x = torch.randn(size, width, generator=generator, dtype=torch.float64)
    x[:, :classes] += torch.nn.functional.one_hot(y, classes) * 0.8
    return x, y


def one_classifier(weight: Tensor, x: Tensor, y: Tensor, steps: int, decay: float) -> list[torch.nn.Linear]:
    """The classifier after every step of torch's Adam."""
    layer = torch.nn.Linear(x.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.03, weight_decay=decay)
    after = []
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(layer(x), y).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        after.append(copy.deepcopy(layer))
    return after


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_batched_training_equals_torch_adam(decay: float) -> None:
    x, y = problem()
    start = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = start.clone()
    trained = train_linear_probe(x, y, start, steps=25, learning_rate=0.03, weight_decay=decay)
    assert torch.equal(start, before)
    for repeat in range(4):
        layer = one_classifier(start[repeat], x, y, 25, decay)[-1]
        torch.testing.assert_close(trained.weight[repeat], layer.weight.detach())
        torch.testing.assert_close(trained.bias[repeat], layer.bias.detach())
        torch.testing.assert_close(trained.logits(x)[repeat], layer(x).detach())
    first = torch.nn.functional.cross_entropy(x @ start[0].T, y)
    torch.testing.assert_close(trained.losses[0, 0], first)


def test_protocol_equals_a_loop_over_repeats_and_steps() -> None:
    x, y = problem(120)
    train, val, test = torch.arange(120)[:30], torch.arange(120)[30:70], torch.arange(120)[70:]
    got = linear_probe(x, y, train, val, test, repeats=3, steps=40, learning_rate=0.03, seed=5)
    bound = (6 / 8) ** 0.5
    starts = torch.rand(3, 3, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2 * bound - bound
    rows = []
    for start in starts:
        layers = one_classifier(start, x[train], y[train], 40, 0.0)
        logits = [(layer(x[val]).detach(), layer(x[test]).detach()) for layer in layers]
        macro = [[f1_score(y[p], z.argmax(1), average="macro") for p, z in ((val, v), (test, t))] for v, t in logits]
        micro = [[f1_score(y[p], z.argmax(1), average="micro") for p, z in ((val, v), (test, t))] for v, t in logits]
        at_macro, at_micro = int(np.argmax([m[0] for m in macro])), int(np.argmax([m[0] for m in micro]))
        auc = roc_auc_score(y[test], logits[at_micro][1].softmax(1), multi_class="ovr")
        rows.append((macro[at_macro][1], micro[at_micro][1], auc))
    mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
    for position, name in enumerate(("macro_f1", "micro_f1", "auc")):
        assert got.to_dict()[name] == pytest.approx(mean[position], abs=1e-9)
        assert got.to_dict()[f"{name}_std"] == pytest.approx(std[position], abs=1e-9)


def test_masks_and_numbers_are_the_same_and_the_seed_counts() -> None:
    x, y = problem()
    nodes = [torch.arange(0, 30), torch.arange(30, 60), torch.arange(60, 90)]
    masks = [torch.zeros(90, dtype=torch.bool).index_fill(0, part, True) for part in nodes]
    one = linear_probe(x, y, *nodes, repeats=4, steps=10)
    assert one == linear_probe(x, y, *masks, repeats=4, steps=10)
    assert one != linear_probe(x, y, *nodes, repeats=4, steps=10, seed=1)


def test_scores_agree_with_scikit_learn_also_for_absent_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (50,), generator=generator)
    predicted = torch.randint(0, 4, (6, 50), generator=generator)
    got = classification_scores(predicted, target, 5)
    for row in range(6):
        assert float(got.macro_f1[row]) == pytest.approx(f1_score(target, predicted[row], average="macro"))
        assert float(got.micro_f1[row]) == pytest.approx(f1_score(target, predicted[row], average="micro"))
    assert classification_scores(predicted[0], target, 5).macro_f1.shape == ()


def test_auc_agrees_with_scikit_learn_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (80,), generator=generator)
    scores = torch.randint(0, 5, (3, 80, 4), generator=generator).double().softmax(dim=2)
    got = one_vs_rest_auc(scores, target)
    for row in range(3):
        assert float(got[row]) == pytest.approx(roc_auc_score(target, scores[row], multi_class="ovr"))
    # A class without samples is left out.
    both = target.clamp_max(2)
    expected = np.mean([roc_auc_score(both == c, scores[0][:, c]) for c in range(3)])
    assert float(one_vs_rest_auc(scores[0], both)) == pytest.approx(expected)
    assert one_vs_rest_auc(scores[0], torch.zeros(80, dtype=torch.int64)).isnan()


def test_refusals_name_the_argument() -> None:
    x, y = problem(9)
    part = torch.arange(3)
    with pytest.raises(ValueError, match="val must hold nodes 0 to 8, got 0 to 9"):
        linear_probe(x, y, part, torch.tensor([0, 9]), part)
    with pytest.raises(ValueError, match="test must be a mask of 9 nodes, got 4"):
        linear_probe(x, y, part, part, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="train must hold at least one node"):
        linear_probe(x, y, part[:0], part, part)
    with pytest.raises(ValueError, match="train must hold nodes with a label, got 0 without one"):
        linear_probe(x, y.index_fill(0, torch.tensor([0]), -1), part, part, part)
    with pytest.raises(TypeError, match=r"labels must be int64, got dtype torch\.float32"):
        knn_probe(x, y.float(), part, part)
    with pytest.raises(ValueError, match=r"labels must have shape \(9,\)"):
        knn_probe(x, y[:4], part, part)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        linear_probe(x, y, part, part, part, repeats=0)
    with pytest.raises(ValueError, match=r"weight must have shape \(R, C, d\)"):
        train_linear_probe(x, y, torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="y must hold classes 0 to 1, got 0 to 2"):
        train_linear_probe(x, y, torch.zeros(1, 2, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="train must hold nodes of at least two classes"):
        logistic_probe(x, y, torch.tensor([0, 3]), part)
    with pytest.raises(ValueError, match="penalties must hold at least one number"):
        logistic_probe(x, y, part, part, val=part, penalties=())


def test_logistic_regression_chooses_by_validation() -> None:
    x, y = problem(300)
    parts = torch.arange(300).reshape(3, 100)
    free = logistic_probe(x, y, parts[0], parts[2])
    chosen = logistic_probe(x, y, parts[0], parts[2], val=parts[1])
    assert free.chosen is None
    assert chosen.chosen in [2.0**power for power in range(-10, 11, 2)]
    assert chosen.accuracy > 0.5
    assert logistic_probe(x, y, parts[0], parts[2], val=parts[1], penalties=(1.0,)).accuracy == free.accuracy


def test_neighbours_vote_and_the_nearer_class_wins_a_tie() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [4.1], [2.1]])
    y = torch.tensor([0, 0, 1, 1, 1])
    train, test = torch.arange(4), torch.tensor([4])
    assert knn_probe(x, y, train, test, k=1, metric="euclidean").accuracy == 1.0
    # Four voters, two of each class: node 4 is nearer to class 1.
    assert knn_probe(x, y, train, test, k=9, metric="euclidean").accuracy == 1.0
    # Three voters: 3.0, 1.0 and 4.1.
    assert knn_probe(x, torch.tensor([0, 0, 1, 0, 0]), train, test, k=3, metric="euclidean").accuracy == 1.0
    with pytest.raises(ValueError, match="metric must be 'cosine' or 'euclidean', got 'l1'"):
        knn_probe(x, y, train, test, metric="l1")  # type: ignore[arg-type]


def ring(size: int) -> SparseMatrix:
    nodes = torch.arange(size)
    return SparseMatrix.from_edge_index(torch.stack([nodes, (nodes + 1) % size]), num_nodes=size)


@pytest.mark.parametrize(("size", "count"), [(50, 30), (6, 9), (6, 3), (6, 0), (400, 2000)])
def test_sampled_pairs_are_no_edges(size: int, count: int) -> None:
    pairs = sample_non_edges(ring(size), count, generator=torch.Generator().manual_seed(0))
    assert pairs.shape == (2, count)
    listed = {(int(a), int(b)) for a, b in pairs.T}
    assert len(listed) == count
    for a, b in listed:
        assert a < b
        assert (b - a) not in (1, size - 1)


def test_sampled_pairs_are_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    count = torch.zeros(10, 10)
    for _ in range(400):
        pairs = sample_non_edges(ring(10), 5, generator=generator)
        count[pairs[0], pairs[1]] += 1
    free = torch.ones(10, 10).triu(1).bool() & ~ring(10).to_dense().bool() & ~ring(10).to_dense().T.bool()
    expected = 400 * 5 / int(free.sum())
    assert bool((count[~free] == 0).all())
    assert bool(((count[free] - expected).abs() < 5 * expected**0.5).all())


def test_too_many_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="count must be at most the 9 pairs without an edge, got 10"):
        sample_non_edges(ring(6), 10, generator=torch.Generator())


def test_links_of_a_circle_are_told_by_the_cosine() -> None:
    angle = torch.arange(40) * (2 * torch.pi / 40)
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    found = link_prediction_probe(x, ring(40))
    assert found.num_edges == 40
    assert found.auc == pytest.approx(1.0)
    assert found.average_precision == pytest.approx(1.0)
    noise = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert 0.3 < link_prediction_probe(noise, ring(40)).auc < 0.7
    held_out = torch.tensor([[0, 5], [1, 6]])
    assert link_prediction_probe(x, ring(40), edges=held_out).num_edges == 2
    assert link_prediction_probe(x, ring(40), max_edges=7, similarity="dot").num_edges == 7
    with pytest.raises(ValueError, match=r"graph must have shape \(39, 39\)"):
        link_prediction_probe(x[:39], ring(40))
    with pytest.raises(ValueError, match="similarity must be 'cosine' or 'dot', got 'l1'"):
        link_prediction_probe(x, ring(40), similarity="l1")  # type: ignore[arg-type]
    empty = SparseMatrix.from_edge_index(torch.empty(2, 0, dtype=torch.int64), num_nodes=40)
    with pytest.raises(ValueError, match=r"edges must have shape \(2, M\) with M of at least 1"):
        link_prediction_probe(x, empty)


def test_kmeans_finds_far_classes() -> None:
    x = torch.cat([torch.zeros(20, 2), torch.full((20, 2), 9.0)]) + torch.rand(40, 2)
    y = torch.arange(40) // 20
    found = kmeans_probe(x, y, repeats=3)
    assert found.to_dict() == {
        "nmi": 1.0, "nmi_std": 0.0, "ari": 1.0, "ari_std": 0.0, "accuracy": 1.0, "accuracy_std": 0.0, "repeats": 3,
    }  # fmt: skip
    assert kmeans_probe(x, y, num_clusters=4, repeats=2).accuracy.mean < 1.0
    with pytest.raises(ValueError, match="num_clusters 1 to 40, got 10 and 41"):
        kmeans_probe(x, y, num_clusters=41)
