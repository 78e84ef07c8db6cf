"""A Gaussian whose variance is beta prime: the marginal of R2-D2, and the three-parameter beta family."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vbd.distributions import positive
from pyro_vbd.distributions.truncated import Truncated
from pyro_vbd.priors.floor import check_floor
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["BetaPrime"]


class BetaPrime(HierarchicalPrior):
    r"""A Gaussian with a beta-prime variance. A proper prior.

    .. math:: p(\gamma) \propto (\gamma/s^2)^{a-1} (1 + \gamma/s^2)^{-a-b}, \qquad W \sim N(0, \gamma)

    The three-parameter beta family: a = b = 1/2 is the horseshoe with its density on the variance, a = 1, b = 1/2
    Strawderman and Berger's, a = 1 the normal-exponential-gamma; the marginal of a weight under R2-D2. The density stands
    on the variance. a = 1 and s -> infinity is variational Bayesian dropout. With q(gamma) a delta the optimum is, in
    units of :math:`s^2`, the positive root of :math:`(n + 2 + 2b) g^2 - (S - n - 2 + 2a) g - S = 0`.

    Source: Armagan, Dunson and Clyde 2011, *Generalized beta mixtures of Gaussians*, eq. (2); Zhang et al. 2022, *Bayesian
    regression using a prior on the model fit: the R2-D2 shrinkage prior*, Proposition 4.

    Args:
        concentration1: a, the power at 0. Below 1 the density is unbounded at 0, and the loss has no lower bound: it needs
            a ``floor``.
        concentration0: b, the weight of the tail.
        scale: s, in the units of the weight.
        floor: smallest variance; the density is cut off below it.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, a < 1 without a floor, or an unknown ``per``.
    """

    on = "variance"

    def __init__(
        self,
        concentration1: Hyperparameter = 1.0,
        concentration0: Hyperparameter = 0.5,
        scale: Hyperparameter = 1.0,
        *,
        floor: float | None = None,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        values = {"concentration1": concentration1, "concentration0": concentration0, "scale": scale}
        super().__init__(values, per, global_scale)
        self.floor = check_floor("BetaPrime", "concentration1", concentration1, floor)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> Any:
        a, b = hyperparameters["concentration1"], hyperparameters["concentration0"]
        density = positive.BetaPrime(a, b, hyperparameters["scale"].square(), validate_args=False)
        return density if self.floor is None else Truncated(density, like.new_full((), self.floor), validate_args=False)

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), **({} if self.floor is None else {"floor": self.floor})}


@register_optimum(positive.BetaPrime, "variance")
def beta_prime_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r"""The positive root of :math:`(n + 2 + 2b) g^2 - (S - n - 2 + 2a) g - S = 0`, in units of the scale."""
    ratio = sum_of_squares / hyperprior.scale
    linear = count + 2.0 - 2.0 * hyperprior.concentration1 - ratio
    root = quadratic_root(count + 2.0 + 2.0 * hyperprior.concentration0, linear, ratio)
    return (hyperprior.scale * root).clamp_min(torch.finfo(root.dtype).tiny)
