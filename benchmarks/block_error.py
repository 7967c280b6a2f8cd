"""Error of InfoNCE against clusters: how it falls with their number, and what tightness and size do to it.

    python benchmarks/block_error.py

Rows are unit vectors around centres on the sphere (tightness is the length of the noise around a centre of length 1;
``unclustered`` rows are Gaussian). Anchors are noisy copies of the rows. Clusters come from a few steps of k-means from
random rows. The error is |block - exact| in the mean loss; the error of the gradient is its distance from the exact one
over the length of that. ``logit_deviation`` is what both follow: the standard deviation of an anchor's logits within a
cluster, averaged as the softmax weighs the clusters; it can be measured where the exact loss cannot. Writes
benchmarks/results/block_error.json, .md and .svg.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from benchmark_machine import processor
from torch import Tensor

from graphcl.functional import block_info_nce, info_nce
from graphcl.functional.block import BlockCorrection
from graphcl.kernels import cluster_mean, cluster_sum, normalize_rows, pair_topk

SIZES = (512, 2_048, 8_192)
CLUSTERS = (4, 16, 64, 256)
SPREADS: tuple[float | None, ...] = (0.1, 0.2, 0.5, None)
TEMPERATURE, DIM, CENTRES = 0.2, 32, 32
COLOURS = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd")
DEVIATIONS = (0.1, 0.3, 0.5, 1.0)
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


def logit_deviation(anchors: Tensor, rows: Tensor, assignment: Tensor, clusters: int, sample: int = 256) -> float:
    """Root of the mean variance of the logits within clusters, weighted by the softmax over clusters."""
    logits = rows @ anchors[:sample].T / TEMPERATURE
    count = torch.bincount(assignment, minlength=clusters).clamp(min=1)[:, None]
    mean = cluster_sum(logits, assignment, clusters) / count
    variance = cluster_sum((logits - mean[assignment]) ** 2, assignment, clusters) / count
    share = torch.softmax(mean + count.log(), dim=0)
    return float((share * variance).sum(dim=0).mean().sqrt())


def run() -> list[Row]:
    rows: list[Row] = []
    for num in SIZES:
        for spread in SPREADS:
            generator = torch.Generator().manual_seed(0)
            anchors, positives = draw(num, spread, generator)
            anchors.requires_grad_()
            exact, exact_slope, exact_seconds = timed(
                anchors, partial(info_nce, anchors, positives, temperature=TEMPERATURE)
            )
            for clusters in CLUSTERS:
                assignment = k_means(positives, clusters, generator)
                deviation = logit_deviation(anchors.detach(), positives, assignment, clusters)
                for correction in get_args(BlockCorrection):
                    value, slope, seconds = timed(
                        anchors,
                        partial(
                            block_info_nce,
                            anchors,
                            positives,
                            assignment,
                            temperature=TEMPERATURE,
                            correction=correction,
                        ),
                    )
                    rows.append(
                        {
                            "size": num,
                            "spread": "unclustered" if spread is None else spread,
                            "clusters": clusters,
                            "correction": correction,
                            "exact": exact,
                            "error": abs(value - exact),
                            "gradient_error": float((slope - exact_slope).norm() / exact_slope.norm()),
                            "logit_deviation": deviation,
                            "seconds": seconds,
                            "exact_seconds": exact_seconds,
                        }
                    )
    return rows


def timed(leaf: Tensor, loss: Callable[[], Tensor]) -> tuple[float, Tensor, float]:
    """Value, gradient, and seconds of both."""
    start = time.perf_counter()
    value = loss()
    (slope,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), slope, time.perf_counter() - start


def table_of(rows: list[Row]) -> str:
    """Markdown: one line a size, tightness and correction, one column a number of clusters."""
    lines = [
        "# Error of InfoNCE against clusters",
        "",
        f"Mean loss, |block - exact| / relative error of the gradient (deviation of the logits within clusters); "
        f"temperature {TEMPERATURE}, d = {DIM}, {CENTRES} true centres; see benchmarks/block_error.py.",
        "",
        "![error over K, N and the deviation of logits](block_error.svg)",
        "",
        f"| N | spread | correction | exact loss | {' | '.join(f'K = {count}' for count in CLUSTERS)} |",
        f"|---|---|---|---|{'---|' * len(CLUSTERS)}",
    ]
    found = {(row["size"], row["spread"], row["correction"], row["clusters"]): row for row in rows}
    for size, spread, correction in dict.fromkeys((row["size"], row["spread"], row["correction"]) for row in rows):
        cells = [found[size, spread, correction, count] for count in CLUSTERS]
        errors = " | ".join(
            f"{cell['error']:.1e} / {cell['gradient_error']:.1e} ({cell['logit_deviation']:.2f})" for cell in cells
        )
        lines.append(f"| {size:,} | {spread} | {correction} | {cells[0]['exact']:.4f} | {errors} |")
    return "\n".join([*lines, "", *bounds_of(rows), ""])


def bounds_of(rows: list[Row]) -> Iterator[str]:
    """The largest errors below some deviations of the logits, for the sentence in the documentation."""
    for correction in get_args(BlockCorrection):
        for bound in DEVIATIONS:
            near = [row for row in rows if row["correction"] == correction and row["logit_deviation"] < bound]
            if near:
                worst, slope = (max(row[field] for row in near) for field in ("error", "gradient_error"))
                yield f"- `{correction}`, deviation below {bound}: error at most {worst:.3f}, gradient {slope:.1%}."


Line = tuple[str, str, str, Sequence[tuple[float, float]]]


def lines_of(rows: list[Row]) -> Iterator[tuple[str, str, list[Line]]]:
    """Panels: title, what the x axis says, and lines of name, colour, dashes and points."""
    largest = max(row["size"] for row in rows)
    colours = dict(zip(dict.fromkeys(row["spread"] for row in rows), COLOURS, strict=False))
    for field, title, fixed, at in (
        ("clusters", f"error over K (N = {largest:,})", "size", largest),
        ("size", "error over N (K = 64)", "clusters", 64),
    ):
        panel: list[Line] = []
        for spread, colour in colours.items():
            for correction, dashes in (("none", ""), ("full", "5 3")):
                points = [
                    (row[field], row["error"])
                    for row in rows
                    if (row[fixed], row["spread"], row["correction"]) == (at, spread, correction)
                ]
                panel.append((f"spread {spread}, {correction}", colour, dashes, sorted(points)))
        yield title, field, panel
    clouds: list[Line] = [
        (
            correction,
            colour,
            "dots",
            [(row["logit_deviation"], row["error"]) for row in rows if row["correction"] == correction],
        )
        for correction, colour in zip(get_args(BlockCorrection), COLOURS, strict=False)
    ]
    yield "error over the deviation of logits within clusters (all rows)", "deviation", clouds


def plot_of(rows: list[Row]) -> str:
    """SVG of three logarithmic panels that share the axis of the error."""
    width, height, margin = 380, 320, 60
    low, high = -5.0, 0.5
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{3 * (width + margin) + 20}" height="{height + 220}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, (title, axis, lines) in enumerate(lines_of(rows)):
        left, top = margin + number * (width + margin), 40
        values = [max(x, 1e-3) for _, _, _, points in lines for x, _ in points]
        first, last = math.log10(min(values)), math.log10(max(values))

        def place(x: float, y: float, left: int = left, first: float = first, last: float = last) -> str:
            across = left + (math.log10(max(x, 1e-3)) - first) / max(last - first, 1e-9) * width
            return f"{across:.1f},{40 + height - (math.log10(max(y, 1e-5)) - low) / (high - low) * height:.1f}"

        parts.append(f'<text x="{left}" y="{top - 12}" font-weight="bold">{title}</text>')
        parts.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>')
        for power in range(math.ceil(low), math.floor(high) + 1):
            y = place(1.0, 10.0**power).split(",")[1]
            parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end">1e{power}</text>')
        ticks = sorted(set(values)) if axis != "deviation" else [0.1, 0.3, 1.0]
        parts += [
            f'<text x="{place(x, 1.0).split(",")[0]}" y="{top + height + 16}" text-anchor="middle">{x:,g}</text>'
            for x in ticks
        ]
        for row, (name, colour, dashes, points) in enumerate(lines):
            if dashes == "dots":
                parts += [
                    '<circle cx="{}" cy="{}" r="3" fill="{}"/>'.format(*place(x, y).split(","), colour)
                    for x, y in points
                ]
            else:
                path = " ".join(place(x, y) for x, y in points)
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-dasharray="{dashes}"/>')
            below = top + height + 40 + 16 * row
            parts.append(f'<rect x="{left}" y="{below - 5}" width="14" height="4" fill="{colour}"/>')
            parts.append(f'<text x="{left + 20}" y="{below}">{name}{" (dashed)" if dashes == "5 3" else ""}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    rows = run()
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = {"machine": processor(), "torch": torch.__version__}
    (RESULTS / "block_error.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    (RESULTS / "block_error.svg").write_text(plot_of(rows))
    table = table_of(rows)
    (RESULTS / "block_error.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
