"""How much memory an objective takes at a size that has not been run yet, and what to do when that is too much.

Nothing is tabulated: the objective runs on a few hundred random rows of the asked width while every allocation is
recorded, with two sizes of tile, and what was seen is carried over to the asked number of rows. The allocations in
their order, at their sizes on all the rows, then go through a model of the heap of the C library: that is what a
process keeps of them.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphcl.kernels._arguments import MEMORY_BUDGET, check_block_size
from graphcl.kernels._tiles import Blocks, choose_blocks
from graphcl.losses._heap import Events, live_peak, resident_peak
from graphcl.losses._rehearsal import recorded, rehearsed
from graphcl.losses.catalogue import CATALOGUE
from graphcl.losses.protocol import split_output

__all__ = ["Approximation", "Plan", "plan"]

_PROBE_SIZES = (512, 768, 1024)
_CHECK_SIZE = 3072
_LARGE_PROBE_SIZES = (2048, 3072, 4096)
_MOST_FIXED_COLUMN_ROWS = 32_768
_FIXED_SLOPE = 0.05
_LARGEST_ERROR = 0.05
_PROBE_BUDGET = 2**24
_SEEN = 2**14  # bytes by which a peak must fall to count as cut
_FEWEST_COPIES = 0.05
_ATTEMPTS = 4
_SLOW = 2.0  # seconds for the largest of the small probes, after which the larger ones are left out
_LEAST_BUDGET = 2**20
# So many rows are run as they are, the more of them the faster the objective is.
_AS_THEY_ARE = 4096
_LIBRARIES = 2**20  # what the matrix libraries take for themselves on the way
_TRUSTED = 0.25  # relative difference of both predictions of the tensors up to which the rehearsal counts
_ITEM = 4
# The engine takes so many anchors at once on a CPU, and fewer only where they do not fit its budget.
_ROWS = choose_blocks(2**20, 1, _ITEM, MEMORY_BUDGET, None, torch.device("cpu")).rows
# Objectives that are an InfoNCE over the rows of a batch, which clusters of rows can stand for.
_BLOCK_FORM = ("info_nce",)


@dataclass(frozen=True)
class Approximation:
    """What to run where the exact objective does not fit.

    Attributes:
        kind: ``block``: `graphcl.functional.block_info_nce`, clusters for negatives; ``samples``: a random part of the
            rows a step.
        size: number of clusters, or of rows.
        peak: bytes of its tensors beyond the inputs.
        resident: bytes a process keeps for them.
    """

    kind: Literal["block", "samples"]
    size: int
    peak: int
    resident: int

    def __str__(self) -> str:
        if self.kind == "block":
            what = f"block_info_nce with {self.size} clusters"
        else:
            what = (
                f"{self.size} random rows a step; log((N - 1) / ({self.size} - 1)) added to negatives keeps their sum"
            )
        return f"{what}: {_mib(self.resident)}"


@dataclass(frozen=True)
class Plan:
    """Memory of one objective on N rows of width d in float32 on a CPU, forward and backward, beyond the inputs.

    Attributes:
        loss: name of the objective.
        num_rows: N.
        dim: d.
        memory: bytes that were allowed.
        memory_budget: argument of that name to give the objective.
        block_size: edges of the tiles of the pair engine under it; the whole matrix where no tiles are used.
        peak: predicted bytes of the tensors under this budget, gradients of the embeddings included.
        resident: predicted bytes that the process holds at its peak, with what the C library keeps of freed blocks.
        fits: whether the exact objective fits, by ``resident``.
        approximation: what to run where it does not; None where it does, or where nothing fits.
    """

    loss: str
    num_rows: int
    dim: int
    memory: int
    memory_budget: int
    block_size: tuple[int, int]
    peak: int
    resident: int
    fits: bool
    approximation: Approximation | None

    def __str__(self) -> str:
        rows, columns = self.block_size
        needs = f"{_mib(self.resident)} ({_mib(self.peak)} in tensors)"
        head = f"{self.loss} on {self.num_rows} rows of width {self.dim}: {needs} of {_mib(self.memory)}"
        if self.fits:
            return f"{head}; exact, memory_budget={self.memory_budget}, tiles of {rows} x {columns}"
        return f"{head}; does not fit; {self.approximation or 'no approximation fits either'}"


def plan(
    n: int,
    d: int,
    loss: str | Callable[..., Any] = "info_nce",
    memory: int = 2**30,
    *,
    inputs: Callable[[int, int], Sequence[Any]] | None = None,
) -> Plan:
    """Predict the peak memory of an objective and choose its tiles, or an approximation.

    Two peaks beyond the inputs: ``peak`` is what tensors take, ``resident`` what the process holds, and this one
    decides. On a CPU the C library keeps freed blocks for later, up to as much again: glibc is followed block by block,
    under its usual settings or under the ``MALLOC_MMAP_THRESHOLD_`` of this process (65536 makes both peaks agree).
    Elsewhere ``resident`` is ``peak``. Both are measured in benchmarks/results/losses_plan.md.

    Args:
        n: number of rows (of each view).
        d: their width.
        loss: name of an objective in `graphcl.losses.catalogue.CATALOGUE`, run on the arguments given there; or any
            callable, a module too, that returns a scalar (or a scalar and parts, or a step with ``loss``).
        memory: bytes that may be taken beyond the inputs.
        inputs: ``inputs(n, d)`` makes the arguments of a callable; by default two float views that require gradients.

    Returns:
        `Plan`. The largest ``memory_budget`` is taken that fits; without one, the block form (for ``info_nce``), or as
        many random rows as fit.

    Raises:
        ValueError: a size below 1, or a name that is not in the catalogue.

    Complexity: two dozen evaluations on 512 to 3,072 rows of width d, and two on 1,024 and 2,048 in tiles as many as on
    n rows (one on n itself up to 4,096); for objectives whose blocks are not the engine's four more on up to 4,096, for
    those against a queue two on up to 32,768; for fewer than 1,024 rows one at the size itself.

    >>> found = plan(16_384, 64, "info_nce", memory=2**30)
    >>> found.fits, found.peak < found.resident < 2**28
    (True, True)
    """
    for name, value in (("n", n), ("d", d), ("memory", memory)):
        check_block_size(name, value)
    run = _named(loss) if isinstance(loss, str) else _given(loss, inputs)
    model = _observe(run, d, n)
    kept = _kept(run, model, n, d)
    budget = MEMORY_BUDGET
    while kept.resident(model.peak(n, budget)) > memory and budget > _LEAST_BUDGET and model.tiled:
        budget //= 2
    peak = model.peak(n, budget)
    resident = kept.resident(peak)
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    fits = resident <= memory
    approximation = None if fits else _approximate(name, run, model, kept, n, d, memory)
    return Plan(name, n, d, memory, budget, model.block_size(n, budget), peak, resident, fits, approximation)


def _approximate(
    name: str, run: _Run, model: _MemoryModel, kept: _Kept, n: int, d: int, memory: int
) -> Approximation | None:
    if name in _BLOCK_FORM:
        block = _named("block_info_nce")
        blocks = _observe(block, d, n)
        peak = blocks.peak(n, _LEAST_BUDGET)
        resident = _kept(block, blocks, n, d).resident(peak)
        if resident <= memory:
            return Approximation("block", 256, peak, resident)
    size, fewer = n, n
    for _ in range(_ATTEMPTS):
        low, high = 1, fewer
        while low < high:
            middle = (low + high + 1) // 2
            needed = kept.scaled(middle / size).resident(model.peak(middle, _LEAST_BUDGET))
            low, high = (middle, high) if needed <= memory else (low, middle - 1)
        if low == 1:
            return None
        kept, size, fewer = _kept(run, model, low, d), low, low - 1
        peak = model.peak(low, _LEAST_BUDGET)
        if kept.resident(peak) <= memory:
            return Approximation("samples", low, peak, kept.resident(peak))
    return None


@dataclass(frozen=True)
class _Kept:
    """What a process holds beside the tensors at their peak: freed blocks, in bytes or as a share of the tensors."""

    bytes: float = 0.0
    share: float = 0.0

    def resident(self, peak: int) -> int:
        return int(peak * (1.0 + self.share) + self.bytes) + _LIBRARIES

    def scaled(self, part: float) -> _Kept:
        """For a part of the rows."""
        return replace(self, bytes=self.bytes * part)


def _kept(run: _Run, model: _MemoryModel, n: int, d: int) -> _Kept:
    """Freed blocks under the usual budget; under smaller ones there are hardly more."""

    def prepare(size: int, budget: int) -> Callable[[], None]:
        return run(size, d, budget)

    def of(events: Events) -> int:
        return max(resident_peak(events) - live_peak(events), 0)

    most = _PROBE_SIZES[-1] if model.slow else _AS_THEY_ARE
    if n <= most:
        return _Kept(of(recorded(prepare(n, MEMORY_BUDGET))))
    fixed = not model.tiled or (model.columns is not None and model.columns[1] < _FIXED_SLOPE)
    events = None if model.slow else rehearsed(prepare, n, MEMORY_BUDGET, "fixed" if fixed else "rows")
    if events is not None and abs(live_peak(events) / model.peak(n, MEMORY_BUDGET) - 1.0) <= _TRUSTED:
        return _Kept(of(events))
    events = recorded(prepare(most, MEMORY_BUDGET))
    return _Kept(share=of(events) / max(live_peak(events), 1))


#: Evaluates an objective on n rows under a memory budget, returning what to run: forward and backward.
_Run = Callable[[int, int, int], Callable[[], None]]


def _named(name: str) -> _Run:
    if name not in CATALOGUE:
        raise ValueError(f"loss must be a callable or one of {', '.join(CATALOGUE)}, got {name!r}")
    entry = CATALOGUE[name]

    def prepare(n: int, d: int, budget: int) -> Callable[[], None]:
        call = entry.call(n, d)
        leaves = call.leaves()

        def run() -> None:
            loss = entry.evaluate(call, memory_budget=budget)
            # Named, so that gradients and graph live together, as in a training step.
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
            del gradients

        return run

    return prepare


def _given(loss: Callable[..., Any], inputs: Callable[[int, int], Sequence[Any]] | None) -> _Run:
    def prepare(n: int, d: int, budget: int) -> Callable[[], None]:
        arguments = inputs(n, d) if inputs is not None else _two_views(n, d)
        own: Callable[..., Any] = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
        options: dict[str, Any] = {}
        if isinstance(own, nn.Module):
            parameters = [parameter for parameter in own.parameters() if parameter.requires_grad]
            # The losses of this package keep what they hand to the engine under this name.
            engine = getattr(own, "options", None)
            if isinstance(engine, dict):
                engine["memory_budget"] = budget
        else:
            parameters = []
            if "memory_budget" in inspect.signature(own).parameters:
                options["memory_budget"] = budget
        leaves = [value for value in arguments if isinstance(value, Tensor) and value.requires_grad] + parameters

        def run() -> None:
            result = own(*arguments, **options)
            value = split_output(result.loss if hasattr(result, "loss") else result)[0]
            gradients = torch.autograd.grad(value, leaves, allow_unused=True)
            del gradients

        return run

    return prepare


def _two_views(n: int, d: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=generator).requires_grad_() for _ in range(2)]


@dataclass(frozen=True)
class _MemoryModel:
    """Peak bytes as ``constant + linear n + quadratic n^2`` and tiles.

    Attributes:
        base: the three coefficients.
        copies: bytes held for a byte of tile: 0 where the peak lies outside the sweep over pairs.
        columns: of the pair matrix, constant and for every row; None for blocks that fill the budget at any size.
        slow: so slow that it is run on few rows only.
    """

    base: tuple[float, float, float] = (0.0, 0.0, 0.0)
    copies: float = 0.0
    columns: tuple[float, float] | None = None
    slow: bool = False

    @property
    def tiled(self) -> bool:
        return self.copies > 0

    def peak(self, n: int, budget: int) -> int:
        constant, linear, quadratic = self.base
        return max(0, int(constant + linear * n + quadratic * n * n + self._tiles(n, budget)))

    def block_size(self, n: int, budget: int) -> tuple[int, int]:
        if not self.tiled:
            return n, n
        if self.columns is None:
            return max(1, min(n, budget // (_ITEM * n))), n
        blocks = self._blocks(n, budget)
        return blocks.rows, blocks.columns

    def _width(self, n: int) -> int:
        constant, slope = self.columns or (0.0, 0.0)
        return max(1, round(constant + slope * n))

    def _blocks(self, n: int, budget: int) -> Blocks:
        return choose_blocks(max(n, _ROWS), self._width(n), _ITEM, budget, None, torch.device("cpu"))

    def _tiles(self, n: int, budget: int) -> float:
        if not self.tiled:
            return 0.0
        if self.columns is None:
            return self.copies * budget
        blocks = self._blocks(n, budget)
        tile = blocks.rows * min(blocks.columns, self._width(n)) * _ITEM
        if not blocks.stored:
            return self.copies * tile
        # A block of rows keeps its exponentials over all columns; the other buffers are one tile each.
        kept = blocks.rows * self._width(n) * _ITEM
        return min(self.copies, 1.0) * kept + max(self.copies - 1.0, 0.0) * tile


def _observe(run: _Run, d: int, n: int) -> _MemoryModel:
    """Run small sizes and tell apart what grows with rows and what grows with tiles."""

    def measure(size: int, budget: int = MEMORY_BUDGET) -> float:
        return live_peak(recorded(run(size, d, budget)))

    measure(64)  # loads libraries
    first, last = _PROBE_SIZES[0], _PROBE_SIZES[-1]
    if n <= last:
        return _MemoryModel((measure(n), 0.0, 0.0))
    peaks = [measure(size) for size in _PROBE_SIZES[:-1]]
    start = time.perf_counter()
    peaks.append(measure(last))
    slow = time.perf_counter() - start > _SLOW
    model = _MemoryModel(slow=slow)
    copies, width = _tiles_at(partial(measure, last), peaks[-1])
    if copies > 0 and not slow:
        first_width = _tiles_at(partial(measure, first), peaks[0])[1]
        slope = max(0.0, (width - first_width) / (last - first))
        model = _MemoryModel(copies=copies, columns=(width - slope * last, slope))
        if slope < _FIXED_SLOPE:
            # A queue or prototypes: rows are cheap, and only many of them show what outgrows the tiles.
            many = min(n, _MOST_FIXED_COLUMN_ROWS)
            few = many // 2
            low, high = (measure(size) - model.peak(size, MEMORY_BUDGET) for size in (few, many))
            growth = (high - low) / (many - few)
            return replace(model, base=(low - growth * few, growth, 0.0))
    model = _with_base(model, _PROBE_SIZES, peaks)
    if slow or abs(model.peak(_CHECK_SIZE, MEMORY_BUDGET) / measure(_CHECK_SIZE) - 1.0) < _LARGEST_ERROR:
        return model
    # Blocks of its own making: large enough probes fill them, and what is left grows with the rows.
    peaks = [measure(size) for size in _LARGE_PROBE_SIZES]
    copies = (peaks[-1] - measure(_LARGE_PROBE_SIZES[-1], _LEAST_BUDGET)) / (MEMORY_BUDGET - _LEAST_BUDGET)
    return _with_base(_MemoryModel(copies=max(0.0, copies)), _LARGE_PROBE_SIZES, peaks)


def _tiles_at(measure: Callable[[int], float], peak: float) -> tuple[float, float]:
    """Bytes held for a byte of tile, and columns of the pair matrix, at one size; 0 and 0 without tiles.

    The budget is halved until it cuts the number of anchors a tile; a little less then shows what a row of it costs.
    """
    budget = _PROBE_BUDGET
    while (below := measure(budget)) > peak - _SEEN:
        budget //= 2
        if budget < _SEEN:
            return 0.0, 0.0
    smaller = budget * 3 // 4
    copies = (below - measure(smaller)) / (budget - smaller)
    if copies < _FEWEST_COPIES:
        return 0.0, 0.0
    return copies, (budget + (peak - below) / copies) / (_ROWS * _ITEM)


def _with_base(model: _MemoryModel, sizes: Sequence[int], peaks: Sequence[float]) -> _MemoryModel:
    """Line through first and last of what the tiles leave, or parabola where the growth itself clearly grows."""
    rest = [peak - model.peak(size, MEMORY_BUDGET) for size, peak in zip(sizes, peaks, strict=True)]
    first, second, third = sizes
    slope = (rest[2] - rest[0]) / (third - first)
    bend = ((rest[2] - rest[1]) / (third - second) - (rest[1] - rest[0]) / (second - first)) / (third - first)
    if bend * third * third < 0.2 * peaks[2]:
        base = (rest[2] - slope * third, slope, 0.0)
    else:
        linear = (rest[2] - rest[1]) / (third - second) - bend * (third + second)
        base = (rest[2] - linear * third - bend * third * third, linear, bend)
    return replace(model, base=base)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
