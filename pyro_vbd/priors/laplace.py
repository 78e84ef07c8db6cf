"""Laplace: a Gaussian whose variance is exponential (the Bayesian lasso)."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.evidence import register_evidence
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["Laplace"]


class Laplace(HierarchicalPrior):
    r"""A Gaussian with an exponential variance, whose marginal is Laplace's density. A proper prior.

    .. math:: \gamma \sim \mathrm{Exponential}(1/2s^2), \qquad W \sim N(0, \gamma)
              \quad\Rightarrow\quad p(w) = \frac{1}{2s} e^{-|w|/s}

    The density stands on the variance and is bounded at 0. With q(gamma) a delta the optimum for a single weight is
    :math:`\gamma^* = 2S/(1 + \sqrt{1 + 4S/s^2})`.

    Source: Park and Casella 2008, *The Bayesian lasso*, eq. (4), with :math:`\lambda = 1/s`.

    Args:
        scale: s, in the units of the weight.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "variance"

    def __init__(
        self, scale: Hyperparameter = 1.0, *, per: str = "weight", global_scale: Hyperparameter | None = None
    ) -> None:
        super().__init__({"scale": scale}, per, global_scale)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.Exponential:
        return dist.Exponential(0.5 / hyperparameters["scale"].square(), validate_args=False)


@register_optimum(dist.Exponential, "variance")
def exponential_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r"""The positive root of :math:`2r\gamma^2 + n\gamma - S = 0`, r the rate."""
    return quadratic_root(2.0 * hyperprior.rate, count, sum_of_squares)


@register_evidence(dist.Exponential, "variance")
def exponential_evidence(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""For one weight :math:`Z = \sqrt{2\pi}\, \tfrac{1}{2s} e^{-\sqrt S/s}` and :math:`E[1/\gamma] = 1/(s \sqrt S)`."""
    if not (isinstance(count, float) and count == 1.0):
        nothing = torch.full_like(sum_of_squares, torch.nan)
        return nothing, nothing
    root = (2.0 * hyperprior.rate).sqrt()  # 1/s
    size = sum_of_squares.sqrt()
    return 0.5 * math.log(2.0 * math.pi) + (0.5 * root).log() - root * size, root / size
