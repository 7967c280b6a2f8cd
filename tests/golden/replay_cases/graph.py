"""Cases of graph contrastive learning."""

from __future__ import annotations
