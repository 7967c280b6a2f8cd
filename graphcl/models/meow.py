"""MEOW: coarse against fine meta-path views, negatives weighted by clusterings, and prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from graphcl.errors import InputError
from graphcl.functional import cluster_density, kmeans, meow_info_nce, meow_prototype_nce
from graphcl.models.base_embedding import Preset
from graphcl.models.metapath_inputs import MetaPathBatch, MetaPathInputs
from graphcl.models.metapath_network import MetaPathConfig, MetaPathNetwork
from graphcl.models.settings import ModelConfig

__all__ = ["MEOW", "MEOWConfig"]


class MEOWConfig(MetaPathConfig):
    """Settings of :class:`MEOW`; those of :class:`MetaPathConfig` and these.

    Args:
        temperature: of the contrast, and mean of the prototypes' temperatures.
        clusters: numbers of clusters, one clustering each; when None, a twentieth of the nodes, 1000 at most, and a
            seventh, 3000 at most.
        prototype_weight: lambda.
        density: ``similarity`` as the authors' code, or ``l2`` as the usual prototype method; see
            `graphcl.functional.cluster_density`.
        kmeans_every: epochs between clusterings.
        kmeans_start: every clustering starts from the same ``drawn`` nodes (authors), or from the ``last`` centroids,
            which saves rounds but keeps what the first epochs, when nodes are nearly alike, took for clusters.
        kmeans_iterations: most rounds from drawn nodes.
        kmeans_refinements: most rounds from the last centroids.
        kmeans_restarts: draws, of which the best clustering is kept; the authors take 5.

    Example:
        >>> MEOWConfig(clusters=(100, 300)).temperature
        0.9
    """

    temperature: PositiveFloat = 0.9
    clusters: tuple[PositiveInt, ...] | None = None
    prototype_weight: NonNegativeFloat = 1.0
    density: Literal["similarity", "l2"] = "similarity"
    kmeans_every: PositiveInt = 1
    kmeans_start: Literal["drawn", "last"] = "drawn"
    kmeans_iterations: PositiveInt = 20
    kmeans_refinements: PositiveInt = 5
    kmeans_restarts: PositiveInt = 1


class MEOW(MetaPathNetwork):
    r"""MEOW: every coarse row finds its fine row; nodes that share clusters are weaker negatives.

    Paper: Yu and Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative
    Samples", 2022, https://arxiv.org/abs/2212.13847.

    .. math:: L = L_{info}(u, v) + \lambda \frac{1}{T} \sum_t L_{proto}(u; \text{clustering } t)

    with u, v the projected coarse and fine rows; see `graphcl.functional.meow_info_nce` and `meow_prototype_nce`. The
    clusterings are those of the detached v.

    Deviations from the authors' code: k-means tries one draw of nodes a step instead of five; ties of PathSim are split
    by a random order of each row; the embedding is taken in evaluation mode after the last step. In mini-batches the
    clusterings are those of the rows that the last epoch left in a bank, and the first epoch has plain negatives and no
    prototypes.

    Args:
        inputs: of `MEOW.prepare`.
        config: settings; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Raises:
        InputError: more clusters than nodes.

    Complexity: a full step is O(N^2 (d + T) + sum of E_p d + N K d) time, O(N d) memory beside the operators.

    Example:
        >>> from torch_geometric.data import HeteroData
        >>> graph = HeteroData(metapaths=["PAP"], target="paper")
        >>> graph["paper"].x, graph["author"].num_nodes = torch.eye(4), 2
        >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
        >>> config = MEOWConfig(hidden=8, clusters=(2,))
        >>> inputs = MEOW.prepare(graph, config)
        >>> model = MEOW.from_inputs(inputs, config)
        >>> loss, parts = model.objective(inputs.full())
        >>> sorted(parts), model.eval().embed(inputs.full()).shape
        (['info', 'prototype'], torch.Size([4, 8]))
    """

    config_class: ClassVar[type[ModelConfig]] = MEOWConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        "default": Preset(7e-4, 10000, patience=30),
        "acm": Preset(
            7e-4,
            10000,
            {
                "metapaths": ("PAP", "PSP"),
                "k": (110, 700),
                "temperature": 0.4,
                "clusters": (100, 300),
                "edge_mask": (0.3, 0.2),
                "feature_mask": 0.3,
            },
            patience=30,
            probe_learning_rate=0.03,
        ),
        "dblp": Preset(
            6e-4,
            10000,
            {
                "metapaths": ("APA", "APCPA", "APTPA"),
                "k": (25, 200, 40),
                "temperature": 0.9,
                "clusters": (200, 700),
                "edge_mask": (0.2, 0.5, 0.6),
                "feature_mask": 0.2,
                "masked_dropout": False,
            },
            patience=35,
            probe_learning_rate=0.01,
        ),
        "aminer": Preset(
            7e-4,
            10000,
            {
                "metapaths": ("PAP", "PRP"),
                "k": (5, 21),
                "temperature": 0.9,
                "clusters": (500, 1200),
                "edge_mask": (0.7, 0.4),
                "feature_mask": 0.2,
                "prototype_weight": 0.1,
            },
            patience=25,
            probe_learning_rate=0.1,
            probe_weight_decay=8e-4,
        ),
        "imdb": Preset(
            1e-4,
            10000,
            {
                "metapaths": ("MAM", "MDM", "MKM"),
                "k": (70, 10, 70),
                "temperature": 0.9,
                "clusters": (500, 700),
                "edge_mask": 0.1,
                "feature_mask": 0.3,
            },
            weight_decay=1e-3,
            patience=15,
            probe_learning_rate=0.01,
        ),
    }

    def __init__(
        self, inputs: MetaPathInputs, config: MEOWConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        config = config or MEOWConfig()
        super().__init__(inputs, config, generator=generator)
        self.config = config
        nodes, width = inputs.num_nodes, self.project.out_features
        self.clusters = config.clusters or tuple(
            min(nodes, most, max(2, nodes // part)) for part, most in ((20, 1000), (7, 3000))
        )
        if max(self.clusters) > nodes:
            raise InputError(
                f"clusters={self.clusters} asks for more clusters than the {nodes} nodes of type {self.target!r}",
                "ask for fewer",
            )
        # Clusters of every node, -1 before the first clustering; centroids one clustering after the other.
        self.assignments: Tensor
        self.centroids: Tensor
        self.register_buffer("assignments", torch.full((len(self.clusters), nodes), -1, dtype=torch.int64))
        self.register_buffer("centroids", torch.zeros(sum(self.clusters), width))
        self.densities: Tensor
        self.register_buffer("densities", torch.ones(sum(self.clusters)))
        self.bank: Tensor | None
        self.register_buffer("bank", None if config.batch_size is None else torch.zeros(nodes, width))
        #: Whether the next full step clusters its rows first.
        self.kmeans_due = True

    def on_epoch_start(self, epoch: int, generator: torch.Generator | None = None) -> None:
        """Clusterings fall due: in the step of a full batch, from the bank before an epoch of mini-batches."""
        self.kmeans_due = epoch % self.config.kmeans_every == 0 or self._unclustered
        if self.kmeans_due and self.bank is not None and epoch > 0:
            self.cluster(self.bank)

    @property
    def _unclustered(self) -> bool:
        return bool((self.assignments[0, :1] < 0).any())

    @torch.no_grad()
    def cluster(self, rows: Tensor) -> None:
        """Cluster all target nodes by their projected fine rows (N, d)."""
        config, start = self.config, 0
        for position, size in enumerate(self.clusters):
            part = slice(start, start + size)
            first = bool((self.assignments[position, :1] < 0).any())
            cold = first or config.kmeans_start == "drawn"
            found = kmeans(
                rows.detach(),
                size,
                centroids=None if cold else self.centroids[part],
                iterations=config.kmeans_iterations if cold else config.kmeans_refinements,
                restarts=config.kmeans_restarts,
                # The same nodes every time: clusters then follow the embedding and not the draw.
                generator=torch.Generator(rows.device).manual_seed(position),
            )
            closeness = found.similarity
            if config.density == "l2":
                closeness = ((rows - found.centroids[found.assignments]) ** 2).sum(dim=1)
            self.assignments[position] = found.assignments
            self.centroids[part] = found.centroids
            self.densities[part] = cluster_density(
                closeness, found.assignments, size, temperature=config.temperature, kind=config.density
            )
            start += size
        self.kmeans_due = False

    def objective(self, batch: MetaPathBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its parts ``info`` and ``prototype``."""
        config = self.config
        coarse, mixed = self(batch)
        u, v = self.projected(coarse), self.projected(mixed)
        if self.bank is not None:
            self.bank[batch.nodes] = v.detach()
        elif self.kmeans_due and batch.is_full:
            self.cluster(v)
        if self._unclustered:
            own = torch.arange(batch.nodes.shape[0], device=u.device)
            info = meow_info_nce(u, v, [own], temperature=config.temperature)
            return info, {"info": info.detach(), "prototype": torch.zeros_like(info.detach())}
        assignments = self.assignments[:, batch.nodes]
        info = meow_info_nce(u, v, list(assignments), temperature=config.temperature)
        prototype, start = torch.zeros_like(info), 0
        for own, size in zip(assignments, self.clusters, strict=True):
            part = slice(start, start + size)
            prototype = prototype + meow_prototype_nce(u, self.centroids[part], own, self.densities[part])
            start += size
        prototype = prototype / len(self.clusters)
        loss = info + config.prototype_weight * prototype
        return loss, {"info": info.detach(), "prototype": prototype.detach()}
