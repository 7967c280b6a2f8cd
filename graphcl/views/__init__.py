"""Views: other versions of a sample, made from graphs, sequences or embeddings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphcl.views.graphs import (
    LowRankView,
    add_signed_noise,
    draw_mask,
    edge_drop,
    edge_mask,
    embedding_noise,
    feature_mask,
    hyperedge_drop,
    node_drop,
    ppr_diffusion,
    ppr_topk,
    random_walk,
    subgraph_random_walk,
    svd_view,
)
from graphcl.views.mixing import (
    Hallucinator,
    MixedNegatives,
    draw_hard_mixtures,
    draw_mixed_pairs,
    draw_mixing,
    extrapolate_positives,
    hallucinate,
    interpolate_negatives,
    mix_batch,
    mix_hard_negatives,
    mix_rows,
)
from graphcl.views.sequences import (
    SequenceOperator,
    SequenceView,
    crop_items,
    draw_operators,
    insert_items,
    mask_items,
    reorder_items,
    repeat_items,
    substitute_items,
    two_views,
)

if TYPE_CHECKING:
    from graphcl.views.graph_transforms import (
        EdgeDrop,
        EmbeddingNoise,
        FeatureMask,
        HyperedgeDrop,
        NodeDrop,
        PPRDiffusion,
        RandomWalkSubgraph,
        SVDView,
    )

__all__ = [
    "EdgeDrop",
    "EmbeddingNoise",
    "FeatureMask",
    "Hallucinator",
    "HyperedgeDrop",
    "LowRankView",
    "MixedNegatives",
    "NodeDrop",
    "PPRDiffusion",
    "RandomWalkSubgraph",
    "SVDView",
    "SequenceOperator",
    "SequenceView",
    "add_signed_noise",
    "crop_items",
    "draw_hard_mixtures",
    "draw_mask",
    "draw_mixed_pairs",
    "draw_mixing",
    "draw_operators",
    "edge_drop",
    "edge_mask",
    "embedding_noise",
    "extrapolate_positives",
    "feature_mask",
    "hallucinate",
    "hyperedge_drop",
    "insert_items",
    "interpolate_negatives",
    "mask_items",
    "mix_batch",
    "mix_hard_negatives",
    "mix_rows",
    "node_drop",
    "ppr_diffusion",
    "ppr_topk",
    "random_walk",
    "reorder_items",
    "repeat_items",
    "subgraph_random_walk",
    "substitute_items",
    "svd_view",
    "two_views",
]

# These need torch-geometric and are imported when first asked for.
_TRANSFORMS = (
    "EdgeDrop",
    "EmbeddingNoise",
    "FeatureMask",
    "HyperedgeDrop",
    "NodeDrop",
    "PPRDiffusion",
    "RandomWalkSubgraph",
    "SVDView",
)


def __getattr__(name: str) -> Any:
    if name in _TRANSFORMS:
        return getattr(importlib.import_module("graphcl.views.graph_transforms"), name)
    raise AttributeError(f"module 'graphcl.views' has no attribute {name!r}")
