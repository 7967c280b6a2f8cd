"""Objectives and rankings as pure functions: embeddings and positives in, a scalar out."""

# Softmax core
from graphcl.functional.alignment import Tolerance, alignment, cua, tolerance, uniformity
from graphcl.functional.amcl import PairTemperatureFunction, amcl
from graphcl.functional.bacon import bacon_log_prior, bacon_regularizer, bacon_sampling_rate, bacon_soft
from graphcl.functional.cacr import cacr, cacr_rbf
from graphcl.functional.cluster_restricted import cluster_restricted_info_nce, compose_stages
from graphcl.functional.cmim import cmim
from graphcl.functional.comet import comet, comet_id, comet_observation, comet_sample
from graphcl.functional.conr import conr
from graphcl.functional.cwcl import cwcl
from graphcl.functional.dbpm import bad_pair_weights, dbpm
from graphcl.functional.decoupled import dcl, dclw
from graphcl.functional.dycl import dycl, smooth_hierarchical_ap
from graphcl.functional.extreme_multilabel import (
    decoupled_softmax,
    multi_label_softmax,
    soft_top_k,
    soft_top_k_threshold,
)
from graphcl.functional.groco import groco
from graphcl.functional.hard import hard_contrastive, simple_contrastive
from graphcl.functional.hiclr import hiclr
from graphcl.functional.icnn import icnn
from graphcl.functional.infonce import info_nce, nt_xent
from graphcl.functional.interclr import interclr, sample_cluster_negatives, sample_cluster_positives
from graphcl.functional.mlcd import mlcd, nearest_centers
from graphcl.functional.multi_similarity import hierarchical_multi_similarity, multi_similarity
from graphcl.functional.multiview import mean_view_nt_xent, mv_dhel, mv_infonce, pairwise_nt_xent, poly_view
from graphcl.functional.norm_direction import norm_direction
from graphcl.functional.palm import PALMStep, palm
from graphcl.functional.pmrl import PrincipalDirection, pmrl, principal_direction
from graphcl.functional.propagation import propagation_consistency
from graphcl.functional.proto_triplet import proto_triplet
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.sbcl import sbcl, sbcl_class_temperature, sbcl_subclusters
from graphcl.functional.sepclr import sepclr, sepclr_joint_entropy, sepclr_uniformity
from graphcl.functional.sogclr import (
    SogCLRState,
    SogCLRStep,
    TemperatureUpdate,
    gamma_schedule,
    sogclr,
    sogclr_bimodal,
)
from graphcl.functional.space2 import PathJaccard, path_similarity, space2, tree_paths, tree_soft_contrast
from graphcl.functional.sparse_positives import multi_positive_info_nce
from graphcl.functional.supcon import sup_con
from graphcl.functional.supremix import supremix
from graphcl.functional.swav import swav
from graphcl.functional.uniclr import uniclr
from graphcl.functional.wasserstein import listwise_wasserstein
from graphcl.functional.zloss import z_loss

__all__ = [
    "PALMStep",
    "PairTemperatureFunction",
    "PathJaccard",
    "PrincipalDirection",
    "Reduction",
    "SogCLRState",
    "SogCLRStep",
    "TemperatureUpdate",
    "Tolerance",
    "alignment",
    "amcl",
    "bacon_log_prior",
    "bacon_regularizer",
    "bacon_sampling_rate",
    "bacon_soft",
    "bad_pair_weights",
    "cacr",
    "cacr_rbf",
    "cluster_restricted_info_nce",
    "cmim",
    "comet",
    "comet_id",
    "comet_observation",
    "comet_sample",
    "compose_stages",
    "conr",
    "cua",
    "cwcl",
    "dbpm",
    "dcl",
    "dclw",
    "decoupled_softmax",
    "dycl",
    "gamma_schedule",
    "groco",
    "hard_contrastive",
    "hiclr",
    "hierarchical_multi_similarity",
    "icnn",
    "info_nce",
    "interclr",
    "listwise_wasserstein",
    "mean_view_nt_xent",
    "mlcd",
    "multi_label_softmax",
    "multi_positive_info_nce",
    "multi_similarity",
    "mv_dhel",
    "mv_infonce",
    "nearest_centers",
    "norm_direction",
    "nt_xent",
    "pairwise_nt_xent",
    "palm",
    "path_similarity",
    "pmrl",
    "poly_view",
    "principal_direction",
    "propagation_consistency",
    "proto_triplet",
    "reduce_anchors",
    "sample_cluster_negatives",
    "sample_cluster_positives",
    "sbcl",
    "sbcl_class_temperature",
    "sbcl_subclusters",
    "sepclr",
    "sepclr_joint_entropy",
    "sepclr_uniformity",
    "simple_contrastive",
    "smooth_hierarchical_ap",
    "soft_top_k",
    "soft_top_k_threshold",
    "sogclr",
    "sogclr_bimodal",
    "space2",
    "sup_con",
    "supremix",
    "swav",
    "tolerance",
    "tree_paths",
    "tree_soft_contrast",
    "uniclr",
    "uniformity",
    "z_loss",
]
