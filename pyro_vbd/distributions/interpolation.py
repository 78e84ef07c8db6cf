r"""A smooth function between equidistant nodes: the polynomial of degree 5 through the six nearest (Lagrange's form).

With nodes h apart the error is at most :math:`0.005\, h^6 \max|f^{(6)}|` (DLMF 3.3.11).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["interpolated"]

_OFFSETS = (-2, -1, 0, 1, 2, 3)


def interpolated(x: Tensor, nodes: Tensor, *functions: Tensor) -> list[Tensor]:
    """Functions at ``x``, each of its shape.

    Args:
        x: where, between the first node and the last.
        nodes: increasing, six or more; all may be the same number, if x is that too.
        functions: the values of each at the nodes.
    """
    step = (nodes[-1] - nodes[0]) / (len(nodes) - 1)
    place = torch.where(step > 0, (x - nodes[0]) / step, 0.0)
    left = place.floor().long().clamp(-_OFFSETS[0], len(nodes) - 1 - _OFFSETS[-1])
    ways = [place - left - offset for offset in _OFFSETS]  # from each node, in steps
    found = [torch.zeros_like(place) for _ in functions]
    for own in _OFFSETS:
        others = [(way, own - other) for way, other in zip(ways, _OFFSETS, strict=True) if other != own]
        weight = math.prod((way for way, _ in others), start=torch.ones_like(place)) / math.prod(gap for _, gap in others)
        found = [value + weight * function[left + own] for value, function in zip(found, functions, strict=True)]
    return found
