"""The post-norm transformer encoder of the sequential recommenders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graphcl.nn.dropout import add_dropout, dropout
from graphcl.nn.linear import Linear


class TransformerLayer(nn.Module):
    """One post-norm transformer block: self-attention, then a feed-forward network with exact GELU.

    Paper: Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.

    ``x <- LN(x + Drop(W_o (Drop_a(softmax(Q K^T / sqrt(d / heads))) V)))``, then
    ``x <- LN(x + Drop(W_2 gelu(W_1 x)))``.

    Args:
        hidden: width d.
        heads: attention heads; they share d.
        inner: width of the feed-forward network.
        dropout: rate on both residual branches.
        attention_dropout: rate on the attention weights.
        layer_norm_eps: epsilon of both layer norms.

    Raises:
        ValueError: when ``heads`` does not divide ``hidden``.

    Complexity: time O(R C d (d + inner) + R C^2 d), memory O(R C (d + inner) + R heads C^2) in training; the terms of
    ``inner`` are those of S slots where only these are wanted.

    Example:
        >>> layer = TransformerLayer(hidden=8, heads=2, inner=16)
        >>> layer(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        inner: int,
        *,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden must be a multiple of heads, got hidden={hidden} and heads={heads}")
        self.heads = heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.query_key_value = Linear(hidden, 3 * hidden)
        self.attention_out = Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=layer_norm_eps)
        self.inner = Linear(hidden, inner)
        self.outer = Linear(inner, hidden)
        self.outer_norm = nn.LayerNorm(hidden, eps=layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
        """Encode rows.

        Args:
            x: [R, C, d].
            mask: [R or 1, 1, C, C] bool, True where the query (third axis) may see the key. None means causal.
            wanted: [S] flat slots (row * C + column) whose output is asked for; all when None.

        Returns:
            [R, C, d], or [S, d] at the slots that are wanted.
        """
        rows, width, hidden = x.shape
        query, key, value = (
            self.query_key_value(x).view(rows, width, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        )
        context = self._attend(query, key, value, mask).transpose(1, 2).reshape(rows, width, hidden)
        if wanted is not None:
            x, context = (part.flatten(0, 1).index_select(0, wanted) for part in (x, context))
        x = self.attention_norm(add_dropout(x, self.attention_out(context), self.dropout, self.training))
        update = self.outer(F.gelu(self.inner(x)))
        normed: Tensor = self.outer_norm(add_dropout(x, update, self.dropout, self.training))
        return normed

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        rate = self.attention_dropout if self.training else 0.0
        if rate == 0.0 or query.device.type != "cpu":
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=rate, is_causal=mask is None
            )
        # With dropout, torch has no fused kernel on a CPU; these are the same steps with a cheaper random mask.
        if mask is None:
            mask = torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool).tril_()
        hidden_keys = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + hidden_keys
        return dropout(scores.softmax(-1), rate, training=True) @ value


class SequenceTransformer(nn.Module):
    """Position embedding, layer norm, dropout and a stack of post-norm transformer blocks over item embeddings.

    Args:
        hidden, layers, heads, inner: sizes, see :class:`TransformerLayer`.
        max_length: positions that have an embedding.
        dropout: rate on the input and on the residual branches.
        attention_dropout: rate on the attention weights.
        layer_norm_eps: epsilon of every layer norm.

    Example:
        >>> encoder = SequenceTransformer(hidden=8, layers=1, heads=2, inner=16, max_length=5)
        >>> encoder(torch.zeros(3, 4, 8), torch.arange(4)).shape
        torch.Size([3, 4, 8])
    """

    def __init__(
        self,
        *,
        hidden: int,
        layers: int,
        heads: int,
        inner: int,
        max_length: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.position_embedding = nn.Embedding(max_length, hidden)
        self.input_norm = nn.LayerNorm(hidden, eps=layer_norm_eps)
        self.layers = nn.ModuleList(
            TransformerLayer(
                hidden,
                heads,
                inner,
                dropout=dropout,
                attention_dropout=attention_dropout,
                layer_norm_eps=layer_norm_eps,
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None = None, wanted: Tensor | None = None) -> Tensor:
        """Encode rows of item embeddings.

        Args:
            x: [R, C, d] item embeddings.
            positions: [R, C] or [C] index of each slot inside its sequence.
            mask, wanted: as in :meth:`TransformerLayer.forward`; ``wanted`` spares the last block all other slots.

        Returns:
            [R, C, d], or [S, d] at the slots that are wanted.
        """
        x = self.input_norm(x + self.position_embedding(positions))
        x = dropout(x, self.dropout, self.training)
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        if len(self.layers):
            x = self.layers[-1](x, mask, wanted)
        elif wanted is not None:
            x = x.flatten(0, 1).index_select(0, wanted)
        return x


def initialize_normal(module: nn.Module, std: float, generator: torch.Generator | None = None) -> None:
    """Draw every Linear and Embedding weight below ``module`` from N(0, std); biases 0, layer norms (1, 0)."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            with torch.no_grad():
                part.weight.normal_(0.0, std, generator=generator)
        if isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
