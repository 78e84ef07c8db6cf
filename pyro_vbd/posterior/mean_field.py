"""q(W): a Gaussian in the coordinates in which it is learned, additive (eq. 18) or multiplicative (eqs. 4 and 17)."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property

__all__ = ["AdditiveNormal", "MeanFieldNormal", "MultiplicativeNormal"]

D = TypeVar("D", bound="MeanFieldNormal")


class MeanFieldNormal(dist.Normal):
    r"""A Gaussian :math:`N(\theta, \sigma^2)` that knows its dropout rate :math:`\alpha = \sigma^2/\theta^2`. Abstract.

    A ``Normal`` in every respect. Variance, scale and 1/alpha are computed when they are first asked for, and kept. It is
    made at every step, so parameters and values are validated only with ``validate_args=True``.
    """

    loc: Tensor

    def __init__(self, loc: Tensor, parameter: Tensor, validate_args: bool | None = None) -> None:
        same = loc.shape == parameter.shape  # broadcast_shapes takes longer than all the rest
        shape = loc.shape if same else torch.broadcast_shapes(loc.shape, parameter.shape)
        self.loc = loc if same else loc.expand(shape)
        Distribution.__init__(self, shape, validate_args=bool(validate_args))

    @lazy_property
    def variance(self) -> Tensor:
        r""":math:`\sigma^2`, of shape ``batch_shape``."""
        raise NotImplementedError

    @lazy_property
    def inverse_alpha(self) -> Tensor:
        r""":math:`1/\alpha = \theta^2/\sigma^2`, of shape ``batch_shape``; 0 at a mean of 0."""
        raise NotImplementedError

    @property
    def second_moment(self) -> Tensor:
        r""":math:`\theta^2 + \sigma^2`: the optimum of gamma (eq. 16)."""
        return torch.addcmul(self.variance, self.loc, self.loc)

    @lazy_property
    def scale(self) -> Tensor:  # type: ignore[override]
        r""":math:`\sigma`, never 0: its gradient stays finite where the variance underflows."""
        return self.variance.clamp_min(torch.finfo(self.variance.dtype).tiny).sqrt()

    @property
    def stddev(self) -> Tensor:
        return self.scale

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc.expand(shape), self.scale.expand(shape), noise)

    def _lend(self, wider: D) -> D:
        """Compute variance and scale at this size, and give an expanded distribution views of them."""
        for name in ("variance", "scale"):
            setattr(wider, name, getattr(self, name).expand(wider.batch_shape))
        wider._validate_args = self._validate_args
        return wider


class AdditiveNormal(MeanFieldNormal):
    r""":math:`N(\theta, \sigma^2)` with :math:`\theta` and :math:`\log\sigma^2` as parameters: one alpha per weight.

    The re-parameterisation of section 4.1 of Liu et al. 2019, after Molchanov et al. 2017: its gradients do not grow with
    alpha, and a mean of 0 is an ordinary point.

    Args:
        loc: :math:`\theta`.
        log_var: :math:`\log\sigma^2`, in log(units of the weight squared); broadcast against ``loc``.
    """

    arg_constraints = {"loc": constraints.real, "log_var": constraints.real}

    def __init__(self, loc: Tensor, log_var: Tensor, validate_args: bool | None = None) -> None:
        self.log_var = log_var
        super().__init__(loc, log_var, validate_args)

    @lazy_property
    def variance(self) -> Tensor:
        variance = self.log_var.exp()
        return variance if variance.shape == self.batch_shape else variance.expand(self.batch_shape)

    @lazy_property
    def inverse_alpha(self) -> Tensor:
        # no quotient: 0/0 where the variance underflows, and a gradient that overflows long before that
        return self.loc.square() * self.log_var.clamp_min(math.log(torch.finfo(self.loc.dtype).tiny)).neg().exp()

    def expand(self, batch_shape: Any, _instance: Any = None) -> AdditiveNormal:
        return self._lend(AdditiveNormal(self.loc.expand(batch_shape), self.log_var.expand(batch_shape)))


class MultiplicativeNormal(MeanFieldNormal):
    r""":math:`N(\theta, \alpha\theta^2)` with :math:`\theta` and :math:`\log\alpha` as parameters (eqs. 4 and 17).

    For an alpha that is fixed or shared; alone it is Gaussian dropout.

    Args:
        loc: :math:`\theta`.
        log_alpha: :math:`\log\alpha`, broadcast against ``loc``.
    """

    arg_constraints = {"loc": constraints.real, "log_alpha": constraints.real}

    def __init__(self, loc: Tensor, log_alpha: Tensor, validate_args: bool | None = None) -> None:
        self.log_alpha = log_alpha
        super().__init__(loc, log_alpha, validate_args)

    @lazy_property
    def variance(self) -> Tensor:
        return self.log_alpha.exp() * self.loc.square()

    @lazy_property
    def inverse_alpha(self) -> Tensor:
        return self.log_alpha.neg().exp().expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MultiplicativeNormal:
        return self._lend(MultiplicativeNormal(self.loc.expand(batch_shape), self.log_alpha.expand(batch_shape)))
