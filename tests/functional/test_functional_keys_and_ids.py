"""Keys other than the anchors and ids of equal rows, where an objective takes them beside its own arguments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphcl.functional import (
    dbpm,
    diagonal_rescale,
    info_nce,
    mean_view_nt_xent,
    nt_xent,
    pairwise_nt_xent,
    pmrl,
    principal_direction,
    rescaled_info_nce,
    synergistic_contrastive,
)

NUM, WIDTH = 6, 4
IDS = torch.tensor([0, 1, 0, 2, 1, 3])
KEY_IDS = torch.tensor([1, 4, 2])


def rows(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)


def dense_nt_xent(x: Tensor, y: Tensor, keys: Tensor, tau: float) -> Tensor:
    """Mean over both anchors of every instance, by the full matrix."""
    losses = []
    for anchor, other in ((x, y), (y, x)):
        candidates = torch.cat([anchor, other, keys])
        logits = anchor @ candidates.T / tau
        for i in range(NUM):
            keep = [
                j
                for j in range(len(candidates))
                if (j == NUM + i)
                or (j < 2 * NUM and j % NUM != i and IDS[j % NUM] != IDS[i])
                or (j >= 2 * NUM and KEY_IDS[j - 2 * NUM] != IDS[i])
            ]
            losses.append(torch.logsumexp(logits[i, keep], dim=0) - logits[i, NUM + i])
    return torch.stack(losses).view(2, NUM).mean(dim=0)


@pytest.mark.parametrize("objective", [pairwise_nt_xent, mean_view_nt_xent])
def test_views_take_further_keys(objective: object) -> None:
    views, keys = [rows(NUM, seed) for seed in range(3)], rows(3, 9)
    unit, far = [normalize(view) for view in views], normalize(keys)
    if objective is pairwise_nt_xent:
        pairs = [(unit[0], unit[1]), (unit[0], unit[2]), (unit[1], unit[2])]
    else:
        total = unit[0] + unit[1] + unit[2]
        pairs = [(one, (total - one) / 2) for one in unit]
    expected = torch.stack([dense_nt_xent(x, y, far, 0.3) for x, y in pairs]).mean(dim=0)
    got = objective(views, keys=keys, ids=IDS, key_ids=KEY_IDS, temperature=0.3, reduction="none")  # type: ignore[operator]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="key_ids belong to keys"):
        objective(views, key_ids=KEY_IDS)  # type: ignore[operator]


def test_weighted_pairs_take_keys_in_place_of_the_batch() -> None:
    first, second, keys = rows(NUM, 0), rows(NUM, 1), rows(3, 2)
    got = dbpm(first, second, keys=keys, ids=IDS, key_ids=KEY_IDS, temperature=0.3, reduction="none")
    both = nt_xent(first, second, keys=keys, ids=IDS, key_ids=KEY_IDS, temperature=0.3, reduction="none")
    torch.testing.assert_close(got, both.view(2, NUM).mean(dim=0))
    assert not torch.allclose(torch.as_tensor(got), torch.as_tensor(dbpm(first, second, reduction="none")))


def test_rescaled_keys_meet_both_views() -> None:
    first, second, keys = rows(NUM, 0), rows(NUM, 1), rows(3, 2)
    got = rescaled_info_nce(first, second, kappa=1.3, keys=keys, ids=IDS, key_ids=KEY_IDS, reduction="none")
    x, y, far = (diagonal_rescale(one, 1.3) for one in (first, second, keys))
    for part, (anchor, positive) in zip(got.view(2, NUM), ((x, y), (y, x)), strict=True):
        anchor, positive, candidates = normalize(anchor), normalize(positive), normalize(far)
        for i in range(NUM):
            own = (anchor[i] @ positive[i]) / 0.2
            others = (candidates[IDS[i] != KEY_IDS] @ anchor[i]) / 0.2
            expected = torch.logsumexp(torch.cat([own[None], others]), dim=0) - own
            torch.testing.assert_close(part[i], expected, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="key_ids belong to keys"):
        rescaled_info_nce(first, second, key_ids=KEY_IDS)


@pytest.mark.parametrize("anchors", [None, torch.tensor([4, 0])])
def test_nodes_of_one_id_are_no_negatives_of_each_other(anchors: Tensor | None) -> None:
    first, second = normalize(rows(NUM, 0)), normalize(rows(NUM, 1))
    got = synergistic_contrastive(first, second, anchors=anchors, ids=IDS, temperature=0.4, reduction="none")
    chosen = range(NUM) if anchors is None else anchors.tolist()
    for value, a in zip(got, chosen, strict=True):
        apart = IDS[a] != IDS
        own = (first[a] @ second[a]) / 0.4
        others = torch.cat([second[apart] @ first[a], first[apart] @ first[a]]) / 0.4
        expected = torch.logsumexp(torch.cat([own[None], others]), dim=0) - own
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)


def test_duplicates_of_an_instance_are_no_negatives_of_its_direction() -> None:
    views = [rows(NUM, seed) for seed in range(3)]
    _, parts = pmrl(views, ids=IDS, reduction="none", return_components=True)
    direction = principal_direction(views).direction
    logits = direction @ direction.T / 0.1
    for i in range(NUM):
        keep = (IDS[i] != IDS) | (torch.arange(NUM) == i)
        expected = torch.logsumexp(logits[i, keep], dim=0) - logits[i, i]
        torch.testing.assert_close(parts["inter"][i], expected, rtol=1e-9, atol=1e-10)
    plain = info_nce(direction, direction, temperature=0.1)
    torch.testing.assert_close(pmrl(views, return_components=True)[1]["inter"], plain)
