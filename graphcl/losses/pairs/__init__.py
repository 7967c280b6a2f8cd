"""Pair strategies: what makes the rows, weights, rules or batches that the losses take."""

from graphcl.losses.pairs.adversarial import AdversarialPairs, adversarial_pairs
from graphcl.losses.pairs.bad_pairs import BadPairMining
from graphcl.losses.pairs.clusters import StageClusters
from graphcl.losses.pairs.false_negatives import ExcludeSimilar, exclude_known, exclude_nearest
from graphcl.losses.pairs.gates import PairGate
from graphcl.losses.pairs.groups import GroupQueue, subtract_group_mean
from graphcl.losses.pairs.inverse_propensity import (
    CandidatePool,
    SampledPairs,
    candidate_pool,
    propensity_weights,
    sample_pairs,
)
from graphcl.losses.pairs.quality import QualityWeights
from graphcl.losses.pairs.transforms import DiagonalRescaling, GroupWhitening

__all__ = [
    "AdversarialPairs",
    "BadPairMining",
    "CandidatePool",
    "DiagonalRescaling",
    "ExcludeSimilar",
    "GroupQueue",
    "GroupWhitening",
    "PairGate",
    "QualityWeights",
    "SampledPairs",
    "StageClusters",
    "adversarial_pairs",
    "candidate_pool",
    "exclude_known",
    "exclude_nearest",
    "propensity_weights",
    "sample_pairs",
    "subtract_group_mean",
]
