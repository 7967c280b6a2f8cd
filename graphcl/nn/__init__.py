"""Layers and encoders: parameters and the way they act on tensors; nothing here knows about data sets or training."""

from __future__ import annotations

from graphcl.nn.hypergraph import HypergraphConv
from graphcl.nn.lightgcn import LightGCNConv
from graphcl.nn.packing import PackedSequences, pack_sequences
from graphcl.nn.transformer import SequenceTransformer, TransformerLayer

__all__ = [
    "HypergraphConv",
    "LightGCNConv",
    "PackedSequences",
    "SequenceTransformer",
    "TransformerLayer",
    "pack_sequences",
]
