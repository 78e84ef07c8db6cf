"""Multi-head attention whose heads can be gated, and whose number of heads does not follow from the embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vbd.frozen import frozen_as
from pyro_vbd.noise.gate import Gate

__all__ = ["HeadwiseAttention"]


class HeadwiseAttention(nn.Module):
    r"""Multi-head attention with a :class:`Gate` on the heads, in place of ``nn.MultiheadAttention`` (batch first).

    .. math:: y = \sum_h W^O_h \, w'_h \, \mathrm{softmax}(q_h k_h^T / \sqrt{d}) \, v_h + b

    Heads whose gates are closed can go, which ``nn.MultiheadAttention`` cannot express: there the width of the heads
    is the embedding's divided by their number.

    Args:
        embed_dim: features of a token, in and out.
        num_heads: heads.
        head_dim: features of a head; ``embed_dim // num_heads`` by default.
        bias: whether the projections have biases.
        dropout: share of the attention weights that is dropped in training.
        gated: whether the heads have gates.

    Raises:
        ValueError: if ``embed_dim`` is no multiple of ``num_heads`` and no ``head_dim`` is given; when called, for
            attention weights asked for, or ``is_causal`` with a ``key_padding_mask`` and no ``attn_mask``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        head_dim: int | None = None,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        gated: bool = True,
    ) -> None:
        super().__init__()
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not share {embed_dim} features equally: pass head_dim=")
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.head_dim = head_dim if head_dim is not None else embed_dim // num_heads
        width = num_heads * self.head_dim
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width)) if bias else None
        self.gate: nn.Module = Gate(num_heads) if gated else nn.Identity()
        self.out_proj = nn.Linear(width, embed_dim, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)
        if bias:
            nn.init.zeros_(self.out_proj.bias)

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention, gated: bool = True) -> HeadwiseAttention:
        """The same function as a module of torch's, with its weights.

        Raises:
            TypeError: for one with keys or values of other widths, added biases, or the batch in the second place.
        """
        if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn or not module.batch_first:
            raise TypeError(
                "this nn.MultiheadAttention cannot be gated: it needs batch_first=True, one width for queries, keys and "
                "values, and neither add_bias_kv nor add_zero_attn"
            )
        bias = module.in_proj_bias is not None
        new = cls(module.embed_dim, module.num_heads, bias=bias, dropout=module.dropout, gated=gated)
        new.load_state_dict(module.state_dict(), strict=False)
        return frozen_as(module, new).to(module.in_proj_weight).train(module.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attention, of shape ``(B, L, E)``, and no weights. As in torch, all may be without the dimension B.

        Args:
            query: of shape ``(B, L, E)``.
            key: of shape ``(B, S, E)``.
            value: of shape ``(B, S, E)``.
            key_padding_mask: of shape ``(B, S)``, True where a key counts for nothing, or added to the scores.
            need_weights: refused if true.
            attn_mask: of shape ``(L, S)`` or ``(B * H, L, S)``, True where no attention is paid, or added to the scores.
            average_attn_weights: of no effect, there are no weights.
            is_causal: whether tokens attend to none behind them.
        """
        if need_weights:
            raise ValueError("HeadwiseAttention computes no attention weights: call it with need_weights=False")
        if query.dim() == 2:
            padding = None if key_padding_mask is None else key_padding_mask[None]
            one = self.forward(query[None], key[None], value[None], padding, attn_mask=attn_mask, is_causal=is_causal)
            return one[0][0], None
        parts = zip(
            (query, key, value),
            self.in_proj_weight.chunk(3),
            (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3),
            strict=True,
        )
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x, weight, bias in parts
        )
        mask = _scores_mask(attn_mask, key_padding_mask, q)
        is_causal = is_causal and attn_mask is None
        if is_causal and mask is not None:
            raise ValueError("is_causal with key_padding_mask needs attn_mask as well: pass both masks")
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal)
        merged = self.gate(heads).transpose(1, 2).flatten(2)
        return self.out_proj(merged), None

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, num_heads={self.num_heads}, head_dim={self.head_dim}"


def _scores_mask(attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """Both masks as one that is added to the scores, of a shape that broadcasts against ``(B, H, L, S)``."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask.unflatten(0, (q.size(0), -1)) if attn_mask.dim() == 3 else attn_mask)
    if padding is not None:
        masks.append(padding[:, None, None, :])
    added = [
        torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask, float("-inf")) if mask.dtype == torch.bool else mask
        for mask in masks
    ]
    return sum(added[1:], start=added[0]) if added else None
