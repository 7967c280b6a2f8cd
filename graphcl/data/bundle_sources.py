"""Where bundles come from: tables, the published layout of CLHE, sessions of a log, and a generator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphcl.data.bundles import Bundles, sorted_bundles, split_bundles
from graphcl.data.features import ItemFeatures, read_item_features, table_features
from graphcl.data.ids import IdMap, IntArray
from graphcl.data.interactions import Interactions
from graphcl.data.read_report import ReadReport
from graphcl.data.readers import existing_file, read_interactions
from graphcl.data.splits import TEST, TRAIN, VALID
from graphcl.errors import InputError, nearest

if TYPE_CHECKING:
    from graphcl.data.registry import BundleRecipe

__all__ = [
    "load_bundles",
    "names_bundles",
    "read_bundle_folder",
    "read_bundle_table",
    "read_bundles",
    "session_bundles",
    "synthetic_bundles",
]

_NAMES = ("bundle", "bundle_id", "bundleid", "basket", "outfit", "playlist", "session", "order", "set", "cart")
_PUBLISHED = ("count.json", "bi_train.txt")
_PARTS = (("bi_valid", VALID), ("bi_test", TEST))
# Files of the published layout and the modality that we call them by.
_FEATURES = {"content_feature": "content", "description_feature": "text"}
_VECTORS = "item_cf_feature"
_ARRAYS = (".npy", ".npz", ".safetensors")


def load_bundles(name_or_path: str | Path, **options: Any) -> Bundles:
    """Load bundles: a registered data set, a folder in the published layout of CLHE, or a table of your own.

    Args:
        name_or_path: registered name; a folder with ``count.json`` and ``bi_train.txt``; or a table, see
            :func:`read_bundles`.
        **options: for a table those of :func:`read_bundles`; for a recipe those of its maker.

    Returns:
        Bundles with parts.

    Raises:
        InputError: an unknown name, a missing file, bad input.

    Complexity:
        O(rows log rows).

    Example:
        >>> load_bundles("synthetic-bundles").counts()["bundles"]
        600
    """
    from graphcl.data.registry import BundleRecipe, list_datasets, recipe_of_kind

    path = Path(name_or_path)
    names = [recipe.name for recipe in list_datasets() if recipe.kind == "bundles"]
    if str(name_or_path) in names:
        return _of_recipe(recipe_of_kind(str(name_or_path), BundleRecipe), options)
    if path.is_dir():
        if options:
            raise InputError(f"{next(iter(options))} does not apply to a folder", "leave it out, or give a table")
        return read_bundle_folder(path)
    if not path.exists() and path.suffix == "" and "/" not in str(name_or_path):
        raise InputError(
            f"there are no bundles {str(name_or_path)!r}",
            f"{nearest(str(name_or_path), names)}the data sets are {', '.join(names)}; or give a file or folder",
        )
    return read_bundles(path, **options)


def _of_recipe(recipe: BundleRecipe, options: Mapping[str, Any]) -> Bundles:
    known = {**recipe.options, **(recipe.generator or {})}
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r}", f"{nearest(name, known)}use one of: {', '.join(known)}")
    arguments = {**known, **options}
    try:
        if recipe.generator is not None:
            return synthetic_bundles(**arguments)
        from graphcl.data.registry import load_dataset

        base = load_dataset(str(recipe.base), features=True)
        return session_bundles(base.interactions, **arguments)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"an option of {recipe.name} does not fit: {error}", "give a number") from error


def read_bundles(
    source: Any,
    *,
    interactions: Any = None,
    features: Any = None,
    vectors: Any = None,
    bundle: str | None = None,
    item: str | None = None,
    seed: int = 0,
    shown: float = 0.5,
    ratios: tuple[float, float, float] = (0.7, 0.1, 0.2),
) -> Bundles:
    """Read bundles from tables: rows (bundle, item), rows (user, item), and features of the items.

    Args:
        source: path or frame with a row an item of a bundle, in any format of `read_interactions`.
        interactions: path or frame with a row an interaction of a user with an item; None for none.
        features: modality -> source as `read_item_features` takes them, or the path of a table of attributes, whose
            columns become modalities; None for none.
        vectors: source of one table of item vectors learned from feedback, which then need no interactions.
        bundle: name of the bundle column, detected when None.
        item: name of the item column, detected when None.
        seed, shown, ratios: of `split_bundles`.

    Returns:
        Bundles with parts over a catalogue of all items of the bundles and the interactions.

    Raises:
        InputError: bad input; names file, row or column, and the remedy.

    Complexity:
        O(rows log rows).

    Example:
        >>> import polars as pl
        >>> table = pl.DataFrame({"bundle": [f"b{n // 3}" for n in range(30)], "item": [n % 8 for n in range(30)]})
        >>> read_bundles(table).num_items
        8
    """
    made = undivided_bundles(
        source, interactions=interactions, features=features, vectors=vectors, bundle=bundle, item=item
    )
    return split_bundles(made, tuple(ratios), shown=shown, seed=seed)  # type: ignore[arg-type]


def undivided_bundles(
    source: Any,
    *,
    interactions: Any = None,
    features: Any = None,
    vectors: Any = None,
    bundle: str | None = None,
    item: str | None = None,
    on_bad_rows: Literal["raise", "drop"] = "raise",
) -> Bundles:
    """What `read_bundles` reads before it divides the bundles into parts; the arguments are its own."""
    table = read_bundle_table(source, bundle=bundle, item=item, on_bad_rows=on_bad_rows)
    log = None if interactions is None else read_interactions(interactions, on_bad_rows=on_bad_rows)
    known: dict[str, Any] = {}
    if log is not None:
        known["log"], table = _on_one_catalogue(log, table)
    if features is not None:
        known["features"] = _features_of(features, table.item_ids)
    if vectors is not None:
        tables = read_item_features(vectors, table.item_ids).vectors
        if len(tables) > 1:
            raise InputError(f"there are {len(tables)} tables of item vectors", "give one", path=_path_of(vectors))
        known["vectors"] = next(iter(tables.values()))
    return sorted_bundles(table, **known)


def read_bundle_table(
    source: Any,
    *,
    bundle: str | None = None,
    item: str | None = None,
    on_bad_rows: Literal["raise", "drop"] = "raise",
) -> Interactions:
    """Read a table with a row an item of a bundle.

    Args:
        source: path or frame, in any format of `read_interactions`.
        bundle: name of the bundle column, detected when None.
        item: name of the item column, detected when None.
        on_bad_rows: stop at the first row that cannot be used, or drop such rows and count them.

    Returns:
        The rows, the bundle in the place of the user.

    Raises:
        InputError: bad input; names file, row or column, and the remedy.

    Complexity:
        O(rows).
    """
    return read_interactions(source, user=bundle or _bundle_column(source), item=item, on_bad_rows=on_bad_rows)


def _features_of(source: Any, item_ids: IdMap) -> ItemFeatures:
    from graphcl.data.readers import read_features

    if isinstance(source, Mapping):
        return read_item_features(source, item_ids)
    if isinstance(source, str | Path) and Path(source).suffix in _ARRAYS:
        return read_item_features(source, item_ids)
    return table_features(read_features(source, "item"), item_ids)


def _path_of(source: Any) -> Path | None:
    return Path(source) if isinstance(source, str | Path) else None


def names_bundles(path: Path) -> bool:
    """Whether a file is a table with a column of bundles and none of users, or a folder in the published layout."""
    if path.is_dir():
        return all((path / name).is_file() for name in _PUBLISHED)
    columns = _columns_of(path) if path.is_file() else []
    names = [name.lower().split(":")[0] for name in columns]
    # Sessions, orders and the like may as well be the users of a log.
    return any(name in _NAMES[:6] for name in names) and not any(name.startswith("user") for name in names)


def _bundle_column(source: Any) -> str | None:
    """The name of the bundle column; None where the format has no names, or nothing is recognised."""
    columns = _columns_of(source)
    found = next((name for name in columns if name.lower().split(":")[0] in _NAMES), None)
    if found is None and columns and isinstance(source, str | Path):
        raise InputError(
            f"no bundle column was recognised among {', '.join(map(repr, columns))}",
            "name the column 'bundle', or give bundle=NAME (--load bundle=NAME)",
            path=source,
        )
    return found


def _columns_of(source: Any) -> list[str]:
    """Names of the columns of a table; none where the format has no names, or the reader is to say what is wrong."""
    import polars as pl

    from graphcl.data.text_table import find_delimiter, first_line

    if not isinstance(source, str | Path):
        return [str(name) for name in getattr(source, "columns", ())]
    path = existing_file(source)
    try:
        if path.suffix in (".csv", ".tsv"):
            line = first_line(path)[1]
            return [name.strip().strip('"') for name in line.split(find_delimiter(line) or ",")]
        if path.suffix in (".parquet", ".pq"):
            return list(pl.read_parquet_schema(path))
        if path.suffix in (".jsonl", ".ndjson"):
            return list(json.loads(first_line(path)[1]))
    except (pl.exceptions.PolarsError, OSError, ValueError, TypeError):
        return []
    return []


def _on_one_catalogue(one: Interactions, other: Interactions) -> tuple[Interactions, Interactions]:
    """Two logs over the items of both."""
    import polars as pl

    series = [one.item_ids.to_series(), other.item_ids.to_series()]
    if series[0].dtype != series[1].dtype:
        raise InputError(
            f"item ids are {series[1].dtype} in the bundles and {series[0].dtype} in the interactions",
            "write the ids of one item alike in both",
            path=one.report.source,
        )
    every = IdMap(pl.concat(series).unique())
    moved = [every.to_internal(ids)[log.item] for ids, log in zip(series, (one, other), strict=True)]
    return replace(one, item=moved[0], item_ids=every), replace(other, item=moved[1], item_ids=every)


# The published layout


def read_bundle_folder(path: str | Path) -> Bundles:
    """Read a folder in the layout that CLHE was published with.

    ``count.json`` holds the numbers of users, bundles and items (``#U``, ``#B``, ``#I``); ``ui_full.txt`` and
    ``bi_train.txt``, ``bi_valid_input.txt``, ``bi_valid_gt.txt``, ``bi_test_input.txt``, ``bi_test_gt.txt`` have lines
    ``id, item, item, ...``. Features (``content_feature``, ``description_feature``) and the item vectors of a feedback
    model (``item_cf_feature``) are read as npy, npz or safetensors with a row an item. As published they are pickles of
    torch, which this package never opens.

    Args:
        path: the folder.

    Returns:
        Bundles with the published parts; ids are numbers from 0.

    Raises:
        InputError: a missing file, a line that is no list of ids, an id out of range.

    Complexity:
        O(size of the files).
    """
    folder = Path(path)
    counts = _read_counts(existing_file(folder / "count.json"))
    size = {"bundle": counts["#B"], "item": counts["#I"]}
    bundles, items, part, shown = [], [], np.full(size["bundle"], TRAIN, dtype=np.uint8), []
    files = [(f"{name}_{kind}", code, kind == "input") for name, code in _PARTS for kind in ("input", "gt")]
    for name, code, visible in [("bi_train", TRAIN, True), *files]:
        owner, item = _read_lines(existing_file(folder / f"{name}.txt"), size)
        part[owner] = code
        bundles.append(owner)
        items.append(item)
        shown.append(np.full(owner.size, visible))
    ids = IdMap(np.arange(size["item"]))
    source = ReadReport(str(folder), format="clhe")
    user, item = np.concatenate(bundles), np.concatenate(items)
    visible_rows = np.concatenate(shown)
    order = np.argsort(user, kind="stable")
    keys = user[order] * np.int64(size["item"]) + item[order]
    _, first = np.unique(keys, return_index=True)
    order = order[np.sort(first)]
    repeated = user.size - first.size
    source = replace(source, rows_read=user.size, rows_kept=first.size, repeated_pairs=repeated)
    table = Interactions(user[order], item[order], IdMap(np.arange(size["bundle"])), ids, report=source)
    log = None
    if (folder / "ui_full.txt").is_file():
        users, met = _read_lines(existing_file(folder / "ui_full.txt"), {"user": counts["#U"], "item": size["item"]})
        log = Interactions(users, met, IdMap(np.arange(counts["#U"])), ids, report=source)
    arrays = {modality: _array_file(folder, name) for name, modality in _FEATURES.items()}
    named = {modality: array for modality, array in arrays.items() if array is not None}
    features = read_item_features(named, ids) if named else None
    file = _array_file(folder, _VECTORS)
    vectors = None if file is None else next(iter(read_item_features(file, ids).vectors.values()))
    return Bundles(table, part, visible_rows[order], log, features, vectors, "as published")


def _read_counts(path: Path) -> dict[str, int]:
    try:
        counts = json.loads(path.read_text(encoding="utf-8"))
        return {name: int(counts[name]) for name in ("#U", "#B", "#I")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("this is no JSON with the numbers #U, #B and #I", "write them", path=path) from error


def _read_lines(path: Path, size: Mapping[str, int]) -> tuple[IntArray, IntArray]:
    """Owner and item of every pair in lines ``id, item, item, ...``."""
    owners, items = [], []
    (kind, count), (_, num_items) = size.items()
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            owner, *members = [int(field) for field in line.split(",")]
        except ValueError as error:
            raise InputError(
                f"not a list of ids: {line[:40]!r}", "write 'id, item, item, ...'", path=path, row=row
            ) from error
        for label, value, bound in [(kind, owner, count), *(("item", member, num_items) for member in members)]:
            if not 0 <= value < bound:
                raise InputError(
                    f"{label} {value} is outside 0..{bound - 1}", "mend the line or count.json", path=path, row=row
                )
        owners += [owner] * len(members)
        items += members
    return np.array(owners, dtype=np.int64), np.array(items, dtype=np.int64)


def _array_file(folder: Path, name: str) -> Path | None:
    found = next((folder / f"{name}{suffix}" for suffix in _ARRAYS if (folder / f"{name}{suffix}").is_file()), None)
    if found is None and (folder / f"{name}.pt").is_file():
        raise InputError(
            "is a pickle, which can run code when it is opened",
            f"convert it where you trust it: numpy.save('{name}.npy', torch.load('{name}.pt', weights_only=True))",
            path=folder / f"{name}.pt",
        )
    return found


# Bundles that are made


def session_bundles(
    log: Interactions,
    *,
    gap: float = 300.0,
    min_value: float | None = 4.0,
    min_items: int = 4,
    max_items: int = 20,
    makers: float = 0.8,
    seed: int = 0,
    shown: float = 0.5,
) -> Bundles:
    """Make bundles of the sessions of some users; the interactions of the other users are the feedback.

    The users are divided at random. A maker's log is cut where nothing happened for ``gap`` seconds; of each session
    the items with at least ``min_value`` are kept, cut into pieces of at most ``max_items`` in time order, and each
    piece of at least ``min_items`` is a bundle. No interaction of a maker is among the feedback, so none tells what a
    bundle holds.

    Args:
        log: interactions with times; the item table that comes with it becomes features, a modality a column.
        gap: seconds without an interaction that end a session.
        min_value: least value (rating) of an item in a bundle; None for all.
        min_items: least size of a bundle.
        max_items: most items of a bundle.
        makers: share of the users whose sessions become bundles.
        seed: of the division of users and of the bundles into parts.
        shown: share of the items of a validation or test bundle that is shown.

    Returns:
        Bundles with parts.

    Raises:
        InputError: a log without times, or values where they are asked for, or too few bundles.

    Complexity:
        O(E log E).
    """
    if log.time is None:
        raise InputError("sessions need times", "give a log with a time column", path=log.report.source)
    if min_value is not None and log.value is None:
        raise InputError("there are no values", "set min_value to null", path=log.report.source)
    generator = np.random.default_rng(seed)
    is_maker = np.zeros(log.num_users, dtype=np.bool_)
    is_maker[generator.permutation(log.num_users)[: round(makers * log.num_users)]] = True
    rows = np.flatnonzero(is_maker[log.user])
    rows = rows[np.lexsort((rows, log.time[rows], log.user[rows]))]
    user, time = log.user[rows], np.asarray(log.time, dtype=np.float64)[rows]
    starts = np.ones(rows.size, dtype=np.bool_)
    starts[1:] = (user[1:] != user[:-1]) | (np.diff(time) > gap)
    session = np.cumsum(starts) - 1
    if min_value is not None and log.value is not None:
        liked = log.value[rows] >= min_value
        rows, session = rows[liked], session[liked]
    counts = np.bincount(session, minlength=int(starts.sum()))
    place = np.arange(rows.size) - (np.cumsum(counts) - counts)[session]
    piece = np.unique(session * np.int64(log.num_interactions + 1) + place // max_items, return_inverse=True)[1]
    kept = np.bincount(piece)[piece] >= min_items
    if not kept.any():
        raise InputError("no session is long enough for a bundle", "lower min_items or raise gap")
    ids, bundle = np.unique(piece[kept], return_inverse=True)
    report = replace(log.report, format="sessions")
    table = Interactions(bundle, log.item[rows[kept]], IdMap(np.arange(ids.size)), log.item_ids, report=report)
    others = log.take(np.flatnonzero(~is_maker[log.user]))
    features = None if log.item_features is None else table_features(log.item_features, log.item_ids)
    made = sorted_bundles(table, log=others, features=features)
    return split_bundles(made, shown=shown, seed=seed)


def synthetic_bundles(
    num_bundles: int = 600, num_items: int = 240, num_users: int = 400, *, styles: int = 12, seed: int = 0
) -> Bundles:
    """Draw outfits: items have a style and a kind, a bundle takes one style and many kinds, users like a few styles.

    Content features show the style, with noise; text features the kind. So content and feedback tell which items go
    together, and an item that nobody has met can still be placed by its content.

    Args:
        num_bundles: bundles, at least 10.
        num_items: items, at least 4 a style.
        num_users: users of the log.
        styles: styles.
        seed: of all draws.

    Returns:
        Bundles with parts, a log that never meets one item in ten, and two modalities.

    Raises:
        ValueError: numbers out of range.

    Complexity:
        O(num_bundles num_items).

    Example:
        >>> synthetic_bundles(50, 60, 20, styles=5).features.modalities
        ('content', 'text')
    """
    if num_bundles < 10 or styles < 1 or num_items < 4 * styles or num_users < 1:
        raise ValueError("give at least 10 bundles, one style, one user and 4 items a style")
    generator = np.random.default_rng(seed)
    style, kind = np.arange(num_items) % styles, generator.integers(0, 6, num_items)
    weight = 1.0 / (1.0 + generator.permutation(num_items))
    weight /= weight.sum()

    def draw(owner_style: IntArray, size: IntArray, loyal: float) -> tuple[IntArray, IntArray]:
        fits = [np.where(style == one, weight, 0.0) for one in range(styles)]
        owners, items = [], []
        for owner, (liked, count) in enumerate(zip(owner_style.tolist(), size.tolist(), strict=True)):
            mix = loyal * fits[liked] / fits[liked].sum() + (1.0 - loyal) * weight
            owners.append(np.full(count, owner))
            items.append(generator.choice(num_items, count, replace=False, p=mix))
        return np.concatenate(owners), np.concatenate(items)

    ids = IdMap(np.arange(num_items))
    owner, item = draw(generator.integers(0, styles, num_bundles), generator.integers(3, 9, num_bundles), 0.9)
    report = ReadReport("synthetic-bundles", format="synthetic")
    table = Interactions(owner, item, IdMap(np.arange(num_bundles)), ids, report=report)
    user, met = draw(generator.integers(0, styles, num_users), generator.integers(5, 15, num_users), 0.8)
    warm = generator.random(num_items) >= 0.1
    log = Interactions(user[warm[met]], met[warm[met]], IdMap(np.arange(num_users)), ids, report=report)

    def noisy(index: IntArray, width: int) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = np.eye(width)[index] + 0.3 * generator.standard_normal((num_items, width))
        return rows

    features = read_item_features(
        {"content": (ids.external, noisy(style, styles)), "text": (ids.external, noisy(kind, 6))}, ids
    )
    return split_bundles(sorted_bundles(table, log=log, features=features), seed=seed)
