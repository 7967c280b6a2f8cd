"""Losses over the batch of all processes."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from graphcl.losses.composition import Sum
from graphcl.losses.layout import ROWS, Joined, Layout
from graphcl.losses.protocol import Loss, LossOutput

__all__ = ["Distributed", "gather_rows"]


class Distributed(nn.Module):
    r"""A loss over the batches of all processes, put together in the order of the ranks.

    Every rank gathers the rows of all ranks (embeddings, ids, labels, weights, pairs) and evaluates the loss on the
    whole batch. Value, state and the gradients of the parameters of the loss are then those of one process, on every
    rank. The gradient of a gathered row is the sum over ranks of what they want of it, so an embedding receives
    ``world_size`` times its gradient in one process, and **gradients of an encoder that are averaged over ranks, as
    DistributedDataParallel does, are those of one process**. Parameters inside the loss (a learned temperature) have
    the same gradient on every rank: averaging them changes nothing, and leaving them out of
    DistributedDataParallel does no harm. For any other convention scale the gradients, not the loss.

    This is exact for every loss, with negatives, neighbours, batch statistics, codes or queues over the whole batch,
    because nothing but the layout of the arguments is known of it. The price: every rank holds O(N d) rows of the whole
    batch and does all of its pairs. ``split_anchors`` shares the pairs among the ranks where a loss allows that.

    Batches may have different sizes, an empty one too. With one process, or without a process group, this is the loss
    itself. A memory (`FeatureQueue`, `PerSampleState`, ...) that is equal on all ranks at the start stays equal: every
    rank writes the rows of all of them. Where the loss draws random numbers, the generators of all ranks must be
    in the same state; if the loss takes a ``generator`` and none is given, rank 0 draws a seed for all.

    Args:
        loss: a `Loss`. The mixture `Sum` is not taken: wrap the losses of its terms instead.
        layouts: argument name to `graphcl.losses.layout.Layout`, for arguments that are not as the loss declares in its
            ``argument_layout``. What neither names is `ROWS`: a tensor has one row for every sample of this rank. A
            table or a queue that is the same on every rank must be named `SHARED`.
        split_anchors: every rank takes its own rows as anchors, against the candidates of all ranks: a
            ``world_size``-th of the pairs, the same value and the same averaged gradients. Only losses that are a plain
            mean over all anchors and name their ``candidate_arguments`` have it (InfoNCE in one direction, NTXent),
            without ``keys`` and ``weight``. Parameters inside the loss then must be averaged like those of the encoder.
        group: process group; all processes by default.

    Raises:
        TypeError: ``loss`` is a `Sum` or not callable.
        ValueError: a layout for an argument that the loss does not have, ``split_anchors`` with a loss that cannot, or
            (on every rank) arguments that do not fit those of other ranks.

    Complexity: that of the loss on N rows in all; communication O(N d) forward and as much backward.

    >>> import torch
    >>> from graphcl.losses import NTXent
    >>> loss = Distributed(NTXent(temperature=1.0))
    >>> loss(torch.eye(3), torch.eye(3))  # no process group: the loss itself
    tensor(0.9048)
    """

    def __init__(
        self,
        loss: Loss,
        *,
        layouts: Mapping[str, Layout] | None = None,
        split_anchors: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"loss must be callable, got {type(loss).__name__}")
        if isinstance(loss, Sum):
            raise TypeError("loss must not be a Sum; wrap the losses of its terms: Term(Distributed(loss), ...)")
        self.loss = loss
        self.group = group
        self.split_anchors = split_anchors
        self._signature = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss)
        declared: Mapping[str, Layout] = getattr(loss, "argument_layout", {})
        self.layouts = {**declared, **(layouts or {})}
        if split_anchors:
            _check_splittable(loss)
        parameters = self._signature.parameters.values()
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        unknown = sorted(self.layouts.keys() - self._signature.parameters.keys())
        if unknown and not open_ended:
            raise ValueError(
                f"layouts must name arguments of the loss ({', '.join(self._signature.parameters)}), "
                f"got {', '.join(unknown)}"
            )

    def forward(self, *inputs: Any, **options: Any) -> LossOutput:
        if _world_size(self.group) == 1:
            return self.loss(*inputs, **options)
        bound = self._signature.bind(*inputs, **options)
        named = self._flat(bound)
        joined, sizes = _joined(named, {name: self.layouts.get(name, ROWS) for name in named}, self.group)
        if self.split_anchors:
            return self._own_anchors(named, joined, sizes)
        if "generator" in self._signature.parameters and joined.get("generator") is None:
            joined["generator"] = _common_generator(named, self.group)
        whole = self._rebound(bound, joined)
        return self.loss(*whole.args, **whole.kwargs)

    def _flat(self, bound: inspect.BoundArguments) -> dict[str, Any]:
        """Arguments by name, those of ``**options`` too."""
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            else:
                named[name] = value
        return named

    def _rebound(self, bound: inspect.BoundArguments, named: Mapping[str, Any]) -> inspect.BoundArguments:
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD and name in bound.arguments:
                bound.arguments[name] = {key: named[key] for key in bound.arguments[name]}
            elif name in named:
                bound.arguments[name] = named[name]
        return bound

    def _own_anchors(
        self, own: Mapping[str, Any], joined: Mapping[str, Any], sizes: Mapping[str, Sequence[int]]
    ) -> LossOutput:
        """Mean over the anchors of this rank against candidates of all, so scaled that ranks average to the whole."""
        for name in ("keys", "key_ids", "weight"):
            if own.get(name) is not None:
                raise ValueError(f"split_anchors cannot be combined with {name}")
        names: tuple[str, ...] = self.loss.candidate_arguments  # type: ignore[attr-defined]
        counts = sizes[names[0]]
        rank = dist.get_rank(self.group)
        total, first = sum(counts), sum(counts[:rank])
        ids = joined.get("ids")
        if ids is None:
            ids = torch.arange(total, device=own[names[0]].device)
        arguments = {
            **own,
            "ids": ids[first : first + counts[rank]],
            "keys": torch.cat([joined[name] for name in names]),
            "key_ids": ids.repeat(len(names)),
        }
        value = self.loss(**arguments)
        if not isinstance(value, Tensor) or value.dim() != 0:
            raise ValueError("split_anchors needs a loss whose reduction is 'mean'")
        share = value * (counts[rank] / max(total, 1))
        whole = share.detach().clone()
        dist.all_reduce(whole, group=self.group)
        scaled = share * _world_size(self.group)
        return scaled + (whole - scaled.detach())

    def extra_repr(self) -> str:
        return f"layouts={self.layouts}, split_anchors={self.split_anchors}"


def gather_rows(rows: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """Rows of all ranks in the order of the ranks, with gradients, on every rank.

    For what is not the argument of a loss, such as rows for a `FeatureQueue` that must stay equal on all ranks.

    Args:
        rows: ``(N, ...)``; N may differ between ranks, the rest not.
        group: process group; all processes by default.

    Returns:
        ``(sum of N, ...)``; the rows themselves with one process. In backward a row receives the sum of its gradients
        on all ranks, and every rank must take part.

    Raises:
        ValueError: a number instead of rows, or (on every rank) rows that do not fit together.

    Complexity: O(rows) communication forward and backward.

    >>> import torch
    >>> gather_rows(torch.eye(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    if rows.dim() == 0:
        raise ValueError("rows must have at least one dimension, got a number")
    if _world_size(group) == 1:
        return rows
    joined: Tensor = _joined({"rows": rows}, {"rows": ROWS}, group)[0]["rows"]
    return joined


def _world_size(group: dist.ProcessGroup | None) -> int:
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def _check_splittable(loss: Loss) -> None:
    if not getattr(loss, "candidate_arguments", ()):
        raise ValueError(f"{type(loss).__name__} cannot split its anchors as it is set up; leave split_anchors out")
    options = getattr(loss, "options", {})
    if options.get("reduction", "mean") != "mean":
        raise ValueError(f"split_anchors needs reduction 'mean', got {options['reduction']!r}")


def _joined(
    named: Mapping[str, Any], layouts: Mapping[str, Layout], group: dist.ProcessGroup | None
) -> tuple[dict[str, Any], dict[str, Sequence[int]]]:
    """Arguments of the joined batch, and the rows that the joined ones have on every rank."""
    pieces = {name: layouts[name].take_apart(value, named) for name, value in named.items()}
    flat = [piece for name in pieces for piece in pieces[name]]
    if not flat:
        raise ValueError(f"no argument has rows to gather, got {', '.join(named) or 'none'}")
    rows = iter(_gather(flat, _description(named, pieces), group))
    parts = {name: [next(rows) for _ in pieces[name]] for name in pieces}
    sizes: dict[str, Sequence[int]] = {name: parts[name][0].sizes for name in parts if parts[name]}
    joined = {
        name: layouts[name].put_together(value, parts[name], named, sizes) if parts[name] else value
        for name, value in named.items()
    }
    return joined, sizes


def _gather(pieces: Sequence[Tensor], description: str, group: dist.ProcessGroup | None) -> list[Joined]:
    """Rows of every piece from all ranks; the ranks compare notes before any of them sends a row."""
    device = pieces[0].device
    notes = torch.tensor([zlib.crc32(description.encode())], device=device)
    for rank, other in enumerate(_exchange(notes, group)):
        if not torch.equal(other, notes):
            raise ValueError(
                f"the arguments of rank {rank} do not fit those of rank {dist.get_rank(group)}: {description}"
            )
    differentiable = [torch.is_grad_enabled() and piece.requires_grad for piece in pieces]
    local = torch.tensor([[len(piece) for piece in pieces], [int(needed) for needed in differentiable]], device=device)
    everywhere = torch.stack(_exchange(local, group)).tolist()
    sizes = [[counts[place] for counts, _ in everywhere] for place in range(len(pieces))]
    # A rank without gradients takes part in the backward of the others.
    needed = [any(flags[place] for _, flags in everywhere) for place in range(len(pieces))]
    sources = [
        piece if not needed[place] or piece.requires_grad else piece.detach().requires_grad_()
        for place, piece in enumerate(pieces)
    ]
    found: dict[int, Tensor] = {
        place: _all_rows(source.detach(), sizes[place], group)
        for place, source in enumerate(sources)
        if not needed[place]
    }
    together = [place for place in range(len(pieces)) if needed[place]]
    if together:
        # One node of the graph for all of them: backward talks in one order on every rank.
        counts = [sizes[place] for place in together]
        outputs = _GatherRows.apply(group, counts, *(sources[place] for place in together))  # type: ignore[no-untyped-call]
        found.update(zip(together, outputs, strict=True))
    return [Joined(found[place], sizes[place]) for place in range(len(pieces))]


class _GatherRows(torch.autograd.Function):
    """All-gather of several tensors; backward sums the gradients of all ranks and keeps those of the own rows."""

    @staticmethod
    def forward(
        ctx: Any, group: dist.ProcessGroup | None, sizes: list[list[int]], *pieces: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.group = group
        ctx.sizes = sizes
        return tuple(_all_rows(piece, counts, group) for piece, counts in zip(pieces, sizes, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rank = dist.get_rank(ctx.group)
        own: list[Tensor] = []
        for gradient, counts in zip(gradients, ctx.sizes, strict=True):
            # Sums of half precision lose digits with every rank.
            wide = torch.promote_types(gradient.dtype, torch.float32)
            total = gradient.to(wide, copy=True, memory_format=torch.contiguous_format)
            dist.all_reduce(total, group=ctx.group)
            own.append(total.narrow(0, sum(counts[:rank]), counts[rank]).to(gradient.dtype))
        return None, None, *own


def _all_rows(piece: Tensor, sizes: Sequence[int], group: dist.ProcessGroup | None) -> Tensor:
    """Rows of all ranks; shorter batches travel with padding."""
    longest = max(sizes)
    if longest == 0:
        return piece.clone()
    content = piece.to(torch.uint8) if piece.dtype == torch.bool else piece
    padded = content.new_zeros(longest, *piece.shape[1:])
    padded[: len(piece)] = content
    received = _exchange(padded, group)
    rows = torch.cat([block[:size] for block, size in zip(received, sizes, strict=True)])
    return rows.to(piece.dtype)


def _exchange(tensor: Tensor, group: dist.ProcessGroup | None) -> list[Tensor]:
    received = [torch.empty_like(tensor) for _ in range(_world_size(group))]
    dist.all_gather(received, tensor, group=group)
    return received


def _description(named: Mapping[str, Any], pieces: Mapping[str, Sequence[Tensor]]) -> str:
    """What must be the same on every rank: names, row shapes, dtypes, plain options, the states of generators."""
    words: list[str] = []
    for name in sorted(named):
        value = named[name]
        if pieces[name]:
            words.extend(f"{name} {piece.dtype} rows of shape {tuple(piece.shape[1:])}" for piece in pieces[name])
        elif isinstance(value, torch.Generator):
            words.append(f"{name} in state {zlib.crc32(value.get_state().numpy().tobytes())}")
        elif isinstance(value, bool | int | float | str):
            words.append(f"{name}={value!r}")
        elif isinstance(value, Tensor):
            words.append(f"{name} {value.dtype} of shape {tuple(value.shape)}")
        elif value is not None:
            words.append(f"{name} {type(value).__name__}")
    return ", ".join(words)


def _common_generator(named: Mapping[str, Any], group: dist.ProcessGroup | None) -> torch.Generator:
    """A generator with a seed that rank 0 draws."""
    device = next(piece.device for value in named.values() for piece in ROWS.take_apart(value, named))
    seed = torch.randint(2**62, (1,), device=device)
    return torch.Generator(device).manual_seed(int(_exchange(seed, group)[0]))
