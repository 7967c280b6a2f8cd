"""The contract that every loss of this package keeps, as checks that a loss written elsewhere can run.

>>> import torch
>>> from graphcl.testing import check_loss
>>> def squared_distance(z1, z2):
...     return ((z1 - z2) ** 2).sum(dim=1).mean()
>>> z1, z2 = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
>>> check_loss(lambda: squared_distance, (z1, z2))

Each check raises `ContractError` with the property that fails and the numbers it saw. All work on float64 copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError

from graphcl.losses.protocol import Loss, split_output

__all__ = [
    "ContractError",
    "check_duplicates",
    "check_finite",
    "check_gradient",
    "check_loss",
    "check_permutation",
    "check_precision",
    "check_state_round_trip",
    "check_zero_rows",
]

#: Makes a fresh loss, so that no check sees the state another one left.
LossFactory = Callable[[], Loss]


class ContractError(AssertionError):
    """A loss does not keep the contract; the message names the property."""


def check_loss(
    make_loss: LossFactory,
    inputs: Sequence[Tensor],
    *,
    make_cold: LossFactory | None = None,
    permutable: bool = True,
) -> None:
    """Run every check on a loss.

    Args:
        make_loss: returns a fresh loss. Give it at least five samples.
        inputs: positional arguments; every tensor has one row a sample. Integer tensors are labels or ids. Float
            tensors are embeddings (differentiated), or only those that require gradients where some do: the others
            are then targets or weights.
        make_cold: returns the loss at a very low temperature, which must stay finite too.
        permutable: False for a loss that depends on the order of its rows.

    Raises:
        ContractError: naming the first property that does not hold.

    Complexity: O(N d) evaluations of the loss for the numerical gradient: keep the inputs small.

    >>> from graphcl.losses import NTXent
    >>> z1, z2 = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    >>> check_loss(NTXent, (z1, z2), make_cold=lambda: NTXent(temperature=1e-3))
    """
    check_finite(make_loss, inputs)
    check_gradient(make_loss, inputs)
    if permutable:
        check_permutation(make_loss, inputs)
    check_zero_rows(make_loss, inputs)
    check_duplicates(make_loss, inputs)
    check_precision(make_loss, inputs)
    check_state_round_trip(make_loss, inputs)
    if make_cold is not None:
        check_finite(make_cold, inputs, "at a low temperature")


def check_finite(make_loss: LossFactory, inputs: Sequence[Tensor], where: str = "on the inputs") -> None:
    """The loss is a finite scalar with finite gradients."""
    _finite(make_loss, _double(inputs), _embeddings(inputs), where)


def check_gradient(make_loss: LossFactory, inputs: Sequence[Tensor]) -> None:
    """The gradient agrees with differences of the value (scaled by a random upstream gradient)."""
    prepared, places = _double(inputs), _embeddings(inputs)
    loss = _double_loss(make_loss)
    kept = _saved(loss)

    def value(*embeddings: Tensor) -> Tensor:
        arguments = list(prepared)
        for position, tensor in zip(places, embeddings, strict=True):
            arguments[position] = tensor
        _restore(loss, kept)
        return 0.7310 * split_output(loss(*arguments))[0]

    starts = [prepared[position].clone().requires_grad_() for position in places]
    try:
        torch.autograd.gradcheck(value, starts, eps=1e-6, atol=1e-5, rtol=1e-4)
    except GradcheckError as error:
        raise ContractError(f"gradient: differs from differences of the value\n{error}") from error


def check_permutation(make_loss: LossFactory, inputs: Sequence[Tensor]) -> None:
    """Shuffling the samples (the same way in all inputs) does not change the value."""
    prepared = _double(inputs)
    order = torch.arange(prepared[0].shape[0]).flip(0)
    before = _value(make_loss, prepared)
    after = _value(make_loss, [value[order] for value in prepared])
    _close("permutation: the value changes with the order of the rows", before, after, 1e-9)


def check_zero_rows(make_loss: LossFactory, inputs: Sequence[Tensor]) -> None:
    """A zero embedding (an isolated node after a ReLU) gives a finite value and a bounded gradient."""
    prepared, embeddings = _double(inputs), _embeddings(inputs)
    largest = 0.0
    # One input at a time, and all together: two zero rows can hide each other's gradient.
    for zeroed in (*([place] for place in embeddings), embeddings):
        arguments = [_with_zero_row(value) if place in zeroed else value for place, value in enumerate(prepared)]
        gradients = _finite(make_loss, arguments, embeddings, "with a zero row")
        largest = max([largest, *(gradient.abs().max().item() for gradient in gradients)])
    if largest > 1e6:
        raise ContractError(
            f"zero rows: the gradient reaches {largest:.3g}; graphcl.kernels.normalize_rows keeps it bounded"
        )


def check_duplicates(make_loss: LossFactory, inputs: Sequence[Tensor]) -> None:
    """Finite when all embeddings are equal."""
    places = _embeddings(inputs)
    prepared = [value[:1].expand_as(value) if place in places else value for place, value in enumerate(_double(inputs))]
    _finite(make_loss, prepared, places, "with all embeddings equal")


def check_precision(make_loss: LossFactory, inputs: Sequence[Tensor]) -> None:
    """float32 agrees with float64 to 1e-3."""
    wide = _value(make_loss, _double(inputs))
    narrow = split_output(
        make_loss()(*(value.detach().float() if value.is_floating_point() else value for value in inputs))
    )[0]
    _close("precision: float32 differs from float64", wide, narrow.double(), 1e-3)


def check_state_round_trip(make_loss: LossFactory, inputs: Sequence[Tensor]) -> None:
    """A module that is saved and loaded between two calls continues as if nothing had happened."""
    prepared = _double(inputs)
    straight = _double_loss(make_loss)
    if not isinstance(straight, nn.Module):
        return
    split_output(straight(*prepared))
    saved = safetensors.torch.save(_saved(straight))
    resumed = _double_loss(make_loss)
    _restore(resumed, safetensors.torch.load(saved))
    first, second = (split_output(loss(*prepared))[0].detach() for loss in (straight, resumed))
    _close("state: the value differs after saving and loading; is everything in state_dict?", first, second, 1e-12)


def _embeddings(inputs: Sequence[Tensor]) -> list[int]:
    """Places of the inputs to differentiate."""
    chosen = [place for place, value in enumerate(inputs) if value.requires_grad]
    return chosen or [place for place, value in enumerate(inputs) if value.is_floating_point()]


def _double(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach().double() if value.is_floating_point() else value for value in inputs]


def _double_loss(make_loss: LossFactory) -> Loss:
    loss = make_loss()
    if isinstance(loss, nn.Module):
        loss.double()
    return loss


def _value(make_loss: LossFactory, inputs: Sequence[Tensor]) -> Tensor:
    return split_output(_double_loss(make_loss)(*inputs))[0].detach()


def _finite(make_loss: LossFactory, inputs: Sequence[Tensor], embeddings: Sequence[int], where: str) -> list[Tensor]:
    """Gradients of a fresh loss, after checking that they and the value are finite."""
    arguments = [value.clone().requires_grad_(place in embeddings) for place, value in enumerate(inputs)]
    value, _ = split_output(_double_loss(make_loss)(*arguments))
    if value.dim() != 0:
        raise ContractError(f"finite: the loss must be a scalar, got shape {tuple(value.shape)}")
    if not bool(value.isfinite()):
        raise ContractError(f"finite: the loss is {value.item()} {where}")
    if not value.requires_grad:
        return []
    leaves = [arguments[place] for place in embeddings]
    gradients = [g for g in torch.autograd.grad(value, leaves, allow_unused=True) if g is not None]
    for gradient in gradients:
        if not bool(gradient.isfinite().all()):
            raise ContractError(f"finite: the gradient is not finite {where}")
    return gradients


def _with_zero_row(value: Tensor) -> Tensor:
    changed = value.clone()
    changed[0] = 0.0
    return changed


def _close(property_text: str, first: Tensor, second: Tensor, tolerance: float) -> None:
    if not torch.allclose(first, second, rtol=tolerance, atol=tolerance):
        raise ContractError(f"{property_text}: {first.item()!r} and {second.item()!r}")


def _saved(loss: Loss) -> dict[str, Any]:
    if not isinstance(loss, nn.Module):
        return {}
    return {name: value.clone() for name, value in loss.state_dict().items()}


def _restore(loss: Loss, state: dict[str, Any]) -> None:
    if isinstance(loss, nn.Module):
        with torch.no_grad():
            loss.load_state_dict(state)
