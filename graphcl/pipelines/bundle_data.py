"""What a bundle model reads: tensors of the items, vectors from feedback, and how a run folder keeps them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graphcl.data import Bundles, IdMap, Interactions, ItemFeatures, Split
from graphcl.data.splits import TRAIN, VALID
from graphcl.errors import InputError
from graphcl.models import BundleInputs
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.runs import MANIFEST, RunFolder, write_by_rename
from graphcl.pipelines.saved_splits import IDS, id_map_of, id_table, read_table

__all__ = [
    "BUNDLES",
    "ITEMS",
    "bundle_inputs",
    "feedback_log",
    "feedback_vectors",
    "read_saved_bundles",
    "write_bundles",
]

BUNDLES = "bundles.parquet"
ITEMS = "item_inputs.safetensors"


def feedback_log(bundles: Bundles, *, with_bundles: bool) -> Interactions:
    """What feedback vectors are trained on: the users' interactions, and training bundles as further users if asked to.

    Args:
        bundles: with or without a log.
        with_bundles: add the training bundles.

    Returns:
        Interactions without times; perhaps none.

    Complexity: O(N).

    Example:
        >>> from graphcl.data import synthetic_bundles
        >>> made = synthetic_bundles(50, 60, 20, styles=5)
        >>> feedback_log(made, with_bundles=True).num_users - made.log.num_users
        35
    """
    users = np.empty(0, dtype=np.int64) if bundles.log is None else bundles.log.user
    items = np.empty(0, dtype=np.int64) if bundles.log is None else bundles.log.item
    count = 0 if bundles.log is None else bundles.log.num_users
    if with_bundles:
        offsets, held = bundles.training
        users = np.concatenate([users, count + np.repeat(np.arange(offsets.size - 1), np.diff(offsets))])
        items = np.concatenate([items, held])
        count += offsets.size - 1
    return Interactions(users, items, IdMap(np.arange(count)), bundles.item_ids)


def feedback_vectors(
    log: Interactions, *, width: int, epochs: int, seed: int, progress: bool
) -> npt.NDArray[np.float32]:
    """Item vectors of LightGCN, as CLHE takes them; a twentieth of the interactions chooses the epoch.

    Args:
        log: what :func:`feedback_log` gives; the catalogue is that of the bundles.
        width: of the vectors.
        epochs: most epochs.
        seed: of the training.
        progress: whether to show any.

    Returns:
        ``(I, width)``; rows of items without interaction are zero.

    Raises:
        InputError: a log that a recommender cannot be trained on.

    Complexity: that of `graphcl.pipelines.CollaborativeRecommender`.
    """
    from graphcl.pipelines.collaborative import CollaborativeRecommender

    held_out = np.random.default_rng(seed).random(log.num_interactions) < 0.05
    # A split keeps what is held out behind the rest of a user; without times the order of the rows is free.
    order = np.lexsort((held_out, log.user))
    rows = replace(log.take(order), time=None)
    part = np.where(held_out[order], VALID, TRAIN).astype(np.uint8)
    recommender = CollaborativeRecommender(
        "lightgcn",
        hidden=width,
        layers=2,
        # A softmax over all items gives vectors that pool far better than those of one negative a pair.
        objective="full_softmax",
        learning_rate=1e-2,
        epochs=epochs,
        patience=8,
        validate_every=4,
        seed=seed,
        progress=progress,
        accelerator="cpu",
    )
    recommender.fit(Split(rows, part, "a twentieth at random for validation"))
    vectors = recommender.embed("items").vectors
    met = np.zeros(log.num_items, dtype=np.bool_)
    met[log.item] = True
    return vectors * met[:, None]


def bundle_inputs(bundles: Bundles, *, widest: int) -> BundleInputs:
    """The tensors that a model reads.

    Args:
        bundles: with feedback vectors in ``vectors`` where there is feedback.
        widest: features of more columns are projected onto so many principal directions.

    Returns:
        Features with what is missing, feedback vectors and which items are cold.

    Complexity: O(I D^2 + D^3) for features that are projected.
    """
    features, missing = {}, {}
    if bundles.features is not None:
        for name, table in bundles.features.vectors.items():
            features[name] = _narrow(torch.from_numpy(table), widest)
            missing[name] = torch.from_numpy(~bundles.features.present[name])
    if bundles.vectors is None:
        return BundleInputs(bundles.num_items, features, missing)
    vectors = torch.from_numpy(bundles.vectors)
    return BundleInputs(bundles.num_items, features, missing, vectors, vectors.abs().sum(1) == 0)


def _narrow(rows: torch.Tensor, widest: int) -> torch.Tensor:
    if rows.shape[1] <= widest:
        return rows
    wide = torch.nn.functional.normalize(rows, dim=1).double()
    directions = torch.linalg.eigh(wide.T @ wide)[1][:, -widest:]
    # The sign of a direction is arbitrary; fix it, so that a run can be repeated elsewhere.
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    projected: torch.Tensor = (wide @ (directions * largest.sign())).float()
    return projected


def write_bundles(folder: RunFolder, bundles: Bundles) -> None:
    """Write ids, bundles with parts and what is shown, and what is known of the items."""
    import polars as pl

    table = bundles.table
    ids = pl.concat([id_table("bundle", table.user_ids), id_table("item", table.item_ids)])
    write_by_rename(folder.path / IDS, ids.write_parquet)
    rows = pl.DataFrame(
        {"bundle": table.user, "item": table.item, "part": bundles.part[table.user], "shown": bundles.shown}
    )
    write_by_rename(folder.path / BUNDLES, rows.write_parquet)
    tensors: dict[str, torch.Tensor] = {"empty": torch.zeros(0)}
    if bundles.features is not None:
        for name, vectors in bundles.features.vectors.items():
            tensors[f"features.{name}"] = torch.from_numpy(vectors)
            tensors[f"present.{name}"] = torch.from_numpy(bundles.features.present[name])
    if bundles.vectors is not None:
        tensors["vectors"] = torch.from_numpy(bundles.vectors)
    if bundles.log is not None:
        tensors["log"] = torch.from_numpy(np.stack([bundles.log.user, bundles.log.item]))
    save_tensors(
        folder.path / ITEMS, tensors, {"modalities": [*(bundles.features.vectors if bundles.features else ())]}
    )


def read_saved_bundles(folder: RunFolder) -> Bundles:
    """The bundles that a run was trained on, as :func:`write_bundles` wrote them.

    Raises:
        InputError: when a file is damaged.
    """
    ids = read_table(folder.path / IDS, ("role", "id", "kind"))
    rows = read_table(folder.path / BUNDLES, ("bundle", "item", "part", "shown"))
    tensors, about = load_tensors(folder.path / ITEMS)
    protocol = folder.read_json(MANIFEST).get("data", {}).get("split", "")
    try:
        bundle_ids, item_ids = id_map_of(ids, "bundle"), id_map_of(ids, "item")
        bundle = rows["bundle"].to_numpy().astype(np.int64)
        table = Interactions(bundle, rows["item"].to_numpy().astype(np.int64), bundle_ids, item_ids)
        part = np.zeros(len(bundle_ids), dtype=np.uint8)
        part[bundle] = rows["part"].to_numpy()
        known: dict[str, Any] = {}
        if about["modalities"]:
            vectors = {name: tensors[f"features.{name}"].numpy() for name in about["modalities"]}
            present = {name: tensors[f"present.{name}"].numpy() for name in about["modalities"]}
            known["features"] = ItemFeatures(item_ids, vectors, present)
        if "vectors" in tensors:
            known["vectors"] = tensors["vectors"].numpy()
        if "log" in tensors:
            user, item = tensors["log"].numpy()
            users = IdMap(np.arange(int(user.max()) + 1 if user.size else 0))
            known["log"] = Interactions(user, item, users, item_ids)
        return Bundles(table, part, rows["shown"].to_numpy(), protocol=str(protocol), **known)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"the saved bundles do not fit together ({error})", "train again", path=folder.path) from error
