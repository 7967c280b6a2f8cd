"""Modules that own what an objective must remember: temperature, queue, per-sample state, prototypes."""

# Softmax core
from graphcl.losses.alignment import CUA
from graphcl.losses.amcl import AMCL
from graphcl.losses.cacr import CACR
from graphcl.losses.cmim import CMIM

# State, composition, protocol
from graphcl.losses.composition import CosineSchedule, LinearSchedule, Schedule, Sum, Term
from graphcl.losses.conr import ConR
from graphcl.losses.cwcl import CWCL
from graphcl.losses.decoupled import DCL, DCLW
from graphcl.losses.dycl import DyCL, SmoothHierarchicalAP
from graphcl.losses.extreme_multilabel import DecoupledSoftmax, MultiLabelSoftmax, SoftTopK
from graphcl.losses.groco import GroCo
from graphcl.losses.hard import HardContrastive
from graphcl.losses.infonce import InfoNCE, NTXent
from graphcl.losses.multi_similarity import HierarchicalMultiSimilarity, MultiSimilarity
from graphcl.losses.multiview import MVDHEL, MeanViewNTXent, MVInfoNCE, PairwiseNTXent, PolyView
from graphcl.losses.pmrl import PMRL
from graphcl.losses.protocol import Loss, LossOutput
from graphcl.losses.sogclr import ISogCLR, SogCLR
from graphcl.losses.space2 import SPACE2
from graphcl.losses.sparse_positives import MultiPositiveInfoNCE
from graphcl.losses.state import ClusterState, EMAEncoder, FeatureQueue, PerSampleState, Prototypes
from graphcl.losses.supcon import SupCon
from graphcl.losses.supremix import SupReMix
from graphcl.losses.temperature import PairTemperature, Temperature
from graphcl.losses.wasserstein import ListwiseWasserstein
from graphcl.losses.zloss import ZLoss

__all__ = [
    "AMCL",
    "CACR",
    "CMIM",
    "CUA",
    "CWCL",
    "DCL",
    "DCLW",
    "MVDHEL",
    "PMRL",
    "SPACE2",
    "ClusterState",
    "ConR",
    "CosineSchedule",
    "DecoupledSoftmax",
    "DyCL",
    "EMAEncoder",
    "FeatureQueue",
    "GroCo",
    "HardContrastive",
    "HierarchicalMultiSimilarity",
    "ISogCLR",
    "InfoNCE",
    "LinearSchedule",
    "ListwiseWasserstein",
    "Loss",
    "LossOutput",
    "MVInfoNCE",
    "MeanViewNTXent",
    "MultiLabelSoftmax",
    "MultiPositiveInfoNCE",
    "MultiSimilarity",
    "NTXent",
    "PairTemperature",
    "PairwiseNTXent",
    "PerSampleState",
    "PolyView",
    "Prototypes",
    "Schedule",
    "SmoothHierarchicalAP",
    "SoftTopK",
    "SogCLR",
    "Sum",
    "SupCon",
    "SupReMix",
    "Temperature",
    "Term",
    "ZLoss",
]
