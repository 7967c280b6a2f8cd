from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from graphcl import functional
from graphcl.losses import (
    APE,
    CLAPS,
    MECO,
    FeatureTransform,
    GenView,
    Hallucination,
    Hydra,
    LAFAlignment,
    LAFExtraction,
    M3CoL,
    Metrix,
    MoCHi,
    MoCo,
    RepresentationVAE,
    RescaledInfoNCE,
    ShuffledGroupWhitening,
    Sum,
    Temperature,
    Term,
)
from graphcl.testing import (
    check_duplicates,
    check_finite,
    check_loss,
    check_permutation,
    check_precision,
    check_state_round_trip,
    check_zero_rows,
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pair(num: int = 5, dim: int = 3) -> tuple[Tensor, Tensor]:
    return rows(num, dim), rows(num, dim, seed=1)


def filled(loss: nn.Module) -> nn.Module:
    """A queue loss that has already seen a batch."""
    loss.double()
    loss(*pair(6))
    return loss


def small_mochi(warmup_steps: int = 0) -> MoCHi:
    return MoCHi(8, 3, 0.5, num_hard=3, num_pair_mixtures=2, num_query_mixtures=2, warmup_steps=warmup_steps)


LABELS = torch.tensor([0, 1, 2, 1, 0])


@pytest.mark.parametrize(
    ("make", "permutable"),
    [
        (lambda: filled(MoCo(8, 3, 0.5)), True),
        (lambda: filled(MoCo(4, 3, 0.5, in_batch=True, detach_keys=False)), True),
        (lambda: filled(MoCHi(8, 3, 0.5, num_hard=3, num_pair_mixtures=2, num_query_mixtures=0)), False),
        (lambda: filled(small_mochi(9)), True),
        (lambda: filled(FeatureTransform(8, 3, 0.5)), False),
        (lambda: filled(FeatureTransform(8, 3, 0.5, per_dimension=True, renormalize=True)), False),
        (lambda: M3CoL(detach_targets=False), True),
        (lambda: RescaledInfoNCE(1.2), True),
    ],
)
def test_two_view_losses_keep_the_contract(make: Callable[[], nn.Module], permutable: bool) -> None:
    check_loss(detached_keys(make), pair(), permutable=False)
    if permutable:
        check_permutation(make, pair())


def test_mixtures_with_the_query_keep_the_contract_but_for_their_constant() -> None:
    for check in (check_finite, check_zero_rows, check_duplicates, check_precision, check_state_round_trip):
        check(lambda: filled(small_mochi()), pair())


def detached_keys(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """The loss as a function of its queries where keys are constants, so that numerical gradients agree."""

    class OfQueries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = make()
            self.keys = pair()[1]

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            constant = isinstance(self.loss, MoCo | MoCHi | FeatureTransform) and getattr(
                self.loss, "detach_keys", True
            )
            value: Tensor = self.loss(first, self.keys.to(first) if constant else second)
            return value + 0.0 * second.sum() if constant else value

    return OfQueries


@pytest.mark.parametrize(
    ("make", "inputs", "permutable"),
    [
        (lambda: Metrix(margin=2.5, average="all", only_without_positives=False), (rows(5, 3), LABELS), False),
        (lambda: Metrix("multi_similarity", only_without_positives=False), (rows(5, 3), LABELS), False),
        (lambda: CLAPS(0.5), tuple(rows(5, 3, seed=seed) for seed in range(4)), True),
        (lambda: LAFExtraction("mean"), tuple(rows(5, 3, seed=seed) for seed in range(4)), True),
        (
            lambda: Hydra(3, 3, hidden=4, temperature=0.5, generator=torch.Generator().manual_seed(0)),
            (rows(5, 3), LABELS, LABELS.roll(1)),
            True,
        ),
        (lambda: ShuffledGroupWhitening(2, 0.5, stop_gradient=False, ridge=0.1), (rows(7, 4),), True),
        (MECO, (rows(5), rows(5, seed=1), torch.zeros(5)), True),
    ],
)
def test_other_losses_keep_the_contract(
    make: Callable[[], nn.Module], inputs: tuple[Tensor, ...], permutable: bool
) -> None:
    if isinstance(make(), MECO):
        check_state_round_trip(make, inputs)
    else:
        check_loss(make, inputs, permutable=permutable)


def test_moco_uses_ids_and_groups_of_earlier_batches() -> None:
    loss = MoCo(4, 3, temperature=0.5)
    keys, queries = rows(3, 3).float(), rows(2, 3, seed=1).float()
    loss(keys, keys, ids=torch.tensor([0, 1, 2]), groups=torch.tensor([0, 0, 1]))
    got = loss(queries, queries, ids=torch.tensor([1, 5]), groups=torch.tensor([0, 1]))
    expected = [functional.moco(queries[:1], queries[:1], keys[:1], temperature=0.5)]
    expected.append(functional.moco(queries[1:], queries[1:], keys[2:], temperature=0.5))
    torch.testing.assert_close(got, torch.stack(expected).mean())
    assert loss.queue.integers("ids").tolist() == [5, 1, 2, 1]
    loss.eval()
    before = loss.queue.rows
    loss(queries, queries)
    assert torch.equal(before, loss.queue.rows)


def test_mochi_warms_up() -> None:
    loss, plain = small_mochi(2), MoCo(8, 3, 0.5)
    q, k = (part.float() for part in pair())
    for _ in range(2):
        torch.testing.assert_close(loss(q, k), plain(q, k))
    assert float(loss(q, k)) > float(plain(q, k))


def test_draws_depend_on_seed_and_step_only() -> None:
    x = rows(10, 4).float()
    loss = ShuffledGroupWhitening(2, seed=3)
    values = [float(loss(x)) for _ in range(3)]
    resumed = ShuffledGroupWhitening(2, seed=3)
    resumed.load_state_dict({"draws.step": torch.tensor(2)})
    assert float(resumed(x)) == values[2]
    assert len(set(values)) > 1
    loss.eval()
    assert float(loss(x)) == float(loss(x))
    with pytest.raises(ValueError, match="seed must lie"):
        ShuffledGroupWhitening(2, seed=-1)


def test_m3col_switches() -> None:
    x, y = pair()
    loss = M3CoL(switch_epoch=2)
    order, weights = torch.tensor([1, 0, 2, 4, 3]), torch.full((5,), 0.6, dtype=torch.float64)
    torch.testing.assert_close(loss(x, y, order, weights), functional.m3col_mix(x, y, order, weights))
    loss.set_epoch(2)
    assert not loss.mixes
    torch.testing.assert_close(loss(x, y, order, weights), functional.soft_clip(x, y))
    with pytest.raises(ValueError, match="belong together"):
        loss(x, y, order)


def test_genview_is_weighted() -> None:
    z1, z2, f1, f2, b1, b2 = (rows(4, 3, seed=seed) for seed in range(6))
    weight = functional.quality_weights(f1, f2, b1, b2, gamma=0.5)
    torch.testing.assert_close(GenView(gamma=0.5)(z1, z2, f1, f2, b1, b2), functional.genview(z1, z2, weight))


def test_hydra_owns_symmetric_gates_and_learns_them() -> None:
    loss = Hydra(3, 4, hidden=8, generator=torch.Generator().manual_seed(0))
    z, labels = rows(6, 4).float(), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.autograd.backward(loss(z, labels))
    assert all(parameter.grad is not None for parameter in loss.gate.parameters())
    loss.eval()
    torch.testing.assert_close(loss.gate(labels, labels.roll(1)), loss.gate(labels.roll(1), labels))
    expected = functional.hydra(z, labels, labels.roll(1), loss.gate(labels, labels.roll(1)))
    torch.testing.assert_close(loss(z, labels, labels.roll(1)), expected)


def test_hallucination_pushes_the_keys() -> None:
    loss = Hallucination(8, 3)
    q, k = (part.float() for part in pair())
    loss(q, k, q)
    value, parts = loss(q, k, q, return_components=True)
    torch.testing.assert_close(value, parts["key"] + parts["hallucinated"])
    assert len(loss.queue) == 8


def test_laf_modules_and_autoencoder() -> None:
    s, u = rows(4, 3), rows(2, 3, seed=1)
    torch.testing.assert_close(
        LAFAlignment(7.0)(s, s + 1, u, u + 1), functional.laf_alignment(s, s + 1, u, u + 1, temperature=7.0)
    )
    model = RepresentationVAE(3, hidden=8, latent=2, generator=torch.Generator().manual_seed(0)).double()
    first, second = (model.loss(s, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(model.loss(s, torch.Generator().manual_seed(step)))
        optimizer.step()
    model.eval()
    assert float(model.loss(s)) < 0.5 * float(first)
    assert torch.equal(model(s)[0], model(s)[0])


def test_ape_finds_the_unusual_event() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(2, (200,), generator=generator)
    events = torch.stack([first, first, first], dim=1)
    counts = [torch.bincount(first, minlength=2)] * 3
    model = APE(counts, 4, num_noise=1, generator=generator)
    torch.testing.assert_close(model.pair_weights, torch.ones(3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    start = float(model(events))
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(model(events))
        optimizer.step()
    assert float(model(events)) < start
    odd = model.anomaly_score(torch.tensor([[0, 1, 0], [1, 1, 0]]))
    usual = model.anomaly_score(torch.tensor([[0, 0, 0], [1, 1, 1]]))
    assert float(odd.min()) > float(usual.max())
    copy = APE(counts, 4, num_noise=1, generator=generator)
    copy.load_state_dict(model.state_dict())
    assert float(copy(events)) == float(model(events))


def test_meco_moves_in_training_only() -> None:
    loss = MECO(gamma=0.5)
    data, noise, log_q = torch.zeros(2), torch.zeros(3), torch.full((3,), -2.0)
    assert float(loss(data, noise, log_q)) == pytest.approx(2.0)
    loss(data, noise + 1.0, log_q)
    moved = float(loss.log_u)
    assert moved == pytest.approx(float(torch.logsumexp(torch.tensor([2.0, 3.0]), 0) - torch.log(torch.tensor(2.0))))
    loss.eval()
    loss(data, noise + 5.0, log_q)
    assert float(loss.log_u) == moved


def test_mixture_with_a_clean_loss() -> None:
    total = Sum(
        clean=Term(RescaledInfoNCE(1.1, Temperature(0.2, learnable=True)), "z1", "z2"),
        mixed=Term(Metrix(), "z1", "labels", weight=0.4),
    )
    z1, z2 = (part.float() for part in pair())
    loss, parts = total(z1=z1, z2=z2, labels=LABELS)
    torch.testing.assert_close(loss, parts["clean"] + 0.4 * parts["mixed"])


def test_messages() -> None:
    with pytest.raises(ValueError, match="form must be"):
        Metrix("triplet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gamma must lie"):
        MECO(gamma=2.0)
    with pytest.raises(ValueError, match="at least 2 types"):
        APE([torch.ones(3)], 4)
    with pytest.raises(ValueError, match="reduction"):
        MoCo(4, 3, reduction="median")  # type: ignore[arg-type]
