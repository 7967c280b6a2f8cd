"""Parts of queries and labels as a retriever sees them: cut, scaled, saved, read back, and drawn in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphcl.data import LabelledQueries, RetrievalData, SparseRows
from graphcl.data.retrieval import Features, take_rows
from graphcl.errors import InputError
from graphcl.models.dual_encoder import Bags, FeatureSpace, RetrievalBatch
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.retrieval_index import label_table, read_labels
from graphcl.pipelines.runs import RunFolder, write_by_rename

__all__ = ["LABELS", "QUERIES", "QueryBatches", "RetrievalParts", "space_of", "tensors_of"]

IntArray = NDArray[np.int64]

LABELS, QUERIES = "labels.parquet", "queries.safetensors"
_PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class RetrievalParts:
    """Queries of all three parts; features at length 1 where the settings say so.

    Attributes:
        data: with all three parts.
        split: how the parts came about, in words.
    """

    data: RetrievalData
    split: str

    @classmethod
    def of(cls, data: RetrievalData, valid_share: float, test_share: float, seed: int, unit: bool) -> RetrievalParts:
        """Set queries aside where the data have no test or validation part, at random.

        Raises:
            InputError: a part would be empty, or no training query has a label.
        """
        train, parts, said = data.train, {"test": data.test, "valid": data.valid}, []
        for name, share in (("test", test_share), ("valid", valid_share)):
            if parts[name] is not None:
                said.append(f"{name} as given")
                continue
            size = round(share * train.num_queries)
            if not 1 <= size < train.num_queries:
                raise InputError(
                    f"{train.num_queries} queries are too few to set a share of {share} aside as {name}",
                    f"give more queries, or {name} queries of their own", path=data.source,
                )  # fmt: skip
            order = np.random.default_rng([seed, 11 if name == "test" else 13]).permutation(train.num_queries)
            parts[name] = train.take(np.sort(order[:size]))
            train = train.take(np.sort(order[size:]))
            said.append(f"{name} {share:g} of the training queries at random")
        if not train.labels.columns.size:
            raise InputError("no training query has a label", "give queries with labels", path=data.source)
        whole = replace(data, train=train, valid=parts["valid"], test=parts["test"])
        return cls(_scaled(whole) if unit else whole, "; ".join(said))

    def part(self, name: str) -> LabelledQueries:
        """Queries of ``train``, ``valid`` or ``test``."""
        found = {"train": self.data.train, "valid": self.data.valid, "test": self.data.test}[name]
        if found is None:
            raise ValueError(f"the {name} queries have not been set aside")
        return found

    @cached_property
    def label_counts(self) -> IntArray:
        """``(L,)`` training queries of every label."""
        return np.bincount(self.data.train.labels.columns, minlength=self.data.num_labels)

    def write(self, folder: RunFolder) -> None:
        """Write queries, labels and their features."""
        write_by_rename(folder.path / LABELS, label_table(self.data.names()).write_parquet)
        tensors: dict[str, Tensor] = {}
        widths: dict[str, int] = {}
        for name in _PARTS:
            part = self.part(name)
            _pack(f"{name}.features", part.features, tensors, widths)
            _pack(f"{name}.labels", part.labels, tensors, widths)
        if self.data.label_features is not None:
            _pack("label.features", self.data.label_features, tensors, widths)
        save_tensors(
            folder.path / QUERIES, tensors, {"widths": widths, "split": self.split, "text_model": self.data.text_model}
        )

    @classmethod
    def read(cls, folder: RunFolder, source: str) -> RetrievalParts:
        """What :meth:`write` wrote.

        Raises:
            InputError: a file is damaged.
        """
        ids = read_labels(folder.path / LABELS)
        tensors, about = load_tensors(folder.path / QUERIES)
        try:
            widths = about["widths"]
            parts = []
            for name in _PARTS:
                labels = _unpack_sparse(f"{name}.labels", tensors, widths)
                parts.append(LabelledQueries(_unpack(f"{name}.features", tensors, widths), labels))
            known = any(name.startswith("label.features") for name in tensors)
            features = _unpack("label.features", tensors, widths) if known else None
            text_model = about.get("text_model")
            data = RetrievalData(
                parts[0], parts[2], parts[1], features, ids, source, None if text_model is None else str(text_model)
            )
            return cls(data, str(about["split"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "holds no queries", "restore the file or train again", path=folder.path / QUERIES
            ) from error


@dataclass(frozen=True)
class QueryBatches:
    """Training queries with a label in random order, as an epoch source of :func:`graphcl.pipelines.training.train`.

    Args:
        queries: the training part.
        batch_size: queries a step.
        seed: of the run.
    """

    queries: LabelledQueries
    batch_size: int
    seed: int

    @cached_property
    def rows(self) -> IntArray:
        """Queries that have a label."""
        found: IntArray = np.flatnonzero(self.queries.labels.sizes)
        return found

    @property
    def num_targets(self) -> int:
        """Queries an epoch."""
        return int(self.rows.size)

    def batches(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[RetrievalBatch]:
        """The steps of an epoch; of each, the share of one of several processes."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        for start in range(0, order.size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            if chosen.size < world:
                return  # every process needs a query
            part = self.queries.take(chosen[rank::world])
            yield RetrievalBatch(
                tensors_of(part.features),
                torch.from_numpy(part.labels.offsets),
                torch.from_numpy(part.labels.columns),
                chosen.size / world,
                starts_epoch=start == 0,
            )


def space_of(features: Features) -> FeatureSpace:
    """What a tower must know of features."""
    if isinstance(features, SparseRows):
        return FeatureSpace(features.width, True)
    return FeatureSpace(int(features.shape[1]), False)


def tensors_of(features: Features) -> Bags | Tensor:
    """Features as a tower takes them."""
    if isinstance(features, SparseRows):
        return Bags(*(torch.from_numpy(part) for part in (features.offsets, features.columns, features.values)))
    return torch.from_numpy(np.ascontiguousarray(features))


def unit_rows(features: Features) -> Features:
    """Features with rows of length 1; rows of zeros stay zero."""
    if isinstance(features, SparseRows):
        return features.unit_rows()
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (features / np.where(length > 0, length, 1.0)).astype(np.float32)
    return scaled


def chunks_of(features: Features, total: int, size: int) -> Iterator[Bags | Tensor]:
    """Features, so many rows at a time."""
    for start in range(0, total, size):
        yield tensors_of(take_rows(features, np.arange(start, min(start + size, total))))


def _scaled(data: RetrievalData) -> RetrievalData:
    def scaled(part: LabelledQueries | None) -> LabelledQueries | None:
        return None if part is None else LabelledQueries(unit_rows(part.features), part.labels)

    train = LabelledQueries(unit_rows(data.train.features), data.train.labels)
    labels = None if data.label_features is None else unit_rows(data.label_features)
    return replace(data, train=train, valid=scaled(data.valid), test=scaled(data.test), label_features=labels)


def _pack(name: str, rows: Features, tensors: dict[str, Tensor], widths: dict[str, int]) -> None:
    if isinstance(rows, SparseRows):
        widths[name] = rows.width
        for part in ("offsets", "columns", "values"):
            tensors[f"{name}.{part}"] = torch.from_numpy(getattr(rows, part))
    else:
        tensors[f"{name}.dense"] = torch.from_numpy(np.ascontiguousarray(rows))


def _unpack(name: str, tensors: dict[str, Tensor], widths: dict[str, int]) -> Features:
    if f"{name}.dense" in tensors:
        dense: NDArray[np.float32] = tensors[f"{name}.dense"].numpy()
        return dense
    return _unpack_sparse(name, tensors, widths)


def _unpack_sparse(name: str, tensors: dict[str, Tensor], widths: dict[str, int]) -> SparseRows:
    offsets, columns, values = (tensors[f"{name}.{part}"].numpy() for part in ("offsets", "columns", "values"))
    return SparseRows(offsets, columns, values, int(widths[name]))
