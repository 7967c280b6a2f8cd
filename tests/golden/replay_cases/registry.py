"""Oracle files, their cases, and which function computes which case.

A runner takes a `Case` and returns a dictionary shaped like its expected one, computed from the inputs alone through
the public interface of graphcl. Register it with `@case("id", ...)`; a runner may also be found by the `objective` of
a case. What a runner leaves out counts as a failure, so an expected number is never skipped silently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

Runner: TypeAlias = Callable[["Case"], "Mapping[str, Any] | Partial"]

_RUNNERS: dict[str, Runner] = {}


class NotCovered(Exception):
    """The case cannot be computed here; the message says what it needs."""


@dataclass(frozen=True)
class Partial:
    """Part of the expected numbers, and why the others cannot be computed here."""

    computed: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Document:
    """One oracle file.

    Attributes:
        cases: case id to case, in the order of the file.
        relative, absolute: tolerances in float64 that the file states.
    """

    path: Path
    cases: dict[str, Case]
    relative: float
    absolute: float


@dataclass(frozen=True)
class Case:
    """One case of an oracle file, whatever the format of the file names its parts."""

    id: str
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    computes: str = ""
    objective: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    document: Document | None = None

    def referenced(self, text: str) -> Case:
        """The other case of the same file that a text such as ``"as in case sasrec_encoder"`` or its bare id names."""
        cases = self.document.cases if self.document is not None else {}
        for word in re.findall(r"[\w.]+", text):
            if word in cases:
                return cases[word]
        raise NotCovered(f"the case that {text!r} refers to is not in the file")

    def tolerance(self) -> tuple[float, float]:
        """Relative and absolute tolerance: the case's own where its text states one, else the file's."""
        own = re.search(r"[Tt]olerance (\d[\d.]*(?:e-?\d+)?)", self.computes)
        if own:
            return 0.0, float(own.group(1).rstrip("."))
        if self.document is None:
            return 1e-8, 1e-8
        return self.document.relative, self.document.absolute


def case(*names: str) -> Callable[[Runner], Runner]:
    """Register a runner for these case ids (or objectives)."""

    def register(runner: Runner) -> Runner:
        for name in names:
            if name in _RUNNERS:
                raise ValueError(f"two runners for the case {name!r}")
            _RUNNERS[name] = runner
        return runner

    return register


def runner_of(one: Case) -> Runner | None:
    """The runner of a case by id, by id without a numbered suffix (``name#2``, ``name_2``), or by objective."""
    plain = re.sub(r"(?:[#@/:].*|[_-]\d+)$", "", one.id)
    for name in (one.id, plain, one.objective):
        if name in _RUNNERS:
            return _RUNNERS[name]
    return None


def read_document(path: Path) -> Document:
    """Read an oracle file of any of the known formats.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an oracle file.
    """
    raw = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict) or not isinstance(raw.get("cases"), list | dict):
        raise ValueError("there is no list or table of cases in it")
    named = raw["cases"].items() if isinstance(raw["cases"], dict) else ((None, entry) for entry in raw["cases"])
    relative, absolute = _stated_tolerance(raw)
    document = Document(path, {}, relative, absolute)
    for name, entry in named:
        if not isinstance(entry, dict):
            raise ValueError(f"a case is no table of its parts: {str(entry)[:40]!r}")
        identity = _unused(str(name or entry.get("id") or entry.get("name")), document.cases)
        document.cases[identity] = Case(
            id=identity,
            inputs=entry.get("inputs", {}),
            expected=entry["expected"] if "expected" in entry else entry.get("outputs", {}),
            computes=entry.get("computes", ""),
            objective=entry.get("objective", ""),
            params=entry.get("params", {}),
            document=document,
        )
    real_data = raw.get("real_data", {})
    for name, values in real_data.get("values", {}).items():
        identity = f"real_data.{name}"
        document.cases[identity] = Case(identity, real_data.get("files", {}).get(name, {}), values, document=document)
    return document


def _unused(identity: str, taken: Mapping[str, Any]) -> str:
    """The id itself, or ``id#2`` and so on where a file gives several cases one id, so that none is lost."""
    repeats = (f"{identity}#{number}" for number in count(2))
    return identity if identity not in taken else next(name for name in repeats if name not in taken)


def _stated_tolerance(raw: Mapping[str, Any]) -> tuple[float, float]:
    """Float64 tolerances from the prose of the file, relative and absolute."""
    prose = " ".join(json.dumps(raw.get(key, "")) for key in ("about", "conventions"))
    number = r"(\d[\d.]*(?:e-?\d+)?)"

    def first(pattern: str) -> float | None:
        found = re.search(pattern, prose)
        return float(found.group(1).rstrip(".")) if found else None

    before_float32 = first(rf"rtol {number}(?=[^.]*float64)")
    relative = first(rf"relative tolerance {number}") or before_float32
    absolute = first(rf"atol {number}") or first(rf"(?<!relative )tolerance {number}")
    if relative is None and absolute is None:
        return 1e-8, 1e-8
    # A relative rule alone still needs room for numbers that are zero up to rounding.
    return relative or 0.0, 1e-10 if absolute is None else absolute


def data_file(folder: str, *names: str) -> Path:
    """The first of these files of a data set that is under ``$GRAPHCL_DATA``.

    Raises:
        NotCovered: the variable is not set or no such file is there.
    """
    root = os.environ.get("GRAPHCL_DATA")
    wanted = " or ".join(f"{folder}/{name}" for name in names)
    if not root:
        raise NotCovered(f"needs {wanted} in the folder that GRAPHCL_DATA names")
    for name in names:
        path = Path(root) / folder / name
        if path.is_file():
            return path
    raise NotCovered(f"needs {wanted} in {root}")
