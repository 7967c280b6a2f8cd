"""Parts of a log of events, the entities that training knows, anomalies put into a part, and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.data import Events, IdMap
from graphcl.errors import InputError
from graphcl.models.ape import EventBatch
from graphcl.pipelines.runs import RunFolder, write_by_rename
from graphcl.pipelines.saved_splits import id_map_of, id_table, read_table

__all__ = ["ENTITIES", "EVENTS", "EventBatches", "EventParts", "inject_anomalies"]

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ENTITIES, EVENTS = "entities.parquet", "events.parquet"
TRAIN, VALID, TEST = 0, 1, 2
_PARTS = {"valid": VALID, "test": TEST}


@dataclass(frozen=True, eq=False)
class EventParts:
    """A log cut by time, in codes of the entities that its training part knows.

    Attributes:
        columns: the entity types.
        ids: external ids of the training entities of each type.
        codes: ``(E, m)``, -1 for entities that training does not know.
        part: ``(E,)`` 0 training, 1 validation, 2 test.
        label: ``(E,)`` known anomalies, None where nobody said.
        source: where the log came from.
    """

    columns: tuple[str, ...]
    ids: tuple[IdMap, ...]
    codes: IntArray
    part: NDArray[np.uint8]
    label: BoolArray | None
    source: str

    @classmethod
    def of(cls, events: Events, valid_share: float, test_share: float) -> EventParts:
        """Cut a log: the first events are for training, the last for the test.

        Raises:
            InputError: a part would be empty.
        """
        size = events.num_events
        test, valid = round(test_share * size), round(valid_share * size)
        if min(size - test - valid, test, valid) < 1:
            raise InputError(f"{size} events cannot be cut into three parts", "give more events", path=events.source)
        part = np.full(size, TRAIN, dtype=np.uint8)
        part[size - test - valid :] = VALID
        part[size - test :] = TEST
        ids = tuple(
            IdMap(known.to_external(np.unique(events.codes[part == TRAIN, position])))
            for position, known in enumerate(events.ids)
        )
        return cls(events.columns, ids, events.recoded(ids), part, events.label, events.source)

    def rows(self, split: str) -> IntArray:
        """Rows of ``train``, ``valid`` or ``test``."""
        return np.flatnonzero(self.part == _PARTS.get(split, TRAIN))

    @cached_property
    def training(self) -> IntArray:
        """``(E_train, m)``."""
        known: IntArray = self.codes[self.part == TRAIN]
        return known

    def counts(self) -> list[NDArray[np.int64]]:
        """How often each training entity occurs, one vector a type."""
        return [np.bincount(self.training[:, i], minlength=len(ids)) for i, ids in enumerate(self.ids)]

    def content_hash(self) -> str:
        """A hash of codes, parts, labels and ids."""
        digest = hashlib.sha256(repr(self.columns).encode())
        digest.update(self.codes.tobytes() + self.part.tobytes())
        if self.label is not None:
            digest.update(self.label.tobytes())
        for ids in self.ids:
            digest.update("\n".join(map(str, ids.external.tolist())).encode())
        return digest.hexdigest()

    def write(self, folder: RunFolder) -> None:
        """Write the entities and the events."""
        import polars as pl

        tables = [id_table(name, ids) for name, ids in zip(self.columns, self.ids, strict=True)]
        write_by_rename(folder.path / ENTITIES, pl.concat(tables).write_parquet)
        data: dict[str, Any] = {f"code_{i}": self.codes[:, i] for i in range(len(self.columns))}
        data["part"] = self.part
        if self.label is not None:
            data["label"] = self.label
        write_by_rename(folder.path / EVENTS, pl.DataFrame(data).write_parquet)

    @classmethod
    def read(cls, folder: RunFolder, source: str) -> EventParts:
        """What :meth:`write` wrote.

        Raises:
            InputError: a file is damaged.
        """
        ids = read_table(folder.path / ENTITIES, ("role", "id", "kind"))
        columns = tuple(ids["role"].unique(maintain_order=True).to_list())
        table = read_table(folder.path / EVENTS, (*(f"code_{i}" for i in range(len(columns))), "part"))
        codes = np.stack([table[f"code_{i}"].to_numpy() for i in range(len(columns))], axis=1).astype(np.int64)
        maps = tuple(id_map_of(ids, name) for name in columns)
        if codes.size and (codes.max(axis=0) >= [len(known) for known in maps]).any():
            raise InputError("the saved events do not fit the saved entities", "train again", path=folder.path)
        label = table["label"].to_numpy() if "label" in table.columns else None
        return cls(columns, maps, codes, table["part"].to_numpy().astype(np.uint8), label, source)


def inject_anomalies(
    codes: IntArray, probabilities: list[NDArray[np.float64]], rate: float, seed: int
) -> tuple[IntArray, BoolArray]:
    """Replace one entity of some events by another one of its type, drawn by frequency.

    Args:
        codes: ``(E, m)`` events, -1 for unknown entities.
        probabilities: frequencies of the entities of each type.
        rate: share of the events that are changed; one at least.
        seed: of the draws.

    Returns:
        The events with the changes, and which of them were changed. A draw that hits the entity itself is moved on to
        the next one, so that every anomaly differs from its event; types with one entity are never changed.

    Complexity: O(E m + anomalies log A).
    """
    generator = np.random.default_rng([seed, 7])
    types = [position for position, shares in enumerate(probabilities) if shares.size > 1]
    changed, label = codes.copy(), np.zeros(codes.shape[0], dtype=np.bool_)
    if not types:
        return changed, label
    rows = generator.choice(codes.shape[0], max(1, round(rate * codes.shape[0])), replace=False)
    kinds = generator.choice(types, rows.size)
    for position in types:
        at = rows[kinds == position]
        drawn = generator.choice(probabilities[position].size, at.size, p=probabilities[position])
        same = drawn == codes[at, position]
        changed[at, position] = np.where(same, (drawn + 1) % probabilities[position].size, drawn)
    label[rows] = True
    return changed, label


@dataclass(frozen=True)
class EventBatches:
    """Training events in random order, as an epoch source of :func:`graphcl.pipelines.training.train`.

    Args:
        codes: ``(E, m)`` training events.
        batch_size: events a step.
        seed: of the run.
    """

    codes: IntArray
    batch_size: int
    seed: int

    @property
    def num_targets(self) -> int:
        """Events an epoch."""
        return int(self.codes.shape[0])

    def batches(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[EventBatch]:
        """The steps of an epoch; of each, the share of one of several processes."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.codes.shape[0])
        for start in range(0, order.size, self.batch_size):
            rows = order[start : start + self.batch_size]
            if rows.size < world:
                return  # every process needs an event
            yield EventBatch(torch.from_numpy(self.codes[rows[rank::world]]), rows.size / world)
