"""Cases of many views, regression, ranking and extreme multi-label, through `graphcl.functional`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from graphcl.functional import (
    conr,
    decoupled_softmax,
    dycl,
    groco,
    listwise_wasserstein,
    multi_label_softmax,
    multi_similarity,
    mv_dhel,
    mv_infonce,
    pmrl,
    principal_direction,
    soft_top_k,
    supremix,
    z_loss,
)
from replay_cases.losses import objective_case

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Output = tuple[Tensor, Mapping[str, Any]]


def views(inputs: Inputs, params: Params) -> list[Tensor]:
    """The views z1, z2, ..., or the blocks of one stacked input."""
    if "stack" not in inputs:
        return [inputs[name] for name in sorted(inputs, key=lambda name: int(name.lstrip("z")))]
    stated = re.search(r"V = (\d+)", str(params.get("views", "")))
    return list(inputs["stack"].chunk(int(stated.group(1)) if stated else 3))


def numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@objective_case("mv_infonce", "mv_infonce_cross")
def mv_infonce_case(inputs: Inputs, params: Params) -> Output:
    denominator: Literal["all", "cross"] = "cross" if "different" in params["denominator"] else "all"
    return mv_infonce(views(inputs, params), temperature=params["tau"], denominator=denominator), {}


@objective_case("mv_dhel")
def mv_dhel_case(inputs: Inputs, params: Params) -> Output:
    return mv_dhel(views(inputs, params), temperature=params["tau"]), {}


@objective_case("pmrl", "pmrl_rank2")
def pmrl_case(inputs: Inputs, params: Params) -> Output:
    shown = views(inputs, params)
    loss, parts = pmrl(shown, temperature=params["tau1"], instance_temperature=params["tau2"], return_components=True)
    first = principal_direction(shown).singular_values[0]
    # A singular value that is zero up to rounding is not part of the degenerate case's numbers.
    return loss, {**parts, "singular_values_row0": first[first > 1e-5]}


@objective_case("supremix")
def supremix_case(inputs: Inputs, params: Params) -> Output:
    loss = supremix(
        views(inputs, params),
        numbers(params["labels"]),
        temperature=params["tau"],
        anchor_share=params["lambda_anchor"],
        window=params["window"],
    )
    return loss, {}


def conr_case(inputs: Inputs, params: Params, *, denominator: Literal["clean", "released"]) -> Output:
    loss = conr(
        inputs["z1"],
        numbers(params["targets"]),
        numbers(params["preds"]),
        sample_weight=numbers(params["sample_weights"]),
        window=params["w"],
        temperature=params["tau"],
        push=params["e"],
        denominator=denominator,
    )
    return loss, {}


objective_case("conr_clean")(partial(conr_case, denominator="clean"))
objective_case("conr_code")(partial(conr_case, denominator="released"))


@objective_case("groco")
def groco_case(inputs: Inputs, params: Params) -> Output:
    loss = groco(
        views(inputs, params),
        num_negatives=params["top_k_neg"],
        steepness=params["steepness"],
        stop_gradient=params["stop_grad"],
    )
    return loss, {}


def positives(params: Params) -> Tensor:
    return torch.tensor(params["positives"], dtype=torch.int64).T


@objective_case("xmc_softmax")
def xmc_softmax(inputs: Inputs, params: Params) -> Output:
    return multi_label_softmax(inputs["x"], inputs["labels_emb"], positives(params), temperature=params["tau"]), {}


@objective_case("xmc_decoupled")
def xmc_decoupled(inputs: Inputs, params: Params) -> Output:
    return decoupled_softmax(inputs["x"], inputs["labels_emb"], positives(params), temperature=params["tau"]), {}


@objective_case("xmc_softtopk")
def xmc_softtopk(inputs: Inputs, params: Params) -> Output:
    loss = soft_top_k(
        inputs["x"],
        inputs["labels_emb"],
        positives(params),
        k=params["k"],
        alpha=params["alpha"],
        temperature=params["tau"],
    )
    return loss, {}


@objective_case("zloss")
def zloss(inputs: Inputs, params: Params) -> Output:
    target = torch.tensor(params["target"])
    return z_loss(inputs["x"], inputs["labels_emb"], target, slope=params["a"], threshold=params["b"]), {}


@objective_case("listwise_ws2")
def listwise_ws2(inputs: Inputs, params: Params) -> Output:
    scores = inputs["x"] @ inputs["labels_emb"].T
    return listwise_wasserstein(scores, numbers(params["relevance"]), temperature=params["tau"]), {}


@objective_case("multi_similarity")
def multi_similarity_case(inputs: Inputs, params: Params) -> Output:
    loss = multi_similarity(
        inputs["z1"],
        torch.tensor(params["labels"]),
        alpha=params["alpha"],
        beta=params["beta"],
        base=params["base"],
    )
    return loss, {}


@objective_case("dycl", "dycl_axis0")
def dycl_case(inputs: Inputs, params: Params) -> Output:
    levels = torch.tensor(params["levels"])
    loss = dycl(
        inputs["z1"],
        inputs["z2"],
        torch.arange(levels.shape[0]),
        levels,
        key_labels=torch.arange(levels.shape[1]),
        scale=params["scale"],
        margins=params["margins"],
        normalize=params["normalise"],
    )
    return loss, {}
