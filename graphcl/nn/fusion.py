"""Several modalities of one node fused into one vector, where some may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

__all__ = ["FusionMethod", "ModalityFusion"]

FusionMethod: TypeAlias = Literal["gated", "attention", "sum"]


class ModalityFusion(nn.Module):
    r"""Projection of every modality to one width, then a weighted sum over the modalities that a node has.

    .. math:: h_m = W_m x_m + b_m, \qquad z = \sum_{m \text{ present}} g_m \odot h_m

    ============= =====================================================================================================
    ``method``    weights
    ============= =====================================================================================================
    ``sum``       :math:`g_m = 1`
    ``gated``     :math:`g_m = \sigma(V_m h_m + c_m)`, a gate for every dimension
    ``attention`` :math:`g_m = \mathrm{softmax}_m (q^T \tanh(V h_m + c))` over the modalities that are present
    ============= =====================================================================================================

    A missing modality takes no part, whatever its row holds, NaN included, and gets gradient 0. A node that misses
    all of them becomes 0.

    Args:
        in_channels: modality to the width of its features.
        out_channels: width d of the result.
        method: ``gated``, ``attention`` or ``sum``.

    Raises:
        ValueError: no modality, a width below 1, an unknown method.

    Complexity: O(N sum of widths d) time.

    >>> fusion = ModalityFusion({"image": 3, "text": 2}, 4)
    >>> missing = {"text": torch.tensor([False, True])}
    >>> fusion({"image": torch.ones(2, 3), "text": torch.ones(2, 2)}, missing).shape
    torch.Size([2, 4])
    """

    def __init__(self, in_channels: Mapping[str, int], out_channels: int, *, method: FusionMethod = "gated") -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("in_channels must name at least one modality, got none")
        for name, width in (*in_channels.items(), ("out_channels", out_channels)):
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise ValueError(f"the width of {name} must be an integer of at least 1, got {width!r}")
        if method not in get_args(FusionMethod):
            raise ValueError(f"method must be one of {', '.join(get_args(FusionMethod))}, got {method!r}")
        self.in_channels = dict(in_channels)
        self.out_channels = out_channels
        self.method: FusionMethod = method
        self.project = nn.ModuleList(nn.Linear(width, out_channels) for width in in_channels.values())
        self.gate = nn.ModuleList(nn.Linear(out_channels, out_channels) for _ in in_channels if method == "gated")
        self.score = (
            nn.Sequential(nn.Linear(out_channels, out_channels), nn.Tanh(), nn.Linear(out_channels, 1, bias=False))
            if method == "attention"
            else None
        )

    def forward(self, features: Mapping[str, Tensor], missing: Mapping[str, Tensor] | None = None) -> Tensor:
        """One vector a node.

        Args:
            features: modality to ``(N, width)``, exactly the modalities of ``in_channels``.
            missing: modality to ``(N,)`` bool; modalities that it does not name are complete.

        Returns:
            ``(N, out_channels)``.

        Raises:
            ValueError: other modalities, widths or numbers of nodes.
        """
        missing = missing or {}
        self._check(features, missing)
        present = self._present(features, missing)
        rows = []
        for number, (name, project) in enumerate(zip(self.in_channels, self.project, strict=True)):
            kept = present[:, number, None]
            # Zeros instead of whatever stands there: NaN times 0 would still be NaN, forward and backward.
            rows.append(project(torch.where(kept, features[name], torch.zeros_like(features[name]))))
        hidden = torch.stack(rows, dim=1)
        out: Tensor = (self._weights(hidden, present) * hidden).sum(dim=1)
        return out

    def _present(self, features: Mapping[str, Tensor], missing: Mapping[str, Tensor]) -> Tensor:
        """Which node has which modality, (N, M)."""
        first = next(iter(features.values()))
        complete = torch.ones(first.shape[0], dtype=torch.bool, device=first.device)
        masks = [~missing[name].to(first.device) if name in missing else complete for name in self.in_channels]
        return torch.stack(masks, dim=1)

    def _weights(self, hidden: Tensor, present: Tensor) -> Tensor:
        """Weights that broadcast with (N, M, d); 0 where a modality is missing."""
        kept = present.unsqueeze(2)
        if self.score is not None:
            scores = self.score(hidden).masked_fill(~kept, -torch.inf)
            # Rows without any modality would be softmax of -inf alone.
            nothing = ~present.any(dim=1)[:, None, None]
            return torch.softmax(scores.masked_fill(nothing, 0.0), dim=1).masked_fill(~kept, 0.0)
        if self.method == "sum":
            return kept.to(hidden.dtype)
        gates = torch.stack([gate(hidden[:, number]) for number, gate in enumerate(self.gate)], dim=1)
        return torch.sigmoid(gates).masked_fill(~kept, 0.0)

    def _check(self, features: Mapping[str, Tensor], missing: Mapping[str, Tensor]) -> None:
        if set(features) != set(self.in_channels):
            raise ValueError(f"features must hold the modalities {list(self.in_channels)}, got {list(features)}")
        sizes = {name: tuple(table.shape) for name, table in features.items()}
        nodes = next(iter(sizes.values()))[0]
        for name, width in self.in_channels.items():
            if sizes[name] != (nodes, width):
                raise ValueError(f"features of {name!r} must have shape ({nodes}, {width}), got {sizes[name]}")
        for name, mask in missing.items():
            if name not in self.in_channels:
                raise ValueError(f"missing names {name!r}, which is not one of {list(self.in_channels)}")
            if mask.shape != (nodes,) or mask.dtype != torch.bool:
                raise ValueError(
                    f"missing of {name!r} must be bool of shape ({nodes},), got {mask.dtype} {tuple(mask.shape)}"
                )

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, method={self.method!r}"
