"""The horseshoe: a Gaussian whose scale is half-Cauchy."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["Horseshoe"]


class Horseshoe(HierarchicalPrior):
    r"""A Gaussian with a half-Cauchy scale. A proper prior.

    .. math:: \lambda \sim C^+(0, s), \qquad W \sim N(0, \tau^2\lambda^2)

    The density stands on the scale, where it is bounded; on the variance it is unbounded at 0 (that prior is
    ``BetaPrime(0.5, 0.5, scale=s, floor=...)``). With q(lambda) a delta the optimum is, in
    :math:`\gamma = \lambda^2`, the positive root of :math:`(n + 2)\gamma^2 - (S - n s^2)\gamma - S s^2 = 0`; s to infinity
    is variational Bayesian dropout. ``scale_posterior="exact"`` is by quadrature. The representation by an auxiliary
    variable, :math:`\lambda^2 | \nu \sim IG(1/2, 1/\nu)` and :math:`\nu \sim IG(1/2, 1/s^2)`, which is the usual way to a
    closed form, has a mean-field optimum, not the exact one.

    Source: Carvalho, Polson and Scott 2010, *The horseshoe estimator for sparse signals*, eq. (2).

    Args:
        scale: s, in the units of the weight.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: :math:`\tau`; ``dist.HalfCauchy(1.)`` gives the horseshoe its usual second level. See
            :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "scale"

    def __init__(
        self, scale: Hyperparameter = 1.0, *, per: str = "weight", global_scale: Hyperparameter | None = None
    ) -> None:
        super().__init__({"scale": scale}, per, global_scale)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.HalfCauchy:
        return dist.HalfCauchy(hyperparameters["scale"], validate_args=False)


@register_optimum(dist.HalfCauchy, "scale")
def half_cauchy_scale(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r""":math:`\lambda^*`, the square root of the positive root in :math:`\gamma = \lambda^2`; see :class:`Horseshoe`."""
    # in units of s, so that the product of S and the square of s does not overflow
    ratio = sum_of_squares / hyperprior.scale.square()
    root = quadratic_root(count + 2.0, count - ratio, ratio).sqrt()
    return (hyperprior.scale * root).clamp_min(torch.finfo(ratio.dtype).tiny ** 0.5)  # its square is the variance
