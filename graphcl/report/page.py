"""The HTML page of a report."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphcl.errors import InputError
from graphcl.pipelines.runs import CONFIG, REPORT, UNLEARNING, RunFolder, write_by_rename
from graphcl.report.html import escape
from graphcl.report.record import RunRecord, read_run, require_files
from graphcl.report.sections_unlearning import unlearning_section

# Pipeline of a run -> module with its FILES (beside those of every run) and its sections(record).
_SECTIONS = {
    "sequential": "graphcl.report.sections_ranking",
    "collaborative": "graphcl.report.sections_ranking",
    "clustering": "graphcl.report.sections_clustering",
    "embedding": "graphcl.report.sections_embedding",
    "alignment": "graphcl.report.sections_ranking",
    "bundle": "graphcl.report.sections_bundle",
    "events": "graphcl.report.sections_events",
    "retrieval": "graphcl.report.sections_retrieval",
}

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
    ``analysis.json`` and the files of the run's pipeline. Text from data is escaped, in the page and inside the
    figures, and the page forbids itself every request. The file appears by rename.

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
    require_files(run_folder, (CONFIG,))
    sections = _sections_of(run_folder)
    record = read_run(run_folder, sections.FILES)
    out = run_folder / REPORT if out is None else Path(out)
    if not out.parent.is_dir():
        raise InputError("cannot be written there", "give a file in an existing folder", path=out)
    body = list(sections.sections(record))
    if (run_folder / UNLEARNING).is_file():
        body.insert(1, unlearning_section(RunFolder(run_folder).read_json(UNLEARNING)))  # after the headline
    text = render(record, "\n".join(body))
    write_by_rename(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return out


def _sections_of(run_folder: Path) -> Any:
    """The module that knows the reports of the run's pipeline."""
    name = str(RunFolder(run_folder).read_config().get("pipeline", "sequential"))
    if name not in _SECTIONS:
        raise InputError(f"unknown pipeline {name!r}", f"use one of: {', '.join(_SECTIONS)}", path=run_folder / CONFIG)
    return importlib.import_module(_SECTIONS[name])


def render(record: RunRecord, body: str) -> str:
    """The whole page as text, around its sections."""
    model = record.config.get("model", record.name)
    model = model.get("name", record.name) if isinstance(model, Mapping) else model
    data = record.manifest.get("data", {})
    source = data.get("name") or data.get("source") or "" if isinstance(data, Mapping) else data
    title = f"{model} on {Path(str(source)).name}" if source else str(model)
    return html_page(title, f"run {record.name}", body)


def html_page(title: str, subtitle: str, body: str) -> str:
    """A self-contained page with the plotting library in it, as text.

    Args:
        title: of the page.
        subtitle: a line below it.
        body: sections as HTML.
    """
    import plotly.offline

    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<script>{plotly.offline.get_plotlyjs()}</script></head>\n"
        f'<body><main><header><h1>{escape(title)}</h1><p class="note">{escape(subtitle)}</p></header>\n'
        f"{body}\n</main></body></html>\n"
    )
