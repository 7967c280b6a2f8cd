"""Cases of prototypes, clusters and long tails, and of hierarchical and consistency objectives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphcl.functional import (
    bacon_regularizer,
    bacon_soft,
    cluster_restricted_info_nce,
    comet_id,
    comet_observation,
    comet_sample,
    dbpm,
    hiclr,
    icnn,
    interclr,
    mlcd,
    norm_direction,
    palm,
    propagation_consistency,
    proto_triplet,
    sbcl,
    sepclr_joint_entropy,
    sepclr_uniformity,
    swav,
    uniclr,
)
from graphcl.kernels import normalize_rows, sinkhorn
from replay_cases.losses import objective_case

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Output = tuple[Tensor, Mapping[str, Any]]


def numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@objective_case("swav")
def swav_case(inputs: Inputs, params: Params) -> Output:
    transport = {"epsilon": params["epsilon"], "iterations": params["iterations"]}
    views, prototypes = [inputs["z1"], inputs["z2"]], inputs["prototypes"]
    loss = swav(views, prototypes, temperature=params["temperature"], **transport)
    scores = normalize_rows(views[0]).detach() @ normalize_rows(prototypes).detach().T
    return loss, {"codes_view1_row0": sinkhorn(scores, **transport)[0]}


@objective_case("palm_k0", "palm_k1", "palm")
def palm_case(inputs: Inputs, params: Params) -> Output:
    prototypes = inputs["prototypes"]
    step = palm(
        torch.cat([inputs["z1"], inputs["z2"]]),
        torch.tensor(params["labels"]).repeat(2),
        prototypes,
        torch.arange(prototypes.shape[0]) % params["num_classes"],
        top_k=params["top_k"],
        momentum=params["momentum"],
        temperature=params["tau"],
        prototype_temperature=params["proto_tau"],
        epsilon=params["epsilon"],
        iterations=params["sinkhorn_iters"],
    )
    extra = {"mle": step.mle, "proto_contrast": step.prototype_contrast, "prototypes_after": step.prototypes}
    return step.loss, extra


@objective_case("mlcd")
def mlcd_case(inputs: Inputs, params: Params) -> Output:
    positives = torch.tensor(params["positives"]).reshape(-1, 2).T
    return mlcd(inputs["x"], inputs["centers"], positives, scale=params["scale"]), {}


@objective_case("sbcl_ccl", "sbcl_rank")
def sbcl_case(inputs: Inputs, params: Params) -> Output:
    ranked = params.get("class_temperature")
    loss = sbcl(
        inputs["z1"],
        inputs["z2"],
        torch.tensor(params["labels"]),
        torch.tensor(params["clusters"]),
        class_temperature=None if ranked is None else numbers(ranked),
        temperature=params["tau"],
        base_temperature=params["base_temperature"],
        gamma=params["gamma"],
    )
    assert isinstance(loss, Tensor)
    return loss, {}


@objective_case("bacon_soft")
def bacon_soft_case(inputs: Inputs, params: Params) -> Output:
    mask = numbers(params["soft_mask"])
    loss = bacon_soft(
        inputs["z1"],
        inputs["z2"],
        mask,
        other_probabilities=torch.eye(mask.shape[0], dtype=mask.dtype),
        temperature=params["tau"],
    )
    return loss, {}


@objective_case("bacon_reg")
def bacon_reg_case(inputs: Inputs, params: Params) -> Output:
    counts = numbers(params["counts"])
    return bacon_regularizer(inputs["logits"], counts, power=params["p"], temperature=params["temperature"]), {}


@objective_case("mcl_cluster")
def mcl_case(inputs: Inputs, params: Params) -> Output:
    clusters = torch.tensor(params["clusters"])
    return cluster_restricted_info_nce(inputs["z1"], inputs["z2"], clusters, temperature=params["tau"]), {}


@objective_case("interclr")
def interclr_case(inputs: Inputs, params: Params) -> Output:
    q, negatives = inputs["q"], inputs["neg"]
    num, count, dim = negatives.shape
    memory = torch.cat([inputs["pos"], negatives.reshape(-1, dim)])
    places = num + torch.arange(num * count).reshape(num, count)
    loss = interclr(q, memory, torch.arange(num), places, margin=params["margin"], temperature=params["tau"])
    return loss, {}


@objective_case("dbpm")
def dbpm_case(inputs: Inputs, params: Params) -> Output:
    loss, parts = dbpm(
        inputs["z1"],
        inputs["z2"],
        numbers(params["mean_history"]),
        mean=params["mu"],
        deviation=params["sigma"],
        noisy_cut=params["cut_np"],
        faulty_cut=params["cut_fp"],
        normalise="none",
        temperature=params["tau"],
        return_components=True,
    )
    return loss, {"pair_loss": parts["pair_loss"]}


@objective_case("nd")
def nd_case(inputs: Inputs, params: Params) -> Output:
    return norm_direction(inputs["student"], inputs["teacher"], torch.tensor(params["labels"]), inputs["centers"]), {}


@objective_case("proto_triplet")
def proto_triplet_case(inputs: Inputs, params: Params) -> Output:
    return proto_triplet(inputs["q"], inputs["protos"], torch.tensor(params["labels"]), margin=params["margin"]), {}


@objective_case("icnn")
def icnn_case(inputs: Inputs, params: Params) -> Output:
    loss, _ = icnn(inputs["x"], torch.tensor(params["labels"]), k=params["k"], return_components=True)
    return loss, {}


@objective_case("hiclr")
def hiclr_case(inputs: Inputs, params: Params) -> Output:
    views = [inputs[name] for name in sorted(name for name in inputs if re.fullmatch(r"q\d+", name))]
    loss, _ = hiclr(views, inputs["k"], inputs["queue"], temperature=params["tau"], return_components=True)
    return loss, {}


@objective_case("uniclr", "uniclr_soft")
def uniclr_case(inputs: Inputs, params: Params) -> Output:
    loss = uniclr(
        [inputs["in1"], inputs["in2"]],
        [inputs["out1"], inputs["out2"]],
        temperature=params["tau"],
        soft_temperature=params.get("tau_w"),
    )
    return loss, {}


@objective_case("comet_sample")
def comet_sample_case(inputs: Inputs, params: Params) -> Output:
    return comet_sample(inputs["h1"], inputs["h2"]), {}


@objective_case("comet_observation")
def comet_observation_case(inputs: Inputs, params: Params) -> Output:
    return comet_observation(inputs["h1"], inputs["h2"]), {}


@objective_case("comet_id")
def comet_id_case(inputs: Inputs, params: Params) -> Output:
    return comet_id(inputs["h1"], inputs["h2"], torch.tensor(params["ids"]), temperature=params["tau"]), {}


@objective_case("propagation", "propagation_full")
def propagation_case(inputs: Inputs, params: Params) -> Output:
    x, edges = inputs["x"], None
    if "adjacency" in params:
        reach = int(re.findall(r"\|i-j\|\s*<=\s*(\d+)", params["adjacency"])[0])
        i = torch.arange(x.shape[0])
        edges = ((i[:, None] - i).abs() <= reach).nonzero().T
    return propagation_consistency(x, inputs["k"], edges, gamma=params["gamma"]), {}


@objective_case("sepclr_jem")
def sepclr_jem_case(inputs: Inputs, params: Params) -> Output:
    return sepclr_joint_entropy(inputs["c"], inputs["s"], temperature=params["tau"]), {}


@objective_case("sepclr_uniform")
def sepclr_uniform_case(inputs: Inputs, params: Params) -> Output:
    return sepclr_uniformity(inputs["x"], temperature=params["tau"]), {}
