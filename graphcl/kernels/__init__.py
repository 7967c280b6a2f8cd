"""Tensors in, tensors out: segment reductions, sparse products, the linear-memory pair engine, fused cross-entropy."""

# Candidate rules, pairs, top-k, cross-entropy
from graphcl.kernels.backends import Backend
from graphcl.kernels.cross_entropy import linear_cross_entropy
from graphcl.kernels.normalize import normalize_rows
from graphcl.kernels.pairs import (
    BothLogSumExp,
    PairLogSumExp,
    Similarity,
    edge_dot,
    pair_logsumexp,
    pair_logsumexp_both,
)
from graphcl.kernels.rules import (
    AllOf,
    AnyOf,
    CandidateRule,
    EqualIds,
    ExcludePairs,
    ExcludeSameIndex,
    KeepPairs,
    LabelDistanceWeight,
    LevelTable,
    PairTile,
    ScoreThreshold,
)
from graphcl.kernels.topk import PairTopK, knn, pair_topk

__all__ = [
    "AllOf",
    "AnyOf",
    "Backend",
    "BothLogSumExp",
    "CandidateRule",
    "EqualIds",
    "ExcludePairs",
    "ExcludeSameIndex",
    "KeepPairs",
    "LabelDistanceWeight",
    "LevelTable",
    "PairLogSumExp",
    "PairTile",
    "PairTopK",
    "ScoreThreshold",
    "Similarity",
    "edge_dot",
    "knn",
    "linear_cross_entropy",
    "normalize_rows",
    "pair_logsumexp",
    "pair_logsumexp_both",
    "pair_topk",
]
