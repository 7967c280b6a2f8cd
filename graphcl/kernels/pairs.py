"""Log-sum-exp over pairs in linear memory: the engine under the contrastive objectives.

Backends (``backend=``): ``reference`` forms the dense matrix; ``torch`` works in tiles and recomputes them in backward;
``triton`` fuses the same on CUDA. ``auto`` takes ``triton`` on CUDA where it is installed and supports the rules, and
``torch`` everywhere else. All return the same numbers up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from graphcl.kernels import _both_torch, _pairs_reference, _pairs_torch
from graphcl.kernels._arguments import (
    MEMORY_BUDGET,
    check_block_size,
    check_indices,
    check_log_weight,
    check_no_nan,
    check_positive,
    check_positive_tensor,
    check_same_space,
    check_similarity,
    check_vector,
    compute_dtype,
)
from graphcl.kernels._edges_torch import edge_similarity
from graphcl.kernels._product import ScaledProduct, distance_product
from graphcl.kernels._tiles import blocks_for, check_blocks
from graphcl.kernels.backends import Backend, check_backend, triton_for
from graphcl.kernels.normalize import normalize_rows
from graphcl.kernels.rules import CandidateRule, check_rule

__all__ = [
    "BothLogSumExp",
    "PairLogSumExp",
    "Similarity",
    "edge_dot",
    "pair_logsumexp",
    "pair_logsumexp_both",
]

Similarity = Literal["dot", "cosine", "sqeuclidean"]


class PairLogSumExp(NamedTuple):
    """Per anchor: log-sum-exp of the logits, and mean and variance of the similarity under their softmax."""

    logsumexp: Tensor
    mean: Tensor | None
    variance: Tensor | None


class BothLogSumExp(NamedTuple):
    """Log-sum-exp of one matrix of logits along its rows ``(A,)`` and along its columns ``(C,)``."""

    rows: Tensor
    columns: Tensor


def pair_logsumexp(
    anchors: Tensor,
    candidates: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    candidate_temperature: Tensor | None = None,
    similarity: Similarity = "dot",
    anchor_bias: Tensor | None = None,
    candidate_bias: Tensor | None = None,
    rules: CandidateRule | Sequence[CandidateRule] = (),
    moments: Literal[0, 1, 2] = 0,
    memory_budget: int = MEMORY_BUDGET,
    block_size: int | tuple[int, int] | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> PairLogSumExp:
    r"""Log-sum-exp over the candidates of every anchor, without the A x C matrix.

    .. math::
        \ell_{ij} = \frac{s_{ij}}{\tau_i \tau'_j} + a_i + b_j + \log w_{ij}, \qquad
        D_i = \log \sum_j e^{\ell_{ij}}, \qquad
        E_i = \sum_j \pi_{ij} s_{ij}, \quad V_i = \sum_j \pi_{ij} s_{ij}^2 - E_i^2, \quad \pi_{ij} = e^{\ell_{ij} - D_i}

    with :math:`s_{ij} = \langle x_i, y_j \rangle` (``dot``), the cosine (``cosine``; zero rows have similarity and
    gradient 0), or :math:`-\|x_i - y_j\|^2` (``sqeuclidean``). The weights w come from ``rules``.
    Differentiable once, in anchors, candidates, tensor temperatures and biases, through all three outputs.

    Args:
        anchors: ``(A, d)`` float32, float64, bfloat16 or float16; halves are accumulated in float32.
        candidates: ``(C, d)`` of the same dtype.
        temperature: positive number, 0-dim tensor, or ``(A,)`` tensor.
        candidate_temperature: ``(C,)`` positive, multiplies the temperature.
        similarity: ``dot``, ``cosine`` or ``sqeuclidean``.
        anchor_bias: ``(A,)`` added to the logits (a log weight; may hold -inf).
        candidate_bias: ``(C,)`` added to the logits, for instance ``-log q_j`` of sampled candidates.
        rules: one `CandidateRule` or several that must all allow a pair.
        moments: 0 returns D, 1 adds E, 2 adds V.
        memory_budget: upper bound in bytes for the tile buffers; smaller tiles are taken where they are faster.
        block_size: tile edge, or ``(anchors, candidates)`` edges, instead of the automatic choice.
        backend: see the module text.
        check: validates values (NaN, temperatures, ids of rules); shapes and dtypes are always checked.

    Returns:
        `PairLogSumExp` of ``(A,)`` tensors, float64 for float64 inputs and float32 otherwise. An anchor without any
        candidate has D = -inf and E = V = 0, with zero gradient.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(A C d) time, O((A + C) d) memory plus the tile buffers.

    >>> import torch
    >>> from graphcl.kernels import ExcludeSameIndex
    >>> z = torch.eye(3)
    >>> pair_logsumexp(z, z, temperature=0.5, rules=ExcludeSameIndex()).logsumexp
    tensor([0.6931, 0.6931, 0.6931])
    """
    product = _prepare(
        anchors,
        candidates,
        temperature=temperature,
        candidate_temperature=candidate_temperature,
        similarity=similarity,
        anchor_bias=anchor_bias,
        candidate_bias=candidate_bias,
        rules=rules,
        check=check,
    )
    if moments not in (0, 1, 2):
        raise ValueError(f"moments must be 0, 1 or 2, got {moments!r}")
    blocks = check_blocks(memory_budget, block_size)
    check_backend(backend)
    module = triton_for("triton_pairs", backend, product.x.device)
    if module is not None and (backend == "triton" or module.supports(product, moments)):
        return PairLogSumExp(*module.logsumexp(product, moments, blocks))
    if backend == "reference":
        return PairLogSumExp(*_pairs_reference.logsumexp(product, moments))
    with torch.autocast(product.x.device.type, enabled=False):
        return PairLogSumExp(
            *_pairs_torch.logsumexp(product, moments, blocks_for(product, memory_budget, blocks, moments))
        )


def pair_logsumexp_both(
    anchors: Tensor,
    candidates: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    candidate_temperature: Tensor | None = None,
    similarity: Similarity = "dot",
    anchor_bias: Tensor | None = None,
    candidate_bias: Tensor | None = None,
    rules: CandidateRule | Sequence[CandidateRule] = (),
    memory_budget: int = MEMORY_BUDGET,
    block_size: int | tuple[int, int] | None = None,
    backend: Backend = "auto",
    check: bool = True,
) -> BothLogSumExp:
    r"""Log-sum-exp along rows and along columns of the same logits, in one sweep: both directions of InfoNCE.

    .. math:: R_i = \log \sum_j e^{\ell_{ij}}, \qquad K_j = \log \sum_i e^{\ell_{ij}}

    with the logits of `pair_logsumexp`; every bias, temperature and rule enters both sums.

    Args:
        anchors: ``(A, d)``; the other arguments are those of `pair_logsumexp`.

    Returns:
        `BothLogSumExp`: ``rows`` ``(A,)`` and ``columns`` ``(C,)``; -inf with zero gradient where nothing is allowed.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(A C d) time with one product forward instead of two, O((A + C) d) memory plus the tile buffers.

    >>> import torch
    >>> both = pair_logsumexp_both(torch.zeros(2, 4), torch.zeros(3, 4))
    >>> both.rows.exp().round(), both.columns.exp().round()
    (tensor([3., 3.]), tensor([2., 2., 2.]))
    """
    product = _prepare(
        anchors,
        candidates,
        temperature=temperature,
        candidate_temperature=candidate_temperature,
        similarity=similarity,
        anchor_bias=anchor_bias,
        candidate_bias=candidate_bias,
        rules=rules,
        check=check,
    )
    blocks = check_blocks(memory_budget, block_size)
    check_backend(backend)
    module = triton_for("triton_pairs", backend, product.x.device)
    if module is not None and (backend == "triton" or module.supports(product)):
        return BothLogSumExp(*module.logsumexp_both(product, blocks))
    if backend == "reference":
        return BothLogSumExp(*_pairs_reference.logsumexp_both(product))
    with torch.autocast(product.x.device.type, enabled=False):
        return BothLogSumExp(*_both_torch.logsumexp_both(product, blocks_for(product, memory_budget, blocks)))


def edge_dot(
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    columns: Tensor,
    *,
    similarity: Similarity = "dot",
    memory_budget: int = MEMORY_BUDGET,
    backend: Backend = "auto",
    check: bool = True,
) -> Tensor:
    r"""Similarities of listed pairs: ``s[e] = s(x[rows[e]], y[columns[e]])``, for the sparse positives.

    .. math::
        s_e = \langle x_{r_e}, y_{c_e} \rangle, \quad \cos(x_{r_e}, y_{c_e})
        \quad\text{or}\quad -\|x_{r_e} - y_{c_e}\|^2

    Args:
        x: ``(n, d)`` float32, float64, bfloat16 or float16.
        y: ``(m, d)`` of the same dtype.
        rows: ``(E,)`` integers below n.
        columns: ``(E,)`` integers below m.
        similarity: ``dot``, ``cosine`` or ``sqeuclidean``.
        memory_budget: upper bound in bytes for the gathered rows held at once.
        backend: ``reference`` gathers all edges at once; the others go through them in chunks.
        check: validates indices and looks for NaN.

    Returns:
        ``(E,)``, float64 for float64 inputs and float32 otherwise; differentiable once in ``x`` and ``y``.

    Raises:
        ValueError, TypeError, IndexError: naming the argument and the value.

    Complexity: O(E d) time, O(E + (n + m) d) memory plus one chunk; backward gathers the rows again and adds them with
    ``index_add_`` (on CUDA deterministic under ``torch.use_deterministic_algorithms``).

    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> edge_dot(x, x, torch.tensor([0, 1]), torch.tensor([1, 1]))
    tensor([11., 25.])
    """
    check_same_space("x", x, "y", y)
    check_similarity(similarity)
    check_backend(backend)
    check_block_size("memory_budget", memory_budget)
    check_indices("rows", rows, None, x.shape[0], check=check)
    check_indices("columns", columns, rows.shape[0], y.shape[0], check=check)
    if check:
        check_no_nan("x", x)
        check_no_nan("y", y)
    wide = compute_dtype(x.dtype)
    row, column = rows.long(), columns.long()
    if similarity == "cosine":
        x, y = normalize_rows(x.to(wide)), normalize_rows(y.to(wide))
    if backend == "reference":
        left, right = x.to(wide)[row], y.to(wide)[column]
        return -((left - right) ** 2).sum(dim=1) if similarity == "sqeuclidean" else (left * right).sum(dim=1)
    return edge_similarity(x, y, row, column, similarity == "sqeuclidean", memory_budget)


def _prepare(
    anchors: Tensor,
    candidates: Tensor,
    *,
    temperature: float | Tensor,
    candidate_temperature: Tensor | None,
    similarity: str,
    anchor_bias: Tensor | None,
    candidate_bias: Tensor | None,
    rules: CandidateRule | Sequence[CandidateRule],
    check: bool,
) -> ScaledProduct:
    """Validate the arguments and reduce similarity and temperatures to a `ScaledProduct`."""
    check_same_space("anchors", anchors, "candidates", candidates)
    check_similarity(similarity)
    num_anchors, num_candidates = anchors.shape[0], candidates.shape[0]
    device, wide = anchors.device, compute_dtype(anchors.dtype)
    if check:
        check_no_nan("anchors", anchors)
        check_no_nan("candidates", candidates)
    all_rules = tuple(rules) if isinstance(rules, Sequence) else (rules,)
    for rule in all_rules:
        check_rule(rule, num_anchors, num_candidates, device, check)
    for name, bias, length in (
        ("anchor_bias", anchor_bias, num_anchors),
        ("candidate_bias", candidate_bias, num_candidates),
    ):
        if bias is not None:
            check_vector(name, bias, length, device=device)
            if check:
                check_log_weight(name, bias)
    x, y = anchors, candidates
    if similarity == "cosine":
        x, y = normalize_rows(anchors.to(wide)), normalize_rows(candidates.to(wide))
    elif similarity == "sqeuclidean":
        x, y = distance_product(anchors.to(wide), candidates.to(wide))
    return ScaledProduct(
        x,
        y,
        _row_scale(temperature, num_anchors, device, wide, check),
        _column_scale(candidate_temperature, num_candidates, device, wide, check),
        None if anchor_bias is None else anchor_bias.to(wide),
        None if candidate_bias is None else candidate_bias.to(wide),
        all_rules,
    )


def _row_scale(
    temperature: float | Tensor, num_anchors: int, device: torch.device, wide: torch.dtype, check: bool
) -> float | Tensor:
    if not isinstance(temperature, Tensor):
        try:
            value = float(temperature)
        except (TypeError, ValueError) as error:
            raise TypeError(f"temperature must be a number or a tensor, got {temperature!r}") from error
        check_positive("temperature", value)
        return 1.0 / value
    if temperature.dim() == 1:
        check_vector("temperature", temperature, num_anchors, device=device)
    elif temperature.dim() > 1 or not temperature.dtype.is_floating_point:
        raise ValueError(
            f"temperature must be a float number, a 0-dim tensor or of shape ({num_anchors},), "
            f"got shape {tuple(temperature.shape)} of {temperature.dtype}"
        )
    if check:
        check_positive_tensor("temperature", temperature)
    return temperature.to(device=device, dtype=wide).reciprocal().expand(num_anchors)


def _column_scale(
    temperature: Tensor | None, num_candidates: int, device: torch.device, wide: torch.dtype, check: bool
) -> Tensor | None:
    if temperature is None:
        return None
    check_vector("candidate_temperature", temperature, num_candidates, device=device)
    if check:
        check_positive_tensor("candidate_temperature", temperature)
    return temperature.to(wide).reciprocal()
