"""The section of a report on what a model has forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphcl.report import figures
from graphcl.report.html import duration, facts, note, section, table

__all__ = ["MODELS", "membership_rows", "shown_metrics", "unlearning_section"]

MODELS = {"before": "before", "after": "after forgetting", "retrained": "trained from scratch without"}
ATTACKS = {
    "users": "users: training against random items",
    "users_held_out": "users: training against held-out items",
    "items": "items: training against random users",
    "items_held_out": "items: training against held-out users",
    "edges": "nodes: edges against random nodes",
    "lists_with_forgotten": "lists with something forgotten",
    "overlap_with_retrained": "lists shared with the one from scratch",
}
_NODE_METRICS = ("logistic_accuracy", "macro_f1", "knn_accuracy", "nmi", "link_auc")


def unlearning_section(record: Mapping[str, Any]) -> str:
    """What was forgotten, the attacks on it, what became of the rest, and the cost.

    Args:
        record: `graphcl.pipelines.UnlearningReport` as a run folder keeps it.
    """
    names = [name for name in MODELS if name in record.get("membership", {})]
    head = ["", *(MODELS[name] for name in names)]
    text = (
        "An attacker who knows what was forgotten scores it by the model's vectors. Numbers are the probability that a "
        "training interaction (an edge) scores higher than another. What counts is how near forgetting comes to a "
        "model trained from scratch without the data, not to one half: what others do tells something about anyone."
    )
    retained = record.get("retained", {})
    shown = shown_metrics(retained)
    utility = [(metric, [retained.get(name, {}).get(metric) for name in names]) for metric in shown]
    cost = record.get("cost", {})
    spent = {
        name.replace("_", " "): duration(value) if name.endswith("seconds") else value for name, value in cost.items()
    }
    return section(
        "What was forgotten",
        facts(record.get("forgotten", {})),
        "<h3>What is left of it</h3>",
        note(text),
        table(head, membership_rows(record, names)),
        "<h3>What stays</h3>",
        note("Test metrics of everything that was not forgotten."),
        table(head, utility),
        "<h3>Cost</h3>",
        facts(spent),
        "<h3>Settings of forgetting</h3>",
        facts(record.get("settings", {})),
    )


def shown_metrics(retained: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The few metrics of what stays that stand for the rest.

    Args:
        retained: metrics by model.
    """
    known = list(dict.fromkeys(metric for metrics in retained.values() for metric in metrics))
    of_nodes = [metric for metric in known if metric.partition("@")[0] in _NODE_METRICS]
    return of_nodes or figures.leading_metrics(known)


def membership_rows(record: Mapping[str, Any], names: list[str]) -> list[tuple[str, list[Any]]]:
    """The attacks and lists of a record by row, models by column; rows without a number are left out."""
    merged = {
        name: {**record.get("membership", {}).get(name, {}), **record.get("lists", {}).get(name, {})} for name in names
    }
    rows = [(label, [merged[name].get(attack) for name in names]) for attack, label in ATTACKS.items()]
    return [(label, values) for label, values in rows if any(value is not None for value in values)]
