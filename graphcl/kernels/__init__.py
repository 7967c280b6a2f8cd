"""Tensors in, tensors out: segment reductions, sparse products, the linear-memory pair engine, fused cross-entropy."""
