"""Properties that every objective of the catalogue has, on the random inputs given there.

An objective that does not have one is named, with the reason; what is named is checked to differ, so that the lists
stay true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphcl.kernels import SparseMatrix
from graphcl.losses import catalogue
from graphcl.losses.catalogue import CATALOGUE, Call

ROWS, WIDTH = 24, 6
Change = Callable[[Tensor], Tensor]

#: The order of rows enters by definition, or decides which random number a row gets.
ORDERED = {
    "comet": "pairs above the diagonal take other denominators than those below",
    "comet_id": "pairs above the diagonal take other denominators than those below",
    "feature_transform": "random numbers are drawn row by row",
    "mochi": "random numbers are drawn row by row",
}
#: Arguments whose integers name rows of the batch.
NAMES_ROWS = {"m3col_mix": 2, "metrix_multi_similarity": 3, "z_loss": 2}
#: Pairs whose columns name something else than rows of the batch.
OTHER_COLUMNS = ("mlcd",)
#: The embeddings count as they are, lengths included.
SEES_LENGTH = (
    *("amcl", "ape_nce", "bacon_regularizer", "bpr", "comet", "comet_observation", "comet_sample"),
    *("decoupled_softmax", "icnn", "laf_extraction", "listwise_wasserstein", "meco", "multi_label_softmax"),
    *("noise_contrastive_estimation", "norm_direction", "pamc", "proto_triplet", "sepclr", "sepclr_joint_entropy"),
    *("sepclr_uniformity", "shuffled_group_whitening", "soft_top_k", "variational_reconstruction", "z_loss"),
)
#: Two views, neither of which is the first.
SYMMETRIC = (
    *("alignment", "bacon_soft", "comet_sample", "cua", "dbpm", "dcl", "dclw", "groco", "mean_view_nt_xent"),
    *("mv_dhel", "mv_infonce", "nt_xent", "pairwise_nt_xent", "pmrl", "poly_view", "sbcl", "simple_contrastive"),
    *("sogclr", "swav", "uniclr"),
)
#: Needs a positive to be above 0, and finds them in a list of pairs.
LISTED = (
    *("decoupled_softmax", "mlcd", "multi_label_softmax", "multi_positive_info_nce", "smooth_hierarchical_ap"),
    "soft_top_k",
)
#: Needs a positive to be above 0, and finds them by equal labels.
LABELLED = ("icnn", "multi_similarity", "space2", "sup_con", "tree_soft_contrast")
#: Single pairs of a long table take their time; tiles of a few pairs show the same.
LONG_TABLE = ("amcl", "mlcd", "swav")


@pytest.fixture(autouse=True)
def short_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_QUEUE", 64)


def changed(value: Any, change: Change) -> Any:
    """The same structure with its float tensors changed; whether they require gradients stays."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        return change(value.detach()).requires_grad_(value.requires_grad)
    if isinstance(value, nn.Module):
        return value.double() if change is Tensor.double else value
    if isinstance(value, SparseMatrix):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(changed(part, change) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(changed(part, change) for part in value)
    return value


def draw(name: str, seed: int = 0, rows: int = ROWS, change: Change = Tensor.double) -> Call:
    """Fresh inputs, also of the random generator among them."""
    call = CATALOGUE[name].call(rows, WIDTH, seed)
    arguments = tuple(changed(value, change) for value in call.arguments)
    return Call(arguments, {key: changed(value, change) for key, value in call.options.items()})


def evaluated(name: str, call: Call, **options: Any) -> list[Tensor]:
    """Value and gradients of the embeddings."""
    leaves = call.leaves()
    value = CATALOGUE[name].evaluate(call, **options)
    assert value.dim() == 0
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    zipped = zip(found, leaves, strict=True)
    return [value.detach(), *(torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in zipped)]


def finite(results: list[Tensor]) -> bool:
    return all(bool(result.isfinite().all()) for result in results)


def pairs_of(call: Call) -> Tensor:
    pairs: Tensor = next(value for value in call.arguments if _is_pairs(value))
    return pairs


def _is_pairs(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dim() == 2 and len(value) == 2


def reordered(value: Any, order: Tensor, columns_too: bool) -> Any:
    """The same inputs with the rows of the batch in another order."""
    place = torch.argsort(order)
    if _is_pairs(value):
        return torch.stack([place[value[0]], place[value[1]] if columns_too else value[1]])
    if isinstance(value, Tensor):
        return value.detach()[order].requires_grad_(value.requires_grad) if len(value) == len(order) else value
    if isinstance(value, SparseMatrix):
        edges, _ = value.to_edge_index()
        return SparseMatrix.from_edge_index(place[edges], num_nodes=len(order))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(reordered(part, order, columns_too) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(reordered(part, order, columns_too) for part in value)
    return value


def with_rows(call: Call, change: Change) -> Call:
    """The call after its embeddings have been changed in place."""
    with torch.no_grad():
        for leaf in call.leaves():
            leaf.copy_(change(leaf))
    return call


def close(first: list[Tensor], second: list[Tensor], rtol: float = 1e-9, atol: float = 1e-10) -> bool:
    return all(torch.allclose(a.double(), b.double(), rtol=rtol, atol=atol) for a, b in zip(first, second, strict=True))


every = pytest.mark.parametrize("name", list(CATALOGUE))
a_few = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 10**6)


def shuffled(name: str, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Results of a batch, and of its rows in another order put back."""
    call = draw(name, seed)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
    arguments = [reordered(value, order, name not in OTHER_COLUMNS) for value in draw(name, seed).arguments]
    if name in NAMES_ROWS:
        arguments[NAMES_ROWS[name]] = torch.argsort(order)[arguments[NAMES_ROWS[name]]]
    mixed = Call(tuple(arguments), {key: reordered(value, order, True) for key, value in call.options.items()})
    plain, other = evaluated(name, call), evaluated(name, mixed)
    return [plain[0], *(g[order] if len(g) == ROWS else g for g in plain[1:])], other


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in ORDERED])
@a_few
@given(seed=seeds)
def test_rows_may_come_in_any_order(name: str, seed: int) -> None:
    plain, mixed = shuffled(name, seed)
    assert close(plain, mixed, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ORDERED)
def test_order_matters_where_it_is_said_to(name: str) -> None:
    plain, mixed = shuffled(name, 0)
    assert not close(plain[:1], mixed[:1])


@pytest.mark.parametrize("name", SYMMETRIC)
@a_few
@given(seed=seeds)
def test_views_may_be_swapped(name: str, seed: int) -> None:
    call = draw(name, seed)
    if isinstance(call.arguments[0], list):
        swapped: tuple[Any, ...] = tuple(part[::-1] if isinstance(part, list) else part for part in call.arguments)
    else:
        first, second, *rest = call.arguments
        swapped = (second, first, *rest)
    values = [CATALOGUE[name].evaluate(one).detach() for one in (call, Call(swapped, call.options))]
    assert close(values[:1], values[1:])


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.accepts("memory_budget")])
def test_blocks_of_one_pair_give_the_same(name: str) -> None:
    whole = evaluated(name, draw(name, rows=5))
    blocks = evaluated(name, draw(name, rows=5), memory_budget=1024 if name in LONG_TABLE else 1)
    assert close(whole, blocks)


def _stretched(seed: int) -> Change:
    def stretch(rows: Tensor) -> Tensor:
        exponents = torch.randn(len(rows), generator=torch.Generator().manual_seed(seed), dtype=rows.dtype)
        return rows * (3.0**exponents).view(-1, *[1] * (rows.dim() - 1))

    return stretch


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in SEES_LENGTH])
@a_few
@given(seed=seeds)
def test_cosine_objectives_do_not_see_the_length_of_rows(name: str, seed: int) -> None:
    plain = CATALOGUE[name].evaluate(draw(name, seed)).detach()
    longer = CATALOGUE[name].evaluate(with_rows(draw(name, seed), _stretched(seed))).detach()
    assert close([plain], [longer])


@pytest.mark.parametrize("name", SEES_LENGTH)
def test_length_matters_where_it_is_said_to(name: str) -> None:
    plain = CATALOGUE[name].evaluate(draw(name)).detach()
    longer = CATALOGUE[name].evaluate(with_rows(draw(name), _stretched(0))).detach()
    assert not close([plain], [longer])


def _first_row_zero(rows: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(rows[:1]), rows[1:]])


@every
def test_zero_rows_harm_nobody(name: str) -> None:
    results = evaluated(name, with_rows(draw(name), _first_row_zero))
    assert finite(results)
    assert all(float(gradient.abs().max()) < 1e6 for gradient in results[1:])
    assert finite(evaluated(name, with_rows(draw(name), torch.zeros_like)))


@every
def test_all_duplicates_are_finite(name: str) -> None:
    assert finite(evaluated(name, with_rows(draw(name), lambda rows: rows[:1].expand_as(rows))))


@every
@pytest.mark.parametrize("rows", [1, 2])
def test_one_or_two_samples_are_finite(name: str, rows: int) -> None:
    assert finite(evaluated(name, draw(name, rows=rows)))


@pytest.mark.parametrize("name", LISTED)
def test_listed_positives_none_or_one(name: str) -> None:
    for number in (0, 1):
        call = draw(name)
        kept = pairs_of(call)[:, :number]
        arguments = tuple(
            kept
            if _is_pairs(value)
            else value[:number]
            if isinstance(value, Tensor) and value.dim() == 1 and len(value) == 2 * ROWS
            else value
            for value in call.arguments
        )
        results = evaluated(name, Call(arguments, call.options))
        assert finite(results)
        if number == 0:
            assert all(float(result.abs().max()) == 0.0 for result in results)
        else:
            assert float(results[0]) != 0.0


@pytest.mark.parametrize("name", LABELLED)
def test_without_equal_labels_there_is_no_positive(name: str) -> None:
    call = draw(name)
    distinct = torch.arange(ROWS)
    labels = call.arguments[1]
    apart = distinct if labels.dim() == 1 else distinct[:, None] + ROWS * torch.arange(labels.shape[1])
    results = evaluated(name, Call((call.arguments[0], apart), call.options))
    assert finite(results)


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.accepts("temperature")])
@pytest.mark.parametrize("change", [Tensor.float, Tensor.double], ids=["float32", "float64"])
def test_low_temperature_is_finite(name: str, change: Change) -> None:
    assert finite(evaluated(name, draw(name, change=change), temperature=1e-3))


@every
def test_float32_agrees_with_float64(name: str) -> None:
    wide, narrow = (evaluated(name, draw(name, change=change)) for change in (Tensor.double, Tensor.float))
    assert narrow[0].dtype == torch.float32
    assert close(wide, narrow, rtol=1e-3, atol=1e-4)


def _half(value: Tensor) -> Tensor:
    return value.bfloat16() if value.dim() > 1 and value.shape[-1] == WIDTH else value


@every
def test_bfloat16_embeddings_are_accumulated_in_float32(name: str) -> None:
    half = CATALOGUE[name].evaluate(draw(name, change=_half)).detach()
    rounded = CATALOGUE[name].evaluate(draw(name, change=lambda value: _half(value).float())).detach()
    assert half.dtype == torch.float32
    assert close([rounded], [half], rtol=1e-4, atol=1e-5)
