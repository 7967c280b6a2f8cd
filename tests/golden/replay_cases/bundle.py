"""Cases of CLHE and HTCL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphcl.functional import info_nce
from graphcl.metrics import ranking_metrics
from graphcl.metrics.ranking import rank_of_targets_by_score
from graphcl.models import CLHE, BundleBatch, BundleInputs, CLHEConfig
from graphcl.models.clhe import bundle_loss
from graphcl.models.htcl import preference_contrast
from graphcl.nn import BundleEncoder, TokenFusion
from replay_cases.multimodal import matrix_of
from replay_cases.registry import Case, case

# Our names of the parameters of the published code.
_RENAMED = (
    (r"^(encoder|decoder)\.c_encoder\.w(\d)", lambda m: f"{m[1]}.feature_mlps.0.{2 * int(m[2]) - 2}"),
    (r"^(encoder|decoder)\.t_encoder\.w(\d)", lambda m: f"{m[1]}.feature_mlps.1.{2 * int(m[2]) - 2}"),
    (r"^(encoder|decoder)\.cf_transformation", r"\1.feedback"),
    (r"^(encoder|decoder)\.item_embeddings", r"\1.item_table"),
    (r"^(encoder|decoder)\.w_q", r"\1.fusion.query"),
    (r"^(encoder|decoder)\.w_k", r"\1.fusion.key"),
    (r"^bundle_encode\.0\.w_q", "bundle_encoder.query"),
    (r"^bundle_encode\.0\.w_k", "bundle_encoder.key"),
    (r"^cl_projector", "projector"),
)


def scaled(text: str) -> Tensor:
    """A matrix such as ``0.5*X(7,64,1.7)``, or a product of two such."""
    factors = re.findall(r"(?:([\d.]+)\*)?(X\([^)]*\))", text)
    out = torch.ones((), dtype=torch.float64)
    for factor, matrix in factors:
        out = out * float(factor or 1.0) * matrix_of(matrix)
    return torch.nn.functional.normalize(out, dim=1) if text.startswith("normalise") else out


def flat(bundles: list[list[int]]) -> tuple[Tensor, Tensor]:
    sizes = torch.tensor([0, *(len(bundle) for bundle in bundles)])
    return torch.tensor([item for bundle in bundles for item in bundle]), sizes.cumsum(0)


@case("clhe.recon")
def recon(one: Case) -> Mapping[str, Any]:
    logits = scaled(one.inputs["logits"])
    items = torch.eye(logits.shape[1], dtype=torch.float64)
    return {"loss": bundle_loss(logits, items, *flat(one.inputs["bundles"]))}


@case("clhe.infonce")
def infonce(one: Case) -> Mapping[str, Any]:
    a, b = (scaled(one.inputs[key]).requires_grad_() for key in ("a", "b"))
    loss = info_nce(a, b, temperature=one.inputs["temp"])
    grad_a, grad_b = torch.autograd.grad(loss, (a, b))
    return {"loss": loss, "grad_a": grad_a, "grad_b": grad_b}


@case("clhe.modality_fusion", "clhe.modality_dropout")
def fusion(one: Case) -> Mapping[str, Any]:
    source = one.referenced(one.inputs["like"]).inputs if "like" in one.inputs else one.inputs
    tokens = torch.stack([scaled(source[f"token_{number}"]) for number in range(3)], dim=1)
    if "dropped_tokens" in one.inputs:
        tokens = tokens.masked_fill(torch.tensor(one.inputs["dropped_tokens"], dtype=torch.bool).unsqueeze(2), 0.0)
    fused = TokenFusion(tokens.shape[2]).double()
    weights = {"query.weight": scaled(source["Wq (out,in)"]), "key.weight": scaled(source["Wk"])}
    fused.load_state_dict(weights)
    return {"fused": fused(tokens)}


@case("clhe.bundle_encoder")
def bundle_encoder(one: Case) -> Mapping[str, Any]:
    tokens = torch.stack([scaled(one.inputs["bundle_0"]), scaled(one.inputs["bundle_1"])])
    real = ~torch.tensor(one.inputs["pad_mask"], dtype=torch.bool)
    encoder = BundleEncoder(tokens.shape[2]).double()
    encoder.load_state_dict({"query.weight": scaled(one.inputs["Wq"]), "key.weight": scaled(one.inputs["Wk"])})
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), real.sum(1).cumsum(0)])
    return {"bundle": encoder(tokens[real], offsets)}


def clhe_of(one: Case, **settings: Any) -> CLHE:
    """The model of the case with its weights."""
    given = one.inputs
    count = matrix_of(given["content"]).shape[0]
    cold = torch.zeros(count, dtype=torch.bool)
    cold[torch.tensor(given["cold_cf_items"], dtype=torch.int64)] = True
    features = {name: matrix_of(given[name]) for name in ("content", "text")}
    config = CLHEConfig(
        item_temperature=given["item_temp"], bundle_temperature=given["bundle_temp"],
        item_weight=1.0, bundle_weight=1.0, **settings,
    )  # fmt: skip
    model = CLHE(BundleInputs(count, features, vectors=scaled(given["cf"]), cold=cold), config).double()
    weights = {}
    for name, about in given["parameters"].items():
        size = torch.Size(about["shape"]).numel()
        ours = name
        for pattern, new in _RENAMED:
            ours = re.sub(pattern, new, ours)
        value = 0.3 * torch.sin(0.37 * torch.arange(size, dtype=torch.float64) + about["phase"])
        weights[ours] = value.reshape(about["shape"])
    known = model.state_dict()
    # The published code holds a value map that its default forward never uses.
    model.load_state_dict({name: value for name, value in weights.items() if name in known})
    return model


@case("clhe.full")
def full(one: Case) -> Mapping[str, Any]:
    given = one.inputs
    padding = given["pad_id"]
    bundles = [[item for item in row if item != padding] for row in given["bundles_in_token_order"]]
    kept = [[item for item in row if item != padding] for row in given["kept_for_view2"]]
    batch = BundleBatch(*flat(bundles), *flat(kept), total=len(bundles))
    model = clhe_of(one, item_augment="modality")
    parts = model.objective(batch)[1]
    reference = clhe_of(one, reference_padding_bug=True).objective(batch)[1]
    items, decoded = model.encoder(model.inputs), model.candidates()
    vectors = model(batch.items, batch.offsets)
    met = torch.unique(batch.items)
    tokens = model.encoder.tokens(model.inputs, met)
    masks = next(value for name, value in given.items() if name.startswith("MD_masks"))
    dropped = [torch.tensor(mask, dtype=torch.bool)[met] for mask in masks]
    noisy = clhe_of(one, item_augment="noise", item_noise=float(re.findall(r"weight ([\d.]+)", given["FN_noise"])[0]))
    noise = [matrix_of(text)[met] for text in re.findall(r"X\([^)]*\)", given["FN_noise"])]
    fused = noisy.encoder.fusion(tokens)
    modality_views = model.item_views(tokens, items[met], (dropped[0], dropped[1]))
    noise_views = noisy.item_views(tokens, fused, (noise[0], noise[1]))
    return {
        "encoder_items_first4": items[:, :4],
        "encoder_items_rowsum": items.sum(1),
        "decoder_items_rowsum": decoded.sum(1),
        "bundle_first4": vectors[:, :4],
        "bundle_rowsum": vectors.sum(1),
        "logits": vectors @ decoded.T,
        "recon_loss": parts["construction"],
        "item_cl_MD": info_nce(*modality_views, temperature=given["item_temp"]),
        "item_cl_FN": info_nce(*noise_views, temperature=given["item_temp"]),
        "bundle_cl_reference": reference["bundle_contrast"],
        "bundle_cl_corrected": parts["bundle_contrast"],
    }


@case("clhe.metrics")
def metrics(one: Case) -> Mapping[str, Any]:
    positives = one.inputs["positives"]
    found = re.search(
        r"sin\(0\.1\*\(i\*(\d+)\+j\)\+([\d.]+)\)\*cos\(([\d.]+)\*j\), (\d+) x (\d+)", one.inputs["scores"]
    )
    assert found is not None
    step, phase, wave, rows, columns = (float(number) for number in found.groups())
    i, j = torch.arange(int(rows), dtype=torch.float64)[:, None], torch.arange(int(columns), dtype=torch.float64)
    scores = torch.sin(0.1 * (i * step + j) + phase) * torch.cos(wave * j)
    items, offsets = flat(positives)
    ranks = rank_of_targets_by_score(
        lambda row, column: scores[row, column], (int(rows), int(columns)), (offsets, items.long())
    )
    cutoffs = sorted({int(name.split("@")[1]) for name in one.expected})
    measured = ranking_metrics(ranks, offsets, ks=cutoffs).to_dict()
    names = {"recall": "Recall", "ndcg": "NDCG"}
    return {name: measured[f"{names[name.split('@')[0]]}@{name.split('@')[1]}"] for name in one.expected}


@case("htcl.symmetric_infonce")
def symmetric_infonce(one: Case) -> Mapping[str, Any]:
    audio, text = scaled(one.inputs["audio"]), scaled(one.inputs["text"])
    given = {"temperature": one.inputs["tau"], "similarity": "dot"}
    return {
        "loss": info_nce(audio, text, symmetric=True, **given),
        "audio_to_text": info_nce(audio, text, **given),
        "text_to_audio": info_nce(text, audio, **given),
    }


@case("htcl.triplet_infonce")
def triplet_infonce(one: Case) -> Mapping[str, Any]:
    anchor, positive, negative = (scaled(one.inputs[key]) for key in ("anchor", "positive", "negative"))
    return {"loss": preference_contrast(anchor, positive, negative, temperature=one.inputs["tau"])}
