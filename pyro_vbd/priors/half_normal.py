"""A Gaussian whose scale is half-normal."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["HalfNormal"]


class HalfNormal(HierarchicalPrior):
    r"""A Gaussian with a half-normal scale. A proper prior.

    .. math:: p(\lambda) \propto e^{-\lambda^2/2s^2}, \qquad W \sim N(0, \lambda^2)

    The marginal is the density of a product of two Gaussians, :math:`K_0(|w|/s)/\pi s`. The density stands on the scale,
    and is bounded. With q(lambda) a delta the optimum is, in :math:`\gamma = \lambda^2`, the positive root of
    :math:`\gamma^2/s^2 + n\gamma - S = 0`.

    Source: Gelman 2006, *Prior distributions for variance parameters in hierarchical models*, section 2.

    Args:
        scale: s, in the units of the weight.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "scale"

    def __init__(
        self, scale: Hyperparameter = 1.0, *, per: str = "weight", global_scale: Hyperparameter | None = None
    ) -> None:
        super().__init__({"scale": scale}, per, global_scale)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.HalfNormal:
        return dist.HalfNormal(hyperparameters["scale"], validate_args=False)


@register_optimum(dist.HalfNormal, "scale")
def half_normal_scale(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r""":math:`\lambda^*`, the square root of the positive root in :math:`\gamma`; see :class:`HalfNormal`."""
    ratio = sum_of_squares / hyperprior.scale.square()
    root = quadratic_root(1.0, count, ratio).sqrt()
    return (hyperprior.scale * root).clamp_min(torch.finfo(ratio.dtype).tiny ** 0.5)
