"""Data sets by name: recipes, where their files are, and checks that they are what the recipe says."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sysconfig
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from graphcl.data.columns import with_source
from graphcl.data.formats import Kind, formats_of, reader_of
from graphcl.data.interactions import Interactions
from graphcl.data.readers import FORMATS, Format, read_interactions
from graphcl.data.split_files import find_published_split
from graphcl.data.splits import Split, leave_one_out, split_by_ratio, split_by_time
from graphcl.data.synthetic import synthetic_shop
from graphcl.errors import InputError, nearest

if TYPE_CHECKING:
    from graphcl.data.features import ItemFeatures

Protocol = Literal["leave-one-out", "by-time", "by-ratio", "as-published"]
_SPLITS = {"leave-one-out": leave_one_out, "by-time": split_by_time, "by-ratio": split_by_ratio}
_TIMEOUT_SECONDS = 60


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PackageFile(_Strict):
    """A file that an installed Python package ships.

    Attributes:
        name: distribution name.
        path: path below the folder that the package is installed into.
    """

    name: str
    path: str


class RecipeFile(_Strict):
    """One file of a data set.

    Attributes:
        name: file name in the data folder.
        role: what the file holds; each role once.
        sha256: checksum.
        bytes: size.
        source: where it was published.
        mirrors: other addresses of the same bytes, tried in order.
        package: an installed package that ships the same bytes.
        optional: a file that is left out where it is not on this machine, because it cannot be downloaded.
    """

    name: str
    role: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    source: str
    mirrors: tuple[str, ...] = ()
    package: PackageFile | None = None
    optional: bool = False


class RecipeColumns(_Strict):
    """Columns of the interaction file by role; None means detected or absent."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    value: str | None = None


class ExpectedCounts(_Strict):
    """What the loaded log must count; None is not checked."""

    users: int | None = None
    items: int | None = None
    interactions: int | None = None


class GeneratorArguments(_Strict):
    """Arguments of `synthetic_shop`."""

    num_users: int
    num_items: int
    seed: int = 0


class Recipe(_Strict):
    """What every recipe says of its data set; :class:`InteractionRecipe` and :class:`GraphRecipe` say the rest.

    Attributes:
        name: short name, as in commands.
        description: one line.
        licence: under which terms it may be used.
        kind: what it is: interactions, a graph, or a graph with types.
        format: reader format, or "generator".
        files: its files; empty for a generator.
    """

    name: str
    description: str
    licence: str
    kind: Kind
    format: str
    files: tuple[RecipeFile, ...] = ()

    @model_validator(mode="after")
    def _roles_differ(self) -> Recipe:
        roles = [file.role for file in self.files]
        if len(set(roles)) < len(roles):
            raise ValueError("two files have one role")
        return self

    @field_validator("format")
    @classmethod
    def _format_is_known(cls, value: str, info: ValidationInfo) -> str:
        known = formats_of(info.data["kind"]) if "kind" in info.data else (value,)
        if value not in known:
            raise ValueError(f"the format {value!r} is none of {', '.join(known)}")
        return value

    @property
    def counts(self) -> dict[str, int]:
        """What the loaded data must count, by name; what is not checked is left out."""
        return {}

    def file(self, role: str) -> RecipeFile | None:
        """The file with a role, None when there is none."""
        return next((file for file in self.files if file.role == role), None)


RecipeT = TypeVar("RecipeT", bound=Recipe)


class InteractionRecipe(Recipe):
    """The recipe of a log of interactions.

    Attributes:
        columns: columns by role, for formats that name columns.
        generator: arguments of the generator.
        expected: counts of the loaded log.
        split: default split protocol.
    """

    kind: Literal["interactions"] = "interactions"
    columns: RecipeColumns = RecipeColumns()
    generator: GeneratorArguments | None = None
    expected: ExpectedCounts = ExpectedCounts()
    split: Protocol = "leave-one-out"

    @model_validator(mode="after")
    def _one_source(self) -> InteractionRecipe:
        interactions = sum(file.role == "interactions" for file in self.files)
        made = self.generator is not None
        if made != (self.format == "generator") or interactions != (0 if made else 1):
            raise ValueError("a recipe has either a generator or files, exactly one of them with the interactions")
        return self

    @property
    def counts(self) -> dict[str, int]:
        return self.expected.model_dump(exclude_none=True)


class GraphRecipe(Recipe):
    """The recipe of a graph; its formats and options are those of `load_graph`.

    Attributes:
        generator: arguments of the generator.
        options: what the files do not say, for the reader of the format.
        expected: counts of the loaded graph, such as nodes, edges, features and classes; those of a type have its
            name behind a dot, as in ``nodes.paper``.
    """

    kind: Literal["graph", "heterogeneous"]
    generator: dict[str, Any] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    expected: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> GraphRecipe:
        made = self.generator is not None
        if made != (self.format == "generator") or made == bool(self.files):
            raise ValueError("a recipe has either a generator or files")
        return self

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.expected)


class BundleRecipe(Recipe):
    """The recipe of bundles that are made, from another data set or from nothing; see `load_bundles`.

    Attributes:
        base: registered log that the bundles are made from, for the format "sessions".
        options: arguments of the maker.
        generator: arguments of the generator.
        expected: counts of the bundles.
    """

    kind: Literal["bundles"]
    base: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    generator: dict[str, Any] | None = None
    expected: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> BundleRecipe:
        if (self.generator is None) == (self.base is None):
            raise ValueError("a recipe of bundles has either a generator or a base")
        return self

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.expected)


class EventRecipe(Recipe):
    """The recipe of a generated log of events; see `load_events`.

    Attributes:
        generator: arguments of `enterprise_log`.
        expected: counts of events and of entity types.
    """

    kind: Literal["events"]
    generator: dict[str, Any]
    expected: dict[str, int] = Field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.expected)


class RetrievalRecipe(Recipe):
    """The recipe of generated queries and labels; see `load_retrieval`.

    Attributes:
        generator: arguments of `synthetic_tags`.
        expected: counts of queries, labels and features.
    """

    kind: Literal["retrieval"]
    generator: dict[str, Any]
    expected: dict[str, int] = Field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.expected)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A loaded data set.

    Attributes:
        name: registered name or path.
        interactions: the log.
        recipe: its recipe, None for a path.
        protocol: default split protocol.
        published_split: the split that came with the files, where the protocol is "as-published".
        item_features: features of the items by modality, where the recipe ships them.

    Example:
        >>> load_dataset("synthetic-shop").split().protocol
        'leave-one-out'
    """

    name: str
    interactions: Interactions
    recipe: InteractionRecipe | None = None
    protocol: Protocol = "leave-one-out"
    published_split: Split | None = None
    item_features: ItemFeatures | None = None

    def split(self) -> Split:
        """The log under its default protocol.

        Raises:
            InputError: the log does not allow it.
        """
        if self.protocol == "as-published":
            if self.published_split is None:
                raise InputError(f"no split was published with {self.name}", "choose another one (--split)")
            return self.published_split
        return _SPLITS[self.protocol](self.interactions)


_RECIPES: dict[str, type[Recipe]] = {
    "interactions": InteractionRecipe,
    "bundles": BundleRecipe,
    "events": EventRecipe,
    "retrieval": RetrievalRecipe,
}
_LOADED_BY_KIND = BundleRecipe | EventRecipe | RetrievalRecipe
_HOLDS = {"retrieval": "queries and labels"}


def list_datasets() -> tuple[Recipe, ...]:
    """All recipes, by name.

    Raises:
        InputError: a recipe file is invalid, or no recipes are installed.

    Complexity:
        O(recipes).

    Example:
        >>> "ml-100k" in [recipe.name for recipe in list_datasets()]
        True
    """
    return tuple(_read_recipe(path) for path in sorted(_recipe_paths(), key=lambda path: path.stem))


def dataset_info(name: str) -> Recipe:
    """The recipe of a data set.

    Args:
        name: registered name.

    Returns:
        The recipe.

    Raises:
        InputError: the name is unknown (the nearest known one is named), or the recipe is invalid.

    Complexity:
        O(recipes).

    Example:
        >>> dataset_info("amazon-beauty").counts["users"]
        22363
    """
    paths = {path.stem: path for path in _recipe_paths()}
    if name not in paths:
        known = ", ".join(sorted(paths))
        raise InputError(
            f"there is no data set or file {name!r}", f"{nearest(name, sorted(paths))}the data sets are {known}"
        )
    return _read_recipe(paths[name])


def recipe_of_kind(name: str, kind: type[RecipeT]) -> RecipeT:
    """The recipe of a data set that must be of one kind.

    Args:
        name: registered name.
        kind: class of its recipe.

    Raises:
        InputError: the name is unknown, or its recipe is of another kind.

    Complexity:
        O(recipes).

    Example:
        >>> recipe_of_kind("synthetic-bundles", BundleRecipe).kind
        'bundles'
    """
    recipe = dataset_info(name)
    if not isinstance(recipe, kind):
        raise InputError(f"{name} holds {_HOLDS.get(recipe.kind, recipe.kind)}", "give a data set of another kind")
    return recipe


def load_dataset(name_or_path: str | Path, *, features: bool = False, **options: Any) -> Dataset:
    """Load a registered data set, or a log of your own.

    A registered file is looked for in ``$GRAPHCL_DATA/<name>/``, then in the user cache, then in an installed package
    that ships it, and is downloaded into the cache otherwise. Whatever is found must have the checksum of the recipe,
    and the log its counts.

    Args:
        name_or_path: registered name, or the path of a file; also a file or folder that `find_published_split` knows.
        features: for a registered name, load its side features as well.
        **options: for a path, options of `read_interactions`; given any, a split in the file is not looked for.

    Returns:
        The data set.

    Raises:
        InputError: unknown name, a graph's name, missing file without a network, checksum or counts that differ, bad
            input.

    Complexity:
        As `read_interactions`.

    Example:
        >>> load_dataset("synthetic-shop").interactions.num_users
        2000
    """
    if _is_path(name_or_path):
        published = None if options else find_published_split(name_or_path)
        if published is not None:
            return Dataset(str(name_or_path), published.interactions, None, "as-published", published)
        return Dataset(str(name_or_path), read_interactions(name_or_path, **options))
    recipe = dataset_info(str(name_or_path))
    if not isinstance(recipe, InteractionRecipe):
        if isinstance(recipe, _LOADED_BY_KIND):
            raise InputError(
                f"{recipe.name} holds {_HOLDS.get(recipe.kind, recipe.kind)}, not a log of interactions",
                f"load it with load_{recipe.kind}",
            )
        raise InputError(f"{recipe.name} is a graph, not a log of interactions", "load it with load_graph")
    if options:
        raise InputError(
            f"{recipe.name} is a registered data set, and {', '.join(options)} is set by its recipe",
            "leave it out, or give the path of the file",
        )
    if recipe.generator is None and recipe.format not in FORMATS:
        dataset: Dataset = reader_of("interactions", recipe.format)(recipe, recipe_files(recipe))
    else:
        log = _generate(recipe) if recipe.generator is not None else _read_files(recipe, features=features)
        dataset = Dataset(recipe.name, log, recipe, recipe.split)
    _check_counts(recipe, dataset.interactions)
    return dataset


def graph_recipe(name: str) -> GraphRecipe:
    """The recipe of a registered graph.

    Args:
        name: registered name.

    Returns:
        The recipe.

    Raises:
        InputError: the name is unknown, or that of a log of interactions.

    Complexity:
        O(recipes).

    Example:
        >>> graph_recipe("yelp")
        Traceback (most recent call last):
        graphcl.errors.InputError: yelp is a log of interactions, not a graph; load it with load_dataset
    """
    recipe = dataset_info(name)
    if isinstance(recipe, _LOADED_BY_KIND):
        raise InputError(
            f"{recipe.name} holds {_HOLDS.get(recipe.kind, recipe.kind)}, not a graph",
            f"load it with load_{recipe.kind}",
        )
    if not isinstance(recipe, GraphRecipe):
        raise InputError(f"{recipe.name} is a log of interactions, not a graph", "load it with load_dataset")
    return recipe


def recipe_files(recipe: Recipe, roles: Collection[str] | None = None) -> dict[str, Path]:
    """The files of a data set on this machine, downloaded if need be, each with the checksum of the recipe.

    Args:
        recipe: the data set.
        roles: which files; all of them when None. Roles that the recipe has no file for are left out, and so are
            optional files that are not on this machine.

    Returns:
        Paths by role.

    Raises:
        InputError: a file is missing and cannot be downloaded, or has another checksum.

    Complexity:
        O(bytes).
    """
    wanted = [file for file in recipe.files if roles is None or file.role in roles]
    wanted = [file for file in wanted if not file.optional or find_dataset_file(recipe, file) is not None]
    return {file.role: _verified(recipe, file) for file in wanted}


def find_dataset_file(recipe: Recipe, file: RecipeFile) -> Path | None:
    """Where a file of a data set lies on this machine: `$GRAPHCL_DATA`, the user cache, or an installed package.

    Args:
        recipe: the data set.
        file: one of its files.

    Returns:
        The path, not yet checked; None when the file has to be downloaded.

    Raises:
        InputError: `$GRAPHCL_DATA` is set and is no folder.

    Complexity:
        O(1).
    """
    root = os.environ.get("GRAPHCL_DATA")
    if root and not Path(root).expanduser().is_dir():
        raise InputError("GRAPHCL_DATA is no folder", "set it to the folder that holds <name>/<file>", path=root)
    places = [Path(root).expanduser() / recipe.name / file.name] if root else []
    places.append(_cache_folder() / recipe.name / file.name)
    if file.package is not None:
        try:
            shipped = importlib.metadata.distribution(file.package.name).locate_file(file.package.path)
            places.append(Path(str(shipped)))
        except importlib.metadata.PackageNotFoundError:
            pass  # the next place is the download
    return next((place for place in places if place.is_file()), None)


def _is_path(name_or_path: str | Path) -> bool:
    if isinstance(name_or_path, Path):
        return True
    looks_like_one = os.sep in name_or_path or "/" in name_or_path or "." in name_or_path
    # A folder that happens to bear the name of a data set does not hide it.
    return (
        looks_like_one or Path(name_or_path).is_file() or (Path(name_or_path).is_dir() and not _is_known(name_or_path))
    )


def _is_known(name: str) -> bool:
    return any(path.stem == name for path in _recipe_paths())


def _recipe_paths() -> Iterator[Path]:
    """Recipe files beside a source checkout, or where an installed distribution put them."""
    checkout = Path(__file__).resolve().parents[2] / "datasets"
    if (checkout / "synthetic-shop.yaml").is_file():
        yield from checkout.glob("*.yaml")
        return
    installed = [path for path in _distribution_files() if path.suffix == ".yaml" and path.is_file()]
    if not installed:
        raise InputError("the data set recipes are not installed", "install graphcl again", path=checkout)
    yield from installed


def _distribution_files() -> Iterator[Path]:
    try:
        listed = importlib.metadata.files("graphcl") or []
    except importlib.metadata.PackageNotFoundError:
        listed = []
    below = [entry for entry in listed if entry.parts[-4:-1] == ("share", "graphcl", "datasets")]
    if below:
        yield from (Path(str(entry.locate())).resolve() for entry in below)
    else:
        # Installers that keep no list of files still follow the scheme of the interpreter.
        yield from (Path(sysconfig.get_path("data")) / "share" / "graphcl" / "datasets").glob("*.yaml")


def _read_recipe(path: Path) -> Recipe:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = content.get("kind", "interactions") if isinstance(content, dict) else "interactions"
        recipe = _RECIPES.get(kind, GraphRecipe).model_validate(content)
    except yaml.YAMLError as error:
        raise InputError(f"this is no YAML: {error}", "mend the recipe", path=path) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise InputError(f"{place}: {first['msg']}", "mend the recipe", path=path) from error
    if recipe.name != path.stem:
        raise InputError(f"the recipe calls itself {recipe.name!r}", "give recipe and file one name", path=path)
    return recipe


def _generate(recipe: InteractionRecipe) -> Interactions:
    arguments = recipe.generator.model_dump() if recipe.generator is not None else {}
    return with_source(synthetic_shop(**arguments), recipe.name)


def _read_files(recipe: InteractionRecipe, *, features: bool) -> Interactions:
    paths = recipe_files(recipe, ["interactions", *(("item_features", "user_features") if features else ())])
    return read_interactions(
        paths["interactions"],
        format=cast(Format, recipe.format),
        **recipe.columns.model_dump(),
        item_features=paths.get("item_features", False),
        user_features=paths.get("user_features", False),
    )


def _verified(recipe: Recipe, file: RecipeFile) -> Path:
    path = find_dataset_file(recipe, file)
    if path is None:
        return _download(recipe, file)
    _verify(path, file)
    return path


def _verify(path: Path, file: RecipeFile, *, name: str | None = None) -> None:
    with path.open("rb") as opened:
        actual = hashlib.file_digest(opened, "sha256").hexdigest()
    if actual != file.sha256:
        raise InputError(
            f"its checksum fails: sha256 is {actual}, the recipe says {file.sha256}",
            "the file is damaged or another version: delete it and load again, or put the right one there",
            path=name or path,
        )


def _cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("graphcl"))


def _download(recipe: Recipe, file: RecipeFile) -> Path:
    """Fetch into the cache: first beside the goal, then checked, then renamed, so that no half file is ever found."""
    import pooch

    target = _cache_folder() / recipe.name / file.name
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for address in (file.source, *file.mirrors):
            fetch = pooch.HTTPDownloader(progressbar=True, timeout=_TIMEOUT_SECONDS)
            try:
                fetch(address, str(partial), None)
            except OSError as error:  # every failure of the network or of the server is one
                failures.append(f"{address}: {type(error).__name__}")
                continue
            _verify(partial, file, name=address)
            partial.replace(target)
            return target
    finally:
        partial.unlink(missing_ok=True)
    shipped = f", or install {file.package.name} (--no-deps will do)" if file.package is not None else ""
    raise InputError(
        f"{file.name} of {recipe.name} is not on this machine and cannot be downloaded ({', '.join(failures)})",
        f"connect to the network, or set GRAPHCL_DATA to a folder that holds {recipe.name}/{file.name}{shipped}",
    )


def _check_counts(recipe: InteractionRecipe, log: Interactions) -> None:
    counts = {"users": log.num_users, "items": log.num_items, "interactions": log.num_interactions}
    for name, expected in recipe.counts.items():
        if counts[name] != expected:
            raise InputError(
                f"{recipe.name} has {counts[name]} {name}, its recipe expects {expected}",
                "mend the recipe or the file",
                path=log.report.source,
            )
