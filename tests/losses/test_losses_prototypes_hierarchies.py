"""State of the prototype, cluster and hierarchy modules: what moves, what is saved, what resuming restores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from graphcl.functional import (
    bacon_regularizer,
    cluster_restricted_info_nce,
    comet,
    dbpm,
    hiclr,
    icnn,
    info_nce,
    mlcd,
    nt_xent,
    palm,
    propagation_consistency,
    sbcl,
    sepclr,
    sup_con,
    swav,
    uniclr,
)
from graphcl.losses import (
    COMET,
    DBPM,
    ICNN,
    MLCD,
    PALM,
    SBCL,
    BaConRegularizer,
    BaConSoft,
    ClusterRestrictedInfoNCE,
    FeatureQueue,
    HiCLR,
    InterCLR,
    NormDirection,
    PropagationConsistency,
    ProtoTriplet,
    SepCLR,
    SwAV,
    Temperature,
    UniCLR,
    estimate_class_counts,
)
from graphcl.losses._base import TemperatureLoss
from graphcl.losses.protocol import split_output
from graphcl.testing import check_loss


def rows(count: int, dim: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


IDS, LABELS = torch.tensor([3, 0, 7, 5, 1, 9]), torch.tensor([0, 1, 0, 1, 1, 0])
A, B = rows(6), rows(6, seed=1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def warm_interclr() -> InterCLR:
    loss = InterCLR(10, 2, 4, num_negatives=3, pool=4, min_cluster_size=2, centroid_every=2)
    loss(rows(10, seed=4), torch.arange(10))
    loss.refresh(0)
    return loss


def stage_module() -> ClusterRestrictedInfoNCE:
    loss = ClusterRestrictedInfoNCE(10, 2, num_clusters=3)
    loss.add_stage(torch.arange(10) % 3)
    return loss


def weighted_dbpm() -> DBPM:
    loss = DBPM(10, 4, warmup=1, noisy_cut=0.5, faulty_cut=0.5)
    loss(A, B, IDS)
    loss.set_epoch(1)
    return loss


def clustered_sbcl() -> SBCL:
    loss = SBCL(10, 2, ranked=True, min_size=1)
    loss.refresh(rows(10), torch.arange(10) % 2, generator=generator())
    return loss


#: name -> (fresh module, one step)
STATEFUL: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], object]]] = {
    "SwAV": (lambda: SwAV(4, 5, queue_size=6, frozen_steps=1, generator=generator()), lambda m: m(A, B)),
    "PALM": (lambda: PALM(2, 4, 2, momentum=0.5, generator=generator()), lambda m: m(A, LABELS)),
    "MLCD": (
        lambda: MLCD(8, 4, negative_ratio=0.5, generator=generator()),
        lambda m: m(A, torch.tensor([[0, 1, 2], [3, 4, 5]]), generator=generator()),
    ),
    "SBCL": (clustered_sbcl, lambda m: m(A, B, LABELS, IDS)),
    "BaConRegularizer": (lambda: BaConRegularizer(4), lambda m: m(A)),
    "ClusterRestrictedInfoNCE": (stage_module, lambda m: m(A, B, IDS)),
    "InterCLR": (warm_interclr, lambda m: m(A, IDS, generator=generator())),
    "DBPM": (weighted_dbpm, lambda m: m(A, B, IDS)),
    "NormDirection": (lambda: NormDirection(2, 4), lambda m: m(A, B, LABELS)),
    "HiCLR": (lambda: HiCLR(4, 8), lambda m: m([A, B], B, ids=IDS)),
    "PropagationConsistency": (lambda: PropagationConsistency(4), lambda m: m(A, B, B, A)),
}


def value(output: object) -> Tensor:
    assert isinstance(output, Tensor)
    return output.detach()


@pytest.mark.parametrize("name", STATEFUL)
def test_resuming_changes_nothing(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    make, step = STATEFUL[name]
    module = make()
    step(module)
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    safetensors.torch.save_file({key: tensor.clone() for key, tensor in module.state_dict().items()}, path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        resumed = make()
    resumed.load_state_dict(safetensors.torch.load_file(path))
    for _ in range(3):
        torch.testing.assert_close(value(step(resumed)), value(step(module)), rtol=0, atol=0)
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", STATEFUL)
def test_evaluation_leaves_the_state_alone(name: str) -> None:
    make, step = STATEFUL[name]
    module = make().eval()
    before = copy.deepcopy(module.state_dict())
    step(module)
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_swav_freezes_prototypes_and_starts_its_queues() -> None:
    loss = SwAV(4, 5, queue_size=6, queue_start=2, frozen_steps=1, generator=generator())
    prototypes = loss.prototypes().detach()
    first = loss(A.requires_grad_(False).clone().requires_grad_(), B)
    assert torch.autograd.grad(first, loss.prototypes.weight, allow_unused=True)[0] is None
    queues = [queue.rows for queue in loss.queues if isinstance(queue, FeatureQueue)]
    torch.testing.assert_close(loss(A, B), swav([A, B], prototypes))  # step 1: queues are full but wait
    loss(A, B)
    with_queue = loss(B, A)
    torch.testing.assert_close(with_queue, swav([B, A], prototypes, queues=queues))
    assert torch.autograd.grad(with_queue, loss.prototypes.weight)[0].abs().sum() > 0


def test_palm_moves_its_prototypes() -> None:
    loss = PALM(2, 4, 2, momentum=0.5, generator=generator())
    before = loss.prototypes.weight.clone()
    step = palm(A, LABELS, before, torch.tensor([0, 1, 0, 1]), momentum=0.5)
    output, parts = split_output(loss(A, LABELS, return_components=True))
    torch.testing.assert_close(output, step.loss)
    torch.testing.assert_close(parts["mle"], step.mle)
    torch.testing.assert_close(loss.prototypes.weight, step.prototypes)
    assert not loss.prototypes.weight.requires_grad
    with pytest.raises(ValueError, match="num_classes and prototypes_per_class must be at least 1, got 0, 6"):
        PALM(0, 4)


def test_mlcd_draws_negatives() -> None:
    loss = MLCD(10, 4, negative_ratio=0.3, scale=3.0, generator=generator())
    pairs = loss.assign(A, 2)
    got = loss(A, pairs, generator=generator())
    drawn = torch.randperm(10, generator=generator())[:3]
    torch.testing.assert_close(got, mlcd(A, loss.centers(), pairs, negatives=drawn, scale=3.0))
    with pytest.raises(ValueError, match=r"negative_ratio must lie in \(0, 1\], got 0"):
        MLCD(3, 3, negative_ratio=0.0)
    with pytest.raises(ValueError, match=r"centers must have shape \(10, 4\)"):
        loss.set_centers(A)


def test_sbcl_before_and_after_refresh() -> None:
    loss = SBCL(10, 2, base_temperature=0.1, gamma=0.5, min_size=1)
    expected = 1.5 * sup_con(torch.cat([A, B]), LABELS.repeat(2), temperature=0.1)
    torch.testing.assert_close(value(loss(A, B, LABELS, IDS)), expected)
    loss = clustered_sbcl()
    expected_parts = sbcl(A, B, LABELS, loss.clusters[IDS], class_temperature=loss.class_temperature)
    torch.testing.assert_close(value(loss(A, B, LABELS, IDS)), torch.as_tensor(expected_parts))
    with pytest.raises(ValueError, match="embeddings must have 10 rows, got 6"):
        loss.refresh(A, LABELS)


def test_bacon_counts() -> None:
    z = torch.cat([rows(12, 2) * 0.1, rows(5, 2, 1) * 0.1 + 9, rows(3, 2, 2) * 0.1 - 9])
    labels = torch.full((20,), -1)
    labels[13:15] = 0
    counts = estimate_class_counts(z, labels, 3, num_known=1)
    assert counts.tolist() == [5.0, 12.0, 3.0]
    loss = BaConRegularizer(3)
    loss.set_counts(counts)
    torch.testing.assert_close(loss(A[:, :3]), bacon_regularizer(A[:, :3], counts))
    assert loss.log_prior.argmax() == 1
    rate = loss.sampling_rate(torch.tensor([True, False, False]))
    torch.testing.assert_close(rate, torch.tensor([(3 / 5) ** 0.8, (3 / 12) ** 0.5, 1.0]))
    with pytest.raises(ValueError, match="counts must be 3 numbers above 0"):
        loss.set_counts(torch.zeros(3))
    with pytest.raises(ValueError, match="num_known <= num_classes <= samples must hold, got 4, 3 and 20"):
        estimate_class_counts(z, labels, 3, num_known=4)


def test_stages_restrict_step_by_step() -> None:
    loss = ClusterRestrictedInfoNCE(10, 2, num_clusters=3, min_negatives=0)
    torch.testing.assert_close(loss(A, B, IDS), info_nce(A, B))
    first, second = torch.arange(10) % 3, torch.arange(10) // 5
    loss.add_stage(first)
    torch.testing.assert_close(loss(A, B, IDS), cluster_restricted_info_nce(A, B, first[IDS]))
    loss.add_stage(second)
    expected = cluster_restricted_info_nce(A, B, torch.stack([first, second])[:, IDS])
    torch.testing.assert_close(loss(A, B, IDS), expected)
    assert loss.pseudo_labels.tolist() == (first * 3 + second).tolist()
    keys, key_ids, stages = rows(8, seed=2), torch.arange(8), torch.stack([first, second])
    expected = cluster_restricted_info_nce(
        A, B, stages[:, IDS], keys=keys, key_clusters=stages[:, key_ids], ids=IDS, key_ids=key_ids
    )
    torch.testing.assert_close(loss(A, B, IDS, keys=keys, key_ids=key_ids), expected)
    with pytest.raises(ValueError, match="keys need key_ids, the samples whose clusters they have, got None"):
        loss(A, B, IDS, keys=keys)
    with pytest.raises(ValueError, match="key_ids belong to keys"):
        loss(A, B, IDS, key_ids=key_ids)
    # A row of a queue that was never filled has no sample.
    with pytest.raises(IndexError, match=r"key_ids holds -1, outside 0 \.\. 9"):
        loss(A, B, IDS, keys=keys, key_ids=key_ids - 1)
    with pytest.raises(ValueError, match="all 2 stages are there already"):
        loss.add_stage(first)
    with pytest.raises(IndexError, match="holds 9, outside 0"):
        ClusterRestrictedInfoNCE(10, 1, num_clusters=3).add_stage(torch.arange(10))


def test_interclr_memory_and_clusters() -> None:
    loss = InterCLR(10, 2, 4, num_negatives=3, pool=4, min_cluster_size=2, centroid_every=2)
    assert float(loss(A, IDS)) == 0.0  # no clusters yet
    assert loss.written.nonzero().squeeze(1).tolist() == sorted(IDS.tolist())
    torch.testing.assert_close(loss.memory[IDS], torch.nn.functional.normalize(A))
    loss = warm_interclr()
    q = A.clone().requires_grad_()
    output = loss(q, IDS, generator=generator())
    assert float(output.detach()) > 0
    assert torch.autograd.grad(output, q)[0].abs().sum() > 0
    assert not loss.memory.requires_grad
    untouched = torch.tensor([2, 4, 6, 8])
    torch.testing.assert_close(loss.memory[untouched], torch.nn.functional.normalize(rows(10, seed=4))[untouched])
    nearest = torch.cdist(loss.memory[IDS], loss.clusters.centroids).argmin(dim=1)
    assert torch.equal(loss.clusters.assignments[IDS], nearest)


def test_interclr_dissolves_small_clusters() -> None:
    loss = InterCLR(9, 3, 2, min_cluster_size=2)
    angles = torch.tensor([0.0, 0.02, 0.04, 0.06, 1.5, 1.52, 1.54, 1.56, 3.0])
    loss.memory.copy_(torch.stack([angles.cos(), angles.sin()], dim=1))
    loss.written.fill_(True)
    loss.clusters.set(torch.tensor([0] * 8 + [1]), torch.zeros(3, 2), 0)
    loss.recompute_centroids()
    assigned = loss.clusters.assignments
    assert torch.bincount(assigned, minlength=3).min() >= 1
    assert len(set(assigned[:4].tolist())) <= 2
    for c in range(3):
        torch.testing.assert_close(loss.clusters.centroids[c], loss.memory[assigned == c].mean(dim=0))


def test_dbpm_history() -> None:
    loss = DBPM(10, 4, warmup=2, normalise="none")
    means = torch.zeros(10, 2)
    for epoch in range(2):
        loss.set_epoch(epoch)
        _, parts = split_output(loss(A, B, IDS, return_components=True))
        assert parts["pair_weight"].tolist() == [1.0] * 6
        means[IDS, epoch] = parts["pair_loss"] * (1 + epoch) / 4
    loss.set_epoch(2)
    expected = means.mean(dim=1)[IDS]
    torch.testing.assert_close(loss.history.read(IDS, "mean"), expected)
    torch.testing.assert_close(loss.deviation, expected.std(correction=0))
    assert loss.history.read(torch.tensor([2]), "mean").tolist() == pytest.approx([float(expected.mean())])
    wanted = dbpm(A, B, expected, mean=float(loss.mean), deviation=float(loss.deviation), normalise="none")
    torch.testing.assert_close(value(loss(A, B, IDS)), torch.as_tensor(wanted))
    assert loss.history.read(torch.tensor([2]), "count").tolist() == [0.0]
    untrained = DBPM(10, 8)
    untrained.set_epoch(7)  # nothing was seen: weights stay 1
    torch.testing.assert_close(value(untrained(A, B, IDS)), nt_xent(A, B, temperature=0.2))


def test_norm_direction_fits_class_means() -> None:
    loss = NormDirection(3, 4)
    loss.fit(A, LABELS)
    torch.testing.assert_close(loss.class_means[1], A[LABELS == 1].mean(dim=0))
    assert (loss.class_means[2] == 0).all()
    assert torch.isfinite(loss(A, B, LABELS))
    with pytest.raises(ValueError, match=r"features must have shape \(rows, 4\)"):
        loss.fit(A[:, :2], LABELS)


def test_hiclr_queue_leaves_out_the_own_sample() -> None:
    loss = HiCLR(4, 12, temperature=0.3)
    loss([A], B, ids=IDS)
    queue = loss.queue.rows
    got = value(loss([A], A, ids=IDS.flip(0), neighbors=1))
    wanted = hiclr([A], A, queue, ids=IDS.flip(0), queue_ids=IDS, neighbors=1, temperature=0.3)
    torch.testing.assert_close(got, torch.as_tensor(wanted))
    assert len(loss.queue) == 12
    assert HiCLR(4, 12)([A], B) == 0.0


def test_propagation_goes_both_ways() -> None:
    loss = PropagationConsistency(4, transform=False)
    edges, other = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[3, 4], [4, 5]])
    one = propagation_consistency(A, B, edges)
    two = propagation_consistency(B, A, other)
    torch.testing.assert_close(loss(A, B, A, B, edges, other), 0.5 * (one + two))
    pairs = torch.tensor([[0, 1], [2, 3]])
    one, two = propagation_consistency(A, B, edges, pairs=pairs), propagation_consistency(B, A, pairs=pairs.flip(0))
    torch.testing.assert_close(loss(A, B, A, B, edges, pairs=pairs), 0.5 * (one + two))
    assert len(list(PropagationConsistency(4).parameters())) == 2


def test_stateless_modules_call_their_functions() -> None:
    h1, h2 = rows(6, 12).reshape(6, 3, 4), rows(6, 12, 1).reshape(6, 3, 4)
    pairs: list[tuple[object, object]] = [
        (UniCLR(soft_temperature=0.5)([A, B], [B, A]), uniclr([A, B], [B, A], soft_temperature=0.5)),
        (COMET(pyramid=False)(h1, h2, LABELS, LABELS), comet(h1, h2, LABELS, LABELS, pyramid=False)),
        (
            SepCLR(salient_weight=1.0)([A, B], [B, A], LABELS > 0),
            sepclr([A, B], [B, A], LABELS > 0, salient_weight=1.0),
        ),
        (ICNN(k=2)(A, LABELS), icnn(A, LABELS, k=2)),
    ]
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted)


LEARNED: list[tuple[TemperatureLoss, Callable[[Any], Tensor]]] = [
    (UniCLR(Temperature(0.5, learnable=True)), lambda m: m([A, B])),
    (SwAV(4, 5, temperature=Temperature(0.5, learnable=True)), lambda m: m(A, B)),
    (HiCLR(4, 8, temperature=Temperature(0.5, learnable=True)), lambda m: (m([A], B), m([A, B], B))[1]),
    (BaConSoft(Temperature(0.5, learnable=True, num_samples=10)), lambda m: m(A, B, A.abs(), ids=IDS)),
]


@pytest.mark.parametrize(("loss", "call"), LEARNED)
def test_learned_temperatures(loss: TemperatureLoss, call: Callable[[Any], Tensor]) -> None:
    log_temperature = loss.temperature.log_temperature
    assert log_temperature is not None
    assert torch.autograd.grad(call(loss), log_temperature)[0].abs().sum() > 0


Z1, Z2 = rows(6, 3), rows(6, 3, 1)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: lambda a, b, c: BaConSoft()(a, b, torch.nn.functional.one_hot(c, 2).to(a)), (Z1, Z2, LABELS)),
        (lambda: lambda a, b: UniCLR()([a, b]), (Z1, Z2)),
        (lambda: ProtoTriplet(), (Z1, Z2, LABELS)),
        (lambda: lambda a, b: SepCLR(salient_weight=1.0)([a, b], [a, b], LABELS > -1), (Z1, Z2)),
        (lambda: lambda a, b: comet(a[:, None], b[:, None], IDS, IDS, pyramid=False), (Z1, Z2)),
    ],
)
def test_public_contract(make: Callable[[], Callable[..., object]], inputs: tuple[Tensor, ...]) -> None:
    permutable = not isinstance(make(), ProtoTriplet)  # its labels name rows of the prototypes
    check_loss(make, inputs, permutable=permutable)  # type: ignore[arg-type]
