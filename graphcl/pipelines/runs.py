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
from typing import Any

from graphcl.errors import InputError

CONFIG = "config.yaml"
METRICS = "metrics.json"
HISTORY = "history.csv"
MODEL = "model.safetensors"
ANALYSIS = "analysis.json"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
REPORT = "report.html"
UNLEARNING = "unlearning.json"  # of a model that has forgotten something: what, how, and what is left
TEST_RANKS = "test_ranks.parquet"  # of recommenders: what tests that are paired over users need
_TEMPORARY = ".writing-"


def write_by_rename(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk and rename it into place.

    Args:
        path: final name; an existing file is replaced in one step.
        write: called with the temporary path.

    Raises:
        InputError: when the place is a folder or cannot be written.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_by_rename(folder / "a.txt", lambda path: path.write_text("done"))
        >>> [file.name for file in folder.iterdir()]
        ['a.txt']
    """
    if path.is_dir():
        raise InputError("is a folder, not a file", "name a file to write", path=path)
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

    Every run has its settings, metrics, history, weights, analysis and manifest; a pipeline adds files of its own.

    Args:
        path: the folder.
        pipeline: name of the pipeline that writes or reads the folder; None for any.
        required: the pipeline's own files, without which a run is incomplete.
        optional: files that it may leave beside them.

    Example:
        >>> RunFolder(Path("run"), required=("ids.parquet",)).artefacts[-2:]
        ('ids.parquet', 'manifest.json')
    """

    path: Path
    pipeline: str | None = None
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def artefacts(self) -> tuple[str, ...]:
        """The files of a complete run. The manifest is written last: a folder that has it is complete."""
        return (CONFIG, METRICS, HISTORY, MODEL, ANALYSIS, *self.required, MANIFEST)

    @property
    def checkpoints(self) -> Path:
        """Folder of the training state."""
        return self.path / CHECKPOINTS

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end and every artefact is there."""
        return all((self.path / name).is_file() for name in self.artefacts)

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for training, or refuse.

        Args:
            resume: an earlier run in the folder is to be continued.
            overwrite: an earlier run in the folder is to be deleted.

        Raises:
            InputError: as :meth:`require_free`, or when the folder cannot be written.
        """
        self.require_free(resume=resume, overwrite=overwrite)
        make_folder(self.checkpoints)
        if overwrite:
            # The manifest goes first: from then on nobody takes the folder for a complete run.
            for name in (MANIFEST, *self._ours):
                (self.path / name).unlink(missing_ok=True)
            for file in self.checkpoints.glob("*.safetensors"):
                file.unlink()
        for folder in (self.path, self.checkpoints):
            for leftover in folder.glob(f"{_TEMPORARY}*"):
                leftover.unlink()

    @property
    def _ours(self) -> set[str]:
        """Every file that a run may leave."""
        return {*self.artefacts, *self.optional, UNLEARNING, REPORT}

    def require_free(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Refuse a folder that :meth:`prepare` would refuse; nothing is written.

        Args:
            resume, overwrite: see :meth:`prepare`.

        Raises:
            InputError: when the folder holds a run and neither is given, holds a run of another pipeline or something
                that is no run, or is a file.
        """
        if resume and overwrite:
            raise InputError("resume and overwrite exclude each other", "give one of them", path=self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError("is a file, not a run folder", "give another path", path=self.path)
        present = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        strangers = sorted(name for name in present - self._ours - {CHECKPOINTS} if not name.startswith(_TEMPORARY))
        earlier = self._earlier_pipeline()
        if strangers and earlier is None:
            raise InputError(
                f"holds other files ({strangers[0]}) and no run", "give a new or empty folder", path=self.path
            )
        if self.pipeline is not None and earlier not in (None, self.pipeline):
            raise InputError(
                f"holds a run of the {earlier} pipeline, not of the {self.pipeline} one", "give another folder",
                path=self.path,
            )  # fmt: skip
        if CONFIG in present and not (resume or overwrite):
            state = "a complete run" if self.is_complete else "an unfinished run"
            raise InputError(
                f"holds {state}", "give another folder, --resume to continue it or --overwrite to replace it",
                path=self.path,
            )  # fmt: skip

    def _earlier_pipeline(self) -> str | None:
        """The pipeline of the run that is here; None without a ``config.yaml``, or for that of another program."""
        try:
            name = self.read_config().get("pipeline")
        except InputError:
            return None
        return None if name is None else str(name)

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
        for name in self.artefacts:
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


def peak_memory_bytes() -> int | None:
    """Peak resident set of this process, None where the system does not tell."""
    with suppress(ImportError):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def library_versions(*more: str) -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on, ``more`` packages among them."""
    import platform
    from importlib.metadata import version

    import graphcl

    packages = ("torch", "numpy", "polars", "pytorch-lightning", "safetensors", "pydantic", *more)
    return {
        "python": platform.python_version(),
        "graphcl": graphcl.__version__,
        **{package: version(package) for package in packages},
    }
