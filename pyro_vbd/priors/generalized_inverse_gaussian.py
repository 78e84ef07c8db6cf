"""A Gaussian whose variance is generalised inverse Gaussian (generalised hyperbolic weights)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vbd.distributions import positive
from pyro_vbd.priors.hyperparameter import Hyperparameter, is_number
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import quadratic_root

__all__ = ["GeneralizedInverseGaussian"]


class GeneralizedInverseGaussian(HierarchicalPrior):
    r"""A Gaussian with a generalised inverse Gaussian variance. A proper prior.

    .. math:: p(\gamma) \propto \gamma^{p-1} e^{-(a\gamma + b/\gamma)/2}, \qquad W \sim N(0, \gamma)

    Between the gamma (b -> 0) and the inverse gamma (a -> 0), and bounded for every p. The density stands on the variance.
    With q(gamma) a delta the optimum is the positive root of :math:`a\gamma^2 + (n + 2 - 2p)\gamma - (S + b) = 0`; with
    ``scale_posterior="exact"`` q(gamma) is the same family with :math:`p - n/2`, a and :math:`b + S`, whose normaliser, a
    Bessel function, is an integral itself.

    Source: Caron and Doucet 2008, *Sparse Bayesian nonparametric regression*, section 2.

    Args:
        order: p, any real number; a number that is fixed.
        rate: a, in one over the units of the weight squared.
        inverse_rate: b, in the units of the weight squared.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not finite, a or b not positive, or an unknown ``per``.
    """

    on = "variance"

    def __init__(
        self,
        order: float = 1.0,
        rate: Hyperparameter = 1.0,
        inverse_rate: Hyperparameter = 1e-8,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({"rate": rate, "inverse_rate": inverse_rate}, per, global_scale)
        if not is_number(order):
            raise ValueError(f"GeneralizedInverseGaussian(order={order!r}) is no power of gamma: use a finite number")
        self.order = float(order)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> positive.GeneralizedInverseGaussian:
        order = like.new_full((), self.order)
        return positive.GeneralizedInverseGaussian(
            order, hyperparameters["rate"], hyperparameters["inverse_rate"], validate_args=False
        )

    def arguments(self) -> dict[str, Any]:
        return {"order": self.order, **super().arguments()}


@register_optimum(positive.GeneralizedInverseGaussian, "variance")
def generalized_inverse_gaussian_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r"""The positive root of :math:`a\gamma^2 + (n + 2 - 2p)\gamma - (S + b) = 0`."""
    return quadratic_root(hyperprior.rate, count + 2.0 - 2.0 * hyperprior.order, sum_of_squares + hyperprior.inverse_rate)
