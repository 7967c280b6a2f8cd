"""Objectives and rankings as pure functions: embeddings and positives in, a scalar out."""

# Softmax core
from graphcl.functional.alignment import alignment, cua, uniformity
from graphcl.functional.amcl import PairTemperatureFunction, amcl
from graphcl.functional.cacr import cacr, cacr_rbf
from graphcl.functional.cmim import cmim
from graphcl.functional.cwcl import cwcl
from graphcl.functional.decoupled import dcl, dclw
from graphcl.functional.hard import hard_contrastive, simple_contrastive
from graphcl.functional.infonce import info_nce, nt_xent
from graphcl.functional.reduction import Reduction, reduce_anchors
from graphcl.functional.sogclr import (
    SogCLRState,
    SogCLRStep,
    TemperatureUpdate,
    gamma_schedule,
    sogclr,
    sogclr_bimodal,
)
from graphcl.functional.sparse_positives import multi_positive_info_nce
from graphcl.functional.supcon import sup_con

__all__ = [
    "PairTemperatureFunction",
    "Reduction",
    "SogCLRState",
    "SogCLRStep",
    "TemperatureUpdate",
    "alignment",
    "amcl",
    "cacr",
    "cacr_rbf",
    "cmim",
    "cua",
    "cwcl",
    "dcl",
    "dclw",
    "gamma_schedule",
    "hard_contrastive",
    "info_nce",
    "multi_positive_info_nce",
    "nt_xent",
    "reduce_anchors",
    "simple_contrastive",
    "sogclr",
    "sogclr_bimodal",
    "sup_con",
    "uniformity",
]
