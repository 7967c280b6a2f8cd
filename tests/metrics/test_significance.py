"""Paired tests and Holm's correction against SciPy and a slow form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from graphcl.metrics import holm, paired_t_test


@pytest.mark.parametrize("size", [2, 5, 200])
def test_paired_t_test_is_that_of_scipy(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=size), rng.normal(0.2, size=size)
    found = paired_t_test(a, b)
    assert found.pairs == size
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(float(ttest_rel(a, b).pvalue), rel=1e-10)


def test_what_cannot_be_tested_has_no_p() -> None:
    assert paired_t_test([0.3], [0.2]).p is None
    assert paired_t_test([0.5, 0.25], [0.25, 0.0]).p is None
    assert paired_t_test([0.3, 0.1], [0.3, 0.1]) == (2, 0.0, 1.0)
    for bad in ([], [1.0, 2.0], [float("nan")]):
        with pytest.raises(ValueError, match=r"rows of one length|not finite"):
            paired_t_test(bad, [0.0])


def test_holm_is_the_step_down_rule() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.random(6) ** 3
        corrected = np.array(holm(p.tolist()), dtype=float)
        for alpha in (0.01, 0.05, 0.2):
            rejected = np.zeros(6, dtype=bool)
            for number, place in enumerate(np.argsort(p)):
                if p[place] > alpha / (6 - number):
                    break
                rejected[place] = True
            np.testing.assert_array_equal(corrected <= alpha, rejected)
    assert holm([None, 0.02, None, 0.5]) == [None, 0.04, None, 0.5]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])
