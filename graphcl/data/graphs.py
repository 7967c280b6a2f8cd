"""Graphs by name or path: the published formats, edge lists with feature tables, vectors, made-up graphs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from graphcl.data.formats import reader_of
from graphcl.data.graph_archives import is_graph_npz, read_graph_npz, read_graph_zip
from graphcl.data.graph_files import open_npz
from graphcl.data.graph_generators import digits_graph, stochastic_block_model
from graphcl.data.graph_planetoid import PLANETOID_PARTS, read_planetoid
from graphcl.data.graph_tables import EDGE_NAMES, read_edge_list, read_table, read_vectors
from graphcl.data.heterogeneous import FolderSchema, read_heterogeneous_files, read_heterogeneous_folder
from graphcl.data.heterogeneous_tables import TYPE_NAMES, read_typed_edges
from graphcl.data.registry import GraphRecipe, _is_path, graph_recipe, list_datasets, recipe_files
from graphcl.errors import InputError, nearest

if TYPE_CHECKING:
    from torch_geometric.data import Data, HeteroData

    Graph: TypeAlias = Data | HeteroData

__all__ = ["GRAPH_FORMATS", "GraphDataset", "GraphFormat", "graph_counts", "load_graph"]

#: Formats of a path; found from its name and content when not given.
GraphFormat = Literal["edges", "vectors", "typed-edges", "npz", "zipped-arrays", "planetoid", "heco"]
_HEAD = 1000
_TABLES = (".csv", ".tsv", ".txt", ".edges", ".edgelist", ".parquet", ".pq")


@dataclass(frozen=True, eq=False)
class GraphDataset:
    """A loaded graph.

    Attributes:
        name: registered name or path.
        graph: PyG ``Data`` or ``HeteroData``.
        recipe: its recipe, None for a path.

    Example:
        >>> load_graph("digits").kind
        'graph'
    """

    name: str
    graph: Graph
    recipe: GraphRecipe | None = None

    @property
    def kind(self) -> Literal["graph", "heterogeneous"]:
        """Whether nodes and edges have types."""
        return "heterogeneous" if hasattr(self.graph, "node_types") else "graph"


def load_graph(name_or_path: str | Path, **options: Any) -> GraphDataset:
    """Load a registered graph, or one of your own.

    | name or path | format | options |
    |---|---|---|
    | ``digits``, ``sbm`` | | arguments of `digits_graph`, `stochastic_block_model` |
    | another registered name | | none |
    | table or frame with two columns of ids | ``edges`` | those of `read_edge_list`: ``features``, ``labels``, ... |
    | table, npy or npz with a row a node | ``vectors`` | those of `read_vectors`: ``labels``, ``k``, ``metric``, ... |
    | table with ``source_type``, ``target_type`` | ``typed-edges`` | those of `read_typed_edges`: ``features``, ... |
    | npz with a graph | ``npz`` | none, see `read_graph_npz` |
    | zip of ``*_adj.npy``, ... | ``zipped-arrays`` | none, see `read_graph_zip` |
    | folder with ``ind.*`` | ``planetoid`` | none, see `read_planetoid` |
    | folder with ``pa.txt``, ... | ``heco`` | ``target``, ``metapaths``, see `read_heterogeneous_files` |

    A registered file is looked for in ``$GRAPHCL_DATA/<name>/``, then in the user cache, and is downloaded into the
    cache otherwise. Whatever is found must have the checksum of the recipe, and the graph its counts.

    Args:
        name_or_path: registered name, or path of a file or folder.
        **options: see above; ``format`` for a path whose format is not recognised.

    Returns:
        The graph.

    Raises:
        InputError: an unknown name, a log of interactions, a missing file without a network, a checksum or counts that
            differ, an option that does not apply, bad input.

    Complexity:
        That of the reader.

    Example:
        >>> load_graph("sbm", num_nodes=100, num_classes=2).graph.num_nodes
        100
    """
    if _is_path(name_or_path):
        return GraphDataset(str(name_or_path), _read_path(Path(name_or_path).expanduser(), options))
    recipe = graph_recipe(str(name_or_path))
    if recipe.generator is not None:
        generator = _GENERATORS[recipe.name]
        _refuse(options, tuple(inspect.signature(generator).parameters), recipe.name)
        dataset = GraphDataset(recipe.name, generator(**{**recipe.generator, **options}), recipe)
    else:
        _refuse(options, (), recipe.name)
        dataset = reader_of(recipe.kind, recipe.format)(recipe, recipe_files(recipe))
    if not options:
        _check_counts(recipe, dataset.graph)
    return dataset


def graph_counts(graph: Graph) -> dict[str, int]:
    """What a graph counts, by the names that recipes use.

    Args:
        graph: ``Data`` or ``HeteroData``.

    Returns:
        ``nodes``, ``edges`` (both directions, as stored), ``features`` and ``classes``; for a graph with types
        ``nodes.paper``, ``features.paper`` and ``edges.paper-author``, reverse edge types left out.

    Complexity:
        O(N).

    Example:
        >>> graph_counts(load_graph("digits").graph)["classes"]
        10
    """
    if not hasattr(graph, "node_types"):
        counts = {"nodes": int(graph.num_nodes or 0), "edges": int(graph.num_edges)}
        stores = {"": graph}
    else:
        counts = {f"nodes.{name}": int(graph[name].num_nodes) for name in graph.node_types}
        counts |= {
            f"edges.{kind[0]}-{kind[2]}": int(graph[kind].num_edges)
            for kind in graph.edge_types
            if not kind[1].startswith("rev_")
        }
        stores = {f".{name}": graph[name] for name in graph.node_types}
    for end, store in stores.items():
        if store.get("x") is not None:
            counts[f"features{end}"] = int(store.x.shape[1])
        if store.get("y") is not None and int(store.y.max()) >= 0:
            counts["classes"] = int(store.y.max()) + 1
    return counts


def read_recipe_planetoid(recipe: GraphRecipe, paths: Mapping[str, Path]) -> GraphDataset:
    """The graph of a recipe whose files are the parts of a Planetoid graph, see `read_planetoid`."""
    return GraphDataset(recipe.name, read_planetoid(paths), recipe)


def read_recipe_zip(recipe: GraphRecipe, paths: Mapping[str, Path]) -> GraphDataset:
    """The graph of a recipe with one zip file, see `read_graph_zip`."""
    return GraphDataset(recipe.name, read_graph_zip(paths["graph"]), recipe)


def read_recipe_npz(recipe: GraphRecipe, paths: Mapping[str, Path]) -> GraphDataset:
    """The graph of a recipe with one npz file, see `read_graph_npz`."""
    return GraphDataset(recipe.name, read_graph_npz(paths["graph"]), recipe)


def read_recipe_heco(recipe: GraphRecipe, paths: Mapping[str, Path]) -> GraphDataset:
    """The graph of a recipe in the layout of HeCo, see `read_heterogeneous_files`.

    Options of the recipe: ``target``, ``types`` (letter -> name) and ``metapaths``.
    """
    files = {file.name: paths[file.role] for file in recipe.files}
    options = recipe.options
    schema = FolderSchema(options["target"], options.get("types", {}), tuple(options["metapaths"]))
    return GraphDataset(recipe.name, read_heterogeneous_files(files, schema, source=recipe.name), recipe)


def _check_counts(recipe: GraphRecipe, graph: Graph) -> None:
    found = graph_counts(graph)
    for name, expected in recipe.counts.items():
        if found.get(name) != expected:
            raise InputError(
                f"{recipe.name} has {found.get(name, 'no')} {name}, its recipe expects {expected}",
                "mend the recipe or the files",
            )


_GENERATORS: Final[Mapping[str, Callable[..., Data]]] = {"digits": digits_graph, "sbm": stochastic_block_model}


def _read_path(path: Path, options: Mapping[str, Any]) -> Graph:
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        known = [recipe.name for recipe in list_datasets() if recipe.kind != "interactions"]
        raise InputError(
            "there is no such file or folder",
            f"{nearest(path.name, beside)}check the path; the registered graphs are {', '.join(known)}",
            path=path,
        )
    given = dict(options)
    name = given.pop("format", None)
    if name is None:
        name = _detect(path, given)
    if name not in _READERS:
        known_formats = ", ".join(_READERS)
        raise InputError(
            f"the format {name!r} is unknown", f"{nearest(name, _READERS)}use one of {known_formats}", path=path
        )
    reader = _READERS[name]
    # The first argument is the path itself.
    _refuse(given, tuple(inspect.signature(reader).parameters)[1:], f"{path} (format {name})")
    return reader(path, **given)


def _detect(path: Path, options: Mapping[str, Any]) -> str:
    if path.is_dir():
        if any(path.glob("ind.*.graph")):
            return "planetoid"
        if any(path.glob("[a-z][a-z].txt")):
            return "heco"
        zips = [other.name for other in path.glob("*.zip")]
        hint = f"give {path / zips[0]}" if zips else "give a Planetoid or HeCo folder, or a file"
        raise InputError("no graph format is recognised in this folder", hint, path=path)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return "zipped-arrays"
    if suffix == ".npy":
        return "vectors"
    if suffix == ".npz":
        return "npz" if is_graph_npz(open_npz(path)) or not options else "vectors"
    if suffix not in _TABLES:
        raise InputError(
            f"the format of a {suffix or 'nameless'} file is unknown",
            f"use one of {', '.join((*_TABLES, '.npy', '.npz', '.zip'))}, or give format=",
            path=path,
        )
    table = read_table(path, roles={**EDGE_NAMES, **TYPE_NAMES}, limit=_HEAD)
    roles = {role: table.column(role, None, names, None) for role, names in {**EDGE_NAMES, **TYPE_NAMES}.items()}
    # With the type of one end alone, the reader of typed edges says what is missing.
    if roles["source_type"] is not None or roles["target_type"] is not None:
        return "typed-edges"
    named = roles["source"] is not None and roles["target"] is not None
    asked = any(option in options for option in ("features", "source", "target", "weight"))
    bare = not table.header and table.frame.width in (2, 3)
    return "edges" if named or asked or bare else "vectors"


def names_edges(path: Path) -> bool:
    """Whether a file is a table whose columns are named as the ends of edges, such as ``source`` and ``target``."""
    if path.suffix.lower() not in _TABLES or not path.is_file():
        return False
    table = read_table(path, roles={**EDGE_NAMES, **TYPE_NAMES}, limit=_HEAD)
    return table.header and all(
        table.column(end, None, EDGE_NAMES[end], None) is not None for end in ("source", "target")
    )


def _planetoid_folder(path: Path) -> Data:
    stem = min(other.name for other in path.glob("ind.*.graph")).removesuffix("graph")
    return read_planetoid({part: path / f"{stem}{part}" for part in PLANETOID_PARTS})


def _heco_folder(path: Path, target: str | None = None, metapaths: Any = ()) -> HeteroData:
    chosen = tuple(metapaths.split(",")) if isinstance(metapaths, str) else tuple(metapaths)
    return read_heterogeneous_folder(path, FolderSchema(target, metapaths=chosen))


_READERS: Final[Mapping[str, Callable[..., Any]]] = {
    "edges": read_edge_list,
    "vectors": read_vectors,
    "typed-edges": read_typed_edges,
    "npz": read_graph_npz,
    "zipped-arrays": read_graph_zip,
    "planetoid": _planetoid_folder,
    "heco": _heco_folder,
}
#: Names of the formats of a path.
GRAPH_FORMATS: Final = tuple(_READERS)


def _refuse(options: Mapping[str, Any], allowed: tuple[str, ...], name: str) -> None:
    for option in options:
        if option not in allowed:
            remedy = f"{nearest(option, allowed)}it takes {', '.join(allowed)}" if allowed else "leave it out"
            raise InputError(f"{name} has no option {option!r}", remedy)
