"""What forgetting takes out of the data and the weights of a trained pipeline, and what it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphcl.data import IdMap, Split
from graphcl.data.interactions import known_features
from graphcl.data.ranges import offsets_of, places_of
from graphcl.data.read_report import DroppedRows
from graphcl.data.splits import TRAIN
from graphcl.errors import InputError
from graphcl.kernels import SparseMatrix
from graphcl.models.base_embedding import EmbeddingInputs
from graphcl.pipelines.collaborative import CollaborativeRecommender
from graphcl.pipelines.embedding import NodeEmbedder
from graphcl.pipelines.embedding_graphs import EmbeddingGraph
from graphcl.pipelines.ranking import Histories, IntArray, RankingPipeline
from graphcl.pipelines.sequential import SequentialRecommender, history_vectors
from graphcl.pipelines.unlearning_graphs import graph_with_isolated, graph_without, numbers_but

__all__ = ["NodeRemoval", "RankingRemoval", "Removal", "plan_removal", "split_without"]

# Interactions or nodes that stay are many; so many of them are enough to tell what their representations look like.
_MOST_RETAINED = 20_000


class Removal(ABC):
    """Entities to forget in a trained pipeline; nothing here changes the pipeline.

    Attributes:
        before: the trained pipeline.
        data: its data without what is forgotten.
        retained, forgotten: numbers of the samples whose representations stay or go, see :meth:`represent`.
    """

    before: Any
    data: Any
    retained: Tensor
    forgotten: Tensor

    @abstractmethod
    def describe(self) -> dict[str, int]:
        """How much is forgotten, by kind."""

    @abstractmethod
    def represent(self, model: Any, samples: Tensor) -> Tensor:
        """[n, d] representations of samples under the weights of a model of the original size; gradients reach them."""

    def represent_before(self, samples: Tensor) -> Tensor:
        """[n, d] representations of samples under the trained model, with everything that is to be forgotten."""
        return self.represent(self.before._fitted()[0], samples)

    @abstractmethod
    def blank(self) -> Any:
        """A pipeline with the same settings, not trained, that takes :attr:`data`."""

    def own_rows(self, model: Any) -> dict[str, Tensor]:
        """Rows of embedding tables, by parameter, that belong to what is forgotten alone and go with it."""
        return {}

    def carry(self, old: nn.Module, new: nn.Module) -> None:
        """Write the weights of a model of the original size into one that fits :attr:`data`.

        Raises:
            InputError: for a parameter of another shape whose rows are not known.
        """
        weights = dict(old.named_parameters()) | self._carried_buffers(old)
        fresh = dict(new.named_parameters()) | self._carried_buffers(new)
        with torch.no_grad():
            for name, target in fresh.items():
                source, rows = weights[name].detach(), self._rows(name, target)
                if rows is None and source.shape != target.shape:
                    raise InputError(
                        f"the {type(new).__name__} has a table {name} whose rows cannot be told apart",
                        "train again without the data",
                    )
                if rows is None:
                    target.copy_(source)
                else:
                    known = torch.from_numpy(rows >= 0)
                    target[known] = source[torch.from_numpy(rows[rows >= 0])]

    def _carried_buffers(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(model.named_buffers())

    def _rows(self, name: str, table: Tensor) -> IntArray | None:
        """For each row of a table the row of the original that it comes from, -1 for a fresh one; None for all."""
        return None


def plan_removal(pipeline: Any, *, users: Iterable[Any], items: Iterable[Any], nodes: Iterable[Any]) -> Removal:
    """Check what is to be forgotten, and take it out of a copy of the data.

    Raises:
        InputError: nothing or everything is to be forgotten, an id is unknown, the pipeline is not fitted or of a kind
            that cannot forget, or what is left cannot be trained on.
    """
    users, items, nodes = list(users), list(items), list(nodes)
    if isinstance(pipeline, NodeEmbedder):
        if users or items:
            raise InputError("an embedder knows no users and items", "name nodes")
        removal: Removal = NodeRemoval.of(pipeline, nodes)
    elif isinstance(pipeline, CollaborativeRecommender | SequentialRecommender):
        if nodes:
            raise InputError("a recommender knows no nodes", "name users or items")
        removal = RankingRemoval.of(pipeline, users, items)
    else:
        kind = getattr(pipeline, "task", type(pipeline).__name__)
        raise InputError(f"a {kind} run cannot forget", "give a run of a collaborative, sequential or embedding model")
    return removal


def _numbers(known: Mapping[Any, int], wanted: list[Any], what: str) -> IntArray:
    """Numbers of external ids, ascending, each once; text finds the number that it spells."""
    spelled = {str(external): number for external, number in known.items()}
    missing = [external for external in wanted if str(external) not in spelled]
    if missing:
        more = f" ({len(missing)} such)" if len(missing) > 1 else ""
        raise InputError(f"{what} {missing[0]!r} is unknown{more}", f"name {what}s of the data the run was trained on")
    if len({str(external) for external in wanted}) == len(known):
        raise InputError(f"every {what} would be forgotten", "keep some, or delete the run")
    return np.unique(np.array([spelled[str(external)] for external in wanted], dtype=np.int64))


def split_without(split: Split, users: IntArray, items: IntArray) -> Split:
    """The split without some users and items: their rows, their ids and their side features.

    Args:
        split: the whole.
        users, items: internal numbers to take out.

    Returns:
        The rest, renumbered in the same order.

    Complexity: O(E + U + I).

    Example:
        >>> from graphcl.data import Interactions, leave_one_out
        >>> split = leave_one_out(Interactions.from_arrays([1, 1, 1, 2, 2, 2], [5, 6, 7, 7, 6, 5]))
        >>> rest = split_without(split, np.array([0]), np.array([1]))
        >>> rest.interactions, rest.part.tolist()
        (Interactions(1 users, 2 items, 2 interactions), [0, 2])
    """
    rows = split.interactions
    kept_users, kept_items = numbers_but(rows.num_users, users), numbers_but(rows.num_items, items)
    stays = ~np.isin(rows.user, users) & ~np.isin(rows.item, items)
    left = rows.take(stays)
    user_ids = IdMap(rows.user_ids.to_series().gather(kept_users))
    item_ids = IdMap(rows.item_ids.to_series().gather(kept_items))
    forgotten = DroppedRows("forgotten on request", int((~stays).sum()))
    interactions = replace(
        left,
        user=np.searchsorted(kept_users, left.user),
        item=np.searchsorted(kept_items, left.item),
        user_ids=user_ids,
        item_ids=item_ids,
        user_features=known_features(rows.user_features, user_ids),
        item_features=known_features(rows.item_features, item_ids),
        report=replace(rows.report, rows_kept=len(left), dropped=(*rows.report.dropped, forgotten)),
    )
    return Split(interactions, split.part[stays], split.protocol)


@dataclass(frozen=True, eq=False)
class RankingRemoval(Removal):
    """Users and items to forget in a recommender.

    A **sample** of a collaborative model is a user or an item (users first, as the tables stack them), and its
    representation is its propagated vector. The rows that a forgotten one has in the tables vanish with it, so they
    are zero while the model forgets: its representation is then what its neighbours' vectors still say about it.

    A sample of a sequential model is a training interaction that has a predecessor, and its representation is the
    encoder's output there, from which the item is predicted.

    Attributes:
        gone_users, gone_items: internal numbers of what is forgotten.
        users, items: internal numbers of what stays, in the order of the new numbers.
    """

    before: RankingPipeline
    whole: Split
    data: Split
    gone_users: IntArray
    gone_items: IntArray

    @classmethod
    def of(cls, pipeline: RankingPipeline, users: list[Any], items: list[Any]) -> RankingRemoval:
        """Look up the ids, and take them out of a copy of the data."""
        _, split = pipeline._fitted()
        if not users and not items:
            raise InputError("there is nothing to forget", "name users or items")
        if getattr(pipeline, "_vectors", None) is not None:
            raise InputError(
                f"{pipeline.model_name} reads item vectors that may hold the co-occurrences of every user",
                "train again without the data",
            )
        ids = split.interactions.user_ids, split.interactions.item_ids
        gone = [
            _numbers({external: n for n, external in enumerate(known.external.tolist())}, wanted, what)
            for known, wanted, what in zip(ids, (users, items), ("user", "item"), strict=True)
        ]
        data = split_without(split, *gone)
        if not (data.part == TRAIN).any():
            raise InputError("every training interaction would be forgotten", "keep some, or delete the run")
        return cls(pipeline, split, data, *gone)

    def describe(self) -> dict[str, int]:
        rows = self.whole.interactions
        lost = np.isin(rows.user, self.gone_users) | np.isin(rows.item, self.gone_items)
        return {
            "users": int(self.gone_users.size),
            "items": int(self.gone_items.size),
            "interactions": int(lost.sum()),
            "training_interactions": int((lost & (self.whole.part == TRAIN)).sum()),
        }

    @cached_property
    def users(self) -> IntArray:
        return numbers_but(self.whole.interactions.num_users, self.gone_users)

    @cached_property
    def items(self) -> IntArray:
        return numbers_but(self.whole.interactions.num_items, self.gone_items)

    @property
    def _is_sequential(self) -> bool:
        return isinstance(self.before, SequentialRecommender)

    # Samples

    @cached_property
    def _slots(self) -> tuple[Histories, int]:
        """Histories before training interactions of a sequential model, and how many of them, the first, stay."""
        sequences = self.whole.train_sequences()
        user = np.repeat(np.arange(len(sequences)), sequences.lengths)
        place = np.arange(user.size) - sequences.offsets[user]
        gone = np.isin(user, self.gone_users) | np.isin(sequences.items, self.gone_items)
        stays = np.flatnonzero((place > 0) & ~gone)
        if stays.size > _MOST_RETAINED:
            stays = np.sort(np.random.default_rng(0).choice(stays, _MOST_RETAINED, replace=False))
        chosen = np.concatenate([stays, np.flatnonzero((place > 0) & gone)])
        before = sequences.items[places_of(sequences.offsets[user[chosen]], place[chosen])]
        return Histories(offsets_of(place[chosen]), before), stays.size

    @cached_property
    def retained(self) -> Tensor:  # type: ignore[override]
        if self._is_sequential:
            return torch.arange(self._slots[1])
        return torch.from_numpy(np.concatenate([self.users, self.whole.interactions.num_users + self.items]))

    @cached_property
    def forgotten(self) -> Tensor:  # type: ignore[override]
        if self._is_sequential:
            return torch.arange(self._slots[1], self._slots[0].lengths.size)
        return torch.from_numpy(np.concatenate([self.gone_users, self.whole.interactions.num_users + self.gone_items]))

    def represent(self, model: Any, samples: Tensor) -> Tensor:
        if self._is_sequential:
            chosen = self._slots[0].select(samples.numpy())
            return history_vectors(model, chosen.items, chosen.offsets)
        return torch.cat(model())[samples]

    def own_rows(self, model: Any) -> dict[str, Tensor]:
        if self._is_sequential:
            return {}
        heights = self.whole.interactions.num_users, self.whole.interactions.num_items
        rows = {}
        for name, _ in model.named_parameters():
            layout = _layout(name)
            if layout is not None:
                rows[name] = torch.from_numpy(_in_table(layout, self.gone_users, self.gone_items, *heights))
        return rows

    # Weights

    def blank(self) -> RankingPipeline:
        fresh = self.before.from_config(self.before.get_config())
        if isinstance(self.before, CollaborativeRecommender) and isinstance(fresh, CollaborativeRecommender):
            fresh._blocks = {name: _rows_of_block(block, self.items) for name, block in self.before._blocks.items()}
            fresh._unknown_rows = dict(self.before._unknown_rows)
        return fresh

    def _carried_buffers(self, model: nn.Module) -> dict[str, Tensor]:
        # Those of collaborative models are made from the graph; the new graph has its own.
        return super()._carried_buffers(model) if self._is_sequential else {}

    def _rows(self, name: str, table: Tensor) -> IntArray | None:
        layout = _layout(name)
        if layout is None:
            return None
        users, items = self._surviving(self.users, "user"), self._surviving(self.items, "item")
        rows = _in_table(layout, users, items, self.whole.interactions.num_users, self.whole.interactions.num_items)
        if layout != "padded":
            return rows
        masks = table.shape[0] - 1 - items.size  # rows after the items: a mask token, or none
        return np.concatenate([[0], rows, self.whole.interactions.num_items + 1 + np.arange(masks)])

    def _surviving(self, kept: IntArray, role: str) -> IntArray:
        """The kept users or items, -1 for one that nothing but forgotten interactions has trained."""
        rows = self.whole.train
        size = rows.num_users if role == "user" else rows.num_items
        left = ~np.isin(rows.user, self.gone_users) & ~np.isin(rows.item, self.gone_items)
        index = getattr(rows, role)
        had, has = np.bincount(index, minlength=size) > 0, np.bincount(index[left], minlength=size) > 0
        return np.where((had & ~has)[kept], -1, kept)


def _layout(name: str) -> str | None:
    """What the rows of a parameter stand for, by its name; None when they stand for no user or item."""
    known = {"embedding": "stacked", "user_second": "users", "item_second": "items"}
    return "padded" if name.endswith("item_embedding.weight") else known.get(name)


def _in_table(layout: str, users: IntArray, items: IntArray, num_users: int, num_items: int) -> IntArray:
    """Rows of users and items in a table; -1 stays -1."""
    if layout == "users":
        return users
    if layout == "items":
        return items
    if layout == "padded":
        return np.where(items < 0, -1, items + 1)
    return np.concatenate([users, np.where(items < 0, -1, items + num_users)])


def _rows_of_block(block: SparseMatrix, items: IntArray) -> SparseMatrix:
    """A block of the item hypergraph for the items that stay; nearest-neighbour lists keep only their hyperedges."""
    rows, columns = block.pattern.rows.numpy(), block.columns.numpy()
    stays = np.isin(rows, items)
    width = block.shape[1]
    # A hyperedge of nearest-neighbour lists is an item, and each item that has a vector is its own neighbour.
    own = np.zeros(block.shape[0], dtype=bool)
    own[rows[rows == columns]] = True
    if block.shape[0] == block.shape[1] and own[np.unique(rows)].all():
        stays &= np.isin(columns, items)
        columns, width = np.searchsorted(items, columns), items.size
    return SparseMatrix.from_coo(
        torch.from_numpy(np.searchsorted(items, rows)[stays]),
        torch.from_numpy(np.asarray(columns)[stays]),
        shape=(int(items.size), int(width)),
        check=False,
    )


@dataclass(frozen=True, eq=False)
class NodeRemoval(Removal):
    """Nodes to forget in an embedder; a sample is a node, and its representation its embedding.

    The trained model saw the edges of what is forgotten. They vanish, so while the model forgets it sees the graph in
    which these nodes have their features and no edge: their representation is what the weights alone say about them.

    Attributes:
        whole: the graph as it was.
        gone: numbers of the nodes to forget.
        nodes: those of the nodes that stay.
    """

    before: NodeEmbedder
    whole: EmbeddingGraph
    data: EmbeddingGraph
    gone: IntArray

    @classmethod
    def of(cls, embedder: NodeEmbedder, nodes: list[Any]) -> NodeRemoval:
        """Look up the ids, and take them out of a copy of the graph."""
        _, whole = embedder._fitted()
        if not nodes:
            raise InputError("there is nothing to forget", "name nodes")
        gone = _numbers({external: n for n, external in enumerate(whole.ids.to_list())}, nodes, "node")
        return cls(embedder, whole, graph_without(whole, gone), gone)

    def describe(self) -> dict[str, int]:
        lost = self.whole.num_edges - self.data.num_edges
        return {"nodes": int(self.gone.size), "edges": int(lost)}

    @cached_property
    def nodes(self) -> IntArray:
        return numbers_but(self.whole.num_nodes, self.gone)

    @cached_property
    def retained(self) -> Tensor:  # type: ignore[override]
        if self.nodes.size <= _MOST_RETAINED:
            return torch.from_numpy(self.nodes)
        return torch.from_numpy(np.random.default_rng(0).choice(self.nodes, _MOST_RETAINED, replace=False))

    @cached_property
    def forgotten(self) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(self.gone)

    @cached_property
    def isolated(self) -> EmbeddingInputs:
        """Inputs of a model on the graph in which what is forgotten has no edge."""
        embedder = self.before
        generator = torch.Generator().manual_seed(embedder.settings.seed)
        graph = graph_with_isolated(self.whole, self.gone)
        inputs: EmbeddingInputs = embedder.model_class.prepare(graph, embedder.model_config, generator=generator)
        return inputs

    def represent(self, model: Any, samples: Tensor) -> Tensor:
        return self._embedded(model, samples, self.isolated)

    def represent_before(self, samples: Tensor) -> Tensor:
        return self._embedded(self.before._fitted()[0], samples, self.before._prepared())

    def _embedded(self, model: Any, samples: Tensor, inputs: EmbeddingInputs) -> Tensor:
        config = self.before.model_config
        if getattr(config, "batch_size", None) is None:
            z: Tensor = model.embed(inputs.full())
            return z[samples]
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
        parts = [
            model.embed(inputs.batch(part, fanout=tuple(config.fanout), generator=generator))
            for part in torch.split(samples, config.batch_size)
        ]
        return torch.cat(parts)

    def blank(self) -> NodeEmbedder:
        fresh = self.before.from_config(self.before.get_config())
        fresh._resolve(self.data.name)
        return fresh
