"""Objectives and rankings as pure functions: embeddings and positives in, a scalar out."""
