"""MMHCL: first-order embeddings of the user-item graph tied to second-order ones of two hypergraphs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.functional import synergistic_contrastive
from graphcl.graphs import BipartiteGraph, PropagationOperator
from graphcl.kernels import FactoredMatrix, SparseMatrix, normalize_rows, shared_hyperedge_operator
from graphcl.models.base_collaborative import (
    CollaborativeConfig,
    CollaborativeModel,
    GraphModelConfig,
    PairBatch,
    Regularizer,
)
from graphcl.nn import LightGCNConv

__all__ = ["MMHCL", "MMHCLConfig", "MMHCLEmbeddings"]


class MMHCLConfig(GraphModelConfig):
    """Settings of :class:`MMHCL`; the defaults are those of the code, tuned for TikTok.

    Args:
        layers: first-order layers on the user-item graph.
        user_layers: second-order layers on the user hypergraph.
        item_layers: second-order layers on the item hypergraph.
        user_weight: weight of the users' contrast (alpha); 0 takes the user hypergraph away.
        item_weight: weight of the items' contrast (beta); 0, or no item hypergraph, takes that branch away.
        temperature: of both contrasts.
        contrast: what is contrasted with the second-order embedding: the ``fused`` one (code) or the ``first_order``
            one (abstract and figure of the paper).
        anchors: users and items that are drawn for each contrast a step; None computes it for all, as the code does.
        cold_items: at inference an item without training interaction takes its first-order part from the items that
            share its ``hyperedges``, or keeps its ``own``, never trained upwards (code).
        neighbours: k of the nearest-neighbour lists that the item hypergraph is built from.

    Example:
        >>> MMHCLConfig(anchors=256).contrast
        'fused'
    """

    layers: PositiveInt = 2
    regularizer: Regularizer = "final_rows"
    regularization: NonNegativeFloat = 1e-3
    user_layers: PositiveInt = 3
    item_layers: PositiveInt = 2
    user_weight: NonNegativeFloat = 0.03
    item_weight: NonNegativeFloat = 0.07
    temperature: PositiveFloat = 0.6
    contrast: Literal["fused", "first_order"] = "fused"
    anchors: PositiveInt | None = None
    cold_items: Literal["hyperedges", "own"] = "hyperedges"
    neighbours: PositiveInt = 5


class MMHCLEmbeddings(NamedTuple):
    """Embeddings of one pass.

    Args:
        users, items: fused, for ranking: ``(U, d)`` and ``(I, d)``.
        first_users, first_items: first-order part.
        second_users, second_items: hypergraph part as propagated, or None where that branch is off.
    """

    users: Tensor
    items: Tensor
    first_users: Tensor
    first_items: Tensor
    second_users: Tensor | None
    second_items: Tensor | None


class MMHCL(CollaborativeModel):
    r"""MMHCL: users who share items and items whose features are alike form hypergraphs beside the user-item graph.

    Paper: Guo et al., "MMHCL: Multi-Modal Hypergraph Contrastive Learning for Recommendation", 2025,
    https://arxiv.org/abs/2504.16576.

    .. math:: u = e_u + \frac{h_u}{|h_u|}, \quad h_u = M_u^{L_u} H_u, \quad
        M_u = D^{-1} (R R^T - \mathrm{diag}), \qquad
        i = e_i + \frac{h_i}{|h_i|}, \quad h_i = M_i^{L_i} H_i, \quad M_i = D^{-1/2} B B^T D^{-1/2}

    where e is LightGCN's mean over layers, R the training ratings and B the incidence of the item hypergraph (column
    (m, j): items that count j among their k nearest in modality m). The loss is BPR, the squared fused rows, and
    `graphcl.functional.synergistic_contrastive` of users and of items. Both products stay factored. Deviation: with
    ``cold_items="hyperedges"`` items that training never met are ranked through their hyperedges alone.

    Args:
        graph: training interactions.
        config: settings; the defaults when None.
        item_incidence: B, ``(I, hyperedges)``, values or none; None leaves the items to the user-item graph.
        generator: source of the initial weights.

    Raises:
        ValueError: an incidence that does not have a row an item.

    Complexity: a step takes O((L E + L_u E + L_i nnz(B)) d) time for propagation and O((A_u U + A_i I) d) for the
    contrasts of A_u and A_i anchors, in memory O((U + I) d) beside the structures.

    Example:
        >>> model = MMHCL(BipartiteGraph.from_arrays([0, 0, 1], [0, 1, 1]), MMHCLConfig(hidden=4))
        >>> batch = PairBatch(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([1, 0]), None, total=2)
        >>> sorted(model.objective(batch)[1])
        ['bpr', 'regularization', 'user_contrast']
    """

    config_class: ClassVar[type[CollaborativeConfig]] = MMHCLConfig
    recommended: ClassVar[Mapping[str, Any]] = {
        "batch_size": 1024,
        "learning_rate": 1e-4,
        "learning_rate_decay": 0.96 ** (1 / 50),
        "sampling": "user",
    }
    uses_item_hypergraph: ClassVar[bool] = True
    is_cold: Tensor

    def __init__(
        self,
        graph: BipartiteGraph,
        config: Any = None,
        *,
        item_incidence: SparseMatrix | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(graph, config, generator=generator)
        if item_incidence is not None and item_incidence.shape[0] != self.num_items:
            raise ValueError(f"item_incidence must have {self.num_items} rows, got {item_incidence.shape[0]}")
        self.item_incidence = item_incidence
        self.convolution = LightGCNConv(
            self.config.layers, reduce=self.config.reduce, include_ego=self.config.include_ego
        )
        self.has_users = self.config.user_weight > 0
        self.has_items = self.config.item_weight > 0 and item_incidence is not None
        self.user_second = nn.Parameter(self._xavier((self.num_users,), generator)) if self.has_users else None
        self.item_second = nn.Parameter(self._xavier((self.num_items,), generator)) if self.has_items else None
        met = torch.zeros(self.num_items, dtype=torch.bool)
        met[graph.item] = True
        self.register_buffer("is_cold", ~met, persistent=False)

    def rewired(self, item_incidence: SparseMatrix | None) -> MMHCL:
        """The model with the same weights on another item hypergraph, or on none; for analysis, not for training.

        Args:
            item_incidence: ``(I, hyperedges)``, or None to rank items by their first-order part.

        Raises:
            ValueError: an incidence for a model that was trained without, or of another height.
        """
        if item_incidence is not None and (not self.has_items or item_incidence.shape[0] != self.num_items):
            raise ValueError(f"item_incidence must have {self.num_items} rows and the model an item hypergraph")
        other = copy.copy(self)
        other.item_incidence, other.has_items, other._operators = item_incidence, item_incidence is not None, {}
        return other

    def make_operator(self, name: str) -> PropagationOperator:
        """``adjacency``, ``users`` (M_u) or ``items`` (M_i)."""
        if name == "users":
            return user_operator(self.graph.to(self.embedding.device), self.embedding.dtype)
        if name == "items" and self.item_incidence is not None:
            incidence = self.item_incidence.to(self.embedding.device)
            typed = incidence.with_values(incidence.entry_values().to(self.embedding.dtype))
            return shared_hyperedge_operator(typed, normalization="symmetric", keep_diagonal=True)
        return super().make_operator(name)

    def embeddings(self) -> MMHCLEmbeddings:
        """First-order, second-order and fused embeddings, as trained."""
        first_users, first_items = self.split(self.convolution(self.embedding, self.operator()))
        second_users = self._propagated(self.user_second, "users", self.config.user_layers)
        item_table = self.item_second if self.has_items else None
        second_items = self._propagated(item_table, "items", self.config.item_layers)
        return MMHCLEmbeddings(
            first_users if second_users is None else first_users + normalize_rows(second_users),
            first_items if second_items is None else first_items + normalize_rows(second_items),
            first_users,
            first_items,
            second_users,
            second_items,
        )

    def _propagated(self, table: Tensor | None, operator: str, layers: int) -> Tensor | None:
        if table is None:
            return None
        for _ in range(layers):
            table = self.operator(operator) @ table
        return table

    def forward(self) -> tuple[Tensor, Tensor]:
        """Fused user and item embeddings; cold items as ``cold_items`` says."""
        both = self.embeddings()
        if both.second_items is None or self.config.cold_items == "own" or not bool(self.is_cold.any()):
            return both.users, both.items
        incidence = self.item_incidence
        if incidence is None:
            return both.users, both.items
        return both.users, first_order_of_neighbours(both, incidence.to(both.items.device), self.is_cold)

    def training_embeddings(self, batch: PairBatch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        both, config = self.embeddings(), self.config
        parts = {}
        for name, weight, fused, first, second in (
            ("user_contrast", config.user_weight, both.users, both.first_users, both.second_users),
            ("item_contrast", config.item_weight, both.items, both.first_items, both.second_items),
        ):
            if second is not None:
                view = fused if config.contrast == "fused" else first
                parts[name] = weight * synergistic_contrastive(
                    view, second, anchors=self._anchors(view), temperature=config.temperature
                )
        return both.users, both.items, parts

    def _anchors(self, view: Tensor) -> Tensor | None:
        wanted = self.config.anchors
        if wanted is None or wanted >= view.shape[0]:
            return None
        return torch.randint(view.shape[0], (wanted,), generator=self.generator).to(view.device)

    def tables(self) -> list[Tensor]:
        """The first-order table and those of the hypergraphs that are on."""
        return [table for table in (self.embedding, self.user_second, self.item_second) if table is not None]


def user_operator(graph: BipartiteGraph, dtype: torch.dtype | None = None) -> FactoredMatrix:
    """Random walk between users who share items, ``D^-1 (R R^T - diag)``, never formed; O(E) to build.

    >>> user_operator(BipartiteGraph.from_arrays([0, 1, 2], [0, 0, 1])).to_dense()
    tensor([[0., 1., 0.],
            [1., 0., 0.],
            [0., 0., 0.]])
    """
    ratings = graph.ratings if graph.weight is None else graph.ratings.with_values(None)
    typed = ratings.with_values(ratings.entry_values().to(dtype or torch.get_default_dtype()))
    return shared_hyperedge_operator(typed, normalization="row", keep_diagonal=False)


def first_order_of_neighbours(both: MMHCLEmbeddings, incidence: SparseMatrix, is_cold: Tensor) -> Tensor:
    """Item embeddings in which cold items have the mean first-order part of the met items that share hyperedges.

    A cold item that shares none with a met item has its second-order part alone.

    Args:
        both: embeddings of one pass.
        incidence: ``(I, hyperedges)``.
        is_cold: ``(I,)`` bool.

    Returns:
        ``(I, d)``.

    Complexity: O(nnz(incidence) d).

    >>> rows = SparseMatrix.from_coo(torch.tensor([0, 1]), torch.tensor([0, 0]), shape=(2, 1))
    >>> one = torch.tensor([[3.0], [5.0]])
    >>> first_order_of_neighbours(MMHCLEmbeddings(one, one, one, one, one, one), rows, torch.tensor([False, True]))
    tensor([[3.],
            [4.]])
    """
    if both.second_items is None:
        return both.items
    typed = incidence.with_values(incidence.entry_values().to(both.items.dtype))
    shared = FactoredMatrix([typed, typed.T])
    met = (~is_cold).to(both.items.dtype).unsqueeze(1)
    weight = shared @ met
    lent = (shared @ (met * both.first_items)) / torch.where(weight > 0, weight, torch.ones_like(weight))
    return torch.where(is_cold.unsqueeze(1), lent + normalize_rows(both.second_items), both.items)
