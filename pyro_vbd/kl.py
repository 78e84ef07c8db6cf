r"""Closed-form KL divergences of the weights, in torch's registry: for the distributions of this library alone."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import register_kl

from pyro_vbd.posteriors import AdditiveNormal, MeanFieldNormal, MultiplicativeNormal
from pyro_vbd.priors.log_uniform import ImproperLogUniform

__all__ = ["collapsed", "excess"]


def collapsed(inverse_alpha: Tensor) -> Tensor:
    r"""The KL of one weight with its prior variance at the optimum, the regulariser of the paper, elementwise.

    .. math:: \min_\gamma KL(N(\theta, \alpha\theta^2) \,\|\, N(0, \gamma)) = \tfrac12\log(1 + 1/\alpha)

    Proposition 3 and eqs. (17), (18) of Liu et al. 2019; concave and non-decreasing in :math:`1/\alpha` (Proposition 4).
    In :math:`1/\alpha` a mean of 0 gives 0, with a finite gradient and no epsilon.
    """
    return 0.5 * torch.log1p(inverse_alpha)


def excess(second_moment: Tensor, variance: Tensor) -> Tensor:
    r"""What a prior variance v away from the optimum adds to :func:`collapsed`, elementwise, >= 0.

    .. math:: \tfrac12 (d - \log(1 + d)), \qquad d = (\theta^2 + \sigma^2)/v - 1

    Eq. (14) of Liu et al. 2019 minus its minimum (eq. 16). Exactly 0, with a gradient of exactly 0, at v = S.
    """
    # not below -1 + eps: S = 0 (a dead weight) would be log(0)
    d = (second_moment / variance - 1.0).clamp_min(torch.finfo(variance.dtype).eps - 1.0)
    return 0.5 * (d - torch.log1p(d))


@register_kl(AdditiveNormal, dist.Normal)
def _kl_additive_normal(q: AdditiveNormal, p: dist.Normal) -> Tensor:
    distance = AdditiveNormal(q.loc - p.loc, q.log_var)
    return collapsed(distance.inverse_alpha) + excess(distance.second_moment, p.scale.square())


@register_kl(MultiplicativeNormal, dist.Normal)
def _kl_multiplicative_normal(q: MultiplicativeNormal, p: dist.Normal) -> Tensor:
    # A scale is the rounded root of a variance. d is within a few units of the last place of 0 at the optimum, where the
    # exact gradient in loc is 0 (Proposition 3) and the rounding error would be divided by loc.
    variance = p.scale.square()
    rounding = 8 * torch.finfo(variance.dtype).eps
    at_optimum = (q.second_moment / variance - 1.0).abs() < rounding
    return collapsed(q.inverse_alpha) + excess(torch.where(at_optimum, variance, q.second_moment), variance)


@register_kl(MeanFieldNormal, ImproperLogUniform)
def _kl_log_uniform(q: MeanFieldNormal, p: ImproperLogUniform) -> Tensor:
    return p.approximation(q.inverse_alpha)
