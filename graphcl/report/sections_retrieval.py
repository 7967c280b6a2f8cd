"""The report of a retriever of labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphcl.report.figures import COLORS, base_figure
from graphcl.report.html import escape, figure_element, note, number_cell, section, table
from graphcl.report.record import RunRecord
from graphcl.report.sections import headline, metric_table, protocol_facts, run_and_settings, training

__all__ = ["FILES", "sections"]

RETRIEVED = "test_retrieved.parquet"
FILES = (RETRIEVED,)

_HEADLINE = ("P@1", "P@5", "PSP@5", "R@20", "nDCG@5")


def sections(record: RunRecord) -> Iterator[str]:
    """The sections of the report, in order."""
    test = record.metrics["test"]
    yield headline(record, {name: test[name] for name in _HEADLINE if test.get(name) is not None})
    yield _measured(record)
    yield _frequencies(record)
    yield _examples(record)
    yield training(record)
    yield from run_and_settings(record)


def _measured(record: RunRecord) -> str:
    test = record.metrics["test"]
    baselines = [entry for entry in record.metrics.get("baselines") or [] if "metrics" in entry]
    names = [name for name in _HEADLINE if test.get(name) is not None]
    rows = [("this model", [test[name] for name in names])]
    rows += [(entry["name"], [entry["metrics"].get(name) for name in names]) for entry in baselines]
    text = (
        "All labels are ranked for every query. PSP weighs a hit by how easily the label is missed: rare labels count "
        "more. Below the model stand methods that learn nothing."
    )
    return section(
        "Retrieved labels",
        note(text),
        table(["", *names], rows),
        metric_table({"test": test, "validation": record.metrics["validation"]}),
        protocol_facts(record.metrics),
    )


def _frequencies(record: RunRecord) -> str:
    buckets: list[dict[str, Any]] = record.analysis.get("by_frequency") or []
    names = [_range(entry["from"], entry["to"]) for entry in buckets]
    figure = base_figure("training queries with the label", f"share found in the first {record.analysis.get('depth')}")
    figure.add_bar(
        x=names, y=[entry["found"] / entry["targets"] if entry["targets"] else None for entry in buckets],
        marker={"color": COLORS[0]}, hovertemplate="%{x}<br>%{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[0, 1.02])
    counts = [(name, [entry["labels"], entry["targets"]]) for name, entry in zip(names, buckets, strict=True)]
    text = "Labels of the test queries by how often training saw them; without features an unseen one cannot be found."
    return section(
        "Common and rare labels",
        note(text),
        figure_element(figure),
        table(["training queries", "labels", "test targets"], counts),
    )


def _range(start: int, end: int | None) -> str:
    if end is None:
        return f"{start} or more"
    return str(start) if start == end else f"{start} to {end}"


def _examples(record: RunRecord) -> str:
    lines = []
    for row in record.table(RETRIEVED, ("query", "retrieved", "hit", "labels")).iter_rows(named=True):
        found = ", ".join(
            f"<strong>{escape(name)}</strong>" if hit else escape(name)
            for name, hit in zip(row["retrieved"], row["hit"], strict=True)
        )
        true = escape(", ".join(row["labels"][:12]) + (", ..." if len(row["labels"]) > 12 else ""))
        lines.append(f"<tr>{number_cell(row['query'])}<td>{found}</td><td>{true}</td></tr>")
    head = '<th class="number">test query</th><th>retrieved, hits in bold</th><th>its labels</th>'
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return section("Examples", f'<div class="scroll">{body}</div>')
