"""Z-loss: classification by the standardised logit of the target, at a cost independent of the number of classes."""

from __future__ import annotations

import torch
from torch import Tensor

from graphcl.functional._embeddings import check_labels
from graphcl.functional._pair_terms import softplus
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.kernels._arguments import check_indices, check_positive, check_same_space, compute_dtype

__all__ = ["z_loss"]

_RELATIVE_VARIANCE = 1e-12


def z_loss(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    slope: float = 1.0,
    threshold: float = 10.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Z-loss: a softplus of the target's logit after subtracting the mean and dividing by the deviation of all logits.

    "The Z-loss: a shift and scale invariant classification loss belonging to the Spherical Family" (2016).

    Use it for very many classes: with their moments at hand, a sample costs the same whatever their number.

    .. math:: o = C h, \quad z_t = (o_t - \mu(o)) / \sigma(o), \quad L = \frac{1}{a} \log(1 + e^{a (b - z_t)})

    Mean and (population) deviation come from two moments of the classes, with C centred first so that no cancellation
    is left:

    .. math:: o_t - \mu = \langle h, c_t - \bar c \rangle, \qquad
        \sigma^2 = h^\top \Big(\tfrac{1}{n} \sum_j (c_j - \bar c)(c_j - \bar c)^\top\Big) h

    The loss does not change when a constant is added to all logits or when they are scaled by a positive number. Where
    the deviation is zero (below 1e-6 of the mean), z is taken as 0 with zero gradient.

    Args:
        hidden: ``(B, d)`` raw.
        weight: ``(n, d)`` class vectors C, raw.
        target: ``(B,)`` integers in ``0 .. n - 1``.
        slope: a, usually .1 to 3.
        threshold: b, usually 2 to 30; small favours the first rank, larger the first k.
        reduction: over rows.

    Returns:
        Scalar, or ``(B,)`` for ``none``.

    Raises:
        ValueError, TypeError, IndexError: shapes, dtypes, targets or constants that do not fit.

    Complexity: O(n d^2 + B d^2) time, O((n + B) d + d^2) memory; no logit but the target's is formed where there are
    more classes than dimensions.

    Confidence: P (formula from two independent descriptions; moment form checked against the dense form).

    >>> import torch
    >>> z_loss(torch.tensor([[1.0]]), torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2]), threshold=0.0)
    tensor(0.2576)
    """
    check_same_space("hidden", hidden, "weight", weight)
    check_labels("target", target, hidden.shape[0], integer=True)
    check_indices("target", target, hidden.shape[0], weight.shape[0], check=True)
    check_positive("slope", slope)
    wide = compute_dtype(hidden.dtype)
    h, classes = hidden.to(wide), weight.to(wide)
    if h.shape[0] == 0:
        return reduce_anchors(h.sum(dim=1), reduction)
    centre = classes.mean(dim=0)
    centred = classes - centre
    if classes.shape[0] <= classes.shape[1]:
        # So few logits cost less than the second moment, whose form loses the digits of a small variance.
        variance = (h @ centred.T).square().mean(dim=1)
    else:
        covariance = centred.T @ centred / classes.shape[0]
        variance = ((h @ covariance) * h).sum(dim=1)
    with torch.no_grad():
        spread = variance > _RELATIVE_VARIANCE * (h @ centre) ** 2
    deviation = variance.masked_fill(~spread, 1.0).sqrt()
    standardised = ((h * centred[target.long()]).sum(dim=1) / deviation).masked_fill(~spread, 0.0)
    return reduce_anchors(softplus(slope * (threshold - standardised)) / slope, reduction)
