"""Cases of how clusterings and frozen embeddings are measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphcl.metrics import classification_scores, clustering_metrics, one_vs_rest_auc, train_linear_probe
from replay_cases.graph_meta_nodes import wave
from replay_cases.registry import Case, case


@case("clustering_metrics")
def clustering_measures(one: Case) -> Mapping[str, Any]:
    found = clustering_metrics(one.inputs["y_pred"], labels=one.inputs["y_true"])
    return {"acc": found.accuracy, "f1_macro": found.macro_f1, "nmi": found.nmi, "ari": found.ari}


@case("linear_probe")
def probe(one: Case) -> Mapping[str, Any]:
    x, weight, target = wave(one.inputs["X"]), wave(one.inputs["W0"]), torch.tensor(one.inputs["y"])
    trained = train_linear_probe(x, target, weight.unsqueeze(0), steps=20, learning_rate=0.03)
    logits = trained.logits(x)[0]
    predicted = logits.argmax(dim=1)
    scores = classification_scores(predicted, target, weight.shape[0])
    return {
        "loss_first": trained.losses[0, 0],
        "loss_last": trained.losses[-1, 0],
        "weight": trained.weight[0],
        "bias": trained.bias[0],
        "pred": predicted,
        "macro_f1": scores.macro_f1,
        "micro_f1": scores.micro_f1,
        "auc_ovr": one_vs_rest_auc(logits.softmax(dim=1), target),
    }
