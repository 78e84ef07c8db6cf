"""The penalised complexity prior: a Gaussian whose scale is exponential."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.hyperparameter import Hyperparameter
from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.priors.roots import cubic_root

__all__ = ["PCPrior"]


class PCPrior(HierarchicalPrior):
    r"""A Gaussian with an exponential scale, the penalised complexity prior of a standard deviation. A proper prior.

    .. math:: p(\lambda) = \kappa e^{-\kappa\lambda}, \qquad W \sim N(0, \lambda^2)

    The density stands on the scale, and is bounded. With q(lambda) a delta the optimum is the positive root of
    :math:`\kappa\lambda^3 + n\lambda^2 - S = 0`.

    Source: Simpson et al. 2017, *Penalising model component complexity*, section 3.3. To have
    :math:`P(\lambda > U) = \epsilon` take :math:`\kappa = -\log(\epsilon)/U`.

    Args:
        rate: :math:`\kappa`, in one over the units of the weight.
        per: what shares one gamma; see :class:`HierarchicalPrior`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: for a hyperparameter that is not positive and finite, or an unknown ``per``.
    """

    on = "scale"

    def __init__(
        self, rate: Hyperparameter = 1.0, *, per: str = "weight", global_scale: Hyperparameter | None = None
    ) -> None:
        super().__init__({"rate": rate}, per, global_scale)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.Exponential:
        return dist.Exponential(hyperparameters["rate"], validate_args=False)


@register_optimum(dist.Exponential, "scale")
def exponential_scale(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r"""The positive root of :math:`\kappa\lambda^3 + n\lambda^2 - S = 0`."""
    root = cubic_root(hyperprior.rate, count, sum_of_squares)
    return root.clamp_min(torch.finfo(root.dtype).tiny ** 0.5)
