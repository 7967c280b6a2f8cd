"""SogCLR and iSogCLR as modules that remember a moving denominator (and a temperature) for every sample."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from graphcl.functional.sogclr import SogCLRState, TemperatureUpdate, gamma_schedule, sogclr, sogclr_bimodal
from graphcl.losses._base import LossOptions, checked
from graphcl.losses.protocol import LossOutput
from graphcl.losses.state import PerSampleState

__all__ = ["ISogCLR", "SogCLR"]


class SogCLR(nn.Module):
    """Global contrastive objective from small batches; see `graphcl.functional.sogclr` and ``sogclr_bimodal``.

    The state of the samples in a batch moves with every call in training mode, and stays in evaluation mode.

    Args:
        num_samples: n of the data set; ``forward`` takes ids in ``0 .. n - 1``.
        temperature: of every sample.
        gamma: rate of the moving denominators.
        gamma_epochs: with a number, gamma falls from 1 along a half cosine over so many epochs; see `set_epoch`.
        bimodal: two modalities with separate states instead of two views of one.
        dtype: of the state.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: ``forward(z1 (B, d), z2 (B, d), ids (B,), *, return_components=False)``. The part ``objective`` is the batch
    estimate of what is minimised; the loss itself is a surrogate with the right gradient.

    >>> import torch
    >>> loss = SogCLR(10, temperature=0.5)
    >>> loss(torch.eye(3), torch.eye(3), torch.tensor([4, 0, 9]))
    tensor(-2.)
    """

    def __init__(
        self,
        num_samples: int,
        *,
        temperature: float = 0.1,
        gamma: float = 0.9,
        gamma_epochs: int | None = None,
        bimodal: bool = False,
        dtype: torch.dtype | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        initial = {"log_u": -torch.inf, "temperature": temperature, "temperature_gradient": 0.0}
        self.states = nn.ModuleList(
            PerSampleState(num_samples, initial, dtype=dtype) for _ in range(2 if bimodal else 1)
        )
        self.gamma = gamma
        self.gamma_epochs = gamma_epochs
        self.temperature_update: TemperatureUpdate | None = None
        self.options = checked(options)
        self.epoch: Tensor
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def set_epoch(self, epoch: int) -> None:
        """Tell the gamma schedule which epoch (from 0) begins."""
        self.epoch.fill_(epoch)

    def forward(self, z1: Tensor, z2: Tensor, ids: Tensor, *, return_components: bool = False) -> LossOutput:
        gamma = self.gamma
        if self.gamma_epochs is not None:
            gamma = gamma_schedule(int(self.epoch), gamma, self.gamma_epochs)
        states = [SogCLRState(*(state.read(ids, name) for name in SogCLRState._fields)) for state in self._states()]
        if len(states) == 1:
            step = sogclr(
                z1, z2, *states, ids=ids, gamma=gamma, temperature_update=self.temperature_update, **self.options
            )
        else:
            step = sogclr_bimodal(
                z1, z2, *states, ids=ids, gamma=gamma, temperature_update=self.temperature_update, **self.options
            )
        if self.training:
            for state, following in zip(self._states(), step.states, strict=True):
                state.write(ids, **following._asdict())
        return (step.loss, {"objective": step.objective}) if return_components else step.loss

    def _states(self) -> list[PerSampleState]:
        return [state for state in self.states if isinstance(state, PerSampleState)]

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, gamma_epochs={self.gamma_epochs}, temperature_update={self.temperature_update}"


class ISogCLR(SogCLR):
    """SogCLR that also learns a temperature for every sample.

    Args:
        num_samples: n of the data set.
        temperature: initial one of every sample; by default .1, bimodal .05.
        temperature_update: how temperatures move; by default the published values of the unimodal or bimodal form.
        gamma: rate of the moving denominators.
        gamma_epochs: see `SogCLR`.
        bimodal: two modalities with separate states instead of two views of one.
        dtype: of the state.
        options: ``reduction``, ``memory_budget``, ``backend``.

    Shapes: as `SogCLR`.

    >>> import torch
    >>> loss = ISogCLR(10)
    >>> _ = loss(torch.eye(3), torch.eye(3), torch.tensor([4, 0, 9]))
    >>> loss.temperatures()[[0, 1]]
    tensor([0.0973, 0.1000])
    """

    def __init__(
        self,
        num_samples: int,
        *,
        temperature: float | None = None,
        temperature_update: TemperatureUpdate | None = None,
        gamma: float = 0.9,
        gamma_epochs: int | None = None,
        bimodal: bool = False,
        dtype: torch.dtype | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(
            num_samples,
            temperature=temperature if temperature is not None else (0.05 if bimodal else 0.1),
            gamma=gamma,
            gamma_epochs=gamma_epochs,
            bimodal=bimodal,
            dtype=dtype,
            **options,
        )
        published = TemperatureUpdate(rho=6.0, minimum=0.005, maximum=0.05) if bimodal else TemperatureUpdate()
        self.temperature_update = temperature_update or published

    def temperatures(self, direction: int = 0) -> Tensor:
        """``(n,)`` temperatures of all samples, of the first or (bimodal, ``direction=1``) the second modality."""
        return self._states()[direction].vector("temperature").clone()
