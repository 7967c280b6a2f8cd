"""ConR as a module."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from graphcl.functional.conr import conr
from graphcl.losses._base import LossOptions, TemperatureLoss, checked
from graphcl.losses.temperature import Temperature

__all__ = ["ConR"]


class ConR(TemperatureLoss):
    """Contrastive regulariser for imbalanced regression; see `graphcl.functional.conr`. Its usual coefficient is 4.

    Args:
        temperature: a number or a `Temperature`.
        window: targets this close are positives.
        push: growth of the push weight with the distance of targets.
        push_form: ``exponential`` or ``linear``.
        denominator: ``clean`` or ``released``.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(embeddings (N, d), targets (N,), predictions (N,), *, keys (M, d), key_targets (M,),
    key_predictions (M,), ids (N,), key_ids (M,), sample_weight (N,))``.

    >>> import torch
    >>> ConR()(torch.eye(3), torch.tensor([0.0, 0.5, 3.0]), torch.tensor([0.0, 0.1, 0.2])).round(decimals=4)
    tensor(0.4713)
    """

    def __init__(
        self,
        temperature: float | Temperature = 0.07,
        *,
        window: float = 1.0,
        push: float = 0.01,
        push_form: Literal["exponential", "linear"] = "exponential",
        denominator: Literal["clean", "released"] = "clean",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(temperature)
        self.window = window
        self.push = push
        self.push_form: Literal["exponential", "linear"] = push_form
        self.denominator: Literal["clean", "released"] = denominator
        self.options = checked(options)

    def forward(
        self,
        embeddings: Tensor,
        targets: Tensor,
        predictions: Tensor,
        *,
        keys: Tensor | None = None,
        key_targets: Tensor | None = None,
        key_predictions: Tensor | None = None,
        ids: Tensor | None = None,
        key_ids: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        return conr(
            embeddings,
            targets,
            predictions,
            keys=keys,
            key_targets=key_targets,
            key_predictions=key_predictions,
            ids=ids,
            key_ids=key_ids,
            sample_weight=sample_weight,
            temperature=self.temperature_of(None),
            window=self.window,
            push=self.push,
            push_form=self.push_form,
            denominator=self.denominator,
            **self.options,
        )
