"""Graphs by name or path: the published formats, edge lists with feature tables, vectors, made-up graphs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from graphcl.data.columns import nearest
from graphcl.data.graph_archives import read_graph_npz, read_graph_zip
from graphcl.data.graph_generators import digits_graph, stochastic_block_model
from graphcl.data.graph_planetoid import PLANETOID_PARTS, read_planetoid
from graphcl.data.heterogeneous import FolderSchema, read_heterogeneous_folder
from graphcl.errors import InputError

if TYPE_CHECKING:
    from torch_geometric.data import Data, HeteroData

    Graph: TypeAlias = Data | HeteroData

__all__ = ["GraphDataset", "load_graph"]


@dataclass(frozen=True, eq=False)
class GraphDataset:
    """A loaded graph.

    Attributes:
        name: registered name or path.
        graph: PyG ``Data`` or ``HeteroData``.
        recipe: its recipe, None for a path.

    Example:
        >>> load_graph("digits").graph.num_nodes
        1797
    """

    name: str
    graph: Graph
    recipe: Any = None

    @property
    def kind(self) -> str:
        """ "graph" or "heterogeneous"."""
        return "heterogeneous" if hasattr(self.graph, "node_types") else "graph"


def load_graph(name_or_path: str | Path, **options: Any) -> GraphDataset:
    """Load a registered graph, or one of your own.

    | name or path | options |
    |---|---|
    | ``digits`` | ``k``, ``metric``, ``symmetric``: see `digits_graph` |
    | ``sbm`` | arguments of `stochastic_block_model` |
    | another registered name | none |
    | folder with ``ind.*`` files | none: Planetoid, see `read_planetoid` |
    | folder with ``pa.txt`` and so on | ``target``, ``metapaths``: see `read_heterogeneous_folder` |
    | ``.npz``, ``.zip`` | none: see `read_graph_npz`, `read_graph_zip` |

    Args:
        name_or_path: registered name, or path of a file or folder.
        **options: see above.

    Returns:
        The graph.

    Raises:
        InputError: unknown name, missing or damaged file, an option that does not apply, bad input.

    Complexity:
        That of the reader.

    Example:
        >>> load_graph("sbm", num_nodes=100, num_classes=2).graph.num_nodes
        100
    """
    name = str(name_or_path)
    if name in _GENERATORS:
        return GraphDataset(name, _called(_GENERATORS[name], name, options))
    if name in _REGISTERED and not isinstance(name_or_path, Path):
        _refuse(options, (), name)
        return GraphDataset(name, _registered(name))
    path = Path(name_or_path).expanduser()
    if not path.exists():
        known = sorted({*_GENERATORS, *_REGISTERED})
        raise InputError(
            f"there is no graph or file {name!r}", f"{nearest(name, known)}the graphs are {', '.join(known)}"
        )
    return GraphDataset(name, _read_path(path, options))


_GENERATORS: Final[Mapping[str, Callable[..., Data]]] = {"digits": digits_graph, "sbm": stochastic_block_model}
_REGISTERED: Final[Mapping[str, FolderSchema | None]] = {
    "cora": None,
    "citeseer": None,
    "dblp-clustering": None,
    "acm": FolderSchema("p", metapaths=("pap", "psp")),
    "dblp": FolderSchema("a", metapaths=("apa", "apcpa", "aptpa")),
    "aminer": FolderSchema("p", metapaths=("pap", "prp")),
    "imdb": FolderSchema("m", metapaths=("mam", "mdm", "mkm")),
    "freebase": FolderSchema("m", metapaths=("mdm", "mam", "mwm")),
}


def _registered(name: str) -> Graph:
    root = os.environ.get("GRAPHCL_DATA")
    folder = Path(root or ".") / name
    if not root or not folder.is_dir():
        raise InputError(f"the files of {name} are not on this machine", f"set GRAPHCL_DATA to the folder of {name}/")
    schema = _REGISTERED[name]
    return _read_path(folder, {}) if schema is None else read_heterogeneous_folder(folder, schema)


def _read_path(path: Path, options: Mapping[str, Any]) -> Graph:
    if path.is_dir():
        return _read_folder(path, options)
    if path.suffix == ".npz":
        _refuse(options, (), str(path))
        return read_graph_npz(path)
    if path.suffix == ".zip":
        _refuse(options, (), str(path))
        return read_graph_zip(path)
    raise InputError(f"the format of a {path.suffix} file is unknown", "give .npz or .zip", path=path)


def _read_folder(folder: Path, options: Mapping[str, Any]) -> Graph:
    graphs = sorted(folder.glob("ind.*.graph"))
    if graphs:
        _refuse(options, (), str(folder))
        stem = graphs[0].name.removesuffix("graph")
        return read_planetoid({part: folder / f"{stem}{part}" for part in PLANETOID_PARTS})
    archives = sorted(folder.glob("*.zip"))
    if archives:
        return read_graph_zip(archives[0])
    _refuse(options, ("target", "metapaths"), str(folder))
    paths = options.get("metapaths") or ()
    chosen = tuple(paths.split(",")) if isinstance(paths, str) else tuple(paths)
    return read_heterogeneous_folder(folder, FolderSchema(options.get("target"), metapaths=chosen))


def _called(generator: Callable[..., Data], name: str, options: Mapping[str, Any]) -> Data:
    _refuse(options, tuple(inspect.signature(generator).parameters), name)
    return generator(**options)


def _refuse(options: Mapping[str, Any], allowed: tuple[str, ...], name: str) -> None:
    for option in options:
        if option not in allowed:
            remedy = f"{nearest(option, allowed)}it takes {', '.join(allowed)}" if allowed else "leave it out"
            raise InputError(f"{name} has no option {option!r}", remedy)
