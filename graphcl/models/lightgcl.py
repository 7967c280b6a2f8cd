"""LightGCL: the graph's own propagation contrasted with that of its low-rank approximation."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.functional import bpr
from graphcl.graphs import BipartiteGraph
from graphcl.kernels import SparseMatrix, normalize_rows, pair_logsumexp, spmm
from graphcl.models.base_collaborative import (
    CollaborativeConfig,
    CollaborativeModel,
    PairBatch,
    Regularizer,
    score_gaps,
)
from graphcl.models.settings import Rate
from graphcl.views.graphs import svd_view

__all__ = ["LightGCL", "LightGCLConfig", "LightGCLLayers"]

_CLAMP = 5.0


class LightGCLConfig(CollaborativeConfig):
    """Settings of :class:`LightGCL`.

    Args:
        layers: propagation layers L.
        rank: rank q of the approximation.
        contrast_weight: lambda 1.
        temperature: of the contrast.
        dropout: share of edges left out, drawn anew for every layer and side.
        form: ``released``: no activation, all nodes as negatives, BPR. ``original``: the first public snapshot, with
            LeakyReLU(0.5), residual layers, a learned matrix a layer, the decomposition of the raw matrix, negatives
            of the batch, a hinge instead of BPR, and sums over the batch.
        regularizer: by default the squared norm of the tables, as in the code.
        regularization: lambda 2.

    Example:
        >>> LightGCLConfig().rank
        5
    """

    layers: PositiveInt = 2
    rank: PositiveInt = 5
    contrast_weight: NonNegativeFloat = 0.01
    temperature: PositiveFloat = 0.8
    dropout: Rate = 0.0
    form: Literal["released", "original"] = "released"
    regularizer: Regularizer = "all_tables"
    regularization: NonNegativeFloat = 1e-5


class LightGCLLayers(NamedTuple):
    """Embeddings of both branches: their sums over layers, and each layer's own terms.

    Args:
        users, items: E, ``(U, d)`` and ``(I, d)``: the graph's branch, used for ranking.
        global_users, global_items: G: the low-rank branch.
        local_terms, global_terms: z and g of each layer, (users, items).
    """

    users: Tensor
    items: Tensor
    global_users: Tensor
    global_items: Tensor
    local_terms: list[tuple[Tensor, Tensor]]
    global_terms: list[tuple[Tensor, Tensor]]


class LightGCL(CollaborativeModel):
    r"""LightGCL: InfoNCE between the embeddings of the graph and those of its truncated decomposition.

    Paper: Cai et al., "LightGCL: Simple Yet Effective Graph Contrastive Learning for Recommendation", 2023,
    https://arxiv.org/abs/2302.08191. The default is the later form of the authors, which SSLRec and RecBole-GNN share:

    .. math:: z_u^{(l)} = \hat A e_i^{(l-1)}, \; g_u^{(l)} = U_q S_q (V_q^T e_i^{(l-1)}), \; e^{(l)} = z^{(l)}, \quad
        E = \sum_{l=0}^L e^{(l)}, \; G = e^{(0)} + \sum_l g^{(l)}

    .. math:: CL = \frac{1}{B} \sum_u \Bigl[\log \sum_v e^{G_u \cdot E_v / t}
        - \mathrm{clamp}(G_u \cdot E_u / t, -5, 5)\Bigr] + \text{the same for positive items}

    with raw inner products and all nodes as negatives, by log-sum-exp, so it does not overflow.

    Args:
        graph: training interactions.
        config: settings; the defaults when None.
        generator: source of the initial weights and of the randomised decomposition.

    Complexity: O(L (E + (U + I) q) d) for propagation and O(B (U + I) d) time for the contrast, in linear memory.

    Example:
        >>> model = LightGCL(BipartiteGraph.from_arrays([0, 0, 1], [0, 1, 1]), LightGCLConfig(hidden=4, rank=1))
        >>> batch = PairBatch(torch.tensor([0]), torch.tensor([1]), torch.tensor([0]), None, total=1)
        >>> sorted(model.objective(batch)[1])
        ['bpr', 'contrast', 'regularization']
    """

    config_class: ClassVar[type[CollaborativeConfig]] = LightGCLConfig
    left_factor: Tensor
    right_factor: Tensor

    def __init__(self, graph: BipartiteGraph, config: Any = None, *, generator: torch.Generator | None = None) -> None:
        super().__init__(graph, config, generator=generator)
        width = self.config.hidden
        if self.config.form == "original":
            weights = torch.empty(self.config.layers, width, width)
            for weight in weights:
                nn.init.xavier_uniform_(weight, generator=generator)
            self.transform = nn.Parameter(weights)
        released = self.config.form == "released"
        source = graph.normalized_ratings() if released else graph.ratings.with_values(graph.ratings.entry_values())
        rank = min(self.config.rank, *source.shape)
        low_rank = svd_view(source, rank, generator or torch.default_generator)
        # Kept with the weights, so that a loaded model has the very same approximation.
        self.register_buffer("left_factor", low_rank.left * low_rank.singular_values)
        self.register_buffer("right_factor", low_rank.right)

    def make_operator(self, name: str) -> SparseMatrix:
        """``ratings``: the normalised ratings, ``(U, I)``."""
        if name != "ratings":
            raise ValueError(f"there is no operator {name!r}")
        return self.graph.to(self.embedding.device).normalized_ratings(self.embedding.dtype)

    def forward(self) -> tuple[Tensor, Tensor]:
        """User and item embeddings of the graph's branch, without dropout."""
        layers = self.layers()
        return layers.users, layers.items

    def layers(self, *, low_rank: bool = False, dropout: float = 0.0) -> LightGCLLayers:
        """Propagate both branches.

        Args:
            low_rank: whether the second branch is needed; without it G is E and there are no global terms.
            dropout: share of edges left out of each product.
        """
        ratings: Any = self.operator("ratings")
        original = self.config.form == "original"
        users, items = self.split(self.embedding)
        sums, global_sums = [users, items], [users, items]
        local_terms, global_terms = [], []
        for _ in range(self.config.layers):
            local = (
                self._activate(spmm(self._dropped(ratings, dropout), items)),
                self._activate(spmm(self._dropped(ratings, dropout).T, users)),
            )
            if low_rank:
                term = (
                    self._activate(self.left_factor @ (self.right_factor.T @ items)),
                    self._activate(self.right_factor @ (self.left_factor.T @ users)),
                )
                global_terms.append(term)
                global_sums = [total + part for total, part in zip(global_sums, term, strict=True)]
            local_terms.append(local)
            users, items = (local[0] + users, local[1] + items) if original else local
            sums = [sums[0] + users, sums[1] + items]
        both = global_sums if low_rank else sums
        return LightGCLLayers(sums[0], sums[1], both[0], both[1], local_terms, global_terms)

    def _activate(self, values: Tensor) -> Tensor:
        return nn.functional.leaky_relu(values, 0.5) if self.config.form == "original" else values

    def _dropped(self, ratings: SparseMatrix, dropout: float) -> SparseMatrix:
        """Inverted dropout on the values: the pattern, and its cached transpose, stays."""
        if not dropout:
            return ratings
        values = ratings.entry_values()
        kept = torch.rand(values.shape, generator=self.generator, device="cpu").to(values.device) >= dropout
        return ratings.with_values(values * kept / (1.0 - dropout))

    def training_embeddings(self, batch: PairBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        config = self.config
        layers = self.layers(low_rank=bool(config.contrast_weight), dropout=config.dropout)
        if not config.contrast_weight:
            return layers.users, layers.items, {}
        contrast = self._layer_contrast(layers, batch) if config.form == "original" else self._contrast(layers, batch)
        return layers.users, layers.items, {"contrast": config.contrast_weight * contrast}

    def _contrast(self, layers: LightGCLLayers, batch: PairBatch) -> Tensor:
        terms: list[Tensor] = []
        for views, ids in (
            ((layers.global_users, layers.users), batch.users),
            ((layers.global_items, layers.items), batch.positives),
        ):
            anchors, own = (view.index_select(0, ids) for view in views)
            total = pair_logsumexp(anchors, views[1], temperature=self.config.temperature, check=False).logsumexp
            positive = ((anchors * own).sum(1) / self.config.temperature).clamp(-_CLAMP, _CLAMP)
            terms.append((total - positive).sum() / batch.total)
        return terms[0] + terms[1]

    def _layer_contrast(self, layers: LightGCLLayers, batch: PairBatch) -> Tensor:
        """Sum over layers, sides and nodes of the batch, negatives within the batch."""
        touched = batch.positives if batch.negatives is None else torch.cat([batch.positives, batch.negatives])
        ids = torch.unique(batch.users), torch.unique(touched)
        losses = []
        for number, (local, low_rank) in enumerate(zip(layers.local_terms, layers.global_terms, strict=True)):
            for side in range(2):
                anchors = normalize_rows(local[side]).index_select(0, ids[side])
                keys = normalize_rows(low_rank[side]).index_select(0, ids[side]) @ self.transform[number]
                total = pair_logsumexp(anchors, keys, temperature=self.config.temperature, check=False).logsumexp
                losses.append((total - (anchors * keys).sum(1) / self.config.temperature).sum())
        return torch.stack(losses).sum()

    def _ranking(self, users: Tensor, items: Tensor, batch: PairBatch) -> Tensor:
        if self.config.form == "released" or self.config.objective != "bpr" or batch.negatives is None:
            return super()._ranking(users, items, batch)
        gaps = score_gaps(users, items, batch.users, batch.positives, batch.negatives)
        return bpr(gaps, torch.zeros_like(gaps), form="hinge", reduction="sum") / batch.total

    def tables(self) -> list[Tensor]:
        """The embedding table, and the matrices of the original form."""
        return [self.embedding, self.transform] if self.config.form == "original" else [self.embedding]
