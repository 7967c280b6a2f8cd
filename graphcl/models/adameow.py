"""AdaMEOW: fine against coarse meta-path views, negatives weighted by a network that is trained along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.functional import adameow
from graphcl.models.base_embedding import Preset
from graphcl.models.metapath_inputs import MetaPathBatch, MetaPathInputs
from graphcl.models.metapath_network import MetaPathConfig, MetaPathNetwork
from graphcl.models.settings import ModelConfig
from graphcl.nn.heterogeneous import TypeTransform
from graphcl.nn.linear import uniform_by_inputs_

__all__ = ["AdaMEOW", "AdaMEOWConfig"]


class AdaMEOWConfig(MetaPathConfig):
    """Settings of :class:`AdaMEOW`; those of :class:`MetaPathConfig` and these.

    Args:
        temperature: of the contrast.
        weight_hidden: hidden units of the weight network.
        normalize_weights: weights of mean 1 in every row, which gives the loss a lower bound; the authors' form is
            False.

    Example:
        >>> AdaMEOWConfig(weight_hidden=8).temperature
        0.9
    """

    temperature: PositiveFloat = 0.9
    weight_hidden: PositiveInt = 16
    normalize_weights: bool = False


class AdaMEOW(MetaPathNetwork):
    r"""AdaMEOW: every fine row finds its coarse row among negatives whose weights are learned.

    Paper: Yu and Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively Weighted Negative
    Samples", 2022, https://arxiv.org/abs/2212.13847.

    The loss is `graphcl.functional.adameow` with the projected fine rows as anchors. It has no lower bound unless
    ``normalize_weights`` is set, so train for a fixed number of epochs: the preset of AMiner has those that the
    authors report, that of ACM fewer, the others their limit; that for unknown data sets normalises. Deviation: the
    biases of the feature transforms begin at 0.

    Args:
        inputs: of `AdaMEOW.prepare`.
        config: settings; the defaults when None.
        generator: source of the initial weights; torch's own when None.

    Complexity: a full step is O(N^2 (d + h) + sum of E_p d) time, O(N d) memory beside the operators.

    Example:
        >>> from torch_geometric.data import HeteroData
        >>> graph = HeteroData(metapaths=["PAP"], target="paper")
        >>> graph["paper"].x, graph["author"].num_nodes = torch.eye(4), 2
        >>> graph["paper", "to", "author"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
        >>> config = AdaMEOWConfig(hidden=8)
        >>> inputs = AdaMEOW.prepare(graph, config)
        >>> loss, parts = AdaMEOW.from_inputs(inputs, config).objective(inputs.full())
        >>> sorted(parts)
        ['weighted']
    """

    config_class: ClassVar[type[ModelConfig]] = AdaMEOWConfig
    presets: ClassVar[Mapping[str, Preset]] = {
        # The authors' form would need an end of its own for every data set before its weights vanish.
        "default": Preset(1e-4, 200, {"normalize_weights": True}, weight_decay=1e-4, stop="never"),
        "acm": Preset(
            5e-5,
            300,  # by validation on seeds of their own; the authors' log has 500, from a slower start
            {
                "metapaths": ("PAP", "PSP"),
                "k": 690,
                "temperature": 1.0,
                "dropout": 0.3,
                "edge_mask": 0.2,
                "feature_mask": 0.3,
            },
            weight_decay=1e-5,
            stop="never",
            probe_learning_rate=0.03,
        ),
        "dblp": Preset(
            1e-4,
            1500,
            {
                "metapaths": ("APA", "APCPA", "APTPA"),
                "k": (25, 200, 40),
                "dropout": 0.2,
                "edge_mask": 0.3,
                "feature_mask": 0.1,
                "masked_dropout": False,
            },
            weight_decay=1e-3,
            stop="never",
        ),
        "aminer": Preset(
            1e-4,
            2600,
            {
                "metapaths": ("PAP", "PRP"),
                "k": (8, 31),
                "dropout": 0.0,
                "edge_mask": 0.0,
                "feature_mask": 0.0,
                "projection": 16,
            },
            weight_decay=1e-4,
            stop="never",
            probe_learning_rate=0.3,
            probe_weight_decay=1e-3,
        ),
        "imdb": Preset(
            5e-4,
            1000,
            {
                "metapaths": ("MAM", "MDM", "MKM"),
                "k": (70, 10, 70),
                "dropout": 0.1,
                "edge_mask": 0.1,
                "feature_mask": 0.3,
            },
            weight_decay=5e-4,
            stop="never",
        ),
    }

    def __init__(
        self, inputs: MetaPathInputs, config: AdaMEOWConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        config = config or AdaMEOWConfig()
        super().__init__(inputs, config, generator=generator)
        self.config = config
        self.weight_hidden = nn.Linear(self.project.out_features, config.weight_hidden)
        self.weight_out = nn.Linear(config.weight_hidden, 1)
        # Beside random biases rows of features that add up to 1 hardly count: all nodes begin nearly alike, and until
        # they part the weight network may have learned to call every pair a false negative.
        for transform in self.transforms:
            if isinstance(transform, TypeTransform):
                nn.init.zeros_(transform.bias)
        for linear in (self.weight_hidden, self.weight_out):
            uniform_by_inputs_([linear.weight, linear.bias], linear.in_features, generator)

    def objective(self, batch: MetaPathBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its one part, ``weighted``."""
        coarse, mixed = self(batch)
        loss = adameow(
            self.projected(mixed),
            self.projected(coarse),
            self.weight_hidden.weight,
            self.weight_hidden.bias,
            self.weight_out.weight[0],
            self.weight_out.bias,
            temperature=self.config.temperature,
            normalize_weights=self.config.normalize_weights,
        )
        return loss, {"weighted": loss.detach()}
