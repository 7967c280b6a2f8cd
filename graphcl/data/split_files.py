"""Readers of published splits: files that say themselves which interaction is for training, validation or test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphcl.data.ids import IdMap, IntArray
from graphcl.data.interactions import Interactions
from graphcl.data.read_report import ReadReport
from graphcl.data.readers import existing_file
from graphcl.data.splits import TEST, TRAIN, VALID, Split
from graphcl.data.text_table import check_utf8, find_delimiter, first_line
from graphcl.errors import InputError, nearest

if TYPE_CHECKING:
    import polars as pl

    from graphcl.data.registry import Dataset, InteractionRecipe

__all__ = [
    "find_published_split",
    "hold_out_validation",
    "read_json_split",
    "read_labelled_split",
    "read_text_split",
]

_PARTS = ("train", "valid", "test")
# Column blocks of the neighbour lists that were published with Amazon data.
_INCIDENCE_MODALITIES = ("image", "text")
_LABELS = ("x_label", "label", "split", "part")


def read_labelled_split(
    path: str | Path, *, user: str | None = None, item: str | None = None, label: str | None = None
) -> Split:
    """Read a table whose label column names the part of each row, as the ``.inter`` files of MMRec do.

    Args:
        path: delimited text with a header, e.g. ``userID itemID x_label``; a label is 0 (train), 1 (validation) or 2
            (test), or one of these words.
        user: name of the user column, detected when None; likewise item and label.
        item: see user.
        label: see user.

    Returns:
        The split that the file gives, protocol ``given by <column>``; users or items without a training row are named
        in the notes of its read report.

    Raises:
        InputError: no such file or column, an unknown label, a missing id, no training row, or one pair in two parts.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "toy.inter"
        >>> _ = path.write_text("userID\\titemID\\tx_label\\n0\\t5\\t0\\n0\\t6\\t2\\n1\\t6\\t0\\n1\\t5\\t1\\n")
        >>> read_labelled_split(path).part.tolist()
        [0, 2, 0, 1]
    """
    import polars as pl

    from graphcl.data.columns import column_of_role

    file = existing_file(path)
    check_utf8(file)
    _, line = first_line(file)
    mark = find_delimiter(line) or ("\t" if "\t" in line else " ")
    try:
        frame = pl.read_csv(file, separator=mark, infer_schema=False, truncate_ragged_lines=False)
    except pl.exceptions.PolarsError as error:
        raise InputError(str(error).strip().split("\n")[0], "mend the file", path=file) from error
    columns = {
        role: column_of_role(frame.columns, role, given, source=str(file))
        for role, given in (("user", user), ("item", item))
    }
    chosen = label or next((name for name in _LABELS if name in frame.columns), None)
    if chosen is None or chosen not in frame.columns:
        raise InputError(
            f"there is no label column; the columns are {', '.join(map(repr, frame.columns))}",
            f"{nearest(chosen or 'x_label', frame.columns)}name it with label=...",
            path=file,
            column=chosen or "x_label",
        )
    words = frame.get_column(chosen).fill_null("").str.strip_chars()
    known = {**{str(code): code for code in range(3)}, **{word: code for code, word in enumerate(_PARTS)}}
    part = words.replace_strict({**known, "val": VALID, "validation": VALID}, default=-1, return_dtype=pl.Int64)
    if (part < 0).any():
        row = int(np.argmax((part < 0).to_numpy()))
        raise InputError(
            f"unknown label {words[row]!r}", "use 0 for train, 1 for validation and 2 for test", path=file, row=row + 2,
            column=chosen,
        )  # fmt: skip
    ids = {role: frame.get_column(name) for role, name in columns.items()}
    for role, values in ids.items():
        missing = values.is_null() | (values == "")
        if missing.any():
            row = int(np.argmax(missing.to_numpy())) + 2
            raise InputError(
                f"{role} id is missing", "fill it in or drop the row", path=file, row=row, column=columns[role]
            )
    return _split_of(ids["user"], ids["item"], part.to_numpy(), f"given by {chosen}", str(file), "labelled", columns)


def read_json_split(train: str | Path, valid: str | Path | None, test: str | Path) -> Split:
    """Read one JSON object a part, from user to the list of their items.

    Args:
        train: path, e.g. of ``{"0": [5, 7], "1": [6]}``.
        valid: path, or None where the split has no validation part.
        test: path.

    Returns:
        The split, protocol ``given by files``.

    Raises:
        InputError: no such file, no JSON object of lists, no training row, or one pair in two parts.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, text in (("train", '{"0": [5, 7]}'), ("test", '{"0": [6]}')):
        ...     _ = (folder / f"{name}.json").write_text(text)
        >>> read_json_split(folder / "train.json", None, folder / "test.json").counts["test"]
        1
    """
    return _split_of_files({"train": train, "valid": valid, "test": test}, _json_pairs, "json-split")


def read_text_split(train: str | Path, test: str | Path, valid: str | Path | None = None) -> Split:
    """Read one text file a part, a line a user: ``user item item ...``, as LightGCN's data sets are published.

    Args:
        train: path.
        test: path.
        valid: path, or None; :func:`hold_out_validation` draws a validation part where there is none.

    Returns:
        The split, protocol ``given by files``. A user alone on a line has no item in that part.

    Raises:
        InputError: no such file, no training row, or one pair in two parts.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, text in (("train", "0 5 7"), ("test", "0 6")):
        ...     _ = (folder / f"{name}.txt").write_text(text)
        >>> read_text_split(folder / "train.txt", folder / "test.txt").part.tolist()
        [0, 0, 2]
    """
    return _split_of_files({"train": train, "valid": valid, "test": test}, _text_pairs, "text-split")


def find_published_split(path: str | Path) -> Split | None:
    """The split that a file or folder holds, when it looks like one of these formats.

    Args:
        path: a table with a column ``x_label``; or a folder with ``train`` and ``test``, perhaps ``valid`` or ``val``,
            as ``.json`` or ``.txt``.

    Returns:
        The split, None when it is something else.

    Raises:
        InputError: as the readers, once the format is clear.

    Complexity:
        O(1) when it is something else.

    Example:
        >>> import tempfile
        >>> find_published_split(tempfile.mkdtemp()) is None
        True
    """
    place = Path(path).expanduser()
    if place.is_dir():
        for suffix in (".json", ".txt"):
            train, test = place / f"train{suffix}", place / f"test{suffix}"
            if train.is_file() and test.is_file():
                valid = next((file for name in ("valid", "val") if (file := place / f"{name}{suffix}").is_file()), None)
                return read_json_split(train, valid, test) if suffix == ".json" else read_text_split(train, test, valid)
        return None
    if place.suffix.lower() not in (".inter", ".csv", ".tsv", ".txt") or not place.is_file():
        return None
    with place.open("rb") as opened:
        header = opened.readline(10_000).decode("utf-8", errors="replace").replace(",", " ").split()
    return read_labelled_split(place, label="x_label") if "x_label" in header else None


def load_labelled(recipe: InteractionRecipe, paths: Mapping[str, Path]) -> Dataset:
    """Data set of a recipe of the format ``labelled``; see `read_labelled_split`."""
    columns = recipe.columns
    return _dataset(recipe, read_labelled_split(paths["interactions"], user=columns.user, item=columns.item), paths)


def load_json(recipe: InteractionRecipe, paths: Mapping[str, Path]) -> Dataset:
    """Data set of a recipe of the format ``json-split``: files ``interactions`` (train), ``valid`` and ``test``."""
    return _dataset(recipe, read_json_split(paths["interactions"], paths.get("valid"), paths["test"]), paths)


def load_text(recipe: InteractionRecipe, paths: Mapping[str, Path]) -> Dataset:
    """Data set of a recipe of the format ``text-split``: files ``interactions`` (train), ``valid`` and ``test``."""
    return _dataset(recipe, read_text_split(paths["interactions"], paths["test"], paths.get("valid")), paths)


def _dataset(recipe: InteractionRecipe, split: Split, paths: Mapping[str, Path]) -> Dataset:
    """The split with the item features that the recipe ships: ``item_incidence`` or ``item_features.<modality>``."""
    from graphcl.data.features import read_item_features, read_item_incidence
    from graphcl.data.registry import Dataset

    ids = split.interactions.item_ids
    prefix = "item_features."
    vectors = {role.removeprefix(prefix): path for role, path in paths.items() if role.startswith(prefix)}
    features = None
    if "item_incidence" in paths:
        features = read_item_incidence(paths["item_incidence"], ids, _INCIDENCE_MODALITIES)
    elif vectors:
        features = read_item_features(vectors, ids)
    return Dataset(recipe.name, split.interactions, recipe, "as-published", split, features)


def hold_out_validation(split: Split, share: float = 0.1, *, seed: int = 0) -> Split:
    """Move a random share of each user's training rows into validation, for splits that have none.

    Args:
        split: without validation rows.
        share: in (0, 1); of n training rows floor(n share + 1/2) move, and at least one stays.
        seed: of the draw.

    Returns:
        The new split; its protocol says what was done.

    Raises:
        ValueError: a share out of range, or a split that has validation rows.
        InputError: no user has enough rows.

    Complexity:
        O(E log E) time, O(E) memory.

    Example:
        >>> log = Interactions.from_arrays([1] * 11, list(range(11)))
        >>> given = Split(log, np.array([0] * 10 + [2], dtype=np.uint8), "given by files")
        >>> hold_out_validation(given, 0.2).counts["valid"]
        2
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be in (0, 1), got {share}")
    if (split.part == VALID).any():
        raise ValueError("split already has validation rows")
    train = np.flatnonzero(split.part == TRAIN)
    user = split.interactions.user[train]
    order = np.lexsort((np.random.default_rng(seed).random(train.size), user))
    count = np.bincount(user, minlength=split.interactions.num_users)
    place = np.arange(train.size) - (np.cumsum(count) - count)[user[order]]
    moved = np.minimum(np.floor(count * share + 0.5), np.maximum(count - 1, 0))[user[order]] > place
    if not moved.any():
        raise InputError("no user has training rows enough to hold any out", "use a larger share")
    part = split.part.copy()
    part[train[order[moved]]] = VALID
    rows = np.lexsort((np.arange(part.size), part, split.interactions.user))
    protocol = f"{split.protocol}, {share:g} of each user's training rows held out for validation (seed {seed})"
    return Split(split.interactions.take(rows), part[rows], protocol)


def _split_of_files(paths: Mapping[str, Any], read: Any, kind: str) -> Split:
    import polars as pl

    users, items, parts = [], [], []
    for code, name in enumerate(_PARTS):
        if paths[name] is not None:
            user, item = read(existing_file(paths[name]))
            users.append(user)
            items.append(item)
            parts.append(np.full(len(user), code, dtype=np.int64))
    source = str(paths["train"])
    columns = {"user": "user", "item": "item"}
    return _split_of(pl.concat(users), pl.concat(items), np.concatenate(parts), "given by files", source, kind, columns)


def _json_pairs(path: Path) -> tuple[pl.Series, pl.Series]:
    import polars as pl

    check_utf8(path)
    try:
        lists = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"malformed JSON: {error.msg}", "mend the file", path=path, row=error.lineno) from error
    if not isinstance(lists, dict) or not all(isinstance(entry, list) for entry in lists.values()):
        raise InputError("this is no JSON object from users to lists", 'write {"user": [item, ...], ...}', path=path)
    for user, entry in lists.items():
        if any(not isinstance(item, str | int) or isinstance(item, bool) for item in entry):
            raise InputError(f"user {user!r} has an item that is no id", "give ids as integers or text", path=path)
    count = [len(entry) for entry in lists.values()]
    user = pl.Series(list(lists), dtype=pl.String).gather(np.repeat(np.arange(len(count)), count))
    return user, pl.Series([str(item) for entry in lists.values() for item in entry], dtype=pl.String)


def _text_pairs(path: Path) -> tuple[pl.Series, pl.Series]:
    import polars as pl

    check_utf8(path)
    lines = pl.Series("line", path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))
    tokens = lines.str.extract_all(r"\S+")
    tokens = tokens.filter(tokens.list.len() > 1)
    count = tokens.list.len().to_numpy().astype(np.int64) - 1
    return tokens.list.first().gather(np.repeat(np.arange(count.size), count)), tokens.list.slice(1).explode()


def _split_of(
    users: pl.Series,
    items: pl.Series,
    part: IntArray,
    protocol: str,
    source: str,
    kind: str,
    columns: Mapping[str, str],
) -> Split:
    """Rows sorted by user and part; ids that are all canonical integers become integers."""
    from graphcl.data.ids import id_series

    if not (part == TRAIN).any():
        raise InputError("there is no training row", "give the training part", path=source)
    if not (part == TEST).any():
        raise InputError("there is no test row", "give the test part", path=source)
    user_ids, user = IdMap.factorize(id_series(users, infer_integers=True))
    item_ids, item = IdMap.factorize(id_series(items, infer_integers=True))
    repeated = _refuse_overlap(user, item, part, user_ids, item_ids, source)
    order = np.lexsort((np.arange(part.size), part, user))
    report = ReadReport(
        source=source,
        format=kind,
        columns=dict(columns),
        rows_read=part.size,
        rows_kept=part.size,
        identical_rows=repeated,
        repeated_pairs=repeated,
        notes=tuple(_notes(user, item, part, len(user_ids), len(item_ids))),
    )
    log = Interactions(user=user[order], item=item[order], user_ids=user_ids, item_ids=item_ids, report=report)
    return Split(log, part[order].astype(np.uint8), protocol)


def _refuse_overlap(
    user: IntArray, item: IntArray, part: IntArray, user_ids: IdMap, item_ids: IdMap, source: str
) -> int:
    """Refuse a pair that is in two parts, a leak; returns how many rows repeat a pair within a part."""
    key = user * np.int64(len(item_ids)) + item
    order = np.lexsort((part, key))
    same = np.diff(key[order]) == 0
    leak = same & (np.diff(part[order]) != 0)
    if leak.any():
        row = order[int(np.argmax(leak))]
        names = [_PARTS[part[order[int(np.argmax(leak)) + step]]] for step in (0, 1)]
        raise InputError(
            f"user {user_ids.external[user[row]]} and item {item_ids.external[item[row]]} are both in {names[0]} and "
            f"in {names[1]}",
            "keep the pair in one part",
            path=source,
        )
    return int(same.sum())


def _notes(user: IntArray, item: IntArray, part: NDArray[np.int64], num_users: int, num_items: int) -> Sequence[str]:
    """What a person should know about users and items that training never meets."""
    train = part == TRAIN
    cold_user = np.bincount(user[train], minlength=num_users) == 0
    cold_item = np.bincount(item[train], minlength=num_items) == 0
    test = part == TEST
    out = []
    if cold_user.any():
        tested = int((np.bincount(user[test], minlength=num_users)[cold_user] > 0).sum())
        out.append(f"{int(cold_user.sum())} users have no training row, {tested} of them have test rows")
    if cold_item.any():
        tested = int(cold_item[item[test]].sum())
        out.append(f"{int(cold_item.sum())} items have no training row, {tested} test rows are of them")
    return out
