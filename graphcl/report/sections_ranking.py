"""The report of a recommender."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphcl.report import figures
from graphcl.report.html import figure_element, note, section, table
from graphcl.report.record import RunRecord
from graphcl.report.sections import headline, metric_table, protocol_facts, run_and_settings, training

ITEM_MAP = "item_map.parquet"
FILES = (ITEM_MAP,)


def sections(record: RunRecord) -> Iterator[str]:
    """The sections of the report, in order."""
    metrics = record.metrics
    test = metrics["test"]
    yield headline(record, {f"test {name}": test[name] for name in figures.leading_metrics(test)})
    yield section("Metrics", metric_table(metrics), protocol_facts(metrics))
    yield training(record)
    yield hot_and_cold(metrics.get("buckets") or [], test)
    yield _ablation(metrics.get("ablation") or [])
    yield _scores(record.analysis.get("score_histograms"))
    yield _exposure(record.analysis.get("exposure"))
    yield embedding_map(record)
    yield from run_and_settings(record)


def hot_and_cold(buckets: Sequence[Mapping[str, Any]], test: Mapping[str, Any]) -> str:
    """Metrics by how often a target occurs in training, as bars and as a table."""
    names = [name for name in figures.leading_metrics(test) if any(name in bucket for bucket in buckets)][:2]
    if not names:
        return section("Hot and cold items", note("The run recorded no metrics by item popularity."))
    recorded = list(dict.fromkeys(name for bucket in buckets for name in bucket if name != "name"))
    shown = [name for name in recorded if figures.cutoff_of(name) is None] + names
    rows = [(str(bucket.get("name", "")), [bucket.get(name) for name in shown]) for bucket in buckets]
    about = "Test targets by how often the item occurs in training; ranks are still among all items."
    return section(
        "Hot and cold items",
        note(about),
        figure_element(figures.bucket_bars(buckets, names)),
        table(["in training", *shown], rows),
    )


def _ablation(runs: Sequence[Mapping[str, Any]]) -> str:
    """What the model draws from each modality; nothing for a model that reads none."""
    if not runs:
        return ""
    names = figures.leading_metrics(runs[0]["metrics"])
    rows = []
    for run in runs:
        left_out = run["without"] if run["modalities"] else ["all modalities"]
        label = f"without {', '.join(left_out)}" if left_out else "all modalities"
        rows.append((label, [run["metrics"].get(name) for name in names]))
    about = "Test metrics of the same weights when the hyperedges of a modality are taken away."
    return section("Modalities", note(about), table(["item hypergraph", *names], rows))


def _scores(histograms: Mapping[str, Any] | None) -> str:
    heading = "Scores of targets and of other items"
    if not histograms:
        return section(heading, note("The run recorded no score distribution."))
    auc = histograms.get("auc")
    about = "Inner products of users with their test targets, and with items drawn at random."
    if isinstance(auc, int | float):
        about += f" A target scores higher than a random item in {100 * auc:.1f}% of the pairs."
    return section(heading, note(about), figure_element(figures.score_distribution(histograms)))


def _exposure(exposure: Mapping[str, Any] | None) -> str:
    if not exposure:
        return ""
    text = (
        "Share of the catalogue that is recommended to anyone, mean log(1 + training count) of what is recommended, "
        "and how unequally places are spread (Gini: 0 equal, 1 one item)."
    )
    return section("What is recommended", note(text), metric_table({"test": exposure, "validation": {}}))


def embedding_map(record: RunRecord) -> str:
    """Items on a plane."""
    about = record.analysis.get("item_map") or {}
    items = record.table(ITEM_MAP, ("item", "x", "y", "train_count"))
    figure, drawn = figures.item_map(items, about.get("explained_variance"))
    text = (
        f"{drawn:,} of {int(about.get('items', items.height)):,} items, popular ones preferred, on the first "
        "two principal components of their embeddings. Point at one to see its id."
    )
    return section("Item embeddings", note(text), figure_element(figure))
