"""Replay oracle files through the public interface of graphcl.

    python tests/golden/replay.py FILE...

prints one line a case (``PASS id``, ``FAIL id: ...`` or ``NOT COVERED id: ...``) and a summary. Everything is computed
from the inputs in the files. Exit status: 0 when nothing failed, 1 when a case failed, 2 when a file cannot be read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from replay_cases import Case, NotCovered, Partial, read_document, runner_of

Outcome = Literal["PASS", "FAIL", "NOT COVERED"]
_SHOWN = 3


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    id: str
    outcome: Outcome
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.outcome} {self.id}" + (f": {self.detail}" if self.detail else "")


def replay_file(path: Path) -> Iterator[Result]:
    """Results of the cases of one file, in its order."""
    for one in read_document(path).cases.values():
        yield replay_case(one)


def replay_case(one: Case) -> Result:
    """Compute one case and compare every expected number."""
    runner = runner_of(one)
    if runner is None:
        return Result(one.id, "NOT COVERED", "no runner")
    try:
        computed = runner(one)
    except NotCovered as needs:
        return Result(one.id, "NOT COVERED", str(needs))
    except Exception as error:
        # A case that cannot be computed has failed; the others are still worth replaying.
        return Result(one.id, "FAIL", f"{type(error).__name__}: {error}".replace("\n", " "))
    reason, expected = "", one.expected
    if isinstance(computed, Partial):
        expected = {name: value for name, value in expected.items() if name in computed.computed}
        reason, computed = computed.reason, computed.computed
    faults = list(differences(computed, expected, *one.tolerance()))
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        return Result(one.id, "FAIL", "; ".join(faults[:_SHOWN]) + more)
    if reason:
        return Result(one.id, "NOT COVERED", f"{reason}; {len(expected)} of {len(one.expected)} parts agree")
    if not one.expected:
        return Result(one.id, "NOT COVERED", "the case expects nothing")
    return Result(one.id, "PASS")


def differences(got: Any, expected: Any, relative: float, absolute: float, place: str = "") -> Iterator[str]:
    """One line for every expected entry that is missing or differs."""
    if isinstance(got, torch.Tensor):
        got = got.detach().tolist()
    elif isinstance(got, np.ndarray | np.generic):
        got = got.tolist()
    if isinstance(expected, Mapping):
        for name, value in expected.items():
            inner = f"{place}.{name}" if place else str(name)
            if not isinstance(got, Mapping) or name not in got:
                yield f"{inner} was not computed"
            else:
                yield from differences(got[name], value, relative, absolute, inner)
    elif isinstance(expected, list):
        if not isinstance(got, Sequence) or len(got) != len(expected):
            yield f"{place}: got {_short(got)}, expected a list of {len(expected)}"
            return
        for index, (one, value) in enumerate(zip(got, expected, strict=True)):
            yield from differences(one, value, relative, absolute, f"{place}[{index}]")
    elif isinstance(expected, int | float) and not isinstance(expected, bool):
        if not isinstance(got, int | float) or not _close(float(got), float(expected), relative, absolute):
            yield f"{place}: got {_short(got)}, expected {expected!r}"
    elif got != expected:
        yield f"{place}: got {_short(got)}, expected {expected!r}"


def _close(got: float, expected: float, relative: float, absolute: float) -> bool:
    if math.isnan(expected) or math.isinf(expected):
        return got == expected or (math.isnan(got) and math.isnan(expected))
    return abs(got - expected) <= absolute + relative * abs(expected)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def main(arguments: Sequence[str]) -> int:
    """Replay the files and print; returns the exit status."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    counts: dict[Outcome, int] = {"PASS": 0, "FAIL": 0, "NOT COVERED": 0}
    for name in arguments:
        try:
            results = replay_file(Path(name))
            for result in results:
                print(result, flush=True)
                counts[result.outcome] += 1
        except (OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['NOT COVERED']} not covered")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
