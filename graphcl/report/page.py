"""The HTML page of a report."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcl.errors import InputError
from graphcl.pipelines.runs import write_by_rename
from graphcl.report import figures
from graphcl.report.record import RunRecord, read_run

if TYPE_CHECKING:
    import plotly.graph_objects as go

# No request can leave the page: everything it needs is in it.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --muted: #66727f; --line: #e4e8ec; --accent: #2f6fb0; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 16px 0 4px; }
p { margin: 0 0 10px; }
.note { color: var(--muted); font-size: 13.5px; max-width: 75ch; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px; margin-top: 18px; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 18px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px 18px; min-width: 132px; }
.card b { display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--muted); font-size: 13px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 8px 32px; }
.columns > * { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; margin: 8px 0; }
th, td { padding: 5px 14px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; }
td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; padding: 5px 0 5px 22px; }
tbody th { color: var(--ink); font-weight: 500; white-space: nowrap; padding-right: 24px; }
.facts { width: 100%; }
.facts th { width: 34%; white-space: normal; color: var(--muted); font-weight: 500; }
.group { text-align: center; border-bottom: 2px solid var(--line); padding-left: 22px; }
code { font: 13px ui-monospace, Menlo, Consolas, monospace; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run: one HTML file that needs nothing else, not even a network.

    It reads only the run folder: ``config.yaml``, ``metrics.json``, ``history.csv``, ``manifest.json``,
    ``analysis.json`` and ``item_map.parquet``. Text from data is escaped, in the page and inside the figures, and the
    page forbids itself every request. The file appears by rename.

    Args:
        run_folder: what training wrote.
        out: the HTML file; ``report.html`` in the run folder by default.

    Returns:
        The path of the file.

    Raises:
        InputError: the run folder lacks a file or one is damaged, or ``out`` cannot be written.

    Complexity:
        Time and memory O(size of the run's tables); the file is about 5 MB, nearly all of it the plotting library.

    Example:
        >>> write_report(Path("no-such-run"))
        Traceback (most recent call last):
        graphcl.errors.InputError: no-such-run: no such run folder; give a folder that `graphcl train` wrote
    """
    run_folder = Path(run_folder)
    record = read_run(run_folder)
    out = run_folder / "report.html" if out is None else Path(out)
    if out.is_dir() or not out.parent.is_dir():
        raise InputError("cannot be written there", "give a file in an existing folder", path=out)
    text = render(record)
    write_by_rename(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return out


def render(record: RunRecord) -> str:
    """The whole page as text."""
    import plotly.offline

    model = record.config.get("model", record.name)
    model = model.get("name", record.name) if isinstance(model, Mapping) else model
    data = record.manifest.get("data", {})
    source = data.get("name") or data.get("source") or "" if isinstance(data, Mapping) else data
    title = f"{model} on {Path(str(source)).name}" if source else str(model)
    body = "\n".join(_sections(record))
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style>"
        f"<script>{plotly.offline.get_plotlyjs()}</script></head>\n"
        f"<body><main><header><h1>{_text(title)}</h1>"
        f'<p class="note">run <code>{_text(record.name)}</code></p></header>\n{body}\n</main></body></html>\n'
    )


def _sections(record: RunRecord) -> Iterator[str]:
    metrics = record.metrics
    yield _cards(record)
    yield _section("Metrics", _metric_table(metrics), _protocol(metrics))
    best = metrics.get("best_epoch")
    curves = figures.training_curves(record.history, int(best) if isinstance(best, int | float) else None)
    drawn = [f"<div><h3>{heading}</h3>{_figure(figure)}</div>" for heading, figure in curves.items()]
    yield _section("Training", f'<div class="columns">{"".join(drawn)}</div>')
    yield _hot_and_cold(metrics.get("buckets") or [], metrics["test"])
    yield _scores(record.analysis.get("score_histograms"))
    yield _exposure(record.analysis.get("exposure"))
    yield _embedding_map(record)
    yield _section("Run", _facts({name: value for name, value in record.manifest.items() if name != "protocol"}))
    yield _section("Settings", _facts(record.config))


def _cards(record: RunRecord) -> str:
    test = record.metrics["test"]
    cards = [(f"{float(test[name]):.4f}", f"test {name}") for name in figures.leading_metrics(test)]
    epochs, best = record.metrics.get("epochs"), record.metrics.get("best_epoch")
    if epochs is not None:
        cards.append((str(epochs), "epochs" if best is None else f"epochs, best {best}"))
    seconds = record.manifest.get("wall_seconds")
    if isinstance(seconds, int | float):
        cards.append((_duration(seconds), "wall time"))
    boxes = (f'<div class="card"><b>{_text(value)}</b><span>{_text(label)}</span></div>' for value, label in cards)
    return f'<div class="cards">{"".join(boxes)}</div>'


def _metric_table(metrics: Mapping[str, Any]) -> str:
    """Metrics by row, cut-offs by column, test beside validation."""
    parts = [part for part in ("test", "validation") if metrics[part]]
    names = list(dict.fromkeys(name for part in parts for name in metrics[part]))
    cutoffs = sorted({cutoff for name in names if (cutoff := figures.cutoff_of(name)) is not None})
    heads = list(dict.fromkeys(name.rpartition("@")[0] for name in names if figures.cutoff_of(name) is not None))
    groups = "".join(f'<th class="group" colspan="{len(cutoffs)}">{part}</th>' for part in parts)
    columns = "".join(f'<th class="number">@{k}</th>' for _ in parts for k in cutoffs)
    rows = []
    for head in heads:
        values = (metrics[part].get(f"{head}@{k}") for part in parts for k in cutoffs)
        rows.append(f"<tr><th>{_text(head)}</th>{''.join(_number_cell(value) for value in values)}</tr>")
    table = (
        f'<div class="scroll"><table><thead><tr><th></th>{groups}</tr><tr><th></th>{columns}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    others = {
        name: {part: metrics[part].get(name) for part in parts} for name in names if figures.cutoff_of(name) is None
    }
    return (table if heads else "") + (_facts(others) if others else "")


def _protocol(metrics: Mapping[str, Any]) -> str:
    protocol = metrics.get("protocol") or {}
    return f"<h3>Protocol</h3>{_facts(protocol)}" if protocol else ""


def _hot_and_cold(buckets: Sequence[Mapping[str, Any]], test: Mapping[str, Any]) -> str:
    names = [name for name in figures.leading_metrics(test) if any(name in bucket for bucket in buckets)][:2]
    if not names:
        return _section("Hot and cold items", _note("The run recorded no metrics by item popularity."))
    columns = list(dict.fromkeys(name for bucket in buckets for name in bucket if name != "name"))
    shown = [name for name in columns if figures.cutoff_of(name) is None] + names
    head = "".join(f'<th class="number">{_text(name)}</th>' for name in shown)
    rows = "".join(
        f"<tr><th>{_text(bucket.get('name', ''))}</th>{''.join(_number_cell(bucket.get(name)) for name in shown)}</tr>"
        for bucket in buckets
    )
    top = f"<thead><tr><th>in training</th>{head}</tr></thead>"
    table = f'<div class="scroll"><table>{top}<tbody>{rows}</tbody></table></div>'
    note = "Test targets by how often the item occurs in training; ranks are still among all items."
    return _section("Hot and cold items", _note(note), _figure(figures.bucket_bars(buckets, names)), table)


def _scores(histograms: Mapping[str, Any] | None) -> str:
    heading = "Scores of targets and of other items"
    if not histograms:
        return _section(heading, _note("The run recorded no score distribution."))
    auc = histograms.get("auc")
    note = "Inner products of users with their test targets, and with items drawn at random."
    if isinstance(auc, int | float):
        note += f" A target scores higher than a random item in {100 * auc:.1f}% of the pairs."
    return _section(heading, _note(note), _figure(figures.score_distribution(histograms)))


def _exposure(exposure: Mapping[str, Any] | None) -> str:
    if not exposure:
        return ""
    note = (
        "Share of the catalogue that is recommended to anyone, mean log(1 + training count) of what is recommended, "
        "and how unequally places are spread (Gini: 0 equal, 1 one item)."
    )
    return _section("What is recommended", _note(note), _metric_table({"test": exposure, "validation": {}}))


def _embedding_map(record: RunRecord) -> str:
    about = record.analysis.get("item_map") or {}
    figure, drawn = figures.item_map(record.item_map, about.get("explained_variance"))
    note = (
        f"{drawn:,} of {int(about.get('items', record.item_map.height)):,} items, popular ones preferred, on the first "
        "two principal components of their embeddings. Point at one to see its id."
    )
    return _section("Item embeddings", _note(note), _figure(figure))


def _section(heading: str, *parts: str) -> str:
    return f"<section><h2>{_text(heading)}</h2>{''.join(parts)}</section>"


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>'


def _facts(values: Mapping[str, Any]) -> str:
    """Nested settings as a table of dotted names and values."""
    rows = (f"<tr><th>{_text(name)}</th><td>{_text(_value(value))}</td></tr>" for name, value in _flat(values))
    return f'<table class="facts"><tbody>{"".join(rows)}</tbody></table>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        label = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{label} · ")
        elif str(name).endswith("_bytes") and isinstance(value, int):
            yield label.removesuffix(" bytes"), f"{value / 2**20:,.0f} MiB"
        elif str(name).endswith("_seconds") and isinstance(value, int | float):
            yield label.replace(" seconds", " time"), _duration(value)
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


def _number_cell(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:.4f}"
    else:
        text = "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
    return f'<td class="number">{_text(text)}</td>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _text(value: Any) -> str:
    return html.escape(str(value))


def _figure(figure: go.Figure) -> str:
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
