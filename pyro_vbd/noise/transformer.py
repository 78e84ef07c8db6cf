"""torch's transformer layers with their calls in the open.

In evaluation mode ``nn.TransformerEncoderLayer`` calls one fused function on the weights of its modules. That function
knows nothing of a gate that stands in one of them or of heads that are gone, and code that asks whether it may be called
cannot be traced. The classes here compute the same by calling their modules.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from types import MappingProxyType

from torch import Tensor, nn

__all__ = ["open_transformers"]


def open_transformers(net: nn.Module, keep: tuple[str, ...] = ()) -> None:
    """Let the transformer layers of a network call their modules, one by one, in evaluation mode too; in place.

    Weights, names and the function stay. (Outputs of tokens that ``src_key_padding_mask`` hides may differ: the fused
    function makes zeros of them.)

    Args:
        net: any module.
        keep: patterns of names of modules to leave as they are.
    """
    for name, module in net.named_modules():
        if type(module) in _OPEN and not any(fnmatchcase(name, pattern) for pattern in keep):
            module.__class__ = _OPEN[type(module)]


class OpenEncoderLayer(nn.TransformerEncoderLayer):
    """``nn.TransformerEncoderLayer``, call by call."""

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """As that of ``nn.TransformerEncoderLayer``."""
        attended: Callable[[Tensor], Tensor] = lambda x: self._sa_block(x, src_mask, src_key_padding_mask, is_causal)  # noqa: E731
        if self.norm_first:
            x = src + attended(self.norm1(src))
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(src + attended(src))
        return self.norm2(x + self._ff_block(x))  # type: ignore[no-any-return]


class OpenEncoder(nn.TransformerEncoder):
    """``nn.TransformerEncoder``, call by call."""

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As that of ``nn.TransformerEncoder``; whether a mask is causal is not looked for: the mask says all."""
        for layer in self.layers:
            src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
        return src if self.norm is None else self.norm(src)


class OpenDecoderLayer(nn.TransformerDecoderLayer):
    """``nn.TransformerDecoderLayer``, whose calls are in the open already."""


class OpenDecoder(nn.TransformerDecoder):
    """``nn.TransformerDecoder``, call by call."""

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As that of ``nn.TransformerDecoder``."""
        for layer in self.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=bool(tgt_is_causal),
                memory_is_causal=memory_is_causal,
            )
        return tgt if self.norm is None else self.norm(tgt)


class OpenTransformer(nn.Transformer):
    """``nn.Transformer``, call by call."""

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """As that of ``nn.Transformer``."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(  # type: ignore[no-any-return]
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )


_OPEN: MappingProxyType[type[nn.Module], type[nn.Module]] = MappingProxyType(
    {
        nn.TransformerEncoderLayer: OpenEncoderLayer,
        nn.TransformerEncoder: OpenEncoder,
        nn.TransformerDecoderLayer: OpenDecoderLayer,
        nn.TransformerDecoder: OpenDecoder,
        nn.Transformer: OpenTransformer,
    }
)
