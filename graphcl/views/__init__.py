"""Views: other versions of a sample, made from graphs, sequences or embeddings."""

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

__all__ = [
    "Hallucinator",
    "MixedNegatives",
    "draw_hard_mixtures",
    "draw_mixed_pairs",
    "draw_mixing",
    "extrapolate_positives",
    "hallucinate",
    "interpolate_negatives",
    "mix_batch",
    "mix_hard_negatives",
    "mix_rows",
]
