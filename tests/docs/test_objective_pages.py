"""The committed pages say what the docstrings say, and every objective has every part of a page."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from graphcl.losses.catalogue import CATALOGUE

SCRIPT = Path(__file__).parents[2] / "docs" / "build_objectives.py"


def load() -> ModuleType:
    specification = importlib.util.spec_from_file_location("build_objectives", SCRIPT)
    if specification is None or specification.loader is None:
        raise ImportError(SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


BUILD = load()


def test_every_public_function_is_an_objective_or_a_piece() -> None:
    assert BUILD.public_functions() == CATALOGUE.keys() | BUILD.PIECES
    assert not CATALOGUE.keys() & BUILD.PIECES


@pytest.mark.parametrize("name", CATALOGUE)
def test_docstring_has_every_part(name: str) -> None:
    assert BUILD.read(name).missing() == []


def test_committed_pages_are_up_to_date() -> None:
    assert BUILD.stale() == [], "run python docs/build_objectives.py"


def test_parts_are_told_apart() -> None:
    one = BUILD.read("dclw")
    assert one.purpose == "Decoupled contrastive loss whose positives weigh more the further apart they are."
    assert one.paper.startswith("C.-H. Yeh et al., ")
    assert one.paper.endswith("https://arxiv.org/abs/2110.06848.")
    assert one.confidence.startswith("V (both gradients exist")
    assert one.use == "Use it in place of `dcl` where many pairs of views are easy from the start."
    assert len(one.formulas) == 1
    assert one.notes == ""
    assert len(BUILD.read("conr").formulas) == 2


def test_a_page_shows_every_argument_with_its_default() -> None:
    text = BUILD.page("nt_xent")
    assert "| `temperature` | `0.5` | positive number, 0-dim tensor, or `(N,)`, one a sample. |" in text
    assert "`graphcl.losses.NTXent`" in text
    assert "```math\nL_i = -\\log" in text
    for heading in ("When to use it", "Formula", "Arguments", "Returns", "Raises", "Complexity", "Example"):
        assert f"\n## {heading}\n" in text


def test_a_docstring_without_parts_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare() -> None:
        """Purpose alone."""

    monkeypatch.setattr(BUILD.functional, "bare", bare, raising=False)
    assert BUILD.read("bare").missing() == [
        "when to use it",
        "formula",
        "Args",
        "Returns",
        "Raises",
        "Complexity",
        "Example",
        "confidence",
        "paper, or a word that the form is this package's",
    ]
