"""Several settings with several seeds each: a run a combination under one folder, each of which resumes by itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphcl.errors import InputError
from graphcl.pipelines import create_pipeline
from graphcl.pipelines.base import Pipeline
from graphcl.pipelines.runs import CONFIG, MANIFEST, RunFolder, make_folder, write_json

__all__ = ["SWEEP", "Sweep", "SweepRun", "plan_sweep"]

SWEEP = "sweep.json"


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        folder: where it goes.
        setting: the settings that the sweep varies.
        seed: of every draw.
        pipeline: not yet fitted.
    """

    folder: Path
    setting: Mapping[str, Any]
    seed: int
    pipeline: Pipeline


@dataclass(frozen=True)
class Sweep:
    """A plan: every setting is trained with the same seeds, and so gets the same budget.

    Attributes:
        model: name of the model.
        out: folder of the runs.
        alternatives: the settings that vary, with their values.
        seeds: of each setting.
        runs: setting by setting, seed by seed.
    """

    model: str
    out: Path
    alternatives: Mapping[str, Sequence[Any]]
    seeds: tuple[int, ...]
    runs: tuple[SweepRun, ...]

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready, or refuse; writes ``sweep.json``.

        Args:
            resume: keep complete runs, continue the others.
            overwrite: train all runs again.

        Raises:
            InputError: the folder holds a single run, another sweep's files, or a sweep and neither is given.
        """
        if resume and overwrite:
            raise InputError("resume and overwrite exclude each other", "give one of them", path=self.out)
        if self.out.exists() and not self.out.is_dir():
            raise InputError("is a file, not a folder", "give another path", path=self.out)
        if (self.out / CONFIG).is_file():
            raise InputError("holds a single run", "give another folder for the sweep", path=self.out)
        present = [entry.name for entry in self.out.iterdir()] if self.out.exists() else []
        if present and SWEEP not in present:
            raise InputError(f"holds other files ({sorted(present)[0]}) and no sweep", "give a new or empty folder",
                             path=self.out)  # fmt: skip
        if present and not (resume or overwrite):
            raise InputError(
                "holds a sweep", "give another folder, --resume to continue it or --overwrite to replace it",
                path=self.out,
            )  # fmt: skip
        make_folder(self.out)
        write_json(self.out / SWEEP, self.to_dict())

    def pending(self, *, resume: bool) -> Iterator[SweepRun]:
        """The runs that are still to be trained: all of them, or under ``resume`` those that are not complete."""
        for run in self.runs:
            if resume and (run.folder / MANIFEST).is_file():
                _require_planned(run)
                continue
            make_folder(run.folder.parent)
            yield run

    def to_dict(self) -> dict[str, Any]:
        """What ``sweep.json`` holds."""
        return {
            "model": self.model,
            "alternatives": {name: list(values) for name, values in self.alternatives.items()},
            "seeds": list(self.seeds),
            "runs": [str(run.folder.relative_to(self.out)) for run in self.runs],
            "budget": "every setting with the same seeds and epochs; the choice among settings is by validation alone",
        }


def plan_sweep(
    model: str,
    out: str | Path,
    settings: Mapping[str, Any],
    alternatives: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
) -> Sweep:
    """Plan the runs of all combinations; every setting is checked before anything is trained.

    The run of a combination is in ``out/<setting>/seed-<k>``, where ``<setting>`` names the values that vary, as in
    ``hidden=32_layers=1``; ``out/seed-<k>`` where none does.

    Args:
        model: name of the model.
        out: folder of the runs.
        settings: settings that all runs share.
        alternatives: further settings, each with the values to try; one value is shared by all runs.
        seeds: of each combination.

    Returns:
        The plan.

    Raises:
        InputError: for an unknown setting or a value out of range, for a seed among the alternatives, and for no seed.

    Complexity:
        O(combinations x seeds).

    Example:
        >>> plan = plan_sweep("sasrec", "runs", {"epochs": 1}, {"hidden": [32, 64]}, seeds=[0, 1])
        >>> [run.folder.as_posix() for run in plan.runs]
        ['runs/hidden=32/seed-0', 'runs/hidden=32/seed-1', 'runs/hidden=64/seed-0', 'runs/hidden=64/seed-1']
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError("a sweep needs seeds that differ", "give at least one seed, each once")
    if "seed" in alternatives:
        raise InputError(
            "the seed is not a setting to choose", "say how many seeds with --seeds, the first with --seed"
        )
    varying = {name: values for name, values in alternatives.items() if len(values) > 1}
    root = Path(out)
    runs = []
    for combination in itertools.product(*alternatives.values()):
        chosen = dict(zip(alternatives, combination, strict=True))
        setting = {name: chosen[name] for name in varying}
        for seed in seeds:
            pipeline = create_pipeline(model, {**settings, **chosen, "seed": seed})
            runs.append(SweepRun(root / _folder_name(setting) / f"seed-{seed}", setting, seed, pipeline))
    folders = [run.folder for run in runs]
    if len(set(folders)) < len(folders):
        raise InputError("two settings of the sweep would share a folder", "give values whose names differ")
    return Sweep(model.lower(), root, varying, tuple(seeds), tuple(runs))


def _folder_name(setting: Mapping[str, Any]) -> str:
    return "_".join(re.sub(r"[^\w.=+-]+", "-", f"{name}={value}").strip("-") for name, value in setting.items())


def _require_planned(run: SweepRun) -> None:
    """Refuse a complete run with other settings than the plan's."""
    saved = RunFolder(run.folder).read_config()
    free = ("pipeline", "progress", "devices", "accelerator")
    for name, value in run.pipeline.get_config().items():
        plain = list(value) if isinstance(value, tuple) else value
        if name not in free and name in saved and saved[name] != plain:
            raise InputError(
                f"was trained with {name}={saved[name]!r}, not {plain!r}",
                "resume with the same settings, or --overwrite", path=run.folder,
            )  # fmt: skip
