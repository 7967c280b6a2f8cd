"""The index of a retriever: a vector and a name for every label, in two files, and exact search in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.errors import InputError
from graphcl.kernels import pair_topk
from graphcl.pipelines.checkpoints import load_tensors, save_tensors
from graphcl.pipelines.runs import make_folder, write_by_rename
from graphcl.pipelines.saved_splits import read_table

if TYPE_CHECKING:
    import polars

__all__ = ["INDEX", "RetrievalIndex", "label_table", "read_labels"]

FloatArray = NDArray[np.float32]
INDEX, _LABELS = "index.safetensors", "labels.parquet"


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """Labels ready to be searched by vector; the higher the inner product the better.

    Attributes:
        vectors: ``(L, d)`` float32.
        labels: ``(L,)`` external names, integers or text.
        similarity: ``cosine``, where all vectors and queries have length 1, or ``dot``.

    Example:
        >>> index = RetrievalIndex(np.eye(2, dtype=np.float32), np.array([7, 9]), "dot")
        >>> index.search(np.array([[0.0, 2.0]], dtype=np.float32), 1)[0].tolist()
        [[9]]
    """

    vectors: FloatArray
    labels: NDArray[Any]
    similarity: str

    def search(self, queries: FloatArray, k: int) -> tuple[NDArray[Any], FloatArray]:
        """The k best labels of every query vector, exactly; equal scores go to the lower position.

        Args:
            queries: ``(Q, d)``.
            k: labels a query, at most L.

        Returns:
            ``(Q, k)`` names and inner products, best first.

        Raises:
            ValueError: another width, or k outside ``1..L``.

        Complexity: O(Q L d) time, O(Q k) memory and a tile.
        """
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"queries must be (Q, {self.vectors.shape[1]}), got {queries.shape}")
        if not 1 <= k <= self.labels.size:
            raise ValueError(f"k must lie in 1..{self.labels.size}, got {k}")
        best = pair_topk(torch.from_numpy(np.ascontiguousarray(queries)), torch.from_numpy(self.vectors), k)
        return self.labels[best.indices.numpy()], best.values.numpy()

    def save(self, folder: str | Path) -> None:
        """Write ``index.safetensors`` (``vectors``; the similarity in its record) and ``labels.parquet`` (``label``).

        Raises:
            InputError: the place cannot be written.
        """
        place = Path(folder)
        make_folder(place)
        write_by_rename(place / _LABELS, label_table(self.labels).write_parquet)
        save_tensors(place / INDEX, {"vectors": torch.from_numpy(self.vectors)}, {"similarity": self.similarity})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read an index that :meth:`save` wrote; a run folder of a retriever holds one.

        Raises:
            InputError: a file is missing or damaged.
        """
        place = Path(folder)
        if not (place / INDEX).is_file():
            raise InputError("there is no such file", "give a folder with an index", path=place / INDEX)
        tensors, about = load_tensors(place / INDEX)
        labels = read_labels(place / _LABELS)
        vectors = tensors.get("vectors")
        if vectors is None or vectors.ndim != 2 or vectors.shape[0] != labels.size or "similarity" not in about:
            raise InputError("does not fit the labels beside it", "export the index again", path=place / INDEX)
        return cls(vectors.numpy(), labels, str(about["similarity"]))


def label_table(names: NDArray[Any]) -> polars.DataFrame:
    """Names of labels in order, as a table."""
    import polars as pl

    return pl.DataFrame({"label": pl.Series(names.tolist())})


def read_labels(path: Path) -> NDArray[Any]:
    """Names of labels in order.

    Raises:
        InputError: the file is missing or damaged.
    """
    names: NDArray[Any] = read_table(path, ("label",))["label"].to_numpy()
    return names
