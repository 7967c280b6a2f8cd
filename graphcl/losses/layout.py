"""Where the samples lie in the arguments of a loss, so that batches of several processes can be put together.

A loss declares only what differs from `ROWS`, in a class attribute ``argument_layout``:

>>> import torch
>>> class Softmax(torch.nn.Module):
...     argument_layout = {"weight": SHARED}  # the table of classes, the same on every rank
...
...     def forward(self, hidden, weight, target):
...         return torch.nn.functional.cross_entropy(hidden @ weight.T, target)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["ROWS", "SHARED", "VIEWS", "Joined", "Layout", "Pairs", "RowNumbers", "ViewMajor"]


class Joined(NamedTuple):
    """Rows of all ranks in the order of the ranks, and how many each rank had."""

    rows: Tensor
    sizes: Sequence[int]


class Layout(ABC):
    """How an argument is taken apart into tensors with the samples along the first dimension, and put together again.

    ``value`` is the argument of this rank, ``arguments`` all of them by name, ``parts`` what became of each tensor of
    `take_apart`, and ``sizes`` the rows that an argument has on every rank (an argument that is not joined has none).
    """

    @abstractmethod
    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        """The tensors to be joined; none if the argument is the same on every rank."""

    @abstractmethod
    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        """The argument for the joined batch."""


class _Rows(Layout):
    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value] if value.dim() > 0 else []
        if isinstance(value, list | tuple) and all(isinstance(item, Tensor) and item.dim() > 0 for item in value):
            return list(value)
        return []

    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        if isinstance(value, Tensor):
            return parts[0].rows
        rows = [part.rows for part in parts]
        return type(value)(*rows) if hasattr(value, "_fields") else rows

    def __repr__(self) -> str:
        return "ROWS"


class _Views(_Rows):
    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value.transpose(0, 1)]
        return super().take_apart(value, arguments)

    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        joined = super().put_together(value, parts, arguments, sizes)
        return joined.transpose(0, 1) if isinstance(value, Tensor) else joined

    def __repr__(self) -> str:
        return "VIEWS"


class _Shared(Layout):
    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        return []

    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        return value

    def __repr__(self) -> str:
        return "SHARED"


#: A tensor with one row for every sample of this rank, or a sequence of them. Numbers and 0-dim tensors are shared.
ROWS: Layout = _Rows()

#: Views stacked along a first dimension, ``(V, N, ...)``, or a sequence of tensors of rows.
VIEWS: Layout = _Views()

#: The same on every rank: a table of classes or items, a queue, an option.
SHARED: Layout = _Shared()


class ViewMajor(Layout):
    """One number for every row of stacked views, ``(V N,)``, the first view first.

    Args:
        names: argument that holds the V views; several if the rows of one follow those of another.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        if not isinstance(value, Tensor) or value.dim() == 0:
            return []
        counts = [(len(views), len(views[0])) for views in self._present(arguments)]
        blocks = torch.split(value, [number * rows for number, rows in counts])
        return [block.reshape(shape).T for block, shape in zip(blocks, counts, strict=True)]

    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        return torch.cat([part.rows.T.reshape(-1) for part in parts])

    def _present(self, arguments: Mapping[str, Any]) -> list[Any]:
        return [arguments[name] for name in self.names if len(arguments.get(name, ())) > 0]

    def __repr__(self) -> str:
        return f"ViewMajor({', '.join(map(repr, self.names))})"


@dataclass(frozen=True)
class Pairs(Layout):
    """Pairs of row numbers, ``(2, E)`` or compressed rows (offsets, columns); they are moved with the rows they name.

    Args:
        rows: name of the argument whose rows the first number counts.
        columns: the same for the second number; None for something that is the same on every rank.
    """

    rows: str
    columns: str | None

    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        if value is None:
            return []
        if isinstance(value, Tensor):
            return [value.T]
        offsets, columns = value
        return [offsets.diff(), columns]

    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        row_shift, column_shift = (sizes.get(name or "", ()) for name in (self.rows, self.columns))
        if isinstance(value, Tensor):
            first, second = parts[0].rows.T
            return torch.stack([_moved(first, parts[0], row_shift), _moved(second, parts[0], column_shift)])
        counts, columns = parts
        offsets = torch.cat([counts.rows.new_zeros(1), counts.rows.cumsum(0)])
        return offsets, _moved(columns.rows, columns, column_shift)


@dataclass(frozen=True)
class RowNumbers(Layout):
    """One row number for every sample, such as its partner; moved with the rows it names.

    Args:
        of: name of the argument whose rows are counted.
    """

    of: str

    def take_apart(self, value: Any, arguments: Mapping[str, Any]) -> list[Tensor]:
        return [] if value is None else [value]

    def put_together(
        self, value: Any, parts: Sequence[Joined], arguments: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> Any:
        return _moved(parts[0].rows, parts[0], sizes.get(self.of, ()))


def _moved(numbers: Tensor, part: Joined, sizes: Sequence[int]) -> Tensor:
    """Row numbers of every rank, past the rows of the ranks before it."""
    if not sizes:
        return numbers
    ends = torch.tensor(sizes).cumsum(0)
    starts = (ends - torch.tensor(sizes)).to(numbers.device)
    return numbers + starts.repeat_interleave(torch.tensor(part.sizes, device=numbers.device))
