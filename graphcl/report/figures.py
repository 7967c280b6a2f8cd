"""Figures of a report. Every text that comes from data goes through `plain_text`, since plotly reads some HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from graphcl.metrics import sample_for_map

INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e8ec"
COLORS = ("#2f6fb0", "#d97a34", "#3d8f5f", "#b04a5a", "#7659a6", "#8a6b4f", "#c0699b", "#6b7682", "#a3a02f", "#3b9aa6")
_BLUES = [[0, "#b5cbe0"], [0.5, "#4f86b8"], [1, "#10324f"]]
MAP_POINTS = 3000


def plain_text(value: Any) -> str:
    """Text that plotly shows letter by letter: its tags and entities are escaped."""
    return html.escape(str(value), quote=False)


def base_figure(x_title: str, y_title: str, height: int = 340) -> go.Figure:
    """An empty figure in the style of the page.

    Args:
        x_title, y_title: titles of the axes.
        height: in pixels.
    """
    figure = go.Figure()
    axis = {
        "gridcolor": GRID, "zeroline": False, "linecolor": "#b8c0c8", "ticks": "outside", "tickcolor": "#b8c0c8",
        "automargin": True,
    }  # fmt: skip
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 24, "t": 36, "b": 52},  # the tools of the chart lie in the top margin
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={**axis, "title": {"text": x_title}},
        yaxis={**axis, "title": {"text": y_title}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"bgcolor": "#ffffff", "bordercolor": "#b8c0c8", "font": {"color": INK}},
        colorway=list(COLORS),
        modebar={"bgcolor": "rgba(255,255,255,0.9)", "color": "#9aa5b1", "activecolor": COLORS[0]},
    )
    return figure


def cutoff_of(name: str) -> int | None:
    """The cut-off of a metric such as ``HR@20`` or ``valid_NDCG@10``; None for other names."""
    cutoff = name.rpartition("@")[2]
    return int(cutoff) if "@" in name and cutoff.isdigit() else None


def leading_metrics(names: Iterable[str]) -> list[str]:
    """The few metrics that stand for the rest: HR, NDCG and MRR at their largest cut-off, else the first three."""
    known = list(names)
    found = []
    for kind in ("HR", "NDCG", "MRR"):
        of_kind = [name for name in known if name.rpartition("@")[0].split("_")[-1] == kind and cutoff_of(name)]
        found += sorted(of_kind, key=lambda name: cutoff_of(name) or 0)[-1:]
    return found or known[:3]


def training_curves(history: Mapping[str, Sequence[float | None]], best_epoch: int | None) -> dict[str, go.Figure]:
    """One figure for the loss and its parts and one for the validation metrics, by heading; empty ones are left out."""
    epochs = history["epoch"]
    groups = {
        "Training loss": [name for name in history if not _is_validation(name) and not _is_time(name)],
        "Validation metrics": leading_metrics(name for name in history if _is_validation(name)),
    }
    figures = {}
    for heading, names in groups.items():
        drawn = [name for name in names if any(value is not None for value in history[name])]
        # A loss with a single part equals it: one line is enough.
        drawn = [name for name in drawn if name == "loss" or history[name] != history.get("loss")]
        if not drawn:
            continue
        figure = base_figure("epoch", "loss" if heading == "Training loss" else "metric")
        for name in drawn:
            figure.add_scatter(
                x=list(epochs),
                y=list(history[name]),
                name=plain_text(name),
                mode="lines+markers" if len(epochs) < 60 else "lines",
                marker={"size": 5},
                line={"width": 2},
                connectgaps=True,
                hovertemplate="epoch %{x}<br>%{y:.4f}",
            )
        if best_epoch is not None:
            # Where the curves are not: a loss falls and a metric rises.
            label_height = {"y": 1, "yanchor": "top"} if heading == "Training loss" else {"y": 0, "yanchor": "bottom"}
            figure.add_vline(
                x=best_epoch, line={"dash": "dot", "width": 1.5, "color": MUTED},
                annotation={"text": "kept", "font": {"size": 11, "color": MUTED}, **label_height,
                            "xanchor": "right" if 2 * best_epoch > len(epochs) else "left"},
            )  # fmt: skip
        figures[heading] = figure
    return figures


def _is_validation(name: str) -> bool:
    return name.startswith("valid_") or cutoff_of(name) is not None


def _is_time(name: str) -> bool:
    return name in ("epoch", "seconds") or name.endswith("_per_second")


def bucket_bars(buckets: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> go.Figure:
    """Grouped bars of a few metrics by training frequency of the target."""
    shown = [bucket for bucket in buckets if any(name in bucket for name in metrics)]
    figure = base_figure("times the target occurs in training", "metric")
    labels = [plain_text(bucket.get("name", "")) for bucket in shown]
    users = [bucket.get("users", 0) for bucket in shown]
    for name in metrics:
        figure.add_bar(
            x=labels, y=[bucket.get(name) for bucket in shown], name=plain_text(name), customdata=users,
            hovertemplate="%{x}<br>%{y:.4f} over %{customdata:,} users",
        )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.06)
    figure.update_xaxes(type="category")
    return figure


def score_distribution(histograms: Mapping[str, Any]) -> go.Figure:
    """Shares of positive and negative scores over common bins."""
    edges = np.asarray(histograms["edges"], dtype=np.float64)
    figure = base_figure("score (inner product)", "share of scores in the bin")
    for name, key, color in (("targets", "positive", COLORS[0]), ("random other items", "negative", COLORS[1])):
        counts = np.asarray(histograms[key], dtype=np.float64)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts / max(counts.sum(), 1), width=np.diff(edges), name=name,
            marker={"color": color, "opacity": 0.55, "line": {"width": 0}},
            hovertemplate="score %{x:.3f}<br>share %{y:.3f}",
        )  # fmt: skip
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_yaxes(rangemode="tozero")
    return figure


def item_map(table: pl.DataFrame, explained: Sequence[float] | None) -> tuple[go.Figure, int]:
    """The items on two principal components, and how many of them are drawn."""
    counts = table["train_count"].fill_null(0).to_numpy().astype(np.float64).clip(min=0)
    rows = sample_for_map(counts, MAP_POINTS, np.random.default_rng(0))
    drawn, scale = table[rows].with_columns(train_count=counts[rows]), np.log10(1 + counts[rows])
    titles = ["first component", "second component"]
    if explained is not None:
        titles = [f"{title} ({share:.0%} of the variance)" for title, share in zip(titles, explained, strict=True)]
    figure = base_figure(titles[0], titles[1], height=560)
    size = 4 + 2.2 * scale
    if "category" in drawn.columns and drawn["category"].null_count() < drawn.height:
        for name, group in _by_category(drawn["category"]):
            _add_points(figure, drawn[group], size[group], name=plain_text(name))
    else:
        color = {
            "color": scale,
            "colorscale": [[0, "#b5cbe0"], [0.5, "#4f86b8"], [1, "#10324f"]],
            "colorbar": _count_bar(scale),
        }
        _add_points(figure, drawn, size, showlegend=False, marker=color)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure, drawn.height


def _add_points(figure: go.Figure, rows: pl.DataFrame, size: Any, **trace: Any) -> None:
    texts = [
        f"{plain_text(item)}<br>{int(count):,} training interactions"
        + ("" if category is None else f"<br>{plain_text(category)}")
        for item, count, category in zip(
            rows["item"], rows["train_count"], rows["category"] if "category" in rows.columns else [None] * rows.height,
            strict=True,
        )
    ]  # fmt: skip
    marker = {"size": size, "opacity": 0.75, "line": {"width": 0}, **trace.pop("marker", {})}
    figure.add_scatter(
        x=rows["x"].to_numpy(), y=rows["y"].to_numpy(), mode="markers", text=texts, marker=marker,
        hovertemplate="%{text}<extra></extra>", **trace,
    )  # fmt: skip


def _by_category(categories: pl.Series) -> list[tuple[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Rows of the most frequent categories, then those of all others together."""
    values = np.array([str(value) if value is not None else "none" for value in categories])
    names, counts = np.unique(values, return_counts=True)
    leading = names[np.argsort(-counts, kind="stable")][: len(COLORS) - 1]
    groups = [(str(name), np.flatnonzero(values == name)) for name in leading]
    others = np.flatnonzero(~np.isin(values, leading))
    return [*groups, ("others", others)] if others.size else groups


def _count_bar(scale: np.ndarray[Any, Any]) -> dict[str, Any]:
    top = int(np.ceil(scale.max())) if scale.size else 0
    return {
        "title": {"text": "training interactions", "side": "right"},
        "tickvals": [np.log10(1 + 10**power) for power in range(top + 1)],
        "ticktext": [f"{10**power:,}" for power in range(top + 1)],
        "thickness": 12,
        "outlinewidth": 0,
    }
