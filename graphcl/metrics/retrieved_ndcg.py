"""NDCG against the best order of the retrieved hits alone, as some published recommenders report it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["retrieved_ndcg"]


def retrieved_ndcg(
    ranks: Tensor,
    offsets: Tensor | npt.NDArray[np.integer[Any]] | None = None,
    *,
    ks: Sequence[int] = (10, 20),
    depth: int = 20,
) -> dict[str, float]:
    """Mean over queries of the DCG at k divided by the DCG of the query's own hits in the best order.

    The evaluation code of MMHCL, LATTICE and NGCF computes this under the name NDCG::

        NDCG_ref@k = sum_{r_i <= k} 1 / log2(1 + r_i)  /  sum_{i=1}^{min(H, k)} 1 / log2(1 + i)

    with H the hits among the first ``depth`` ranks. Relevant items that are not retrieved do not count, so it is never
    below NDCG, and equal to it where every query has one relevant item. Use it to compare with such numbers only.

    Args:
        ranks: ``[T]`` ranks of the targets, from 1.
        offsets: ``[N+1]`` of the targets of each query; by default every query has one.
        ks: cut-offs, at most ``depth``.
        depth: length of the list whose hits are counted.

    Returns:
        ``"NDCG_ref@k"`` to its mean over the queries with a target (0 for one without a hit); nan without any.

    Raises:
        ValueError: a cut-off outside ``1..depth``.

    Complexity:
        Time O(T log T), memory O(T).

    Example:
        >>> values = retrieved_ndcg(torch.tensor([2.0, 5.0, 13.0, 30.0]), torch.tensor([0, 4]), ks=[20])
        >>> round(values["NDCG_ref@20"], 6)
        0.60088
    """
    if any(not 1 <= k <= depth for k in ks):
        raise ValueError(f"ks must be cut-offs in 1..{depth}, got {list(ks)}")
    ranks = torch.as_tensor(ranks).double()
    starts = torch.arange(ranks.shape[0] + 1) if offsets is None else torch.as_tensor(offsets)
    starts = starts.to(ranks.device, torch.int64)
    relevant = starts.diff()
    rows = torch.repeat_interleave(torch.arange(relevant.shape[0], device=ranks.device), relevant)
    num_queries = relevant.shape[0]
    hits = torch.bincount(rows[ranks <= depth], minlength=num_queries)
    discounts = 1 / torch.log2(torch.arange(2, depth + 2, device=ranks.device, dtype=torch.float64))
    best = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
    means = {}
    for k in ks:
        gain = torch.zeros(num_queries, dtype=torch.float64, device=ranks.device)
        gain.index_add_(0, rows, torch.where(ranks <= k, 1 / torch.log2(1 + ranks), 0.0))
        values = torch.where(hits > 0, gain / best[hits.clamp(max=k)].clamp(min=1e-300), 0.0)[relevant > 0]
        means[f"NDCG_ref@{k}"] = float(values.mean()) if values.numel() else math.nan
    return means
