"""What the cut knows of a tensor in the network: which unit stands at each index, and which of them are constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Axis", "Units"]


@dataclass
class Axis:
    """The dimension of a tensor along which its units stand.

    A unit is a row of a linear layer or a filter, wherever its output goes: behind a flatten the same unit stands at many
    indices.
    """

    dim: int
    #: Numbers of the units, of shape ``(n,)``.
    units: Tensor
    #: The value that each index has for every input and at every place, in float64; NaN where it varies.
    constant: Tensor

    @property
    def varies(self) -> Tensor:
        """Where the value depends on the input, of shape ``(n,)``."""
        return self.constant.isnan()


class Units:
    """The units of a network, and which of them can only stay or go together (union-find)."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._pinned: list[Tensor] = []

    def new(self, count: int) -> Tensor:
        """``count`` units that nothing ties yet."""
        start = len(self._parents)
        self._parents += range(start, start + count)
        return torch.arange(start, start + count)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Let the units at each index stay or go together."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            self._parents[self._root(a)] = self._root(b)

    def pin(self, units: Tensor) -> None:
        """Let these stay, whatever is read of them."""
        self._pinned.append(units)

    def kept(self, needed: Sequence[Tensor]) -> Tensor:
        """For each unit, whether it stays, given those that are needed."""
        roots = self.roots()
        kept = torch.zeros(len(roots), dtype=torch.bool)
        for units in (*self._pinned, *needed):
            kept[roots[units]] = True
        return kept[roots]

    def roots(self) -> Tensor:
        """For each unit, the number that it shares with those tied to it."""
        return torch.tensor([self._root(unit) for unit in range(len(self._parents))], dtype=torch.long)

    def _root(self, unit: int) -> int:
        while self._parents[unit] != unit:
            self._parents[unit] = self._parents[self._parents[unit]]
            unit = self._parents[unit]
        return unit
