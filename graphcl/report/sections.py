"""Sections that reports of every pipeline have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphcl.report import figures
from graphcl.report.html import cards, columns, duration, escape, facts, figure_element, number_cell, section
from graphcl.report.record import RunRecord


def headline(record: RunRecord, metrics: Mapping[str, float]) -> str:
    """Cards with a few metrics, the epochs and the time.

    Args:
        record: the run.
        metrics: what to show first, by label.
    """
    shown = [(f"{float(value):.4f}", label) for label, value in metrics.items()]
    epochs, best = record.metrics.get("epochs"), record.metrics.get("best_epoch")
    if epochs is not None:
        shown.append((str(epochs), "epochs" if best is None else f"epochs, best {best}"))
    seconds = record.manifest.get("wall_seconds")
    if isinstance(seconds, int | float):
        shown.append((duration(seconds), "wall time"))
    return cards(shown)


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Metrics by row, cut-offs by column, test beside validation; metrics without a cut-off below.

    Args:
        metrics: ``{"test": {...}, "validation": {...}}``, one of them perhaps empty.
    """
    parts = [part for part in ("test", "validation") if metrics[part]]
    names = list(dict.fromkeys(name for part in parts for name in metrics[part]))
    cutoffs = sorted({cutoff for name in names if (cutoff := figures.cutoff_of(name)) is not None})
    heads = list(dict.fromkeys(name.rpartition("@")[0] for name in names if figures.cutoff_of(name) is not None))
    groups = "".join(f'<th class="group" colspan="{len(cutoffs)}">{part}</th>' for part in parts)
    titles = "".join(f'<th class="number">@{k}</th>' for _ in parts for k in cutoffs)
    rows = []
    for head in heads:
        values = (metrics[part].get(f"{head}@{k}") for part in parts for k in cutoffs)
        rows.append(f"<tr><th>{escape(head)}</th>{''.join(number_cell(value) for value in values)}</tr>")
    table = (
        f'<div class="scroll"><table><thead><tr><th></th>{groups}</tr><tr><th></th>{titles}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    others = {
        name: {part: metrics[part].get(name) for part in parts} for name in names if figures.cutoff_of(name) is None
    }
    return (table if heads else "") + (facts(others) if others else "")


def protocol_facts(metrics: Mapping[str, Any]) -> str:
    """How the metrics were measured."""
    protocol = metrics.get("protocol") or {}
    return f"<h3>Protocol</h3>{facts(protocol)}" if protocol else ""


def training(record: RunRecord) -> str:
    """The curves of the loss and of validation."""
    best = record.metrics.get("best_epoch")
    curves = figures.training_curves(record.history, int(best) if isinstance(best, int | float) else None)
    return section("Training", columns(f"<h3>{name}</h3>{figure_element(curve)}" for name, curve in curves.items()))


def run_and_settings(record: RunRecord) -> Iterator[str]:
    """What the manifest and the configuration say."""
    yield section("Run", facts({name: value for name, value in record.manifest.items() if name != "protocol"}))
    yield section("Settings", facts(record.config))
