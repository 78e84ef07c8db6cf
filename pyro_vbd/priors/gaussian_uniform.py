"""The paper's prior: a Gaussian whose variance is uniform (variational Bayesian dropout)."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.optimum import register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior

__all__ = ["GaussianUniform"]


class GaussianUniform(HierarchicalPrior):
    r"""The hierarchical prior of variational Bayesian dropout.

    .. math:: \gamma \sim U(a, b), \qquad W \sim N(0, \gamma)

    Eq. (11) of Liu et al., *Variational Bayesian Dropout with a Hierarchical Prior*, CVPR 2019. For
    :math:`q(W) = N(\theta, \alpha\theta^2)` and a delta :math:`q(\gamma)` the optimum is
    :math:`\gamma^* = \alpha\theta^2 + \theta^2` (eq. 16), and the KL that is left is

    .. math:: KL = \tfrac12 \log(1 + 1/\alpha)

    per weight (Proposition 3): the dropout rate is learned, the mean is free. Where :math:`\gamma^*` leaves [a, b] it is
    clipped, and the KL is the one at the clipped value. A proper prior; the density stands on the variance.

    Args:
        low: a >= 0.
        high: b > a, finite.

    Raises:
        ValueError: if not 0 <= low < high < infinity.

    Note:
        The constant log(b - a) per weight is what the paper takes for KL(delta || U); it moves no gradient, and
        ``VBD_ELBO(hyperprior_constant=True)`` adds it. Strictly that KL is infinite: what is optimised is a type-II
        maximum (empirical Bayes).
    """

    on = "variance"

    def __init__(self, low: float = 0.0, high: float = 1e3) -> None:
        if not (0 <= low < high < math.inf):
            raise ValueError(f"GaussianUniform(low={low}, high={high}) is no interval of variances: use 0 <= low < high")
        self.low, self.high = float(low), float(high)

    def hyperprior(self, like: Tensor) -> dist.Uniform:
        return dist.Uniform(like.new_full((), self.low), like.new_full((), self.high), validate_args=False)

    def __repr__(self) -> str:
        return f"GaussianUniform(low={self.low:g}, high={self.high:g})"


@register_optimum(dist.Uniform, "variance")
def clipped_second_moment(hyperprior: dist.Uniform, sum_of_squares: Tensor, count: float | Tensor) -> Tensor:
    r"""Eq. (16) for a group of n: :math:`\gamma^* = \mathrm{clip}(S / n, a, b)`.

    Pyro's Uniform is half-open and a Normal refuses the scale 0, so the clip ends at the largest number below b, and at
    the smallest normal number where a = 0.
    """
    low = hyperprior.low.clamp_min(torch.finfo(sum_of_squares.dtype).tiny)
    high = torch.nextafter(hyperprior.high, hyperprior.low)
    if isinstance(count, Tensor):
        count = count.clamp_min(1.0)  # a group of none may stand anywhere
    mean = sum_of_squares if isinstance(count, float) and count == 1.0 else sum_of_squares / count
    return mean.clamp(low, high)
