"""Arrays of files, never unpickled, and graphs of them with the file named in every error."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphcl.errors import InputError, located
from graphcl.graphs.conversion import adjacency, as_data

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["in_file", "load_array", "npz_array", "open_npz", "sparse_of_npz"]


def in_file(path: Path, edges: Any, features: Any, labels: Any, *, undirected: bool = False, **options: Any) -> Data:
    """`graphcl.graphs.as_data` with the name of the file in its errors.

    Args:
        path: the file.
        edges: source of `as_data`.
        features: likewise.
        labels: likewise.
        undirected: give every edge both directions once, and drop self-loops.
        **options: of `as_data`.

    Returns:
        ``Data``.

    Raises:
        InputError: as `as_data`, with the path.

    Complexity:
        That of `as_data`.
    """
    try:
        data = as_data(edges, features, labels, **options)
    except InputError as error:
        if error.path is not None:
            raise
        raise located(error, path) from error
    if undirected:
        data.edge_index, weight = adjacency(data).to_edge_index()
        if weight is not None:
            data.edge_weight = weight
    return data


def open_npz(path: Path) -> Mapping[str, Any]:
    """An npz file as a mapping of lazily read arrays; pickled objects in it are refused when they are read.

    Args:
        path: the file.

    Returns:
        Name -> array.

    Raises:
        InputError: it is no npz file.

    Complexity:
        O(1).
    """
    try:
        opened = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError("there is no such file", "check the path", path=path) from error
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"it is no npz file: {error}", "write it with numpy.savez", path=path) from error
    if isinstance(opened, np.ndarray):
        # A plain npy array under the name of an npz file.
        return {"arr_0": opened}
    archive: Mapping[str, Any] = opened
    return archive


def load_array(path: Path) -> NDArray[Any]:
    """The array of an npy file.

    Args:
        path: the file; an array of objects is refused, as reading it would run code.

    Returns:
        The array.

    Raises:
        InputError: it is missing, damaged or holds objects.

    Complexity:
        O(bytes).
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError("there is no such file", "check the path", path=path) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"it is no array of numbers or texts: {error}", "write it with numpy.save", path=path
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError("it holds several arrays, not one", "write it with numpy.save", path=path)
    return array


def sparse_of_npz(path: Path) -> Any:
    """A SciPy matrix of an npz file that `scipy.sparse.save_npz` wrote; a dense one where it is a plain array.

    Args:
        path: the file; its contents decide, not its name.

    Returns:
        SciPy array in compressed rows, or NumPy array.

    Raises:
        InputError: it is missing, damaged or holds neither.

    Complexity:
        O(entries).
    """
    from scipy.sparse import csr_array, load_npz

    arrays = open_npz(path)
    if isinstance(arrays, dict):
        return npz_array(arrays, "arr_0", path)
    try:
        return csr_array(load_npz(path))
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"it holds no sparse matrix: {error}", "write it with scipy.sparse.save_npz", path=path
        ) from error


def npz_array(arrays: Mapping[str, Any], name: str, path: Path) -> NDArray[Any]:
    """An array of an opened npz file.

    Args:
        arrays: what `open_npz` returned.
        name: one of its names.
        path: the file, for the message.

    Returns:
        The array.

    Raises:
        InputError: it is damaged or holds pickled objects.

    Complexity:
        O(bytes).
    """
    try:
        array: NDArray[Any] = arrays[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"the array {name} cannot be read: {error}", "write numbers, not objects", path=path
        ) from error
    return array
