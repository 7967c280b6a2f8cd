"""Which row belongs to which segment, in the two forms that the reductions need, each derived once from the other."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from graphcl.kernels._csr import offsets_of, row_index, sort_index


class Segments:
    """A partition of E rows into ``size`` segments: offsets where the rows are sorted, an index per row where not."""

    __slots__ = ("_index", "_offsets", "_order", "is_sorted", "num_rows", "size")

    def __init__(self, *, size: int, num_rows: int, offsets: Tensor | None = None, index: Tensor | None = None) -> None:
        self.size = size
        self.num_rows = num_rows
        self.is_sorted = offsets is not None
        self._offsets = offsets
        self._index = index
        self._order: Tensor | None = None

    @property
    def ids(self) -> Tensor:
        """Segment of every row, (E,)."""
        if self._index is None:
            self._index = row_index(self.offsets, self.num_rows)
        return self._index

    @property
    def offsets(self) -> Tensor:
        """Start of every segment in the sorted order, (size + 1,)."""
        if self._offsets is None:
            self._offsets = offsets_of(self.ids, self.size)
        return self._offsets

    @property
    def counts(self) -> Tensor:
        """Rows in every segment, (size,)."""
        return self.offsets.diff()

    @property
    def order(self) -> Tensor | None:
        """Rows in sorted order, (E,); None where they already are sorted."""
        if not self.is_sorted and self._order is None:
            self._offsets, self._order = sort_index(self.ids, self.size)
        return self._order

    def spread(self, per_segment: Tensor) -> Tensor:
        """(size, F) -> (E, F): every row receives what its segment holds."""
        return per_segment.index_select(0, self.ids)

    def row_numbers(self) -> Tensor:
        return torch.arange(self.num_rows, device=self.ids.device)


class Reducer(Protocol):
    """What a backend module offers: forward reductions of (E, F) rows, without gradients or checks, E and F above 0.

    The gradients, the fill of empty segments and the checks are shared by all backends (`graphcl.kernels.segment`).
    """

    def segment_sum(self, src: Tensor, segments: Segments) -> Tensor:
        """(size, F); 0 for an empty segment."""

    def segment_extreme(self, src: Tensor, segments: Segments, largest: bool) -> Tensor:
        """(size, F), a fresh tensor; anything for an empty segment."""

    def segment_logsumexp(self, src: Tensor, segments: Segments) -> Tensor:
        """(size, F); -inf for a segment that is empty or all -inf."""

    def segment_softmax(self, src: Tensor, segments: Segments) -> Tensor:
        """(E, F); 0 in a segment that is all -inf."""
