"""SGL: LightGCN with two randomly thinned graphs an epoch whose embeddings are contrasted."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from graphcl.functional import info_nce
from graphcl.graphs import BipartiteGraph, PropagationOperator
from graphcl.kernels import normalize_rows, pair_logsumexp
from graphcl.models.base_collaborative import CollaborativeConfig, PairBatch, normalized_adjacency
from graphcl.models.lightgcn import LightGCN, LightGCNConfig
from graphcl.models.settings import Rate
from graphcl.views.graphs import edge_drop, node_drop

__all__ = ["SGL", "SGLConfig", "batch_contrast"]

Negatives = Literal["joint", "separate", "all"]


class SGLConfig(LightGCNConfig):
    """Settings of :class:`SGL`; the weights are those of SELFRec, with ``negatives="joint"``.

    Args:
        augmentation: ``edge_drop`` keeps a share of the edges, ``node_drop`` a share of users and of items,
            ``random_walk`` other edges in every layer.
        drop_rate: share that is left out.
        contrast_weight: weight of the contrast.
        temperature: of the contrast.
        negatives: ``joint``: one softmax over the batch's users and items together (SELFRec); ``separate``: one over
            its users, one over its items; ``all``: all users (items) of view 2, summed over the batch (paper).

    Example:
        >>> SGLConfig(augmentation="node_drop").contrast_weight
        0.1
    """

    augmentation: Literal["edge_drop", "node_drop", "random_walk"] = "edge_drop"
    drop_rate: Rate = 0.1
    contrast_weight: NonNegativeFloat = 0.1
    temperature: PositiveFloat = 0.2
    negatives: Negatives = "joint"


class SGL(LightGCN):
    """SGL: two views of the graph, drawn anew every epoch, tie the embeddings of each node.

    Paper: Wu et al., "Self-supervised Graph Learning for Recommendation", 2021, https://arxiv.org/abs/2010.10783.
    A view keeps its share of the edges exactly, normalises with its own degrees and propagates as LightGCN. The
    contrast is InfoNCE of view 1 against view 2 over the distinct users and positive items of the batch.

    Args:
        graph: training interactions.
        config: settings; the defaults when None.
        generator: source of the initial weights.

    Complexity: three propagations a step; the contrast adds O(B^2 d) time (O(B (U + I) d) for ``all``), in linear
    memory.

    Example:
        >>> model = SGL(BipartiteGraph.from_arrays([0, 0, 1], [0, 1, 1]), SGLConfig(hidden=4))
        >>> model.on_epoch_start(0, torch.Generator().manual_seed(0))
        >>> batch = PairBatch(torch.tensor([0]), torch.tensor([1]), torch.tensor([0]), None, total=1)
        >>> sorted(model.objective(batch)[1])
        ['bpr', 'contrast', 'regularization']
    """

    config_class: ClassVar[type[CollaborativeConfig]] = SGLConfig

    def __init__(self, graph: BipartiteGraph, config: Any = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__(graph, config, generator=generator)
        self._views: list[PropagationOperator | list[PropagationOperator]] = []

    def on_epoch_start(self, epoch: int, generator: torch.Generator) -> None:
        """Draw the two graphs of the epoch."""
        super().on_epoch_start(epoch, generator)
        self._views = [self._draw_view(generator) for _ in range(2)]

    def set_views(self, first: BipartiteGraph, second: BipartiteGraph) -> None:
        """Use these two graphs instead of drawn ones."""
        self._views = [normalized_adjacency(view, self.embedding.dtype) for view in (first, second)]

    def _draw_view(self, generator: torch.Generator) -> PropagationOperator | list[PropagationOperator]:
        drawn = self.config.layers if self.config.augmentation == "random_walk" else 1
        kept = [self._thinned(generator) for _ in range(drawn)]
        operators = [normalized_adjacency(graph.to(self.embedding.device), self.embedding.dtype) for graph in kept]
        return operators if self.config.augmentation == "random_walk" else operators[0]

    def _thinned(self, generator: torch.Generator) -> BipartiteGraph:
        drop = node_drop if self.config.augmentation == "node_drop" else edge_drop
        return drop(self.graph, self.config.drop_rate, generator, exact=True)

    def view_embeddings(self) -> tuple[Tensor, Tensor]:
        """Stacked ``(U + I, d)`` embeddings of both views.

        Raises:
            ValueError: no views were drawn.
        """
        if len(self._views) != 2:
            raise ValueError("the views of the epoch must be drawn first: call on_epoch_start")
        first, second = (self.convolution(self.embedding, view) for view in self._views)
        return first, second

    def training_embeddings(self, batch: PairBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        users, items = self()
        if not self.config.contrast_weight:
            return users, items, {}
        first, second = (self.split(view) for view in self.view_embeddings())
        contrast = batch_contrast(
            first, second, batch, temperature=self.config.temperature, negatives=self.config.negatives
        )
        return users, items, {"contrast": self.config.contrast_weight * contrast}


def batch_contrast(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    batch: PairBatch,
    *,
    temperature: float,
    negatives: Negatives = "separate",
) -> Tensor:
    """InfoNCE of view 1 against view 2 over the distinct users and positive items of a batch.

    Args:
        first: user and item embeddings of view 1.
        second: likewise of view 2.
        batch: pairs of the step.
        temperature: positive number.
        negatives: as in :class:`SGLConfig`.

    Returns:
        A scalar.

    Complexity: O(B^2 d) time, or O(B (U + I) d) for ``all``; linear memory.

    >>> batch = PairBatch(torch.tensor([0, 1]), torch.tensor([0, 0]), None, None, total=2)
    >>> views = (torch.eye(2), torch.eye(2))
    >>> batch_contrast(views, views, batch, temperature=1.0)
    tensor(0.3133)
    """
    if negatives == "all":
        sides = zip(first, second, (batch.users, batch.positives), strict=True)
        return torch.stack([_against_all(one, other, ids, temperature) for one, other, ids in sides]).sum()
    ids = torch.unique(batch.users), torch.unique(batch.positives)
    rows = [
        [table.index_select(0, chosen) for table, chosen in zip(view, ids, strict=True)] for view in (first, second)
    ]
    if negatives == "joint":
        return info_nce(torch.cat(rows[0]), torch.cat(rows[1]), temperature=temperature)
    both = [info_nce(one, other, temperature=temperature) for one, other in zip(*rows, strict=True)]
    return both[0] + both[1]


def _against_all(first: Tensor, second: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Sum over the listed nodes of InfoNCE with every node of view 2 as candidate."""
    anchors, candidates = normalize_rows(first.index_select(0, ids)), normalize_rows(second)
    total = pair_logsumexp(anchors, candidates, temperature=temperature, check=False).logsumexp
    return (total - (anchors * candidates.index_select(0, ids)).sum(1) / temperature).sum()
