"""Published methods, one a file: ``forward`` gives embeddings, ``objective`` gives a scalar and its parts by name.

Names are looked up in a registry that imports a method's file when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphcl.models.registry import get_model, list_models, register_model
from graphcl.models.settings import ModelConfig, build_config, nearest_names

if TYPE_CHECKING:
    from graphcl.models.adameow import AdaMEOW, AdaMEOWConfig
    from graphcl.models.ape import APE, APEConfig, EventBatch
    from graphcl.models.base import (
        ContrastRows,
        PaddedSequences,
        RetrievedRows,
        SequenceBatch,
        SequentialModel,
        SteppedModel,
    )
    from graphcl.models.base_clustering import ClusteringBatch, ClusteringConfig, ClusteringModel
    from graphcl.models.base_collaborative import CollaborativeConfig, CollaborativeModel, PairBatch
    from graphcl.models.base_contrastive import ContrastiveConfig, ContrastiveModel, ContrastNeeds
    from graphcl.models.base_embedding import EmbeddingInputs, EmbeddingModel, NodeBatch, Preset
    from graphcl.models.bgrl import BGRL, BGRLConfig
    from graphcl.models.cl4srec import CL4SRec, CL4SRecConfig
    from graphcl.models.clhe import CLHE, BundleBatch, BundleInputs, CLHEConfig
    from graphcl.models.dgi import DGI, DGIConfig
    from graphcl.models.dual_encoder import Bags, DualEncoder, DualEncoderConfig, FeatureSpace, RetrievalBatch
    from graphcl.models.duorec import DuoRec, DuoRecConfig
    from graphcl.models.grace import GRACE, GRACEConfig
    from graphcl.models.gru4rec import GRU4Rec, GRU4RecConfig
    from graphcl.models.heco import HeCo, HeCoConfig
    from graphcl.models.htcl import HTCL, AlignmentBatch, AlignmentInputs, HTCLConfig
    from graphcl.models.lightgcl import LightGCL, LightGCLConfig
    from graphcl.models.lightgcn import LightGCN, LightGCNConfig
    from graphcl.models.mclrec import MCLRec, MCLRecConfig
    from graphcl.models.meow import MEOW, MEOWConfig
    from graphcl.models.mmhcl import MMHCL, MMHCLConfig
    from graphcl.models.mvgrl import MVGRL, MVGRLConfig
    from graphcl.models.pamc import PamC, PamCConfig
    from graphcl.models.sasrec import SASRec, SASRecConfig
    from graphcl.models.scgc import SCGC, SCGCConfig, SCGCStar, SCGCStarConfig
    from graphcl.models.sgl import SGL, SGLConfig
    from graphcl.models.simgcl import SimGCL, SimGCLConfig
    from graphcl.models.sracl import SRACL, SRACLConfig
    from graphcl.models.xsimgcl import XSimGCL, XSimGCLConfig

_LAZY = {
    "SRACL": "graphcl.models.sracl",
    "SRACLConfig": "graphcl.models.sracl",
    "AdaMEOW": "graphcl.models.adameow",
    "AdaMEOWConfig": "graphcl.models.adameow",
    "AlignmentBatch": "graphcl.models.htcl",
    "AlignmentInputs": "graphcl.models.htcl",
    "APE": "graphcl.models.ape",
    "APEConfig": "graphcl.models.ape",
    "Bags": "graphcl.models.dual_encoder",
    "BGRL": "graphcl.models.bgrl",
    "BGRLConfig": "graphcl.models.bgrl",
    "BundleBatch": "graphcl.models.clhe",
    "BundleInputs": "graphcl.models.clhe",
    "CL4SRec": "graphcl.models.cl4srec",
    "CL4SRecConfig": "graphcl.models.cl4srec",
    "CLHE": "graphcl.models.clhe",
    "CLHEConfig": "graphcl.models.clhe",
    "ClusteringBatch": "graphcl.models.base_clustering",
    "ClusteringConfig": "graphcl.models.base_clustering",
    "ClusteringModel": "graphcl.models.base_clustering",
    "CollaborativeConfig": "graphcl.models.base_collaborative",
    "CollaborativeModel": "graphcl.models.base_collaborative",
    "ContrastiveConfig": "graphcl.models.base_contrastive",
    "ContrastiveModel": "graphcl.models.base_contrastive",
    "ContrastNeeds": "graphcl.models.base_contrastive",
    "ContrastRows": "graphcl.models.base",
    "DGI": "graphcl.models.dgi",
    "DGIConfig": "graphcl.models.dgi",
    "DualEncoder": "graphcl.models.dual_encoder",
    "DualEncoderConfig": "graphcl.models.dual_encoder",
    "DuoRec": "graphcl.models.duorec",
    "DuoRecConfig": "graphcl.models.duorec",
    "EmbeddingInputs": "graphcl.models.base_embedding",
    "EmbeddingModel": "graphcl.models.base_embedding",
    "EventBatch": "graphcl.models.ape",
    "FeatureSpace": "graphcl.models.dual_encoder",
    "GRACE": "graphcl.models.grace",
    "GRACEConfig": "graphcl.models.grace",
    "GRU4Rec": "graphcl.models.gru4rec",
    "GRU4RecConfig": "graphcl.models.gru4rec",
    "HeCo": "graphcl.models.heco",
    "HeCoConfig": "graphcl.models.heco",
    "HTCL": "graphcl.models.htcl",
    "HTCLConfig": "graphcl.models.htcl",
    "LightGCL": "graphcl.models.lightgcl",
    "LightGCLConfig": "graphcl.models.lightgcl",
    "LightGCN": "graphcl.models.lightgcn",
    "LightGCNConfig": "graphcl.models.lightgcn",
    "MCLRec": "graphcl.models.mclrec",
    "MCLRecConfig": "graphcl.models.mclrec",
    "MEOW": "graphcl.models.meow",
    "MEOWConfig": "graphcl.models.meow",
    "MMHCL": "graphcl.models.mmhcl",
    "MMHCLConfig": "graphcl.models.mmhcl",
    "MVGRL": "graphcl.models.mvgrl",
    "MVGRLConfig": "graphcl.models.mvgrl",
    "NodeBatch": "graphcl.models.base_embedding",
    "PaddedSequences": "graphcl.models.base",
    "PairBatch": "graphcl.models.base_collaborative",
    "PamC": "graphcl.models.pamc",
    "PamCConfig": "graphcl.models.pamc",
    "Preset": "graphcl.models.base_embedding",
    "RetrievalBatch": "graphcl.models.dual_encoder",
    "RetrievedRows": "graphcl.models.base",
    "SASRec": "graphcl.models.sasrec",
    "SASRecConfig": "graphcl.models.sasrec",
    "SCGC": "graphcl.models.scgc",
    "SCGCConfig": "graphcl.models.scgc",
    "SCGCStar": "graphcl.models.scgc",
    "SCGCStarConfig": "graphcl.models.scgc",
    "SequenceBatch": "graphcl.models.base",
    "SequentialModel": "graphcl.models.base",
    "SGL": "graphcl.models.sgl",
    "SGLConfig": "graphcl.models.sgl",
    "SimGCL": "graphcl.models.simgcl",
    "SimGCLConfig": "graphcl.models.simgcl",
    "SteppedModel": "graphcl.models.base",
    "XSimGCL": "graphcl.models.xsimgcl",
    "XSimGCLConfig": "graphcl.models.xsimgcl",
}

__all__ = [
    "APE",
    "BGRL",
    "CLHE",
    "DGI",
    "GRACE",
    "HTCL",
    "MEOW",
    "MMHCL",
    "MVGRL",
    "SCGC",
    "SGL",
    "SRACL",
    "APEConfig",
    "AdaMEOW",
    "AdaMEOWConfig",
    "AlignmentBatch",
    "AlignmentInputs",
    "BGRLConfig",
    "Bags",
    "BundleBatch",
    "BundleInputs",
    "CL4SRec",
    "CL4SRecConfig",
    "CLHEConfig",
    "ClusteringBatch",
    "ClusteringConfig",
    "ClusteringModel",
    "CollaborativeConfig",
    "CollaborativeModel",
    "ContrastNeeds",
    "ContrastRows",
    "ContrastiveConfig",
    "ContrastiveModel",
    "DGIConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "DuoRec",
    "DuoRecConfig",
    "EmbeddingInputs",
    "EmbeddingModel",
    "EventBatch",
    "FeatureSpace",
    "GRACEConfig",
    "GRU4Rec",
    "GRU4RecConfig",
    "HTCLConfig",
    "HeCo",
    "HeCoConfig",
    "LightGCL",
    "LightGCLConfig",
    "LightGCN",
    "LightGCNConfig",
    "MCLRec",
    "MCLRecConfig",
    "MEOWConfig",
    "MMHCLConfig",
    "MVGRLConfig",
    "ModelConfig",
    "NodeBatch",
    "PaddedSequences",
    "PairBatch",
    "PamC",
    "PamCConfig",
    "Preset",
    "RetrievalBatch",
    "RetrievedRows",
    "SASRec",
    "SASRecConfig",
    "SCGCConfig",
    "SCGCStar",
    "SCGCStarConfig",
    "SGLConfig",
    "SRACLConfig",
    "SequenceBatch",
    "SequentialModel",
    "SimGCL",
    "SimGCLConfig",
    "SteppedModel",
    "XSimGCL",
    "XSimGCLConfig",
    "build_config",
    "get_model",
    "list_models",
    "nearest_names",
    "register_model",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'graphcl.models' has no attribute {name!r}")
