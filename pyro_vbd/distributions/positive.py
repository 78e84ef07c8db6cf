"""Distributions on the positive line that neither torch nor Pyro has: hyperpriors of the families."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

from pyro_vbd.distributions.inspection import map_tensors
from pyro_vbd.distributions.quadrature import grid

__all__ = ["BetaPrime", "GeneralizedInverseGaussian", "HalfStudentT", "Reciprocal", "TwoPoint", "log_bessel_k"]


class _Positive(dist.TorchDistribution):
    """A distribution of one positive number, whose parameters broadcast. Abstract."""

    support: Any = constraints.positive
    _names: tuple[str, ...]

    def __init__(self, *parameters: Tensor, validate_args: bool | None = None) -> None:
        for name, value in zip(self._names, broadcast_all(*parameters), strict=True):
            setattr(self, name, value)
        super().__init__(getattr(self, self._names[0]).shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        other = map_tensors(self, lambda value: value.expand(batch_shape))  # a normaliser that was found once included
        dist.TorchDistribution.__init__(other, torch.Size(batch_shape), validate_args=False)
        other._validate_args = self._validate_args
        return other


class HalfStudentT(_Positive):
    r"""The absolute value of a Student t, :math:`p(\lambda) \propto (1 + \lambda^2/(\nu s^2))^{-(\nu+1)/2}`.

    Args:
        df: :math:`\nu`, degrees of freedom; 1 is half-Cauchy.
        scale: s.
    """

    arg_constraints = {"df": constraints.positive, "scale": constraints.positive}
    has_rsample = True
    _names = ("df", "scale")
    df: Tensor
    scale: Tensor

    def __init__(self, df: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(df, scale, validate_args=validate_args)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self._whole().rsample(sample_shape).abs()  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return math.log(2.0) + self._whole().log_prob(value)  # type: ignore[no-any-return]

    def _whole(self) -> dist.StudentT:
        return dist.StudentT(self.df, 0.0 * self.scale, self.scale, validate_args=False)


class BetaPrime(_Positive):
    r"""Beta prime: :math:`p(\gamma) = \frac{1}{s B(a, b)} (\gamma/s)^{a-1} (1 + \gamma/s)^{-a-b}`.

    Args:
        concentration1: a, the power at 0.
        concentration0: b, the weight of the tail.
        scale: s, in the units of gamma.
    """

    arg_constraints = {n: constraints.positive for n in ("concentration1", "concentration0", "scale")}
    has_rsample = True
    _names = ("concentration1", "concentration0", "scale")
    concentration1: Tensor
    concentration0: Tensor
    scale: Tensor

    def __init__(
        self, concentration1: Tensor, concentration0: Tensor, scale: Tensor, validate_args: bool | None = None
    ) -> None:
        super().__init__(concentration1, concentration0, scale, validate_args=validate_args)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        ones = torch.ones_like(self.scale)
        tiny = torch.finfo(ones.dtype).tiny
        above = dist.Gamma(self.concentration1, ones, validate_args=False).rsample(sample_shape)
        below = dist.Gamma(self.concentration0, ones, validate_args=False).rsample(sample_shape)
        return (self.scale * above / below).clamp(tiny, torch.finfo(ones.dtype).max)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b, ratio = self.concentration1, self.concentration0, value / self.scale
        constant = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b) - self.scale.log()
        return constant + torch.xlogy(a - 1.0, ratio) - (a + b) * torch.log1p(ratio)


class GeneralizedInverseGaussian(_Positive):
    r"""Generalised inverse Gaussian: :math:`p(\gamma) \propto \gamma^{p-1} \exp(-(a\gamma + b/\gamma)/2)`.

    .. math:: \log p(\gamma) = \tfrac p2 \log\frac ab - \log 2 K_p(\sqrt{ab})
              + (p - 1)\log\gamma - \tfrac12 (a\gamma + b/\gamma)

    with the modified Bessel function of the second kind, by quadrature; draws invert the distribution function.

    Args:
        order: p, any real number.
        rate: a > 0.
        inverse_rate: b > 0.
    """

    arg_constraints = {
        "order": constraints.real,
        "rate": constraints.positive,
        "inverse_rate": constraints.positive,
    }
    _names = ("order", "rate", "inverse_rate")
    order: Tensor
    rate: Tensor
    inverse_rate: Tensor

    def __init__(self, order: Tensor, rate: Tensor, inverse_rate: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(order, rate, inverse_rate, validate_args=validate_args)
        bessel = log_bessel_k(self.order, (self.rate * self.inverse_rate).sqrt())
        self._log_constant = 0.5 * self.order * (self.rate / self.inverse_rate).log() - math.log(2.0) - bessel

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        p, a, b = self.order, self.rate, self.inverse_rate
        return self._log_constant + (p - 1.0) * value.log() - 0.5 * (a * value + b / value)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        p, a, b = (v.double() for v in (self.order, self.rate, self.inverse_rate))
        curve = grid(lambda x: p * x - 0.5 * (a * x.exp() + b * (-x).exp()), p, nodes=1000)
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=p.dtype, device=p.device)
        return curve.quantile(uniform).exp().to(self.order)


def log_bessel_k(order: Tensor, x: Tensor) -> Tensor:
    r"""Logarithm of the modified Bessel function of the second kind, elementwise, differentiable in both arguments.

    .. math:: K_\nu(x) = \tfrac12 \int_{-\infty}^{\infty} e^{\nu t - x \cosh t} \, dt

    DLMF 10.32.9.
    """
    wide, like = order.double(), x.double()
    curve = grid(lambda t: wide * t - like * t.cosh(), like.detach() + 0.0 * wide.detach())
    return (curve.log_integral() - math.log(2.0)).to(x)


class Reciprocal(_Positive):
    r"""The density :math:`p(\gamma) = 1 / (\gamma \log(b/a))` on [a, b]: the logarithm is uniform.

    Args:
        low: a > 0.
        high: b > a.
    """

    arg_constraints = {"low": constraints.positive, "high": constraints.positive}
    has_rsample = True
    _names = ("low", "high")
    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(low, high, validate_args=validate_args)

    @property
    def support(self) -> Any:
        return constraints.interval(self.low, self.high)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=self.low.dtype, device=self.low.device)
        return (self.low * (self.high / self.low).pow(uniform)).clamp(self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return -value.log() - (self.high / self.low).log().log()


class TwoPoint(_Positive):
    r"""One of two numbers: :math:`\gamma = b` with probability :math:`\pi`, else a. A probability mass function.

    Its support is declared as the positive line, since a number off the two points has a log probability of minus infinity.

    Args:
        low: a > 0.
        high: b > a.
        probability: :math:`\pi` of b, in (0, 1).
    """

    arg_constraints = {"low": constraints.positive, "high": constraints.positive, "probability": constraints.unit_interval}
    has_enumerate_support = True
    _names = ("low", "high", "probability")
    low: Tensor
    high: Tensor
    probability: Tensor

    def __init__(self, low: Tensor, high: Tensor, probability: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(low, high, probability, validate_args=validate_args)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.low.dtype, device=self.low.device)
        return torch.where(uniform < self.probability, self.high, self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        off = torch.where(value == self.low, torch.log1p(-self.probability), -torch.inf)
        return torch.where(value == self.high, self.probability.log(), off)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """The two points, in front."""
        low, high = (
            (self.low, self.high) if expand else (v.reshape(-1)[:1].reshape((1,) * v.dim()) for v in (self.low, self.high))
        )
        return torch.stack([low, high])
