"""How well bundles are completed without training: by popularity, by neighbours of items, by pooled vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graphcl.data import Bundles, PartialBundles
from graphcl.metrics import rank_of_targets, ranking_metrics
from graphcl.metrics.ranking import rank_of_targets_by_score

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# What item vectors are made of -> parts, side by side.
POOLED = {"feedback vectors": ("feedback",), "features": ("features",), "both": ("feedback", "features")}

__all__ = ["POOLED", "bundle_baselines", "by_neighbours", "by_pooling", "item_neighbours", "pooled_items"]


def bundle_baselines(bundles: Bundles, partial: PartialBundles, ks: Sequence[int]) -> list[dict[str, Any]]:
    """Metrics of methods without training on the bundles that a model is measured on.

    ``popularity``: by training bundles. ``item-kNN``: an item scores the sum of its cosines, over training bundles,
    with the shown items; with feedback, users count as further bundles. ``mean pooling``: cosine with the mean vector
    of the shown items, for the feedback vectors, for the features, and for both side by side.

    Args:
        bundles: training bundles and what is known of the items.
        partial: what is shown and what is to be found.
        ks: cut-offs.

    Returns:
        One record each: ``name`` and ``metrics``.

    Complexity:
        O(I^2) at worst for the neighbours, O(n I d) for the rest.

    Example:
        >>> from graphcl.data import synthetic_bundles
        >>> made = synthetic_bundles(50, 60, 20, styles=5)
        >>> [entry["name"] for entry in bundle_baselines(made, made.partial("test"), [5])][:2]
        ['popularity', 'item-kNN']
    """
    named: list[tuple[str, Any]] = [("popularity", None), ("item-kNN", item_neighbours(bundles))]
    if bundles.log is not None and bundles.log.num_interactions:
        named.append(("item-kNN, bundles and feedback", item_neighbours(bundles, feedback=True)))
    records = []
    for name, similar in named:
        records.append({"name": name, "metrics": by_neighbours(bundles, partial, similar, ks)})
    for name, kinds in POOLED.items():
        vectors = pooled_items(bundles, kinds)
        if vectors is not None:
            records.append({"name": f"mean pooling, {name}", "metrics": by_pooling(vectors, partial, ks)})
    return records


def item_neighbours(bundles: Bundles, *, feedback: bool = False, neighbours: int | None = None) -> csr_array:
    """Cosine of items over the training bundles that hold them; 0 with itself.

    Args:
        bundles: training bundles.
        feedback: count users of the log as further bundles.
        neighbours: keep so many a row; all when None.

    Returns:
        ``(I, I)``.

    Complexity:
        O(sum over bundles of n^2).
    """
    from scipy.sparse import csr_array

    offsets, items = bundles.training
    owner = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    if feedback and bundles.log is not None:
        owner = np.concatenate([owner, bundles.log.user + offsets.size])
        items = np.concatenate([items, bundles.log.item])
    shape = (int(owner.max()) + 1, bundles.num_items)
    held = csr_array((np.ones(items.size), (owner, items)), shape=shape)
    held.data[:] = 1.0  # an item counts once a bundle
    length = np.sqrt(np.maximum(np.asarray(held.sum(axis=0)), 1.0)).ravel()
    scaled = csr_array(held / length[None, :])
    similar = csr_array(scaled.T @ scaled)
    similar.setdiag(0.0)
    similar.eliminate_zeros()
    return similar if neighbours is None else _nearest(similar, neighbours)


def _nearest(similar: csr_array, neighbours: int) -> csr_array:
    from scipy.sparse import csr_array

    rows = np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr))
    order = np.lexsort((-similar.data, rows))
    place = np.arange(rows.size) - np.repeat(similar.indptr[:-1], np.diff(similar.indptr))
    kept = order[place < neighbours]
    return csr_array((similar.data[kept], (rows[kept], similar.indices[kept])), shape=similar.shape)


def pooled_items(bundles: Bundles, kinds: Sequence[str]) -> Tensor | None:
    """Unit vectors of items from feedback vectors, features or both side by side; None where there are none."""
    parts = []
    if "feedback" in kinds and bundles.vectors is not None:
        parts.append(torch.from_numpy(bundles.vectors))
    elif "feedback" in kinds:
        return None
    if "features" in kinds and bundles.features is not None:
        parts += [torch.from_numpy(table) for table in bundles.features.vectors.values()]
    if not parts or ("features" in kinds and len(parts) == ("feedback" in kinds)):
        return None
    units = [torch.nn.functional.normalize(part.float(), dim=1) for part in parts]
    return torch.nn.functional.normalize(torch.cat(units, dim=1), dim=1)


def by_pooling(vectors: Tensor, partial: PartialBundles, ks: Sequence[int]) -> Mapping[str, float]:
    """Metrics of the cosine with the mean vector of the shown items."""
    offsets, items = (torch.from_numpy(part) for part in partial.shown)
    owner = torch.arange(offsets.shape[0] - 1).repeat_interleave(offsets.diff())
    queries = vectors.new_zeros(offsets.shape[0] - 1, vectors.shape[1]).index_add_(0, owner, vectors[items])
    ranks = rank_of_targets(queries, vectors, partial.hidden, exclude=partial.shown, ties="mean")
    return ranking_metrics(ranks, partial.hidden[0], ks=ks).to_dict()


def by_neighbours(
    bundles: Bundles, partial: PartialBundles, similar: csr_array | None, ks: Sequence[int]
) -> Mapping[str, float]:
    """Metrics of the sum of similarities with the shown items; of popularity where there are none."""
    from scipy.sparse import csr_array

    offsets, items = partial.shown
    popular = np.bincount(bundles.training[1], minlength=bundles.num_items).astype(np.float64)
    shown = csr_array((np.ones(items.size), items, offsets), shape=(offsets.size - 1, bundles.num_items))

    def score(rows: slice, columns: slice) -> Tensor:
        if similar is None:
            height = len(range(*rows.indices(shown.shape[0])))
            return torch.from_numpy(np.tile(popular[columns], (height, 1)))
        return torch.from_numpy(np.ascontiguousarray((shown[rows] @ similar).toarray()[:, columns]))

    ranks = rank_of_targets_by_score(score, shown.shape, partial.hidden, exclude=partial.shown, ties="mean")
    return ranking_metrics(ranks, partial.hidden[0], ks=ks).to_dict()
