r"""Reductions over segments: sorted (`segment_*`, CSR offsets) and unsorted (`scatter_*`, an index per row).

Common to all twelve functions:

* Row ``e`` of ``src`` (E, ...) belongs to one of S segments. Sorted form: segment ``s`` holds rows
  ``offsets[s] .. offsets[s + 1] - 1``. Unsorted form: row ``e`` belongs to segment ``index[e]`` of ``dim_size``.
  Any trailing shape is reduced entry by entry; sizes are arguments, so empty segments at the end are kept.
* Empty segments: sum and mean 0, max and min ``empty`` (default 0, no gradient), logsumexp -inf, softmax has no row.
* Half inputs are summed in float32. NaN in a segment makes its result NaN (``torch_scatter`` passes over it in max and
  min).
* Deterministic: sorted segments are added in a fixed order, never with atomics. The unsorted form sorts its index
  first, except where adding in place is faster: narrow rows on a CPU (still a fixed order), and rows on CUDA unless
  ``torch.use_deterministic_algorithms(True)`` is set, which sorts there as well.
* Backends: ``reference`` (a loop over segments, for tests), ``torch`` (any device), ``triton`` (CUDA),
  ``torch_scatter`` (where the package is installed). ``auto`` is ``triton`` for float tensors on CUDA where Triton is
  installed, ``torch`` everywhere else; ``torch_scatter`` runs only when asked for.
* Offsets and index are int64 (int32 is converted); rows x columns may pass 2^31.
* ``check=False`` skips the tests of offset and index *values* (one pass over them, and a synchronisation on CUDA).
"""

from __future__ import annotations

from typing import Any, Final, Literal, cast, get_args

import torch
from torch import Tensor

from graphcl.kernels import _segment_torch, _segment_torch_scatter
from graphcl.kernels._csr import accumulation_dtype
from graphcl.kernels._segment_reference import REDUCTIONS
from graphcl.kernels._segments import Reducer, Segments
from graphcl.kernels.backends import triton_for

__all__ = [
    "SegmentBackend",
    "scatter_logsumexp",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_softmax",
    "scatter_sum",
    "segment_logsumexp",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_softmax",
    "segment_sum",
]

SegmentBackend = Literal["auto", "reference", "torch", "triton", "torch_scatter"]
Reduction = Literal["sum", "mean", "max", "min", "logsumexp", "softmax"]
_INDEX_TYPES: Final = (torch.int64, torch.int32)


def segment_sum(src: Tensor, offsets: Tensor, *, backend: SegmentBackend = "auto", check: bool = True) -> Tensor:
    r"""Sum of every segment of consecutive rows.

    .. math:: y_s = \sum_{e=o_s}^{o_{s+1}-1} x_e

    Args:
        src: ``(E, ...)`` of any number type.
        offsets: ``(S + 1,)`` integers from 0 to E that never fall.
        backend: which implementation runs; see the module.
        check: test the values of ``offsets``.

    Returns:
        ``(S, ...)`` in the type of ``src``; an empty segment is 0.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time for F trailing entries; O(S F) memory beside the input.

    >>> import torch
    >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2, 3]))
    tensor([3., 0., 4.])
    """
    return _reduce("sum", src, _from_offsets(src, offsets, check), backend)


def segment_mean(src: Tensor, offsets: Tensor, *, backend: SegmentBackend = "auto", check: bool = True) -> Tensor:
    r"""Mean of every segment of consecutive rows.

    .. math:: y_s = \frac{1}{\max(1, o_{s+1}-o_s)} \sum_{e=o_s}^{o_{s+1}-1} x_e

    Args:
        src: ``(E, ...)`` floating.
        offsets: ``(S + 1,)`` integers from 0 to E that never fall.
        backend: which implementation runs; see the module.
        check: test the values of ``offsets``.

    Returns:
        ``(S, ...)``; an empty segment is 0.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time, O(S F) memory.

    >>> import torch
    >>> segment_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2, 3]))
    tensor([1.5000, 0.0000, 4.0000])
    """
    return _reduce("mean", src, _from_offsets(src, offsets, check), backend)


def segment_max(
    src: Tensor, offsets: Tensor, *, empty: float = 0.0, backend: SegmentBackend = "auto", check: bool = True
) -> Tensor:
    r"""Largest entry of every segment of consecutive rows.

    .. math:: y_s = \max_{o_s \le e < o_{s+1}} x_e

    The gradient goes to one winner, the row of lowest number among equals.

    Args:
        src: ``(E, ...)`` of any real number type.
        offsets: ``(S + 1,)`` integers from 0 to E that never fall.
        empty: value of an empty segment; it carries no gradient.
        backend: which implementation runs; see the module.
        check: test the values of ``offsets``.

    Returns:
        ``(S, ...)``.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time, O(S F) memory; the backward pass finds the winners with E x F integers at once.

    >>> import torch
    >>> segment_max(torch.tensor([1.0, 2.0, -4.0]), torch.tensor([0, 2, 2, 3]))
    tensor([ 2.,  0., -4.])
    """
    return _reduce("max", src, _from_offsets(src, offsets, check), backend, empty)


def segment_min(
    src: Tensor, offsets: Tensor, *, empty: float = 0.0, backend: SegmentBackend = "auto", check: bool = True
) -> Tensor:
    r"""Smallest entry of every segment of consecutive rows.

    .. math:: y_s = \min_{o_s \le e < o_{s+1}} x_e

    The gradient goes to one winner, the row of lowest number among equals.

    Args:
        src: ``(E, ...)`` of any real number type.
        offsets: ``(S + 1,)`` integers from 0 to E that never fall.
        empty: value of an empty segment; it carries no gradient.
        backend: which implementation runs; see the module.
        check: test the values of ``offsets``.

    Returns:
        ``(S, ...)``.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time, O(S F) memory; the backward pass finds the winners with E x F integers at once.

    >>> import torch
    >>> segment_min(torch.tensor([1.0, 2.0, -4.0]), torch.tensor([0, 2, 2, 3]), empty=9.0)
    tensor([ 1.,  9., -4.])
    """
    return _reduce("min", src, _from_offsets(src, offsets, check), backend, empty)


def segment_logsumexp(src: Tensor, offsets: Tensor, *, backend: SegmentBackend = "auto", check: bool = True) -> Tensor:
    r"""Logarithm of the sum of exponentials of every segment, taken through the maximum of the segment.

    .. math:: y_s = m_s + \log \sum_{e=o_s}^{o_{s+1}-1} e^{x_e - m_s}, \quad m_s = \max_e x_e

    Args:
        src: ``(E, ...)`` floating; entries may be -inf (they weigh nothing and get gradient 0).
        offsets: ``(S + 1,)`` integers from 0 to E that never fall.
        backend: which implementation runs; see the module.
        check: test the values of ``offsets``.

    Returns:
        ``(S, ...)``; -inf with zero gradient for a segment that is empty or all -inf.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time and temporary memory.

    >>> import torch
    >>> segment_logsumexp(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0, 2, 2, 3]))
    tensor([0.6931,   -inf, 3.0000])
    """
    return _reduce("logsumexp", src, _from_offsets(src, offsets, check), backend)


def segment_softmax(src: Tensor, offsets: Tensor, *, backend: SegmentBackend = "auto", check: bool = True) -> Tensor:
    r"""Softmax within every segment: attention weights over the neighbours of a node.

    .. math:: y_e = e^{x_e - m_s} / \sum_{f \in s} e^{x_f - m_s}, \quad s \ni e

    Args:
        src: ``(E, ...)`` floating; entries may be -inf (weight 0).
        offsets: ``(S + 1,)`` integers from 0 to E that never fall.
        backend: which implementation runs; see the module.
        check: test the values of ``offsets``.

    Returns:
        ``(E, ...)``, summing to 1 in every non-empty segment; all 0 in a segment that is all -inf.

    Raises:
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time and memory.

    >>> import torch
    >>> segment_softmax(torch.tensor([0.0, 0.0, 3.0]), torch.tensor([0, 2, 2, 3]))
    tensor([0.5000, 0.5000, 1.0000])
    """
    return _reduce("softmax", src, _from_offsets(src, offsets, check), backend)


def scatter_sum(
    src: Tensor, index: Tensor, dim_size: int, *, backend: SegmentBackend = "auto", check: bool = True
) -> Tensor:
    r"""Sum of the rows that share an index; see `segment_sum`.

    .. math:: y_s = \sum_{e: i_e = s} x_e

    Args:
        src: ``(E, ...)`` of any number type.
        index: ``(E,)`` integers in ``0 .. dim_size - 1``, in any order.
        dim_size: number of segments S.
        backend: which implementation runs; see the module.
        check: test the values of ``index``.

    Returns:
        ``(S, ...)``; an index that never occurs is 0.

    Raises:
        IndexError: an index outside ``0 .. dim_size - 1``.
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time (a radix sort of the index included); O(E + S F) memory.

    >>> import torch
    >>> scatter_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4)
    tensor([2., 0., 5., 0.])
    """
    return _reduce("sum", src, _from_index(src, index, dim_size, check), backend)


def scatter_mean(
    src: Tensor, index: Tensor, dim_size: int, *, backend: SegmentBackend = "auto", check: bool = True
) -> Tensor:
    r"""Mean of the rows that share an index; see `segment_mean`.

    .. math:: y_s = \frac{1}{\max(1, n_s)} \sum_{e: i_e = s} x_e

    Args:
        src: ``(E, ...)`` floating.
        index: ``(E,)`` integers in ``0 .. dim_size - 1``, in any order.
        dim_size: number of segments S.
        backend: which implementation runs; see the module.
        check: test the values of ``index``.

    Returns:
        ``(S, ...)``; an index that never occurs is 0.

    Raises:
        IndexError: an index outside ``0 .. dim_size - 1``.
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time, O(E + S F) memory.

    >>> import torch
    >>> scatter_mean(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4)
    tensor([2.0000, 0.0000, 2.5000, 0.0000])
    """
    return _reduce("mean", src, _from_index(src, index, dim_size, check), backend)


def scatter_max(
    src: Tensor,
    index: Tensor,
    dim_size: int,
    *,
    empty: float = 0.0,
    backend: SegmentBackend = "auto",
    check: bool = True,
) -> Tensor:
    r"""Largest of the rows that share an index; see `segment_max`.

    .. math:: y_s = \max_{e: i_e = s} x_e

    Args:
        src: ``(E, ...)`` of any real number type.
        index: ``(E,)`` integers in ``0 .. dim_size - 1``, in any order.
        dim_size: number of segments S.
        empty: value where an index never occurs; it carries no gradient.
        backend: which implementation runs; see the module.
        check: test the values of ``index``.

    Returns:
        ``(S, ...)``; the gradient goes to the row of lowest number among equals.

    Raises:
        IndexError: an index outside ``0 .. dim_size - 1``.
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time, O(E + S F) memory; the backward pass holds E x F integers.

    >>> import torch
    >>> scatter_max(torch.tensor([1.0, 2.0, -4.0]), torch.tensor([2, 0, 2]), 4, empty=-1.0)
    tensor([ 2., -1.,  1., -1.])
    """
    return _reduce("max", src, _from_index(src, index, dim_size, check), backend, empty)


def scatter_min(
    src: Tensor,
    index: Tensor,
    dim_size: int,
    *,
    empty: float = 0.0,
    backend: SegmentBackend = "auto",
    check: bool = True,
) -> Tensor:
    r"""Smallest of the rows that share an index; see `segment_min`.

    .. math:: y_s = \min_{e: i_e = s} x_e

    Args:
        src: ``(E, ...)`` of any real number type.
        index: ``(E,)`` integers in ``0 .. dim_size - 1``, in any order.
        dim_size: number of segments S.
        empty: value where an index never occurs; it carries no gradient.
        backend: which implementation runs; see the module.
        check: test the values of ``index``.

    Returns:
        ``(S, ...)``; the gradient goes to the row of lowest number among equals.

    Raises:
        IndexError: an index outside ``0 .. dim_size - 1``.
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time, O(E + S F) memory; the backward pass holds E x F integers.

    >>> import torch
    >>> scatter_min(torch.tensor([1.0, 2.0, -4.0]), torch.tensor([2, 0, 2]), 4)
    tensor([ 2.,  0., -4.,  0.])
    """
    return _reduce("min", src, _from_index(src, index, dim_size, check), backend, empty)


def scatter_logsumexp(
    src: Tensor, index: Tensor, dim_size: int, *, backend: SegmentBackend = "auto", check: bool = True
) -> Tensor:
    r"""Logarithm of the sum of exponentials of the rows that share an index; see `segment_logsumexp`.

    .. math:: y_s = \log \sum_{e: i_e = s} e^{x_e}

    Args:
        src: ``(E, ...)`` floating; entries may be -inf.
        index: ``(E,)`` integers in ``0 .. dim_size - 1``, in any order.
        dim_size: number of segments S.
        backend: which implementation runs; see the module.
        check: test the values of ``index``.

    Returns:
        ``(S, ...)``; -inf with zero gradient where an index never occurs.

    Raises:
        IndexError: an index outside ``0 .. dim_size - 1``.
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time and temporary memory.

    >>> import torch
    >>> scatter_logsumexp(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([2, 0, 2]), 3)
    tensor([3.0000,   -inf, 0.6931])
    """
    return _reduce("logsumexp", src, _from_index(src, index, dim_size, check), backend)


def scatter_softmax(
    src: Tensor, index: Tensor, dim_size: int, *, backend: SegmentBackend = "auto", check: bool = True
) -> Tensor:
    r"""Softmax among the rows that share an index; see `segment_softmax`.

    .. math:: y_e = e^{x_e} / \sum_{f: i_f = i_e} e^{x_f}

    Args:
        src: ``(E, ...)`` floating; entries may be -inf.
        index: ``(E,)`` integers in ``0 .. dim_size - 1``, in any order.
        dim_size: number of segments S.
        backend: which implementation runs; see the module.
        check: test the values of ``index``.

    Returns:
        ``(E, ...)`` in the order of ``src``.

    Raises:
        IndexError: an index outside ``0 .. dim_size - 1``.
        ValueError, TypeError: a malformed argument, named with its value.
        ImportError: ``backend="torch_scatter"`` without that package.

    Complexity: O(E F) time and memory.

    >>> import torch
    >>> scatter_softmax(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([2, 0, 2]), 3)
    tensor([0.5000, 1.0000, 0.5000])
    """
    return _reduce("softmax", src, _from_index(src, index, dim_size, check), backend)


def _from_offsets(src: Tensor, offsets: Tensor, check: bool) -> Segments:
    _check_rows(src)
    _check_integers("offsets", offsets, src)
    if offsets.shape[0] == 0:
        raise ValueError("offsets must have shape (segments + 1,), got shape (0,)")
    offsets = offsets.to(torch.int64)
    if check:
        check_offsets("offsets", offsets, src.shape[0], "rows of src")
    return Segments(size=offsets.shape[0] - 1, num_rows=src.shape[0], offsets=offsets)


def _from_index(src: Tensor, index: Tensor, dim_size: int, check: bool) -> Segments:
    _check_rows(src)
    _check_integers("index", index, src)
    if index.shape[0] != src.shape[0]:
        raise ValueError(f"index must have shape ({src.shape[0]},), one entry per row of src, got {tuple(index.shape)}")
    if isinstance(dim_size, bool) or not isinstance(dim_size, int) or dim_size < 0:
        raise ValueError(f"dim_size must be an integer of at least 0, got {dim_size!r}")
    index = index.to(torch.int64)
    if check:
        check_range("index", index, dim_size)
    return Segments(size=dim_size, num_rows=src.shape[0], index=index)


def _check_rows(src: Tensor) -> None:
    if src.dim() == 0:
        raise ValueError("src must have at least one dimension, got a scalar")
    if src.dtype is torch.bool:
        raise TypeError("src must be a tensor of numbers, got dtype torch.bool")


def _check_integers(name: str, value: Tensor, src: Tensor) -> None:
    if value.dtype not in _INDEX_TYPES:
        raise TypeError(f"{name} must be int64 or int32, got dtype {value.dtype}")
    if value.dim() != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(value.shape)}")
    if value.device != src.device:
        raise ValueError(f"{name} is on {value.device} but src is on {src.device}")


def check_range(name: str, index: Tensor, size: int) -> None:
    """Every entry of ``index`` lies in ``0 .. size - 1``."""
    if index.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(index))
    if low < 0 or high >= size:
        raise IndexError(f"{name} holds {low if low < 0 else high}, outside 0 .. {size - 1}")


def check_offsets(name: str, offsets: Tensor, total: int, what: str) -> None:
    """``offsets`` runs from 0 to ``total`` and never falls."""
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0:
        raise ValueError(f"{name} must start at 0, got {first}")
    if last != total:
        raise ValueError(f"{name} must end at {total} (the number of {what}), got {last}")
    falls = torch.nonzero(offsets[1:] < offsets[:-1])
    if falls.numel() > 0:
        at = int(falls[0, 0])
        raise ValueError(
            f"{name} must not fall, got {name}[{at}] = {int(offsets[at])} and {name}[{at + 1}] = {int(offsets[at + 1])}"
        )


def _reduce(
    reduction: Reduction, src: Tensor, segments: Segments, backend: SegmentBackend, empty: float = 0.0
) -> Tensor:
    if backend not in get_args(SegmentBackend):
        raise ValueError(f"backend must be one of {', '.join(get_args(SegmentBackend))}, got {backend!r}")
    if reduction in ("mean", "logsumexp", "softmax") and not src.is_floating_point():
        raise TypeError(f"src must be a float tensor for {reduction}, got dtype {src.dtype}")
    if reduction in ("max", "min") and src.is_complex():
        raise TypeError(f"src must be a real tensor for {reduction}, got dtype {src.dtype}")
    flat = src.reshape(src.shape[0], src.shape[1:].numel())
    if backend == "reference":
        out = REDUCTIONS[reduction](flat, segments, empty)
    else:
        out = _differentiable(reduction, flat, segments, _reducer(backend, src), empty)
    return out.reshape(out.shape[0], *src.shape[1:])


def _reducer(backend: SegmentBackend, src: Tensor) -> Reducer:
    """Module with the forward reductions; what they share (checks, gradients) is written once in this file."""
    if backend == "torch_scatter":
        _segment_torch_scatter.load()
        return _segment_torch_scatter
    if backend == "triton" or (backend == "auto" and src.is_floating_point()):
        fused = triton_for("triton_segment", backend, src.device)
        return _segment_torch if fused is None else cast(Reducer, fused)
    return _segment_torch


def _differentiable(reduction: Reduction, src: Tensor, segments: Segments, reducer: Reducer, empty: float) -> Tensor:
    if src.numel() == 0:
        # Nothing to launch; the products keep the graph connected so that gradients are zeros and not None.
        if reduction == "softmax":
            return src * 1
        fill = {"max": empty, "min": empty, "logsumexp": -torch.inf}.get(reduction, 0.0)
        return src.new_full((segments.size, src.shape[1]), fill) + src.sum()
    if reduction == "sum":
        return _apply(_Sum, src, segments, reducer)
    if reduction == "mean":
        counts = segments.counts.clamp(min=1).unsqueeze(1)
        wide = src.to(accumulation_dtype(src.dtype))
        return (_apply(_Sum, wide, segments, reducer) / counts).to(src.dtype)
    if reduction in ("max", "min"):
        return _apply(_Extreme, src, segments, reducer, reduction == "max", empty)
    return _apply(_LogSumExp if reduction == "logsumexp" else _Softmax, src, segments, reducer)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    out: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


class _Sum(torch.autograd.Function):
    """d src_e = d y_{s(e)}."""

    @staticmethod
    def forward(src: Tensor, segments: Segments, reducer: Reducer) -> Tensor:
        return reducer.segment_sum(src, segments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.segments = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gather(grad, ctx.segments), None, None


class _Extreme(torch.autograd.Function):
    """d src_e = d y_s where e is the first row of s that equals y_s, 0 elsewhere."""

    @staticmethod
    def forward(src: Tensor, segments: Segments, reducer: Reducer, largest: bool, empty: float) -> Tensor:
        out = reducer.segment_extreme(src, segments, largest)
        return out.masked_fill_((segments.counts == 0).unsqueeze(1), empty)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.segments = inputs[1]
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        src, out = ctx.saved_tensors
        winner = _first_equal(src.detach(), out.detach(), ctx.segments)
        # Row E collects the segments without a winner (empty, NaN) and is cut off again.
        spread = grad.new_zeros(src.shape[0] + 1, src.shape[1]).scatter(0, winner, grad)
        return spread[:-1], None, None, None, None


def _first_equal(src: Tensor, out: Tensor, segments: Segments) -> Tensor:
    """Lowest row of every segment that holds its result, (S, F); E where there is none."""
    num_rows, width = src.shape
    numbers = segments.row_numbers().unsqueeze(1)
    candidates = torch.where(src == segments.spread(out), numbers, num_rows)
    index = segments.ids.unsqueeze(1).expand(-1, width)
    return candidates.new_full(out.shape, num_rows).scatter_reduce_(0, index, candidates, "amin")


class _LogSumExp(torch.autograd.Function):
    """d src_e = d y_s exp(src_e - y_s)."""

    @staticmethod
    def forward(src: Tensor, segments: Segments, reducer: Reducer) -> Tensor:
        return reducer.segment_logsumexp(src, segments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.segments = inputs[1]
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        src, out = ctx.saved_tensors
        # exp(-inf - 0) = 0: a segment without mass sends nothing back.
        shift = out.masked_fill(out == -torch.inf, 0.0)
        weights = (src - _gather(shift, ctx.segments)).exp()
        return _gather(grad, ctx.segments) * weights, None, None


class _Softmax(torch.autograd.Function):
    """d src_e = y_e (d y_e - sum over f in s of y_f d y_f)."""

    @staticmethod
    def forward(src: Tensor, segments: Segments, reducer: Reducer) -> Tensor:
        return reducer.segment_softmax(src, segments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.segments, ctx.reducer = inputs[1:]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (out,) = ctx.saved_tensors
        weighted = grad * out
        total = _apply(_Sum, weighted, ctx.segments, ctx.reducer)
        return weighted - out * _gather(total, ctx.segments), None, None


class _Gather(torch.autograd.Function):
    """Rows of a per-segment table for every row of the partition; its own gradient is the deterministic sum."""

    @staticmethod
    def forward(table: Tensor, segments: Segments) -> Tensor:
        return segments.spread(table)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.segments = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _apply(_Sum, grad, ctx.segments, _segment_torch), None


def _gather(table: Tensor, segments: Segments) -> Tensor:
    return _apply(_Gather, table, segments)
