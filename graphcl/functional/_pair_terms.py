"""Pieces that the softmax objectives share: positives, exclusion by ids, safe merging of log-sum-exps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphcl.kernels import (
    Backend,
    CandidateRule,
    EqualIds,
    Similarity,
    normalize_rows,
    pair_logsumexp,
    pair_logsumexp_both,
)
from graphcl.kernels._arguments import check_indices, check_positive, check_same_space, check_similarity, compute_dtype


def check_views(first_name: str, first: Tensor, second_name: str, second: Tensor) -> None:
    """Both are matrices of one shape, dtype and device: row i of one belongs to row i of the other."""
    check_same_space(first_name, first, second_name, second)
    if first.shape[0] != second.shape[0]:
        raise ValueError(
            f"{first_name} and {second_name} must have the same number of rows, "
            f"got {first.shape[0]} and {second.shape[0]}"
        )


def check_temperature(temperature: float | Tensor) -> None:
    """A number must be positive and finite; tensors are checked by the engine."""
    if not isinstance(temperature, Tensor):
        check_positive("temperature", float(temperature))


def in_space(similarity: Similarity, *matrices: Tensor) -> tuple[Similarity, tuple[Tensor, ...]]:
    """Rows in the accumulation type, normalised once for the cosine, and the similarity to use on them from here on."""
    check_similarity(similarity)
    wide = tuple(matrix.to(compute_dtype(matrix.dtype)) for matrix in matrices)
    if similarity == "cosine":
        return "dot", tuple(normalize_rows(matrix) for matrix in wide)
    return similarity, wide


def unit_rows(*matrices: Tensor) -> tuple[Tensor, ...]:
    """Unit rows in the accumulation type; zero rows stay zero."""
    return in_space("cosine", *matrices)[1]


def paired_similarity(x: Tensor, y: Tensor, similarity: Similarity = "dot") -> Tensor:
    """Similarity of row i of ``x`` with row i of ``y``; ``similarity`` is what `in_space` returned."""
    if similarity == "sqeuclidean":
        return -((x - y) ** 2).sum(dim=1)
    return (x * y).sum(dim=1)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), 0 with gradient 0 at -inf.

    torch's own function returns x itself above 20, which in double precision is wrong from the ninth digit on.
    """
    return torch.logaddexp(x, x.new_zeros(()))


def merge_logsumexp(terms: Sequence[Tensor]) -> Tensor:
    """Log of the sum of exponentials of several tensors, elementwise; -inf with zero gradient where all are -inf."""
    if len(terms) == 1:
        return terms[0]
    return logsumexp_rows(torch.stack(tuple(terms), dim=-1))


def logsumexp_rows(values: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension; -inf with zero gradient where every entry is -inf or there is none."""
    if values.shape[-1] == 0:
        return values.sum(dim=-1) - torch.inf
    dead = (values == -torch.inf).all(dim=-1)
    return torch.logsumexp(values.masked_fill(dead.unsqueeze(-1), 0.0), dim=-1).masked_fill(dead, -torch.inf)


def different_ids(
    num_anchors: int, num_keys: int, ids: Tensor | None, key_ids: Tensor | None
) -> tuple[CandidateRule, ...]:
    """Rule that leaves out pairs of equal ids; no rule without ids."""
    if ids is None and key_ids is None:
        return ()
    if ids is None or key_ids is None:
        given = "key_ids" if ids is None else "ids"
        raise ValueError(f"ids and key_ids are compared with each other, got only {given}")
    check_indices("ids", ids, num_anchors, None, check=False)
    check_indices("key_ids", key_ids, num_keys, None, check=False)
    return (EqualIds(ids, key_ids, keep=False),)


def refuse_key_ids(key_ids: Tensor | None) -> None:
    """Without keys the candidates are the batch itself, whose ids are ``ids``."""
    if key_ids is not None:
        raise ValueError("key_ids belong to keys, got key_ids without keys")


def count_different(ids: Tensor, key_ids: Tensor) -> Tensor:
    """How many keys carry another id than each anchor, in O((A + C) log C)."""
    ordered = torch.sort(key_ids).values
    equal = torch.searchsorted(ordered, ids, right=True) - torch.searchsorted(ordered, ids)
    return key_ids.shape[0] - equal


def for_both_views(value: float | Tensor) -> float | Tensor:
    """A setting of N samples as the setting of the 2N rows of their two stacked views."""
    return value.repeat(2) if isinstance(value, Tensor) and value.dim() == 1 else value


def both_directions(
    x: Tensor,
    y: Tensor,
    *,
    temperature: float | Tensor,
    similarity: Similarity,
    rules: Sequence[CandidateRule],
    memory_budget: int,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of x over y and of y over x, in one sweep unless every sample has its own temperature."""
    if isinstance(temperature, Tensor) and temperature.dim() == 1:
        forward, backward = (
            pair_logsumexp(
                left,
                right,
                temperature=temperature,
                similarity=similarity,
                rules=rules,
                memory_budget=memory_budget,
                backend=backend,
            ).logsumexp
            for left, right in ((x, y), (y, x))
        )
        return forward, backward
    both = pair_logsumexp_both(
        x,
        y,
        temperature=temperature,
        similarity=similarity,
        rules=rules,
        memory_budget=memory_budget,
        backend=backend,
    )
    return both.rows, both.columns
