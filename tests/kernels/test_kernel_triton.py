"""The Triton backend: its cases run through the interpreter, and what happens where it cannot run.

Triton decides whether it interprets or compiles when it is first imported, and packages that other tests use import it.
So the cases in `triton_cases/` run in processes of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graphcl.kernels import linear_cross_entropy, pair_logsumexp, segment_sum

CASES = Path(__file__).parent / "triton_cases"


def run(*arguments: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1" if interpret else "0"}
    # A worker of a parallel session would pass its own settings on.
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=CASES,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "at_least"),
    [pytest.param("triton_pairs_cases.py", 70, marks=pytest.mark.slow), ("triton_segment_cases.py", 60)],
)
def test_cases_pass_in_the_interpreter(name: str, at_least: int) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", name, interpret=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= at_least


_WITHOUT_TRITON = """
import sys
import torch
from graphcl.kernels import linear_cross_entropy, pair_logsumexp, segment_sum, spmm
x = torch.ones(2, 3)
pair_logsumexp(x, x); segment_sum(x, torch.tensor([0, 2])); linear_cross_entropy(x, x, torch.tensor([0, 1]))
assert "triton" not in sys.modules, "imported before it was asked for"
sys.modules["triton"] = None  # what a missing package looks like to the import system
for call in (
    lambda: pair_logsumexp(x, x, backend="triton"),
    lambda: segment_sum(x, torch.tensor([0, 2]), backend="triton"),
    lambda: linear_cross_entropy(x, x, torch.tensor([0, 1]), backend="triton"),
):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_without_the_package() -> None:
    """Nothing imports triton unasked; asking for it where it is missing names the command that installs it."""
    done = run("-c", _WITHOUT_TRITON, interpret=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install 'graphcl[triton]'") == 3, done.stdout


def test_cpu_tensors_without_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcl.kernels import _triton_launch

    monkeypatch.setattr(_triton_launch, "INTERPRETED", False)
    x, offsets, target = torch.ones(2, 3), torch.tensor([0, 2]), torch.tensor([0, 1])
    for call in (
        lambda: pair_logsumexp(x, x, backend="triton"),
        lambda: segment_sum(x, offsets, backend="triton"),
        lambda: linear_cross_entropy(x, x, target, backend="triton"),
    ):
        with pytest.raises(ValueError, match=r"runs on CUDA tensors, got tensors on cpu; .* TRITON_INTERPRET=1"):
            call()


def test_kernels_compile_for_a_gpu() -> None:
    """Every kernel builds to machine code for compute capability 9.0, which needs a compiler but no GPU."""
    done = run("compile_kernels.py", interpret=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    for kernel in ("_forward", "_backward", "_reduce", "_logsumexp", "_softmax", "_sampled_dot"):
        assert f"{kernel}_kernel" in done.stdout
