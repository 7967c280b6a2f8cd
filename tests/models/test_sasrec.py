"""SASRec against the published code's numbers and the properties that its training rests on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graphcl.models import SASRec, SASRecConfig
from graphcl.nn import pack_sequences
from graphcl.pipelines.batches import make_batch, training_windows

GOLDEN = Path(__file__).parents[1] / "golden" / "sequential-recommendation.json"
# Names of the golden file beside those of RecBole.
PARTS = {
    "query": "multi_head_attention.query",
    "key": "multi_head_attention.key",
    "value": "multi_head_attention.value",
    "attn_out": "multi_head_attention.dense",
    "ln1": "multi_head_attention.LayerNorm",
    "ffn1": "feed_forward.dense_1",
    "ffn2": "feed_forward.dense_2",
    "ln2": "feed_forward.LayerNorm",
}


def case(name: str) -> dict[str, Any]:
    cases: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
    return next(entry for entry in cases if entry["id"] == name)


def published_names(name: str) -> str:
    first, *rest = name.split(".")
    if first == "emb_ln":
        return f"LayerNorm.{rest[0]}"
    if first.startswith("layer"):
        return f"trm_encoder.layer.{first.removeprefix('layer')}.{PARTS[rest[0]]}.{rest[1]}"
    return f"{first}.weight"


def oracle_model(**changes: Any) -> SASRec:
    inputs = case("sasrec_encoder")["inputs"]
    state = {}
    for entry in inputs["params"]:
        place = torch.arange(math.prod(entry["shape"]), dtype=torch.float64)
        values = entry["base"] + entry["scale"] * torch.sin(entry["step"] * place + entry["k"])
        state[published_names(entry["name"])] = values.view(entry["shape"])
    model = SASRec.from_recbole_state(state, heads=inputs["n_heads"], mask_row=True)
    if changes:
        other = SASRec(model.num_items, model.config.model_copy(update=changes)).double()
        other.load_state_dict(model.state_dict())
        model = other
    return model.eval()


def oracle_inputs() -> tuple[Tensor, Tensor, Tensor]:
    inputs = case("sasrec_encoder")["inputs"]
    return torch.tensor(inputs["item_seq"]), torch.tensor(inputs["item_len"]), torch.tensor(inputs["target"])


def test_encoder_losses_and_ranks_equal_the_published_code() -> None:
    expected = case("sasrec_encoder")["expected"]
    sequences, lengths, targets = oracle_inputs()
    model = oracle_model()
    hidden = model(sequences, lengths)
    torch.testing.assert_close(hidden, torch.tensor(expected["h"], dtype=torch.float64), rtol=0, atol=1e-8)
    without = float(model.cross_entropy(hidden, targets).detach())
    assert without == pytest.approx(expected["ce_without_padding_class"], abs=1e-8)
    with_padding = float(oracle_model(padding_class=True).cross_entropy(hidden, targets).detach())
    assert with_padding == pytest.approx(expected["ce_with_padding_class"], abs=1e-8)
    scores = hidden @ model.item_embeddings().T
    row = torch.tensor(expected["scores_row0_ids_1_to_n_minus_1"], dtype=torch.float64)
    torch.testing.assert_close(scores[0].detach(), row, rtol=0, atol=1e-8)
    target_scores = scores.gather(1, targets[:, None] - 1)
    assert (1 + (scores > target_scores).sum(1)).tolist() == expected["target_rank"]


def test_left_padded_input_equals_the_published_code() -> None:
    expected = case("sasrec_encoder_left_padded")["expected"]
    sequences, lengths, targets = oracle_inputs()
    left = torch.stack([row.roll(int(row.shape[0] - length)) for row, length in zip(sequences, lengths, strict=True)])
    model = oracle_model()
    hidden = model.encode_positions(left)[:, -1]
    torch.testing.assert_close(hidden, torch.tensor(expected["h"], dtype=torch.float64), rtol=0, atol=1e-8)
    loss = float(model.cross_entropy(hidden, targets).detach())
    assert loss == pytest.approx(expected["ce_without_padding_class"], abs=1e-8)


def test_packed_histories_equal_padded_ones() -> None:
    sequences, lengths, _ = oracle_inputs()
    model = oracle_model()
    flat = torch.cat([row[:length] for row, length in zip(sequences, lengths.tolist(), strict=True)]).numpy()
    packed = pack_sequences(flat, np.concatenate([[0], np.cumsum(lengths.numpy())]))
    assert packed.items.shape[0] < sequences.shape[0]
    torch.testing.assert_close(model.encode_packed(packed)[packed.last], model(sequences, lengths))
    torch.testing.assert_close(model.encode_last(packed), model(sequences, lengths))


def test_a_later_item_changes_no_earlier_output() -> None:
    model = oracle_model()
    before = torch.tensor([[1, 2, 3, 4, 5, 6]])
    after = torch.tensor([[1, 2, 3, 9, 5, 6]])
    one, other = model.encode_positions(before), model.encode_positions(after)
    assert torch.equal(one[:, :3], other[:, :3])
    assert not torch.isclose(one[:, 3:], other[:, 3:]).all(-1).any()


def test_padding_changes_nothing_and_gives_no_nan() -> None:
    model = oracle_model()
    lengths = torch.tensor([3])
    short, long = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3, 0, 0, 0]])
    torch.testing.assert_close(model(short, lengths), model(long, lengths))
    empty = model.encode_positions(torch.zeros(1, 4, dtype=torch.int64))
    assert torch.isfinite(empty).all()


def prefix_loss(model: SASRec, items: list[list[int]]) -> float:
    """Mean cross-entropy over every prefix row, each encoded by itself."""
    losses = []
    for sequence in items:
        for place in range(1, len(sequence)):
            window = torch.tensor([sequence[max(0, place - model.config.max_length) : place]])
            hidden = model(window, torch.tensor([window.shape[1]]))[0]
            scores = model.item_embeddings() @ hidden
            losses.append(float(scores.logsumexp(0) - scores[sequence[place] - 1]))
    return sum(losses) / len(losses)


SEQUENCES = [[1, 2, 3, 4], [5], [6, 7], [], [8, 9, 10, 11, 1, 2, 3, 4, 5, 6, 7, 3], [2, 2, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize("rows", ["causal", "prefix"])
def test_one_causal_pass_equals_all_prefix_rows(rows: Any) -> None:
    model = oracle_model()
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in SEQUENCES])])
    flat = np.array([item for sequence in SEQUENCES for item in sequence])
    windows = training_windows(flat, offsets, max_length=6, stride=1, rows=rows)
    batch = make_batch(windows, np.arange(windows.num_windows))
    with torch.no_grad():
        loss, parts = model.objective(batch)
        assert float(loss) == pytest.approx(prefix_loss(model, SEQUENCES), abs=1e-10)
    assert parts == {"cross_entropy": loss}


@pytest.mark.parametrize("padding_class", [False, True])
def test_objective_gradient_equals_that_of_separate_lookups(padding_class: bool) -> None:
    model = oracle_model(padding_class=padding_class)
    windows = training_windows(np.array([1, 2, 3, 4, 5]), np.array([0, 5]), max_length=6)
    batch = make_batch(windows, np.array([0]))
    names, parameters = zip(*model.named_parameters(), strict=True)
    given = torch.autograd.grad(model.objective(batch)[0], parameters)
    hidden = model.encode_positions(torch.tensor([[1, 2, 3, 4]]))[0]
    first = 0 if padding_class else 1
    scores = hidden @ model.item_embedding.weight[first : model.num_items + 1].T
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor([2, 3, 4, 5]) - first)
    expected = torch.autograd.grad(loss, parameters)
    for name, one, other in zip(names, given, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12), name
    table = given[names.index("item_embedding.weight")]
    assert bool(table[0].any()) == padding_class
    assert not table[-1].any()  # the mask row is never scored


def test_initial_weights_are_a_function_of_the_generator() -> None:
    config = SASRecConfig(hidden=8, inner=8)
    one, other = (SASRec(5, config, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_items must be at least 1, got 0"):
        SASRec(0)
    with pytest.raises(ValueError, match=r"item_seq is longer \(3\) than max_length \(2\)"):
        SASRec(4, SASRecConfig(max_length=2)).encode_positions(torch.ones(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="hidden must be a multiple of heads"):
        SASRecConfig(hidden=5, heads=2)
