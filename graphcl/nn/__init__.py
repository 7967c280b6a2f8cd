"""Layers and encoders with parameters; they know nothing of data."""
