"""Error of InfoNCE against clusters: how it falls with their number, and what tightness and size do to it.

    python benchmarks/block_error.py

Rows are unit vectors around centres on the sphere (tightness is the length of the noise around a centre of length 1;
``unclustered`` rows are Gaussian). Anchors are noisy copies of the rows. Clusters come from a few steps of k-means from
random rows. The error is |block - exact| in the mean loss. Writes benchmarks/results/block_error.json and .md.
"""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from graphcl.functional import block_info_nce, info_nce
from graphcl.functional.block import BlockCorrection
from graphcl.kernels import cluster_mean, normalize_rows, pair_topk

SIZES = (512, 2_048, 8_192)
CLUSTERS = (4, 16, 64, 256)
SPREADS: tuple[float | None, ...] = (0.1, 0.5, None)
TEMPERATURE, DIM, CENTRES = 0.2, 32, 32
RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


def draw(num: int, spread: float | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Anchors and the rows they belong to."""
    noise = torch.randn(2, num, DIM, generator=generator) / math.sqrt(DIM)
    if spread is None:
        rows = normalize_rows(noise[0])
    else:
        centres = normalize_rows(torch.randn(CENTRES, DIM, generator=generator))
        rows = normalize_rows(centres[torch.randint(CENTRES, (num,), generator=generator)] + spread * noise[0])
    return normalize_rows(rows + 0.2 * noise[1]), rows


def k_means(rows: Tensor, clusters: int, generator: torch.Generator, steps: int = 8) -> Tensor:
    centres = rows[torch.randperm(rows.shape[0], generator=generator)[:clusters]]
    for _ in range(steps):
        assignment = pair_topk(rows, centres, 1, similarity="sqeuclidean").indices[:, 0]
        centres = cluster_mean(rows, assignment, clusters)
    return pair_topk(rows, centres, 1, similarity="sqeuclidean").indices[:, 0]


def run() -> list[Row]:
    rows: list[Row] = []
    for num in SIZES:
        for spread in SPREADS:
            generator = torch.Generator().manual_seed(0)
            anchors, positives = draw(num, spread, generator)
            exact, exact_seconds = timed(lambda a=anchors, p=positives: info_nce(a, p, temperature=TEMPERATURE))
            for clusters in CLUSTERS:
                assignment = k_means(positives, clusters, generator)
                for correction in get_args(BlockCorrection):
                    value, seconds = timed(
                        lambda a=anchors, p=positives, c=assignment, k=correction: block_info_nce(
                            a, p, c, temperature=TEMPERATURE, correction=k
                        )
                    )
                    rows.append(
                        {
                            "size": num,
                            "spread": "unclustered" if spread is None else spread,
                            "clusters": clusters,
                            "correction": correction,
                            "exact": exact,
                            "error": abs(value - exact),
                            "seconds": seconds,
                            "exact_seconds": exact_seconds,
                        }
                    )
    return rows


def timed(loss: Any) -> tuple[float, float]:
    start = time.perf_counter()
    value = float(loss())
    return value, time.perf_counter() - start


def table_of(rows: list[Row]) -> str:
    """Markdown: one line a size, tightness and correction, one column a number of clusters."""
    lines = [
        "# Error of InfoNCE against clusters",
        "",
        f"Mean loss, |block - exact|; temperature {TEMPERATURE}, d = {DIM}, {CENTRES} true centres; see "
        "benchmarks/block_error.py.",
        "",
        f"| N | spread | correction | exact loss | {' | '.join(f'K = {count}' for count in CLUSTERS)} |",
        f"|---|---|---|---|{'---|' * len(CLUSTERS)}",
    ]
    found = {(row["size"], row["spread"], row["correction"], row["clusters"]): row for row in rows}
    for size, spread, correction in dict.fromkeys((row["size"], row["spread"], row["correction"]) for row in rows):
        cells = [found[size, spread, correction, count] for count in CLUSTERS]
        errors = " | ".join(f"{cell['error']:.2e}" for cell in cells)
        lines.append(f"| {size:,} | {spread} | {correction} | {cells[0]['exact']:.4f} | {errors} |")
    return "\n".join([*lines, ""])


def main() -> None:
    rows = run()
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    (RESULTS / "block_error.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    table = table_of(rows)
    (RESULTS / "block_error.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
