"""Cases of the models for graphs of one node type: GRACE, DGI, BGRL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from graphcl.functional import nt_xent
from graphcl.kernels import normalize_rows, pair_logsumexp
from graphcl.models.bgrl import bootstrap_distance
from graphcl.models.dgi import summary_contrast
from replay_cases.graph_meta_nodes import wave
from replay_cases.registry import Case, case


@case("grace_loss")
def grace_loss(one: Case) -> Mapping[str, Any]:
    first, second = wave(one.inputs["h1"]).requires_grad_(), wave(one.inputs["h2"])
    temperature = float(one.inputs["tau"])
    loss = nt_xent(first, second, temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, first)
    # The library's wrapper keeps each anchor among its own negatives.
    rows = normalize_rows(torch.cat([first.detach(), second]))
    twins = torch.cat([rows[second.shape[0] :], rows[: second.shape[0]]])
    total = pair_logsumexp(rows, rows, temperature=temperature).logsumexp
    with_self = (total - (rows * twins).sum(dim=1) / temperature).mean()
    return {"loss": loss.detach(), "loss_pygcl_with_self_pair": with_self, "grad_h1": gradient}


@case("dgi_losses")
def dgi_losses(one: Case) -> Mapping[str, Any]:
    rows, summary, corrupted = (wave(one.inputs[name]) for name in ("h", "g", "hn"))
    loss = summary_contrast(rows, corrupted, summary[0])
    return {"jsd": 2 * loss - 2 * math.log(2), "bce": loss}


@case("bgrl_similarity")
def bgrl_similarity(one: Case) -> Mapping[str, Any]:
    first, second, target = (wave(one.inputs[name]) for name in ("h1_pred", "h2_pred", "h1_target"))
    # "0.5*h2_pred + 0.25*h1_pred", as the case says.
    other = 0.5 * second + 0.25 * first
    loss = bootstrap_distance(second, target) + bootstrap_distance(first, other)
    return {"mean_cosine": 1 - loss / 2, "loss_neg_cosine": loss / 2 - 1, "loss_2_minus_2cos": loss}
