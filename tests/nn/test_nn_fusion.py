"""Fusion of modalities by loops over nodes and modalities, with missing ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from graphcl.nn.fusion import FusionMethod, ModalityFusion

METHODS: tuple[FusionMethod, ...] = get_args(FusionMethod)
WIDTHS = {"image": 3, "text": 2, "audio": 4}
NODES = 5


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def features() -> dict[str, Tensor]:
    return {name: randn(NODES, width, seed=width) for name, width in WIDTHS.items()}


def missing() -> dict[str, Tensor]:
    """Node 1 misses the text, node 2 image and audio, node 3 everything."""
    return {
        "image": torch.tensor([False, False, True, True, False]),
        "text": torch.tensor([False, True, False, True, False]),
        "audio": torch.tensor([False, False, True, True, False]),
    }


def fusion(method: FusionMethod) -> ModalityFusion:
    torch.manual_seed(0)
    return ModalityFusion(WIDTHS, 6, method=method).double()


def by_loops(layer: ModalityFusion, tables: dict[str, Tensor], gone: dict[str, Tensor]) -> Tensor:
    rows = []
    for node in range(NODES):
        hidden: list[tuple[int, Tensor]] = []
        for number, name in enumerate(WIDTHS):
            if not bool(gone[name][node]):
                linear = layer.project[number]
                assert isinstance(linear, nn.Linear)
                hidden.append((number, linear.weight @ tables[name][node] + linear.bias))
        total = torch.zeros(6, dtype=torch.float64)
        scores = [layer.score(one) for _, one in hidden] if layer.score is not None else []
        for place, (number, one) in enumerate(hidden):
            if layer.method == "sum":
                weight = torch.ones(6, dtype=torch.float64)
            elif layer.method == "gated":
                weight = torch.sigmoid(layer.gate[number](one))
            else:
                weight = scores[place].exp() / torch.stack(scores).exp().sum(0)
            total = total + weight * one
        rows.append(total)
    return torch.stack(rows)


@pytest.mark.parametrize("method", METHODS)
def test_fusion_by_loops_with_and_without_missing_modalities(method: FusionMethod) -> None:
    layer = fusion(method)
    none = {name: torch.zeros(NODES, dtype=torch.bool) for name in WIDTHS}
    torch.testing.assert_close(layer(features()), by_loops(layer, features(), none))
    torch.testing.assert_close(layer(features(), missing()), by_loops(layer, features(), missing()))
    assert not bool(layer(features(), missing())[3].any())


@pytest.mark.parametrize("method", METHODS)
def test_what_a_missing_row_holds_does_not_matter(method: FusionMethod) -> None:
    layer, tables = fusion(method), features()
    before = layer(tables, missing())
    for name, mask in missing().items():
        tables[name][mask] = torch.nan
        tables[name].requires_grad_()
    after = layer(tables, missing())
    torch.testing.assert_close(after, before)
    gradients = torch.autograd.grad((after * randn(NODES, 6)).sum(), [*tables.values(), *layer.parameters()])
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    for gradient, mask in zip(gradients, missing().values(), strict=False):
        assert float(gradient[mask].abs().sum()) == 0
        assert float(gradient[~mask].abs().min()) > 0


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method: FusionMethod) -> None:
    layer, upstream = fusion(method), randn(NODES, 6, seed=9)
    names = list(WIDTHS)

    def loss(*tables: Tensor) -> Tensor:
        out: Tensor = (layer(dict(zip(names, tables, strict=True)), missing()) * upstream).sum()
        return out

    assert torch.autograd.gradcheck(loss, tuple(table.requires_grad_() for table in features().values()))


def test_permuting_nodes_and_one_modality() -> None:
    layer, order = fusion("attention"), torch.tensor([3, 1, 4, 0, 2])
    moved = layer(
        {name: table[order] for name, table in features().items()},
        {name: mask[order] for name, mask in missing().items()},
    )
    torch.testing.assert_close(moved, layer(features(), missing())[order])
    alone = ModalityFusion({"image": 3}, 2, method="attention").double()
    torch.testing.assert_close(alone({"image": randn(4, 3)}), alone.project[0](randn(4, 3)))
    assert alone({"image": randn(0, 3)}).shape == (0, 2)
    assert repr(alone).startswith("ModalityFusion(\n  {'image': 3}, 2, method='attention'")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ModalityFusion({}, 2), "in_channels must name at least one modality, got none"),
        (lambda: ModalityFusion({"image": 0}, 2), "the width of image must be an integer of at least 1, got 0"),
        (lambda: ModalityFusion({"image": 3}, 0), "the width of out_channels must be an integer of at least 1, got 0"),
        (lambda: ModalityFusion(WIDTHS, 2, method="mean"), "method must be one of gated, attention, sum, got 'mean'"),  # type: ignore[arg-type]
        (lambda: fusion("sum")({"image": randn(2, 3)}), r"features must hold the modalities \['image', 'text', 'aud"),
        (lambda: fusion("sum")({**features(), "text": randn(4, 2)}), r"features of 'text' must have shape \(5, 2\)"),
        (lambda: fusion("sum")(features(), {"video": missing()["text"]}), "missing names 'video', which is not one of"),
        (lambda: fusion("sum")(features(), {"text": torch.zeros(5)}), r"missing of 'text' must be bool of shape \(5,"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
