"""Graphs in NumPy archives: the npz of gnn-benchmark and PyG, and a zip of dense arrays. Nothing is unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.data.graph_files import in_file, npz_array, open_npz
from graphcl.errors import InputError

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["features_of_npz", "is_graph_npz", "labels_of_npz", "read_graph_npz", "read_graph_zip"]

_ADJACENCY = ("adj_", "adj_matrix.")
_LABELS = ("labels", "label", "y")
_FEATURES = ("x", "features", "feat", "attr_matrix", "embeddings", "arr_0")


def read_graph_npz(path: Path) -> Data:
    """A graph, or vectors with or without labels, from one npz file.

    Three layouts are known by their names: compressed rows as gnn-benchmark writes them (``adj_data``, ``adj_indices``,
    ``adj_indptr``, ``adj_shape``, likewise ``attr_*`` or ``attr_matrix``, and ``labels``; also with the prefixes
    ``adj_matrix.`` and ``attr_matrix.``), an ``edge_index`` (2, E) with ``x`` and ``y``, and a matrix ``x`` alone,
    whose nearest neighbours become the edges. Names of nodes, attributes and classes are not read.

    Args:
        path: the file.

    Returns:
        ``Data``; edges undirected and unique, without self-loops.

    Raises:
        InputError: the file is damaged, fits no layout, or holds a pickled object where an array is needed.

    Complexity:
        O(N f + E); for vectors alone that of `graphcl.graphs.knn_graph`.
    """
    arrays = open_npz(path)
    features = features_of_npz(arrays, path)
    labels = labels_of_npz(arrays, path)
    prefix = next((prefix for prefix in _ADJACENCY if f"{prefix}indices" in arrays), None)
    if prefix is not None:
        edges: Any = _csr(arrays, prefix, path)
    elif "edge_index" in arrays:
        edges = torch.from_numpy(np.ascontiguousarray(npz_array(arrays, "edge_index", path)))
    elif features is not None:
        return in_file(path, features, None, labels)
    else:
        raise InputError(
            f"no graph and no vectors are in it, only {', '.join(sorted(arrays)) or 'nothing'}",
            "give adj_data, adj_indices, adj_indptr, adj_shape and attr_*, or edge_index and x, or x",
            path=path,
        )
    return in_file(path, edges, features, labels, undirected=True)


def read_graph_zip(path: Path) -> Data:
    """A graph from a zip that holds ``*_adj.npy`` (dense), ``*_feat.npy`` and ``*_label.npy``.

    The layout of the clustering benchmark https://github.com/yueliu1999/Awesome-Deep-Graph-Clustering.

    Args:
        path: the file.

    Returns:
        ``Data``; edges undirected and unique, without self-loops.

    Raises:
        InputError: the file is damaged or an array is missing.

    Complexity:
        O(N^2), as the file.
    """
    from scipy.sparse import csr_array

    parts: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                part = next((part for part in ("adj", "feat", "label") if name.endswith(f"{part}.npy")), None)
                if part is not None:
                    with archive.open(name) as file:
                        parts[part] = np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise InputError(f"it is damaged: {error}", "copy or download it again", path=path) from error
    missing = [part for part in ("adj", "feat") if part not in parts]
    if missing:
        raise InputError(f"there is no *_{missing[0]}.npy in it", "give *_adj.npy, *_feat.npy, *_label.npy", path=path)
    if parts["adj"].ndim != 2:
        raise InputError(f"its adjacency has shape {parts['adj'].shape}", "give a square matrix", path=path)
    return in_file(path, csr_array(parts["adj"]), parts["feat"], parts.get("label"), undirected=True)


def is_graph_npz(arrays: Mapping[str, Any]) -> bool:
    """Whether an npz file holds edges, by the names of its arrays.

    Example:
        >>> is_graph_npz({"x": [[1.0]]})
        False
    """
    return "edge_index" in arrays or any(f"{prefix}indices" in arrays for prefix in _ADJACENCY)


def labels_of_npz(arrays: Mapping[str, Any], path: Path) -> NDArray[Any] | None:
    """Labels among the arrays of an npz file, by their usual names; None without any.

    Args:
        arrays: what `open_npz` returned.
        path: the file, for messages.

    Returns:
        The array.

    Raises:
        InputError: it cannot be read.

    Complexity:
        O(N).
    """
    return next((npz_array(arrays, name, path) for name in _LABELS if name in arrays), None)


def features_of_npz(arrays: Mapping[str, Any], path: Path) -> Any:
    """Features among the arrays of an npz file, by their usual names; None without any.

    Args:
        arrays: what `open_npz` returned.
        path: the file, for messages.

    Returns:
        NumPy or SciPy array.

    Raises:
        InputError: they cannot be read, or parts of a sparse matrix are missing.

    Complexity:
        O(N f).
    """
    for prefix in ("attr_", "attr_matrix.", "x_"):
        if f"{prefix}indices" in arrays:
            return _csr(arrays, prefix, path)
    return next((npz_array(arrays, name, path) for name in _FEATURES if name in arrays), None)


def _csr(arrays: Mapping[str, Any], prefix: str, path: Path) -> Any:
    from scipy.sparse import csr_array

    names = [f"{prefix}{part}" for part in ("data", "indices", "indptr", "shape")]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"the array {missing[0]} is missing", "write all four parts of the matrix", path=path)
    data, indices, indptr, shape = (npz_array(arrays, name, path) for name in names)
    try:
        height, width = (int(size) for size in shape)
        matrix = csr_array((data, indices, indptr), shape=(height, width))
        matrix.check_format(full_check=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{prefix}*: {error}", "write the parts of one matrix", path=path) from error
    return matrix
