"""Losses over many views as modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Unpack

from torch import Tensor

from graphcl.functional.multiview import mean_view_nt_xent, mv_dhel, mv_infonce, pairwise_nt_xent, poly_view
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.layout import VIEWS, Layout
from graphcl.losses.temperature import Temperature

__all__ = ["MVDHEL", "MVInfoNCE", "MeanViewNTXent", "PairwiseNTXent", "PolyView"]


class _ManyViews(TemperatureLoss):
    argument_layout: ClassVar[Mapping[str, Layout]] = {"views": VIEWS}

    def __init__(self, temperature: float | Temperature = 0.2, **options: Unpack[LossOptions]) -> None:
        super().__init__(temperature)
        self.options = checked(options)


class MVInfoNCE(_ManyViews):
    """MV-InfoNCE; see `graphcl.functional.mv_infonce`.

    Args:
        temperature: a number or a `Temperature`.
        denominator: ``all`` or ``cross``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, keys (K, d), ids (N,), key_ids (K,))``.

    >>> import torch
    >>> MVInfoNCE(temperature=1.0)([torch.eye(3)] * 3)
    tensor(0.7437)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.2,
        *,
        denominator: Literal["all", "cross"] = "all",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature, **options)
        self.denominator: Literal["all", "cross"] = denominator

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return mv_infonce(
            views,
            temperature=self.temperature_of(None),
            denominator=self.denominator,
            keys=keys,
            ids=ids,
            key_ids=key_ids,
            **self.options,
        )


class MVDHEL(_ManyViews):
    """MV-DHEL; see `graphcl.functional.mv_dhel`.

    Args:
        temperature: a number or a `Temperature`.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, keys (K, d), ids (N,), key_ids (K,))``.

    >>> import torch
    >>> MVDHEL(temperature=1.0)([torch.eye(3)] * 2)
    tensor(0.3863)
    """

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return mv_dhel(
            views, temperature=self.temperature_of(None), keys=keys, ids=ids, key_ids=key_ids, **self.options
        )


class PairwiseNTXent(_ManyViews):
    """NT-Xent averaged over pairs of views; see `graphcl.functional.pairwise_nt_xent`.

    Args:
        temperature: a number or a `Temperature`.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, keys (K, d), ids (N,), key_ids (K,))``.

    >>> import torch
    >>> PairwiseNTXent(temperature=1.0)([torch.eye(3)] * 3)
    tensor(0.9048)
    """

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return pairwise_nt_xent(
            views, temperature=self.temperature_of(None), keys=keys, ids=ids, key_ids=key_ids, **self.options
        )


class MeanViewNTXent(_ManyViews):
    """NT-Xent of each view against the mean of the others; see `graphcl.functional.mean_view_nt_xent`.

    Args:
        temperature: a number or a `Temperature`.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, keys (K, d), ids (N,), key_ids (K,))``.

    >>> import torch
    >>> MeanViewNTXent(temperature=1.0)([torch.eye(3)] * 3)
    tensor(0.9048)
    """

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return mean_view_nt_xent(
            views, temperature=self.temperature_of(None), keys=keys, ids=ids, key_ids=key_ids, **self.options
        )


class PolyView(_ManyViews):
    """Geometric poly-view contrast; see `graphcl.functional.poly_view`.

    Args:
        temperature: a number or a `Temperature`.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(views V x (N, d), *, keys (K, d), ids (N,), key_ids (K,))``.

    >>> import torch
    >>> PolyView(temperature=1.0)([torch.eye(3)] * 2)
    tensor(0.9048)
    """

    def forward(
        self,
        views: Sequence[Tensor] | Tensor,
        *,
        keys: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> Tensor:
        return poly_view(
            views, temperature=self.temperature_of(None), keys=keys, ids=ids, key_ids=key_ids, **self.options
        )
