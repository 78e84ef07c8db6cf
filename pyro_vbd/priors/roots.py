"""Positive roots of the polynomials that optima of gamma solve, elementwise, without cancellation or overflow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["cubic_root", "increasing_root", "quadratic_root"]


def quadratic_root(quadratic: Tensor | float, linear: Tensor | float, constant: Tensor) -> Tensor:
    """The positive root of ``quadratic * g**2 + linear * g - constant = 0`` for quadratic > 0 and constant >= 0.

    At least the smallest normal number: a gamma of 0 is no scale.
    """
    linear = torch.as_tensor(linear).to(constant)
    # hypot: the square of a large sum of squares overflows in float32
    root = torch.hypot(linear, 2.0 * (quadratic * constant).sqrt())
    small = 2.0 * constant / (root + linear)
    large = (root - linear) / (2.0 * quadratic)
    return torch.where(linear > 0, small, large).clamp_min(torch.finfo(root.dtype).tiny)


def cubic_root(cubic: Tensor, quadratic: Tensor | float, constant: Tensor) -> Tensor:
    """The positive root of ``cubic * g**3 + quadratic * g**2 - constant = 0``, all coefficients positive.

    By Newton's method from above, where the polynomial is convex: the start is at most a third too large.
    """
    constant = constant.clamp_min(torch.finfo(constant.dtype).tiny)
    g = torch.minimum((constant / quadratic).sqrt(), (constant / cubic).pow(1 / 3))
    for _ in range(6):
        # both sides divided by g**2, which may underflow
        g = g - (cubic * g + quadratic - constant / g / g) / (3.0 * cubic + 2.0 * quadratic / g)
    return g


def increasing_root(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where an increasing function of log g crosses 0, between two positive bounds, by bisection to the last bits.

    Args:
        function: of log g, elementwise.
        low: a positive number below the root.
        high: one above it.
    """
    left, right = low.log(), high.log()
    for _ in range(60 if left.dtype == torch.float64 else 30):
        middle = 0.5 * (left + right)
        below = function(middle) < 0
        left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    return (0.5 * (left + right)).exp()
