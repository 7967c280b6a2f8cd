"""The report of an embedder."""

from __future__ import annotations

from collections.abc import Iterator

from graphcl.report import figures_clustering as maps
from graphcl.report.figures import COLORS, base_figure, plain_text
from graphcl.report.html import escape, facts, figure_element, note, section
from graphcl.report.record import RunRecord
from graphcl.report.sections import headline, protocol_facts, run_and_settings, training

__all__ = ["FILES", "sections"]

NODE_MAP = "node_map.parquet"
FILES = (NODE_MAP,)

# Probe -> its name for people.
_PROBES = {
    "macro_f1": "Macro-F1",
    "micro_f1": "Micro-F1",
    "auc": "AUC",
    "logistic_accuracy": "accuracy (logistic regression)",
    "knn_accuracy": "accuracy (10 nearest neighbours)",
}
_HEADLINE = ("logistic_accuracy", "macro_f1", "auc")
_CLUSTERS = {"nmi": "NMI", "ari": "ARI"}
_WITHOUT_LABELS = {"effective_rank": "effective rank", "uniformity": "uniformity", "link_auc": "AUC of the edges"}


def sections(record: RunRecord) -> Iterator[str]:
    """The sections of the report, in order."""
    yield _headline(record)
    yield _probes(record)
    yield _clusters(record)
    yield _map(record)
    yield _attention(record)
    yield training(record)
    yield from run_and_settings(record)


def _headline(record: RunRecord) -> str:
    probes, test = record.metrics.get("probes") or [], record.metrics["test"]
    shown = {}
    if probes:
        first = probes[0]
        end = f" ({first['split']})" if first["split"] else ""
        # Graphs without types are reported by accuracy, the others by F1 and AUC.
        shown = {f"{_PROBES[name]}{end}": float(first[name]) for name in _HEADLINE if first.get(name) is not None}
    else:
        known = {**_CLUSTERS, **_WITHOUT_LABELS}
        shown = {label: float(test[name]) for name, label in known.items() if test.get(name) is not None}
    return headline(record, shown)


def _probes(record: RunRecord) -> str:
    probes = record.metrics.get("probes") or []
    if not probes:
        text = "The graph has no labelled splits, so no probe was trained."
        return section("Probes", note(text), protocol_facts(record.metrics))
    named = [name for name in _PROBES if any(probe.get(name) is not None for probe in probes)]
    head = ["split", "training", "validation", "test", *(_PROBES[name] for name in named)]
    rows = []
    for probe in probes:
        sizes = "".join(f'<td class="number">{int(probe[part]):,}</td>' for part in ("train", "val", "test"))
        values = "".join(_measured(probe.get(name), probe.get(f"{name}_std")) for name in named)
        rows.append(f"<tr><th>{escape(probe['split'] or 'the masks')}</th>{sizes}{values}</tr>")
    titles = "".join(f'<th class="number">{escape(title)}</th>' for title in head[1:])
    table = (
        f'<div class="scroll"><table><thead><tr><th>{head[0]}</th>{titles}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    text = (
        "Classifiers on the frozen embeddings, one row a split of the labelled nodes. Macro-F1, Micro-F1 and AUC are "
        "those of a linear layer, mean and deviation over its initial weights; the step is chosen by validation."
    )
    return section("Probes", note(text), table, protocol_facts(record.metrics))


def _measured(value: float | None, deviation: float | None) -> str:
    text = "–" if value is None else f"{100 * value:.2f}"
    if value is not None and deviation is not None:
        text += f" ± {100 * deviation:.2f}"
    return f'<td class="number">{text}</td>'


def _clusters(record: RunRecord) -> str:
    test = record.metrics["test"]
    values = {
        label: f"{float(test[name]):.4f} ± {float(test[f'{name}_std']):.4f}"
        for name, label in _CLUSTERS.items()
        if test.get(name) is not None and test.get(f"{name}_std") is not None
    }
    rest = {label: test[name] for name, label in _WITHOUT_LABELS.items() if test.get(name) is not None}
    text = (
        "Agreement of k-means clusters of the embeddings with the classes (mean and deviation), and measures that need "
        "no label: how many directions the embeddings use, and how evenly they cover the sphere (lower is more even)."
        if values
        else "Measures that need no label: how many directions the embeddings use, and how evenly they cover the "
        "sphere (lower is more even)."
    )
    return section("Clusters and geometry", note(text), facts({**values, **rest}))


def _map(record: RunRecord) -> str:
    about = record.analysis.get("node_map") or {}
    nodes = record.table(NODE_MAP, ("node", "x", "y"))
    if "label" not in nodes.columns:
        nodes = nodes.with_columns(label=None)
    figure = maps.group_map(nodes, "label", about.get("explained_variance"))
    text = (
        f"{nodes.height:,} of {int(about.get('nodes', nodes.height)):,} nodes on the first two principal components of "
        "their embeddings (rows of unit length), coloured by label where there is one. Groups that overlap here may "
        "still be apart in the embedding space. Point at a node to see its id."
    )
    return section("Embeddings", note(text), figure_element(figure))


def _attention(record: RunRecord) -> str:
    weights = record.analysis.get("attention") or {}
    if not weights:
        return ""
    figure = base_figure("", "weight", height=300)
    figure.add_bar(
        x=[plain_text(name) for name in weights], y=list(weights.values()), marker={"color": COLORS[0]},
        hovertemplate="%{x}<br>%{y:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(type="category")
    text = "Share of each meta-path in the embedding, as the model's attention mixes them; shares sum to 1."
    return section("Meta-paths", note(text), figure_element(figure))
