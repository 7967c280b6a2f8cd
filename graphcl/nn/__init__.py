"""Layers and encoders: parameters and the way they act on tensors; nothing here knows about data sets or training."""

from __future__ import annotations

from graphcl.nn.assignment import SinkhornPrototypes, StudentT
from graphcl.nn.encoders import MLP, GCNConv, GraphEncoder, SmoothedEncoder, gcn_operator
from graphcl.nn.fusion import ModalityFusion
from graphcl.nn.hypergraph import HypergraphConv
from graphcl.nn.lightgcn import LightGCNConv
from graphcl.nn.packing import PackedSequences, pack_sequences
from graphcl.nn.transformer import SequenceTransformer, TransformerLayer

__all__ = [
    "MLP",
    "GCNConv",
    "GraphEncoder",
    "HypergraphConv",
    "LightGCNConv",
    "ModalityFusion",
    "PackedSequences",
    "SequenceTransformer",
    "SinkhornPrototypes",
    "SmoothedEncoder",
    "StudentT",
    "TransformerLayer",
    "gcn_operator",
    "pack_sequences",
]
