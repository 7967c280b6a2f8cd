"""The report of a bundle constructor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphcl.report import figures
from graphcl.report.html import figure_element, note, section, table
from graphcl.report.record import RunRecord
from graphcl.report.sections import headline, metric_table, protocol_facts, run_and_settings, training
from graphcl.report.sections_ranking import ITEM_MAP, embedding_map, hot_and_cold

__all__ = ["FILES", "sections"]

FILES = (ITEM_MAP,)
_SHOWN = ("Recall@20", "NDCG@20")


def sections(record: RunRecord) -> Iterator[str]:
    """The sections of the report, in order."""
    metrics = record.metrics
    test = metrics["test"]
    names = [name for name in _SHOWN if name in test] or figures.leading_metrics(test)
    yield headline(record, {f"test {name}": test[name] for name in names})
    yield section("Metrics", metric_table(metrics), protocol_facts(metrics))
    yield _baselines(str(record.config.get("model", "model")), test, metrics.get("baselines") or [], names)
    yield training(record)
    yield hot_and_cold(metrics.get("buckets") or [], test)
    yield _sizes(record.analysis.get("bundle_sizes") or {})
    yield embedding_map(record)
    yield from run_and_settings(record)


def _baselines(
    model: str, test: Mapping[str, Any], baselines: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> str:
    if not baselines:
        return ""
    rows = [(model, [test.get(name) for name in names])]
    rows += [(str(entry["name"]), [entry["metrics"].get(name) for name in names]) for entry in baselines]
    about = "The same partial bundles completed without training."
    return section("Beside methods without training", note(about), table(["", *names], rows))


def _sizes(sizes: Mapping[str, Any]) -> str:
    if not sizes:
        return ""
    ordered = sorted((int(size), int(count)) for size, count in sizes.items())
    figure = figures.base_figure("items of a bundle", "bundles", height=280)
    figure.add_bar(
        x=[size for size, _ in ordered], y=[count for _, count in ordered], marker={"color": figures.COLORS[0]},
        hovertemplate="%{x} items<br>%{y:,} bundles<extra></extra>",
    )  # fmt: skip
    return section("Sizes of the bundles", figure_element(figure))
