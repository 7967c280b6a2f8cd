"""What a loss is to the rest of the package, so that one written elsewhere fits in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor

__all__ = ["Loss", "LossOutput", "split_output"]

#: A scalar, or a scalar and its parts by name.
LossOutput: TypeAlias = Tensor | tuple[Tensor, Mapping[str, Tensor]]


@runtime_checkable
class Loss(Protocol):
    """Anything callable that turns embeddings (and labels, ids, ...) into a scalar, or into a scalar and named parts.

    A plain function will do; a loss that remembers something is a `torch.nn.Module` whose memory is in its
    ``state_dict``. `graphcl.testing.check_loss` runs the public contract on either.

    >>> import torch
    >>> def squared_distance(z1, z2):
    ...     return ((z1 - z2) ** 2).sum(dim=1).mean()
    >>> isinstance(squared_distance, Loss)
    True
    """

    def __call__(self, *inputs: Any, **options: Any) -> LossOutput: ...


def split_output(output: LossOutput) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The scalar and the parts of what a loss returned; no parts for a bare scalar.

    >>> import torch
    >>> split_output(torch.tensor(1.0))
    (tensor(1.), {})
    """
    if isinstance(output, Tensor):
        return output, {}
    value, parts = output
    return value, parts
