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
    from graphcl.models.base import SequenceBatch, SequentialModel
    from graphcl.models.base_clustering import ClusteringBatch, ClusteringConfig, ClusteringModel
    from graphcl.models.base_collaborative import CollaborativeConfig, CollaborativeModel, PairBatch
    from graphcl.models.base_embedding import EmbeddingInputs, EmbeddingModel, NodeBatch, Preset
    from graphcl.models.bgrl import BGRL, BGRLConfig
    from graphcl.models.clhe import CLHE, BundleBatch, BundleInputs, CLHEConfig
    from graphcl.models.dgi import DGI, DGIConfig
    from graphcl.models.dual_encoder import Bags, DualEncoder, DualEncoderConfig, FeatureSpace, RetrievalBatch
    from graphcl.models.grace import GRACE, GRACEConfig
    from graphcl.models.heco import HeCo, HeCoConfig
    from graphcl.models.htcl import HTCL, AlignmentBatch, AlignmentInputs, HTCLConfig
    from graphcl.models.lightgcl import LightGCL, LightGCLConfig
    from graphcl.models.lightgcn import LightGCN, LightGCNConfig
    from graphcl.models.meow import MEOW, MEOWConfig
    from graphcl.models.mmhcl import MMHCL, MMHCLConfig
    from graphcl.models.mvgrl import MVGRL, MVGRLConfig
    from graphcl.models.pamc import PamC, PamCConfig
    from graphcl.models.sasrec import SASRec, SASRecConfig
    from graphcl.models.scgc import SCGC, SCGCConfig, SCGCStar, SCGCStarConfig
    from graphcl.models.sgl import SGL, SGLConfig
    from graphcl.models.simgcl import SimGCL, SimGCLConfig
    from graphcl.models.xsimgcl import XSimGCL, XSimGCLConfig

_LAZY = {
    "Bags": "graphcl.models.dual_encoder",
    "DualEncoder": "graphcl.models.dual_encoder",
    "DualEncoderConfig": "graphcl.models.dual_encoder",
    "FeatureSpace": "graphcl.models.dual_encoder",
    "RetrievalBatch": "graphcl.models.dual_encoder",
    "AdaMEOW": "graphcl.models.adameow",
    "AdaMEOWConfig": "graphcl.models.adameow",
    "APE": "graphcl.models.ape",
    "APEConfig": "graphcl.models.ape",
    "EventBatch": "graphcl.models.ape",
    "BundleBatch": "graphcl.models.clhe",
    "BundleInputs": "graphcl.models.clhe",
    "CLHE": "graphcl.models.clhe",
    "CLHEConfig": "graphcl.models.clhe",
    "ClusteringBatch": "graphcl.models.base_clustering",
    "ClusteringConfig": "graphcl.models.base_clustering",
    "ClusteringModel": "graphcl.models.base_clustering",
    "CollaborativeConfig": "graphcl.models.base_collaborative",
    "CollaborativeModel": "graphcl.models.base_collaborative",
    "EmbeddingInputs": "graphcl.models.base_embedding",
    "EmbeddingModel": "graphcl.models.base_embedding",
    "AlignmentBatch": "graphcl.models.htcl",
    "AlignmentInputs": "graphcl.models.htcl",
    "HTCL": "graphcl.models.htcl",
    "HTCLConfig": "graphcl.models.htcl",
    "BGRL": "graphcl.models.bgrl",
    "BGRLConfig": "graphcl.models.bgrl",
    "DGI": "graphcl.models.dgi",
    "DGIConfig": "graphcl.models.dgi",
    "GRACE": "graphcl.models.grace",
    "GRACEConfig": "graphcl.models.grace",
    "MVGRL": "graphcl.models.mvgrl",
    "MVGRLConfig": "graphcl.models.mvgrl",
    "HeCo": "graphcl.models.heco",
    "HeCoConfig": "graphcl.models.heco",
    "LightGCL": "graphcl.models.lightgcl",
    "LightGCLConfig": "graphcl.models.lightgcl",
    "LightGCN": "graphcl.models.lightgcn",
    "LightGCNConfig": "graphcl.models.lightgcn",
    "MEOW": "graphcl.models.meow",
    "MEOWConfig": "graphcl.models.meow",
    "MMHCL": "graphcl.models.mmhcl",
    "MMHCLConfig": "graphcl.models.mmhcl",
    "NodeBatch": "graphcl.models.base_embedding",
    "PairBatch": "graphcl.models.base_collaborative",
    "PamC": "graphcl.models.pamc",
    "PamCConfig": "graphcl.models.pamc",
    "Preset": "graphcl.models.base_embedding",
    "SASRec": "graphcl.models.sasrec",
    "SASRecConfig": "graphcl.models.sasrec",
    "SCGC": "graphcl.models.scgc",
    "SCGCConfig": "graphcl.models.scgc",
    "SCGCStar": "graphcl.models.scgc",
    "SCGCStarConfig": "graphcl.models.scgc",
    "SGL": "graphcl.models.sgl",
    "SGLConfig": "graphcl.models.sgl",
    "SequenceBatch": "graphcl.models.base",
    "SequentialModel": "graphcl.models.base",
    "SimGCL": "graphcl.models.simgcl",
    "SimGCLConfig": "graphcl.models.simgcl",
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
    "APEConfig",
    "AdaMEOW",
    "AdaMEOWConfig",
    "AlignmentBatch",
    "AlignmentInputs",
    "BGRLConfig",
    "Bags",
    "BundleBatch",
    "BundleInputs",
    "CLHEConfig",
    "ClusteringBatch",
    "ClusteringConfig",
    "ClusteringModel",
    "CollaborativeConfig",
    "CollaborativeModel",
    "DGIConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "EmbeddingInputs",
    "EmbeddingModel",
    "EventBatch",
    "FeatureSpace",
    "GRACEConfig",
    "HTCLConfig",
    "HeCo",
    "HeCoConfig",
    "LightGCL",
    "LightGCLConfig",
    "LightGCN",
    "LightGCNConfig",
    "MEOWConfig",
    "MMHCLConfig",
    "MVGRLConfig",
    "ModelConfig",
    "NodeBatch",
    "PairBatch",
    "PamC",
    "PamCConfig",
    "Preset",
    "RetrievalBatch",
    "SASRec",
    "SASRecConfig",
    "SCGCConfig",
    "SCGCStar",
    "SCGCStarConfig",
    "SGLConfig",
    "SequenceBatch",
    "SequentialModel",
    "SimGCL",
    "SimGCLConfig",
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
