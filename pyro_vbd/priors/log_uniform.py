"""The log-uniform prior: variational dropout (Kingma et al. 2015, Molchanov et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vbd.priors.prior import Prior

__all__ = ["ImproperLogUniform", "LogUniform", "kingma", "molchanov"]

# Fit of Molchanov et al. 2017 (arXiv:1701.05369, eq. (14)) to the exact KL. k1 is the height of the KL above
# 0.5 log(1 + 1/alpha) as alpha goes to 0, in exact form (Euler's gamma + log 2) / 2 = 0.63518; k2 and k3 place the
# sigmoid between the two ends. tests/priors/test_log_uniform.py holds the fit against quadrature.
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695

# Fit of Kingma et al. 2015 (arXiv:1506.02557, section 4.2 and appendix C) on 0 < alpha <= 1.
_C1, _C2, _C3 = 1.16145124, -1.50204118, 0.58629921

#: The exact KL minus -0.5 log(alpha) as alpha goes to 0, when the KL is 0 at alpha = infinity.
_LIMIT = 0.5 * (0.5772156649015329 + math.log(2.0))

# Between them t = exp(-k2) alpha^(-k3) is an ordinary float32: beyond the one it overflows, where the sigmoid has long
# been at 1; below the other it is denormal, which makes a CPU many times slower, and counts for nothing.
_SMALLEST, _LARGEST = 1e-24, 1e24


def molchanov(inverse_alpha: Tensor) -> Tensor:
    r"""KL from a log-uniform prior, Molchanov's approximation, elementwise in :math:`1/\alpha`, for every alpha.

    .. math:: KL = \tfrac12\log(1 + 1/\alpha) + k_1 \, (1 - S(k_2 + k_3 \log\alpha))

    Eq. (14) of arXiv:1701.05369, which prints -KL, with the constant chosen so that KL = 0 at alpha = infinity (the prior
    is improper: its KL is defined up to a constant). S is the sigmoid. The second term is all that it has beyond
    variational Bayesian dropout's. Absolute error below 0.0094 (measured against quadrature).
    """
    # 1 - S(k2 + k3 log alpha) = t / (1 + t): no logarithm of 0 at a mean of 0, and a finite gradient there
    t = (_K3 * inverse_alpha.clamp(_SMALLEST, _LARGEST).log() - _K2).exp()
    return 0.5 * torch.log1p(inverse_alpha) + _K1 * t / (1.0 + t)


def kingma(inverse_alpha: Tensor) -> Tensor:
    r"""KL from a log-uniform prior, Kingma's polynomial, elementwise in :math:`1/\alpha`, for alpha <= 1.

    .. math:: KL = \tfrac12(\gamma_E + \log 2) - \tfrac12\log\alpha - c_1\alpha - c_2\alpha^2 - c_3\alpha^3

    Section 4.2 of arXiv:1506.02557, with the same constant as :func:`molchanov`. Too low by up to 0.041 (measured against
    quadrature). Beyond alpha = 1, where the polynomial means nothing, the value at alpha = 1 is kept: the true KL falls
    with alpha, so the objective stays a lower bound up to that error, and no gradient drives alpha past 1.
    """
    inverse = inverse_alpha.clamp_min(1.0)
    alpha = 1.0 / inverse
    return _LIMIT + 0.5 * torch.log(inverse) - alpha * (_C1 + alpha * (_C2 + alpha * _C3))


class ImproperLogUniform(dist.TorchDistribution):
    r"""The improper density :math:`p(w) = 1 / |w|` on the real line: :math:`\log|w|` is uniform on the whole line.

    Eq. (8) of Liu et al. 2019. It has a log density, up to a constant, and no samples.

    Args:
        like: tensor whose dtype and device the distribution takes.
        approximation: KL of a Gaussian from it, as a function of 1/alpha: :func:`molchanov` or :func:`kingma`.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        like: Tensor,
        approximation: Callable[[Tensor], Tensor] = molchanov,
        batch_shape: torch.Size = torch.Size(),
        validate_args: bool | None = None,
    ) -> None:
        self._like, self.approximation = like.new_zeros(()), approximation
        super().__init__(batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ImproperLogUniform:
        return ImproperLogUniform(
            self._like, self.approximation, torch.Size(batch_shape), validate_args=self._validate_args
        )

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        raise NotImplementedError(
            "the log-uniform prior is improper and has no samples: draw from a guide, or use a proper prior such as "
            "GaussianUniform"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return -value.abs().log().expand(torch.broadcast_shapes(value.shape, self.batch_shape))


class LogUniform(Prior):
    r"""The improper log-uniform prior of variational dropout, :math:`p(|W|) \propto 1/|W|` (eq. (8) of Liu et al. 2019).

    Args:
        approximation: :func:`molchanov` (sparse variational dropout, every alpha) or :func:`kingma` (alpha <= 1).

    Warning:
        Improper: the posterior is not defined, ELBOs hold up to a constant only, and there are no prior draws
        (Hron et al. 2018, *Variational Bayesian dropout: pitfalls and fixes*).
    """

    def __init__(self, approximation: Callable[[Tensor], Tensor] = molchanov) -> None:
        self.approximation = approximation

    def sample(self, name: str, init: Tensor) -> Tensor:
        weight = ImproperLogUniform(init, self.approximation, init.shape, validate_args=False)
        return pyro.sample(name, weight.to_event(init.dim()), infer={"init": init})  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return "LogUniform()" if self.approximation is molchanov else f"LogUniform({self.approximation.__name__})"
