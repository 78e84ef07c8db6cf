"""Student's t: a Gaussian whose variance is inverse gamma (the prior of automatic relevance determination)."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from pyro_vbd.priors.evidence import conjugate_evidence, register_evidence
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior

__all__ = ["StudentT"]


class StudentT(HierarchicalPrior):
    r"""A Gaussian with an inverse-gamma variance, whose marginal is Student's t. A proper prior.

    .. math:: \gamma \sim \mathrm{InverseGamma}(\nu/2, \nu s^2/2), \qquad W \sim N(0, \gamma)
              \quad\Rightarrow\quad W \sim s\, t_\nu

    The density stands on the variance. With q(gamma) a delta the optimum for a group of n is
    :math:`\gamma^* = (S + \nu s^2)/(n + \nu + 2)`; with ``scale_posterior="exact"`` q(gamma) is
    :math:`\mathrm{InverseGamma}((\nu + n)/2, (\nu s^2 + S)/2)`. It never falls below
    :math:`\nu s^2/(n + \nu + 2)`, and so weights far below s are shrunk no further: choose a small s for a sparse network.

    Source: Tipping 2001, *Sparse Bayesian learning and the relevance vector machine*, section 2; MacKay 1995.

    Args:
        df: :math:`\nu`, degrees of freedom.
        scale: s, in the units of the weight.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "variance"

    def __init__(
        self,
        df: Hyperparameter = 3.0,
        scale: Hyperparameter = 1.0,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({"df": df, "scale": scale}, per, global_scale)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.InverseGamma:
        df, scale = hyperparameters["df"], hyperparameters["scale"]
        return dist.InverseGamma(0.5 * df, 0.5 * df * scale.square(), validate_args=False)


@register_optimum(dist.InverseGamma, "variance")
def inverse_gamma_variance(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r""":math:`\gamma^* = (S + 2b)/(n + 2a + 2)` for the density :math:`\gamma^{-a-1} e^{-b/\gamma}`."""
    return (sum_of_squares + 2.0 * hyperprior.rate) / (count + 2.0 * hyperprior.concentration + 2.0)


@register_evidence(dist.InverseGamma, "variance")
def inverse_gamma_evidence(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""q(gamma) is InverseGamma(a + n/2, b + S/2)."""
    return conjugate_evidence(hyperprior.concentration, hyperprior.rate, sum_of_squares, count)
