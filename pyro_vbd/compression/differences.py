"""How far outputs are from those that they should be: of a cut network, or of another program that runs it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["difference", "tensors"]


def tensors(outputs: Any) -> Iterator[Tensor]:
    """The tensors of a structure in their order: of tuples, lists and dicts, and of the fields of a dataclass."""
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            yield leaf
        elif is_dataclass(leaf) and not isinstance(leaf, type):
            yield from tensors([getattr(leaf, field.name) for field in fields(leaf)])


def difference(expected: Tensor, found: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest finite number that it may be relative to: 0 for truth values and integers.

    Infinities and NaN that both hold at the same places are no difference; where one alone holds them, or the shapes are
    others, it is infinite.
    """
    if expected.shape != found.shape:
        return math.inf, 0.0
    if not expected.numel():
        return 0.0, 0.0
    same = (expected == found) | (expected != expected) & (found != found)
    largest = (expected.double() - found.double()).abs().nan_to_num(nan=math.inf, posinf=math.inf).where(~same, 0.0).max()
    finite = expected[expected.isfinite()] if expected.is_floating_point() else expected.flatten()[:0]
    return float(largest), float(finite.abs().max()) if len(finite) else 0.0
