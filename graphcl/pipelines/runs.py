"""Run folders: what training leaves behind, written by rename so that nothing half-written is ever seen."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcl.errors import InputError

if TYPE_CHECKING:
    from graphcl.data import IdMap, Interactions, Split

CONFIG = "config.yaml"
HISTORY = "history.csv"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
# The manifest is written last: a folder that has it is complete.
ARTEFACTS = (
    CONFIG,
    "metrics.json",
    HISTORY,
    "model.safetensors",
    "ids.parquet",
    "interactions.parquet",
    "item_map.parquet",
    "analysis.json",
    MANIFEST,
)
_OPTIONAL = ("report.html",)
_TEMPORARY = ".writing-"


def write_by_rename(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and rename it into place.

    Args:
        path: final name; an existing file is replaced in one step.
        write: called with the temporary path.

    Raises:
        InputError: when the place cannot be written.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_by_rename(folder / "a.txt", lambda path: path.write_text("done"))
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    try:
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def _umask() -> int:
    """The permissions that this process withholds from new files; a temporary file withholds more."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def make_folder(path: Path) -> None:
    """Create a folder and those above it.

    Raises:
        InputError: when the place cannot be written.

    Example:
        >>> make_folder(Path(tempfile.mkdtemp()) / "a" / "b")
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot be written: {error.strerror or error}", "choose a place that is writable and has room", path=path
    )


def write_json(path: Path, value: Any) -> None:
    """Write JSON by rename; numbers that JSON does not know (nan, infinity) become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_by_rename(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one line an epoch by rename; columns in the order in which they first occur."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_by_rename(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


@dataclass(frozen=True)
class RunFolder:
    """The files of one training run.

    Args:
        path: the folder.

    Example:
        >>> RunFolder(Path("run")).checkpoints.as_posix()
        'run/checkpoints'
    """

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of the training state."""
        return self.path / CHECKPOINTS

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end and every artefact is there."""
        return all((self.path / name).is_file() for name in ARTEFACTS)

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for training, or refuse.

        Args:
            resume: an earlier run in the folder is to be continued.
            overwrite: an earlier run in the folder is to be deleted.

        Raises:
            InputError: when the folder holds a run and neither is given, holds something that is no run, is a file, or
                cannot be written.
        """
        if resume and overwrite:
            raise InputError("resume and overwrite exclude each other", "give one of them", path=self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError("is a file, not a run folder", "give another path", path=self.path)
        present = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        ours = {*ARTEFACTS, *_OPTIONAL, CHECKPOINTS}
        strangers = sorted(name for name in present - ours if not name.startswith(_TEMPORARY))
        if strangers and not self._holds_our_config():
            raise InputError(
                f"holds other files ({strangers[0]}) and no run", "give a new or empty folder", path=self.path
            )
        if CONFIG in present and not (resume or overwrite):
            state = "a complete run" if self.is_complete else "an unfinished run"
            raise InputError(
                f"holds {state}", "give another folder, --resume to continue it or --overwrite to replace it",
                path=self.path,
            )  # fmt: skip
        make_folder(self.checkpoints)
        if overwrite:
            # The manifest goes first: from then on nobody takes the folder for a complete run.
            for name in (MANIFEST, *ARTEFACTS, *_OPTIONAL):
                (self.path / name).unlink(missing_ok=True)
            for file in self.checkpoints.glob("*.safetensors"):
                file.unlink()
        for folder in (self.path, self.checkpoints):
            for leftover in folder.glob(f"{_TEMPORARY}*"):
                leftover.unlink()

    def _holds_our_config(self) -> bool:
        """Whether there is a ``config.yaml`` and a run wrote it; other programs have files of that name too."""
        try:
            return "pipeline" in self.read_config()
        except InputError:
            return False

    def withdraw(self) -> None:
        """Take away what :meth:`prepare` and the start of training left, unless an epoch was finished."""
        if any(self.checkpoints.glob("*.safetensors")):
            return
        (self.path / CONFIG).unlink(missing_ok=True)
        with suppress(OSError):  # a folder that holds something else stays
            self.checkpoints.rmdir()
            self.path.rmdir()

    def require_complete(self) -> None:
        """Refuse a folder that lacks an artefact.

        Raises:
            InputError: naming the first file that is missing.
        """
        if not self.path.is_dir():
            raise InputError("no such run folder", "give a folder that `graphcl train` wrote", path=self.path)
        for name in ARTEFACTS:
            if not (self.path / name).is_file():
                raise InputError(
                    f"incomplete run folder: {name} is missing", "finish it with `graphcl train ... --resume`",
                    path=self.path,
                )  # fmt: skip

    def read_config(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            InputError: when the file is missing or is not a mapping.
        """
        import yaml

        path = self.path / CONFIG
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", "give a folder that a run wrote", path=path
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError("is not valid YAML", "restore the file or train again", path=path) from error
        if not isinstance(config, dict):
            raise InputError("is not a mapping of settings", "restore the file or train again", path=path)
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the settings of the run."""
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_by_rename(self.path / CONFIG, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def read_json(self, name: str) -> dict[str, Any]:
        """One of the JSON artefacts.

        Raises:
            InputError: when the file is missing or damaged.
        """
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", "give a folder that a run wrote", path=path
            ) from error
        except ValueError as error:
            raise InputError("is not valid JSON", "restore the file or train again", path=path) from error
        if not isinstance(value, dict):
            raise InputError("is not a JSON object", "restore the file or train again", path=path)
        return value

    def write_split(self, split: Split) -> None:
        """Write the id maps and the interactions with the part that each belongs to."""
        import polars as pl

        rows = split.interactions
        ids = pl.concat([_id_table("user", rows.user_ids), _id_table("item", rows.item_ids)])
        write_by_rename(self.path / "ids.parquet", ids.write_parquet)
        columns = {"user": rows.user, "item": rows.item, "part": split.part, "time": rows.time, "value": rows.value}
        table = pl.DataFrame({name: column for name, column in columns.items() if column is not None})
        write_by_rename(self.path / "interactions.parquet", table.write_parquet)

    def read_split(self) -> Split:
        """The split that the run was trained on, as :meth:`write_split` wrote it.

        Raises:
            InputError: when a file is damaged.
        """
        from graphcl.data import Interactions, Split

        ids = _read_parquet(self.path / "ids.parquet", ("role", "id", "kind"))
        table = _read_parquet(self.path / "interactions.parquet", ("user", "item", "part"))
        protocol = self.read_json(MANIFEST).get("data", {}).get("split", "")
        optional = {name: table[name].to_numpy() for name in ("time", "value") if name in table.columns}
        try:
            interactions = Interactions(
                user=table["user"].to_numpy().astype(np.int64),
                item=table["item"].to_numpy().astype(np.int64),
                user_ids=_id_map(ids, "user"),
                item_ids=_id_map(ids, "item"),
                **optional,
            )
            return Split(interactions, table["part"].to_numpy().astype(np.uint8), str(protocol))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"the saved interactions do not fit the saved ids ({error})", "train again", path=self.path
            ) from error


def split_hash(split: Split) -> str:
    """SHA-256 of the interactions and the part that each row belongs to."""
    import hashlib

    digest = hashlib.sha256(split.interactions.content_hash().encode())
    digest.update(np.ascontiguousarray(split.part).tobytes())
    return digest.hexdigest()


def _id_table(role: str, ids: IdMap) -> Any:
    import polars as pl

    series = ids.to_series()
    return pl.DataFrame({"id": series.cast(pl.String)}).select(
        role=pl.lit(role), index=pl.int_range(pl.len(), dtype=pl.Int64), id="id", kind=pl.lit(str(series.dtype))
    )


def _id_map(table: Any, role: str) -> IdMap:
    import polars as pl

    from graphcl.data import IdMap

    rows = table.filter(pl.col("role") == role)
    kind = rows["kind"][0] if rows.height else "String"
    types = {"Int64": pl.Int64, "UInt64": pl.UInt64, "String": pl.String}
    if kind not in types:
        raise InputError(f"unknown id type {kind!r}", "train again")
    return IdMap(rows["id"].cast(types[kind]))


def _read_parquet(path: Path, columns: Sequence[str]) -> Any:
    import polars as pl

    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError("cannot be read as Parquet", "restore the file or train again", path=path) from error
    for column in columns:
        if column not in table.columns:
            raise InputError("column is missing", "restore the file or train again", path=path, column=column)
    return table


def peak_memory_bytes() -> int | None:
    """Peak resident set of this process, None where the system does not tell."""
    with suppress(ImportError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def library_versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on."""
    import platform
    from importlib.metadata import version

    import graphcl

    packages = ("torch", "numpy", "polars", "pytorch-lightning", "safetensors", "pydantic")
    return {
        "python": platform.python_version(),
        "graphcl": graphcl.__version__,
        **{package: version(package) for package in packages},
    }


def describe_data(split: Split, interactions: Interactions | None = None) -> dict[str, Any]:
    """What the manifest says about the data of a run."""
    rows = split.interactions if interactions is None else interactions
    return {
        "source": rows.report.source,
        "hash": split_hash(split),
        "users": rows.num_users,
        "items": rows.num_items,
        "interactions": rows.num_interactions,
        "split": split.protocol,
        "counts": split.counts,
    }
