"""Planetoid citation graphs from their raw files, without unpickling anything but arrays, dictionaries and lists."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.errors import InputError, located
from graphcl.graphs.conversion import adjacency

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["PLANETOID_PARTS", "read_planetoid", "read_planetoid_array"]

PLANETOID_PARTS: Final = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
_VALIDATION_NODES = 500
# A dense matrix of so many numbers takes 8 GB; the largest Planetoid graph has a fiftieth of it.
_MOST_CELLS = 2**31
_REMEDY = "use the files ind.* of kimiyoung/planetoid"
# Element types that the raw bytes of an array may have.
_DTYPES: Final = frozenset(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)) | {"f4", "f8", "b1"}


def read_planetoid(paths: Mapping[str, Path]) -> Data:
    """A citation graph of Planetoid with its public split.

    Yang, Cohen, Salakhutdinov 2016, https://arxiv.org/abs/1603.08861. The order of nodes is the standard one: row k of
    ``tx`` is node ``test.index[k]``. Test nodes that the files leave out (15 in Citeseer) have no feature and, as
    everywhere in the literature, class 0. Edges are made undirected and unique, self-loops are dropped.

    Args:
        paths: file of each part: x, tx, allx, y, ty, ally, graph, test.index.

    Returns:
        ``Data`` with ``x``, ``edge_index`` in both directions, ``y`` and ``train_mask`` (the rows of x), ``val_mask``
        (the next 500) and ``test_mask``.

    Raises:
        InputError: a part is missing or damaged, holds anything but arrays and plain containers (which is never
            executed), or the parts do not fit each other.

    Complexity:
        O(N f + E).

    Example:
        >>> read_planetoid({})
        Traceback (most recent call last):
        graphcl.errors.InputError: the part 'x' is missing; use the files ind.* of kimiyoung/planetoid
    """
    from torch_geometric.data import Data

    missing = [part for part in PLANETOID_PARTS if part not in paths]
    if missing:
        raise InputError(f"the part {missing[0]!r} is missing", _REMEDY)
    allx, tx, ally, ty, y = (read_planetoid_array(paths[part]) for part in ("allx", "tx", "ally", "ty", "y"))
    test = _test_index(paths["test.index"])
    if tx.shape[0] != test.size or ty.shape[0] != test.size or allx.shape[0] != ally.shape[0]:
        raise InputError(
            f"{tx.shape[0]} rows of tx, {ty.shape[0]} of ty, {test.size} test nodes, {allx.shape[0]} rows of allx and "
            f"{ally.shape[0]} of ally do not fit each other",
            _REMEDY,
            path=paths["test.index"],
        )
    if tx.shape[1] != allx.shape[1] or ty.shape[1] != ally.shape[1]:
        raise InputError(
            f"tx has {tx.shape[1]} columns and allx {allx.shape[1]}, ty has {ty.shape[1]} and ally {ally.shape[1]}",
            _REMEDY,
            path=paths["tx"],
        )
    num_nodes = max(allx.shape[0], int(test.max()) + 1)
    x, one_hot = _joined(allx, tx, test, num_nodes), _joined(ally, ty, test, num_nodes)
    links = _links(paths["graph"], num_nodes)
    edge_index, _ = adjacency(links, num_nodes).to_edge_index()
    data = Data(x=torch.from_numpy(x), edge_index=edge_index, y=torch.from_numpy(one_hot.argmax(axis=1)))
    numbers = torch.arange(num_nodes)
    data.train_mask = numbers < y.shape[0]
    data.val_mask = (numbers >= y.shape[0]) & (numbers < y.shape[0] + _VALIDATION_NODES)
    data.test_mask = torch.zeros(num_nodes, dtype=torch.bool)
    data.test_mask[torch.from_numpy(test)] = True
    return data


def read_planetoid_array(path: Path) -> NDArray[np.float32]:
    """A pickled NumPy array or SciPy matrix of Planetoid, dense, without running any code of the pickle.

    Args:
        path: the file.

    Returns:
        ``(rows, columns)`` float32.

    Raises:
        InputError: the file is no such pickle, or asks for anything but an array.

    Complexity:
        O(rows x columns).
    """
    content = _unpickle(path)
    if isinstance(content, _Csr):
        dense = content.to_dense(path)
    elif isinstance(content, _Array):
        dense = content.to_numpy(path)
    else:
        raise InputError(f"it holds a {type(content).__name__}, not a matrix", _REMEDY, path=path)
    if dense.ndim != 2:
        raise InputError(f"it holds an array of shape {dense.shape}, not a matrix", _REMEDY, path=path)
    return dense.astype(np.float32)


def _joined(
    head: NDArray[np.float32], tail: NDArray[np.float32], test: NDArray[np.int64], num_nodes: int
) -> NDArray[np.float32]:
    joined = np.zeros((num_nodes, head.shape[1]), dtype=np.float32)
    joined[: head.shape[0]] = head
    joined[test] = tail
    return joined


def _test_index(path: Path) -> NDArray[np.int64]:
    numbers = []
    for row, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            if not line.strip().isdecimal():
                raise InputError(f"{line.strip()[:40]!r} is no node number", _REMEDY, path=path, row=row)
            numbers.append(int(line))
    if not numbers:
        raise InputError("it names no test node", _REMEDY, path=path)
    return np.array(numbers, dtype=np.int64)


def _links(path: Path, num_nodes: int) -> torch.Tensor:
    graph = _unpickle(path)
    if not isinstance(graph, dict) or not all(isinstance(ends, list) for ends in graph.values()):
        raise InputError("it holds no dictionary of neighbour lists", _REMEDY, path=path)
    counts = [len(ends) for ends in graph.values()]
    try:
        source = np.repeat(np.fromiter(graph.keys(), dtype=np.int64, count=len(graph)), counts)
        target = np.fromiter((end for ends in graph.values() for end in ends), dtype=np.int64, count=sum(counts))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"it holds a node that is no number: {error}", _REMEDY, path=path) from error
    for ends in (source, target):
        if ends.size and (ends.min() < 0 or ends.max() >= num_nodes):
            raise InputError(
                f"it names node {ends.max() if ends.min() >= 0 else ends.min()}, but there are {num_nodes} nodes",
                _REMEDY,
                path=path,
            )
    return torch.from_numpy(np.stack([source, target]))


def _unpickle(path: Path) -> Any:
    """Content of a pickle that needs no code but the classes below. Anything else is refused before it is called."""
    try:
        with path.open("rb") as file:
            # Python 2 wrote these files: its byte strings come as latin-1 text and keep every byte.
            return _ArrayUnpickler(file, encoding="latin1").load()
    except InputError as error:
        raise located(error, path) from error
    except FileNotFoundError as error:
        raise InputError("there is no such file", _REMEDY, path=path) from error
    # What a damaged pickle raises depends on the byte that is wrong.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"it is no Planetoid file: {str(error)[:80]}", _REMEDY, path=path) from error
    except (ImportError, OverflowError, MemoryError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"it is no Planetoid file: {str(error)[:80]}", _REMEDY, path=path) from error


class _Dtype:
    """State of a pickled ``numpy.dtype``: its code and its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def to_numpy(self) -> np.dtype[Any]:
        if self.code not in _DTYPES or self.order not in ("<", ">", "=", "|"):
            raise InputError(f"it holds an array of {self.code!r}, not of numbers", _REMEDY)
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """State of a pickled ``numpy.ndarray``: its raw bytes, made into an array by `numpy.frombuffer` alone."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def to_numpy(self, path: Path) -> NDArray[Any]:
        try:
            _, shape, dtype, fortran, raw = self.state
            kind = dtype.to_numpy()
            flat = np.frombuffer(raw if isinstance(raw, bytes) else raw.encode("latin1"), dtype=kind)
            return flat.reshape(tuple(int(size) for size in shape), order="F" if fortran else "C")
        except InputError as error:
            raise located(error, path) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"it holds a damaged array: {str(error)[:80]}", _REMEDY, path=path) from error


class _Csr:
    """State of a pickled ``scipy.sparse.csr_matrix``: the dictionary of its arrays."""

    def __init__(self, *_: object) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def to_dense(self, path: Path) -> NDArray[Any]:
        from scipy.sparse import csr_array

        try:
            parts = [self.state[name].to_numpy(path) for name in ("data", "indices", "indptr")]
            height, width = (int(size) for size in self.state["_shape"])
            matrix = csr_array(tuple(parts), shape=(height, width))
            matrix.check_format(full_check=True)
            if height * width > _MOST_CELLS:
                raise InputError(f"it says it has {height} x {width} cells", _REMEDY, path=path)
            dense: NDArray[Any] = matrix.toarray()
            return dense
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"it holds a damaged matrix: {str(error)[:80]}", _REMEDY, path=path) from error


# What a pickle may call is a class with a `__setstate__`, never a function: a pickle can set attributes on whatever it
# gets hold of, unless that has a `__setstate__` of its own.
class _Reconstructed:
    """Stands for ``numpy``'s ``_reconstruct`` and ``copy_reg``'s ``_reconstructor``."""

    def __new__(cls, kind: object, *_: object) -> Any:
        if kind not in (_Array, _Csr):
            raise InputError("it asks for an object that is no array", _REMEDY)
        return kind()

    def __setstate__(self, state: object) -> None:
        raise InputError("it sets the state of a function", _REMEDY)


class _Encoded:
    """Stands for ``_codecs.encode``, which Python 3 uses for bytes in old protocols."""

    def __new__(cls, text: object, encoding: object = "latin1") -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise InputError("it asks for another encoding than latin1", _REMEDY)
        return text.encode("latin1")

    def __setstate__(self, state: object) -> None:
        raise InputError("it sets the state of a function", _REMEDY)


class _Links(dict[Any, Any]):
    """Stands for ``collections.defaultdict``; its entries are set one by one afterwards."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        raise InputError("it sets the state of a dictionary", _REMEDY)


# Every global that a Planetoid pickle names, and the harmless thing it gets.
_ADMITTED: Final[Mapping[tuple[str, str], Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstructed,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstructed,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("scipy.sparse.csr", "csr_matrix"): _Csr,
    ("scipy.sparse._csr", "csr_matrix"): _Csr,
    ("copy_reg", "_reconstructor"): _Reconstructed,
    ("copyreg", "_reconstructor"): _Reconstructed,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("collections", "defaultdict"): _Links,
    ("_codecs", "encode"): _Encoded,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler whose every global is one of our own classes; no name in the file is ever imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise InputError(f"it asks for {module}.{name}, which is refused: it may run any code", _REMEDY)
        return _ADMITTED[module, name]
