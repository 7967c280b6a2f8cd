from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graphcl.losses import ClusterState, EMAEncoder, FeatureQueue, PerSampleState, Prototypes


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def through_file(module: nn.Module, fresh: nn.Module, folder: Path) -> None:
    """Save one module and load its state into another, through a file."""
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, folder / "state.safetensors")
    fresh.load_state_dict(load_file(folder / "state.safetensors"))


def test_queue_is_a_ring_of_the_last_rows() -> None:
    queue, pushed, ids = FeatureQueue(5, 2, integers=("ids", "labels")), [], []
    for step, size in enumerate([2, 2, 3, 1, 4, 7, 0, 2]):
        new = rows(size, 2, seed=step)
        names = torch.arange(size) + 10 * step
        queue.push(new, ids=names, labels=-names)
        pushed += list(nn.functional.normalize(new))
        ids += names.tolist()
        kept = dict(zip(ids[-5:], pushed[-5:], strict=True))
        assert len(queue) == len(kept)
        assert sorted(queue.integers("ids").tolist()) == sorted(kept)
        assert torch.equal(queue.integers("labels"), -queue.integers("ids"))
        for name, row in zip(queue.integers("ids").tolist(), queue.rows, strict=True):
            assert torch.allclose(row, kept[name])


def test_queue_continues_after_a_checkpoint(tmp_path: Path) -> None:
    straight = FeatureQueue(4, 2, integers=("ids",))
    straight.push(rows(3, 2), ids=torch.arange(3))
    resumed = FeatureQueue(4, 2, integers=("ids",))
    through_file(straight, resumed, tmp_path)
    for queue in (straight, resumed):
        queue.push(rows(3, 2, seed=1), ids=torch.arange(3, 6))
    assert torch.equal(straight.rows, resumed.rows)
    assert torch.equal(straight.integers("ids"), resumed.integers("ids"))
    assert len(resumed) == 4


def test_queue_keeps_no_gradient_and_hands_out_copies() -> None:
    queue = FeatureQueue(3, 2)
    source = rows(2, 2).requires_grad_()
    queue.push(source)
    before = queue.rows
    assert not before.requires_grad
    queue.push(rows(3, 2, seed=2))
    assert torch.allclose(before, nn.functional.normalize(source.detach()))


def test_queue_moves_with_the_module() -> None:
    holder = nn.ModuleDict({"queue": FeatureQueue(3, 2)}).double()
    queue = holder["queue"]
    assert isinstance(queue, FeatureQueue)
    queue.push(rows(1, 2))
    assert queue.rows.dtype == torch.float64
    assert queue.position.dtype == torch.int64


@pytest.mark.parametrize(
    ("shape", "integers", "message"),
    [
        ((2, 3), {"ids": torch.arange(2)}, r"rows must have shape \(rows, 2\)"),
        ((2, 2), {}, r"push needs \['ids'\] beside the rows, got \[\]"),
        ((2, 2), {"ids": torch.arange(3)}, r"ids must have shape \(2,\)"),
    ],
)
def test_queue_names_what_does_not_fit(shape: tuple[int, int], integers: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureQueue(4, 2, integers=("ids",)).push(rows(*shape), **integers)


def test_queue_refuses_empty_sizes_and_unknown_names() -> None:
    with pytest.raises(ValueError, match="size and dim must be at least 1, got 0 and 2"):
        FeatureQueue(0, 2)
    with pytest.raises(ValueError, match="the queue keeps no integers, got 'ids'"):
        FeatureQueue(2, 2).integers("ids")


def encoder(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_slow_encoder_averages_parameters_and_copies_buffers() -> None:
    online = encoder(0)
    slow = EMAEncoder(online, momentum=0.9)
    start = copy.deepcopy(online)
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(1.0)
    online(rows(8, 2))
    slow.update(online)
    for old, new, got in zip(start.parameters(), online.parameters(), slow.encoder.parameters(), strict=True):
        assert torch.allclose(got, 0.9 * old + 0.1 * new)
    for new_buffer, got_buffer in zip(online.buffers(), slow.encoder.buffers(), strict=True):
        assert torch.equal(got_buffer, new_buffer)
    slow.update(online, momentum=0.0)
    for new, got in zip(online.parameters(), slow.encoder.parameters(), strict=True):
        assert torch.allclose(got, new)


def test_slow_encoder_has_no_gradient_and_keeps_only_the_copy(tmp_path: Path) -> None:
    online = encoder(0)
    slow = EMAEncoder(online)
    assert not slow(rows(4, 2)).requires_grad
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())
    assert len(slow.state_dict()) == len(online.state_dict())
    resumed = EMAEncoder(encoder(7))
    through_file(slow, resumed, tmp_path)
    for module in (slow, resumed):
        module.update(encoder(3))
    assert torch.equal(slow.encoder[0].weight, resumed.encoder[0].weight)  # type: ignore[index]


def test_slow_encoder_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"momentum must lie in 0 \.\. 1, got 1.5"):
        EMAEncoder(encoder(0), momentum=1.5)
    with pytest.raises(ValueError, match=r"encoder must have the parameters of the copied one, 0\.weight"):
        EMAEncoder(encoder(0)).update(nn.Linear(2, 3))


def test_per_sample_state_touches_only_its_ids(tmp_path: Path) -> None:
    state = PerSampleState(6, {"log_u": -torch.inf, "tau": 0.5})
    ids = torch.tensor([4, 1], dtype=torch.int32)
    state.write(ids, log_u=torch.tensor([1.0, 2.0]), tau=torch.tensor([0.1, 0.2]))
    assert state.read(ids, "log_u").tolist() == [1.0, 2.0]
    assert state.vector("tau").tolist() == pytest.approx([0.5, 0.2, 0.5, 0.5, 0.1, 0.5])
    assert state.vector("log_u").tolist()[::2] == [-torch.inf, -torch.inf, 1.0]
    resumed = PerSampleState(6, {"log_u": 0.0, "tau": 0.0})
    through_file(state, resumed, tmp_path)
    for name in state.names:
        assert torch.equal(state.vector(name), resumed.vector(name))


def test_per_sample_state_names_what_does_not_fit() -> None:
    state = PerSampleState(3, {"tau": 0.5})
    with pytest.raises(IndexError, match=r"ids holds 3, outside 0 \.\. 2"):
        state.read(torch.tensor([0, 3]), "tau")
    with pytest.raises(IndexError, match="ids holds -1"):
        state.write(torch.tensor([-1]), tau=torch.zeros(1))
    with pytest.raises(ValueError, match="the state keeps tau, got 'u'"):
        state.read(torch.tensor([0]), "u")
    with pytest.raises(ValueError, match=r"tau must have shape \(2,\), got shape \(1,\)"):
        state.write(torch.tensor([0, 1]), tau=torch.zeros(1))
    with pytest.raises(ValueError, match="ids must be a vector of integers"):
        state.read(torch.zeros(2), "tau")
    with pytest.raises(ValueError, match="must not be empty"):
        PerSampleState(0, {"tau": 0.5})


def blobs() -> Tensor:
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    return centres.repeat_interleave(5, dim=0) + 0.1 * rows(15, 2)


def test_clusters_are_found_kept_and_refreshed_on_time(tmp_path: Path) -> None:
    state = ClusterState(15, 3, 2, refresh_every=4, seed=1)
    assert state.due(0)
    state.refresh(blobs(), epoch=2)
    groups = state.assignments.view(3, 5)
    assert bool((groups == groups[:, :1]).all())
    assert len(set(groups[:, 0].tolist())) == 3
    assert torch.allclose(state.centroids[groups[:, 0]], blobs().view(3, 5, 2).mean(dim=1), atol=1e-5)
    assert [state.due(epoch) for epoch in (2, 5, 6, 9)] == [False, False, True, True]
    assert torch.equal(state.assign(blobs()), state.assignments)
    resumed = ClusterState(15, 3, 2, refresh_every=4, seed=1)
    through_file(state, resumed, tmp_path)
    for one in (state, resumed):
        one.refresh(blobs() + 0.05, epoch=6)
    assert torch.equal(state.assignments, resumed.assignments)
    assert torch.equal(state.centroids, resumed.centroids)
    assert torch.equal(state.assignments.view(3, 5), groups)


def test_same_seed_same_clusters() -> None:
    first, second = ClusterState(40, 7, 3, seed=5), ClusterState(40, 7, 3, seed=5)
    for state in (first, second):
        state.refresh(rows(40, 3), epoch=0)
    assert torch.equal(first.assignments, second.assignments)


def test_clusters_name_what_does_not_fit() -> None:
    state = ClusterState(4, 2, 3)
    with pytest.raises(ValueError, match=r"embeddings must have shape \(4, 3\), got shape \(5, 3\)"):
        state.refresh(rows(5, 3), epoch=0)
    with pytest.raises(ValueError, match=r"assignments must have shape \(4,\)"):
        state.set(torch.zeros(3), rows(2, 3), 0)
    with pytest.raises(ValueError, match=r"num_clusters must lie in 1 \.\. 4 \(num_samples\), got 5"):
        ClusterState(4, 5, 3)
    with pytest.raises(ValueError, match="refresh_every and dim must be at least 1, got 0 and 3"):
        ClusterState(4, 2, 3, refresh_every=0)


def test_prototypes_are_unit_rows_learned_or_moved() -> None:
    draw = torch.Generator().manual_seed(0)
    learned = Prototypes(3, 4, generator=draw)
    with torch.no_grad():
        learned.weight.mul_(3.0)
    assert torch.allclose(learned().norm(dim=1), torch.ones(3))
    learned().sum().backward()
    assert learned.weight.grad is not None
    learned.normalize()
    assert torch.allclose(learned.weight.norm(dim=1), torch.ones(3))

    moved = Prototypes(3, 4, learnable=False, momentum=0.5, generator=draw)
    assert list(moved.parameters()) == []
    before, features = moved().clone(), rows(2, 4)
    weights = torch.tensor([[1.0, 0.0, 0.25], [0.0, 0.0, 0.75]])
    moved.update(features, weights)
    mean = 0.25 * features[0] + 0.75 * features[1]
    assert torch.allclose(moved()[0], nn.functional.normalize(before[0] + features[0], dim=0))
    assert torch.equal(moved.weight[1], before[1])
    assert torch.allclose(moved()[2], nn.functional.normalize(before[2] + mean, dim=0))


def test_prototypes_name_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="num_prototypes and dim must be at least 1, got 0 and 2"):
        Prototypes(0, 2)
    with pytest.raises(ValueError, match=r"weights must have shape \(2, 3\), got shape \(2, 2\)"):
        Prototypes(3, 4).update(rows(2, 4), rows(2, 2))


def test_descriptions_say_the_sizes() -> None:
    assert "size=3, dim=2" in repr(FeatureQueue(3, 2))
    assert "momentum=0.5" in repr(EMAEncoder(nn.Linear(1, 1), 0.5))
    assert "num_samples=3" in repr(PerSampleState(3, {"u": 0.0}))
    assert "num_clusters=2" in repr(ClusterState(3, 2, 1))
    assert "num_prototypes=2, dim=3, learnable=True" in repr(Prototypes(2, 3))
