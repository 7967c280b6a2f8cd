"""The report of a scorer of events."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphcl.report.figures import COLORS, base_figure, plain_text
from graphcl.report.html import columns, escape, figure_element, note, number_cell, section, table
from graphcl.report.record import RunRecord
from graphcl.report.sections import headline, metric_table, protocol_facts, run_and_settings, training

__all__ = ["FILES", "sections"]

SCORES = "test_scores.parquet"
FILES = (SCORES,)

_NAMES = {"AP": "average precision", "ROC_AUC": "area under ROC", "R_precision": "R-precision"}
_KINDS = {"known": "known anomalies", "injected": "injected anomalies", "normal": "events left as they are"}


def sections(record: RunRecord) -> Iterator[str]:
    """The sections of the report, in order."""
    test = record.metrics["test"]
    known = {label: test[name] for name, label in _NAMES.items() if test.get(name) is not None}
    injected = {
        f"{label} (injected)": test[f"{name}_injected"]
        for name, label in _NAMES.items()
        if test.get(f"{name}_injected") is not None
    }
    yield headline(record, known or injected)
    yield _comparison(record)
    yield _curves(record)
    yield _suspicious(record)
    yield _weights(record)
    yield training(record)
    yield from run_and_settings(record)


def _comparison(record: RunRecord) -> str:
    baselines = [entry for entry in record.metrics.get("baselines") or [] if "metrics" in entry]
    names = [name for name, value in record.metrics["test"].items() if value is not None]
    rows = [("this model", [record.metrics["test"][name] for name in names])]
    rows += [(entry["name"], [entry["metrics"].get(name) for name in names]) for entry in baselines]
    text = (
        "Test events by score, from the most unusual down. Injected anomalies are normal events in which one entity "
        "was replaced by another of its type, so that only the combination is unusual."
    )
    return section(
        "Finding anomalies",
        note(text),
        table(["", *names], rows),
        metric_table({"test": {}, "validation": record.metrics["validation"]}),
        protocol_facts(record.metrics),
    )


def _curves(record: RunRecord) -> str:
    curves, histograms = record.analysis.get("curves") or {}, record.analysis.get("histograms") or {}
    figure = base_figure("recall", "precision")
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        figure.add_scatter(
            x=curve["recall"], y=curve["precision"], name=_KINDS[name], mode="lines", line={"width": 2, "color": color},
            hovertemplate="recall %{x:.3f}<br>precision %{y:.3f}",
        )  # fmt: skip
    figure.update_yaxes(range=[0, 1.02])
    spread = base_figure("score (high is unusual)", "share of the events of the kind")
    edges = np.asarray(histograms.get("edges", [0.0, 1.0]), dtype=np.float64)
    for color, name in zip(COLORS, [name for name in _KINDS if name in histograms], strict=False):
        counts = np.asarray(histograms[name], dtype=np.float64)
        spread.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts / max(counts.sum(), 1), width=np.diff(edges), name=_KINDS[name],
            marker={"color": color, "opacity": 0.55, "line": {"width": 0}},
            hovertemplate="score %{x:.2f}<br>share %{y:.3f}",
        )  # fmt: skip
    spread.update_layout(barmode="overlay", bargap=0)
    figures = {"Precision and recall": figure, "Scores": spread}
    return section(
        "Scores of the test events",
        columns(f"<h3>{name}</h3>{figure_element(drawn)}" for name, drawn in figures.items()),
    )


def _suspicious(record: RunRecord) -> str:
    events = record.table(SCORES, ("row", "score")).head(25)
    types = [name for name in events.columns if name.startswith("entity: ")]
    marked = "label" in events.columns
    head = [
        "row of the log",
        "score",
        *(name.removeprefix("entity: ") for name in types),
        *(["known"] if marked else []),
    ]
    lines = []
    for event in events.iter_rows(named=True):
        entities = "".join(f"<td>{escape(event[name])}</td>" for name in types)
        known = f"<td>{'yes' if event['label'] else ''}</td>" if marked else ""
        lines.append(f"<tr>{number_cell(event['row'])}{number_cell(float(event['score']))}{entities}{known}</tr>")
    titles = "".join(
        f'<th class="number">{escape(title)}</th>' if place < 2 else f"<th>{escape(title)}</th>"
        for place, title in enumerate(head)
    )
    body = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return section("The most unusual test events", f'<div class="scroll">{body}</div>')


def _weights(record: RunRecord) -> str:
    weights = record.analysis.get("pair_weights") or []
    figure = base_figure("", "weight of the pair", height=300)
    figure.add_bar(
        x=[plain_text(" × ".join(entry["types"])) for entry in weights], y=[entry["weight"] for entry in weights],
        marker={"color": COLORS[0]}, hovertemplate="%{x}<br>%{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="category")
    text = "How much each pair of types counts in the score. Weights and lengths of embeddings work together."
    return section("Pairs of types", note(text), figure_element(figure))
