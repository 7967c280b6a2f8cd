"""Every objective of `graphcl.functional` with its class of memory and a call on random rows, to plan and to measure.

Tags: S streams in O(N d) in one pass over blocks, S2 in a few passes, M works from moments, L touches listed pairs
only, D has a dense part that is small by construction, X keeps numbers for pairs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from graphcl import functional
from graphcl.kernels import SparseMatrix
from graphcl.losses.temperature import PairTemperature

__all__ = ["CATALOGUE", "Call", "Entry", "Tag"]

Tag = Literal["S", "S2", "M", "L", "D", "X"]


@dataclass(frozen=True)
class Call:
    """Arguments of an objective.

    Attributes:
        arguments: positional.
        options: by keyword.
    """

    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def leaves(self) -> list[Tensor]:
        """The embeddings to differentiate."""
        return [value for value in _tensors((*self.arguments, *self.options.values())) if value.requires_grad]


class _Draw:
    """Random inputs of one size."""

    def __init__(self, n: int, d: int, generator: torch.Generator) -> None:
        self.n, self.d, self.generator = n, d, generator

    def rows(self, count: int | None = None, width: int | None = None) -> Tensor:
        return self.constant(count, width).requires_grad_()

    def constant(self, count: int | None = None, width: int | None = None) -> Tensor:
        return torch.randn(count or self.n, width or self.d, generator=self.generator)

    def views(self, count: int = 2) -> list[Tensor]:
        return [self.rows() for _ in range(count)]

    def labels(self, classes: int = 64, count: int | None = None) -> Tensor:
        return torch.randint(classes, (count or self.n,), generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*(shape or (self.n,)), generator=self.generator)

    def permutation(self) -> Tensor:
        return torch.randperm(self.n, generator=self.generator)

    def pairs(self, candidates: int, degree: int = 4) -> Tensor:
        """``(2, degree N)`` random pairs."""
        rows = torch.arange(self.n).repeat_interleave(degree)
        return torch.stack([rows, torch.randint(candidates, rows.shape, generator=self.generator)])

    def soft(self, groups: int) -> Tensor:
        return self.constant(width=groups).softmax(dim=1)


@dataclass(frozen=True)
class Entry:
    """How to call one objective.

    Attributes:
        name: of the function in `graphcl.functional`.
        tag: class of its memory.
        draw: makes the arguments.
    """

    name: str
    tag: Tag
    draw: Callable[[_Draw], Call]

    def call(self, n: int, d: int, seed: int = 0) -> Call:
        """Random arguments for n samples of width d; the embeddings among them require gradients."""
        return self.draw(_Draw(n, d, torch.Generator().manual_seed(seed)))

    def accepts(self, option: str) -> bool:
        """Whether the objective has such an argument."""
        return option in inspect.signature(getattr(functional, self.name)).parameters

    def evaluate(self, call: Call, **engine: Any) -> Tensor:
        """The scalar loss; options of the engine that the objective does not have are left out."""
        given = {option: value for option, value in engine.items() if self.accepts(option)}
        result = getattr(functional, self.name)(*call.arguments, **call.options, **given)
        if isinstance(result, Tensor):
            return result
        loss: Tensor = result.loss if hasattr(result, "loss") else result[0]
        return loss


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from value.parameters()
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def _two_views(draw: _Draw, **options: Any) -> Call:
    return Call((draw.rows(), draw.rows()), options)


def _labelled(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.labels()))


def _view_list(count: int) -> Callable[[_Draw], Call]:
    return lambda draw: Call((draw.views(count),))


def _retrieval(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.rows(), draw.pairs(draw.n)))


def _with_queue(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.constant(), draw.constant(_QUEUE)))


def _paths(draw: _Draw) -> Tensor:
    leaves = draw.labels()
    return torch.stack([leaves // 16, 64 + leaves // 4, 128 + leaves], dim=1)


def _amcl(draw: _Draw) -> Call:
    networks = [PairTemperature(draw.d, 16, generator=draw.generator) for _ in range(2)]
    return Call((draw.views(), draw.views(), networks))


def _ape(draw: _Draw) -> Call:
    entities, types = 256, 4
    tables = [draw.rows(entities) for _ in range(types)]
    events = torch.stack([draw.labels(entities) for _ in range(types)], dim=1)
    log_probabilities = [torch.full((entities,), -float(torch.tensor(entities).log())) for _ in range(types)]
    noise = functional.draw_noise_events(events, log_probabilities, 5, generator=draw.generator)
    return Call((tables, events, noise, log_probabilities))


def _comet(draw: _Draw) -> Call:
    steps = 8
    views = [draw.constant(width=steps * draw.d).view(draw.n, steps, draw.d).requires_grad_() for _ in range(2)]
    return Call((*views, draw.labels(), draw.labels(16)))


def _dycl(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.rows(), draw.labels(), 3 * torch.eye(64, dtype=torch.int64)))


def _hydra(draw: _Draw) -> Call:
    labels = draw.labels()
    return Call((draw.rows(), labels, labels[draw.permutation()], draw.uniform(draw.n, draw.d).requires_grad_()))


def _interclr(draw: _Draw) -> Call:
    memory = draw.constant(_QUEUE)
    return Call((draw.rows(), memory, draw.labels(_QUEUE), draw.labels(_QUEUE, draw.n * 64).view(draw.n, 64)))


def _listwise(draw: _Draw) -> Call:
    return Call((draw.rows(width=draw.d), draw.uniform(draw.n, draw.d).mul(4).floor()))


def _metrix_pairs(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.rows(), 0.5, torch.arange(draw.n)))


def _palm(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.labels(16), draw.constant(64), torch.arange(64) // 4))


def _sogclr(draw: _Draw) -> functional.SogCLRState:
    return functional.SogCLRState(torch.full((draw.n,), -torch.inf), torch.full((draw.n,), 0.1), torch.zeros(draw.n))


def _smooth_hierarchical_ap(draw: _Draw) -> Call:
    return Call((draw.rows(), draw.rows(), draw.pairs(draw.n, 2), torch.ones(2 * draw.n)))


_QUEUE = 4096


def _adameow(draw: _Draw) -> Call:
    hidden = 16
    network = [draw.constant(hidden), draw.uniform(hidden), draw.uniform(hidden), draw.uniform(1)]
    return Call((draw.rows(), draw.rows(), *network))


def _heco(draw: _Draw) -> Call:
    degree = 4
    offsets = torch.arange(0, degree * draw.n + 1, degree)
    columns = torch.randint(draw.n, (degree * draw.n,), generator=draw.generator)
    return Call((draw.rows(), draw.rows(), SparseMatrix(offsets, columns, None, (draw.n, draw.n))))


_ENTRIES: tuple[tuple[str, Tag, Callable[[_Draw], Call]], ...] = (
    ("adameow", "S2", _adameow),
    ("alignment", "L", _two_views),
    ("amcl", "S", _amcl),
    ("ape_nce", "L", _ape),
    ("bacon_regularizer", "L", lambda draw: Call((draw.rows(width=64), draw.uniform(64) + 1))),
    ("bacon_soft", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.soft(16)))),
    ("block_info_nce", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.labels(256)))),
    ("bpr", "L", lambda draw: Call((draw.rows(width=1)[:, 0], draw.rows(width=1)[:, 0]))),
    ("cacr", "S", _view_list(3)),
    ("cacr_rbf", "S", lambda draw: Call(([draw.rows()], draw.constant(), draw.constant(_QUEUE)))),
    ("claps", "S", lambda draw: Call(tuple(draw.views(4)))),
    ("cluster_restricted_info_nce", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.labels()))),
    ("cmim", "S", _two_views),
    ("comet", "X", _comet),
    ("comet_id", "X", lambda draw: Call((*_comet(draw).arguments[:3],))),
    ("comet_observation", "X", lambda draw: Call((*_comet(draw).arguments[:2],))),
    ("comet_sample", "X", lambda draw: Call((*_comet(draw).arguments[:2],))),
    ("conr", "S", lambda draw: Call((draw.rows(), draw.uniform() * 8, draw.uniform() * 8))),
    ("cua", "S", _two_views),
    ("cwcl", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.constant()))),
    ("dbpm", "S", _two_views),
    ("dcl", "S", _two_views),
    ("dclw", "S", _two_views),
    ("decoupled_softmax", "S", _retrieval),
    ("dycl", "S", _dycl),
    ("feature_transform", "S", lambda draw: Call(_with_queue(draw).arguments, {"generator": draw.generator})),
    ("genview", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.uniform()))),
    ("groco", "S2", _view_list(2)),
    ("hallucination", "S", lambda draw: Call((draw.rows(), draw.constant(), draw.rows(), draw.constant(_QUEUE)))),
    ("hard_contrastive", "S2", lambda draw: _two_views(draw, num_negatives=32)),
    ("heco", "S", _heco),
    ("hiclr", "S", lambda draw: Call((draw.views(3), draw.constant(), draw.constant(_QUEUE)))),
    (
        "hierarchical_multi_similarity",
        "S",
        lambda draw: Call((draw.rows(), draw.labels(), 3 - 3 * torch.eye(64, dtype=torch.int64))),
    ),
    ("hydra", "S", _hydra),
    ("icnn", "S2", _labelled),
    ("info_nce", "S", _two_views),
    ("interclr", "S2", _interclr),
    ("laf_alignment", "L", lambda draw: Call((draw.rows(), draw.constant(), draw.rows(), draw.constant()))),
    ("laf_extraction", "L", lambda draw: Call(tuple(draw.views(4)))),
    ("listwise_wasserstein", "D", _listwise),
    ("m3col_mix", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.permutation(), draw.uniform()))),
    ("mean_view_nt_xent", "S", _view_list(3)),
    ("meco", "L", lambda draw: Call((draw.rows(width=1)[:, 0], draw.rows(width=1)[:, 0], draw.uniform()))),
    ("meow_info_nce", "S", lambda draw: Call((draw.rows(), draw.rows(), [draw.labels(64), draw.labels(256)]))),
    (
        "meow_prototype_nce",
        "S",
        lambda draw: Call((draw.rows(), draw.constant(256), draw.labels(256), draw.uniform(256) + 0.5)),
    ),
    ("metrix_contrastive", "L", lambda draw: Call((draw.rows(), draw.rows(), 0.5))),
    ("metrix_multi_similarity", "L", _metrix_pairs),
    ("mlcd", "S", lambda draw: Call((draw.rows(), draw.rows(1024), draw.pairs(1024)))),
    (
        "mochi",
        "S2",
        lambda draw: Call(
            _with_queue(draw).arguments,
            {"num_hard": 64, "num_pair_mixtures": 16, "num_query_mixtures": 16, "generator": draw.generator},
        ),
    ),
    ("moco", "S", _with_queue),
    ("multi_label_softmax", "S", _retrieval),
    ("multi_positive_info_nce", "S", _retrieval),
    ("multi_similarity", "S", _labelled),
    ("mv_dhel", "S", _view_list(3)),
    ("mv_infonce", "S", _view_list(3)),
    (
        "norm_direction",
        "L",
        lambda draw: Call((draw.rows(), draw.constant(), draw.labels(), draw.constant(64))),
    ),
    ("noise_contrastive_estimation", "L", lambda draw: Call((draw.rows(width=1)[:, 0], draw.rows(width=5)))),
    ("nt_xent", "S", _two_views),
    ("pairwise_nt_xent", "S", _view_list(3)),
    ("palm", "S2", _palm),
    ("pamc", "L", lambda draw: Call((draw.rows(), draw.labels(256), draw.pairs(draw.n)))),
    ("pmrl", "S", _view_list(3)),
    ("poly_view", "S", _view_list(3)),
    ("propagation_consistency", "L", lambda draw: Call((draw.rows(), draw.constant(), draw.pairs(draw.n)))),
    ("proto_triplet", "S", lambda draw: Call((draw.rows(), draw.rows(64), draw.labels()))),
    ("rescaled_info_nce", "S", _two_views),
    ("sbcl", "S", lambda draw: Call((draw.rows(), draw.rows(), draw.labels(16), draw.labels()))),
    ("scgc", "S", lambda draw: Call((draw.rows(), draw.pairs(draw.n)))),
    ("sepclr", "S", lambda draw: Call((draw.views(), draw.views(), draw.uniform() < 0.5))),
    ("sepclr_joint_entropy", "S", _two_views),
    ("sepclr_uniformity", "S", lambda draw: Call((draw.rows(),))),
    (
        "shuffled_group_whitening",
        "D",
        lambda draw: Call((draw.rows(), max(1, draw.d // 32)), {"generator": draw.generator}),
    ),
    ("simple_contrastive", "M", _two_views),
    ("smooth_hierarchical_ap", "S2", _smooth_hierarchical_ap),
    ("soft_clip", "S", _two_views),
    ("soft_top_k", "S2", _retrieval),
    ("sogclr", "S", lambda draw: Call((draw.rows(), draw.rows(), _sogclr(draw)))),
    ("sogclr_bimodal", "S", lambda draw: Call((draw.rows(), draw.rows(), _sogclr(draw), _sogclr(draw)))),
    ("space2", "S", lambda draw: Call((draw.views(3), _paths(draw)), {"orders": (1, 2, 3)})),
    ("sup_con", "S", _labelled),
    (
        "supremix",
        "S2",
        lambda draw: Call(
            (draw.views(1), draw.uniform() * 64),
            {"anchor_share": 0.2, "window": 1.0, "max_mixtures": 16, "generator": draw.generator},
        ),
    ),
    ("swav", "D", lambda draw: Call((draw.views(), draw.rows(256)))),
    ("synergistic_contrastive", "S", _two_views),
    ("tree_soft_contrast", "S", lambda draw: Call((draw.rows(), _paths(draw)))),
    ("uniclr", "S", lambda draw: Call((draw.views(), draw.views()))),
    ("uniformity", "S", lambda draw: Call((draw.rows(),))),
    ("variational_reconstruction", "L", lambda draw: Call(tuple(draw.views(4)))),
    ("z_loss", "M", lambda draw: Call((draw.rows(), draw.rows(), draw.labels(draw.n)))),
)

#: Objective by name.
CATALOGUE: dict[str, Entry] = {name: Entry(name, tag, draw) for name, tag, draw in _ENTRIES}
