"""Training steps over the nodes of a graph: all of them at once, or some with the rows of the graph that they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from graphcl.graphs.sampling import sampled_rows, take_rows
from graphcl.kernels import SparseMatrix
from graphcl.models.base_clustering import ClusteringBatch

__all__ = ["FullGraph", "NodeBatches", "node_batch"]


@dataclass
class FullGraph:
    """An epoch of one step: every node is an anchor, nothing is sampled.

    Args:
        batch: the step.
    """

    batch: ClusteringBatch

    def keep_on(self, device: torch.device) -> None:
        """Move the step to a device, once for all epochs."""
        self.batch = self.batch.to(device)

    @property
    def num_targets(self) -> int:
        """Nodes of the graph."""
        return self.batch.num_anchors

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[ClusteringBatch]:
        """The one step."""
        yield self.batch


@dataclass(frozen=True)
class NodeBatches:
    """Epochs that visit every node once as an anchor, in a new order each time.

    Args:
        x: ``[N, f]`` features.
        influence: ``[N, N]``; the rows of a step's anchors go with it whole.
        propagation: ``[N, N]`` operator of an encoder that passes messages, None for one that does not.
        batch_size: anchors a step.
        fanout: most neighbours a node, one entry for each layer of messages, the layer nearest to the anchors first;
            None for all of them.
        seed: of the order and of the neighbours, together with the number of the epoch.
    """

    x: Tensor
    influence: SparseMatrix
    propagation: SparseMatrix | None
    batch_size: int
    fanout: Sequence[int | None] = ()
    seed: int = 0
    _positions: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_positions", torch.full((self.x.shape[0],), -1, dtype=torch.int64))

    @property
    def num_targets(self) -> int:
        """Nodes of the graph."""
        return self.x.shape[0]

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[ClusteringBatch]:
        """The steps of an epoch: a function of (seed, epoch)."""
        seed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.num_targets, generator=generator)
        for start in range(0, self.num_targets, self.batch_size):
            yield node_batch(
                self.x,
                self.influence,
                order[start : start + self.batch_size],
                propagation=self.propagation,
                fanout=self.fanout,
                generator=generator,
                positions=self._positions,
            )


def node_batch(
    x: Tensor,
    influence: SparseMatrix,
    anchors: Tensor,
    *,
    propagation: SparseMatrix | None = None,
    fanout: Sequence[int | None] = (),
    generator: torch.Generator | None = None,
    positions: Tensor | None = None,
) -> ClusteringBatch:
    r"""Some anchors with their whole influence rows, and the features and neighbours that these need.

    For an encoder that passes L messages the neighbourhood is followed L steps from the anchors and from their
    influence columns. Of a row with more than k entries k are drawn and weighted by deg / k, so that its sum keeps its
    expectation (W. Hamilton, R. Ying, J. Leskovec, "Inductive Representation Learning on Large Graphs", 2017,
    https://arxiv.org/abs/1706.02216). Without a bound the anchors' embeddings are exactly those of the whole graph.

    Args:
        x: ``(N, f)``.
        influence: ``(N, N)``.
        anchors: ``(B,)`` distinct nodes.
        propagation: ``(N, N)`` operator of the encoder.
        fanout: most neighbours a node for each of the L layers, nearest to the anchors first; None for all.
        generator: draws the neighbours.
        positions: ``(N,)`` filled with -1, used as scratch space and returned to that state; saves allocating it.

    Returns:
        The batch: anchors first, then the other rows they need.

    Complexity: O(rows and entries that are needed), and O(N) where ``positions`` is not given.

    Example:
        >>> loops = SparseMatrix.from_coo(torch.arange(3), torch.tensor([1, 2, 0]), shape=(3, 3))
        >>> batch = node_batch(torch.eye(3), loops, torch.tensor([2]))
        >>> batch.x.argmax(1), batch.influence.columns
        (tensor([2, 0]), tensor([1]))
    """
    local = torch.full((x.shape[0],), -1, dtype=torch.int64) if positions is None else positions
    nodes = anchors

    def enter(found: Tensor) -> Tensor:
        """Number the nodes that have no number yet, in the order of the others, and return them."""
        nonlocal nodes
        new: Tensor = torch.unique(found[local[found] < 0])
        local[new] = torch.arange(nodes.shape[0], nodes.shape[0] + new.shape[0])
        nodes = torch.cat([nodes, new])
        return new

    local[anchors] = torch.arange(anchors.shape[0])
    rows = take_rows(influence, anchors)
    frontier = torch.cat([anchors, enter(rows.columns)])
    parts: list[SparseMatrix] = []
    if propagation is not None:
        for bound in fanout:
            part = _thinned(take_rows(propagation, frontier), bound, generator)
            parts.append(part)
            frontier = enter(part.columns)
    batch = ClusteringBatch(
        x=x[nodes],
        graph=None if propagation is None else _renumbered(parts, local, nodes.shape[0]),
        influence=SparseMatrix(
            rows.row_offsets, local[rows.columns], rows.values, (anchors.shape[0], nodes.shape[0]), check=False
        ),
        num_anchors=anchors.shape[0],
        phase="cluster",
        cluster_mass=None,
        total=float(anchors.shape[0]),
    )
    local[nodes] = -1
    return batch


def _thinned(rows: SparseMatrix, bound: int | None, generator: torch.Generator | None) -> SparseMatrix:
    """At most ``bound`` entries a row, weighted so that the sum of the row keeps its expectation."""
    drawn = sampled_rows(rows, bound, generator=generator)
    if drawn is rows:
        return rows
    before, after = rows.row_offsets.diff(), drawn.row_offsets.diff()
    return drawn.scale(rows=before.to(drawn.entry_values().dtype) / after.clamp(min=1))


def _renumbered(parts: Sequence[SparseMatrix], local: Tensor, size: int) -> SparseMatrix:
    """Rows of all layers below each other with local columns; nodes of the last layer pass nothing on: empty rows."""
    counts = torch.cat([part.row_offsets.diff() for part in parts])
    offsets = torch.zeros(size + 1, dtype=torch.int64)
    offsets[1 : counts.shape[0] + 1] = counts.cumsum(0)
    offsets[counts.shape[0] + 1 :] = offsets[counts.shape[0]]
    columns = local[torch.cat([part.columns for part in parts])]
    values = None if parts[0].values is None else torch.cat([part.entry_values() for part in parts])
    return SparseMatrix(offsets, columns, values, (size, size), check=False)
