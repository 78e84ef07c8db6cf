"""Families whose density of gamma is unbounded at 0 need a floor; below it the density is cut off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vbd.distributions.truncated import Truncated
from pyro_vbd.priors.hyperparameter import Hyperparameter, check_number
from pyro_vbd.priors.optimum import find_optimum, register_optimum

__all__ = ["check_floor"]


def check_floor(family: str, name: str, power: Hyperparameter, floor: float | None) -> float | None:
    r"""The floor of a density that is :math:`\gamma^{c - 1}` near 0, which is unbounded for c < 1.

    As all of a group shrinks the loss falls like :math:`(1 - c) \log S`, without a lower bound.

    Raises:
        ValueError: if the density may be unbounded and there is no floor, or the floor is not positive and finite.
    """
    if floor is not None:
        check_number(family, "floor", floor)
    if floor is None and not (isinstance(power, int | float) and power >= 1):
        raise ValueError(
            f"{family}({name}={power}) without a floor has a density of gamma that is unbounded at 0, and a loss without "
            f"a lower bound as weights shrink: pass floor=1e-8, say, or use {name} >= 1"
        )
    return floor


@register_optimum(Truncated, "variance")
def truncated_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    """The optimum of the base, or the floor where that is lower: J has one minimum, and grows on both sides of it.

    Raises:
        NotImplementedError: if the base has no registered optimum.
    """
    optimum = find_optimum(type(hyperprior.base), "variance")
    if optimum is None:
        raise NotImplementedError(f"no optimum is registered for {type(hyperprior.base).__name__} on the variance")
    return torch.maximum(optimum(hyperprior.base, sum_of_squares, count), hyperprior.floor)
