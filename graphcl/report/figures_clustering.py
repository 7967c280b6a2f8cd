"""Figures of a clustering report: maps coloured by group, matrices, bars, curves over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl

from graphcl.report.figures import COLORS, base_figure, plain_text

__all__ = ["MAP_POINTS", "curves", "group_map", "matrix_map", "score_bars", "size_bars"]

MAP_POINTS = 3000
# More groups than colours are told apart by shape.
_SHAPES = ("circle", "diamond", "square", "triangle-up", "cross")
_SHADES = [[0, "#f4f6f8"], [0.5, "#7fa8cf"], [1, "#10324f"]]
# Cells carry their number while there is room for it.
_WRITTEN_CELLS = 15
# Above the figure its buttons would cover a long legend.
_BELOW = {"y": -0.22, "yanchor": "top"}


def group_map(
    table: pl.DataFrame,
    column: str,
    explained: Sequence[float] | None,
    *,
    order: Sequence[Any] = (),
    prefix: str = "",
    height: int = 500,
) -> go.Figure:
    """Points on two principal components, one colour and shape a group.

    Args:
        table: ``node``, ``x``, ``y`` and ``column``; rows without a group are grey.
        column: what to colour by.
        explained: shares of the variance on the two axes.
        order: groups in the order in which they get colours; others follow.
        prefix: put before the name of a group.
        height: of the figure in pixels.
    """
    titles = ["first component", "second component"]
    if explained is not None:
        titles = [f"{title} ({share:.0%} of the variance)" for title, share in zip(titles, explained, strict=True)]
    figure = base_figure(titles[0], titles[1], height=height)
    present = table[column].drop_nulls().unique().sort().to_list()
    groups = [*order, *(group for group in present if group not in order)]
    for number, group in enumerate([*groups, None]):
        rows = table.filter(pl.col(column).is_null() if group is None else pl.col(column) == group)
        if not rows.height:
            continue
        color, shape = COLORS[number % len(COLORS)], _SHAPES[number // len(COLORS) % len(_SHAPES)]
        figure.add_scatter(
            x=rows["x"].to_numpy(), y=rows["y"].to_numpy(), mode="markers",
            name="no label" if group is None else prefix + plain_text(group),
            text=[plain_text(node) for node in rows["node"]],
            marker={"color": "#b8c0c8" if group is None else color, "symbol": shape, "size": 5, "opacity": 0.7,
                    "line": {"width": 0}},
            hovertemplate="node %{text}",
        )  # fmt: skip
    figure.update_layout(legend={**_BELOW, "y": -0.16, "itemsizing": "constant", "font": {"size": 11}})
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure


def matrix_map(
    values: npt.NDArray[np.floating[Any]],
    rows: Sequence[Any],
    columns: Sequence[Any],
    *,
    x_title: str,
    y_title: str,
    counts: npt.NDArray[Any] | None = None,
    what: str = "share",
) -> go.Figure:
    """A matrix of shares as colours from 0 to 1, with its numbers where there is room.

    Args:
        values: ``[R, C]`` in [0, 1].
        rows, columns: their names.
        x_title, y_title: of the axes.
        counts: ``[R, C]`` shown when one points at a cell; the shares again when None.
        what: what a share is of.
    """
    height = min(max(260, 60 + 34 * len(rows)), 900)
    figure = base_figure(x_title, y_title, height=height)
    row_names, column_names = [plain_text(name) for name in rows], [plain_text(name) for name in columns]
    pointed = values if counts is None else counts
    small = max(len(rows), len(columns)) <= _WRITTEN_CELLS
    figure.add_heatmap(
        z=values.tolist(), x=column_names, y=row_names, customdata=pointed.tolist(), zmin=0, zmax=1,
        colorscale=_SHADES, xgap=2, ygap=2, texttemplate="%{z:.2f}" if small else None,
        colorbar={"thickness": 12, "outlinewidth": 0, "title": {"text": what, "side": "right"}},
        hovertemplate=f"%{{y}} and %{{x}}<br>{plain_text(what)} %{{z:.3f}}"
        + ("" if counts is None else "<br>%{customdata:,}")
        + "<extra></extra>",
    )  # fmt: skip
    # The first row is drawn on top, as in a printed table.
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, title={"standoff": 6})
    figure.update_xaxes(type="category", showgrid=False)
    return figure


def size_bars(sizes: Mapping[str, Mapping[str, int]]) -> go.Figure:
    """Nodes a group, largest first, for one or more partitions side by side.

    Args:
        sizes: name of the partition to nodes by group.
    """
    figure = base_figure("group, largest first", "nodes", height=320)
    for number, (partition, counts) in enumerate(sizes.items()):
        ordered = sorted(counts.items(), key=lambda entry: -entry[1])
        figure.add_bar(
            x=list(range(1, len(ordered) + 1)), y=[count for _, count in ordered], name=plain_text(partition),
            customdata=[plain_text(name) for name, _ in ordered], marker={"color": COLORS[number]},
            hovertemplate="%{customdata}<br>%{y:,} nodes",
        )  # fmt: skip
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.06, showlegend=len(sizes) > 1)
    figure.update_xaxes(type="category")
    return figure


def score_bars(scores: Mapping[int, float], chosen: int, *, y_title: str) -> go.Figure:
    """Evidence for every candidate number of clusters; the chosen one stands out."""
    figure = base_figure("number of clusters", y_title, height=280)
    figure.add_bar(
        x=list(scores), y=list(scores.values()),
        marker={"color": [COLORS[1] if count == chosen else COLORS[0] for count in scores]},
        hovertemplate="%{x} clusters<br>%{y:.4f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="category")
    return figure


def curves(
    history: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    *,
    y_title: str,
    labels: Mapping[str, str] | None = None,
) -> go.Figure:
    """Columns of the history over epochs.

    Args:
        history: column name to one number an epoch.
        names: columns to draw.
        y_title: of the axis.
        labels: column name to what the legend says.
    """
    figure = base_figure("epoch", y_title)
    for name in names:
        pairs = [(e, value) for e, value in zip(history["epoch"], history[name], strict=True) if value is not None]
        figure.add_scatter(
            x=[epoch for epoch, _ in pairs], y=[value for _, value in pairs],
            name=plain_text((labels or {}).get(name, name)), mode="lines+markers" if len(pairs) < 60 else "lines",
            marker={"size": 4}, line={"width": 2}, hovertemplate="epoch %{x}<br>%{y:.4f}",
        )  # fmt: skip
    figure.update_layout(legend=_BELOW)
    return figure
