"""Ranking, clustering and embedding-geometry measures; they know nothing of models."""
