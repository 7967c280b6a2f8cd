"""Views of item sequences: crop, mask, reorder, substitute, insert, repeat, and their time-aware variants.

A batch of sequences is a table ``items`` of shape (B, L), right-padded, and ``lengths`` of shape (B,). Every operator
works on whole tables on the device they are on, draws from a generator, returns new tables of the integer types given
and leaves its arguments as they are. The lengths come from the operator: a masked item may have id 0, so they cannot be
read off the ids. A length that its row cannot have would invent items; it is refused, which takes one pass over the
lengths and on CUDA waits for them.

With ``times`` (B, L) the places are chosen by the gaps between successive interactions instead of uniformly, after
Dang et al., "Uniform Sequence Better: Time Interval Aware Data Augmentation for Sequential Recommendation", 2023,
https://arxiv.org/abs/2212.08262: crop and reorder take the window whose gaps vary least, mask, substitute, insert and
repeat the items after the longest gaps (the first item of a sequence has gap 0). Ties are broken at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "SequenceOperator",
    "SequenceView",
    "crop_items",
    "draw_operators",
    "insert_items",
    "mask_items",
    "reorder_items",
    "repeat_items",
    "substitute_items",
    "two_views",
]


class SequenceView(NamedTuple):
    """Right-padded items ``(B, L)``, 0 where padded, and their lengths ``(B,)``."""

    items: Tensor
    lengths: Tensor


#: Makes a view of every sequence of a batch.
SequenceOperator = Callable[[Tensor, Tensor], SequenceView]


def crop_items(
    items: Tensor,
    lengths: Tensor,
    ratio: float,
    *,
    times: Tensor | None = None,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SequenceView:
    r"""Keep a contiguous window of every sequence, moved to the front.

    X. Xie et al., "Contrastive Learning for Sequential Recommendation", 2022, https://arxiv.org/abs/2010.14395.

    .. math:: k = \max(1, \lfloor l (1 - r) \rfloor), \qquad \text{start} \sim U\{0, \dots, l - k\}

    Args:
        items: ``(B, L)`` ids, int64 or int32, 0 where padded.
        lengths: ``(B,)`` items of each sequence, int64 or int32, in 0 .. L.
        ratio: share r of a sequence that is cut away, in [0, 1); papers name the share that stays, 1 - r.
        times: ``(B, L)`` non-decreasing times; then the window whose gaps vary least is kept.
        start: ``(B,)`` first item of each window, instead of a draw.
        generator: source of randomness, on the device of the items; torch's own when None.

    Returns:
        The windows, as wide as ``items``.

    Raises:
        ValueError: for shapes that do not fit or values outside their range.
        TypeError: for tensors of another type.

    Complexity: O(B L); with times O(B L log L).

    >>> crop_items(torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([4]), 0.5, start=torch.tensor([1])).items
    tensor([[2, 3, 0, 0, 0]])
    """
    place = _check(items, lengths, times)
    _check_share("ratio", ratio, below_one=True)
    kept = _share(lengths, 1.0 - ratio).clamp(min=1).minimum(lengths)
    start = _window_start(lengths, kept, times, start, generator)
    moved = items.gather(1, (place + start[:, None]).clamp(max=items.shape[1] - 1))
    return SequenceView(moved.masked_fill(place >= kept[:, None], 0), kept.to(lengths.dtype))


def mask_items(
    items: Tensor,
    lengths: Tensor,
    ratio: float,
    mask_id: int = 0,
    *,
    times: Tensor | None = None,
    chosen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SequenceView:
    r"""Replace exactly :math:`\lfloor l r \rfloor` distinct items of every sequence by one id.

    X. Xie et al., "Contrastive Learning for Sequential Recommendation", 2022, https://arxiv.org/abs/2010.14395.

    Args:
        items, lengths, times, generator: as in `crop_items`; with times the items after the longest gaps are masked.
        ratio: share r of a sequence that is masked, in [0, 1].
        mask_id: the id that takes their place: a token of its own, or 0, which encoders hide as a key.
        chosen: ``(B, L)`` bool, the places, instead of a draw; padding stays.

    Returns:
        The masked sequences, of the same lengths.

    Raises:
        ValueError, TypeError: as `crop_items`.

    Complexity: O(B L log L).

    >>> where = torch.tensor([[True, False, False]])
    >>> mask_items(torch.tensor([[1, 2, 0]]), torch.tensor([2]), 0.5, 9, chosen=where).items
    tensor([[9, 2, 0]])
    """
    place = _check(items, lengths, times)
    _check_share("ratio", ratio)
    if chosen is None:
        chosen = _choose_places(items, lengths, _share(lengths, ratio), times, generator)
    elif chosen.dtype != torch.bool:
        raise TypeError(f"chosen must be bool, got dtype {chosen.dtype}")
    else:
        _check_shape("chosen", chosen, items.shape)
        chosen = chosen & (place < lengths[:, None])
    return SequenceView(items.masked_fill(chosen, mask_id), lengths)


def reorder_items(
    items: Tensor,
    lengths: Tensor,
    ratio: float,
    *,
    times: Tensor | None = None,
    start: Tensor | None = None,
    permutation: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SequenceView:
    r"""Shuffle a window of :math:`k = \lfloor l r \rfloor` successive items of every sequence, uniformly.

    X. Xie et al., "Contrastive Learning for Sequential Recommendation", 2022, https://arxiv.org/abs/2010.14395.

    Args:
        items, lengths, times, generator: as in `crop_items`; with times the window whose gaps vary least is shuffled.
        ratio: share r of a sequence that is shuffled, in [0, 1].
        start: ``(B,)`` first place of each window, instead of a draw.
        permutation: ``(B, L)``; place i of the window takes the item of its place ``permutation[i]``, for i < k;
            instead of a draw.

    Returns:
        The sequences in their new order, of the same lengths.

    Raises:
        ValueError, TypeError: as `crop_items`.

    Complexity: O(B L log L).

    >>> order, first = torch.tensor([[1, 0, 0]]), torch.tensor([1])
    >>> reorder_items(torch.tensor([[1, 2, 3]]), torch.tensor([3]), 0.7, start=first, permutation=order).items
    tensor([[1, 3, 2]])
    """
    place = _check(items, lengths, times)
    _check_share("ratio", ratio)
    size = _share(lengths, ratio)[:, None]
    first = _window_start(lengths, size[:, 0], times, start, generator)[:, None]
    inside = (place >= first) & (place < first + size)
    if permutation is not None:
        _check_shape("permutation", permutation, items.shape)
        _check_integers("permutation", permutation)
        if bool((torch.where(place < size, permutation, place).sort(1).values != place).any()):
            raise ValueError("permutation must hold 0 .. k - 1 once each in the first k places of every row")
        within = permutation.gather(1, (place - first).clamp(min=0))
        source = torch.where(inside, first + within, place)
    else:
        # Inside the window keys are uniform between those of its neighbours, so sorting shuffles it and nothing else.
        keys = place.double().expand(items.shape)
        drawn = first + size * _uniform(items, generator)
        source = torch.where(inside, drawn, keys).argsort(dim=1, stable=True)
    return SequenceView(items.gather(1, source), lengths)


def substitute_items(
    items: Tensor,
    lengths: Tensor,
    neighbours: Tensor,
    rate: float,
    *,
    exact: bool = False,
    times: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SequenceView:
    r"""Replace items by one of their neighbours, drawn uniformly.

    Z. Liu et al., "Contrastive Self-supervised Sequential Recommendation with Robust Augmentation", 2021,
    https://arxiv.org/abs/2108.06479; by semantic neighbours: Z. Cui et al., "Semantic Retrieval Augmented Contrastive
    Learning for Sequential Recommendation", 2025, https://arxiv.org/abs/2503.04162.

    Args:
        items, lengths, generator: as in `crop_items`.
        neighbours: ``(V + 1, K)`` ids, int64 or int32, those of item i in row i, filled up with 0; K at least 1. An
            item without any stays.
        rate: probability that an item is replaced, in [0, 1].
        exact: replace exactly :math:`\lfloor l \cdot rate \rfloor` items of each sequence instead.
        times: ``(B, L)``; replaces the items after the longest gaps, ``exact`` only.

    Returns:
        The new sequences, of the same lengths.

    Raises:
        ValueError, TypeError: as `crop_items`, and for times without ``exact``.

    Complexity: O(B L), with ``exact`` O(B L log L).

    >>> table = torch.tensor([[0], [3], [0], [1]])
    >>> substitute_items(torch.tensor([[1, 2, 3, 0]]), torch.tensor([3]), table, 1.0).items
    tensor([[3, 2, 1, 0]])
    """
    place = _check(items, lengths, times)
    _check_share("rate", rate)
    _check_neighbours(neighbours)
    if exact:
        chosen = _choose_places(items, lengths, _share(lengths, rate), times, generator)
    elif times is not None:
        raise ValueError("times choose a number of places: give exact=True with them")
    else:
        chosen = (_uniform(items, generator) < rate) & (place < lengths[:, None])
    drawn = _draw_neighbours(items, neighbours, generator)
    return SequenceView(torch.where(chosen & (drawn > 0), drawn, items), lengths)


def insert_items(
    items: Tensor,
    lengths: Tensor,
    neighbours: Tensor,
    ratio: float,
    *,
    max_length: int | None = None,
    times: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SequenceView:
    r"""Put a neighbour in front of :math:`\lfloor l r \rfloor` distinct items of every sequence.

    Z. Liu et al., "Contrastive Self-supervised Sequential Recommendation with Robust Augmentation", 2021,
    https://arxiv.org/abs/2108.06479.

    Args:
        items, lengths, generator: as in `crop_items`.
        neighbours: ``(V + 1, K)``, as in `substitute_items`; nothing is put before an item without any.
        ratio: inserted items a given one, in [0, 1].
        max_length: keep the last so many items, at least 1; the width of ``items`` when None.
        times: ``(B, L)``; inserts into the longest gaps.

    Returns:
        The longer sequences, ``max_length`` wide at most.

    Raises:
        ValueError, TypeError: as `crop_items`.

    Complexity: O(B L log L).

    >>> table = torch.tensor([[0], [3], [0], [1]])
    >>> insert_items(torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([3]), table, 1.0)
    SequenceView(items=tensor([[3, 1, 2, 1, 3]]), lengths=tensor([5]))
    """
    _check(items, lengths, times)
    _check_share("ratio", ratio)
    _check_neighbours(neighbours)
    drawn = _draw_neighbours(items, neighbours, generator)
    chosen = _choose_places(items, lengths, _share(lengths, ratio), times, generator) & (drawn > 0)
    return _with_insertions(items, lengths, chosen, drawn, max_length)


def repeat_items(
    items: Tensor,
    lengths: Tensor,
    ratio: float,
    *,
    max_length: int | None = None,
    times: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SequenceView:
    r"""Say :math:`\lfloor l r \rfloor` distinct items of every sequence twice in a row.

    X. Wu et al., "ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised Sentence
    Embedding", 2021, https://arxiv.org/abs/2109.04380 (repeated words; here items).

    Args:
        items, lengths, max_length, generator: as in `insert_items`.
        ratio: repeated items a given one, in [0, 1].
        times: ``(B, L)``; repeats the items after the longest gaps.

    Returns:
        The longer sequences, ``max_length`` wide at most.

    Raises:
        ValueError, TypeError: as `crop_items`.

    Complexity: O(B L log L).

    >>> repeat_items(torch.tensor([[1, 2, 0, 0]]), torch.tensor([2]), 1.0)
    SequenceView(items=tensor([[1, 1, 2, 2]]), lengths=tensor([4]))
    """
    _check(items, lengths, times)
    _check_share("ratio", ratio)
    chosen = _choose_places(items, lengths, _share(lengths, ratio), times, generator)
    return _with_insertions(items, lengths, chosen, items, max_length)


def draw_operators(
    num_rows: int,
    num_operators: int,
    *,
    distinct: bool = True,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Two operators for every row, uniformly over the ordered pairs.

    Args:
        num_rows: B, at least 0.
        num_operators: how many there are to choose from, at least 1.
        distinct: never the same one twice (where there are two).
        device: of the result and of the generator.
        generator: source of randomness.

    Returns:
        ``(B, 2)`` numbers from 0.

    Raises:
        ValueError: without operators, or for a negative number of rows.

    Complexity: O(B).

    >>> pairs = draw_operators(100, 3, generator=torch.Generator().manual_seed(0))
    >>> bool((pairs[:, 0] != pairs[:, 1]).all())
    True
    """
    if num_operators < 1:
        raise ValueError("there must be at least one operator")
    if num_rows < 0:
        raise ValueError(f"num_rows must be at least 0, got {num_rows}")
    first = torch.randint(num_operators, (num_rows,), device=device, generator=generator)
    if not distinct or num_operators == 1:
        second = torch.randint(num_operators, (num_rows,), device=device, generator=generator)
    else:
        step = torch.randint(1, num_operators, (num_rows,), device=device, generator=generator)
        second = (first + step) % num_operators
    return torch.stack([first, second], 1)


def two_views(
    items: Tensor,
    lengths: Tensor,
    operators: Sequence[SequenceOperator],
    *,
    distinct: bool = True,
    chosen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[SequenceView, SequenceView]:
    """Two views of every sequence, each by an operator of its own.

    Args:
        items, lengths, generator: as in `crop_items`.
        operators: take (items, lengths) and give a `SequenceView`, for instance partial applications of this module's.
        distinct: the two operators of a sequence differ.
        chosen: ``(B, 2)`` numbers of the operators, instead of a draw.

    Returns:
        The first and the second view of every sequence.

    Raises:
        ValueError, TypeError: without operators, for numbers that no operator has, and as the operators.

    Complexity: every operator runs twice on the whole batch.

    >>> keep_first = lambda items, lengths: crop_items(items, lengths, 0.5, start=torch.zeros_like(lengths))
    >>> one, other = two_views(torch.tensor([[1, 2]]), torch.tensor([2]), [keep_first])
    >>> one.items.tolist(), other.lengths.tolist()
    ([[1, 0]], [1])
    """
    if chosen is None:
        chosen = draw_operators(
            items.shape[0], len(operators), distinct=distinct, device=items.device, generator=generator
        )
    elif not operators:
        raise ValueError("there must be at least one operator")
    else:
        _check_shape("chosen", chosen, (items.shape[0], 2))
        _check_integers("chosen", chosen, len(operators) - 1, "the numbers of the operators")
    return _mixed(items, lengths, operators, chosen[:, 0]), _mixed(items, lengths, operators, chosen[:, 1])


def _mixed(items: Tensor, lengths: Tensor, operators: Sequence[SequenceOperator], chosen: Tensor) -> SequenceView:
    made = [operator(items, lengths) for operator in operators]
    width = max(view.items.shape[1] for view in made)
    ids = items.new_zeros(items.shape[0], width)
    counts = torch.zeros_like(lengths)
    for number, view in enumerate(made):
        own = chosen == number
        part = view.items.shape[1]
        ids[:, :part] = torch.where(own[:, None], view.items, ids[:, :part])
        counts = torch.where(own, view.lengths, counts)
    return SequenceView(ids, counts)


def _check(items: Tensor, lengths: Tensor, times: Tensor | None) -> Tensor:
    """Refuse tables and lengths that do not fit; returns the places ``(1, L)``."""
    if items.dim() != 2 or lengths.shape != items.shape[:1]:
        raise ValueError(f"items must be (B, L) and lengths (B,), got {tuple(items.shape)} and {tuple(lengths.shape)}")
    _check_integers("items", items)
    _check_integers("lengths", lengths, items.shape[1], "the width of items")
    if times is not None:
        _check_shape("times", times, items.shape)
    return torch.arange(items.shape[1], device=items.device)[None]


def _check_share(name: str, share: float, *, below_one: bool = False) -> None:
    if not (0.0 <= share < 1.0 or (share == 1.0 and not below_one)):
        raise ValueError(f"{name} must be in [0, 1{')' if below_one else ']'}, got {share}")


def _check_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    if value.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got shape {tuple(value.shape)}")


def _check_integers(name: str, value: Tensor, most: Tensor | int | None = None, meaning: str = "") -> None:
    """Refuse other types and, with ``most``, values outside 0 .. most; reading values waits for a CUDA device."""
    if value.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 or int32, got dtype {value.dtype}")
    if most is None:
        return
    outside = (value < 0) | (value > most)
    if bool(outside.any()):
        bound = int(most[outside][0]) if isinstance(most, Tensor) else most
        raise ValueError(f"{name} must be in 0 .. {bound}, {meaning}, got {int(value[outside][0])}")


def _check_neighbours(neighbours: Tensor) -> None:
    if neighbours.dim() != 2 or neighbours.numel() == 0:
        raise ValueError(f"neighbours must be (V + 1, K) with K at least 1, got {tuple(neighbours.shape)}")
    _check_integers("neighbours", neighbours)


def _share(lengths: Tensor, ratio: float) -> Tensor:
    """floor(l * ratio), in double precision as Python computes it."""
    return (lengths.double() * ratio).floor().long()


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, dtype=torch.float64, device=like.device, generator=generator)


def _gaps(times: Tensor) -> Tensor:
    """Time since the item before; 0 for the first of a sequence."""
    return torch.diff(times.double(), dim=1, prepend=times[:, :1].double())


def _window_start(
    lengths: Tensor, size: Tensor, times: Tensor | None, given: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """First place of a window in every row: as given, drawn uniformly, or where the gaps inside vary least."""
    last = lengths - size
    if given is not None:
        _check_shape("start", given, lengths.shape)
        _check_integers("start", given, last, "the last first place of a window in its row")
        return given
    if times is None or times.shape[1] == 0:
        drawn = _uniform(lengths, generator)
        return (drawn * (last + 1)).floor().long()
    width = times.shape[1]
    place = torch.arange(width, device=times.device)[None]
    gap = _gaps(times).masked_fill(place >= lengths[:, None], 0.0)
    # Sums over the gaps between the window's items: those of the places start + 1 .. start + size - 1.
    sums, squares = (torch.nn.functional.pad(part.cumsum(1), (1, 0)) for part in (gap, gap**2))
    end = (place + size[:, None]).clamp(max=width)
    begin = (place + 1).minimum(end)
    count = (end - begin).clamp(min=1)
    mean = (sums.gather(1, end) - sums.gather(1, begin)) / count
    variance = ((squares.gather(1, end) - squares.gather(1, begin)) / count - mean**2).clamp(min=0.0)
    # The difference of two sums leaves rounding errors; windows that close count as equally even.
    scale = squares[:, -1:].clamp(min=torch.finfo(torch.float64).tiny)
    variance = (variance / scale * 2.0**40).round().masked_fill(place > last[:, None], torch.inf)
    tied = variance == variance.amin(1, keepdim=True)
    return torch.where(tied, _uniform(times, generator), -1.0).argmax(1)


def _choose_places(
    items: Tensor, lengths: Tensor, count: Tensor, times: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """``(B, L)`` bool: ``count`` distinct places of each sequence, uniformly or those after the longest gaps."""
    place = torch.arange(items.shape[1], device=items.device)[None]
    keys = _uniform(items, generator).masked_fill(place >= lengths[:, None], 2.0)
    order = keys.argsort(1)
    if times is not None:
        gap = _gaps(times).masked_fill(place >= lengths[:, None], -torch.inf)
        order = order.gather(1, gap.gather(1, order).argsort(dim=1, descending=True, stable=True))
    taken = (place < count[:, None]).expand(items.shape)
    return torch.zeros_like(items, dtype=torch.bool).scatter(1, order, taken)


def _draw_neighbours(items: Tensor, neighbours: Tensor, generator: torch.Generator | None) -> Tensor:
    """One neighbour of every item, 0 where it has none (also for ids beyond the table, such as a mask token)."""
    known = items.clamp(0, neighbours.shape[0] - 1)
    rows = neighbours[known]
    number = (rows > 0).sum(-1)
    pick = (_uniform(items, generator) * number).floor().long()
    drawn = rows.gather(-1, pick[..., None])[..., 0]
    return drawn.masked_fill((number == 0) | (known != items) | (items == 0), 0).to(items.dtype)


def _with_insertions(
    items: Tensor, lengths: Tensor, chosen: Tensor, inserted: Tensor, most: int | None
) -> SequenceView:
    """Put ``inserted`` before the chosen places, and keep the last ``most`` items, the width of ``items`` when None."""
    num_rows, width = items.shape
    if most is None:
        most = width
    elif most < 1:
        raise ValueError(f"max_length must be at least 1, got {most}")
    place = torch.arange(width, device=items.device)[None]
    target = place + chosen.cumsum(1)
    longer = items.new_zeros(num_rows, 2 * width + 1)
    spare = 2 * width  # padding and places without an insertion write here
    longer.scatter_(1, torch.where(place < lengths[:, None], target, spare), items)
    longer.scatter_(1, torch.where(chosen, target - 1, spare), inserted)
    total = lengths + chosen.sum(1)
    kept = total.clamp(max=most)
    view = torch.arange(min(most, 2 * width), device=items.device)[None]
    source = (view + (total - kept)[:, None]).clamp(max=spare - 1)
    return SequenceView(longer.gather(1, source).masked_fill(view >= kept[:, None], 0), kept.to(lengths.dtype))
