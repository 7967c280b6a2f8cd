"""Cases of pair strategies and of noise-contrastive estimation, through the public interface."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from graphcl.functional import (
    HardMixtures,
    NoiseEvents,
    ape_nce,
    claps,
    feature_transform,
    genview,
    group_whiten,
    hydra,
    laf_alignment,
    laf_extraction,
    m3col_mix,
    meco,
    metrix_contrastive,
    mix_rows,
    mochi,
    moco,
    quality_weights,
    rescaled_info_nce,
    shuffled_group_whitening,
    soft_clip,
)
from replay_cases.losses import objective_case

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Output = tuple[Tensor, Mapping[str, Any]]


def numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@objective_case("moco_queue")
def moco_case(inputs: Inputs, params: Params) -> Output:
    return moco(inputs["q"], inputs["k"], inputs["queue"], temperature=params["tau"]), {}


@objective_case("mochi")
def mochi_case(inputs: Inputs, params: Params) -> Output:
    mixtures = HardMixtures(
        torch.tensor(params["rank_i1"]),
        torch.tensor(params["rank_j1"]),
        numbers(params["alpha"]),
        torch.tensor(params["rank_i2"]),
        numbers(params["beta"]),
    )
    loss = mochi(
        inputs["q"],
        inputs["k"],
        inputs["queue"],
        num_hard=params["n_hard"],
        mixtures=mixtures,
        temperature=params["tau"],
    )
    return loss, {}


@objective_case("feature_transform")
def feature_transform_case(inputs: Inputs, params: Params) -> Output:
    loss = feature_transform(
        inputs["q"],
        inputs["k"],
        inputs["queue"],
        positive_weight=params["lambda_pos"],
        negative_weight=params["lambda_neg"],
        permutation=torch.tensor(params["perm"]),
        renormalize=params.get("renormalise", False),
        temperature=params["tau"],
    )
    return loss, {}


@objective_case("metrix", "metrix_avgnonzero")
def metrix_case(inputs: Inputs, params: Params) -> Output:
    average: Literal["nonzero", "all"] = "nonzero" if "non-zero" in params["reduction"] else "all"
    mixed = mix_rows(inputs["p"], inputs["n"], params["lambda"])
    loss = metrix_contrastive(inputs["a"], mixed, params["lambda"], margin=params["margin"], average=average)
    return scalar(loss), {}


@objective_case("m3col_mix")
def m3col_mix_case(inputs: Inputs, params: Params) -> Output:
    partners, weights = torch.tensor(params["perm"]), numbers(params["betas"])
    return m3col_mix(inputs["z1"], inputs["z2"], partners, weights, temperature=params["tau"]), {}


@objective_case("m3col_soft")
def m3col_soft_case(inputs: Inputs, params: Params) -> Output:
    return soft_clip(inputs["z1"], inputs["z2"], detach_targets=False, temperature=params["tau"]), {}


@objective_case("genview")
def genview_case(inputs: Inputs, params: Params) -> Output:
    weights = quality_weights(*(inputs[name] for name in ("f1", "f2", "b1", "b2")), gamma=params["gamma"])
    return genview(inputs["z1"], inputs["z2"], weights, temperature=params["tau"]), {"weights": weights}


@objective_case("hydra")
def hydra_case(inputs: Inputs, params: Params) -> Output:
    loss = hydra(
        inputs["z"],
        torch.tensor(params["y1"]),
        torch.tensor(params["y2"]),
        torch.sigmoid(inputs["gate_logits"]),
        include_self=True,
        temperature=1.0 / params["scale"],
    )
    return loss, {}


@objective_case("claps")
def claps_case(inputs: Inputs, params: Params) -> Output:
    return perturbed_contrast(inputs, params, released=False)


@objective_case("claps_code")
def claps_released_case(inputs: Inputs, params: Params) -> Output:
    return perturbed_contrast(inputs, params, released=True)


def perturbed_contrast(inputs: Inputs, params: Params, released: bool) -> Output:
    rows = (inputs[name] for name in ("x", "y", "y_pos", "y_neg"))
    return scalar(claps(*rows, released_scaling=released, temperature=params["tau"])), {}


@objective_case("sgw_stop1", "sgw_stop0")
def whitening_case(inputs: Inputs, params: Params) -> Output:
    shuffles = [torch.tensor(shuffle) for shuffle in params["perms"]]
    constant = params["stop_grad_whitening"]
    loss = shuffled_group_whitening(
        inputs["x"], params["groups"], shuffles, stop_gradient=constant, ridge=0.0, temperature=params["tau"]
    )
    first = group_whiten(inputs["x"], params["groups"], shuffles[0], ridge=0.0)
    return loss, {"whitened_first_row": first[0]}


@objective_case("rescale_head")
def rescaling_case(inputs: Inputs, params: Params) -> Output:
    return rescaled_info_nce(inputs["z1"], inputs["z2"], kappa=params["kappa"], temperature=params["tau"]), {}


@objective_case("laf_extract")
def laf_extraction_case(inputs: Inputs, params: Params) -> Output:
    return scalar(laf_extraction(inputs["s"], inputs["s_rec"], inputs["u"], inputs["u_rec"])), {}


@objective_case("laf_contrast")
def laf_alignment_case(inputs: Inputs, params: Params) -> Output:
    rows = (inputs[name] for name in ("s", "s_t", "u", "u_t"))
    return scalar(laf_alignment(*rows, temperature=params["temp"])), {}


@objective_case("ape_nce", "ape_nce_meanpos")
def ape_case(inputs: Inputs, params: Params) -> Output:
    tables = [inputs[name] for name in sorted(inputs, key=lambda name: int(name.lstrip("e")))]
    draws = params["noise_per_event"]
    noise = NoiseEvents(*(torch.tensor(params[name]).view(-1, draws) for name in ("noise_type", "noise_value")))
    (pair_weights,) = (value for name, value in params.items() if name.startswith("pair_weights"))
    positive: Literal["paired", "mean"] = "mean" if "mean over types" in params["positive_log_noise"] else "paired"
    loss = ape_nce(
        tables,
        torch.tensor(params["events"]),
        noise,
        [numbers(log) for log in params["noise_logp"]],
        pair_weights=numbers(pair_weights),
        constant=params["c"],
        positive_noise=positive,
    )
    return loss, {}


@objective_case("meco")
def meco_case(inputs: Inputs, params: Params) -> Output:
    noise = inputs["sn"].flatten()
    return meco(inputs["sx"].flatten(), noise, log_density(params["log_q"], noise.shape[0])).loss, {}


def log_density(described: Any, length: int) -> Tensor:
    """Standard normal log density at the points ``t = (j - shift) / scale`` that the text names, or listed numbers."""
    if not isinstance(described, str):
        return numbers(described)
    found = re.search(r"\(j\s*-\s*([\d.]+)\)\s*/\s*([\d.]+)", described)
    if found is None:
        raise ValueError(f"log_q must be a list or name its points as (j - shift) / scale, got {described!r}")
    points = (torch.arange(length, dtype=torch.float64) - float(found.group(1))) / float(found.group(2))
    return -0.5 * math.log(2.0 * math.pi) - 0.5 * points**2


def scalar(output: Tensor | tuple[Tensor, Mapping[str, Tensor]]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
