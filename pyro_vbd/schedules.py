"""How the KL weight and the learning rate move over a run, as functions of the epoch."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Schedule", "constant", "kl_ramp", "linear_decay"]

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
