"""What a clustering model takes and gives, so that one pipeline trains them all; and what SCGC and PamC share."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.functional import assignment_divergence, scgc
from graphcl.graphs import influence_matrix, link_sparse_nodes, smooth_features
from graphcl.kernels import SparseMatrix, normalize_rows, normalize_symmetric
from graphcl.models.settings import ModelConfig, Rate, Share
from graphcl.nn.assignment import SinkhornPrototypes, StudentT
from graphcl.nn.encoders import MLP, GraphEncoder, SmoothedEncoder

__all__ = ["ClusteringBatch", "ClusteringConfig", "ClusteringModel", "ContrastiveClustering", "kmeans_centers"]

Phase = Literal["warmup", "cluster"]

# Above so many nodes, comparing rows with all others would cost more than the training.
_COMPLETED_NODES = 50_000
# k-means looks at so many rows at most; its centres do not get better from more.
_KMEANS_ROWS = 50_000


@dataclass(frozen=True)
class ClusteringBatch:
    """One training step: nodes whose losses count, and the rows that their encoding and their positives need.

    Args:
        x: ``(n, f)`` prepared features, those of the anchors first.
        influence: ``(num_anchors, n)`` positives of the anchors; the columns are rows of ``x``.
        graph: ``(n, n)`` what the encoder passes messages over; None where it passes none.
        num_anchors: how many rows are anchors; n in a full batch.
        phase: ``warmup`` before the clusters exist, ``cluster`` after.
        cluster_mass: ``(K,)`` sum of the soft assignments of all nodes, where the anchors are only some of them.
        total: the number of anchors of the step, shared out among the processes.
    """

    x: Tensor
    influence: SparseMatrix
    graph: SparseMatrix | None
    num_anchors: int
    phase: Phase
    cluster_mass: Tensor | None
    total: float

    def to(self, device: torch.device | str) -> ClusteringBatch:
        """The same batch on another device."""
        return replace(
            self,
            x=self.x.to(device),
            influence=self.influence.to(torch.device(device)),
            graph=None if self.graph is None else self.graph.to(torch.device(device)),
            cluster_mass=None if self.cluster_mass is None else self.cluster_mass.to(device),
        )


@runtime_checkable
class ClusteringModel(Protocol):
    """What the clustering pipeline needs of a model (an ``nn.Module`` as well)."""

    config_class: ClassVar[type[ModelConfig]]
    recommended: ClassVar[Mapping[str, Any]]

    @property
    def needs_graph(self) -> bool:
        """Whether `encode` passes messages, so that a mini-batch needs the neighbours of its rows."""

    @property
    def num_hops(self) -> int:
        """How many steps away `encode` looks; 0 where it passes no messages."""

    def prepare_graph(self, x: Tensor, adjacency: SparseMatrix) -> SparseMatrix:
        """``(N, N)`` the graph that the three methods below work on, computed once."""

    def prepare_features(self, x: Tensor, adjacency: SparseMatrix) -> Tensor:
        """``(N, f)`` features as the encoder takes them, computed once."""

    def influence(self, adjacency: SparseMatrix) -> SparseMatrix:
        """``(N, N)`` positives, computed once."""

    def propagation(self, adjacency: SparseMatrix) -> SparseMatrix | None:
        """What the encoder passes messages over, computed once; None where it passes none."""

    def encode(self, x: Tensor, graph: SparseMatrix | None = None) -> Tensor:
        """``(n, d)`` embeddings of prepared rows."""

    def soft_assignment(self, z: Tensor) -> Tensor:
        """``(n, K)`` memberships, rows sum to 1; the largest is the cluster."""

    def initialize_clusters(self, z: Tensor, seed: int) -> None:
        """Set the clusters from the embeddings of all nodes, after the warm-up."""

    def objective(self, batch: ClusteringBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise in the phase of the batch, and its parts by name."""


class ClusteringConfig(ModelConfig):
    """Settings that SCGC and PamC share.

    Args:
        encoder: ``mlp`` (the papers'), ``sgc`` (an MLP on smoothed features), ``appnp`` (an MLP with smoothed output),
            ``gcn``, or the name of a convolution of PyG such as ``SAGEConv``.
        widths: of the hidden layers and the embedding. The papers use (500, 500, 2000, 10).
        features: lengths of the feature rows, and of the smoothed rows, are made 1 (``l2``), after words got their
            inverse document frequency (``idf``), their absolute sums are made 1 (``l1``), or they stay as they are
            (``none``). ``auto`` is ``idf`` for bags of words (see `is_bag_of_words`) and ``l2`` for everything else.
            Zero rows stay zero.
        min_neighbors: nodes with fewer neighbours are linked with the most similar rows (see
            `graphcl.graphs.link_sparse_nodes`); 0 keeps the graph. Graphs above 50,000 nodes are always kept.
        steps: of smoothing, for ``sgc`` and ``appnp``.
        restart: of ``appnp``.
        dropout: rate in front of every layer.
        order: steps of the random walk that make nodes positives.
        accumulate: sum the powers of the walk up to ``order``; False takes the last alone.
        max_entries: most positives a node; None for all.
        temperature: divides the cosines of the contrast; the papers multiply by its inverse.
        contrast_weight, kl_weight: of the two terms while clustering (alpha and beta of the papers).
        assignment: ``student_t`` (the papers') or ``sinkhorn`` (prototypes with balanced codes).
        radius: of the sphere on which the Student t kernel compares rows with centres; None compares raw rows, as the
            papers do.
        warmup: what is trained before k-means sets the clusters: ``contrast`` (nodes against nodes), ``autoencoder``
            (as in the papers) or ``none``.
        warmup_temperature: of that contrast.
        negatives: where nodes are contrasted with nodes, so many are drawn a step to stand for all; all where there
            are no more.

    Example:
        >>> ClusteringConfig(widths=[64]).widths
        (64,)
    """

    encoder: str = "sgc"
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 64)
    features: Literal["auto", "idf", "l2", "l1", "none"] = "auto"
    min_neighbors: NonNegativeInt = 5
    steps: NonNegativeInt = 2
    restart: Share = 0.1
    dropout: Rate = 0.0
    order: PositiveInt = 2
    accumulate: bool = True
    max_entries: PositiveInt | None = 32
    temperature: PositiveFloat = 1.0
    contrast_weight: NonNegativeFloat = 1.0
    kl_weight: NonNegativeFloat = 1.0
    assignment: Literal["student_t", "sinkhorn"] = "student_t"
    radius: PositiveFloat | None = 4.0
    warmup: Literal["contrast", "autoencoder", "none"] = "contrast"
    warmup_temperature: PositiveFloat = 1.0
    negatives: PositiveInt = 1024

    @field_validator("encoder")
    @classmethod
    def _known_encoder(cls, value: str) -> str:
        """Refuse names of no encoder before any training."""
        if value not in ("mlp", "sgc", "appnp"):
            GraphEncoder((1, 1), conv=value)
        return value


class ContrastiveClustering(nn.Module, ABC):
    r"""Embeddings trained by a contrast of neighbours and by their own sharpened soft assignment.

    .. math:: L = \alpha L_\text{contrast} + \beta \operatorname{mean}_i \operatorname{KL}(p_i \| q_i)
        + \gamma \operatorname{mean} (\hat x - x)^2

    A subclass says what is contrasted while clustering. Before, during the warm-up, neighbours are contrasted with all
    nodes, so that k-means finds clusters without anyone's pretrained weights.

    Args:
        num_features: f.
        num_clusters: K, at least 1.
        config: the defaults when None.
        generator: draws the initial weights; torch's own when None (and for convolutions of PyG always).

    Raises:
        ValueError: sizes below 1.
    """

    config_class: ClassVar[type[ClusteringConfig]] = ClusteringConfig
    #: Settings of the pipeline that go with the model's defaults.
    recommended: ClassVar[Mapping[str, Any]] = {"epochs": 100, "warmup_epochs": 40, "learning_rate": 1e-3}

    def __init__(
        self,
        num_features: int,
        num_clusters: int,
        config: ClusteringConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1 or num_clusters < 1:
            raise ValueError(f"num_features and num_clusters must be at least 1, got {num_features}, {num_clusters}")
        self.config = config = config or self.config_class()
        self.num_clusters = num_clusters
        widths = (num_features, *config.widths)
        self.encoder = _encoder(config, widths, generator)
        self.decoder: MLP | None = None
        if config.warmup == "autoencoder" or self.reconstruction_weight:
            self.decoder = MLP(widths[::-1], dropout=config.dropout, generator=generator)
        self.clusters: StudentT | SinkhornPrototypes
        if config.assignment == "student_t":
            self.clusters = StudentT(num_clusters, widths[-1], radius=config.radius, generator=generator)
        else:
            self.clusters = SinkhornPrototypes(num_clusters, widths[-1], generator=generator)

    @property
    def reconstruction_weight(self) -> float:
        """Weight of the reconstruction while clustering."""
        return 0.0

    @property
    def needs_graph(self) -> bool:
        """Whether `encode` passes messages."""
        return self.num_hops > 0

    @property
    def num_hops(self) -> int:
        """How many steps away `encode` looks."""
        if self.config.encoder in ("mlp", "sgc"):
            return 0
        return self.config.steps if self.config.encoder == "appnp" else len(self.config.widths)

    def prepare_graph(self, x: Tensor, adjacency: SparseMatrix) -> SparseMatrix:
        """The graph with links added where nodes have few.

        Rows are compared after smoothing over what graph there is, whatever the encoder.

        Args:
            x: ``(N, f)`` finite.
            adjacency: ``(N, N)`` symmetric, without self loops.

        Returns:
            ``(N, N)``, to be handed to `prepare_features`, `influence` and `propagation`.
        """
        if self.config.min_neighbors == 0 or x.shape[0] > _COMPLETED_NODES:
            return adjacency
        rows = self._normalize(self._weigh(x))
        smooth = smooth_features(rows, _operator(adjacency, x.dtype), self.config.steps)
        return link_sparse_nodes(adjacency, smooth, self.config.min_neighbors)

    def prepare_features(self, x: Tensor, adjacency: SparseMatrix) -> Tensor:
        """Normalised rows, for ``sgc`` smoothed and normalised again.

        Args:
            x: ``(N, f)`` finite.
            adjacency: ``(N, N)`` symmetric, without self loops.

        Returns:
            ``(N, f)`` of the same dtype.
        """
        x = self._normalize(self._weigh(x))
        if self.config.encoder == "sgc" and isinstance(self.encoder, SmoothedEncoder):
            x = self._normalize(self.encoder.smooth(x, _operator(adjacency, x.dtype)))
        return x

    def influence(self, adjacency: SparseMatrix) -> SparseMatrix:
        """Positives: see `graphcl.graphs.influence_matrix`. ``max_entries`` also bounds the powers in between."""
        return influence_matrix(
            adjacency,
            self.config.order,
            accumulate=self.config.accumulate,
            max_entries=self.config.max_entries,
            max_intermediate=self.config.max_entries,
        )

    def propagation(self, adjacency: SparseMatrix) -> SparseMatrix | None:
        """GCN's operator for ``gcn`` and ``appnp``, the edges themselves for convolutions of PyG, else None."""
        if not self.needs_graph:
            return None
        return _operator(adjacency, torch.float32) if self.config.encoder in ("appnp", "gcn") else adjacency

    def encode(self, x: Tensor, graph: SparseMatrix | None = None) -> Tensor:
        """Embeddings of prepared rows.

        Args:
            x: ``(n, f)``.
            graph: what `propagation` returned, for these rows; not read where `needs_graph` is false.

        Returns:
            ``(n, d)``.
        """
        if isinstance(self.encoder, SmoothedEncoder):
            return self.encoder.encode(x, graph)
        z: Tensor = self.encoder(x, graph)
        return z

    def forward(self, x: Tensor, graph: SparseMatrix | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings ``(n, d)`` and soft assignments ``(n, K)`` of prepared rows."""
        z = self.encode(x, graph)
        return z, self.soft_assignment(z)

    def soft_assignment(self, z: Tensor) -> Tensor:
        """``(n, K)``, rows sum to 1."""
        q: Tensor = self.clusters(z)
        return q

    @torch.no_grad()
    def assignments(self, x: Tensor, graph: SparseMatrix | None = None) -> Tensor:
        """``(n,)`` cluster of every prepared row."""
        _, q = self.forward(x, graph)
        return q.argmax(dim=1)

    @torch.no_grad()
    def initialize_clusters(self, z: Tensor, seed: int) -> None:
        """Set the clusters by k-means on the embeddings of all nodes.

        Args:
            z: ``(N, d)`` with at least K rows.
            seed: of the starts.
        """
        self.clusters.initialize(kmeans_centers(self.clusters.place(z), self.num_clusters, seed=seed))

    def objective(self, batch: ClusteringBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the batch's phase.

        Args:
            batch: anchors with their positives. Drawn negatives follow torch's default generator.

        Returns:
            The scalar, and its parts before they are weighted: ``contrast``, ``kl`` and ``reconstruction``, those that
            the phase has.
        """
        z = self.encode(batch.x, batch.graph)
        anchors = z[: batch.num_anchors]
        parts: dict[str, Tensor] = {}
        loss = 0.0 * z.sum()
        if batch.phase == "warmup":
            if self.config.warmup == "autoencoder":
                parts["reconstruction"] = loss = self._reconstruction(batch.x[: batch.num_anchors], anchors)
            elif self.config.warmup == "contrast":
                parts["contrast"] = loss = self.node_contrast(z, batch, self.config.warmup_temperature)
        else:
            q = self.soft_assignment(anchors)
            parts["contrast"] = self.contrast(z, q, batch)
            parts["kl"] = assignment_divergence(self.clusters.target(anchors, q, batch.cluster_mass), q)
            loss = self.config.contrast_weight * parts["contrast"] + self.config.kl_weight * parts["kl"]
            if self.reconstruction_weight:
                parts["reconstruction"] = self._reconstruction(batch.x[: batch.num_anchors], anchors)
                loss = loss + self.reconstruction_weight * parts["reconstruction"]
        # Processes that share a step average their gradients, so each counts by its share of the anchors.
        return loss * (batch.num_anchors / batch.total), {name: part.detach() for name, part in parts.items()}

    @abstractmethod
    def contrast(self, z: Tensor, q: Tensor, batch: ClusteringBatch) -> Tensor:
        """What is contrasted while clustering: embeddings ``(n, d)`` and memberships of the anchors to a scalar."""

    def node_contrast(self, z: Tensor, batch: ClusteringBatch, temperature: float) -> Tensor:
        """Neighbours against all anchors, or as many as the settings say; see `graphcl.functional.scgc`."""
        negatives = None
        if batch.num_anchors > self.config.negatives:
            negatives = torch.randint(batch.num_anchors, (self.config.negatives,), device=z.device)
        return scgc(z, batch.influence, negatives=negatives, num_anchors=batch.num_anchors, temperature=temperature)

    def _reconstruction(self, x: Tensor, z: Tensor) -> Tensor:
        if self.decoder is None:
            raise RuntimeError("the model was built without a decoder")
        return F.mse_loss(self.decoder(z), x)

    def _weigh(self, x: Tensor) -> Tensor:
        if self.config.features == "idf" or (self.config.features == "auto" and is_bag_of_words(x)):
            frequency = (x != 0).sum(dim=0).clamp(min=1)
            return x * (x.shape[0] / frequency).log().to(x.dtype)
        return x

    def _normalize(self, x: Tensor) -> Tensor:
        if self.config.features == "l1":
            return F.normalize(x, p=1.0, dim=1)
        return x if self.config.features == "none" else normalize_rows(x)


def is_bag_of_words(x: Tensor) -> bool:
    """Whether rows are counts, or counts divided by something of the row, at most a quarter of them not zero.

    Args:
        x: ``(N, f)``.

    Complexity: O(N f).

    Example:
        >>> is_bag_of_words(torch.eye(4)), is_bag_of_words(torch.eye(4) + 1), is_bag_of_words(-torch.eye(4))
        (True, False, False)
    """
    filled = x != 0
    if not 0 < int(filled.sum()) <= x.numel() // 4 or bool((x < 0).any()):
        return False
    smallest = torch.where(filled, x, torch.inf).amin(dim=1, keepdim=True)
    counts = torch.where(filled, x / smallest, 0.0)
    return bool(((counts - counts.round()).abs() <= 1e-4 * counts).all())


@torch.no_grad()
def kmeans_centers(points: Tensor, num_clusters: int, *, seed: int, restarts: int = 20) -> Tensor:
    """Centres of k-means (scikit-learn, k-means++ starts), of a sample where there are more than 50,000 rows.

    Args:
        points: ``(N, d)`` finite, N at least K.
        num_clusters: K.
        seed: of the sample and the starts.
        restarts: the best of so many.

    Returns:
        ``(K, d)`` of the dtype and on the device of ``points``.

    Raises:
        ValueError: fewer rows than clusters, or values that are not finite.

    Complexity: O(restarts rounds min(N, 50,000) K d) time.

    Example:
        >>> kmeans_centers(torch.tensor([[0.0], [0.0], [4.0]]), 2, seed=0).sort(dim=0).values
        tensor([[0.],
                [4.]])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = points.detach().cpu().numpy()
    if rows.shape[0] > _KMEANS_ROWS:
        rows = rows[np.random.default_rng(seed).choice(rows.shape[0], _KMEANS_ROWS, replace=False)]
    with warnings.catch_warnings():
        # Fewer distinct rows than clusters: some centres coincide, and their clusters stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(num_clusters, n_init=restarts, random_state=seed % 2**32).fit(rows)
    return torch.as_tensor(found.cluster_centers_, dtype=points.dtype, device=points.device)


def _encoder(
    config: ClusteringConfig, widths: tuple[int, ...], generator: torch.Generator | None
) -> MLP | SmoothedEncoder | GraphEncoder:
    if config.encoder == "mlp":
        return MLP(widths, dropout=config.dropout, generator=generator)
    if config.encoder == "sgc" or config.encoder == "appnp":
        return SmoothedEncoder(
            widths,
            kind="sgc" if config.encoder == "sgc" else "appnp",
            steps=config.steps,
            restart=config.restart,
            dropout=config.dropout,
            generator=generator,
        )
    return GraphEncoder(widths, conv=config.encoder, dropout=config.dropout, generator=generator)


def _operator(adjacency: SparseMatrix, dtype: torch.dtype) -> SparseMatrix:
    """GCN's operator of a graph."""
    return normalize_symmetric(adjacency.with_values(adjacency.entry_values().to(dtype)), self_loops=1.0)
