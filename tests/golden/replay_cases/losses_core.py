"""Cases of the softmax core: InfoNCE and its relatives, through `graphcl.functional`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from graphcl.functional import (
    SogCLRState,
    SogCLRStep,
    TemperatureUpdate,
    alignment,
    amcl,
    cacr,
    cmim,
    cua,
    cwcl,
    dcl,
    dclw,
    hard_contrastive,
    info_nce,
    nt_xent,
    sogclr,
    sogclr_bimodal,
    sup_con,
    tolerance,
    uniformity,
)
from replay_cases.losses import generated, objective_case
from replay_cases.registry import Case, case
from replay_cases.sequential import filled

Inputs = Mapping[str, Tensor]
Params = Mapping[str, Any]
Output = tuple[Tensor, Mapping[str, Any]]


@objective_case("infonce_sym")
def infonce_sym(inputs: Inputs, params: Params) -> Output:
    return info_nce(inputs["z1"], inputs["z2"], temperature=params["tau"], symmetric=True), {}


@objective_case("infonce_oneway")
def infonce_oneway(inputs: Inputs, params: Params) -> Output:
    return info_nce(inputs["z1"], inputs["z2"], temperature=params["tau"]), {}


def supcon(inputs: Inputs, params: Params, **options: Any) -> Output:
    labels = torch.tensor(params["labels"])
    rows = torch.cat([inputs["z1"], inputs["z2"]])
    return sup_con(rows, labels.repeat(2), temperature=params["tau"], **options), {}


objective_case("supcon_out")(partial(supcon, form="out"))
objective_case("supcon_in")(partial(supcon, form="in"))


@objective_case("dcl")
def dcl_case(inputs: Inputs, params: Params) -> Output:
    return dcl(inputs["z1"], inputs["z2"], temperature=params["tau"], symmetric=False), {}


@objective_case("dclw", "dclw_gradw")
def dclw_case(inputs: Inputs, params: Params) -> Output:
    loss = dclw(
        inputs["z1"],
        inputs["z2"],
        temperature=params["tau"],
        sigma=params["sigma"],
        detach_weight=params["detach_weight"],
        symmetric=False,
    )
    return loss, {}


@objective_case("hard_contrastive")
def hard_case(inputs: Inputs, params: Params) -> Output:
    return hard_contrastive(inputs["z1"], inputs["z2"], temperature=params["tau"], num_negatives=params["k"]), {}


@objective_case("uniformity")
def uniformity_case(inputs: Inputs, params: Params) -> Output:
    z1, z2, t = inputs["z1"], inputs["z2"], params["t"]
    labels = torch.tensor(params["labels"])
    parts = {"uniformity": uniformity(z1, t=t), "alignment": alignment(z1, z2)}
    kinds = tolerance(z1.detach(), labels)
    extra = {
        "x_uniformity": uniformity(z1, other=z2, t=t),
        "tolerance_same_pairs": kinds.same_pairs,
        "tolerance_all_pairs": kinds.all_pairs,
    }
    return parts["uniformity"] + parts["alignment"], {**parts, **extra}


def gap_objective(inputs: Inputs, params: Params, cross: float) -> Output:
    loss, _ = cua(
        inputs["z1"],
        inputs["z2"],
        temperature=params["tau"],
        t=params["t"],
        cross_uniformity_weight=cross,
        return_components=True,
    )
    return loss, {}


objective_case("cua")(partial(gap_objective, cross=0.0))
objective_case("cuaxu")(partial(gap_objective, cross=1.0))


@objective_case("cacr_detach0", "cacr_detach1")
def cacr_case(inputs: Inputs, params: Params) -> Output:
    loss, parts = cacr(
        list(inputs.values()),
        attraction_weight=params["alpha"],
        repulsion_weight=params["beta"],
        positive_sharpness=params["tau_pos"],
        negative_sharpness=params["tau_neg"],
        detach_weights=params["detach_weights"],
        return_components=True,
    )
    return loss, parts


@objective_case("cwcl")
def cwcl_case(inputs: Inputs, params: Params) -> Output:
    average = "average" in params.get("combination", "")
    loss, parts = cwcl(
        inputs["z1"],
        inputs["z2"],
        inputs["teacher"],
        temperature=params["tau"],
        average=average,
        return_components=True,
    )
    return loss, parts


@objective_case("amcl")
def amcl_case(inputs: Inputs, params: Params) -> Output:
    low, width, first_k = (
        float(number) for number in re.findall(r"([\d.]+)\+([\d.]+)\*sigmoid\(x\(N,N,k=([\d.]+)\+c", params["tau_c"])[0]
    )
    heads = re.findall(r"\((\w+),\s*(\w+)\)", params["heads"])
    num = inputs[heads[0][0]].shape[0]
    temperatures = [
        low + width * torch.sigmoid(generated({"shape": [num, num], "k": first_k + head})) for head in range(len(heads))
    ]
    loss, parts = amcl(
        [inputs[first] for first, _ in heads],
        [inputs[second] for _, second in heads],
        temperatures,
        regularization=params["beta"],
        return_components=True,
    )
    return loss, parts


@objective_case("cmim")
def cmim_case(inputs: Inputs, params: Params) -> Output:
    return cmim(inputs["z"], temperature=params["tau"]), {}


Step = Callable[[Tensor, Tensor, tuple[SogCLRState, ...]], SogCLRStep]


def two_steps(inputs: Inputs, params: Params, directions: int, step: Step) -> tuple[list[Tensor], list[SogCLRState]]:
    """The two losses and the state of all samples after each step, with the ids of the file."""
    num = 1 + max(params["ids_step1"] + params["ids_step2"])
    start = torch.zeros(num, dtype=torch.float64)
    state = [SogCLRState(start - torch.inf, start + params["tau_init"], start) for _ in range(directions)]
    losses, history = [], []
    for first, second, name in (("z1", "z2", "ids_step1"), ("z3", "z4", "ids_step2")):
        ids = torch.tensor(params[name])
        done = step(inputs[first], inputs[second], tuple(SogCLRState(*(v[ids] for v in one)) for one in state))
        state = [
            SogCLRState(*(old.index_copy(0, ids, new) for old, new in zip(one, following, strict=True)))
            for one, following in zip(state, done.states, strict=True)
        ]
        losses.append(done.loss)
        history += state
    return losses, history


def update_of(params: Params) -> TemperatureUpdate:
    return TemperatureUpdate(params["rho"], params["eta"], params["beta"], params["tau_min"], params["tau_max"])


def unimodal(inputs: Inputs, params: Params, individual: bool) -> Output:
    def step(x: Tensor, y: Tensor, states: tuple[SogCLRState, ...]) -> SogCLRStep:
        update = update_of(params) if individual else None
        return sogclr(x, y, *states, gamma=params["gamma"], temperature_update=update)

    losses, history = two_steps(inputs, params, 1, step)
    extra = {
        "loss_step1": losses[0],
        "loss_step2": losses[1],
        "u_after_1": history[0].log_u.exp(),
        "u_after_2": history[1].log_u.exp(),
    }
    if individual:
        extra |= {"tau_after_2": history[1].temperature, "grad_tau_after_2": history[1].temperature_gradient}
    return losses[0] + losses[1], extra


def bimodal(inputs: Inputs, params: Params, individual: bool) -> Output:
    def step(x: Tensor, y: Tensor, states: tuple[SogCLRState, ...]) -> SogCLRStep:
        update = update_of(params) if individual else None
        return sogclr_bimodal(x, y, *states, gamma=params["gamma"], temperature_update=update)

    losses, history = two_steps(inputs, params, 2, step)
    extra = {"loss_step1": losses[0], "loss_step2": losses[1]}
    for name, state in zip(("view1", "view2"), history[2:], strict=True):
        extra[f"log_u_{name}"] = state.log_u
        if individual:
            extra[f"tau_{name}"] = state.temperature
    return losses[0] + losses[1], extra


objective_case("sogclr_uni")(partial(unimodal, individual=False))
objective_case("isogclr_uni")(partial(unimodal, individual=True))
objective_case("sogclr_bi")(partial(bimodal, individual=False))
objective_case("isogclr_bi")(partial(bimodal, individual=True))


@case("infonce_2N")
def infonce_2n(one: Case) -> Mapping[str, Any]:
    x1, x2 = (filled(one.inputs[name]).requires_grad_() for name in ("x1", "x2"))
    computed = {}
    for name in one.expected:
        tau = float(name.removeprefix("tau="))
        loss = nt_xent(x1, x2, temperature=tau, similarity="dot")
        first, second = torch.autograd.grad(loss, [x1, x2])
        computed[name] = {
            "loss": loss,
            "grad_x1_row0": first[0],
            "grad_x1_norm": first.norm(),
            "grad_x2_norm": second.norm(),
            "loss_cos": nt_xent(x1, x2, temperature=tau),
        }
    return computed


@case("infonce_one_way")
def infonce_one_way(one: Case) -> Mapping[str, Any]:
    x1, x2 = (filled(one.inputs[name]) for name in ("x1", "x2"))
    return {"loss": info_nce(x1, x2, temperature=1.0, similarity="dot")}
