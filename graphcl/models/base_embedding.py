"""What a node-embedding model takes and gives, on homogeneous and heterogeneous graphs; one pipeline trains them all.

A model is parameters only. What it needs of a graph is prepared once, as inputs, and handed to it by batches: the whole
graph as one batch, or some nodes with sampled neighbourhoods. Both have one type, so that a method is written once and
the batch of all nodes with all neighbours is the full-batch form itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from graphcl.models.settings import ModelConfig

__all__ = ["EmbeddingInputs", "EmbeddingModel", "NodeBatch", "Preset"]

Inputs = TypeVar("Inputs", bound="EmbeddingInputs")


class NodeBatch(Protocol):
    """One training step: nodes that carry the loss, and what their embeddings are computed from.

    Attributes:
        nodes: (B,) their numbers in the graph; B is all of them for a full batch.
        total: what a summed loss would be divided by; B unless processes share the step.
    """

    @property
    def nodes(self) -> Tensor: ...

    @property
    def total(self) -> float: ...

    def to(self, device: torch.device | str) -> NodeBatch:
        """The same batch on another device."""


class EmbeddingInputs(Protocol):
    """A graph in the form a model works on: operators, features, positives.

    Attributes:
        num_nodes: nodes that get an embedding (the target type of a heterogeneous graph).
    """

    @property
    def num_nodes(self) -> int: ...

    def full(self) -> NodeBatch:
        """All nodes, one step an epoch. The same object every time."""

    def batch(
        self, nodes: Tensor, *, fanout: Sequence[int | None] = (None, None), generator: torch.Generator | None = None
    ) -> NodeBatch:
        """Some nodes with their neighbourhoods.

        Args:
            nodes: (B,) distinct nodes.
            fanout: most neighbours a node, nearest layer first; None for all of them.
            generator: draws them.
        """


@runtime_checkable
class EmbeddingModel(Protocol):
    """What the embedding pipeline needs of a model (an ``nn.Module`` as well).

    Attributes:
        config_class: settings.
        data_kind: what `prepare` takes: PyG ``Data`` or ``HeteroData``.
        presets: settings by data set name; ``"default"`` is for all others.
    """

    config_class: ClassVar[type[ModelConfig]]
    data_kind: ClassVar[Literal["graph", "heterogeneous"]]
    presets: ClassVar[Mapping[str, Preset]]

    @classmethod
    def prepare(cls, graph: Any, config: Any, *, generator: torch.Generator | None = None) -> Any:
        """`EmbeddingInputs` of a graph; the same for the same generator state."""

    @classmethod
    def from_inputs(cls, inputs: Any, config: Any, *, generator: torch.Generator | None = None) -> EmbeddingModel:
        """A model that fits these inputs, with initial weights drawn from the generator."""

    def objective(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and its parts by name. Dropout and draws follow torch's default generator."""

    def embed(self, batch: Any) -> Tensor:
        """(B, d) embeddings of ``batch.nodes``; call it in evaluation mode and without gradients."""

    def on_epoch_start(self, epoch: int, generator: torch.Generator | None = None) -> None:
        """Called before the batches of every epoch."""


@dataclass(frozen=True)
class Preset:
    """Settings that belong together for one data set, from a method's reference code.

    Attributes:
        model: settings of the model that differ from its defaults.
        learning_rate, weight_decay: of Adam.
        epochs: most epochs.
        stop: ``loss`` (after ``patience`` epochs without a lower training loss) or ``never``.
        patience: see ``stop``.
        min_epochs: patience ends nothing before so many epochs.
        keep: which weights training ends with: those of the ``last`` epoch or of the ``best`` (lowest loss).
        probe_learning_rate, probe_weight_decay: of the linear probe in the papers' protocol.

    >>> Preset(learning_rate=1e-3, epochs=10).stop
    'loss'
    """

    learning_rate: float
    epochs: int
    model: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.0
    stop: Literal["loss", "never"] = "loss"
    patience: int = 20
    min_epochs: int = 0
    keep: Literal["last", "best"] = "last"
    probe_learning_rate: float = 0.01
    probe_weight_decay: float = 0.0
