"""Measures of rankings, recommendation lists and embeddings."""

from graphcl.metrics.exposure import ExposureMetrics, exposure_metrics
from graphcl.metrics.projection import project_2d, sample_for_map
from graphcl.metrics.ranking import (
    BucketMetrics,
    Csr,
    RankingEvaluation,
    RankingMetrics,
    Seen,
    Ties,
    evaluate_ranking,
    metrics_by_popularity,
    per_query_metrics,
    rank_of_targets,
    rank_of_targets_by_score,
    ranking_metrics,
    recommend_topk,
)
from graphcl.metrics.score_distribution import ScoreHistograms, score_histograms

__all__ = [
    "BucketMetrics",
    "Csr",
    "ExposureMetrics",
    "RankingEvaluation",
    "RankingMetrics",
    "ScoreHistograms",
    "Seen",
    "Ties",
    "evaluate_ranking",
    "exposure_metrics",
    "metrics_by_popularity",
    "per_query_metrics",
    "project_2d",
    "rank_of_targets",
    "rank_of_targets_by_score",
    "ranking_metrics",
    "recommend_topk",
    "sample_for_map",
    "score_histograms",
]
