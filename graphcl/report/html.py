"""Pieces of the page: every text that comes from data is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go


def section(heading: str, *parts: str) -> str:
    """A titled box around pieces of HTML.

    Example:
        >>> section("Sizes", note("a < b"))
        '<section><h2>Sizes</h2><p class="note">a &lt; b</p></section>'
    """
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def note(text: str) -> str:
    """A paragraph of explanation."""
    return f'<p class="note">{escape(text)}</p>'


def cards(values: Iterable[tuple[str, str]]) -> str:
    """A row of large values, each over its label."""
    boxes = (f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>' for value, label in values)
    return f'<div class="cards">{"".join(boxes)}</div>'


def columns(parts: Iterable[str]) -> str:
    """Pieces side by side where there is room."""
    return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[Any]]]) -> str:
    """A table of numbers: the first column holds names.

    Args:
        head: titles of the columns, that of the names among them.
        rows: name and numbers of each row.
    """
    titles = "".join(f'<th class="number">{escape(title)}</th>' for title in head[1:])
    lines = (f"<tr><th>{escape(name)}</th>{''.join(map(number_cell, values))}</tr>" for name, values in rows)
    top = f"<thead><tr><th>{escape(head[0])}</th>{titles}</tr></thead>"
    return f'<div class="scroll"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def facts(values: Mapping[str, Any]) -> str:
    """Nested settings as a table of dotted names and values."""
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(_value(value))}</td></tr>" for name, value in _flat(values))
    return f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        label = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{label} · ")
        elif str(name).endswith("_bytes") and isinstance(value, int):
            yield label.removesuffix(" bytes"), f"{value / 2**20:,.0f} MiB"
        elif str(name).endswith("_seconds") and isinstance(value, int | float):
            yield label.replace(" seconds", " time"), duration(value)
        else:
            yield label, value


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not set"}[value]
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_value(entry) for entry in value) or "none"
    return str(value)


def number_cell(value: Any) -> str:
    """A table cell for a number: four decimals for fractions, thousands separators for counts, a dash for None."""
    if isinstance(value, float):
        text = f"{value:.4f}"
    else:
        text = "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
    return f'<td class="number">{escape(text)}</td>'


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(75)
        '1 min 15 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def escape(value: Any) -> str:
    """Text as HTML shows it letter by letter."""
    return html.escape(str(value))


def figure_element(figure: go.Figure) -> str:
    """The figure as an element with its own script, which needs the library that the page carries."""
    # Nothing in a script element may look like its end or like a comment, whatever the data say.
    data = str(figure.to_json()).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    data = data.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    # Drawn when the page is laid out: before that an element does not know its width.
    return (
        '<div class="figure"></div><script>{const element = document.currentScript.previousElementSibling; '
        f"const figure = {data}; "
        'addEventListener("DOMContentLoaded", () => Plotly.newPlot(element, figure.data, figure.layout, '
        '{responsive: true, displaylogo: false, displayModeBar: "hover", '
        'modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]}));}</script>'
    )
