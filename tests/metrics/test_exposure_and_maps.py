from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from graphcl.metrics import exposure_metrics, project_2d, sample_for_map, score_histograms


def test_exposure_golden_table() -> None:
    lists = torch.tensor([[0, 1, -1], [0, 2, 1]])
    values = exposure_metrics(lists, torch.tensor([9, 3, 1, 0]), ks=[1, 3]).to_dict()
    assert values["Coverage@1"] == 0.25
    assert values["Coverage@3"] == 0.75
    assert values["Popularity@1"] == pytest.approx(np.log(10))
    assert values["Popularity@3"] == pytest.approx((2 * np.log(10) + 2 * np.log(4) + np.log(2)) / 5)
    assert values["Gini@1"] == pytest.approx(0.75)  # one of four items takes every place
    # exposures sorted 0, 1, 2, 2: (2j - 5) e_j sums to -3*0 - 1*1 + 1*2 + 3*2 = 7, over 4 * 5
    assert values["Gini@3"] == pytest.approx(7 / 20)


def test_equal_exposure_has_no_inequality() -> None:
    values = exposure_metrics(np.arange(6).reshape(6, 1), np.ones(6, dtype=np.int64), ks=[1]).to_dict()
    assert values["Gini@1"] == pytest.approx(0)
    assert values["Coverage@1"] == 1


def test_exposure_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="ks must lie within the lists"):
        exposure_metrics(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1), ks=[4])
    with pytest.raises(IndexError, match=r"outside -1\.\.0"):
        exposure_metrics(torch.tensor([[1]]), torch.ones(1), ks=[1])
    with pytest.raises(ValueError, match="recommended holds no item"):
        exposure_metrics(torch.tensor([[-1]]), torch.ones(1), ks=[1])


def test_score_histograms_count_every_score_once() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, items = torch.randn(40, 5, generator=generator), torch.randn(30, 5, generator=generator)
    targets = torch.randint(30, (40,), generator=generator)
    histograms = score_histograms(queries, items, targets, generator, negatives_per_target=200, bins=12)
    scores = queries @ items.T
    positive = scores[torch.arange(40), targets].double()
    assert sum(histograms.positive) == 40
    assert len(histograms.edges) == 13
    assert 0.9 < sum(histograms.negative) / 8000 < 1  # about 1 in 30 draws hits the target and is dropped
    assert histograms.positive_mean == pytest.approx(float(positive.mean()), abs=1e-5)
    above = torch.stack([(p > row).double() for p, row in zip(positive, scores.double(), strict=True)])
    assert histograms.auc == pytest.approx(float(above.sum() / (40 * 29)), abs=0.03)


def test_score_histograms_repeat_with_the_seed_and_keep_targets_out_of_the_negatives() -> None:
    queries, items = torch.ones(2, 1), torch.tensor([[5.0], [1.0], [7.0]])
    targets = torch.tensor([0, 2, 3]), torch.tensor([0, 2, 2])
    first, second = (score_histograms(queries, items, targets, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second
    assert first.positive_mean == pytest.approx((5 + 7 + 7) / 3)
    only_targets = torch.tensor([0, 3, 6]), torch.tensor([0, 1, 2, 0, 1, 2])
    nothing_else = score_histograms(queries, items, only_targets, torch.Generator().manual_seed(3))
    assert sum(nothing_else.negative) == 0
    assert nothing_else.negative_mean is None
    assert nothing_else.auc is None


def test_score_histograms_refuse_what_has_no_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="targets is empty"):
        score_histograms(
            torch.ones(1, 1), torch.ones(1, 1), (torch.zeros(2, dtype=torch.int64), torch.arange(0)), generator
        )
    with pytest.raises(ValueError, match="not finite"):
        score_histograms(torch.full((1, 1), torch.inf), torch.ones(2, 1), torch.tensor([0]), generator)


def test_projection_equals_scikit_learn_up_to_signs() -> None:
    points = np.random.default_rng(0).standard_normal((200, 6)) * [5, 3, 1, 1, 1, 1]
    coordinates, shares = project_2d(points)
    reference = PCA(2, svd_solver="full").fit(points)
    np.testing.assert_allclose(np.abs(coordinates), np.abs(reference.transform(points)), atol=1e-5)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, rtol=1e-9)


def test_projection_of_degenerate_inputs_is_finite() -> None:
    assert project_2d(np.empty((0, 3)))[0].shape == (0, 2)
    assert project_2d(np.ones((1, 3)))[0].tolist() == [[0, 0]]
    coordinates, shares = project_2d(np.ones((4, 1)))
    assert coordinates.tolist() == [[0, 0]] * 4
    assert list(shares) == [0, 0]
    assert np.isfinite(project_2d(np.array([[0.0, 0.0], [3.0, 4.0]]), normalize=True)[0]).all()
    with pytest.raises(ValueError, match=r"\[V, d\], got shape \(3,\)"):
        project_2d(np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        project_2d(np.array([[np.nan, 1.0]]))


def test_map_sample_prefers_the_popular_and_keeps_the_tail() -> None:
    weights = np.concatenate([np.full(100, 1000), np.zeros(900)])
    rows = sample_for_map(weights, 200, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 200
    assert (np.diff(rows) > 0).all()
    head = (rows < 100).sum()
    assert 40 < head < 100
    assert sample_for_map(weights[:5], 200, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="not negative"):
        sample_for_map(np.array([-1.0]), 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="size must be positive"):
        sample_for_map(weights, 0, np.random.default_rng(0))
