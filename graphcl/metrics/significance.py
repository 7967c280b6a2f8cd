"""Whether two methods differ: paired tests over seeds or users, and Holm's correction for several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PairedTest", "holm", "paired_t_test"]


class PairedTest(NamedTuple):
    """A paired t-test.

    Attributes:
        pairs: how many pairs there are.
        difference: mean of ``a - b``.
        p: two-sided p-value; None where the test says nothing (one pair, or differences that are all one number
            other than zero).
    """

    pairs: int
    difference: float
    p: float | None


def paired_t_test(a: npt.ArrayLike, b: npt.ArrayLike) -> PairedTest:
    """Two-sided paired t-test of two measurements of the same seeds or users.

    With differences :math:`x_i = a_i - b_i`, their mean :math:`m` and sample deviation :math:`s` (divisor n - 1),
    :math:`t = m \\sqrt n / s` is held against Student's distribution with n - 1 degrees of freedom.

    Args:
        a: ``[n]`` values of one method.
        b: ``[n]`` values of the other, in the same order.

    Returns:
        The test. Equal measurements give p = 1.

    Raises:
        ValueError: the arrays have no pair, differ in length, or hold a value that is not finite.

    Complexity:
        O(n).

    Example:
        >>> test = paired_t_test([0.30, 0.32, 0.31], [0.28, 0.29, 0.30])
        >>> test.pairs, round(test.difference, 6), round(test.p, 6)
        (3, 0.02, 0.07418)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or not first.size:
        raise ValueError(f"a and b must be two rows of one length of at least 1, got {first.shape} and {second.shape}")
    apart = first - second
    if not np.isfinite(apart).all():
        raise ValueError(f"the values of pair {int(np.argmin(np.isfinite(apart)))} are not finite")
    mean = float(apart.mean())
    if not apart.any():
        return PairedTest(apart.size, 0.0, 1.0 if apart.size > 1 else None)
    if apart.size < 2:
        return PairedTest(1, mean, None)
    deviation = float(apart.std(ddof=1))
    if deviation <= 1e-12 * abs(mean):
        return PairedTest(apart.size, mean, None)
    from scipy.stats import t as student

    statistic = mean * math.sqrt(apart.size) / deviation
    return PairedTest(apart.size, mean, float(2 * student.sf(abs(statistic), apart.size - 1)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979, https://www.jstor.org/stable/4615733) of the p-values of one family of tests.

    With the m p-values in rising order, :math:`\\tilde p_{(i)} = \\max_{j \\le i} \\min(1, (m - j + 1)\\, p_{(j)})`:
    rejecting where it is below alpha keeps the chance of any false rejection at most alpha.

    Args:
        p_values: one a test; None where a test was not made, which does not count.

    Returns:
        Corrected values in the order given, None where there was none.

    Raises:
        ValueError: a value outside 0..1.

    Complexity:
        O(m log m).

    Example:
        >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    made = [(p, place) for place, p in enumerate(p_values) if p is not None]
    if any(not 0.0 <= p <= 1.0 for p, _ in made):
        raise ValueError(f"p-values lie between 0 and 1, got {list(p_values)}")
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for number, (p, place) in enumerate(sorted(made)):
        highest = max(highest, min(1.0, (len(made) - number) * p))
        corrected[place] = highest
    return corrected
