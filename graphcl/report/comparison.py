"""Runs side by side: grouped by model and settings, averaged over seeds, and tested against one group."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from graphcl.errors import InputError, nearest
from graphcl.metrics import PairedTest, holm, paired_t_test, per_query_metrics
from graphcl.pipelines.runs import CONFIG, MANIFEST, METRICS, TEST_RANKS, RunFolder

__all__ = ["Comparison", "Group", "Run", "compare_runs", "find_runs"]

# What a run is repeated over, and what does not change what an epoch computes.
_NOT_SETTINGS = ("pipeline", "model", "seed", "progress", "devices", "accelerator")
# A metric means something else when one of these differs; other differences in the protocol are told in a note.
_SAME_PROTOCOL = ("split", "part", "ranking", "seen items", "ties", "users evaluated", "targets")
_BUDGET = ("epochs", "patience")
_LOWER_IS_BETTER = ("conductance", "uniformity", "nll", "mae", "rmse", "brier", "loss")
_PREFERRED = ("NDCG@20", "macro_f1", "accuracy", "nmi")
_DEEPEST = 3


@dataclass(frozen=True)
class Run:
    """What a comparison reads of one run.

    Attributes:
        path: its folder.
        model: name of the model.
        seed: of every draw.
        settings: all other settings that change what is computed.
        data: the data as the manifest describes them.
        protocol: how the metrics were measured.
        validation, test: metrics by name.
        metric: the validation metric that chose the epoch; None where none did.
        seconds: wall time of the training.
    """

    path: Path
    model: str
    seed: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    validation: Mapping[str, float]
    test: Mapping[str, float]
    metric: str | None
    seconds: float | None


@dataclass(frozen=True)
class Group:
    """Runs of one model with one setting, a run a seed.

    Attributes:
        name: the model, and the settings that tell the group from others of the model.
        runs: in the order of the seeds.
        against_seeds: paired over the seeds that it shares with the reference; None for the reference itself.
        against_users: paired over users, each with the mean over the shared seeds; None without saved ranks.
        p_seeds, p_users: the p-values after Holm's correction.
        chosen: whether its mean validation metric is the best of its model's.
    """

    name: str
    runs: tuple[Run, ...]
    against_seeds: PairedTest | None = None
    against_users: PairedTest | None = None
    p_seeds: float | None = None
    p_users: float | None = None
    chosen: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, rising."""
        return tuple(run.seed for run in self.runs)

    def values(self, metric: str, part: str = "test") -> npt.NDArray[np.float64]:
        """[runs] values of a metric; empty where a run has none."""
        tables = [run.test if part == "test" else run.validation for run in self.runs]
        if any(metric not in table for table in tables):
            return np.empty(0)
        return np.array([table[metric] for table in tables], dtype=np.float64)

    def summary(self, metric: str, part: str = "test") -> dict[str, float | None]:
        """Mean, and sample deviation (divisor n - 1) where there are two runs."""
        values = self.values(metric, part)
        return {
            "mean": float(values.mean()) if values.size else None,
            "deviation": float(values.std(ddof=1)) if values.size > 1 else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Groups of runs, best first by one metric.

    Attributes:
        metric: the metric that orders and tests them.
        groups: best mean first.
        reference: name of the group that the others are tested against.
        metrics: every test metric that all runs have.
        notes: what a reader has to know to read the table.
        tried: settings of each model that were compared.
    """

    metric: str
    groups: tuple[Group, ...]
    reference: str
    metrics: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    tried: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "metric": self.metric,
            "reference": self.reference,
            "tests": {
                "seeds": "paired t-test over the seeds shared with the reference, two-sided",
                "users": "paired t-test over users, each with the mean over the shared seeds, two-sided",
                "correction": "Holm over the groups, each test by itself",
            },
            "groups": [self._record(group) for group in self.groups],
            "settings_tried": dict(self.tried),
            "notes": list(self.notes),
        }

    def _record(self, group: Group) -> dict[str, Any]:
        def test(found: PairedTest | None, corrected: float | None) -> dict[str, Any] | None:
            return None if found is None else {**found._asdict(), "p_holm": corrected}

        times = [run.seconds for run in group.runs if run.seconds is not None]
        return {
            "name": group.name,
            "model": group.runs[0].model,
            "settings": dict(group.runs[0].settings),
            "seeds": list(group.seeds),
            "runs": [str(run.path) for run in group.runs],
            "test": {name: group.summary(name) for name in self.metrics},
            "validation": {
                name: group.summary(name, "validation")
                for name in self.metrics
                if group.values(name, "validation").size
            },
            "values": group.values(self.metric).tolist(),
            "against_reference": {
                "seeds": test(group.against_seeds, group.p_seeds),
                "users": test(group.against_users, group.p_users),
            },
            "best_by_validation": group.chosen,
            "mean_wall_seconds": float(np.mean(times)) if times else None,
        }


def find_runs(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders: those given, and those inside given folders, as a sweep leaves them.

    Args:
        paths: run folders, or folders that hold some.

    Returns:
        Each once, in the order of the paths.

    Raises:
        InputError: no such folder, or no run in it.

    Complexity:
        O(files below the folders), at most three levels deep.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            raise InputError("no such run folder", "give a folder that `graphcl train` wrote", path=path)
        inside = [path] if (path / CONFIG).is_file() else _runs_below(path, _DEEPEST)
        if not inside:
            raise InputError("holds no run", "give a folder that `graphcl train` wrote", path=path)
        found |= dict.fromkeys(inside)
    return list(found)


def _runs_below(path: Path, depth: int) -> list[Path]:
    runs = []
    for entry in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        if (entry / CONFIG).is_file():
            runs.append(entry)
        elif depth > 1:
            runs += _runs_below(entry, depth - 1)
    return sorted(runs, key=lambda run: (str(run.parent), len(run.name), run.name))


def compare_runs(
    paths: Sequence[str | Path], by: str | None = None, *, reference: str | None = None, best: bool = False
) -> Comparison:
    """Group runs by model and settings, average over the seeds, and test every group against one.

    Args:
        paths: run folders, or folders that hold some.
        by: test metric that orders and tests the groups; by default the one that chose the epochs.
        reference: name of the group that the others are tested against; by default that of the first run.
        best: of each model keep the setting with the best mean validation metric. No test metric takes part in it.

    Returns:
        The comparison.

    Raises:
        InputError: an incomplete run, runs of other data or measured by another protocol, one seed twice, an unknown
            metric or group, or ``best`` without validation metrics.

    Complexity:
        O(runs x users) where ranks are saved.

    Example:
        >>> compare_runs(["no-such-run"])
        Traceback (most recent call last):
        graphcl.errors.InputError: no-such-run: no such run folder; give a folder that `graphcl train` wrote
    """
    runs = [_read_run(path) for path in find_runs(paths)]
    notes = _require_comparable(runs)
    metric, common = _metric(runs, by)
    groups = _grouped(runs)
    tried = {
        model: sum(group.runs[0].model == model for group in groups) for model in dict.fromkeys(r.model for r in runs)
    }
    groups = _with_choice(groups, metric)
    if best:
        if not any(group.chosen for group in groups):
            raise InputError(
                f"no run has the validation metric {metric}", "compare without --best, or --by another one"
            )
        groups = [group for group in groups if group.chosen]
        if len(set(tried.values())) > 1:
            counts = ", ".join(f"{model} {count}" for model, count in tried.items())
            notes.append(f"the models were not given equal budgets: settings tried: {counts}")
    names = [group.name for group in groups]
    if reference is not None and reference not in names:
        raise InputError(
            f"there is no group {reference!r}", f"{nearest(reference, names)}the groups are {'; '.join(names)}"
        )
    base = next(group for group in groups if group.name == (reference or names[0]))
    tested = _tested(groups, base, metric)
    sign = 1 if _lower_is_better(metric) else -1
    ordered = sorted(tested, key=lambda group: sign * float(group.values(metric).mean()))
    return Comparison(metric, tuple(ordered), base.name, common, (*notes, *_notes(ordered, base)), tried)


def _read_run(path: Path) -> Run:
    folder = RunFolder(path)
    for name in (METRICS, MANIFEST):
        if not (path / name).is_file():
            raise InputError(
                f"incomplete run: {name} is missing",
                "finish it with `graphcl train ... --resume`, or leave it out",
                path=path,
            )
    config, metrics, manifest = folder.read_config(), folder.read_json(METRICS), folder.read_json(MANIFEST)
    try:
        return Run(
            path=path,
            model=str(config["model"]),
            seed=int(manifest["seed"]),
            settings={name: value for name, value in config.items() if name not in _NOT_SETTINGS},
            data=manifest["data"],
            protocol={"task": manifest.get("pipeline"), **metrics.get("protocol", {})},
            validation=_numbers(metrics.get("validation")),
            test=_numbers(metrics["test"]),
            metric=config.get("metric"),
            seconds=manifest.get("wall_seconds"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"is not a run that this version wrote ({error!r})", "train again", path=path) from error


def _numbers(table: Any) -> dict[str, float]:
    return {name: float(value) for name, value in (table or {}).items() if isinstance(value, int | float)}


def _require_comparable(runs: Sequence[Run]) -> list[str]:
    """Refuse runs whose numbers do not mean the same; notes on smaller differences."""
    first, notes = runs[0], []
    for run in runs[1:]:
        if run.data.get("hash") != first.data.get("hash"):
            raise InputError(
                f"trained on other data or another split than {first.path} ({_data(run)}, not {_data(first)})",
                "compare runs of one data set", path=run.path,
            )  # fmt: skip
        for name in _SAME_PROTOCOL:
            ours, theirs = run.protocol.get(name), first.protocol.get(name)
            if ours != theirs:
                raise InputError(
                    f"measured by another protocol than {first.path}: {name} is {ours!r}, not {theirs!r}",
                    "train both with the same protocol", path=run.path,
                )  # fmt: skip
    for name in dict.fromkeys(name for run in runs for name in run.protocol if name not in _SAME_PROTOCOL):
        found = {run.model: run.protocol.get(name, "not stated") for run in runs}
        if len({str(value) for value in found.values()}) > 1:
            notes.append(
                f"the protocols differ in {name}: " + "; ".join(f"{model}: {text}" for model, text in found.items())
            )
    return notes


def _data(run: Run) -> str:
    hashed = str(run.data.get("hash"))[:12]
    return f"{Path(str(run.data.get('source'))).name}, hash {hashed}"


def _metric(runs: Sequence[Run], by: str | None) -> tuple[str, tuple[str, ...]]:
    common = [name for name in runs[0].test if all(name in run.test for run in runs)]
    if not common:
        raise InputError("the runs have no test metric in common", "compare runs of one task", path=runs[0].path)
    if by is not None:
        if by not in common:
            raise InputError(
                f"not every run has the metric {by!r}", f"{nearest(by, common)}use one of {', '.join(common)}"
            )
        return by, tuple(common)
    wanted = [name for name in (runs[0].metric, *_PREFERRED) if name in common]
    return (wanted or common)[0], tuple(common)


def _lower_is_better(metric: str) -> bool:
    return metric.partition("@")[0].lower() in _LOWER_IS_BETTER


def _grouped(runs: Sequence[Run]) -> list[Group]:
    by_settings: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        key = (run.model, json.dumps(run.settings, sort_keys=True, default=str))
        by_settings.setdefault(key, []).append(run)
    names = _names([members[0] for members in by_settings.values()])
    groups = []
    for name, members in zip(names, by_settings.values(), strict=True):
        ordered = sorted(members, key=lambda run: run.seed)
        for earlier, later in pairwise(ordered):
            if earlier.seed == later.seed:
                raise InputError(
                    f"is {name} with seed {later.seed}, and so is {earlier.path}",
                    "leave one of them out",
                    path=later.path,
                )
        groups.append(Group(name, tuple(ordered)))
    return groups


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each setting: the model, and what tells it from other settings of the model."""
    names = []
    for run in runs:
        siblings = [other.settings for other in runs if other.model == run.model]
        every = dict.fromkeys(name for settings in siblings for name in settings)
        varying = [name for name in every if any(other.get(name) != siblings[0].get(name) for other in siblings)]
        names.append(" ".join([run.model, *(f"{name}={run.settings.get(name)}" for name in varying)]))
    return names


def _with_choice(groups: Sequence[Group], metric: str) -> list[Group]:
    """Mark the setting of each model with the best mean validation metric."""
    sign = -1 if _lower_is_better(metric) else 1
    chosen: dict[str, tuple[float, str]] = {}
    for group in groups:
        values = group.values(metric, "validation")
        if values.size:
            score = sign * float(values.mean())
            model = group.runs[0].model
            if model not in chosen or score > chosen[model][0]:
                chosen[model] = (score, group.name)
    kept = {name for _, name in chosen.values()}
    return [replace(group, chosen=group.name in kept) for group in groups]


def _tested(groups: Sequence[Group], base: Group, metric: str) -> list[Group]:
    seeds = [None if group is base else _over_seeds(group, base, metric) for group in groups]
    users = [None if group is base else _over_users(group, base, metric) for group in groups]
    p_seeds = holm([None if test is None else test.p for test in seeds])
    p_users = holm([None if test is None else test.p for test in users])
    return [
        replace(group, against_seeds=seed_test, against_users=user_test, p_seeds=p_seed, p_users=p_user)
        for group, seed_test, user_test, p_seed, p_user in zip(groups, seeds, users, p_seeds, p_users, strict=True)
    ]


def _shared(group: Group, base: Group) -> list[tuple[Run, Run]]:
    other = {run.seed: run for run in base.runs}
    return [(run, other[run.seed]) for run in group.runs if run.seed in other]


def _over_seeds(group: Group, base: Group, metric: str) -> PairedTest | None:
    pairs = _shared(group, base)
    if not pairs:
        return None
    return paired_t_test([mine.test[metric] for mine, _ in pairs], [theirs.test[metric] for _, theirs in pairs])


def _over_users(group: Group, base: Group, metric: str) -> PairedTest | None:
    pairs = _shared(group, base)
    tables = [[_per_user(run, metric) for run in side] for side in zip(*pairs, strict=True)]
    found = [table for side in tables for table in side if table is not None]
    if not pairs or len(found) < 2 * len(pairs):
        return None
    users = found[0][0]
    if any(not np.array_equal(table[0], users) for table in found):
        return None
    mine, theirs = (np.mean([values for table in side if table for values in table[1:]], axis=0) for side in tables)
    return paired_t_test(mine, theirs)


def _per_user(run: Run, metric: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """Users and their values of a metric, from the saved ranks; None without them or for a metric of another kind."""
    path = run.path / TEST_RANKS
    name, _, cutoff = metric.partition("@")
    if not path.is_file() or not cutoff.isdigit():
        return None
    try:
        table = pl.read_parquet(path).select("user", pl.col("rank").fill_null(float("inf")))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError("cannot be read as ranks of users", "train again, or delete the file", path=path) from error
    users, counts = np.unique(table["user"].to_numpy(), return_counts=True)
    ranks = torch.tensor(table.sort("user", maintain_order=True)["rank"].to_list(), dtype=torch.float64)
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
    values = per_query_metrics(ranks, offsets, ks=[int(cutoff)])
    return (users.astype(np.int64), values[metric].numpy()) if metric in values else None


def _notes(groups: Sequence[Group], base: Group) -> list[str]:
    notes = []
    if len(groups) == 1:
        return ["one group: nothing to test"]
    others = [group for group in groups if group.name != base.name]
    untested = [group.name for group in others if group.against_seeds is None or group.against_seeds.p is None]
    if untested:
        notes.append(f"no test over seeds for {'; '.join(untested)}: it needs two seeds shared with {base.name}")
    if any(group.against_users is None for group in others):
        notes.append("no test over users where the runs saved no ranks of users, or the metric is not one of users")
    counts = {len(group.runs) for group in groups}
    if len(counts) > 1:
        notes.append("the groups have different numbers of seeds; tests use the shared ones")
    for name in _BUDGET:
        found = {group.name: group.runs[0].settings.get(name) for group in groups}
        if len({str(value) for value in found.values()}) > 1:
            notes.append(f"{name} differ: " + "; ".join(f"{group}: {value}" for group, value in found.items()))
    return notes
