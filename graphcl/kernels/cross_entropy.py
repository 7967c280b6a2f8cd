"""Softmax cross-entropy over a whole catalogue without the token x catalogue matrix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from graphcl.kernels._arguments import (
    MEMORY_BUDGET,
    check_indices,
    check_no_nan,
    check_same_space,
    check_vector,
    compute_dtype,
)
from graphcl.kernels.backends import Backend, check_backend
from graphcl.kernels.pairs import _check_blocks, edge_dot, pair_logsumexp
from graphcl.kernels.rules import EqualIds

__all__ = ["linear_cross_entropy"]

Reduction = Literal["none", "sum", "mean"]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    token_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    candidates: Tensor | None = None,
    log_q: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
    block_size: int | tuple[int, int] | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> Tensor:
    r"""Cross-entropy of ``hidden @ weight.T + bias`` against ``target``, in linear memory.

    .. math::
        L_t = \omega_t \Big( \log \sum_{v \in S_t} e^{\ell_{tv}} - \ell_{t y_t} \Big), \qquad
        \ell_{tv} = \langle h_t, w_v \rangle + b_v - \log q_v

    ``S_t`` is the whole catalogue, or, with ``candidates``, the target once plus every entry of ``candidates`` that is
    not the target: the target may or may not be in the list, accidental hits never count twice, and other duplicates
    count as often as they occur (as sampling with replacement and the log-q correction expect).

    Args:
        hidden: ``(T, d)`` float32, float64, bfloat16 or float16.
        weight: ``(V, d)`` of the same dtype, one row a class.
        target: ``(T,)`` integers in ``0 .. V - 1``, or ``ignore_index``.
        bias: ``(V,)`` added to the logits.
        ignore_index: tokens with this target contribute neither loss nor gradient nor weight.
        token_weight: ``(T,)`` non-negative constants.
        reduction: ``none`` gives ``(T,)`` with 0 at ignored tokens; ``sum``; ``mean`` divides by the number of tokens
            that count, or by the sum of their weights when ``token_weight`` is given.
        candidates: ``(S,)`` class ids shared by all tokens: a restricted or sampled softmax.
        log_q: ``(V,)`` log probability with which each class is sampled, subtracted from its logit.
        memory_budget: upper bound in bytes for the tile buffers.
        block_size: tile edge, or ``(tokens, classes)`` edges.
        backend: ``reference`` forms the logits; ``torch`` works in tiles and, for ``sum`` and ``mean``, finds the gradient
            in the forward sweep; ``triton`` runs on CUDA. ``auto`` picks ``triton`` on CUDA, else ``torch``.
        check: validates labels and looks for NaN.

    Returns:
        Scalar or ``(T,)``, float64 for float64 inputs and float32 otherwise. With no token left the result is 0 with
        zero gradient, where torch's own cross-entropy gives NaN. Differentiable once in hidden, weight and bias.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(T V d) time, O((T + V) d) memory plus the tile buffers.

    >>> import torch
    >>> linear_cross_entropy(torch.zeros(2, 3), torch.zeros(5, 3), torch.tensor([1, -100])).exp().round()
    tensor(5.)
    """
    check_same_space("hidden", hidden, "weight", weight)
    tokens, classes = hidden.shape[0], weight.shape[0]
    device = hidden.device
    check_indices("target", target, tokens, None, check=False)
    valid = target != ignore_index
    if check:
        check_no_nan("hidden", hidden)
        check_no_nan("weight", weight)
        check_indices("target", target[valid], None, classes, check=True)
    for name, vector, length in (
        ("bias", bias, classes),
        ("token_weight", token_weight, tokens),
        ("log_q", log_q, classes),
    ):
        if vector is not None:
            check_vector(name, vector, length, device=device)
            if check:
                check_no_nan(name, vector)
    if candidates is not None:
        check_indices("candidates", candidates, None, classes, check=check)
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be one of none, sum, mean, got {reduction!r}")
    blocks = _check_blocks(memory_budget, block_size)
    check_backend(backend)
    wide = compute_dtype(hidden.dtype)
    token_weight = None if token_weight is None else token_weight.detach().to(wide)
    shift = None if bias is None else bias.to(wide)
    if log_q is not None:
        shift = -log_q.detach().to(wide) if shift is None else shift - log_q.detach().to(wide)
    counted = torch.nonzero(valid).squeeze(1)
    label = target[counted].long()
    token = hidden[counted]
    positive = edge_dot(
        token, weight, torch.arange(counted.shape[0], device=device), label, backend=backend, check=False
    )
    if shift is not None:
        positive = positive + shift[label]
    if candidates is None:
        total = pair_logsumexp(token, weight, candidate_bias=shift, backend=backend, check=False).logsumexp
        loss = total - positive
    else:
        pool = candidates.long()
        others = pair_logsumexp(
            token,
            weight[pool],
            candidate_bias=None if shift is None else shift[pool],
            rules=EqualIds(label, pool, keep=False),
            backend=backend,
            check=False,
        ).logsumexp
        loss = -functional.logsigmoid(positive - others)
    if token_weight is not None:
        loss = loss * token_weight[counted]
    if reduction == "none":
        return loss.new_zeros(tokens).index_copy(0, counted, loss)
    if reduction == "sum":
        return loss.sum()
    divisor = float(counted.shape[0]) if token_weight is None else float(token_weight[counted].sum())
    return loss.sum() / divisor if divisor > 0 else loss.sum() * 0.0
