"""Cases of contrastive objectives (format ``graphcl-oracle-1``): value, extra outputs and gradients of every input."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from graphcl.functional import multi_positive_info_nce, nt_xent
from graphcl.kernels import ExcludePairs, pair_logsumexp
from replay_cases.registry import Case, case

Objective: TypeAlias = Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[Tensor, Mapping[str, Any]]]


def generated(spec: Mapping[str, Any]) -> Tensor:
    """x[i, j] = sin(0.7 i + 1.3 j + 0.37 i j + k) over (rows, rest), reshaped row-major."""
    rows, *rest = spec["shape"]
    width = 1
    for size in rest:
        width *= size
    i = torch.arange(rows, dtype=torch.float64)[:, None]
    j = torch.arange(width, dtype=torch.float64)
    return torch.sin(0.7 * i + 1.3 * j + 0.37 * i * j + spec.get("k", 0)).reshape(spec["shape"])


def grad_checksum(grad: Tensor) -> Tensor:
    """sum_ij grad[i, j] cos(i + 2 j) on the (rows, rest) reshaped gradient."""
    flat = grad.reshape(grad.shape[0], -1)
    i = torch.arange(flat.shape[0], dtype=torch.float64)[:, None]
    j = torch.arange(flat.shape[1], dtype=torch.float64)
    return (flat * torch.cos(i + 2 * j)).sum()


def objective_case(*names: str) -> Callable[[Objective], Objective]:
    """Register a function of (inputs, params) that gives the value to differentiate and further outputs by name."""

    def register(objective: Objective) -> Objective:
        @case(*names)
        def run(one: Case) -> Mapping[str, Any]:
            inputs = {
                name: generated(spec).requires_grad_(bool(spec.get("grad", True))) for name, spec in one.inputs.items()
            }
            value, extra = objective(inputs, one.params)
            wanted = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
            gradients = torch.autograd.grad(value, list(wanted.values()))
            by_name = dict(zip(wanted, gradients, strict=True))
            return {
                "value": value,
                "grad_norm": {name: grad.norm() for name, grad in by_name.items()},
                "grad_checksum": {name: grad_checksum(grad) for name, grad in by_name.items()},
                **extra,
            }

        return objective

    return register


def csr_of_pairs(pairs: list[list[int]], num_rows: int) -> tuple[Tensor, Tensor]:
    """Offsets and sorted columns of (row, column) pairs."""
    rows, columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    order = torch.argsort(columns, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    counts = torch.bincount(rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns[order]


@objective_case("engine_weighted_lse")
def engine_weighted_lse(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    x, candidates = inputs["x"], inputs["c"]
    result = pair_logsumexp(
        x,
        candidates,
        temperature=params["tau"],
        candidate_bias=torch.tensor(params["log_weight"], dtype=torch.float64),
        rules=ExcludePairs(*csr_of_pairs(params["masked_pairs"], x.shape[0])),
        moments=1,
        block_size=(4, 5),
    )
    stated = re.search(r"([\d.]+)\s*\*\s*sum\(first_moment", params.get("total", ""))
    weight = float(stated.group(1)) if stated else 0.5
    lse, first_moment = result.logsumexp, result.mean
    if first_moment is None:
        raise TypeError("pair_logsumexp returned no first moment")
    return lse.sum() + weight * first_moment.sum(), {"lse": lse, "first_moment": first_moment}


@objective_case("sparse_positives")
def sparse_positives(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    weight = torch.tensor(params["weights"], dtype=torch.float64)
    value = multi_positive_info_nce(
        inputs["z1"], inputs["z2"], torch.tensor(params["edges"]), weight, temperature=params["tau"]
    )
    return value, {}


@objective_case("ntxent", "ntxent_cold", "ntxent_large")
def ntxent(inputs: Mapping[str, Tensor], params: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    z1, z2 = inputs["z1"], inputs["z2"]
    value = nt_xent(z1, z2, temperature=params["tau"])
    # A budget of a few kilobytes forces many small, ragged tiles.
    ragged = nt_xent(z1, z2, temperature=params["tau"], memory_budget=1 << 16)
    if not torch.isclose(value, ragged, rtol=1e-12, atol=1e-12):
        raise ValueError(f"the value depends on the block size: {value.item()!r} and {ragged.item()!r}")
    return value, {}
