"""A Gaussian whose precision is gamma distributed: the way this hierarchy is most often written by hand."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.evidence import conjugate_evidence, register_evidence
from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior

__all__ = ["GammaPrecision"]


class GammaPrecision(HierarchicalPrior):
    r"""A Gaussian with a gamma precision. A proper prior.

    .. math:: \tau \sim \mathrm{Gamma}(a, b), \qquad W \sim N(0, 1/\tau)

    The marginal is the Student's t of :class:`StudentT` with :math:`\nu = 2a` and :math:`s^2 = b/a`; the density stands on
    the precision, and a delta q moves with that: :math:`1/\tau^* = (S + 2b)/(n + 2a - 2)`, where :class:`StudentT` has
    n + 2a + 2. With n + 2a <= 2 the density has no maximum at a positive precision.

    Source: Tipping 2001, *Sparse Bayesian learning and the relevance vector machine*, eq. (6).

    Args:
        concentration: a.
        rate: b, in the units of the weight squared.
        per: what shares one precision; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, ``per="weight"`` with a <= 1/2, or an unknown
            ``per``.
    """

    on = "precision"

    def __init__(
        self,
        concentration: Hyperparameter = 1.0,
        rate: Hyperparameter = 1e-6,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({"concentration": concentration, "rate": rate}, per, global_scale)
        if per == "weight" and isinstance(concentration, int | float) and concentration <= 0.5:
            raise ValueError(
                f"GammaPrecision(concentration={concentration}) has the optimum of a single weight's precision at 0, an "
                "infinite variance: use more than 0.5, or StudentT, which stands on the variance"
            )

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.Gamma:
        return dist.Gamma(hyperparameters["concentration"], hyperparameters["rate"], validate_args=False)


@register_optimum(dist.Gamma, "precision")
def gamma_precision(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r""":math:`\tau^* = (n + 2a - 2)/(S + 2b)`; the smallest normal number where that is not positive."""
    finfo = torch.finfo(sum_of_squares.dtype)
    numerator = count + 2.0 * hyperprior.concentration - 2.0
    return (numerator / (sum_of_squares + 2.0 * hyperprior.rate)).clamp(finfo.tiny, finfo.max)


@register_evidence(dist.Gamma, "precision")
def gamma_precision_evidence(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""q(tau) is Gamma(a + n/2, b + S/2)."""
    return conjugate_evidence(hyperprior.concentration, hyperprior.rate, sum_of_squares, count)
