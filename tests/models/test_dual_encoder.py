"""Dual encoder: towers and losses against loops, what labels are made of, hard negatives, gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from graphcl.models import Bags, DualEncoder, DualEncoderConfig, FeatureSpace, RetrievalBatch

QUERIES = Bags(torch.tensor([0, 2, 3, 3]), torch.tensor([0, 4, 2]), torch.tensor([0.6, 0.8, -1.0]).double())
LABELS = Bags(torch.tensor([0, 1, 3, 5, 6]), torch.tensor([1, 0, 2, 3, 4, 2]), torch.ones(6).double())
SPACE = FeatureSpace(5, True)
# Query 0 has labels 3 and 1, query 1 has label 0, query 2 has neither features nor labels.
BATCH = RetrievalBatch(QUERIES, torch.tensor([0, 2, 3, 3]), torch.tensor([3, 1, 0]), total=3)


def model(featured: bool = True, **settings: Any) -> DualEncoder:
    config = DualEncoderConfig.model_validate({"dim": 3, "initial_scale": 0.7, **settings})
    labels: dict[str, Any] = {"label_features": LABELS, "label_space": SPACE} if featured else {}
    return DualEncoder(SPACE, 4, config, generator=torch.Generator().manual_seed(0), **labels).double()


def tower(weight: Tensor, bags: Bags, row: int, unit: bool) -> Tensor:
    """The weighted sum in loops."""
    total = torch.zeros(3, dtype=torch.float64)
    for entry in range(int(bags.offsets[row]), int(bags.offsets[row + 1])):
        total = total + bags.values[entry] * weight[bags.columns[entry]]
    return total / total.norm().clamp_min(1e-12) if unit else total


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("labels", ["features", "ids", "both"])
def test_embeddings_by_loops(similarity: str, labels: str) -> None:
    encoder = model(similarity=similarity, labels=labels)
    unit, weight = similarity == "cosine", encoder.query_tower.weight
    expected = torch.stack([tower(weight, QUERIES, row, unit) for row in range(3)])
    torch.testing.assert_close(encoder(QUERIES), expected)
    rows = torch.zeros(4, 3, dtype=torch.float64)
    if labels != "ids":
        rows = torch.stack([tower(weight, LABELS, row, False) for row in range(4)])
    if encoder.label_table is not None:
        rows = rows + encoder.label_table
    rows = torch.nn.functional.normalize(rows) if unit else rows
    torch.testing.assert_close(encoder.encode_labels(), rows)
    torch.testing.assert_close(encoder.encode_labels(torch.tensor([2, 0])), rows[[2, 0]])
    torch.testing.assert_close(encoder.scores(QUERIES), (expected @ rows.T).detach())
    assert encoder.temperature == (0.05 if unit else 1.0)


def by_loops(logits: Tensor, objective: str, k: int) -> Tensor:
    """The three losses for the two queries with labels."""
    total = torch.zeros((), dtype=torch.float64)
    for row, positives in ((0, [1, 3]), (1, [0])):
        if objective == "softmax":
            total = total + sum(torch.logsumexp(logits[row], 0) - logits[row, label] for label in positives)
        elif objective == "decoupled":
            for label in positives:
                kept = [other for other in range(4) if other == label or other not in positives]
                total = total + (torch.logsumexp(logits[row, kept], 0) - logits[row, label]) / len(positives)
        else:
            wanted, low, high = k or len(positives), -200.0, 200.0
            for _ in range(200):
                middle = (low + high) / 2
                admitted = float(torch.sigmoid(2 * (logits[row] + middle)).sum())
                low, high = (middle, high) if admitted < wanted else (low, middle)
            for label in positives:
                total = total + torch.nn.functional.softplus(-2 * (logits[row, label] + low)) / len(positives)
    return total / 2


@pytest.mark.parametrize(("objective", "k"), [("decoupled", 5), ("softmax", 5), ("soft_top_k", 2), ("soft_top_k", 0)])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_objectives_by_loops(objective: str, k: int, similarity: str) -> None:
    encoder = model(objective=objective, k=k, similarity=similarity, sample_positive=False)
    loss, parts = encoder.objective(BATCH)
    logits = encoder(QUERIES) @ encoder.encode_labels().T / encoder.temperature
    torch.testing.assert_close(loss, by_loops(logits.detach(), objective, k))
    assert float(parts["labels"]) == 4


def test_known_answer() -> None:
    """Vectors set by hand: query (1, 0), labels (1, 0), (0, 1), (-1, 0); raw logits 1, 0, -1."""
    encoder = DualEncoder(FeatureSpace(2, True), 3, DualEncoderConfig(dim=2, similarity="dot"))
    assert encoder.label_table is not None
    with torch.no_grad():
        encoder.query_tower.weight.copy_(torch.eye(2))
        encoder.label_table.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    one = Bags(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1))
    loss, _ = encoder.objective(RetrievalBatch(one, torch.tensor([0, 2]), torch.tensor([0, 1]), total=1))
    first = math.log(math.e + math.exp(-1)) - 1
    second = math.log(1 + math.exp(-1))
    assert float(loss.detach()) == pytest.approx((first + second) / 2, abs=1e-6)


@pytest.mark.parametrize("objective", ["decoupled", "softmax", "soft_top_k"])
@pytest.mark.parametrize("settings", [{"similarity": "dot"}, {"labels": "both", "towers": "two", "hidden": 2}])
def test_gradients(objective: str, settings: dict[str, Any]) -> None:
    encoder = model(objective=objective, k=2, sample_positive=False, temperature=0.7, **settings)

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self) -> Tensor:
            return 0.7 * self.encoder.objective(BATCH)[0]

    step = Step()
    names = [name for name, _ in step.named_parameters()]
    weights = tuple(weight.detach().clone().requires_grad_() for weight in step.parameters())

    def loss(*values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(step, dict(zip(names, values, strict=True)))
        return found

    assert torch.autograd.gradcheck(loss, weights)


def test_towers_are_shared_where_both_sides_have_the_same_space() -> None:
    assert model().shares_towers
    assert not model(towers="two").shares_towers
    assert not model(labels="ids").shares_towers
    dense = torch.eye(4).double()
    encoder = DualEncoder(
        SPACE, 4, DualEncoderConfig(dim=3), label_features=dense, label_space=FeatureSpace(4, False)
    ).double()
    assert not encoder.shares_towers
    assert encoder.label_tower is not None
    expected = torch.nn.functional.normalize(encoder.label_tower.weight)
    torch.testing.assert_close(encoder.encode_labels(), expected)
    torch.testing.assert_close(encoder.encode_labels(torch.tensor([3])), expected[3:])
    assert "label_dense" not in encoder.state_dict()
    with pytest.raises(ValueError, match="labels='features' needs features of the labels"):
        model(featured=False, labels="features")
    with pytest.raises(ValueError, match="towers='shared' needs labels with features"):
        model(towers="shared", labels="ids")


def test_hard_negatives_are_the_highest_other_labels_of_the_index() -> None:
    encoder = model(negatives="hard", num_negatives=1, similarity="dot")
    loss, parts = encoder.objective(BATCH)
    logits = encoder.scores(QUERIES)
    masked = logits.clone()
    masked[0, [1, 3]] = masked[1, 0] = -math.inf
    candidates = sorted({0, 1, 3, *masked.argmax(dim=1).tolist()})
    assert float(parts["labels"]) == len(candidates)
    place = {label: position for position, label in enumerate(candidates)}
    kept, total = logits[:, candidates], 0.0
    for row, positives in ((0, [1, 3]), (1, [0])):
        for label in positives:
            others = [place[other] for other in candidates if other == label or other not in positives]
            total += float(torch.logsumexp(kept[row, others], 0) - kept[row, place[label]]) / len(positives)
    assert float(loss.detach()) == pytest.approx(total / 2)
    # With as many negatives as there are labels nothing is left out.
    everything, _ = model(negatives="hard", num_negatives=9).objective(BATCH)
    torch.testing.assert_close(everything, model().objective(BATCH)[0])


def test_the_index_is_made_again_when_an_epoch_starts() -> None:
    encoder = model(negatives="hard", num_negatives=2)
    encoder.objective(BATCH)
    first = encoder._index
    encoder.objective(BATCH)
    assert encoder._index is first
    encoder.objective(RetrievalBatch(QUERIES, BATCH.offsets, BATCH.columns, total=3, starts_epoch=True))
    assert encoder._index is not first
    assert encoder.training


def test_a_sampled_positive_stands_for_all() -> None:
    encoder = model(objective="softmax", similarity="dot")
    logits = encoder.scores(QUERIES)
    loss = [torch.logsumexp(logits[row], 0) - logits[row] for row in range(2)]
    possible = {round(float((loss[0][label] + loss[1][0]) / 2), 9) for label in (1, 3)}
    torch.manual_seed(0)
    assert {round(float(encoder.objective(BATCH)[0].detach()), 9) for _ in range(20)} == possible


def test_feature_dropout_acts_in_training_alone() -> None:
    encoder = model(feature_dropout=0.5, similarity="dot")
    kept = encoder.eval()(QUERIES)
    torch.testing.assert_close(kept, model(similarity="dot")(QUERIES))
    torch.manual_seed(0)
    drawn = torch.stack([encoder.train()(QUERIES) for _ in range(400)]).mean(dim=0)
    assert bool((drawn - kept).norm() < 0.2 * kept.norm())


def test_it_learns_which_words_go_with_which_label() -> None:
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(8, (64,), generator=generator)
    bags = Bags(torch.arange(65), words, torch.ones(64))
    encoder = DualEncoder(FeatureSpace(8, True), 4, DualEncoderConfig(dim=8), generator=generator)
    optimizer = torch.optim.Adam(encoder.parameters(), 0.05)
    for _ in range(30):
        loss, _ = encoder.objective(RetrievalBatch(bags, torch.arange(65), words % 4, total=64))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert bool((encoder.scores(bags).argmax(dim=1) == words % 4).all())
