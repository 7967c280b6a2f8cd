"""The one form every backend of `pair_logsumexp` computes: a scaled, biased matrix product under candidate rules."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphcl.kernels.rules import CandidateRule, PairTile, is_mask_only


@dataclass(frozen=True)
class ScaledProduct:
    """Logits ``l_ij = s_ij row_scale_i column_scale_j + row_bias_i + column_bias_j + log w_ij``, ``s = x y^T``.

    Cosine and squared distance arrive here as plain products: normalised rows, and two more columns that carry the
    squared norms. Temperatures arrive as scales. All tensors may carry gradients; ``x`` and ``y`` may be half.

    Attributes:
        x: ``(A, p)``.
        y: ``(C, p)`` of the same dtype.
        row_scale: positive number or ``(A,)``.
        column_scale: ``(C,)`` or None.
        row_bias: ``(A,)`` or None.
        column_bias: ``(C,)`` or None; both may hold -inf.
        rules: all must allow a pair.
    """

    x: Tensor
    y: Tensor
    row_scale: float | Tensor
    column_scale: Tensor | None
    row_bias: Tensor | None
    column_bias: Tensor | None
    rules: tuple[CandidateRule, ...]

    @property
    def num_anchors(self) -> int:
        return self.x.shape[0]

    @property
    def num_candidates(self) -> int:
        return self.y.shape[0]

    @property
    def masks_only(self) -> bool:
        return all(is_mask_only(rule) for rule in self.rules)

    def detach(self) -> ScaledProduct:
        """The same numbers, holding on to no graph."""

        def constant(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.detach()

        return ScaledProduct(
            self.x.detach(),
            self.y.detach(),
            self.row_scale.detach() if isinstance(self.row_scale, Tensor) else self.row_scale,
            constant(self.column_scale),
            constant(self.row_bias),
            constant(self.column_bias),
            self.rules,
        )

    def tile(self, rows: slice, columns: slice) -> PairTile:
        return PairTile(rows, columns, self.num_candidates, self.x.device, self.similarity)

    def similarity(self, rows: slice, columns: slice) -> Tensor:
        """s of one tile, without gradient, in the accumulation type."""
        wide = torch.float64 if self.x.dtype == torch.float64 else torch.float32
        return self.x.detach()[rows].to(wide) @ self.y.detach()[columns].to(wide).T


def distance_product(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Columns that turn ``-|x_i - y_j|^2 = 2 <x_i, y_j> - |x_i|^2 - |y_j|^2`` into one product.

    Distances do not change when both sides move, and the squares cancel least around the common centre.
    """
    if y.shape[0] > 0:
        centre = y.detach().mean(dim=0)
        x, y = x - centre, y - centre
    x_norm, y_norm = (x * x).sum(dim=1, keepdim=True), (y * y).sum(dim=1, keepdim=True)
    left = torch.cat([2.0 * x, -x_norm, torch.full_like(x_norm, -1.0)], dim=1)
    return left, torch.cat([y, torch.ones_like(y_norm), y_norm], dim=1)


def with_row_bias(
    total: Tensor, mean: Tensor | None, variance: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A bias of the softmax side shifts its sum and leaves the shares alone, unless it is -inf and empties the row.

    An empty row has D = -inf and moments 0, and passes no gradient on, not even to its bias.
    """
    if bias is None:
        return total, mean, variance
    dead = (total.detach() == -torch.inf) | (bias.detach() == -torch.inf)
    total = (total.masked_fill(dead, 0.0) + bias.masked_fill(dead, 0.0)).masked_fill(dead, -torch.inf)
    mean, variance = (None if value is None else value.masked_fill(dead, 0.0) for value in (mean, variance))
    return total, mean, variance
