"""The paper's prior: a Gaussian whose variance is uniform (variational Bayesian dropout)."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vbd.priors.evidence import register_evidence
from pyro_vbd.priors.hyperparameter import Hyperparameter, is_number
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
        low: a >= 0, in the units of the weight squared.
        high: b > a, finite.
        per: what shares one gamma; see :class:`HierarchicalPrior`. For a group of n, :math:`\gamma^* = S/n`.
        global_scale: see :class:`HierarchicalPrior`.

    Raises:
        ValueError: if not 0 <= low < high < infinity, or for an unknown ``per``.

    Note:
        The constant log(b - a) per weight is what the paper takes for KL(delta || U); it moves no gradient, and
        ``VBD_ELBO(hyperprior_constant=True)`` adds it. Strictly that KL is infinite: what is optimised is a type-II
        maximum (empirical Bayes).
    """

    on = "variance"

    def __init__(
        self,
        low: float = 0.0,
        high: float = 1e3,
        *,
        per: str = "weight",
        global_scale: Hyperparameter | None = None,
    ) -> None:
        super().__init__({}, per, global_scale)
        if not (is_number(low) and is_number(high) and 0 <= low < high):
            raise ValueError(f"GaussianUniform(low={low}, high={high}) is no interval of variances: use 0 <= low < high")
        self.low, self.high = float(low), float(high)

    def hyperprior(self, like: Tensor, **hyperparameters: Tensor) -> dist.Uniform:
        return dist.Uniform(like.new_full((), self.low), like.new_full((), self.high), validate_args=False)

    def arguments(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, **super().arguments()}


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


@register_evidence(dist.Uniform, "variance")
def uniform_evidence(hyperprior: Any, sum_of_squares: Tensor, count: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""An incomplete gamma function; for a single weight, with :math:`z(x) = \sqrt{S/2x}`,

    .. math:: Z = \frac{G(b) - G(a)}{b - a}, \qquad
              G(x) = \int_0^x \frac{e^{-S/2\gamma}}{\sqrt\gamma} d\gamma
                   = 2\sqrt{x}\, e^{-z^2} (1 - \sqrt\pi\, z e^{z^2} \mathrm{erfc}\, z)

    and :math:`Z E[1/\gamma] = \sqrt{2\pi/S}\, (\mathrm{erfc}\, z(b) - \mathrm{erfc}\, z(a))/(b - a)`.
    """
    nothing = torch.full_like(sum_of_squares, torch.nan)
    if not (isinstance(count, float) and count == 1.0):
        return nothing, nothing
    z_high, z_low = ((sum_of_squares / (2.0 * bound)).sqrt() for bound in (hyperprior.high, hyperprior.low))
    rest = 1.0 - math.sqrt(math.pi) * z_high * torch.special.erfcx(z_high)
    upper = 2.0 * hyperprior.high.sqrt() * (-z_high.square()).exp() * rest
    # at a = 0 the erfcx of infinity is 0 times infinity
    low_rest = 1.0 - math.sqrt(math.pi) * z_low * torch.special.erfcx(z_low)
    lower = 2.0 * hyperprior.low.sqrt() * (-z_low.square()).exp() * low_rest
    lower = torch.where(hyperprior.low > 0, lower, 0.0)
    size = (upper - lower) / (hyperprior.high - hyperprior.low)
    # each where the two numbers are not nearly 1
    near = torch.special.erf(z_low) - torch.special.erf(z_high)
    far = torch.special.erfc(z_high) - torch.special.erfc(z_low)
    slope = (2.0 * math.pi / sum_of_squares).sqrt() * torch.where(z_high < 0.5, near, far)
    slope = slope / (hyperprior.high - hyperprior.low)
    # differences of nearly equal numbers: left to quadrature
    sound = (upper > 1e-250) & (lower < 0.999 * upper)
    return torch.where(sound, size.log(), nothing), torch.where(sound, slope / size, nothing)
