r"""A smooth function between equidistant nodes: the polynomial of degree 5 through the six nearest (Lagrange's form).

With nodes h apart the error is at most :math:`0.005\, h^6 \max|f^{(6)}|` (DLMF 3.3.11).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["interpolated", "neighbours"]

_OFFSETS = (-2, -1, 0, 1, 2, 3)


def neighbours(x: Tensor, nodes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The numbers of the six nodes by each x, and the weights of a function's values there; all of the shape of x.

    Args:
        x: where, between the first node and the last.
        nodes: increasing, six or more; all may be the same number, if x is that too.
    """
    step = (nodes[-1] - nodes[0]) / (len(nodes) - 1)
    place = torch.where(step > 0, (x - nodes[0]) / step, 0.0)
    left = place.floor().long().clamp(-_OFFSETS[0], len(nodes) - 1 - _OFFSETS[-1])
    ways = [place - left - offset for offset in _OFFSETS]  # from each node, in steps
    found = []
    for own in _OFFSETS:
        others = [(way, own - other) for way, other in zip(ways, _OFFSETS, strict=True) if other != own]
        weight = math.prod((way for way, _ in others), start=torch.ones_like(place)) / math.prod(gap for _, gap in others)
        found.append((left + own, weight))
    return found


def interpolated(x: Tensor, nodes: Tensor, *functions: Tensor) -> list[Tensor]:
    """Functions at ``x``, each of its shape, from their values at the nodes; see :func:`neighbours`."""
    around = neighbours(x, nodes)
    return [torch.stack([weight * values[number] for number, weight in around]).sum(0) for values in functions]
