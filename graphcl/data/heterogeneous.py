"""Heterogeneous graphs in the folder layout of HeCo and MEOW, brought to PyG's `HeteroData`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from graphcl.data.graph_files import load_array, sparse_of_npz
from graphcl.errors import InputError, located
from graphcl.graphs.conversion import check_features, encode_labels
from graphcl.graphs.metapath import parse_metapath

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

__all__ = ["EdgeType", "FolderSchema", "MetaPath", "read_heterogeneous_files", "read_heterogeneous_folder"]

EdgeType: TypeAlias = tuple[str, str, str]
MetaPath: TypeAlias = tuple[EdgeType, ...]

_RELATION = re.compile(r"([a-z])([a-z])\.txt")
_SPLIT = re.compile(r"train_(\d+)\.npy")
_PARTS = ("train", "val", "test")
# Names of the types behind the letters of the published folders, so far as a letter says enough by itself.
_KNOWN_TYPES: Final = {
    "a": "author",
    "c": "conf",
    "d": "director",
    "k": "keyword",
    "m": "movie",
    "p": "paper",
    "r": "ref",
    "s": "subject",
    "t": "term",
    "w": "writer",
}


@dataclass(frozen=True)
class FolderSchema:
    """What a folder does not say about itself.

    Attributes:
        target: letter or name of the type that has the labels; None finds it by their number.
        types: letter -> name of the type; letters that are missing keep their usual name, or themselves.
        metapaths: meta-paths as letters, "pap" say, in order; without any, the shortest way from the target to every
            other type and back.
    """

    target: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    metapaths: tuple[str, ...] = ()


_UNKNOWN: Final = FolderSchema()


def read_heterogeneous_folder(folder: Path, schema: FolderSchema = _UNKNOWN) -> HeteroData:
    """`read_heterogeneous_files` of all files in a folder.

    Args:
        folder: the folder.
        schema: target, type names and meta-paths.

    Returns:
        ``HeteroData``.

    Raises:
        InputError: there is no such folder; and as `read_heterogeneous_files`.

    Complexity:
        O(N f + E).
    """
    if not folder.is_dir():
        raise InputError("there is no such folder", "check the path", path=folder)
    return read_heterogeneous_files({path.name: path for path in folder.iterdir()}, schema, source=str(folder))


def read_heterogeneous_files(
    files: Mapping[str, Path], schema: FolderSchema = _UNKNOWN, *, source: str = "the folder"
) -> HeteroData:
    """A heterogeneous graph from files as HeCo (https://arxiv.org/abs/2105.09111) and MEOW lay them out.

    | file | holds |
    |---|---|
    | ``xy.txt`` | two columns of numbers: an edge a line, first column of the type with letter x, second of y |
    | ``labels.npy`` | a class a target node: integers or whole floating-point numbers, from 0, 1 or anywhere |
    | ``x_feat.npz`` | features of type x, sparse or (whatever the name says) dense; else a number of nodes only |
    | ``train_20.npy``, ``val_20.npy``, ``test_20.npy`` | target nodes of one split; likewise 40, 60 and so on |

    Stored products (``pap.npz``, ``nei_*``, ``pos.npz``) are not read: they follow from the edges, and some are
    pickles.

    Args:
        files: name -> path; others are ignored.
        schema: target, type names and meta-paths.
        source: name of the whole, for messages.

    Returns:
        ``HeteroData`` with an edge type ``(x, "to", y)`` a file and its reverse ``(y, "rev_to", x)``; ``x`` or
        ``num_nodes``; on the target ``y`` (0 .. C - 1), ``train_mask``, ``val_mask`` and ``test_mask`` (N, S), a column
        a split, with ``splits`` holding their names in order; ``target``, ``label_names`` and ``metapaths`` on the
        graph, each meta-path a tuple of edge types.

    Raises:
        InputError: a file is missing, damaged, holds pickled objects, or disagrees with another one.

    Complexity:
        O(N f + E).
    """
    from torch_geometric.data import HeteroData

    edges = {name[:2]: _read_pairs(path) for name, path in sorted(files.items()) if _RELATION.fullmatch(name)}
    if not edges:
        raise InputError("there is no file of edges in it", "give files such as pa.txt", path=source)
    labels = load_array(_required(files, "labels.npy", source))
    features = {letter: _features(files, letter) for letter in sorted({*"".join(edges)})}
    sizes = _sizes(edges, {letter: x.shape[0] for letter, x in features.items() if x is not None}, source)
    usual = _KNOWN_TYPES | ({"a": "actor"} if "m" in sizes else {})
    names = {letter: (schema.types.get(letter) or usual.get(letter, letter)) for letter in sizes}
    target = _letter(schema.target, names, source) or _guess_target(source, sizes, labels.shape[0])
    _fit_target(sizes, target, labels.shape[0], features[target] is None, source)
    graph = HeteroData()
    for letter, name in names.items():
        x = features[letter]
        if x is not None:
            graph[name].x = x
        graph[name].num_nodes = sizes[letter]
    for pair, ends in edges.items():
        first, second = names[pair[0]], names[pair[1]]
        edge_index = torch.from_numpy(ends)
        graph[first, "to", second].edge_index = edge_index
        graph[second, "rev_to", first].edge_index = edge_index.flip(0).contiguous()
    store = graph[names[target]]
    try:
        store.y, graph.label_names = encode_labels(labels, num_nodes=labels.shape[0])
    except InputError as error:
        raise located(error, files["labels.npy"]) from error
    graph.splits, masks = _split_masks(files, labels.shape[0], source)
    for part, mask in masks.items():
        store[f"{part}_mask"] = mask
    graph.target = names[target]
    paths = schema.metapaths or _there_and_back(target, edges)
    graph.metapaths = tuple(_metapath(graph, text, names) for text in paths)
    return graph


def _metapath(graph: HeteroData, text: str, names: Mapping[str, str]) -> MetaPath:
    """A meta-path in letters of the folder, or as `graphcl.graphs.metapath.parse_metapath` reads it."""
    if "-" not in text and all(letter in names for letter in text.lower()):
        text = "-".join(names[letter] for letter in text.lower())
    return tuple(hop.edge_type for hop in parse_metapath(graph, text, target=graph.target).hops)


def _required(files: Mapping[str, Path], name: str, source: str) -> Path:
    if name not in files:
        raise InputError(f"there is no {name} in it", "give it", path=source)
    return files[name]


def _read_pairs(path: Path) -> NDArray[np.int64]:
    """Edges (2, E) of a text file with two numbers a line."""
    try:
        pairs = np.loadtxt(path, dtype=np.int64, ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        place = re.search(r"at row (\d+)", str(error))
        raise InputError(
            f"it is not two columns of whole numbers: {str(error)[:80]}",
            "give one edge a line, its two ends separated by a tab",
            path=path,
            row=int(place.group(1)) + 1 if place else None,
        ) from error
    if pairs.size == 0:
        return np.empty((2, 0), dtype=np.int64)
    if pairs.shape[1] != 2:
        raise InputError(f"it has {pairs.shape[1]} columns", "give two: the ends of an edge", path=path)
    if pairs.min() < 0:
        row = int(np.argmax((pairs < 0).any(axis=1))) + 1
        raise InputError(f"node {pairs.min()} is negative", "number nodes from 0", path=path, row=row)
    return np.ascontiguousarray(pairs.T)


def _features(files: Mapping[str, Path], letter: str) -> torch.Tensor | None:
    path = next((files[name] for end in ("npz", "npy") if (name := f"{letter}_feat.{end}") in files), None)
    if path is None:
        return None
    matrix = sparse_of_npz(path)
    try:
        # Narrow before it becomes dense: half the bytes of the integers of DBLP.
        return check_features(matrix.astype(np.float32))
    except InputError as error:
        raise located(error, path) from error


def _sizes(edges: Mapping[str, NDArray[np.int64]], rows: Mapping[str, int], source: str) -> dict[str, int]:
    """Nodes a type: rows of its features, else one more than the highest number in its edges."""
    highest: dict[str, int] = {}
    for pair, ends in edges.items():
        for letter, end in zip(pair, ends, strict=True):
            highest[letter] = max(highest.get(letter, -1), int(end.max()) if end.size else -1)
    for letter, count in rows.items():
        if highest[letter] >= count:
            raise InputError(
                f"edges name node {highest[letter]} of type {letter!r}, which has {count} rows of features",
                f"mend {letter}_feat or the edges",
                path=source,
            )
    return {letter: rows.get(letter, highest[letter] + 1) for letter in sorted(highest)}


def _letter(target: str | None, names: Mapping[str, str], source: str) -> str | None:
    found = next((letter for letter, name in names.items() if target in (letter, name)), None)
    if target is not None and found is None:
        known = ", ".join(f"{letter} ({name})" for letter, name in names.items())
        raise InputError(f"no edge names the target type {target!r}", f"use one of {known}", path=source)
    return found


def _fit_target(sizes: dict[str, int], target: str, num_labels: int, may_grow: bool, source: str) -> None:
    """The number of labels decides how many target nodes there are: without features the last ones may have no edge."""
    if sizes[target] != num_labels and not (may_grow and sizes[target] < num_labels):
        raise InputError(
            f"there are {num_labels} labels for {sizes[target]} nodes of type {target!r}",
            "give one label a target node, or name the target type",
            path=source,
        )
    sizes[target] = num_labels


def _guess_target(source: str, sizes: Mapping[str, int], num_labels: int) -> str:
    fitting = [letter for letter, size in sizes.items() if size == num_labels]
    if len(fitting) != 1:
        counts = ", ".join(f"{letter}: {size}" for letter, size in sizes.items())
        raise InputError(
            f"{num_labels} labels fit {'several types' if fitting else 'no type'} ({counts})",
            "name the letter of the target type with target=",
            path=source,
        )
    return fitting[0]


def _there_and_back(target: str, pairs: Iterable[str]) -> tuple[str, ...]:
    """The shortest way from the target to every other type and back: "apa", "apcpa", "aptpa"."""
    linked = {*pairs, *(pair[::-1] for pair in pairs)}
    ways = {target: target}
    queue = [target]
    for letter in queue:
        for step in sorted(pair for pair in linked if pair[0] == letter and pair[1] not in ways):
            ways[step[1]] = ways[letter] + step[1]
            queue.append(step[1])
    return tuple(way + way[-2::-1] for way in ways.values() if len(way) > 1)


def _split_masks(
    files: Mapping[str, Path], num_nodes: int, source: str
) -> tuple[tuple[str, ...], dict[str, torch.Tensor]]:
    found = (_SPLIT.fullmatch(name) for name in files)
    names = tuple(str(count) for count in sorted(int(match.group(1)) for match in found if match))
    masks = {part: torch.zeros(num_nodes, len(names), dtype=torch.bool) for part in _PARTS} if names else {}
    for column, name in enumerate(names):
        for part in _PARTS:
            path = _required(files, f"{part}_{name}.npy", source)
            nodes = load_array(path)
            if nodes.dtype.kind not in "iu" or nodes.ndim != 1:
                raise InputError(f"it holds {nodes.dtype} of shape {nodes.shape}", "give node numbers", path=path)
            if nodes.size and (nodes.min() < 0 or nodes.max() >= num_nodes):
                worst = nodes.min() if nodes.min() < 0 else nodes.max()
                raise InputError(f"it names node {worst} of {num_nodes}", "give node numbers from 0", path=path)
            # A node that is listed twice (IMDB does) is in the split once.
            masks[part][torch.from_numpy(nodes.astype(np.int64)), column] = True
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            both = masks[first][:, column] & masks[second][:, column]
            if bool(both.any()):
                raise InputError(
                    f"node {int(both.nonzero()[0, 0])} is in {first}_{name} and in {second}_{name}",
                    "give parts that share no node",
                    path=source,
                )
    return names, masks
