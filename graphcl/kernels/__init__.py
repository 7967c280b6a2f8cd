"""Tensors in, tensors out: segment reductions, sparse products, the linear-memory pair engine, fused cross-entropy."""

# Candidate rules, pairs, top-k, cross-entropy
from graphcl.kernels._matmul import matmul_nt
from graphcl.kernels.backends import Backend
from graphcl.kernels.cross_entropy import linear_cross_entropy

# Segments, sparse products, pooling
from graphcl.kernels.factored import Factor, FactoredMatrix, factored_spmm
from graphcl.kernels.message_passing import aggregate, attention_spmm
from graphcl.kernels.normalization import (
    add_self_loops,
    hypergraph_operator,
    normalize_by_row,
    normalize_symmetric,
    shared_hyperedge_operator,
)
from graphcl.kernels.normalize import normalize_rows
from graphcl.kernels.pairs import (
    BothLogSumExp,
    PairLogSumExp,
    Similarity,
    edge_dot,
    pair_logsumexp,
    pair_logsumexp_both,
)
from graphcl.kernels.pooling import cluster_mean, cluster_second_moment, cluster_sum, pooled_graph, pooled_product
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
from graphcl.kernels.segment import (
    SegmentBackend,
    scatter_logsumexp,
    scatter_max,
    scatter_mean,
    scatter_min,
    scatter_softmax,
    scatter_sum,
    segment_logsumexp,
    segment_max,
    segment_mean,
    segment_min,
    segment_softmax,
    segment_sum,
)
from graphcl.kernels.sinkhorn import SinkhornPotentials, sinkhorn, sinkhorn_potentials
from graphcl.kernels.sparse import Duplicates, SparseMatrix, sddmm, spmm
from graphcl.kernels.topk import PairTopK, knn, pair_topk

__all__ = [
    "AllOf",
    "AnyOf",
    "Backend",
    "BothLogSumExp",
    "CandidateRule",
    "Duplicates",
    "EqualIds",
    "ExcludePairs",
    "ExcludeSameIndex",
    "Factor",
    "FactoredMatrix",
    "KeepPairs",
    "LabelDistanceWeight",
    "LevelTable",
    "PairLogSumExp",
    "PairTile",
    "PairTopK",
    "ScoreThreshold",
    "SegmentBackend",
    "Similarity",
    "SinkhornPotentials",
    "SparseMatrix",
    "add_self_loops",
    "aggregate",
    "attention_spmm",
    "cluster_mean",
    "cluster_second_moment",
    "cluster_sum",
    "edge_dot",
    "factored_spmm",
    "hypergraph_operator",
    "knn",
    "linear_cross_entropy",
    "matmul_nt",
    "normalize_by_row",
    "normalize_rows",
    "normalize_symmetric",
    "pair_logsumexp",
    "pair_logsumexp_both",
    "pair_topk",
    "pooled_graph",
    "pooled_product",
    "scatter_logsumexp",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_softmax",
    "scatter_sum",
    "sddmm",
    "segment_logsumexp",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_softmax",
    "segment_sum",
    "shared_hyperedge_operator",
    "sinkhorn",
    "sinkhorn_potentials",
    "spmm",
]
