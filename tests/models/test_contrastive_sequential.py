"""Contrastive sequential methods: slow oracles, who is updated when, any encoder, and data that never change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphcl.functional import contrastive_regularizer, nt_xent
from graphcl.models import CL4SRec, CL4SRecConfig, DuoRec, DuoRecConfig, GRU4Rec, GRU4RecConfig, MCLRec, MCLRecConfig
from graphcl.models.base import SequenceBatch
from graphcl.models.registry import register_model, unregister_model
from graphcl.models.settings import ModelConfig
from graphcl.nn import pack_padded
from graphcl.pipelines.batches import Rows, training_windows
from graphcl.pipelines.contrast_rows import ContrastSource, rows_by_target

ITEMS = 11
SIZES: dict[str, Any] = {"hidden": 8, "inner": 8, "layers": 1, "max_length": 5, "dropout": 0.0}
SEQUENCES = [[1, 2, 3, 4], [5], [6, 7], [8, 9, 10, 11, 1, 2, 3, 4], [2, 3, 2, 7], [3, 4, 7, 11, 4]]


def source_of(
    sequences: list[list[int]] = SEQUENCES, *, rows: Rows = "causal", batch_size: int = 100, same_target: bool = True
) -> ContrastSource:
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
    items = np.array([item for sequence in sequences for item in sequence])
    windows = training_windows(items, offsets, max_length=5, stride=1, rows=rows)
    bank = training_windows(items, offsets, max_length=5, rows="prefix")
    return ContrastSource(windows, batch_size, 0, bank, rows_by_target(bank, ITEMS) if same_target else None)


def batch_of(epoch: int = 0, **options: Any) -> SequenceBatch:
    return next(iter(source_of(**options).batches(epoch, 0, 1)))


def seeded(make: Callable[..., Any], config: Any, **options: Any) -> Any:
    return make(ITEMS, config, generator=torch.Generator().manual_seed(1), **options).double()


class LastItems(nn.Module):
    """An encoder of one's own: the mean of the items, weighted by place; nothing but what the protocol asks."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(ITEMS + 1, 6, generator=torch.Generator().manual_seed(2)))

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        place = torch.arange(item_seq.shape[1])
        weight = (place + 1.0).where(place < lengths[:, None], torch.zeros(())).to(self.table.dtype)
        return torch.einsum("bl,bld->bd", weight / weight.sum(1, keepdim=True), self.table[item_seq])

    def item_embeddings(self) -> Tensor:
        return self.table[1:]


def test_rows_are_prefixes_of_their_windows_and_partners_share_the_target() -> None:
    pairs = {(tuple(s[max(0, t - 5) : t]), s[t]) for s in SEQUENCES for t in range(1, len(s))}
    seen = set()
    for epoch in range(30):
        batch = batch_of(epoch)
        contrast = batch.contrast
        assert contrast is not None
        assert contrast.same_target is not None
        flat = batch.sequences.items.flatten()
        for row in range(contrast.targets.shape[0]):
            items = tuple(contrast.rows.items[row][: contrast.rows.lengths[row]].tolist())
            target = int(contrast.targets[row])
            assert (items, target) in pairs
            assert int(flat[contrast.slots[row]]) == items[-1]
            partner = tuple(contrast.same_target.items[row][: contrast.same_target.lengths[row]].tolist())
            assert (partner, target) in pairs
            others = {prefix for prefix, item in pairs if item == target} - {items}
            assert partner in others or not others
            seen.add((items, target))
    assert seen == pairs
    again = batch_of(3).contrast
    assert again is not None
    assert torch.equal(again.rows.items, next(iter(source_of().batches(3, 0, 1))).contrast.rows.items)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["un", "su", "us", "us_x"])
def test_causal_duorec_equals_prefix_rows(mode: Any) -> None:
    """With one target a user, causal steps and prefix steps are the same; with more, the slow sum over prefix rows."""
    model = seeded(DuoRec, DuoRecConfig(mode=mode, **SIZES)).eval()
    single = [[1, 2], [3, 2], [4, 5], [6, 5], [7, 2]]
    causal, prefix = (batch_of(sequences=single, rows=rows) for rows in ("causal", "prefix"))
    torch.testing.assert_close(model.objective(causal)[0], model.objective(prefix)[0])

    batch = batch_of()
    contrast = batch.contrast
    assert contrast is not None
    assert contrast.same_target is not None
    entropy = []
    for sequence in SEQUENCES:
        for place in range(1, len(sequence)):
            window = torch.tensor([sequence[max(0, place - 5) : place]])
            scores = model.item_embeddings() @ model(window, torch.tensor([window.shape[1]]))[0]
            entropy.append(scores.logsumexp(0) - scores[sequence[place] - 1])
    h = model(contrast.rows.items, contrast.rows.lengths)
    other = model(contrast.same_target.items, contrast.same_target.lengths)
    terms = {"un": [(h, h)], "su": [(h, other)], "us": [(h, h), (h, other)], "us_x": [(h, other)]}[mode]
    slow = (
        torch.stack(entropy).mean()
        + 0.1 * torch.stack([nt_xent(*pair, temperature=1.0, similarity="dot") for pair in terms]).sum()
    )
    torch.testing.assert_close(model.objective(batch)[0], slow)


@pytest.mark.parametrize("schedule", ["three_step", "joint"])
@pytest.mark.parametrize("contrast_weight", [0.0, 0.1])
def test_causal_mclrec_equals_prefix_rows(schedule: Any, contrast_weight: float) -> None:
    """Every step of the causal pass has the loss of prefix rows, and its cross-entropy is the slow sum over them."""
    config = MCLRecConfig(schedule=schedule, contrast_weight=contrast_weight, **SIZES)
    model = seeded(MCLRec, config).eval()
    single = [[1, 2], [3, 2], [4, 5], [6, 5], [7, 2]]
    causal, prefix = (batch_of(sequences=single, rows=rows) for rows in ("causal", "prefix"))
    views = model.draw_views(model.rows_of(causal))
    for (name, one), (other_name, other) in zip(
        model.training_steps(causal, views), model.training_steps(prefix, views), strict=True
    ):
        assert name == other_name
        torch.testing.assert_close(one(), other())

    # With several targets a user the windows of causal mode hold the targets of all prefix rows.
    whole, rows = batch_of(), batch_of(rows="prefix")
    assert rows.targets.shape == whole.targets.shape
    views = model.draw_views(model.rows_of(whole))
    for step, other_step in zip(model.training_steps(whole, views), model.training_steps(rows, views), strict=True):
        (loss, parts), (other_loss, other_parts) = step[1](), other_step[1]()
        torch.testing.assert_close(loss, other_loss)
        torch.testing.assert_close(parts, other_parts)
    entropy = []
    for sequence in SEQUENCES:
        for place in range(1, len(sequence)):
            window = torch.tensor([sequence[max(0, place - 5) : place]])
            scores = model.item_embeddings() @ model(window, torch.tensor([window.shape[1]]))[0]
            entropy.append(scores.logsumexp(0) - scores[sequence[place] - 1])
    torch.testing.assert_close(model.encoder_objective(whole, views)[1]["cross_entropy"], torch.stack(entropy).mean())


@pytest.mark.parametrize("encoder", ["sasrec", "gru4rec"])
@pytest.mark.parametrize("mask_row", [False, True])
def test_packed_views_equal_padded_ones(encoder: str, mask_row: bool) -> None:
    model = seeded(CL4SRec, CL4SRecConfig(encoder=encoder, mask_row=mask_row, **SIZES)).eval()
    batch = batch_of()
    assert batch.contrast is not None
    torch.manual_seed(0)
    views = model.draw_views(batch.contrast)
    loss = model.objective_of_views(batch, views)[0]
    first, second = model(*views.padded()).chunk(2)
    entropy, _, _ = model.next_item_loss(batch)
    torch.testing.assert_close(loss, entropy + 0.1 * nt_xent(first, second, temperature=1.0, similarity="dot"))
    assert bool((views.items == ITEMS + 1).any()) == mask_row


@pytest.mark.parametrize("rows", ["causal", "prefix"])
def test_an_encoder_of_ones_own_needs_forward_and_item_embeddings_only(rows: Any) -> None:
    batch = batch_of(rows=rows)
    model = seeded(DuoRec, DuoRecConfig(mode="us", max_length=5), encoder=LastItems())
    loss, parts = model.objective(batch)
    assert set(parts) == {"cross_entropy", "contrast"}
    items, lengths = batch.sequences.padded()
    slots = batch.sequences.slots
    owner = batch.sequences.segments.flatten()[slots]
    prefixes = batch.sequences.positions.flatten()[slots] + 1
    encoded = torch.zeros(batch.sequences.items.numel(), 6, dtype=torch.float64).index_copy(
        0, slots, model(items[owner], prefixes)
    )
    slow = encoded[batch.supervised] @ model.item_embeddings().T
    expected = nn.functional.cross_entropy(slow, batch.targets - 1)
    torch.testing.assert_close(parts["cross_entropy"], expected.detach())
    loss.backward()
    assert bool(model.encoder.table.grad.abs().sum() > 0)
    torch.testing.assert_close(model.encode_last(batch.sequences), model(items, lengths))


def test_gru_is_causal_and_padding_invariant() -> None:
    model = seeded(GRU4Rec, GRU4RecConfig(hidden=8, inner=6, layers=2, dropout=0.0))
    items = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    lengths = torch.tensor([4, 2])
    packed = pack_padded(items, lengths)
    every = model.encode_packed(packed)
    torch.testing.assert_close(every[packed.last], model(items, lengths))
    torch.testing.assert_close(model.encode_last(packed), model(items, lengths))
    torch.testing.assert_close(model(items[1:, :2], lengths[1:]), model(items, lengths)[1:])
    changed = items.clone()
    changed[0, 3] = 9
    later = model.encode_packed(pack_padded(changed, lengths))
    assert torch.equal(every[packed.slots[:3]], later[packed.slots[:3]])
    assert not torch.equal(every[packed.slots[3]], later[packed.slots[3]])
    with pytest.raises(ValueError, match="num_items must be at least 1"):
        GRU4Rec(0)


def snapshot(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(module: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(module.parameters(), before, strict=True))


def test_each_step_of_mclrec_moves_its_own_group_only() -> None:
    from graphcl.pipelines.training import TrainingPlan, _TrainedModule

    model = seeded(MCLRec, MCLRecConfig(contrast_weight=0.1, meta_weight=0.2, **SIZES))
    module = _TrainedModule(model, TrainingPlan(1, 0.01))
    moved = []
    for name, objective in model.training_steps(batch_of()):
        before = snapshot(model.encoder), snapshot(model.augmenters)
        with module._only(name):
            loss, _ = objective()
            model.zero_grad()
            loss.backward()
        assert all(parameter.requires_grad for parameter in model.parameters())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
        moved.append((name, not same(model.encoder, before[0]), not same(model.augmenters, before[1])))
    assert moved == [("encoder", True, False), ("augmenters", False, True), ("encoder", True, False)]
    two = seeded(MCLRec, MCLRecConfig(schedule="two_stage", **SIZES))
    assert [name for name, _ in two.training_steps(batch_of())] == ["encoder", "augmenters"]
    joint = seeded(MCLRec, MCLRecConfig(schedule="joint", **SIZES))
    assert list(joint.parameter_groups()) == ["all"]
    loss, _ = joint.objective(batch_of())
    loss.backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in joint.augmenters.parameters())


def test_detached_second_stage_has_the_augmenter_gradient_of_the_whole() -> None:
    model = seeded(MCLRec, MCLRecConfig(**SIZES))
    batch = batch_of()
    views = model.draw_views(model.rows_of(batch))
    parameters = list(model.augmenters.parameters())
    given = torch.autograd.grad(model.augmenter_objective(views)[0], parameters)
    first, second = model.encode_last(views).chunk(2)
    meta, margins = model._meta_terms(first, second)
    whole = torch.autograd.grad(meta + 0.1 * margins, parameters)
    for one, other in zip(given, whole, strict=True):
        torch.testing.assert_close(one, other)


def slow_regularizer(z1: Tensor, z2: Tensor, form: str) -> Tensor:
    rows = torch.cat([z1, z2])
    num = z1.shape[0]
    scores = rows @ rows.T
    positive = torch.stack([scores[i, (i + num) % (2 * num)] for i in range(2 * num)])
    negative = torch.stack([scores[i, [j for j in range(2 * num) if j % num != i % num]] for i in range(2 * num)])
    if form == "paper":
        low, high = torch.minimum(positive.min(), negative.max()), torch.maximum(positive.min(), negative.max())
        return torch.relu(positive - low).mean() + torch.relu(high - negative).mean()
    hardest = negative.amax(1)
    low, high = torch.minimum(positive, hardest), torch.maximum(positive, hardest)
    return torch.relu(positive - low).mean() + torch.relu(high[:, None] - negative).mean()


@pytest.mark.parametrize("form", ["code", "paper"])
def test_regularizer_equals_its_definition(form: Any) -> None:
    generator = torch.Generator().manual_seed(4)
    z1, z2 = (torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    torch.testing.assert_close(contrastive_regularizer(z1, z2, form=form), slow_regularizer(z1, z2, form))
    cold = contrastive_regularizer(z1, z2, form=form, temperature=0.25)
    torch.testing.assert_close(cold, 4 * contrastive_regularizer(z1, z2, form=form))
    assert torch.autograd.gradcheck(lambda a, b: 0.73 * contrastive_regularizer(a, b, form=form), (z1, z2))
    torch.testing.assert_close(contrastive_regularizer(z1, z2), contrastive_regularizer(z2, z1))
    assert contrastive_regularizer(z1[:1], z2[:1], form=form).item() == 0.0
    with pytest.raises(ValueError, match="form must be"):
        contrastive_regularizer(z1, z2, form="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="similarity must be"):
        contrastive_regularizer(z1, z2, similarity="sqeuclidean")


OBJECTIVES: dict[str, Callable[[], Any]] = {
    "cl4srec": lambda: seeded(CL4SRec, CL4SRecConfig(**SIZES)),
    "duorec": lambda: seeded(DuoRec, DuoRecConfig(**SIZES)),
    "mclrec": lambda: seeded(MCLRec, MCLRecConfig(contrast_weight=0.1, schedule="joint", **SIZES)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_of_the_objectives(name: str) -> None:
    model, batch = OBJECTIVES[name](), batch_of()
    table = model.encoder.item_embedding.weight
    direction = torch.randn(table.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    direction[0] = 0.0  # looking up padding passes no gradient

    def value() -> Tensor:
        torch.manual_seed(3)
        loss: Tensor = 0.73 * model.objective(batch)[0]
        return loss

    slope = float((torch.autograd.grad(value(), table)[0] * direction).sum())
    with torch.no_grad():
        table += 1e-6 * direction
        above = float(value())
        table -= 2e-6 * direction
        below = float(value())
    assert slope == pytest.approx((above - below) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_epoch_leaves_the_stored_sequences_as_they_were(name: str) -> None:
    source = source_of(batch_size=6)
    stored = source.windows.items.copy()
    model = OBJECTIVES[name]()
    for batch in source.batches(0, 0, 1):
        kept = batch.sequences.items.clone(), batch.contrast.rows.items.clone()  # type: ignore[union-attr]
        model.objective(batch)[0].backward()
        assert torch.equal(batch.sequences.items, kept[0])
        assert torch.equal(batch.contrast.rows.items, kept[1])  # type: ignore[union-attr]
    assert np.array_equal(source.windows.items, stored)


def test_processes_share_the_rows_of_a_step() -> None:
    source = source_of(batch_size=3)
    processes = ((0, 1), (0, 3), (1, 3), (2, 3))
    for whole, *shares in zip(*(source.batches(0, rank, world) for rank, world in processes), strict=True):
        assert whole.contrast is not None
        for rank, share in enumerate(shares):
            assert share.contrast is not None
            width = share.contrast.rows.items.shape[1]
            assert torch.equal(share.contrast.rows.items, whole.contrast.rows.items[rank::3, :width])
            assert torch.equal(share.contrast.targets, whole.contrast.targets[rank::3])
            assert share.contrast.same_target is not None
            assert whole.contrast.same_target is not None
            assert torch.equal(share.contrast.same_target.lengths, whole.contrast.same_target.lengths[rank::3])
            last = share.sequences.items.flatten()[share.contrast.slots]
            assert torch.equal(
                last, share.contrast.rows.items.gather(1, share.contrast.rows.lengths[:, None] - 1)[:, 0]
            )


@pytest.mark.parametrize("encoder", ["sasrec", "gru4rec", "own"])
@pytest.mark.parametrize("make", [CL4SRec, DuoRec, MCLRec])
def test_a_process_without_rows_takes_part(make: Any, encoder: str) -> None:
    own = {"encoder": LastItems()} if encoder == "own" else {}
    config = make.config_class(**SIZES, **({} if own else {"encoder": encoder}))
    model = seeded(make, config, **own)
    batches = [list(source_of(batch_size=1).batches(0, rank, 2)) for rank in (0, 1)]
    empty = [share for share in batches[1] if share.targets.numel() == 0]
    assert empty
    steps = list(model.training_steps(empty[0])) if make is MCLRec else [("all", lambda: model.objective(empty[0]))]
    for _, objective in steps:
        loss, _ = objective()
        assert loss == 0
        loss.backward()
        for parameter in model.parameters():
            assert parameter.grad is None or not parameter.grad.any()


def test_models_refuse_what_they_cannot_use() -> None:
    batch = batch_of(same_target=False)
    with pytest.raises(ValueError, match="rows of the same target"):
        seeded(DuoRec, DuoRecConfig(**SIZES)).objective(batch)
    bare = SequenceBatch(batch.sequences, batch.supervised, batch.targets, batch.total)
    with pytest.raises(ValueError, match="needs batches with contrast rows"):
        seeded(CL4SRec, CL4SRecConfig(**SIZES)).objective(bare)
    assert set(seeded(CL4SRec, CL4SRecConfig(contrast_weight=0.0, **SIZES)).objective(bare)[1]) == {"cross_entropy"}
    with pytest.raises(ValueError, match="a contrastive method cannot encode for another"):
        CL4SRecConfig(encoder="duorec")
    with pytest.raises(ValueError, match="did you mean 'gru4rec'"):
        CL4SRecConfig(encoder="gru4re")
    with pytest.raises(ValueError, match="no such encoder; use one of: gru4rec, sasrec"):
        CL4SRecConfig(encoder="foo")
    with pytest.raises(ValueError, match="hidden must be a multiple of heads, got 15 and 2"):
        CL4SRecConfig(hidden=15)


def test_an_encoder_is_known_by_its_name_in_any_case() -> None:
    assert DuoRecConfig(encoder="SASRec") == DuoRecConfig()
    assert DuoRecConfig(encoder="GRU4Rec").layers == 1
    assert CL4SRecConfig(encoder="gru4rec", hidden=15).encoder_config() == GRU4RecConfig(hidden=15, mask_row=True)


class LastItemsConfig(ModelConfig):
    max_length: int = 5
    decay: float = 1.0


class NamedLastItems(LastItems):
    config_class = LastItemsConfig

    def __init__(self, num_items: int, config: LastItemsConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.decay = config.decay


@pytest.fixture
def last_items() -> Iterator[None]:
    register_model("last-items", task="sequential")(NamedLastItems)
    yield
    unregister_model("last-items")


@pytest.mark.usefixtures("last_items")
def test_a_registered_encoder_has_settings_of_its_own() -> None:
    model = seeded(DuoRec, DuoRecConfig(encoder="last-items", encoder_settings={"decay": 0.5}, max_length=5))
    assert model.encoder.decay == 0.5
    assert seeded(DuoRec, DuoRecConfig(encoder="last-items", max_length=5)).encoder.decay == 1.0
    with pytest.raises(ValueError, match="last-items has no setting 'decays' of its own; did you mean 'decay'"):
        DuoRecConfig(encoder="last-items", encoder_settings={"decays": 0.5})
    with pytest.raises(ValueError, match="sasrec has no setting 'decay' of its own; leave encoder_settings out"):
        DuoRecConfig(encoder_settings={"decay": 0.5})
    with pytest.raises(ValueError, match="max_length in encoder_settings is no setting of the encoder alone"):
        DuoRecConfig(encoder="last-items", encoder_settings={"max_length": 5})
    with pytest.raises(ValueError, match=r"decay: .*number"):
        DuoRecConfig(encoder="last-items", encoder_settings={"decay": "slow"})


@pytest.mark.usefixtures("last_items")
def test_an_encoder_without_a_mask_row_masks_with_padding() -> None:
    torch.manual_seed(0)
    for model in (
        seeded(CL4SRec, CL4SRecConfig(max_length=5), encoder=LastItems()),
        seeded(CL4SRec, CL4SRecConfig(encoder="last-items", max_length=5)),
        seeded(CL4SRec, CL4SRecConfig(**SIZES), encoder=GRU4Rec(ITEMS, GRU4RecConfig(hidden=8))),
    ):
        assert model.mask_id == 0
        assert model.objective(batch_of())[0].isfinite()
    assert seeded(CL4SRec, CL4SRecConfig(**SIZES)).mask_id == ITEMS + 1
