"""Cases of sequence augmentation with scripted draws."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphcl.views import SequenceView, crop_items, mask_items, reorder_items, two_views
from replay_cases.registry import Case, case


@case("crop_mask_reorder")
def crop_mask_reorder(one: Case) -> Mapping[str, Any]:
    computed: dict[str, Any] = {}
    if "examples" in one.expected:
        computed["examples"] = [{**example, **views_of(example)} for example in one.expected["examples"]]
    for key, counts in one.expected.items():
        shortest = re.fullmatch(r"counts_for_length_(\d+)_to_(\d+)", key)
        if shortest:
            first, last = (int(number) for number in shortest.groups())
            computed[key] = {ratio: counts_of(float(ratio), first, last) for ratio in counts}
    return computed


def counts_of(ratio: float, first: int, last: int) -> list[int]:
    """How many items are masked in sequences of these lengths."""
    lengths = torch.arange(first, last + 1)
    items = (torch.arange(last) < lengths[:, None]).long()
    counts: list[int] = (mask_items(items, lengths, ratio, 2).items == 2).sum(1).tolist()
    return counts


def views_of(example: Mapping[str, Any]) -> dict[str, Any]:
    """The views of one example with the draws that it scripts."""
    items, lengths = torch.tensor([example["seq"]]), torch.tensor([example["length"]])
    ratios = example["ratios_crop_mask_reorder"]
    draws = iter(example["draws_in_order"])
    chosen = next(draws, ("sample", [0, 1]))[1]
    views = [with_draws(int(number), ratios, items, lengths, draws) for number in chosen]
    return {
        **{f"view{place}": view.items[0] for place, view in enumerate(views, 1)},
        **{f"len{place}": int(view.lengths) for place, view in enumerate(views, 1)},
    }


def with_draws(
    number: int, ratios: Sequence[float], items: Tensor, lengths: Tensor, draws: Iterator[Any]
) -> SequenceView:
    """One operator with the next draws; a sequence of one item is drawn nothing for."""

    def drawn(default: Any) -> Any:
        return next(draws, (None, default))[1]

    width = items.shape[1]
    if number == 0:
        operator = partial(crop_items, ratio=ratios[0], start=torch.tensor([drawn(0)]))
    elif number == 1:
        chosen = torch.zeros_like(items, dtype=torch.bool)
        chosen[0, drawn([])] = True
        operator = partial(mask_items, ratio=ratios[1], chosen=chosen)
    else:
        start, order = drawn(0), drawn([])
        whole = torch.arange(width)[None].clone()
        whole[0, : len(order)] = torch.tensor(order, dtype=torch.int64)
        operator = partial(reorder_items, ratio=ratios[2], start=torch.tensor([start]), permutation=whole)
    # Through the public pair of views, with the operator in both places.
    return two_views(items, lengths, [operator], distinct=False)[0]
