"""Cases of sequential recommendation: SASRec, splits, ranking metrics, published weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphcl.data import EvaluationSet, Interactions, leave_one_out, prefix_rows, same_target_rows
from graphcl.kernels import knn, linear_cross_entropy
from graphcl.metrics import evaluate_ranking, rank_of_targets, rank_of_targets_by_score, ranking_metrics
from graphcl.models.sasrec import SASRec
from replay_cases.registry import Case, NotCovered, Partial, case, data_file

_WAVE = (("step", 1.0), ("k", 0.0), ("base", 0.0), ("scale", 1.0))


def filled(spec: Mapping[str, Any]) -> Tensor:
    """base + scale * sin(step * p + k) over the flat index p, in the given shape."""
    shape = spec["shape"]
    index = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    step, k, base, scale = (float(spec.get(key, neutral)) for key, neutral in _WAVE)
    return (base + scale * torch.sin(step * index + k)).reshape(shape)


_PUBLISHED_NAMES = {
    "item_embedding": "item_embedding.weight",
    "position_embedding": "position_embedding.weight",
    "emb_ln": "LayerNorm",
    "query": "multi_head_attention.query",
    "key": "multi_head_attention.key",
    "value": "multi_head_attention.value",
    "attn_out": "multi_head_attention.dense",
    "ln1": "multi_head_attention.LayerNorm",
    "ffn1": "feed_forward.dense_1",
    "ffn2": "feed_forward.dense_2",
    "ln2": "feed_forward.LayerNorm",
}


def published_name(name: str) -> str:
    """The RecBole name of a parameter that the oracle calls, for instance, ``layer0.ffn1.weight``."""
    layered = re.fullmatch(r"layer(\d+)\.(\w+)\.(weight|bias)", name)
    if layered:
        layer, part, kind = layered.groups()
        return f"trm_encoder.layer.{layer}.{_PUBLISHED_NAMES[part]}.{kind}"
    part, _, kind = name.partition(".")
    return _PUBLISHED_NAMES[part] + (f".{kind}" if kind else "")


def sasrec_of(inputs: Mapping[str, Any]) -> SASRec:
    """The encoder with the parameters that a case gives, in float64 and without dropout."""
    state = {published_name(spec["name"]): filled(spec) for spec in inputs["params"]}
    extra_rows = state["item_embedding.weight"].shape[0] - inputs["n_ids_including_padding"]
    model = SASRec.from_recbole_state(state, heads=inputs["n_heads"], mask_row=bool(extra_rows), dropout=0.0)
    return model.eval()


@case("sasrec_encoder")
@torch.no_grad()
def sasrec_encoder(one: Case) -> Mapping[str, Any]:
    model = sasrec_of(one.inputs)
    targets = torch.tensor(one.inputs["target"])
    h = model(torch.tensor(one.inputs["item_seq"]), torch.tensor(one.inputs["item_len"]))
    items = model.item_embeddings()
    with_padding = model.item_embedding.weight[: model.num_items + 1]
    return {
        "h": h,
        "ce_with_padding_class": linear_cross_entropy(h, with_padding, targets),
        "ce_without_padding_class": model.cross_entropy(h, targets),
        "scores_row0_ids_1_to_n_minus_1": items @ h[0],
        "target_rank": rank_of_targets(h, items, targets - 1),
    }


@case("sasrec_encoder_left_padded")
@torch.no_grad()
def sasrec_encoder_left_padded(one: Case) -> Mapping[str, Any]:
    inputs = {**one.referenced(str(one.inputs["same_as"])).inputs, **one.inputs}
    model = sasrec_of(inputs)
    item_seq = torch.zeros(len(inputs["item_seq"]), inputs["max_len"], dtype=torch.int64)
    for row, (sequence, length) in enumerate(zip(inputs["item_seq"], inputs["item_len"], strict=True)):
        item_seq[row, inputs["max_len"] - length :] = torch.tensor(sequence[:length])
    h = model.encode_positions(item_seq)[:, -1]
    return {"h": h, "ce_without_padding_class": model.cross_entropy(h, torch.tensor(inputs["target"]))}


@case("semantic_retrieval")
def semantic_retrieval(one: Case) -> Mapping[str, Any]:
    return {"neighbours": knn(filled(one.inputs["embeddings"]), one.inputs["k"], similarity="cosine").indices}


def cutoffs_of(expected: Mapping[str, Any]) -> list[int]:
    """The cut-offs that names such as ``NDCG@10`` ask for."""
    return sorted({int(name.split("@")[1]) for name in expected if re.fullmatch(r"\w+@\d+", name)})


@case("ranking_metrics")
def ranking_metrics_case(one: Case) -> Mapping[str, Any]:
    scores = filled(one.inputs["scores"])
    targets = torch.tensor(one.inputs["target_columns"])
    shape = scores.shape[0], scores.shape[1]
    ranks = rank_of_targets_by_score(lambda rows, columns: scores[rows, columns], shape, targets)
    cutoffs = cutoffs_of(one.expected)
    return {"ranks": ranks, **(ranking_metrics(ranks, ks=cutoffs).to_dict() if cutoffs else {})}


@case("split_and_prefix_rows")
def split_and_prefix_rows(one: Case) -> Mapping[str, Any]:
    max_length = one.inputs["max_len"]
    name = [int(user) for user in one.inputs["sequences"]]
    sequences = list(one.inputs["sequences"].values())
    # Numbered in the order of the file, which need not be that of the ids, so that rows come out in its order.
    users = [number for number, items in enumerate(sequences) for _ in items]
    log = Interactions.from_arrays(users, [item for items in sequences for item in items])
    split = leave_one_out(log)
    rows = prefix_rows(split, max_length)
    item = log.item_ids.external
    groups = same_target_rows(rows.targets, log.num_items)

    def evaluation_rows(part: EvaluationSet) -> list[list[Any]]:
        windows = [part.history[row][-max_length:] for row in range(len(part))]
        columns = zip(part.users, windows, part.target_items, strict=True)
        return [[name[u], item[window].tolist(), item[target].item()] for u, window, target in columns]

    return {
        "train_rows": [
            [name[rows.users[r]], item[rows.window(r)].tolist(), item[rows.targets[r]].item()] for r in range(len(rows))
        ],
        "valid": evaluation_rows(split.evaluation("valid")),
        "test": evaluation_rows(split.evaluation("test")),
        "same_target": [groups.others(r, target=int(rows.targets[r])) for r in range(len(rows))],
    }


@lru_cache(maxsize=1)
def read_sequences(path: Path) -> Interactions:
    from graphcl.data import read_interactions

    return read_interactions(path)


@case("published_checkpoint_beauty")
@torch.no_grad()
def published_checkpoint_beauty(one: Case) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    weights = load_file(data_file("amazon-beauty", "mclrec-published.safetensors"))
    split = leave_one_out(read_sequences(data_file("amazon-beauty", "sequences.txt")))
    # The weights do not tell the number of heads; spec and file use the authors' two. Ids of the file are used as rows.
    model = SASRec.from_recbole_state(weights, heads=2, mask_row=True, dropout=0.0).eval()
    external = torch.from_numpy(split.interactions.item_ids.external.astype(np.int64))
    num_rows = model.num_items

    def user_embeddings(part: EvaluationSet, max_length: int) -> Tensor:
        histories = [external[torch.from_numpy(part.history[row][-max_length:])] for row in range(len(part))]
        item_seq = torch.nn.utils.rnn.pad_sequence(histories, batch_first=True)
        lengths = torch.tensor([history.shape[0] for history in histories])
        order = lengths.argsort()
        encoded = torch.empty(len(part), weights["item_embedding.weight"].shape[1])
        for rows in torch.split(order, 2048):
            width = int(lengths[rows].max())
            encoded[rows] = model(item_seq[rows, :width], lengths[rows])
        return encoded

    results: dict[str, Any] = {}
    for key, expected in one.expected.items():
        part = split.evaluation("test" if key.startswith("test") else "valid")
        masked = "masked" in key
        evaluation = evaluate_ranking(
            user_embeddings(part, model.config.max_length),
            model.item_embeddings(),
            (torch.from_numpy(part.target_offsets), external[torch.from_numpy(part.target_items)] - 1),
            seen="exclude" if masked else "keep",
            history=(torch.from_numpy(part.history_offsets), external[torch.from_numpy(part.history_items)] - 1),
            ks=cutoffs_of(expected),
        )
        results[key] = evaluation.metrics.to_dict()
    if int(external.max()) > num_rows:
        raise ValueError(f"the log holds item {int(external.max())}, the weights only {num_rows}")
    return results


_FOLDERS = {"Amazon_Beauty": "amazon-beauty", "Amazon_Sports": "amazon-sports", "Amazon_Toys": "amazon-toys"}
_FOLDERS |= {"Yelp": "yelp", "Office": "amazon-office", "Beauty": "amazon-beauty", "Sports": "amazon-sports"}


def folder_of(name: str) -> str:
    """The data folder of a name such as ``QinHsiu/MCLRec Amazon_Beauty``."""
    stem = name.split()[-1]
    return _FOLDERS.get(stem, stem.lower().replace("_", "-"))


@case("dataset_statistics")
def dataset_statistics(one: Case) -> Mapping[str, Any] | Partial:
    computed, absent = {}, []
    for name in one.expected:
        try:
            path = data_file(folder_of(name), "sequences.txt", "pairs.txt")
        except NotCovered as reason:
            absent.append(str(reason))
            continue
        lengths = [int(length) for key in one.expected[name] for length in re.findall(r"max_len_(\d+)$", key)]
        computed[name] = statistics_of(read_sequences(path), max_length=lengths[0] if lengths else 50)
    return Partial(computed, "; ".join(absent)) if absent else computed


def statistics_of(log: Interactions, *, max_length: int) -> dict[str, int]:
    split = leave_one_out(log)
    item = log.item_ids.external.astype(np.int64)
    rows = prefix_rows(split, max_length)
    test = split.evaluation("test")
    running = np.concatenate([[0], np.cumsum(item[rows.items])])
    prefix = prefix_rows(split, max(1, int(log.num_interactions)))
    trained = np.zeros(log.num_items, dtype=bool)
    trained[split.train.item] = True
    history_user = np.repeat(np.arange(len(test)), np.diff(test.history_offsets))
    return {
        "users": log.num_users,
        "items": log.num_items,
        "actions": log.num_interactions,
        "train_rows": len(rows),
        "rows_with_one_input_item": int((prefix.end - prefix.start == 1).sum()),
        "sum_of_targets": int(item[rows.targets].sum()),
        f"sum_of_all_input_ids_max_len_{max_length}": int((running[rows.end] - running[rows.start]).sum()),
        "users_whose_test_target_is_in_history": _rows_with_hit(
            test.history_items == test.target_items[history_user], history_user
        ),
        "test_items_absent_from_train": int((~trained[np.unique(test.target_items)]).sum()),
    }


def _rows_with_hit(hit: np.ndarray[Any, np.dtype[np.bool_]], row: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    return len(np.unique(row[hit]))
