"""Modules that own what an objective must remember: temperature, queue, per-sample state, prototypes."""

# Softmax core
from graphcl.losses.alignment import CUA
from graphcl.losses.amcl import AMCL
from graphcl.losses.cacr import CACR
from graphcl.losses.cmim import CMIM

# State, composition, protocol
from graphcl.losses.composition import CosineSchedule, LinearSchedule, Schedule, Sum, Term
from graphcl.losses.cwcl import CWCL
from graphcl.losses.decoupled import DCL, DCLW
from graphcl.losses.hard import HardContrastive
from graphcl.losses.infonce import InfoNCE, NTXent
from graphcl.losses.protocol import Loss, LossOutput
from graphcl.losses.sogclr import ISogCLR, SogCLR
from graphcl.losses.sparse_positives import MultiPositiveInfoNCE
from graphcl.losses.state import ClusterState, EMAEncoder, FeatureQueue, PerSampleState, Prototypes
from graphcl.losses.supcon import SupCon
from graphcl.losses.temperature import PairTemperature, Temperature

__all__ = [
    "AMCL",
    "CACR",
    "CMIM",
    "CUA",
    "CWCL",
    "DCL",
    "DCLW",
    "ClusterState",
    "CosineSchedule",
    "EMAEncoder",
    "FeatureQueue",
    "HardContrastive",
    "ISogCLR",
    "InfoNCE",
    "LinearSchedule",
    "Loss",
    "LossOutput",
    "MultiPositiveInfoNCE",
    "NTXent",
    "PairTemperature",
    "PerSampleState",
    "Prototypes",
    "Schedule",
    "SogCLR",
    "Sum",
    "SupCon",
    "Temperature",
    "Term",
]
