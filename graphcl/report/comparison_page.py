"""The page of a comparison: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcl.errors import InputError
from graphcl.pipelines.runs import write_by_rename
from graphcl.report.comparison import Comparison, Group
from graphcl.report.html import figure_element, note, section, table
from graphcl.report.page import html_page

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["HEAD", "comparison_rows", "how_tested", "write_comparison"]

HEAD = ("", "seeds", "test", "±", "valid.", "diff.", "p seeds", "p users")


def write_comparison(comparison: Comparison, out: str | Path) -> Path:
    """Write a comparison as one HTML file that needs nothing else; it appears by rename.

    Args:
        comparison: what `compare_runs` found.
        out: the file.

    Returns:
        Its path.

    Raises:
        InputError: the place cannot be written.

    Complexity:
        O(groups x metrics); the file is about 5 MB, nearly all of it the plotting library.
    """
    path = Path(out)
    if not path.parent.is_dir():
        raise InputError("cannot be written there", "give a file in an existing folder", path=path)
    rows = comparison_rows(comparison)
    body = [
        section(
            comparison.metric,
            note("Mean and sample deviation over the seeds; the best setting of a model by validation has a star."),
            table(HEAD, [(str(row[0]), row[1:]) for row in rows]),
            *(note(line) for line in (how_tested(comparison), *comparison.notes)),
        ),
        section("Every seed", figure_element(_every_seed(comparison))),
        section("All metrics", note("Means over the seeds."), _all_metrics(comparison)),
        section("Settings that differ", _settings(comparison)),
    ]
    text = html_page(f"Comparison by {comparison.metric}", f"reference: {comparison.reference}", "\n".join(body))
    write_by_rename(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def comparison_rows(comparison: Comparison) -> list[list[Any]]:
    """The cells of the table, a row a group, in the order of `HEAD`."""
    rows = []
    for group in comparison.groups:
        test, valid = group.summary(comparison.metric), group.summary(comparison.metric, "validation")
        tests = [found for found in (group.against_seeds, group.against_users) if found is not None]
        reference = group.name == comparison.reference
        rows.append([
            f"{group.name}{' *' if group.chosen else ''}",
            len(group.runs),
            test["mean"],
            test["deviation"],
            valid["mean"],
            "ref." if reference else tests[0].difference if tests else None,
            _p(group.p_seeds),
            _p(group.p_users),
        ])  # fmt: skip
    return rows


def _p(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def how_tested(comparison: Comparison) -> str:
    """One line on the tests."""
    return (
        f"p: two-sided paired t-tests against {comparison.reference}, Holm-corrected over the groups; one over the "
        "seeds, one over users with each user's mean over the seeds. ±: sample deviation over seeds. "
        "*: the model's best setting by mean validation metric."
    )


def _every_seed(comparison: Comparison) -> go.Figure:
    # Here, because the figures need plotly, which the tables of the command line do without.
    from graphcl.report.figures import INK, base_figure, plain_text

    height = 146 + 34 * len(comparison.groups)
    figure = base_figure(f"test {plain_text(comparison.metric)}", "", height)
    for group in reversed(comparison.groups):
        values = group.values(comparison.metric)
        name = plain_text(group.name)
        figure.add_scatter(
            x=values.tolist(), y=[name] * values.size, mode="markers", name=name, marker={"size": 9, "opacity": 0.55},
            text=[f"seed {seed}" for seed in group.seeds], hovertemplate="%{text}: %{x:.4f}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[float(values.mean())], y=[name], mode="markers", hovertemplate="mean: %{x:.4f}<extra></extra>",
            marker={"symbol": "line-ns-open", "size": 20, "color": INK},
        )  # fmt: skip
    figure.update_layout(showlegend=False)
    return figure


def _all_metrics(comparison: Comparison) -> str:
    names = [group.name for group in comparison.groups]
    rows = [(metric, [group.summary(metric)["mean"] for group in comparison.groups]) for metric in comparison.metrics]
    return table(["metric", *names], rows)


def _settings(comparison: Comparison) -> str:
    def value(group: Group, name: str) -> str:
        return str(group.runs[0].settings.get(name, "–"))

    groups = comparison.groups
    names = sorted({name for group in groups for name in group.runs[0].settings})
    rows = [(name, [value(group, name) for group in groups]) for name in names]
    differing = [row for row in rows if len(set(row[1])) > 1]
    return table(["setting", *(group.name for group in groups)], differing) if differing else note("none")
