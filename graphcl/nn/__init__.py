"""Layers and encoders: parameters and the way they act on tensors; nothing here knows about data sets or training."""

from __future__ import annotations

from graphcl.nn.assignment import SinkhornPrototypes, StudentT
from graphcl.nn.augmenter import EmbeddingAugmenter
from graphcl.nn.bundle import BundleEncoder, TokenFusion
from graphcl.nn.encoders import MLP, GCNConv, GraphEncoder, SmoothedEncoder, gcn_operator
from graphcl.nn.fusion import ModalityFusion
from graphcl.nn.heterogeneous import (
    ContextAggregation,
    NodeAttention,
    SchemaEncoder,
    SemanticAttention,
    SharedEncoder,
    TypeFeatures,
    TypeTransform,
)
from graphcl.nn.hypergraph import HypergraphConv
from graphcl.nn.lightgcn import LightGCNConv
from graphcl.nn.packing import PackedSequences, pack_padded, pack_sequences
from graphcl.nn.synthesizer import SampleSynthesizer
from graphcl.nn.transformer import SequenceTransformer, TransformerLayer

__all__ = [
    "MLP",
    "BundleEncoder",
    "ContextAggregation",
    "EmbeddingAugmenter",
    "GCNConv",
    "GraphEncoder",
    "HypergraphConv",
    "LightGCNConv",
    "ModalityFusion",
    "NodeAttention",
    "PackedSequences",
    "SampleSynthesizer",
    "SchemaEncoder",
    "SemanticAttention",
    "SequenceTransformer",
    "SharedEncoder",
    "SinkhornPrototypes",
    "SmoothedEncoder",
    "StudentT",
    "TokenFusion",
    "TransformerLayer",
    "TypeFeatures",
    "TypeTransform",
    "gcn_operator",
    "pack_padded",
    "pack_sequences",
]
