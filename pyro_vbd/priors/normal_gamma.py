"""The normal-gamma prior: a Gaussian whose variance is gamma distributed."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from pyro_vbd.distributions.truncated import Truncated
from pyro_vbd.priors.floor import check_floor
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["NormalGamma"]


class NormalGamma(HierarchicalPrior):
    r"""A Gaussian with a gamma variance (the variance-gamma marginal). A proper prior.

    .. math:: \gamma \sim \mathrm{Gamma}(k, r), \qquad W \sim N(0, \gamma)

    k = 1 is :class:`Laplace` with :math:`r = 1/2s^2`; k = 1 and r -> 0 is variational Bayesian dropout. The density stands
    on the variance. With q(gamma) a delta the optimum is the positive root of
    :math:`2r\gamma^2 + (n + 2 - 2k)\gamma - S = 0`.

    Source: Griffin and Brown 2010, *Inference with normal-gamma prior distributions in regression problems*, section 2.

    Args:
        concentration: k. Below 1 the density is unbounded at 0, and the loss has no lower bound: it needs a ``floor``.
        rate: r, in one over the units of the weight squared.
        floor: smallest variance; the density is cut off below it.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, k < 1 without a floor, or an unknown ``per``.
    """

    on = "variance"

    def __init__(
        self,
        concentration: Hyperparameter = 1.0,
        rate: Hyperparameter = 0.5,
        *,
        floor: float | None = None,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({"concentration": concentration, "rate": rate}, per, global_scale)
        self.floor = check_floor("NormalGamma", "concentration", concentration, floor)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.TorchDistribution:
        gamma = dist.Gamma(hyperparameters["concentration"], hyperparameters["rate"], validate_args=False)
        return gamma if self.floor is None else Truncated(gamma, like.new_full((), self.floor), validate_args=False)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), **({} if self.floor is None else {"floor": self.floor})}


@register_optimum(dist.Gamma, "variance")
def gamma_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r"""The positive root of :math:`2r\gamma^2 + (n + 2 - 2k)\gamma - S = 0`."""
    return quadratic_root(2.0 * hyperprior.rate, count + 2.0 - 2.0 * hyperprior.concentration, sum_of_squares)
