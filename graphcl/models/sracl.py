"""SRA-CL: contrast with semantically retrieved sequences and semantically substituted items."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from graphcl.functional import info_nce, nt_xent
from graphcl.models.base import Objective, RetrievedRows, SequenceBatch
from graphcl.models.base_contrastive import ContrastiveConfig, ContrastiveModel, ContrastNeeds, split_views
from graphcl.models.settings import ModelConfig, Rate, Share
from graphcl.nn import PackedSequences
from graphcl.nn.synthesizer import SampleSynthesizer
from graphcl.views import substitute_items


class SRACLConfig(ContrastiveConfig):
    """Settings of :class:`SRACL`: those of its encoder, and these.

    Args:
        max_length: longest history that is read.
        user_weight: alpha, weight of the contrast with retrieved sequences.
        item_weight: beta, weight of the contrast of two substituted versions.
        neighbours: k, retrieved sequences a row and similar items an item.
        substitution_rate: probability that an item is replaced by a similar one.
        user_contrast: ``code``: NT-Xent of both sides; ``paper``: one direction over the batch.
        fresh_view: encode the rows anew with another dropout mask for the contrast, as released; otherwise reuse the
            outputs of the recommendation loss.
        learned_weights: weigh the retrieved sequences by a learned attention; otherwise equally (an ablation).
        synthesizer_dropout: rate on the weights; the paper has none.
        pool: what is retrieved: ``users``, the whole training sequence of each, or ``prefixes``, any training prefix.
        same_user: allow sequences of the same user, as released; they may hold the row's own target.
        cold_items: give items without training rows the mean embedding of their most similar trained items, and read
            them in a history as the most similar one.
        catalogue: ``features``: items that only their features name (a table of items, given vectors, a file of
            ``semantics``) are ranked and read as well; ``interactions``: only items of the interactions are.
        semantics: what the semantic vectors of items come from, see `graphcl.data.semantic_vectors`: ``attributes``,
            ``text``, ``cooccurrence`` in training, ``features`` that are given (or the numbers in the table of items),
            or the path of a file keyed by item id; several joined, as in ``attributes+cooccurrence``; or a mapping from
            such to their settings. ``joint`` is all that is there: features or else attributes, where there are any,
            and co-occurrence.
        semantic_dim: width of each part that is reduced, at most.
        temperature: tau, divides the inner products.

    Example:
        >>> SRACLConfig().max_length
        20
    """

    symbols: ClassVar[Mapping[str, str]] = {
        "alpha": "user_weight",
        "beta": "item_weight",
        "k": "neighbours",
        "tau": "temperature",
    }

    max_length: PositiveInt = 20
    user_weight: NonNegativeFloat = 0.1
    item_weight: NonNegativeFloat = 0.1
    neighbours: PositiveInt = 10
    substitution_rate: Share = 0.2
    user_contrast: Literal["code", "paper"] = "code"
    fresh_view: bool = True
    learned_weights: bool = True
    synthesizer_dropout: Rate = 0.5
    pool: Literal["users", "prefixes"] = "users"
    same_user: bool = False
    cold_items: bool = True
    catalogue: Literal["interactions", "features"] = "features"
    semantics: str | list[str] | dict[str, dict[str, Any] | None] = "joint"
    semantic_dim: PositiveInt = 64
    temperature: PositiveFloat = 1.0


class SRACL(ContrastiveModel):
    r"""Contrast with what is semantically near: users with similar histories, and histories with similar items.

    Paper: Cui et al., "Semantic Retrieval Augmented Contrastive Learning for Sequential Recommendation", 2025,
    https://arxiv.org/abs/2503.04162.

    .. math:: L = L_{rec} + \alpha \ell(h_u, h^+_u) + \beta \ell(h^1_u, h^2_u)

    with :math:`h^+_u` the weighted sum of the encodings of k retrieved sequences
    (:class:`graphcl.nn.SampleSynthesizer`), :math:`h^1_u, h^2_u` the encodings of two versions of the row in which
    similar items took the place of some, and :math:`\ell` NT-Xent with inner products.

    Deviations: the semantic vectors are any, not those of a language model, which are not published; they and the pool
    come from training items only and a row never retrieves its own user (the released pool holds validation items and
    longer prefixes of the same user); id 0 has no vector and self is excluded by index; right padding.

    Args:
        num_items: V; ids run from 1 to V and 0 is padding.
        config: settings; the defaults when None.
        semantic_dim: D, width of the semantic vectors.
        encoder: any module of your own that encodes, see :class:`ContrastiveModel`.
        generator: source of the initial weights.

    Raises:
        ValueError: when ``num_items`` is below 1.

    Complexity: one encoding of the histories, three of one prefix a user, one of each distinct retrieved sequence of
    the step; O(B^2 d) for each contrast.

    Example:
        >>> model = SRACL(num_items=9, config=SRACLConfig(hidden=8, neighbours=2), semantic_dim=3).eval()
        >>> model(torch.tensor([[3, 1, 0, 0]]), torch.tensor([2])).shape
        torch.Size([1, 8])
    """

    config_class: ClassVar[type[ModelConfig]] = SRACLConfig
    uses_item_vectors: ClassVar[bool] = True
    item_neighbours: Tensor
    trained_neighbours: Tensor

    def __init__(
        self,
        num_items: int,
        config: SRACLConfig | None = None,
        *,
        semantic_dim: int = 64,
        encoder: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(num_items, config, encoder=encoder, generator=generator)
        k = self.config.neighbours
        dim = self.encoder.item_embeddings().shape[1]
        self.synthesizer = SampleSynthesizer(
            semantic_dim, dim, dropout=self.config.synthesizer_dropout, generator=generator
        )
        self.register_buffer("item_neighbours", torch.zeros(num_items + 1, k, dtype=torch.int64))
        self.register_buffer("trained_neighbours", torch.zeros(num_items + 1, k, dtype=torch.int64))

    @property
    def contrast(self) -> ContrastNeeds:
        """One row a window with its retrieved sequences."""
        wanted = self.config.user_weight > 0
        return ContrastNeeds(rows=wanted or self.config.item_weight > 0, retrieved=wanted)

    def set_item_neighbours(self, neighbours: Tensor, trained: Tensor) -> None:
        """Tell which items are similar.

        Args:
            neighbours: [V + 1, k] similar items of each id, filled up with 0; row 0 is zero.
            trained: [V + 1, k] similar items that have training rows, for ids that have none; zero rows for the others.
        """
        self.item_neighbours.copy_(neighbours)
        self.trained_neighbours.copy_(trained)

    def item_embeddings(self) -> Tensor:
        """[V, d] embeddings of ids 1..V; in evaluation those of cold items come from their similar items."""
        table = super().item_embeddings()
        if self.training or not self.config.cold_items:
            return table
        similar = self.trained_neighbours[1:]
        cold = torch.nonzero(similar[:, 0]).squeeze(1)
        known = (similar[cold] > 0).to(table.dtype)[..., None]
        rows = table[(similar[cold] - 1).clamp(min=0)] * known
        return table.index_copy(0, cold, rows.sum(1) / known.sum(1))

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """[B, L] right-padded ids and [B] lengths to [B, d] user embeddings."""
        return super().forward(self._readable(item_seq), lengths)

    def encode_last(self, sequences: PackedSequences) -> Tensor:
        """[S, d] encoder output at the last item of every packed history."""
        return super().encode_last(sequences.with_items(self._readable(sequences.items)))

    def objective(self, batch: SequenceBatch) -> Objective:
        """Cross-entropy and both contrasts.

        Args:
            batch: packed histories with targets, contrast rows and retrieved sequences.

        Returns:
            ``L``, and its parts ``cross_entropy``, ``user_contrast`` and ``item_contrast``.
        """
        config = self.config
        if not self.contrast.rows:
            loss, _, _ = self.next_item_loss(batch)
            return loss, {"cross_entropy": loss.detach()}
        contrast = self.rows_of(batch)
        rows, views = contrast.rows, []
        if config.user_weight and config.fresh_view:
            views.append((rows.items, rows.lengths))
        if config.item_weight:
            substitute = partial(substitute_items, neighbours=self.item_neighbours, rate=config.substitution_rate)
            views += [substitute(rows.items, rows.lengths) for _ in range(2)]
        packed = [self.pack_views(*views)] if views else []
        retrieved = self._retrieved(contrast.retrieved) if config.user_weight else None
        if retrieved is not None:
            packed.append(retrieved.sequences)
        entropy, causal, encoded = self.next_item_loss(batch, *packed)
        own = list(split_views(encoded[0], len(views))) if views else []
        loss, parts = entropy, {"cross_entropy": entropy.detach()}
        if retrieved is not None:
            anchor = own.pop(0) if config.fresh_view else causal[contrast.slots]
            made = self.positives(anchor, retrieved, encoded[-1])
            value = self.user_contrast(*self.rows_of_all_processes(anchor, made))
            loss, parts["user_contrast"] = loss + config.user_weight * value, value.detach()
        if config.item_weight:
            first, second = self.rows_of_all_processes(own[0], own[1])
            value = nt_xent(first, second, temperature=config.temperature, similarity="dot")
            loss, parts["item_contrast"] = loss + config.item_weight * value, value.detach()
        return loss, parts

    def positives(self, anchors: Tensor, retrieved: RetrievedRows, encoded: Tensor) -> Tensor:
        """[B, d] positives from the encodings of the retrieved sequences; the anchor itself where there is none."""
        places = retrieved.places
        found = places >= 0
        if not encoded.shape[0]:
            return anchors
        if self.config.learned_weights:
            made = self.synthesizer(
                retrieved.own_vectors.to(encoded.dtype), retrieved.vectors.to(encoded.dtype), places, encoded
            )
        else:
            weight = found.to(encoded.dtype)
            weight = weight / weight.sum(1, keepdim=True).clamp(min=1.0)
            made = torch.einsum("bk,bkd->bd", weight, encoded[places.clamp(min=0)])
        return torch.where(found.any(1, keepdim=True), made, anchors)

    def user_contrast(self, anchors: Tensor, positives: Tensor) -> Tensor:
        """Contrast of rows with their positives, in the form of the code or of the paper."""
        temperature = self.config.temperature
        if self.config.user_contrast == "paper":
            return info_nce(anchors, positives, temperature=temperature, similarity="dot")
        return nt_xent(anchors, positives, temperature=temperature, similarity="dot")

    def _readable(self, items: Tensor) -> Tensor:
        """Cold items replaced by their most similar trained one, in evaluation."""
        if self.training or not self.config.cold_items:
            return items
        nearest = self.trained_neighbours[:, 0]
        known = items.clamp(max=self.num_items)
        return torch.where((nearest[known] > 0) & (known == items), nearest[known], items)

    @staticmethod
    def _retrieved(given: RetrievedRows | None) -> RetrievedRows:
        if given is None:
            raise ValueError("SRACL needs batches with retrieved sequences")
        return given
