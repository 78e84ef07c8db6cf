"""The part of a tensor that a layer reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Select"]


class Select(nn.Module):
    """Passes on some indices of one dimension: in front of a layer that has no weights for the others.

    Args:
        index: which, as integers.
        dim: of which dimension.
    """

    def __init__(self, index: Tensor | Sequence[int], dim: int = 1) -> None:
        super().__init__()
        self.dim = dim
        self.index: Tensor  # not in the class, where TorchScript knows no Tensor
        self.register_buffer("index", torch.as_tensor(index, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Of shape ``x.shape``, with ``len(index)`` in dimension ``dim``."""
        return x.index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        return f"{len(self.index)}, dim={self.dim}"
