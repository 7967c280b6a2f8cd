"""Cases of the contrastive sequential methods: losses of given views, training steps, retrieval and synthesis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from graphcl.functional import contrastive_regularizer, info_nce, nt_xent
from graphcl.kernels import knn
from graphcl.models import CL4SRec, CL4SRecConfig, DuoRec, DuoRecConfig, MCLRec, MCLRecConfig, SRACLConfig
from graphcl.models.base import ContrastRows, PaddedSequences, SequenceBatch
from graphcl.models.sasrec import SASRec
from graphcl.nn import EmbeddingAugmenter, PackedSequences, SampleSynthesizer, pack_padded
from replay_cases.registry import Case, case
from replay_cases.sequential import filled, sasrec_of


def augmenter_of(params: Sequence[Mapping[str, Any]]) -> EmbeddingAugmenter:
    """The augmenter with the parameters that a case gives."""
    state = {".".join(spec["name"].split(".")[1:]): filled(spec) for spec in params}
    widths = state["fc1.weight"].shape[0], state["fc2.weight"].shape[0]
    augmenter = EmbeddingAugmenter(state["fc1.weight"].shape[1], widths).double()
    augmenter.load_state_dict(state)
    return augmenter


def learned_views(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    first, second = filled(inputs["x1"]), filled(inputs["x2"])
    return augmenter_of(inputs["aug1_params"])(first), augmenter_of(inputs["aug2_params"])(second)


@case("contrastive_regulariser")
def contrastive_regulariser(one: Case) -> Mapping[str, Any]:
    first, second = filled(one.inputs["x1"]).requires_grad_(), filled(one.inputs["x2"])
    num = first.shape[0]
    rows = torch.cat([first, second]).detach()
    scores = rows @ rows.T
    positive = scores.diagonal(num)
    kept = [column for column in range(2 * num) if column not in (0, num)]
    value = contrastive_regularizer(first, second)
    paper = contrastive_regularizer(first.detach(), second, form="paper")
    apart = scores.masked_fill(torch.eye(num).repeat(2, 2).bool(), -torch.inf)
    return {
        "positives": positive.repeat(2),
        "negatives_row0": scores[0, kept],
        "code_form": value,
        "code_form_grad_x1_norm": torch.autograd.grad(value, first)[0].norm(),
        "paper_form": paper,
        "paper_lo": min(positive.min(), apart.max()),
        "paper_hi": max(positive.min(), apart.max()),
        "code_form_on_l2_normalised_rows": contrastive_regularizer(first, second, similarity="cosine"),
        "paper_form_on_l2_normalised_rows": contrastive_regularizer(first, second, similarity="cosine", form="paper"),
    }


@case("model_augmenter")
@torch.no_grad()
def model_augmenter(one: Case) -> Mapping[str, Any]:
    first, second = learned_views(one.inputs)
    return {
        "z1_row0": first[0],
        "z1_row_last": first[-1],
        "z2_row0": second[0],
        "z1_sum": first.sum(),
        "z2_sum": second.sum(),
    }


@case("mclrec_cl2_and_R")
@torch.no_grad()
def mclrec_cl2_and_regulariser(one: Case) -> Mapping[str, Any]:
    h1, h2 = filled(one.inputs["x1"]), filled(one.inputs["x2"])
    z1, z2 = learned_views(one.inputs)
    pairs = {"h1_z2": (h1, z2), "h2_z1": (h2, z1), "z1_z2": (z1, z2)}
    contrasts = {f"nce_{name}": nt_xent(*pair, temperature=1.0, similarity="dot") for name, pair in pairs.items()}
    margins = {f"reg_{name}": contrastive_regularizer(*pair) for name, pair in pairs.items()}
    total = torch.stack(list(contrasts.values())).sum()
    return {
        **contrasts,
        "L_cl2": total,
        **margins,
        "code_total": total + 0.1 * torch.stack(list(margins.values())).sum(),
        "paper_R_z1_z2": contrastive_regularizer(z1, z2, form="paper"),
    }


def rows_of(inputs: Mapping[str, Any], sequences: str, lengths: str) -> PaddedSequences:
    return PaddedSequences(torch.tensor(inputs[sequences]), torch.tensor(inputs[lengths]))


def batch_of(inputs: Mapping[str, Any], same_target: PaddedSequences | None = None) -> SequenceBatch:
    """The prefix rows of a case as a step that supervises the last item of each."""
    rows = rows_of(inputs, "item_seq", "item_len")
    packed, targets = pack_padded(rows.items, rows.lengths), torch.tensor(inputs["target"])
    contrast = ContrastRows(rows, targets, packed.last, same_target)
    return SequenceBatch(packed, packed.last, targets, len(targets), contrast)


def views_of(inputs: Mapping[str, Any]) -> PackedSequences:
    first, second = rows_of(inputs, "aug1", "aug_len1"), rows_of(inputs, "aug2", "aug_len2")
    return pack_padded(
        torch.cat([first.items, second.items]), torch.cat([first.lengths, second.lengths]), hides_zeros=True
    )


def encoder_case(one: Case) -> Mapping[str, Any]:
    return {**one.referenced("as in case sasrec_encoder").inputs, **one.inputs}


def with_padding_class(encoder: SASRec) -> SASRec:
    """The same weights, with row 0 among the classes."""
    changed = SASRec(encoder.num_items, encoder.config.model_copy(update={"padding_class": True})).double()
    changed.load_state_dict(encoder.state_dict())
    return changed


@case("cl4srec_loss")
@torch.no_grad()
def cl4srec_loss(one: Case) -> Mapping[str, Any]:
    inputs = encoder_case(one)
    encoder = with_padding_class(sasrec_of(inputs))
    config = CL4SRecConfig(contrast_weight=inputs["lambda"])
    model = CL4SRec(encoder.num_items, config, encoder=encoder).eval()
    batch, views = batch_of(inputs), views_of(inputs)
    first, second = model.encode_last(views).chunk(2)
    h = model.encode_last(batch.sequences)
    return {
        "loss": model.objective_of_views(batch, views)[0],
        "alignment": (first - second).norm(dim=1).mean(),
        "uniformity": torch.pdist(h).mul(-2).exp().mean().log(),
    }


@case("duorec_loss")
@torch.no_grad()
def duorec_loss(one: Case) -> Mapping[str, Any]:
    inputs = encoder_case(one)
    encoder = with_padding_class(sasrec_of(inputs))
    batch = batch_of(inputs, rows_of(inputs, "sem_seq", "sem_len"))
    losses = {}
    mode: Any
    for mode in one.expected:
        config = DuoRecConfig(mode=mode, contrast_weight=inputs["lambda"])
        losses[mode] = DuoRec(encoder.num_items, config, encoder=encoder).eval().objective(batch)[0]
    return losses


@case("mclrec_training_step")
def mclrec_training_step(one: Case) -> Mapping[str, Any]:
    inputs = {**encoder_case(one), **one.referenced(str(one.inputs["augmenters"])).inputs, **one.inputs}
    computed: dict[str, Any] = {}
    for schedule in sorted({key.rsplit("_", 1)[0] for key in one.expected}):
        model = mclrec_of(inputs, schedule)
        optimizers = {name: torch.optim.Adam(group, lr=1e-3) for name, group in model.parameter_groups().items()}
        losses = []
        for _ in range(2):
            for name, objective in model.training_steps(batch_of(inputs), views_of(inputs)):
                loss, _ = objective()
                model.zero_grad()
                torch.autograd.backward(loss)
                optimizers[name].step()
                losses.append(loss.detach())
        query = model.encoder.encoder.layers[0].query_key_value.weight[: model.encoder.config.hidden]
        computed[f"{schedule}_losses"] = [float(loss) for loss in losses]
        computed[f"{schedule}_after"] = {
            "item_embedding_norm": model.encoder.item_embedding.weight.norm(),
            "aug1.fc1.weight_norm": model.augmenters[0].fc1.weight.norm(),
            "aug2.fc3.weight_norm": model.augmenters[1].fc3.weight.norm(),
            "layer0.query.weight_norm": query.norm(),
            "layer0.query.weight_sum": query.sum(),
        }
    return computed


def mclrec_of(inputs: Mapping[str, Any], schedule: Any) -> Any:
    """The model with the encoder and augmenters of a case."""
    encoder = with_padding_class(sasrec_of(inputs))
    config = MCLRecConfig(
        schedule=schedule,
        contrast_weight=inputs["lambda"],
        meta_weight=inputs["beta"],
        temperature=inputs["tau"],
    )
    model = MCLRec(encoder.num_items, config, encoder=encoder).double().eval()
    for number in range(2):
        model.augmenters[number] = augmenter_of(inputs[f"aug{number + 1}_params"])
    return model


def synthesizer_of(inputs: Mapping[str, Any]) -> SampleSynthesizer:
    projection, attention = filled(inputs["W_[in,out]"]), filled(inputs["a"]).flatten()
    synthesizer = SampleSynthesizer(*projection.shape, dropout=0.0).double()
    synthesizer.load_state_dict({"projection": projection, "attention": attention})
    return synthesizer.eval()


def retrieved_of(one: Case, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Semantic vectors of anchors and of all rows, and the places of each anchor's neighbours."""
    vectors = filled(inputs["semantic_embeddings"])
    anchors = torch.tensor(inputs["anchor_ids"])
    k = one.referenced(str(inputs["neighbours"])).inputs["k"]
    return vectors[anchors], vectors, knn(vectors, k, similarity="cosine").indices[anchors]


def composite_of(one: Case, inputs: Mapping[str, Any], encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities, and positives of the encodings [B, k, d] of each anchor's neighbours."""
    own, vectors, places = retrieved_of(one, inputs)
    synthesizer = synthesizer_of(inputs)
    # The neighbours' encodings are given one by one, so every pair of anchor and neighbour is a row of its own.
    apart = torch.arange(places.numel()).view(places.shape)
    flat = encoded.flatten(0, 1)
    return (
        synthesizer.probabilities(own, vectors, places),
        synthesizer(own, vectors[places.flatten()], apart, flat),
    )


@case("sample_synthesizer")
@torch.no_grad()
def sample_synthesizer(one: Case) -> Mapping[str, Any]:
    anchors = filled(one.inputs["anchor_repr"])
    probabilities, positives = composite_of(one, one.inputs, filled(one.inputs["neighbour_repr"]))
    return {
        "probabilities": probabilities,
        "composite_row0": positives[0],
        "loss_code_2N": nt_xent(anchors, positives, temperature=1.0, similarity="dot"),
        "loss_paper_one_way": info_nce(anchors, positives, temperature=1.0, similarity="dot"),
    }


@case("sracl_losses")
@torch.no_grad()
def sracl_losses(one: Case) -> Mapping[str, Any]:
    inputs = {
        **one.referenced(str(one.inputs["encoder"])).inputs,
        **one.referenced(str(one.inputs["synthesizer"])).inputs,
        **one.inputs,
    }
    model = sasrec_of(inputs)

    def encoded(name: str) -> Tensor:
        rows = torch.tensor(inputs[name])
        last = model.encode_positions(rows.flatten(0, -2))[:, -1]
        return last.view(*rows.shape[:-1], -1)

    anchors, neighbours = encoded("anchor_seqs_left_padded"), encoded("neighbour_seqs_left_padded")
    _, positives = composite_of(one, inputs, neighbours)
    inter = nt_xent(anchors, positives, temperature=1.0, similarity="dot")
    intra = nt_xent(encoded("view1"), encoded("view2"), temperature=1.0, similarity="dot")
    entropy = model.cross_entropy(encoded("rec_seqs_left_padded"), torch.tensor(inputs["targets"]))
    stated = {name: re.search(rf"{name}(?:=\w+)*=(\d+\.\d+)", one.computes) for name in ("alpha", "beta")}
    defaults = {"alpha": SRACLConfig().user_weight, "beta": SRACLConfig().item_weight}
    weight = {name: float(found.group(1)) if found else defaults[name] for name, found in stated.items()}
    return {
        "inter_user": inter,
        "intra_user": intra,
        "rec_without_padding_class": entropy,
        "total": entropy + weight["alpha"] * inter + weight["beta"] * intra,
    }
