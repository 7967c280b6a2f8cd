"""Every loss of the package with a batch for each rank, and the process that compares many ranks with one.

Run as a script it is one rank: ``distributed_cases.py rank world_size file_store results.json``.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from graphcl import losses
from graphcl.losses import pairs
from graphcl.losses.distributed import Distributed, gather_rows
from graphcl.losses.layout import SHARED, Pairs
from graphcl.losses.protocol import split_output

DIM = 4
SAMPLES = 40
RAGGED = (5, 4)


@dataclass(frozen=True)
class Draw:
    """Random inputs of one rank at one step; what is shared does not depend on the rank."""

    rank: int
    step: int
    generator: torch.Generator = field(init=False)
    common: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", torch.Generator().manual_seed(100 * self.step + self.rank))
        object.__setattr__(self, "common", torch.Generator().manual_seed(100 * self.step + 99))

    def z(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator).requires_grad_()

    def rows(self, num: int) -> Tensor:
        return self.z(num, DIM)

    def table(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.common).requires_grad_()

    def uniform(self, *shape: int) -> Tensor:
        return 0.1 + 0.8 * torch.rand(*shape, dtype=torch.float64, generator=self.generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator)

    def ids(self, num: int) -> Tensor:
        """Samples of this rank, the same ones at every step."""
        return 20 * self.rank + torch.arange(num)

    def labels(self, num: int, classes: int = 3) -> Tensor:
        return (torch.arange(num) + self.rank) % classes

    def edges(self, rows: int, columns: int, num: int) -> Tensor:
        """Distinct pairs with at least one in every row."""
        chosen = torch.zeros(rows, columns, dtype=torch.bool)
        chosen.flatten()[torch.randperm(rows * columns, generator=self.generator)[:num]] = True
        chosen[:, 0] = True
        return chosen.nonzero().T


Batch = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A loss, the arguments of a rank with so many rows, and how a single process would put them together.

    ``join`` names what is not a tensor of rows (or a sequence of them): ``shared``, ``stacked`` (rows along dim 1),
    ``view-major`` for V blocks after each other, or a pair of argument names for pairs of row numbers (None: the number
    counts something shared).
    """

    make: Callable[[], nn.Module]
    batch: Callable[[Draw, int], Batch]
    join: Mapping[str, str | tuple[str | None, ...]] = field(default_factory=dict)
    sizes: tuple[int, ...] = RAGGED
    steps: int = 1
    between: Callable[[Any], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    differentiable: bool = True
    dtype: torch.dtype = torch.float64


def views(d: Draw, n: int) -> Batch:
    return {"z1": d.rows(n), "z2": d.rows(n)}


def views_ids(d: Draw, n: int) -> Batch:
    return {**views(d, n), "ids": d.ids(n)}


def labelled(d: Draw, n: int) -> Batch:
    return {"embeddings": d.rows(n), "labels": d.labels(n)}


def paired(d: Draw, n: int) -> Batch:
    return {"anchors": d.rows(n), "positives": d.rows(n)}


def many(d: Draw, n: int) -> Batch:
    return {"views": [d.rows(n) for _ in range(3)]}


def queued(d: Draw, n: int) -> Batch:
    return {"queries": d.rows(n), "keys": d.rows(n), "ids": d.ids(n)}


def tagged(d: Draw, n: int) -> Batch:
    return {"queries": d.rows(n), "labels": d.table(6, DIM), "positives": d.edges(n, 6, 2 * n)}


def compressed(edges: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(edges[0], minlength=rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), edges[1]


def _views_of(name: str) -> Callable[[Draw, int], Batch]:
    return lambda d, n: {name: (d.rows(n), d.rows(n))}


def _per_sample() -> losses.Temperature:
    return losses.Temperature(0.3, learnable=True, num_samples=SAMPLES)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _sub_clusters(loss: losses.SBCL) -> None:
    rows = torch.randn(SAMPLES, DIM, generator=_seeded())
    loss.refresh(rows, torch.arange(SAMPLES) % 3, generator=_seeded())


def _class_means(loss: losses.NormDirection) -> None:
    loss.fit(torch.randn(9, DIM, generator=_seeded(), dtype=torch.float64), torch.arange(9) % 3)


def _propagation(d: Draw, n: int) -> Batch:
    return {
        "x1": d.rows(n),
        "x2": d.rows(n + 1),
        "k1": d.rows(n),
        "k2": d.rows(n + 1),
        "edges1": d.edges(n, n, 2 * n),
        "edges2": compressed(d.edges(n + 1, n + 1, 2 * n), n + 1),
        "pairs": d.edges(n, n + 1, n),
    }


CASES: dict[str, Case] = {
    # softmax core
    "InfoNCE": Case(losses.InfoNCE, paired),
    "InfoNCE/symmetric, equal batches": Case(lambda: losses.InfoNCE(symmetric=True), paired, sizes=(4, 4)),
    "InfoNCE/an empty batch": Case(losses.InfoNCE, paired, sizes=(0, 5)),
    "InfoNCE/keys, ids, weights, per-sample temperature": Case(
        lambda: losses.InfoNCE(_per_sample()),
        lambda d, n: {
            **paired(d, n),
            "keys": d.rows(n + 1),
            "ids": d.ids(n),
            "key_ids": d.ids(n + 1),
            "weight": d.uniform(n),
        },
    ),
    "InfoNCE/shared keys": Case(
        losses.InfoNCE,
        lambda d, n: {**paired(d, n), "keys": d.table(7, DIM)},
        join={"keys": "shared"},
        options={"layouts": {"keys": SHARED}},
    ),
    "InfoNCE/none": Case(lambda: losses.InfoNCE(reduction="none"), paired),
    "InfoNCE/single precision": Case(losses.InfoNCE, paired, dtype=torch.float32),
    "InfoNCE/split anchors": Case(
        lambda: losses.InfoNCE(losses.Temperature(0.2, learnable=True)), paired, options={"split_anchors": True}
    ),
    "InfoNCE/split anchors, repeated ids, per-sample temperature": Case(
        lambda: losses.InfoNCE(_per_sample()),
        lambda d, n: {**paired(d, n), "ids": torch.arange(n)},
        options={"split_anchors": True},
    ),
    "NTXent": Case(lambda: losses.NTXent(losses.Temperature(0.2, learnable=True)), views_ids),
    "NTXent/sum": Case(lambda: losses.NTXent(reduction="sum"), views),
    "NTXent/single precision": Case(losses.NTXent, views, dtype=torch.float32),
    "NTXent/split anchors": Case(losses.NTXent, views, options={"split_anchors": True}),
    "NTXent/split anchors, one view, an empty batch": Case(
        lambda: losses.NTXent(symmetric=False), views_ids, options={"split_anchors": True}, sizes=(5, 0)
    ),
    "CUA": Case(losses.CUA, lambda d, n: {**views_ids(d, n), "return_components": True}),
    "AMCL": Case(
        lambda: losses.AMCL(DIM, num_heads=2, hidden=3, generator=_seeded()),
        lambda d, n: {"heads1": d.z(2, n, DIM), "heads2": [d.rows(n), d.rows(n)], "ids": d.ids(n)},
        join={"heads1": "stacked"},
    ),
    "CACR": Case(losses.CACR, _views_of("*views")),
    "CMIM": Case(losses.CMIM, lambda d, n: {"z": d.rows(n), "second_draw": d.rows(n), "weight": d.uniform(n)}),
    "CWCL": Case(losses.CWCL, lambda d, n: {**views_ids(d, n), "teacher": d.z(n, 3)}),
    "DCL": Case(losses.DCL, lambda d, n: {**views(d, n), "positive_weight": d.uniform(n)}),
    "DCLW": Case(lambda: losses.DCLW(detach_weight=False), views_ids),
    "HardContrastive": Case(lambda: losses.HardContrastive(num_negatives=3), views_ids),
    "MultiPositiveInfoNCE": Case(
        losses.MultiPositiveInfoNCE,
        lambda d, n: {
            "anchors": d.rows(n),
            "keys": d.rows(n + 2),
            "positives": (edges := d.edges(n, n + 2, 2 * n)),
            "positive_weights": d.uniform(edges.shape[1]),
        },
        join={"positives": ("anchors", "keys")},
    ),
    "MultiPositiveInfoNCE/compressed rows": Case(
        lambda: losses.MultiPositiveInfoNCE(denominator="own"),
        lambda d, n: {
            "anchors": d.rows(n),
            "keys": d.rows(n + 2),
            "positives": compressed(d.edges(n, n + 2, 2 * n), n),
            "weight": d.uniform(n),
        },
        join={"positives": ("anchors", "keys")},
    ),
    "MultiPositiveInfoNCE/shared keys": Case(
        losses.MultiPositiveInfoNCE,
        lambda d, n: {"anchors": d.rows(n), "keys": d.table(6, DIM), "positives": d.edges(n, 6, 2 * n)},
        join={"positives": ("anchors", None), "keys": "shared"},
        options={"layouts": {"keys": SHARED, "positives": Pairs("anchors", "keys")}},
    ),
    "SupCon": Case(losses.SupCon, lambda d, n: {**labelled(d, n), "ids": d.ids(n), "weight": d.uniform(n)}),
    "SupCon/keys": Case(
        losses.SupCon, lambda d, n: {**labelled(d, n), "keys": d.rows(n + 1), "key_labels": d.labels(n + 1)}
    ),
    "SogCLR": Case(lambda: losses.SogCLR(SAMPLES, bimodal=True), views_ids, steps=2),
    "ISogCLR": Case(
        lambda: losses.ISogCLR(SAMPLES), lambda d, n: {**views_ids(d, n), "return_components": True}, steps=2
    ),
    # many views, ranking, regression, trees
    "MVInfoNCE": Case(losses.MVInfoNCE, lambda d, n: {**many(d, n), "ids": d.ids(n)}),
    "MVInfoNCE/stacked": Case(losses.MVInfoNCE, lambda d, n: {"views": d.z(3, n, DIM)}, join={"views": "stacked"}),
    "MVDHEL": Case(losses.MVDHEL, many),
    "PairwiseNTXent": Case(losses.PairwiseNTXent, many),
    "MeanViewNTXent": Case(losses.MeanViewNTXent, many),
    "PolyView": Case(losses.PolyView, many),
    "PMRL": Case(
        losses.PMRL,
        lambda d, n: {"views": d.z(3, n, DIM), "present": torch.ones(n, 3, dtype=torch.bool)},
        join={"views": "stacked"},
    ),
    "ConR": Case(
        losses.ConR,
        lambda d, n: {"embeddings": d.rows(n), "targets": 3 * d.uniform(n), "predictions": 3 * d.uniform(n)},
    ),
    "ConR/keys, ids": Case(
        lambda: losses.ConR(denominator="released"),
        lambda d, n: {
            "embeddings": d.rows(n),
            "targets": 3 * d.uniform(n),
            "predictions": 3 * d.uniform(n),
            "keys": d.rows(n + 2),
            "key_targets": 3 * d.uniform(n + 2),
            "key_predictions": 3 * d.uniform(n + 2),
            "ids": d.ids(n),
            "key_ids": d.ids(n + 2),
            "sample_weight": d.uniform(n),
        },
    ),
    "SupReMix": Case(
        losses.SupReMix,
        lambda d, n: {
            "views": [d.rows(n), d.rows(n)],
            "labels": d.labels(n, 4).double(),
            "anchor_share": d.uniform(2 * n),
        },
        join={"anchor_share": "view-major"},
    ),
    "SupReMix/drawn": Case(
        lambda: losses.SupReMix(max_mixtures=2),
        lambda d, n: {"views": d.z(2, n, DIM), "labels": d.labels(n, 4).double(), "generator": _seeded()},
        join={"views": "stacked", "generator": "shared"},
    ),
    "GroCo": Case(
        lambda: losses.GroCo(num_negatives=2), lambda d, n: {"views": d.z(3, n, DIM)}, join={"views": "stacked"}
    ),
    "ListwiseWasserstein": Case(
        losses.ListwiseWasserstein, lambda d, n: {"scores": d.z(n, 5), "relevance": d.integers(3, n, 5).double()}
    ),
    "SPACE2": Case(
        lambda: losses.SPACE2(DIM, 3, orders=(1, 2), generator=_seeded()),
        lambda d, n: {
            "embeddings": d.rows(n),
            "paths": torch.stack([d.labels(n, 2), 2 + d.labels(n, 3), 5 + d.labels(n, 4)], dim=1),
        },
    ),
    "MultiSimilarity": Case(losses.MultiSimilarity, labelled),
    "HierarchicalMultiSimilarity": Case(
        lambda: losses.HierarchicalMultiSimilarity(torch.tensor([[0, 1, 2], [1, 0, 2], [2, 2, 0]])), labelled
    ),
    "DyCL": Case(
        lambda: losses.DyCL(torch.tensor([[2, 1, 0], [1, 2, 0], [0, 0, 2]]), margins=(0.2, 0.4), scale=4.0),
        lambda d, n: {**views(d, n), "labels": d.labels(n)},
    ),
    "SmoothHierarchicalAP": Case(
        lambda: losses.SmoothHierarchicalAP(0.1, 1.0),
        lambda d, n: {
            "queries": d.rows(n),
            "candidates": d.rows(n + 2),
            "positives": (edges := d.edges(n, n + 2, 2 * n)),
            "relevance": d.uniform(edges.shape[1]),
        },
        join={"positives": ("queries", "candidates")},
    ),
    "SmoothHierarchicalAP/exclude": Case(
        lambda: losses.SmoothHierarchicalAP(0.1, 1.0),
        lambda d, n: {
            "queries": (rows := d.rows(n)),
            "candidates": rows,
            "positives": torch.stack([torch.arange(n), (torch.arange(n) + 1) % n]),
            "relevance": d.uniform(n),
            "exclude": (torch.arange(n + 1), torch.arange(n)),
        },
        join={"positives": ("queries", "candidates"), "exclude": ("queries", "candidates")},
    ),
    "MultiLabelSoftmax": Case(
        losses.MultiLabelSoftmax, tagged, join={"labels": "shared", "positives": ("queries", None)}
    ),
    "DecoupledSoftmax": Case(
        losses.DecoupledSoftmax, tagged, join={"labels": "shared", "positives": ("queries", None)}
    ),
    "SoftTopK": Case(lambda: losses.SoftTopK(2), tagged, join={"labels": "shared", "positives": ("queries", None)}),
    "ZLoss": Case(
        lambda: losses.ZLoss(threshold=0.0),
        lambda d, n: {"hidden": d.rows(n), "weight": d.table(5, DIM), "target": d.integers(5, n)},
        join={"weight": "shared"},
    ),
    "BlockInfoNCE": Case(
        lambda: losses.BlockInfoNCE(correction="diagonal"),
        lambda d, n: {**paired(d, n), "assignment": d.labels(n), "num_clusters": 3, "ids": d.ids(n)},
        join={"num_clusters": "shared"},
    ),
    "PamC": Case(
        losses.PamC,
        lambda d, n: {
            "z": d.rows(n),
            "assignment": d.labels(n),
            "edge_index": (edges := d.edges(n, n, 2 * n)),
            "edge_weight": d.uniform(edges.shape[1]),
        },
        join={"edge_index": ("z", "z")},
    ),
    "SCGC": Case(
        lambda: losses.SCGC(temperature=0.5),
        lambda d, n: {
            "z": d.rows(n),
            "edge_index": (edges := d.edges(n, n, 2 * n)),
            "edge_weight": d.uniform(edges.shape[1]),
        },
        join={"edge_index": ("z", "z")},
    ),
    # prototypes, clusters, hierarchies, consistency
    "BaConSoft": Case(losses.BaConSoft, lambda d, n: {**views(d, n), "probabilities": d.z(n, 3).softmax(dim=1)}),
    "BaConRegularizer": Case(lambda: losses.BaConRegularizer(3), lambda d, n: {"logits": d.z(n, 3)}),
    "ClusterRestrictedInfoNCE": Case(
        lambda: losses.ClusterRestrictedInfoNCE(SAMPLES, 1),
        views_ids,
        steps=2,
        between=lambda loss: loss.add_stage(torch.arange(SAMPLES) % 2),
    ),
    "ClusterRestrictedInfoNCE/keys": Case(
        lambda: losses.ClusterRestrictedInfoNCE(SAMPLES, 1),
        lambda d, n: {**views_ids(d, n), "keys": d.rows(n + 2), "key_ids": d.ids(n + 2), "weight": d.uniform(n)},
        steps=2,
        between=lambda loss: loss.add_stage(torch.arange(SAMPLES) % 2),
    ),
    "COMET": Case(
        losses.COMET,
        lambda d, n: {
            "h1": d.z(n, 3, 2),
            "h2": d.z(n, 3, 2),
            "trials": d.labels(n, 4),
            "patients": d.labels(n, 4) // 2,
        },
    ),
    "DBPM": Case(
        lambda: losses.DBPM(SAMPLES, num_epochs=2, warmup=1, noisy_cut=0.5),
        views_ids,
        steps=2,
        between=lambda loss: loss.set_epoch(1),
    ),
    "HiCLR": Case(
        lambda: losses.HiCLR(DIM, queue_size=12),
        lambda d, n: {"views": [d.rows(n), d.rows(n)], "positives": d.rows(n), "ids": d.ids(n)},
        steps=3,
    ),
    "ICNN": Case(lambda: losses.ICNN(k=2), labelled),
    "InterCLR": Case(
        lambda: losses.InterCLR(SAMPLES, 2, DIM, num_negatives=2, pool=6, centroid_every=1, min_cluster_size=1),
        lambda d, n: {"queries": d.rows(n), "ids": d.ids(n), "generator": _seeded()},
        join={"generator": "shared"},
        steps=3,
        between=lambda loss: loss.refresh(epoch=0),
    ),
    "MLCD": Case(
        lambda: losses.MLCD(6, DIM, negative_ratio=0.5, generator=_seeded()),
        lambda d, n: {
            "embeddings": d.rows(n),
            "positives": compressed(d.edges(n, 6, 2 * n), n),
            "generator": _seeded(),
        },
        join={"positives": ("embeddings", None), "generator": "shared"},
    ),
    "NormDirection": Case(
        lambda: losses.NormDirection(3, DIM),
        lambda d, n: {"student": d.rows(n), "teacher": d.rows(n), "labels": d.labels(n)},
        steps=2,
        between=_class_means,
    ),
    "PALM": Case(lambda: losses.PALM(3, DIM, 2, top_k=1, momentum=0.5, generator=_seeded()), labelled, steps=2),
    "PropagationConsistency": Case(
        lambda: losses.PropagationConsistency(DIM, transform=False),
        _propagation,
        join={"edges1": ("x1", "x1"), "edges2": ("x2", "x2"), "pairs": ("x1", "x2")},
    ),
    "PropagationConsistency/all pairs": Case(
        lambda: losses.PropagationConsistency(DIM, transform=False),
        lambda d, n: {"x1": d.rows(n), "x2": d.rows(n), "k1": d.rows(n), "k2": d.rows(n)},
    ),
    "ProtoTriplet": Case(
        losses.ProtoTriplet,
        lambda d, n: {**labelled(d, n), "prototypes": d.table(3, DIM)},
        join={"prototypes": "shared"},
    ),
    "SBCL": Case(
        lambda: losses.SBCL(SAMPLES, 3, ranked=True, min_size=2),
        lambda d, n: {**views_ids(d, n), "labels": d.labels(n)},
        steps=2,
        between=_sub_clusters,
    ),
    "SepCLR": Case(
        losses.SepCLR,
        lambda d, n: {
            "common": [d.rows(n), d.rows(n)],
            "salient": [d.z(n, 2), d.z(n, 2)],
            "is_target": torch.arange(n) % 2 == 0,
        },
    ),
    "SwAV": Case(
        lambda: losses.SwAV(DIM, 5, queue_size=6, frozen_steps=1, generator=_seeded()),
        lambda d, n: {"*views": (d.rows(n), d.rows(n), d.rows(n)), "weight": d.uniform(n)},
        steps=2,
    ),
    "UniCLR": Case(
        losses.UniCLR,
        lambda d, n: {
            "inliers": [d.rows(n), d.rows(n)],
            "outliers": [d.rows(n - 1), d.rows(n - 1)],
            "outlier_ids": d.labels(n - 1),
        },
    ),
    "UniCLR/weight": Case(
        losses.UniCLR,
        lambda d, n: {"inliers": [d.rows(n), d.rows(n)], "weight": d.uniform(2 * n)},
        join={"weight": "view-major"},
    ),
    # pair strategies and noise-contrastive estimation
    "APE": Case(
        lambda: losses.APE([torch.tensor([3, 1, 2]), torch.tensor([2, 2])], DIM, generator=_seeded()),
        lambda d, n: {"events": torch.stack([d.integers(3, n), d.integers(2, n)], dim=1)},
        steps=2,
    ),
    "CLAPS": Case(
        losses.CLAPS,
        lambda d, n: {"x": d.rows(n), "y": d.rows(n), "positive": d.rows(n), "negative": d.rows(n), "ids": d.ids(n)},
    ),
    "FeatureTransform": Case(lambda: losses.FeatureTransform(12, DIM), queued, steps=3),
    "GenView": Case(
        losses.GenView,
        lambda d, n: {
            **views(d, n),
            **{name: d.z(n, 3) for name in ("foreground1", "foreground2", "background1", "background2")},
        },
    ),
    "Hallucination": Case(
        lambda: losses.Hallucination(12, DIM), lambda d, n: {**queued(d, n), "hallucinated": d.rows(n)}, steps=2
    ),
    "Hydra": Case(
        lambda: losses.Hydra(3, DIM, hidden=5, generator=_seeded()),
        lambda d, n: {"z": d.rows(n), "labels": d.labels(n), "ids": d.ids(n)},
        steps=2,
    ),
    "LAFExtraction": Case(
        losses.LAFExtraction,
        lambda d, n: {
            "retained": d.rows(n),
            "retained_reconstruction": d.rows(n),
            "forgotten": d.rows(n - 1),
            "forgotten_reconstruction": d.rows(n - 1),
        },
    ),
    "LAFAlignment": Case(
        lambda: losses.LAFAlignment(reduction="mean"),
        lambda d, n: {
            "retained": d.rows(n),
            "retained_teacher": d.rows(n),
            "forgotten": d.rows(n - 1),
            "forgotten_teacher": d.rows(n - 1),
        },
    ),
    "M3CoL": Case(
        losses.M3CoL,
        lambda d, n: {
            "first": d.rows(n),
            "second": d.rows(n),
            "permutation": torch.randperm(n, generator=d.generator),
            "weights": d.uniform(n),
        },
        join={"permutation": ("first",)},
    ),
    "M3CoL/soft targets": Case(losses.M3CoL, lambda d, n: {"first": d.rows(n), "second": d.rows(n)}),
    "MECO": Case(
        losses.MECO,
        lambda d, n: {"data_scores": d.z(n), "noise_scores": d.z(2 * n), "log_noise": d.uniform(2 * n).log()},
        steps=2,
    ),
    "Metrix": Case(lambda: losses.Metrix("multi_similarity"), labelled, steps=3),
    "MoCHi": Case(
        lambda: losses.MoCHi(12, DIM, num_hard=3, num_pair_mixtures=2, num_query_mixtures=2), queued, steps=3
    ),
    "MoCo": Case(
        lambda: losses.MoCo(12, DIM, in_batch=True, detach_keys=False),
        lambda d, n: {**queued(d, n), "groups": d.labels(n, 2)},
        steps=2,
    ),
    "RescaledInfoNCE": Case(losses.RescaledInfoNCE, views),
    "ShuffledGroupWhitening": Case(
        lambda: losses.ShuffledGroupWhitening(2), lambda d, n: {"views": d.rows(n)}, steps=2
    ),
    "ShuffledGroupWhitening/given": Case(
        lambda: losses.ShuffledGroupWhitening(2, stop_gradient=False),
        lambda d, n: {
            "views": [d.rows(n) for _ in range(3)],
            "permutations": [torch.randperm(DIM, generator=d.common) for _ in range(3)],
        },
        join={"permutations": "shared"},
    ),
    # what depends on the batch without being a loss
    "GroupWhitening": Case(lambda: pairs.GroupWhitening(2), lambda d, n: {"x": d.rows(n)}, steps=2),
    "BadPairMining": Case(
        lambda: pairs.BadPairMining(SAMPLES, epochs=2, warmup_epochs=1, faulty_cut=0.5),
        lambda d, n: {"pair_loss": d.uniform(n), "ids": d.ids(n)},
        steps=2,
        between=lambda mining: mining.set_epoch(1),
        differentiable=False,
    ),
    "QualityWeights": Case(
        pairs.QualityWeights,
        lambda d, n: {
            "features1": d.z(n, 3, 2),
            "features2": d.z(n, 3, 2),
            "attention1": d.uniform(n, 3),
            "attention2": d.uniform(n, 3),
        },
        differentiable=False,
    ),
}

#: Modules that `Distributed` does not take, and why none is needed.
NOT_LOSSES: dict[str, str] = {
    "Distributed": "what is tested",
    "Sum": "the losses of its terms are wrapped, see the checks",
    "Term": "see Sum",
    "Temperature": "no rows",
    "PairTemperature": "row by row",
    "Prototypes": "no rows",
    "PerSampleState": "written by the losses that own one",
    "ClusterState": "refreshed from all samples at once",
    "EMAEncoder": "row by row; follows parameters that are equal on all ranks",
    "FeatureQueue": "filled from gather_rows, see the checks",
    "GroupQueue": "see FeatureQueue",
    "PairGate": "used by Hydra",
    "StageClusters": "takes the clusters of all samples at once",
    "DiagonalRescaling": "row by row",
    "RepresentationVAE": "row by row",
}


def joined(case: Case, ranks: list[Batch]) -> Batch:
    """The batch of a single process, without the code under test."""
    whole: Batch = {}
    for name, first in ranks[0].items():
        values = [rank[name] for rank in ranks]
        kind = case.join.get(name, "rows")
        if kind == "shared" or not isinstance(first, Tensor | list | tuple):
            whole[name] = first
        elif kind == "stacked":
            whole[name] = torch.cat(values, dim=1)
        elif kind == "view-major":
            blocks = [value.reshape(2, -1) for value in values]
            whole[name] = torch.cat(blocks, dim=1).flatten()
        elif isinstance(kind, tuple):
            whole[name] = _joined_pairs(kind, values, ranks)
        elif isinstance(first, Tensor):
            whole[name] = torch.cat(values)
        else:
            whole[name] = type(first)(torch.cat(items) for items in zip(*values, strict=True))
    return whole


def _joined_pairs(kind: tuple[str | None, ...], values: list[Any], ranks: list[Batch]) -> Any:
    starts = [
        [0 if name is None else sum(len(rank[name]) for rank in ranks[:place]) for place in range(len(ranks))]
        for name in kind
    ]
    if isinstance(values[0], Tensor) and values[0].dim() == 1:
        return torch.cat([value + start for value, start in zip(values, starts[0], strict=True)])
    if isinstance(values[0], Tensor):
        moved = [
            torch.stack([value[0] + starts[0][place], value[1] + starts[1][place]])
            for place, value in enumerate(values)
        ]
        return torch.cat(moved, dim=1)
    offsets, columns, total = [torch.zeros(1, dtype=torch.int64)], [], 0
    for place, (pointer, column) in enumerate(values):
        offsets.append(pointer[1:] + total)
        columns.append(column + starts[1][place])
        total += len(column)
    return torch.cat(offsets), torch.cat(columns)


def tensors(batch: Batch) -> list[tuple[str, Tensor]]:
    """Differentiable leaves of a batch with the name of their argument."""
    found: list[tuple[str, Tensor]] = []
    for name, value in batch.items():
        items = value if isinstance(value, list | tuple) else [value]
        found.extend((name, item) for item in items if isinstance(item, Tensor) and item.requires_grad and item.is_leaf)
    return found


def call(loss: Callable[..., Any], batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    variadic = next((value for name, value in batch.items() if name.startswith("*")), ())
    return split_output(loss(*variadic, **{name: value for name, value in batch.items() if not name.startswith("*")}))


def scalar(value: Tensor) -> Tensor:
    """Any output as one number, with an upstream gradient other than 1."""
    return (value * torch.linspace(0.7, 1.9, max(value.numel(), 1), dtype=value.dtype).reshape(value.shape)).sum()


def in_precision(batch: Batch, dtype: torch.dtype) -> Batch:
    def converted(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().to(dtype).requires_grad_(value.requires_grad)
        return value

    return batch if dtype == torch.float64 else {name: converted(value) for name, value in batch.items()}


def difference(found: Tensor | None, expected: Tensor | None) -> float:
    """Largest deviation, relative to the largest expected number where that is above 1; no tensor stands for zeros."""
    if found is None or expected is None:
        rest = expected if found is None else found
        return 0.0 if rest is None or rest.numel() == 0 else float(rest.abs().max())
    if found.shape != expected.shape:
        return float("inf")
    if expected.numel() == 0 or torch.equal(found, expected):
        return 0.0
    found, expected = found.detach().double(), expected.detach().double()
    scale = max(1.0, float(expected[expected.isfinite()].abs().max())) if bool(expected.isfinite().any()) else 1.0
    gap = torch.where(found == expected, 0.0, (found - expected).abs()).max()
    return float(gap) / scale if bool(gap.isfinite()) else float("inf")


def run_case(case: Case, rank: int, world_size: int) -> dict[str, float]:
    torch.manual_seed(0)
    plain = case.make().to(case.dtype)
    torch.manual_seed(0)
    wrapped = Distributed(case.make().to(case.dtype), **case.options)
    inner = wrapped.loss
    assert isinstance(inner, nn.Module)
    errors = dict.fromkeys(("value", "parts", "gradient", "parameters", "state"), 0.0)
    norm = 0.0

    def record(name: str, found: Tensor | None, expected: Tensor | None) -> None:
        errors[name] = max(errors[name], difference(found, expected))

    for step in range(case.steps):
        ranks = [in_precision(case.batch(Draw(place, step), size), case.dtype) for place, size in enumerate(case.sizes)]
        own = in_precision(case.batch(Draw(rank, step), case.sizes[rank]), case.dtype)
        plain.zero_grad()
        inner.zero_grad()
        expected, expected_parts = call(plain, joined(case, ranks))
        found, found_parts = call(wrapped, own)
        record("value", found, expected)
        assert found_parts.keys() == expected_parts.keys()
        for name, part in expected_parts.items():
            record("parts", found_parts[name], part)
        if case.differentiable and expected.requires_grad:
            scalar(expected).backward()  # type: ignore[no-untyped-call]
            scalar(found).backward()  # type: ignore[no-untyped-call]
            for (name, mine), (_, reference) in zip(tensors(own), tensors(ranks[rank]), strict=True):
                kind = case.join.get(name, "rows")
                want = tensors(ranks[0]) if kind == "shared" else None
                target = next(item for key, item in want if key == name) if want is not None else reference
                copies = 1 if kind == "shared" else world_size
                record("gradient", None if mine.grad is None else mine.grad / copies, target.grad)
                norm += 0.0 if target.grad is None else float(target.grad.abs().sum())
            for mine, reference in zip(inner.parameters(), plain.parameters(), strict=True):
                gradient = mine.grad
                if case.options.get("split_anchors") and gradient is not None:
                    dist.all_reduce(gradient)
                    gradient = gradient / world_size
                record("parameters", gradient, reference.grad)
                norm += 0.0 if reference.grad is None else float(reference.grad.abs().sum())
        for mine, reference in zip(inner.state_dict().values(), plain.state_dict().values(), strict=True):
            record("state", mine, reference)
        if case.between is not None and step == 0:
            case.between(plain)
            case.between(inner)
    return {**errors, "norm": norm}


def check_ddp(rank: int, world_size: int) -> dict[str, float]:
    """An encoder under DistributedDataParallel gets the gradients of one process, and so does the temperature."""

    class Model(nn.Module):
        def __init__(self, distributed: bool) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, DIM)).double()
            loss = losses.NTXent(losses.Temperature(0.3, learnable=True)).double()
            self.loss: nn.Module = Distributed(loss) if distributed else loss

        def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
            value: Tensor = self.loss(self.encoder(x1), self.encoder(x2))
            return value

    batches = [(Draw(place, 0).z(size, 6), Draw(place, 1).z(size, 6)) for place, size in enumerate(RAGGED)]
    plain = Model(distributed=False)
    expected = plain(*(torch.cat(view) for view in zip(*batches, strict=True)))
    expected.backward()
    model = DistributedDataParallel(Model(distributed=True))
    found = model(*batches[rank])
    found.backward()
    gaps = [difference(a.grad, b.grad) for a, b in zip(model.parameters(), plain.parameters(), strict=True)]
    return {"value": difference(found, expected), "gradient": max(gaps)}


def check_mixture(rank: int, world_size: int) -> dict[str, float]:
    """A Sum whose terms are wrapped, against the Sum."""

    def mixture(wrap: Callable[[nn.Module], Any]) -> losses.Sum:
        return losses.Sum(
            views=losses.Term(wrap(losses.NTXent().double()), "z1", "z2"),
            classes=losses.Term(wrap(losses.SupCon().double()), "z1", "labels", weight=0.5),
        )

    ranks = [{**views(Draw(r, 0), n), "labels": Draw(r, 0).labels(n)} for r, n in enumerate(RAGGED)]
    own = {**views(d := Draw(rank, 0), RAGGED[rank]), "labels": d.labels(RAGGED[rank])}
    whole = {name: torch.cat([item[name] for item in ranks]) for name in own}
    expected, expected_parts = mixture(lambda loss: loss)(**whole)
    found, found_parts = mixture(Distributed)(**own)
    expected.backward()
    found.backward()
    return {
        "value": difference(found, expected),
        "parts": max(difference(found_parts[name], expected_parts[name]) for name in expected_parts),
        "gradient": max(difference(own[n].grad / world_size, ranks[rank][n].grad) for n in ("z1", "z2")),
    }


def check_queue(rank: int, world_size: int) -> dict[str, float]:
    """A queue filled from gathered rows is the queue of one process."""
    mine, plain = (losses.FeatureQueue(7, DIM, integers=("ids",)) for _ in range(2))
    draws = [Draw(place, 0) for place in range(world_size)]
    rows, ids = [d.rows(n) for d, n in zip(draws, RAGGED, strict=True)], [d.ids(5 - d.rank) for d in draws]
    mine.push(gather_rows(rows[rank]), ids=gather_rows(ids[rank]))
    plain.push(torch.cat(rows), ids=torch.cat(ids))
    pairs_of_state = zip(mine.state_dict().values(), plain.state_dict().values(), strict=True)
    return {"state": max(difference(a, b) for a, b in pairs_of_state)}


def check_gather(rank: int, world_size: int) -> dict[str, float]:
    """Gradients of gathered rows are summed over ranks, in every dtype; ranks without gradients take part."""
    rows = torch.full((rank + 1, 2), float(rank), dtype=torch.float64, requires_grad=True)
    whole = gather_rows(rows)
    (whole * (rank + 1)).sum().backward()  # type: ignore[no-untyped-call]
    alone = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=rank == 0)
    gather_rows(alone).sum().backward()  # type: ignore[no-untyped-call]
    flags = gather_rows(torch.tensor([rank == 0, True]))
    return {
        "value": difference(whole, torch.tensor([[0.0] * 2, [1.0] * 2, [1.0] * 2], dtype=torch.float64)),
        "gradient": difference(rows.grad, torch.full_like(rows, 3.0)),
        "half": difference(alone.grad, torch.full_like(alone, 2.0)) if rank == 0 else 0.0,
        "flags": float(flags.tolist() != [True, True, False, True]),
        "plain": float(gather_rows(rows.detach()).requires_grad),
    }


def check_draws(rank: int, world_size: int) -> dict[str, float]:
    """Without a generator rank 0 draws a seed for all, whatever the state of the ranks."""
    torch.manual_seed(rank)
    d = Draw(rank, 0)
    loss = Distributed(losses.SupReMix())
    value = loss([d.rows(4), d.rows(4)], d.labels(4, 4).double()).detach()
    other = gather_rows(value[None])
    return {"value": difference(other[0], other[1])}


def check_refusals(rank: int, world_size: int) -> dict[str, float]:
    """Arguments that do not fit are refused on every rank, and the ranks can go on."""
    loss = Distributed(losses.InfoNCE())
    z = torch.zeros(3, DIM)
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("anchors torch.float32 rows of shape", lambda: loss(z[:, : DIM - rank], z[:, : DIM - rank])),
        ("ids torch.int64", lambda: loss(z, z, ids=torch.arange(3) if rank == 0 else torch.arange(3).int())),
        ("weight", lambda: loss(z, z, weight=torch.ones(3) if rank == 0 else None)),
        (
            "generator in state",
            lambda: Distributed(losses.SupReMix())([z, z], z[:, 0], generator=torch.Generator().manual_seed(rank)),
        ),
        ("do not fit those of rank", lambda: gather_rows(z.double() if rank == 0 else z)),
    ]
    accepted = 0
    for message, refused in calls:
        try:
            refused()
            accepted += 1
        except ValueError as error:
            accepted += message not in str(error) and rank == 0
    for message, refused in (
        ("no argument has rows", lambda: Distributed(lambda x: x)(1.0)),
        (
            "cannot be combined with weight",
            lambda: Distributed(losses.InfoNCE(), split_anchors=True)(z, z, weight=torch.ones(3)),
        ),
    ):
        try:
            refused()
            accepted += 1
        except ValueError as error:
            accepted += message not in str(error)
    return {"accepted": float(accepted), "afterwards": float(not loss(z, z).isfinite())}


CHECKS: dict[str, Callable[[int, int], dict[str, float]]] = {
    "ddp": check_ddp,
    "mixture": check_mixture,
    "queue": check_queue,
    "gather": check_gather,
    "draws": check_draws,
    "refusals": check_refusals,
}


def main(rank: int, world_size: int, store: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        try:
            found[name] = run_case(case, rank, world_size)
        except Exception:
            found[name] = traceback.format_exc()
    for name, check in CHECKS.items():
        try:
            found[f"check {name}"] = check(rank, world_size)
        except Exception:
            found[f"check {name}"] = traceback.format_exc()
    Path(results).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
