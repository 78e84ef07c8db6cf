"""A Gaussian of fixed scale: the one-level prior of a plain Bayesian neural network."""

from __future__ import annotations

import pyro
from torch import Tensor

from pyro_vbd.distributions import CentredNormal
from pyro_vbd.priors.hyperparameter import check_number
from pyro_vbd.priors.prior import Prior

__all__ = ["Gaussian"]


class Gaussian(Prior):
    r"""A Gaussian of fixed standard deviation, :math:`W \sim N(0, s^2)`. A proper prior.

    .. math:: KL = \tfrac12 \Big(\log\frac{s^2}{\sigma^2} + \frac{\theta^2 + \sigma^2}{s^2} - 1\Big)

    per weight: eq. (14) of Liu et al. 2019 at :math:`\gamma = s^2`.

    Args:
        scale: standard deviation s > 0, in the units of the weight.

    Raises:
        ValueError: if ``scale`` is not a positive finite number.
    """

    def __init__(self, scale: float = 1.0) -> None:
        check_number("Gaussian", "scale", scale)
        self.scale = float(scale)

    def sample(self, name: str, init: Tensor) -> Tensor:
        weight = CentredNormal(init.new_full((), self.scale**2).expand(init.shape))
        return pyro.sample(name, weight.to_event(init.dim()), infer={"init": init})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Gaussian(scale={self.scale:g})"
