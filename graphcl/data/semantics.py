"""Semantic vectors of items and histories: from attributes, text, co-occurrence in training, or files of your own.

They are what SRA-CL retrieves by (Cui et al. 2025, https://arxiv.org/abs/2503.04162). Whatever learns from interactions
here sees training rows alone.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphcl.data.features import FloatArray, ItemFeatures, read_item_features
from graphcl.data.ids import IdMap
from graphcl.data.interactions import Sequences
from graphcl.data.readers import read_features
from graphcl.data.sentence_encoder import OFFLINE_MODEL, Encoder, encode_texts
from graphcl.data.splits import Split
from graphcl.errors import InputError, nearest

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_array

__all__ = [
    "SemanticVectors",
    "attribute_vectors",
    "cooccurrence_vectors",
    "feature_vectors",
    "file_vectors",
    "history_vectors",
    "join_vectors",
    "prefix_vectors",
    "semantic_vectors",
    "text_vectors",
]


class _Allowed(NamedTuple):
    """What a setting may be: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _numbers(words: str, least: float, most: float) -> _Allowed:
    # NaN lies in no range. Yes and no, which Python counts as 1 and 0, are no numbers here.
    return _Allowed(words, lambda value: _is_a(Real, value) and least <= value <= most)


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


_COUNT = _Allowed("an integer of at least 1", lambda value: _is_a(Integral, value) and value >= 1)
_FINITE = _numbers("a finite number", -sys.float_info.max, sys.float_info.max)
_SHARE = _numbers("a number from 0 to 1", 0, 1)
# Vectors are float32: a part of far smaller weight would vanish, and one of far larger weight overflow.
_WEIGHT = _numbers("a number from 1e-6 to 1e6", 1e-6, 1e6)
_MODEL = _Allowed("the name or folder of a model", lambda value: isinstance(value, str))
_ENCODER = _Allowed("a function from texts to vectors", lambda value: value is None or callable(value))

#: Settings of each part beside its weight; a file has none.
_SETTINGS: dict[str, dict[str, _Allowed]] = {
    "attributes": {"width": _COUNT},
    "cooccurrence": {"width": _COUNT, "window": _COUNT, "shift": _FINITE, "context": _SHARE},
    "features": {"width": _COUNT},
    "text": {"model": _MODEL, "batch_size": _COUNT, "encode": _ENCODER},
}


@dataclass(frozen=True, eq=False)
class SemanticVectors:
    """A vector of unit length for each item that has one.

    Attributes:
        item_ids: the catalogue; row i belongs to internal id i.
        vectors: float32[I, D]; zero where an item has none.
        present: bool[I], which items have one.

    Example:
        >>> made = SemanticVectors(IdMap([3, 7]), np.eye(2, dtype=np.float32), np.array([True, True]))
        >>> made.vectors.shape
        (2, 2)
    """

    item_ids: IdMap
    vectors: FloatArray
    present: NDArray[np.bool_]

    def content_hash(self) -> str:
        """SHA-256 of the vectors, as 64 hexadecimal digits."""
        return hashlib.sha256(np.ascontiguousarray(self.vectors).tobytes() + self.present.tobytes()).hexdigest()


def semantic_vectors(
    split: Split, source: Any, *, features: ItemFeatures | None = None, width: int = 64
) -> SemanticVectors:
    """The vectors that a setting asks for.

    Args:
        split: gives the catalogue, the attributes of the items and, for co-occurrence, the training rows.
        source: ``attributes``, ``cooccurrence``, ``text``, ``features``, or the path of a file keyed by item id; some
            of them joined side by side, as a list or in the form ``attributes+cooccurrence``; or a mapping from such to
            settings of its function, as in ``{"attributes": {"width": 64}, "cooccurrence": {"weight": 0.5},
            "llm.npz": {}}``. ``weight``, from 1e-6 to 1e6, scales a part in the join. ``joint`` stands for all that is
            there: the features or else the attributes, where there are any, and co-occurrence.
        features: what ``features`` stands for; the numbers in the table of the items when None.
        width: of each part that is reduced, where its settings do not say.

    Returns:
        The vectors, aligned with the catalogue.

    Raises:
        InputError: an unknown part or setting or a value that it does not accept, no attributes, text or features in
            the data, or a file that cannot be read.
        MissingPackageError: ``text`` without the extra ``[text]``.

    Complexity:
        That of the parts.

    Example:
        >>> from graphcl.data import Interactions, leave_one_out
        >>> log = Interactions.from_arrays([0] * 5 + [1] * 5, [0, 1, 2, 3, 4, 0, 1, 2, 4, 3])
        >>> semantic_vectors(leave_one_out(log), "cooccurrence").present.tolist()
        [True, True, True, False, False]
    """
    known = "features" if features is not None else "attributes"
    there = features is not None or split.interactions.item_features is not None
    every: list[tuple[str, dict[str, Any]]] = [*([(known, {})] if there else []), ("cooccurrence", {})]
    named = [(name, _read_settings(name, settings)) for name, settings in _named_parts(source)]
    parts = [part for name, settings in named for part in (every if name == "joint" else [(name, settings)])]
    if not parts:
        raise InputError("no source of semantic vectors is named", f"name {', '.join(_SETTINGS)}, or a file")
    weights = [float(settings.pop("weight", 1.0)) for _, settings in parts]
    made = [_part(split, name, settings, features, width) for name, settings in parts]
    return made[0] if len(made) == 1 else join_vectors(made, weights)


def _named_parts(source: Any) -> list[tuple[str, Any]]:
    """The sources and their settings, which are not checked yet."""
    if isinstance(source, Mapping):
        named = list(source.items())
    elif isinstance(source, str) and "+" in source and not Path(source).exists():
        named = [(name.strip(), None) for name in source.split("+")]
    elif isinstance(source, Iterable) and not isinstance(source, str):
        named = [(name, None) for name in source]
    else:
        named = [(source, None)]
    for name, _ in named:
        if not isinstance(name, str | Path):
            raise InputError(
                f"a source of semantic vectors is a name or a path, got {name!r}",
                f"name {', '.join(_SETTINGS)}, or a file, or give a mapping from such to their settings",
            )
    return [(str(name), settings) for name, settings in named]


def _read_settings(part: str, settings: Any) -> dict[str, Any]:
    """The settings of a part after their check; numbers may come as the text that YAML makes of 1e-3."""
    if part not in (*_SETTINGS, "joint") and not Path(part).suffix:
        raise InputError(
            f"unknown source of semantic vectors {part!r}",
            f"{nearest(part, (*_SETTINGS, 'joint'))}use {', '.join(_SETTINGS)}, joint, or a file",
        )
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise InputError(f"the settings of {part} are {settings!r}, not a mapping", "give them as name: value")
    allowed = {} if part == "joint" else _allowed(part)
    for name in settings:
        if name not in allowed:
            remedy = f"{nearest(str(name), allowed)}use {', '.join(allowed)}" if allowed else "name its parts instead"
            raise InputError(f"{part} has no setting {name!r}", remedy)
    read = {
        name: _number_of(value) if allowed[name] in (_FINITE, _SHARE, _WEIGHT) else value
        for name, value in settings.items()
    }
    _check_settings(part, **read)
    return read


def _number_of(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _allowed(part: str) -> dict[str, _Allowed]:
    return {**_SETTINGS.get(part, {}), "weight": _WEIGHT}


def _check_settings(part: str, **settings: Any) -> None:
    allowed = _allowed(part)
    for name, value in settings.items():
        if not allowed[name].holds(value):
            raise InputError(f"setting {name!r} of {part} does not accept {value!r}", f"give {allowed[name].words}")


def _part(
    split: Split, name: str, settings: dict[str, Any], features: ItemFeatures | None, width: int
) -> SemanticVectors:
    import polars as pl

    ids = split.interactions.item_ids
    if name == "cooccurrence":
        return cooccurrence_vectors(split, **{"width": width, **settings})
    if name == "features":
        if features is None:
            table = split.interactions.item_features
            if table is None or any(dtype == pl.String for dtype in table.dtypes[1:]):
                raise InputError(
                    "features needs features of the items as numbers",
                    "give item_features, or use attributes or cooccurrence",
                )
            features = read_item_features(table, ids)
        return feature_vectors(features.align(ids), **{"width": width, **settings})
    if name in ("attributes", "text"):
        table = split.interactions.item_features
        if table is None:
            raise InputError(
                f"the data have no table of items, which {name} needs",
                "load them with their features (features=True), give item_features, or use cooccurrence or a file",
            )
        if name == "text":
            return text_vectors(table, ids, **settings)
        return attribute_vectors(table, ids, **{"width": width, **settings})
    return file_vectors(name, ids)


def semantic_files(source: Any) -> list[Path]:
    """The files among the sources that a setting names.

    Args:
        source: as `semantic_vectors` takes it.

    Returns:
        Their paths, which need not exist.

    Example:
        >>> [file.name for file in semantic_files("llm.npz+cooccurrence")]
        ['llm.npz']
    """
    return [Path(name) for name, _ in _named_parts(source) if name not in (*_SETTINGS, "joint") and Path(name).suffix]


def attribute_vectors(
    attributes: pl.DataFrame | Mapping[Any, Sequence[Any]] | str | Path, item_ids: IdMap, *, width: int = 64
) -> SemanticVectors:
    """TF-IDF of the items' attributes, reduced by a singular value decomposition, of unit length.

    With the count :math:`c_{ia}` of attribute a at item i and :math:`n_a` items that have it,
    :math:`x_{ia} = c_{ia} (1 + \\log \\frac{1 + I}{1 + n_a})`, rows scaled to unit length; :math:`X \\approx U S V^T`
    with the ``width`` largest values, and the vectors are the rows of :math:`U S` scaled to unit length.

    Args:
        attributes: a table whose first column is the item id and whose others are text or lists (numbers count as
            words); a mapping from item id to attributes; or a file that `read_features` knows, such as a JSON object
            from ids to lists.
        item_ids: the catalogue.
        width: D, at least 1; less where there are fewer items or attributes.

    Returns:
        The vectors; an item without attributes has none.

    Raises:
        InputError: no column of attributes, an item twice, no known item with an attribute, or a width below 1.

    Complexity:
        O(entries x width) for the decomposition.

    Example:
        >>> made = attribute_vectors({1: ["red", "soap"], 2: ["red", "oil"], 3: ["soap"]}, IdMap([1, 2, 3]), width=2)
        >>> made.vectors.shape, made.present.all()
        ((3, 2), np.True_)
    """
    import polars as pl
    from scipy.sparse import csr_array

    _check_settings("attributes", width=width)
    frame = _as_frame(attributes)
    key, *columns = frame.columns
    if not columns:
        raise InputError("there is no column beside the item id", "give a table with attributes")
    place = item_ids.to_internal(_once(frame.get_column(key)), unknown="ignore")
    tokens = []
    for number, name in enumerate(columns):
        column = frame.get_column(name)
        words = (
            column.cast(pl.List(pl.String))
            if isinstance(column.dtype, pl.List)
            else column.cast(pl.String).str.to_lowercase().str.extract_all(r"\w+")
        )
        tokens.append(
            pl.DataFrame({"item": place, "token": words}).explode("token").drop_nulls().with_columns(column=number)
        )
    entries = pl.concat(tokens).filter((pl.col("item") >= 0) & (pl.col("token") != ""))
    entries = entries.group_by("item", "column", "token").len().sort("column", "token", "item")
    if not entries.height:
        raise InputError("no item of the catalogue has an attribute", "key the attributes by the item ids of the log")
    code = entries.select(pl.struct("column", "token").rank("dense") - 1).to_series().to_numpy().astype(np.int64)
    shape = (len(item_ids), int(code.max()) + 1)
    counts = csr_array((entries["len"].to_numpy().astype(np.float64), (entries["item"].to_numpy(), code)), shape=shape)
    return _reduced(_tf_idf(counts), item_ids, width)


def cooccurrence_vectors(
    split: Split, *, width: int = 64, window: int = 5, shift: float = 0.0, context: float = 0.75
) -> SemanticVectors:
    """Positive pointwise mutual information of items near each other in training histories, reduced and scaled.

    Two items co-occur where they stand at most ``window`` places apart in a user's training sequence. With the counts
    :math:`C`, :math:`M_{ij} = \\max(0, \\log \\frac{C_{ij}}{C_{i \\cdot} p_j} - \\text{shift})`,
    :math:`p_j \\propto C_{\\cdot j}^{\\text{context}}` (Levy and Goldberg 2014,
    https://papers.nips.cc/paper/5477-neural-word-embedding-as-implicit-matrix-factorization), and the vectors are the
    rows of :math:`U \\sqrt S` of :math:`M \\approx U S V^T`, scaled to unit length.

    Args:
        split: its training rows alone are read.
        width: D, at least 1; less in a small catalogue.
        window: places, at least 1.
        shift: subtracted from the information.
        context: power that flattens the counts of the context items, from 0 to 1.

    Returns:
        The vectors; an item that never stands beside another in training has none.

    Raises:
        InputError: no two items stand together in training, or an argument out of range.

    Complexity:
        O(E window + entries x width).

    Example:
        >>> from graphcl.data import Interactions, leave_one_out
        >>> log = Interactions.from_arrays([0] * 5 + [1] * 5, [0, 1, 2, 3, 4, 3, 4, 5, 0, 1])
        >>> made = cooccurrence_vectors(leave_one_out(log), width=2)  # training holds 0, 1, 2 and 3, 4, 5
        >>> cosines = made.vectors @ made.vectors[0]
        >>> bool((cosines[:3] > 0.99).all()), bool((abs(cosines[3:]) < 0.01).all())
        (True, True)
    """
    from scipy.sparse import csr_array

    _check_settings("cooccurrence", width=width, window=window, shift=shift, context=context)
    sequences = split.train_sequences()
    items, size = sequences.items, split.interactions.num_items
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    pairs = []
    for apart in range(1, min(window, max(items.size - 1, 0)) + 1):
        beside = (owner[apart:] == owner[:-apart]) & (items[apart:] != items[:-apart])
        pairs.append(np.stack([items[:-apart][beside], items[apart:][beside]]))
    first, second = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), dtype=np.int64)
    if not first.size:
        raise InputError("no two items stand together in the training histories", "give longer histories")
    counts = csr_array((np.ones(first.size), (first, second)), shape=(size, size))
    both = csr_array(counts + counts.T).tocoo()
    total = np.bincount(both.row, both.data, minlength=size)
    smoothed = total**context / (total**context).sum()
    information = np.log(both.data / (total[both.row] * smoothed[both.col])) - shift
    kept = information > 0
    matrix = csr_array((information[kept], (both.row[kept], both.col[kept])), shape=(size, size))
    if not matrix.nnz:
        raise InputError("no two items stand together more often than by chance", "lower the shift, or use attributes")
    return _reduced(matrix, split.interactions.item_ids, width, power=0.5)


def text_vectors(
    texts: pl.DataFrame | Mapping[Any, str] | str | Path,
    item_ids: IdMap,
    *,
    model: str = OFFLINE_MODEL,
    batch_size: int = 64,
    encode: Encoder | None = None,
) -> SemanticVectors:
    """Vectors of item texts by a sentence encoder (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084).

    Args:
        texts: a table whose first column is the item id, the others being joined as "name: value"; a mapping from item
            id to text; or a file that `read_features` knows.
        item_ids: the catalogue.
        model: see `encode_texts`.
        batch_size: texts a step, at least 1.
        encode: your own encoder instead: a list of texts to ``[n, D]``.

    Returns:
        The vectors; an item without text has none.

    Raises:
        MissingPackageError: without the extra ``[text]`` and without ``encode``.
        InputError: the model cannot be loaded, an item twice, no known item with text, or an argument out of range.

    Complexity:
        One pass of the encoder over every distinct text.

    Example:
        >>> made = text_vectors({1: "red soap", 2: ""}, IdMap([1, 2]), encode=lambda texts: [[3.0, 4.0]] * len(texts))
        >>> made.present.tolist()
        [True, False]
    """
    _check_settings("text", model=model, batch_size=batch_size, encode=encode)
    frame = _as_frame(texts)
    place = item_ids.to_internal(_once(frame.get_column(frame.columns[0])), unknown="ignore")
    lines = _as_texts(frame)
    wanted = [(int(at), line) for at, line in zip(place, lines, strict=True) if at >= 0 and line]
    if not wanted:
        raise InputError("no item of the catalogue has a text", "key the texts by the item ids of the log")
    rows = encode_texts([line for _, line in wanted], model=model, batch_size=batch_size, encode=encode)
    out = np.zeros((len(item_ids), rows.shape[1]), dtype=np.float32)
    out[[at for at, _ in wanted]] = rows
    return _made(out, item_ids)


def feature_vectors(features: ItemFeatures, *, width: int = 64) -> SemanticVectors:
    """Vectors of features that are read already: those of every modality, and lists as reduced TF-IDF, side by side.

    Args:
        features: of the catalogue.
        width: D of a modality that is lists, at least 1; less where there are fewer items or list entries.

    Returns:
        The vectors; an item without any modality has none.

    Raises:
        InputError: there is no modality, or a width below 1.

    Complexity:
        O(I D), and O(entries x width) for lists.

    Example:
        >>> rows = read_item_features({"image": ([7], [[3.0, 4.0]])}, IdMap([3, 7]))
        >>> feature_vectors(rows).present.tolist()
        [False, True]
    """
    from scipy.sparse import csr_array

    _check_settings("features", width=width)
    parts = [_made(table, features.item_ids) for table in features.vectors.values()]
    for lists in features.incidence.values():
        ones, shape = np.ones(lists.node.size), (len(features.item_ids), lists.num_hyperedges)
        counts = csr_array((ones, (lists.node, lists.hyperedge)), shape=shape)
        parts.append(_reduced(_tf_idf(counts), features.item_ids, width))
    return parts[0] if len(parts) == 1 else join_vectors(parts)


def file_vectors(source: Any, item_ids: IdMap) -> SemanticVectors:
    """Vectors of your own, such as those of a language model, keyed by item id and scaled to unit length.

    Args:
        source: npy, npz, parquet, CSV, JSON lines or safetensors, or arrays, as `read_item_features` reads them;
            several modalities in one file are joined.
        item_ids: the catalogue.

    Returns:
        The vectors.

    Raises:
        InputError: as `read_item_features`.

    Complexity:
        O(I D).

    Example:
        >>> file_vectors(([7], [[3.0, 4.0]]), IdMap([3, 7])).vectors.tolist()[1] == [np.float32(0.6), np.float32(0.8)]
        True
    """
    features = read_item_features(source, item_ids)
    parts = [_made(table, item_ids) for table in features.vectors.values()]
    return parts[0] if len(parts) == 1 else join_vectors(parts)


def join_vectors(parts: Sequence[SemanticVectors], weights: Sequence[float] | None = None) -> SemanticVectors:
    """Vectors side by side, each part of unit length times its weight, and the whole of unit length again.

    The cosine of two items that have all parts is the mean of the parts' cosines with the squares of the weights.

    Args:
        parts: of one catalogue.
        weights: one a part, from 1e-6 to 1e6; equal by default.

    Returns:
        The joined vectors; an item that lacks a part is compared by the others.

    Raises:
        InputError: no part, parts of different catalogues, or not one weight in its range for each.

    Complexity:
        O(I D).

    Example:
        >>> def part(*rows):
        ...     return file_vectors(([3, 7], list(rows)), IdMap([3, 7]))
        >>> made = join_vectors([part([1.0, 0.0], [1.0, 0.0]), part([1.0, 0.0], [0.0, 1.0])], [2.0, 1.0])
        >>> round(float(made.vectors[0] @ made.vectors[1]), 3)  # (4 * 1 + 1 * 0) / 5
        0.8
    """
    scales = [1.0] * len(parts) if weights is None else list(weights)
    if not parts:
        raise InputError("there are no vectors to join", "give at least one part")
    if len(scales) != len(parts):
        raise InputError(f"there are {len(scales)} weights for {len(parts)} parts", "give one weight a part")
    for scale in scales:
        if not _WEIGHT.holds(scale):
            raise InputError(f"weight does not accept {scale!r}", f"give {_WEIGHT.words}")
    if any(part.item_ids != parts[0].item_ids for part in parts):
        raise InputError("the vectors are of different catalogues", "make all of them for one catalogue")
    joined = np.concatenate([scale * part.vectors for scale, part in zip(scales, parts, strict=True)], axis=1)
    return _made(joined.astype(np.float32), parts[0].item_ids)


def history_vectors(vectors: SemanticVectors, histories: Sequences) -> FloatArray:
    """The mean of the vectors of each history's items, of unit length; zero where no item has one.

    Args:
        vectors: of the items.
        histories: of each user; give training histories, `Split.train_sequences`, for what training may see.

    Returns:
        float32[U, D].

    Complexity:
        O(E D).

    Example:
        >>> made = SemanticVectors(IdMap([0, 1]), np.eye(2, dtype=np.float32), np.array([True, True]))
        >>> history_vectors(made, Sequences(np.array([0, 2]), np.array([0, 1]))).round(3).tolist()[0][0] > 0.7
        True
    """
    from scipy.sparse import csr_array

    ones = np.ones(histories.items.size, dtype=np.float32)
    rows = csr_array((ones, histories.items, histories.offsets), shape=(len(histories), vectors.vectors.shape[0]))
    return _unit(np.asarray(rows @ vectors.vectors, dtype=np.float32))


def prefix_vectors(vectors: SemanticVectors, split: Split) -> FloatArray:
    """A vector for every prefix of every training history: the mean of the item vectors up to a position.

    Args:
        vectors: of the items.
        split: its training rows alone are read; no validation or test item enters.

    Returns:
        float32[E, D] of unit length, in the order of ``split.train_sequences().items``: row e is the prefix that ends
        with (and holds) item e.

    Complexity:
        O(E D) time and memory.

    Example:
        >>> from graphcl.data import Interactions, leave_one_out
        >>> log = Interactions.from_arrays([0] * 4 + [1] * 4, [0, 1, 2, 3, 3, 2, 1, 0])
        >>> split = leave_one_out(log)  # training holds 0, 1 and 3, 2
        >>> made = SemanticVectors(split.interactions.item_ids, np.eye(4, dtype=np.float32), np.ones(4, dtype=bool))
        >>> (prefix_vectors(made, split) ** 2).round(1).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.5, 0.5]]
    """
    sequences = split.train_sequences()
    sums = np.cumsum(vectors.vectors[sequences.items], axis=0, dtype=np.float64)
    starts = np.repeat(sequences.offsets[:-1], sequences.lengths)
    before = np.where((starts > 0)[:, None], sums[np.maximum(starts - 1, 0)], 0.0)
    return _unit((sums - before).astype(np.float32))


def _as_frame(source: Any) -> pl.DataFrame:
    import polars as pl

    if not isinstance(source, Mapping):
        return read_features(source, "item")
    return pl.DataFrame({"item": list(source), "attributes": list(source.values())}, strict=False)


def _once(ids: pl.Series) -> pl.Series:
    repeated = ids.is_duplicated()
    if repeated.any():
        raise InputError(f"item {ids.filter(repeated)[0]!r} is listed twice", "give an item one row")
    return ids


def _as_texts(frame: pl.DataFrame) -> list[str]:
    names = frame.columns[1:]
    if not names:
        raise InputError("there is no column beside the item id", "give a table with texts")
    lines = []
    for row in frame.select(names).iter_rows():
        filled = [
            (name, ", ".join(map(str, cell)) if isinstance(cell, list | tuple) else str(cell).strip())
            for name, cell in zip(names, row, strict=True)
            if cell is not None
        ]
        parts = [text if len(names) == 1 else f"{name}: {text}" for name, text in filled if text]
        lines.append(". ".join(parts))
    return lines


def _reduced(matrix: csr_array, item_ids: IdMap, width: int, *, power: float = 1.0) -> SemanticVectors:
    """Rows of ``U S^power`` of the largest singular values, of unit length; signs do not depend on chance."""
    from scipy.sparse.linalg import svds

    most = min(matrix.shape)
    if most <= width + 1:
        left, values, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = np.random.default_rng(0).standard_normal(most)
        left, values, _ = svds(matrix, k=width, v0=start)
        left, values = left[:, ::-1], values[::-1]
    kept = min(width, int((values > 1e-10 * values[0]).sum()))
    left = left[:, :kept] * np.where(left[np.abs(left[:, :kept]).argmax(axis=0), np.arange(kept)] < 0, -1.0, 1.0)
    scaled = (left * values[:kept] ** power).astype(np.float32)
    scaled[np.diff(matrix.indptr) == 0] = 0.0
    return _made(scaled, item_ids)


def _tf_idf(counts: csr_array) -> csr_array:
    """Rows of unit length; columns that fewer rows have weigh more."""
    from scipy.sparse import csr_array, diags_array

    rarity = 1 + np.log((1 + counts.shape[0]) / (1 + np.bincount(counts.indices, minlength=counts.shape[1])))
    return _unit_rows(csr_array(counts @ diags_array(rarity)))


def _unit_rows(matrix: csr_array) -> csr_array:
    from scipy.sparse import csr_array, diags_array

    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return csr_array(diags_array(1 / np.maximum(norms, 1e-12)) @ matrix)


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1e-9, rows / np.maximum(norms, 1e-9), 0.0).astype(np.float32)


def _made(rows: FloatArray, item_ids: IdMap) -> SemanticVectors:
    unit = _unit(rows)
    return SemanticVectors(item_ids, unit, np.asarray(unit.any(axis=1), dtype=np.bool_))
