"""Objectives and rankings as pure functions: embeddings and positives in, a scalar out."""

# Softmax core
from graphcl.functional.adameow import adameow
from graphcl.functional.alignment import Tolerance, alignment, cua, tolerance, uniformity
from graphcl.functional.amcl import amcl
from graphcl.functional.ape import (
    NoiseEvents,
    ape_nce,
    draw_noise_events,
    event_score,
    noise_contrastive_estimation,
    unigram_log_probabilities,
)
from graphcl.functional.assignment import assignment_divergence, student_t_assignment, target_distribution
from graphcl.functional.bacon import bacon_log_prior, bacon_regularizer, bacon_sampling_rate, bacon_soft

# Block and meta-node forms
from graphcl.functional.block import BlockCorrection, block_info_nce, meta_node_repulsion, neighbor_attraction, pamc
from graphcl.functional.bpr import bpr
from graphcl.functional.cacr import cacr, cacr_rbf
from graphcl.functional.claps import claps, perturb_rows
from graphcl.functional.cluster_restricted import cluster_restricted_info_nce, compose_stages
from graphcl.functional.cmim import cmim
from graphcl.functional.comet import comet, comet_id, comet_observation, comet_sample
from graphcl.functional.conr import conr
from graphcl.functional.contrastive_regularizer import contrastive_regularizer
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
from graphcl.functional.feature_transform import extrapolate_positives, feature_transform, interpolate_negatives
from graphcl.functional.genview import attention_pool, genview, quality_weights
from graphcl.functional.groco import groco
from graphcl.functional.hallucination import hallucinate, hallucination
from graphcl.functional.hard import hard_contrastive, simple_contrastive
from graphcl.functional.heco import heco
from graphcl.functional.hiclr import hiclr
from graphcl.functional.hydra import hydra
from graphcl.functional.icnn import icnn
from graphcl.functional.infonce import info_nce, nt_xent
from graphcl.functional.interclr import interclr, sample_cluster_negatives, sample_cluster_positives
from graphcl.functional.kmeans import Clustering, kmeans, nearest_centroids
from graphcl.functional.laf import laf_alignment, laf_extraction, variational_reconstruction
from graphcl.functional.m3col import draw_mixing, m3col_mix, mix_batch, soft_clip
from graphcl.functional.meco import MECOStep, meco
from graphcl.functional.meow import cluster_density, meow_info_nce, meow_prototype_nce
from graphcl.functional.metrix import (
    MixedPairs,
    draw_mixed_pairs,
    metrix_contrastive,
    metrix_multi_similarity,
    mix_rows,
)
from graphcl.functional.mlcd import mlcd, nearest_centers
from graphcl.functional.mochi import HardMixtures, draw_hard_mixtures, hard_negatives, mochi
from graphcl.functional.moco import moco
from graphcl.functional.multi_similarity import hierarchical_multi_similarity, multi_similarity
from graphcl.functional.multiview import mean_view_nt_xent, mv_dhel, mv_infonce, pairwise_nt_xent, poly_view
from graphcl.functional.norm_direction import norm_direction
from graphcl.functional.palm import PALMStep, palm
from graphcl.functional.pmrl import PrincipalDirection, pmrl, principal_direction
from graphcl.functional.propagation import propagation_consistency
from graphcl.functional.proto_triplet import proto_triplet
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.rescaling import diagonal_rescale, rescaled_info_nce
from graphcl.functional.sbcl import sbcl, sbcl_class_temperature, sbcl_subclusters
from graphcl.functional.scgc import scgc
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
from graphcl.functional.synergistic import synergistic_contrastive
from graphcl.functional.uniclr import uniclr
from graphcl.functional.wasserstein import listwise_wasserstein
from graphcl.functional.whitening import group_whiten, shuffled_group_whitening
from graphcl.functional.zloss import z_loss

__all__ = [
    "BlockCorrection",
    "Clustering",
    "HardMixtures",
    "MECOStep",
    "MixedPairs",
    "NoiseEvents",
    "PALMStep",
    "PathJaccard",
    "PrincipalDirection",
    "Reduction",
    "SogCLRState",
    "SogCLRStep",
    "TemperatureUpdate",
    "Tolerance",
    "adameow",
    "alignment",
    "amcl",
    "ape_nce",
    "assignment_divergence",
    "attention_pool",
    "bacon_log_prior",
    "bacon_regularizer",
    "bacon_sampling_rate",
    "bacon_soft",
    "bad_pair_weights",
    "block_info_nce",
    "bpr",
    "cacr",
    "cacr_rbf",
    "claps",
    "cluster_density",
    "cluster_restricted_info_nce",
    "cmim",
    "comet",
    "comet_id",
    "comet_observation",
    "comet_sample",
    "compose_stages",
    "conr",
    "contrastive_regularizer",
    "cua",
    "cwcl",
    "dbpm",
    "dcl",
    "dclw",
    "decoupled_softmax",
    "diagonal_rescale",
    "draw_hard_mixtures",
    "draw_mixed_pairs",
    "draw_mixing",
    "draw_noise_events",
    "dycl",
    "event_score",
    "extrapolate_positives",
    "feature_transform",
    "gamma_schedule",
    "genview",
    "groco",
    "group_whiten",
    "hallucinate",
    "hallucination",
    "hard_contrastive",
    "hard_negatives",
    "heco",
    "hiclr",
    "hierarchical_multi_similarity",
    "hydra",
    "icnn",
    "info_nce",
    "interclr",
    "interpolate_negatives",
    "kmeans",
    "laf_alignment",
    "laf_extraction",
    "listwise_wasserstein",
    "m3col_mix",
    "mean_view_nt_xent",
    "meco",
    "meow_info_nce",
    "meow_prototype_nce",
    "meta_node_repulsion",
    "metrix_contrastive",
    "metrix_multi_similarity",
    "mix_batch",
    "mix_rows",
    "mlcd",
    "mochi",
    "moco",
    "multi_label_softmax",
    "multi_positive_info_nce",
    "multi_similarity",
    "mv_dhel",
    "mv_infonce",
    "nearest_centers",
    "nearest_centroids",
    "neighbor_attraction",
    "noise_contrastive_estimation",
    "norm_direction",
    "nt_xent",
    "pairwise_nt_xent",
    "palm",
    "pamc",
    "path_similarity",
    "perturb_rows",
    "pmrl",
    "poly_view",
    "principal_direction",
    "propagation_consistency",
    "proto_triplet",
    "quality_weights",
    "reduce_anchors",
    "rescaled_info_nce",
    "sample_cluster_negatives",
    "sample_cluster_positives",
    "sbcl",
    "sbcl_class_temperature",
    "sbcl_subclusters",
    "scgc",
    "sepclr",
    "sepclr_joint_entropy",
    "sepclr_uniformity",
    "shuffled_group_whitening",
    "simple_contrastive",
    "smooth_hierarchical_ap",
    "soft_clip",
    "soft_top_k",
    "soft_top_k_threshold",
    "sogclr",
    "sogclr_bimodal",
    "space2",
    "student_t_assignment",
    "sup_con",
    "supremix",
    "swav",
    "synergistic_contrastive",
    "target_distribution",
    "tolerance",
    "tree_paths",
    "tree_soft_contrast",
    "uniclr",
    "uniformity",
    "unigram_log_probabilities",
    "variational_reconstruction",
    "z_loss",
]
