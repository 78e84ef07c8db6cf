"""How the KL weight and the learning rate move over a run, as functions of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

__all__ = ["Schedule", "constant", "kl_ramp", "linear_decay", "piecewise"]

#: ``schedule(epoch, epochs) -> multiplier``, with epochs counted from 0.
Schedule = Callable[[int, int], float]


def constant(epoch: int, epochs: int) -> float:
    """1 throughout."""
    return 1.0


def kl_ramp(start: float, end: float) -> Schedule:
    """0 before epoch ``start``, then a straight line up to 1 at epoch ``end``.

    The warm-up of Molchanov et al. 2017 is ``kl_ramp(5, 20)`` (their released code). At the start the KL is as large as
    the data's term, and without a ramp a wide network can be pruned before it has learned anything.

    Raises:
        ValueError: if not 0 <= start <= end.
    """
    if not 0 <= start <= end:
        raise ValueError(f"a KL ramp from epoch {start} to {end} goes backwards: use 0 <= start <= end")

    def ramp(epoch: int, epochs: int) -> float:
        if epoch >= end:
            return 1.0
        return (epoch - start) / (end - start) if epoch > start else 0.0

    return ramp


def linear_decay(start: float = 0.0) -> Schedule:
    """1 until the fraction ``start`` of the epochs, then a straight line to 0 at the end of the run.

    Raises:
        ValueError: if not 0 <= start < 1.
    """
    if not 0 <= start < 1:
        raise ValueError(f"a decay that starts at the fraction {start} of the run never happens: use 0 <= start < 1")
    return lambda epoch, epochs: min(1.0, (1.0 - epoch / epochs) / (1.0 - start))


def piecewise(*points: tuple[float, float]) -> Schedule:
    """Straight lines between points ``(epoch, multiplier)``; before the first and after the last it stays.

    ``piecewise((5, 0), (20, 1), (100, 1.4))`` warms the KL up and goes on beyond the bound, which removes more weights.

    Raises:
        ValueError: for no points, epochs that do not rise, a number that is not finite, or a multiplier below 0.
    """
    if not points or not all(math.isfinite(number) for point in points for number in point):
        raise ValueError(f"a piecewise schedule needs points of finite numbers, and got {points}: use (epoch, multiplier)")
    if any(multiplier < 0 for _, multiplier in points):
        raise ValueError(f"the multipliers of {points} fall below 0, which would turn the objective around: use 0 or more")
    for (earlier, _), (later, _) in pairwise(points):
        if not earlier < later:
            raise ValueError(f"the epochs of a piecewise schedule rise, and {later} follows on {earlier}: sort the points")

    def line(epoch: int, epochs: int) -> float:
        for (start, before), (end, after) in pairwise(points):
            if start <= epoch < end:
                return before + (after - before) * (epoch - start) / (end - start)
        return points[0][1] if epoch < points[0][0] else points[-1][1]

    return line
