"""The row of an embedding's ``padding_idx``, which no data train: in every draw it is what it is in the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Padding", "find_padding"]


@dataclass(frozen=True)
class Padding:
    """The row of padding of an embedding's weight."""

    row: int
    #: Whether it holds anything but zeros.
    is_filled: bool

    def put_into(self, weight: Tensor, own: Tensor) -> Tensor:
        """A draw of the weight, but for the row of padding, which is that of the network's ``own``."""
        others = torch.arange(len(weight), device=weight.device).ne(self.row).unsqueeze(-1)
        weight = weight * others  # still Gaussian, which a sum is not
        return weight + own.detach().masked_fill(others, 0.0) if self.is_filled else weight


def find_padding(weight: Tensor, owners: Sequence[nn.Module]) -> Padding | None:
    """The padding of a weight; None where one of its owners reads that row as any other, and it is trained.

    Args:
        weight: of the network.
        owners: all modules that hold it.
    """
    rows = {owner.padding_idx if isinstance(owner, nn.Embedding) else None for owner in owners}
    row = rows.pop() if len(rows) == 1 else None
    return None if row is None else Padding(row, bool(weight[row].any()))
