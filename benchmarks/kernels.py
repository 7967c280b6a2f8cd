"""Every kernel beside its peers, time and peak memory, in one run on one machine.

    python benchmarks/kernels.py [--quick]

Runs the three parts one after the other, each in a process of its own: pairs and cross-entropy beside their dense
forms, segments and sparse products beside torch.sparse, PyG and torch-scatter, and, where there is a GPU, shares of its
measured copy bandwidth and matrix-product throughput. What they print goes to benchmarks/results/kernels.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from sequential_training import machine

HERE = Path(__file__).parent
PARTS = {
    "Pairs and cross-entropy beside their dense forms": ("kernels_pairs.py",),
    "Sparse products and segment sums beside torch.sparse, PyG and torch-scatter": ("kernels_sparse.py", "--repeats=5"),
    "GPU": ("kernels_gpu.py",),
}


def run_part(script: str, *arguments: str) -> str:
    """Run one part, echo what it prints, and return it."""
    command = [sys.executable, str(HERE / script), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    text = finished.stdout if finished.returncode == 0 else finished.stdout + "\nFAILED:\n" + finished.stderr
    print(text, flush=True)
    return text.rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cases only")
    options = parser.parse_args()
    about = machine()
    lines = ["# Kernels", "", f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, one run."]
    for title, (script, *arguments) in PARTS.items():
        quick = ["--quick"] if options.quick and script != "kernels_gpu.py" else []
        lines += ["", f"## {title}", "", "```", run_part(script, *arguments, *quick), "```"]
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "kernels.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
