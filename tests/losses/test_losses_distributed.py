"""Two processes give the value, gradients and state of one, for every loss of the package."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_cases import CASES, CHECKS, DIM, NOT_LOSSES
from torch import Tensor, nn

import graphcl.losses
from graphcl.losses import InfoNCE, NTXent, Sum, Term, ZLoss
from graphcl.losses.distributed import Distributed, gather_rows
from graphcl.losses.layout import SHARED, Pairs, RowNumbers, ViewMajor

WORLD_SIZE = 2
SCRIPT = Path(__file__).parent / "distributed_cases.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every rank found; one start of the processes for all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    files = [folder / f"rank{rank}.json" for rank in range(WORLD_SIZE)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(WORLD_SIZE), str(folder / "store"), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return [json.loads(file.read_text()) for file in files]


def found_by(results: list[dict[str, Any]], name: str) -> list[dict[str, float]]:
    found = [result[name] for result in results]
    for rank, one in enumerate(found):
        assert isinstance(one, dict), f"rank {rank}: {one}"
    return found


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(results: list[dict[str, Any]], name: str) -> None:
    tolerance = 1e-6 if CASES[name].dtype == torch.float32 else 1e-10
    ranks = found_by(results, name)
    for rank, errors in enumerate(ranks):
        for quantity in ("value", "parts", "gradient", "parameters", "state"):
            assert errors[quantity] <= tolerance, f"{quantity} of rank {rank} is off by {errors[quantity]}"
    if CASES[name].differentiable:
        assert max(errors["norm"] for errors in ranks) > 0, "nothing has a gradient in this case"


@pytest.mark.parametrize("name", CHECKS)
def test_across_processes(results: list[dict[str, Any]], name: str) -> None:
    for rank, errors in enumerate(found_by(results, f"check {name}")):
        for quantity, error in errors.items():
            assert error <= 1e-10, f"{quantity} of rank {rank} is off by {error}"


def public_modules() -> set[str]:
    """Names of the public `torch.nn.Module` classes in every public file of the package."""
    found = set()
    for info in pkgutil.walk_packages(graphcl.losses.__path__, "graphcl.losses."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == info.name:
                found.add(name)
    return {name for name in found if not name.startswith("_")}


def test_every_loss_has_a_case() -> None:
    cases = {name.split("/")[0] for name in CASES}
    missing = sorted(public_modules() - cases - NOT_LOSSES.keys())
    assert not missing, f"add a case to {SCRIPT.name} for {', '.join(missing)}"
    assert not cases & NOT_LOSSES.keys()
    assert cases | NOT_LOSSES.keys() <= public_modules(), "cases of losses that are gone"


def test_without_a_process_group_it_is_the_loss() -> None:
    z1, z2 = torch.randn(2, 5, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = NTXent()
    assert torch.equal(Distributed(loss)(z1, z2), loss(z1, z2))
    assert torch.equal(Distributed(loss, split_anchors=True)(z1, z2=z2), loss(z1, z2))
    assert gather_rows(z1) is z1


def test_state_belongs_to_the_loss() -> None:
    loss = Distributed(graphcl.losses.SogCLR(6))
    assert set(loss.state_dict()) == {f"loss.{name}" for name in graphcl.losses.SogCLR(6).state_dict()}


def test_layouts_come_from_the_loss_and_from_the_caller() -> None:
    assert Distributed(ZLoss()).layouts == {"weight": SHARED}
    assert Distributed(InfoNCE(), layouts={"keys": SHARED}).layouts == {"keys": SHARED}
    assert Distributed(ZLoss(), layouts={"weight": Pairs("hidden", None)}).layouts == {"weight": Pairs("hidden", None)}


def test_a_function_is_a_loss() -> None:
    def distance(z1: Tensor, z2: Tensor) -> Tensor:
        return ((z1 - z2) ** 2).sum(dim=1).mean()

    assert float(torch.as_tensor(Distributed(distance)(torch.ones(2, 3), torch.zeros(2, 3)))) == 3.0


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Distributed(3.0), TypeError, "loss must be callable, got float"),  # type: ignore[arg-type]
        (lambda: Distributed(Sum(a=Term(NTXent(), "z1", "z2"))), TypeError, r"wrap the losses of its terms"),
        (lambda: Distributed(NTXent(), layouts={"z3": SHARED}), ValueError, r"z1, z2, keys.*got z3"),
        (lambda: Distributed(ZLoss(), split_anchors=True), ValueError, "ZLoss cannot split its anchors"),
        (lambda: Distributed(InfoNCE(reduction="sum"), split_anchors=True), ValueError, "reduction 'mean', got 'sum'"),
        (lambda: Distributed(InfoNCE(symmetric=True), split_anchors=True), ValueError, "cannot split its anchors"),
        (lambda: gather_rows(torch.tensor(1.0)), ValueError, "at least one dimension"),
    ],
)
def test_refusals(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_layouts_say_what_they_are() -> None:
    shown = repr([SHARED, Pairs("x", None), RowNumbers("x"), ViewMajor("views", "others")])
    assert shown == "[SHARED, Pairs(rows='x', columns=None), RowNumbers(of='x'), ViewMajor('views', 'others')]"
