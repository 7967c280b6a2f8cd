"""No objective of many views, regression, ranking or extreme multi-label ever forms its N x C matrix.

Every tensor that forward and backward create is watched; none may come near the dense size, by far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graphcl import functional

ROWS, DIM, BUDGET = 800, 8, 1 << 17


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Number of elements of the largest storage that any operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, list | tuple) else [result]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def random_rows(seed: int, rows: int = ROWS) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(ROWS) % 50
TARGETS = LABELS / 10
PAIRS = torch.stack([torch.arange(ROWS).repeat(2), torch.arange(2 * ROWS) * 7 % ROWS])
LEVELS = 3 * torch.eye(50, dtype=torch.int64)
PATHS = torch.stack([LABELS // 10, LABELS], dim=1)
CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mv_infonce": lambda a, b: functional.mv_infonce([a, b], memory_budget=BUDGET),
    "mv_infonce_ids": lambda a, b: functional.mv_infonce([a, b], ids=LABELS, memory_budget=BUDGET),
    "mv_dhel": lambda a, b: functional.mv_dhel([a, b], memory_budget=BUDGET),
    "pairwise_nt_xent": lambda a, b: functional.pairwise_nt_xent([a, b], memory_budget=BUDGET),
    "mean_view_nt_xent": lambda a, b: functional.mean_view_nt_xent([a, b], memory_budget=BUDGET),
    "poly_view": lambda a, b: functional.poly_view([a, b], memory_budget=BUDGET),
    "pmrl": lambda a, b: functional.pmrl([a, b], memory_budget=BUDGET),
    "supremix": lambda a, b: functional.supremix([a + b], TARGETS, anchor_share=0.2, window=0.5, memory_budget=BUDGET),
    "supremix_sampled": lambda a, b: functional.supremix(
        [a + b], TARGETS, anchor_share=0.2, max_mixtures=32, memory_budget=BUDGET
    ),
    "conr": lambda a, b: functional.conr(a + b, TARGETS, TARGETS.flip(0), memory_budget=BUDGET),
    "conr_keys": lambda a, b: functional.conr(
        a,
        TARGETS,
        TARGETS.flip(0),
        keys=b,
        key_targets=TARGETS,
        key_predictions=TARGETS.flip(0),
        ids=LABELS % 7,
        key_ids=LABELS // 2,
        memory_budget=BUDGET,
    ),
    "groco": lambda a, b: functional.groco([a, b], num_negatives=5, memory_budget=BUDGET),
    "multi_label_softmax": lambda a, b: functional.multi_label_softmax(a, b, PAIRS, memory_budget=BUDGET),
    "decoupled_softmax": lambda a, b: functional.decoupled_softmax(a, b, PAIRS, memory_budget=BUDGET),
    "soft_top_k": lambda a, b: functional.soft_top_k(a, b, PAIRS, memory_budget=BUDGET),
    "z_loss": lambda a, b: functional.z_loss(a, b, LABELS),
    "multi_similarity": lambda a, b: functional.multi_similarity(a + b, LABELS, memory_budget=BUDGET),
    "hierarchical_multi_similarity": lambda a, b: functional.hierarchical_multi_similarity(
        a + b, LABELS, 3 - LEVELS, memory_budget=BUDGET
    ),
    "tree_soft_contrast": lambda a, b: functional.tree_soft_contrast(a + b, PATHS, memory_budget=BUDGET),
    "dycl": lambda a, b: functional.dycl(a, b, LABELS, LEVELS, memory_budget=BUDGET),
    "smooth_hierarchical_ap": lambda a, b: functional.smooth_hierarchical_ap(
        a[:40], b, PAIRS[:, :40], torch.ones(40), memory_budget=BUDGET
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_no_dense_matrix(name: str) -> None:
    a, b = (random_rows(seed).requires_grad_() for seed in (0, 1))
    with LargestTensor() as largest:
        loss = CASES[name](a, b)
        torch.autograd.grad(loss, [a, b])
    assert 0 < largest.elements <= max(ROWS * ROWS // 8, 2 * ROWS * (DIM + 8))


def test_the_watch_sees_a_dense_matrix() -> None:
    a, b = random_rows(0).requires_grad_(), random_rows(1)
    with LargestTensor() as largest:
        loss = functional.mv_dhel([a, b], backend="reference")
    assert largest.elements >= ROWS * ROWS
    with LargestTensor() as largest:
        torch.autograd.grad(loss, [a])
    assert largest.elements >= ROWS * ROWS
