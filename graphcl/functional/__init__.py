"""Objectives and rankings as pure functions: embeddings and positives in, a scalar out."""

# Softmax core
from graphcl.functional.alignment import Tolerance, alignment, cua, tolerance, uniformity
from graphcl.functional.amcl import PairTemperatureFunction, amcl
from graphcl.functional.cacr import cacr, cacr_rbf
from graphcl.functional.cmim import cmim
from graphcl.functional.conr import conr
from graphcl.functional.cwcl import cwcl
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
from graphcl.functional.infonce import info_nce, nt_xent
from graphcl.functional.multi_similarity import hierarchical_multi_similarity, multi_similarity
from graphcl.functional.multiview import mean_view_nt_xent, mv_dhel, mv_infonce, pairwise_nt_xent, poly_view
from graphcl.functional.pmrl import PrincipalDirection, pmrl, principal_direction
from graphcl.functional.reduction import Reduction, reduce_anchors
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
from graphcl.functional.wasserstein import listwise_wasserstein
from graphcl.functional.zloss import z_loss

__all__ = [
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
    "cacr",
    "cacr_rbf",
    "cmim",
    "conr",
    "cua",
    "cwcl",
    "dcl",
    "dclw",
    "decoupled_softmax",
    "dycl",
    "gamma_schedule",
    "groco",
    "hard_contrastive",
    "hierarchical_multi_similarity",
    "info_nce",
    "listwise_wasserstein",
    "mean_view_nt_xent",
    "multi_label_softmax",
    "multi_positive_info_nce",
    "multi_similarity",
    "mv_dhel",
    "mv_infonce",
    "nt_xent",
    "pairwise_nt_xent",
    "path_similarity",
    "pmrl",
    "poly_view",
    "principal_direction",
    "reduce_anchors",
    "simple_contrastive",
    "smooth_hierarchical_ap",
    "soft_top_k",
    "soft_top_k_threshold",
    "sogclr",
    "sogclr_bimodal",
    "space2",
    "sup_con",
    "supremix",
    "tolerance",
    "tree_paths",
    "tree_soft_contrast",
    "uniformity",
    "z_loss",
]
