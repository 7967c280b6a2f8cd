"""Softmax cross-entropy over a whole catalogue without the token x catalogue matrix."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
from graphcl.kernels._pairs_torch import weighted_row_logsumexp
from graphcl.kernels._product import ScaledProduct
from graphcl.kernels._tiles import blocks_for, check_blocks
from graphcl.kernels.backends import Backend, check_backend, triton_for
from graphcl.kernels.pairs import edge_dot, pair_logsumexp
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
        backend: ``reference`` forms the logits; ``torch`` works in tiles and, for ``sum`` and ``mean`` over the whole
            catalogue, finds the gradient in the forward sweep; ``triton`` runs on CUDA. ``auto`` takes ``triton`` on
            CUDA where it is installed and ``torch`` elsewhere.
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
    if check and token_weight is not None and bool((token_weight < 0).any()):
        raise ValueError(f"token_weight must not be negative, got {float(token_weight.min())}")
    if candidates is not None:
        check_indices("candidates", candidates, None, classes, check=check)
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be one of none, sum, mean, got {reduction!r}")
    edges = check_blocks(memory_budget, block_size)
    check_backend(backend)
    wide = compute_dtype(hidden.dtype)
    shift = None if bias is None else bias.to(wide)
    if log_q is not None:
        shift = -log_q.detach().to(wide) if shift is None else shift - log_q.detach().to(wide)
    counted = torch.nonzero(valid).squeeze(1)
    everything = counted.shape[0] == tokens
    tokens_in = _Tokens(
        hidden if everything else hidden[counted],
        target.long() if everything else target[counted].long(),
        None if token_weight is None else token_weight.detach().to(wide)[counted],
    )
    sweep = _Sweep(memory_budget, edges, backend)
    if reduction == "none":
        loss = _token_losses(tokens_in, weight, shift, candidates, sweep)
        if tokens_in.weight is not None:
            loss = loss * tokens_in.weight
        return loss if everything else loss.new_zeros(tokens).index_copy(0, counted, loss)
    divisor = 1.0
    if reduction == "mean":
        divisor = float(counted.shape[0] if tokens_in.weight is None else tokens_in.weight.sum())
    share = tokens_in.hidden.new_full(counted.shape, 1.0 / divisor if divisor > 0 else 0.0, dtype=wide)
    if tokens_in.weight is not None:
        share = share * tokens_in.weight
    if candidates is None and backend != "reference":
        return _fused_sum(tokens_in, weight, shift, share, sweep)
    return (_token_losses(tokens_in, weight, shift, candidates, sweep) * share).sum()


class _Tokens(NamedTuple):
    """Tokens that count, after the ignored ones have been dropped."""

    hidden: Tensor
    target: Tensor
    weight: Tensor | None


class _Sweep(NamedTuple):
    memory_budget: int
    block_size: tuple[int, int] | None
    backend: Backend


def _target_logits(tokens: _Tokens, weight: Tensor, shift: Tensor | None, sweep: _Sweep) -> Tensor:
    own = torch.arange(tokens.target.shape[0], device=weight.device)
    backend: Backend = "reference" if sweep.backend == "reference" else "torch"
    positive = edge_dot(
        tokens.hidden, weight, own, tokens.target, memory_budget=sweep.memory_budget, backend=backend, check=False
    )
    return positive if shift is None else positive + shift[tokens.target]


def _token_losses(
    tokens: _Tokens, weight: Tensor, shift: Tensor | None, candidates: Tensor | None, sweep: _Sweep
) -> Tensor:
    module = triton_for("triton_cross_entropy", sweep.backend, weight.device) if candidates is None else None
    if module is not None and (sweep.backend == "triton" or module.supports(tokens.hidden, weight)):
        losses: Tensor = module.token_losses(tokens.hidden, weight, tokens.target, shift, sweep.block_size)
        return losses
    positive = _target_logits(tokens, weight, shift, sweep)
    pool = None if candidates is None else candidates.long()
    total = pair_logsumexp(
        tokens.hidden,
        weight if pool is None else weight[pool],
        candidate_bias=shift if pool is None or shift is None else shift[pool],
        rules=() if pool is None else EqualIds(tokens.target, pool, keep=False),
        memory_budget=sweep.memory_budget,
        block_size=sweep.block_size,
        backend=sweep.backend,
        check=False,
    ).logsumexp
    if pool is None:
        return total - positive
    # log(e^p + e^t) - p without the cancellation: the target is always in its own denominator, exactly once.
    return -functional.logsigmoid(positive - total)


def _fused_sum(tokens: _Tokens, weight: Tensor, shift: Tensor | None, share: Tensor, sweep: _Sweep) -> Tensor:
    """``sum_t share_t L_t`` with gradients formed in the forward sweep."""
    module = triton_for("triton_cross_entropy", sweep.backend, weight.device)
    if module is not None and (sweep.backend == "triton" or module.supports(tokens.hidden, weight)):
        fused: Tensor = module.weighted_cross_entropy(
            tokens.hidden, weight, tokens.target, shift, share, sweep.block_size
        )
        return fused
    product = ScaledProduct(tokens.hidden, weight, 1.0, None, None, shift, ())
    with torch.autocast(weight.device.type, enabled=False):
        total = weighted_row_logsumexp(product, blocks_for(product, sweep.memory_budget, sweep.block_size), share)[1]
        return total - (_target_logits(tokens, weight, shift, sweep) * share).sum()
