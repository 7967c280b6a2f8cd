"""Modules that own what an objective must remember: temperature, queue, per-sample state, prototypes."""

# Softmax core
from graphcl.losses.alignment import CUA
from graphcl.losses.amcl import AMCL
from graphcl.losses.ape import APE
from graphcl.losses.bacon import BaConRegularizer, BaConSoft, estimate_class_counts

# Block and meta-node forms
from graphcl.losses.block_infonce import SCGC, BlockInfoNCE, PamC
from graphcl.losses.cacr import CACR
from graphcl.losses.claps import CLAPS
from graphcl.losses.cluster_restricted import ClusterRestrictedInfoNCE
from graphcl.losses.cmim import CMIM
from graphcl.losses.comet import COMET

# State, composition, protocol, several processes
from graphcl.losses.composition import CosineSchedule, LinearSchedule, Schedule, Sum, Term
from graphcl.losses.conr import ConR
from graphcl.losses.cwcl import CWCL
from graphcl.losses.dbpm import DBPM
from graphcl.losses.decoupled import DCL, DCLW
from graphcl.losses.distributed import Distributed, gather_rows
from graphcl.losses.dycl import DyCL, SmoothHierarchicalAP
from graphcl.losses.extreme_multilabel import DecoupledSoftmax, MultiLabelSoftmax, SoftTopK
from graphcl.losses.feature_transform import FeatureTransform
from graphcl.losses.genview import GenView
from graphcl.losses.groco import GroCo
from graphcl.losses.hallucination import Hallucination
from graphcl.losses.hard import HardContrastive
from graphcl.losses.hiclr import HiCLR
from graphcl.losses.hydra import Hydra
from graphcl.losses.icnn import ICNN
from graphcl.losses.infonce import InfoNCE, NTXent
from graphcl.losses.interclr import InterCLR
from graphcl.losses.laf import LAFAlignment, LAFExtraction, RepresentationVAE
from graphcl.losses.m3col import M3CoL
from graphcl.losses.meco import MECO
from graphcl.losses.metrix import Metrix
from graphcl.losses.mlcd import MLCD
from graphcl.losses.mochi import MoCHi
from graphcl.losses.moco import MoCo
from graphcl.losses.multi_similarity import HierarchicalMultiSimilarity, MultiSimilarity
from graphcl.losses.multiview import MVDHEL, MeanViewNTXent, MVInfoNCE, PairwiseNTXent, PolyView
from graphcl.losses.norm_direction import NormDirection
from graphcl.losses.pairs.gates import PairGate
from graphcl.losses.palm import PALM

# Memory
from graphcl.losses.planning import Approximation, Plan, plan
from graphcl.losses.pmrl import PMRL
from graphcl.losses.propagation import PropagationConsistency
from graphcl.losses.proto_triplet import ProtoTriplet
from graphcl.losses.protocol import Loss, LossOutput
from graphcl.losses.rescaling import RescaledInfoNCE
from graphcl.losses.sbcl import SBCL
from graphcl.losses.sepclr import SepCLR
from graphcl.losses.sogclr import ISogCLR, SogCLR
from graphcl.losses.space2 import SPACE2
from graphcl.losses.sparse_positives import MultiPositiveInfoNCE
from graphcl.losses.state import ClusterState, EMAEncoder, FeatureQueue, PerSampleState, Prototypes
from graphcl.losses.supcon import SupCon
from graphcl.losses.supremix import SupReMix
from graphcl.losses.swav import SwAV
from graphcl.losses.temperature import PairTemperature, Temperature
from graphcl.losses.uniclr import UniCLR
from graphcl.losses.wasserstein import ListwiseWasserstein
from graphcl.losses.whitening import ShuffledGroupWhitening
from graphcl.losses.zloss import ZLoss

__all__ = [
    "AMCL",
    "APE",
    "CACR",
    "CLAPS",
    "CMIM",
    "COMET",
    "CUA",
    "CWCL",
    "DBPM",
    "DCL",
    "DCLW",
    "ICNN",
    "MECO",
    "MLCD",
    "MVDHEL",
    "PALM",
    "PMRL",
    "SBCL",
    "SCGC",
    "SPACE2",
    "Approximation",
    "BaConRegularizer",
    "BaConSoft",
    "BlockInfoNCE",
    "ClusterRestrictedInfoNCE",
    "ClusterState",
    "ConR",
    "CosineSchedule",
    "DecoupledSoftmax",
    "Distributed",
    "DyCL",
    "EMAEncoder",
    "FeatureQueue",
    "FeatureTransform",
    "GenView",
    "GroCo",
    "Hallucination",
    "HardContrastive",
    "HiCLR",
    "HierarchicalMultiSimilarity",
    "Hydra",
    "ISogCLR",
    "InfoNCE",
    "InterCLR",
    "LAFAlignment",
    "LAFExtraction",
    "LinearSchedule",
    "ListwiseWasserstein",
    "Loss",
    "LossOutput",
    "M3CoL",
    "MVInfoNCE",
    "MeanViewNTXent",
    "Metrix",
    "MoCHi",
    "MoCo",
    "MultiLabelSoftmax",
    "MultiPositiveInfoNCE",
    "MultiSimilarity",
    "NTXent",
    "NormDirection",
    "PairGate",
    "PairTemperature",
    "PairwiseNTXent",
    "PamC",
    "PerSampleState",
    "Plan",
    "PolyView",
    "PropagationConsistency",
    "ProtoTriplet",
    "Prototypes",
    "RepresentationVAE",
    "RescaledInfoNCE",
    "Schedule",
    "SepCLR",
    "ShuffledGroupWhitening",
    "SmoothHierarchicalAP",
    "SoftTopK",
    "SogCLR",
    "Sum",
    "SupCon",
    "SupReMix",
    "SwAV",
    "Temperature",
    "Term",
    "UniCLR",
    "ZLoss",
    "estimate_class_counts",
    "gather_rows",
    "plan",
]
