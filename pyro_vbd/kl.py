r"""Closed-form KL divergences of the weights, in torch's registry: for the distributions of this library alone."""

from __future__ import annotations

import inspect
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import register_kl

from pyro_vbd.distributions import CentredNormal
from pyro_vbd.posterior.mean_field import AdditiveNormal, MeanFieldNormal, MultiplicativeNormal
from pyro_vbd.priors.log_uniform import ImproperLogUniform

__all__ = ["collapsed", "excess"]

#: Smallest ratio of second moment to prior variance. A dead weight has less: its gradient, 1/ratio, would overflow.
_LEAST_RATIO = 1e-16


def collapsed(inverse_alpha: Tensor) -> Tensor:
    r"""The KL of one weight with its prior variance at the optimum, the regulariser of the paper, elementwise.

    .. math:: \min_\gamma KL(N(\theta, \alpha\theta^2) \,\|\, N(0, \gamma)) = \tfrac12\log(1 + 1/\alpha)

    Proposition 3 and eqs. (17), (18) of Liu et al. 2019; concave and non-decreasing in :math:`1/\alpha` (Proposition 4).
    In :math:`1/\alpha` a mean of 0 gives 0, with a finite gradient and no epsilon.
    """
    return 0.5 * torch.log1p(inverse_alpha)


def excess(ratio: Tensor) -> Tensor:
    r"""What a prior variance v away from the optimum adds to :func:`collapsed`, elementwise, >= 0.

    .. math:: \tfrac12 (r - 1 - \log r), \qquad r = (\theta^2 + \sigma^2)/v

    Eq. (14) of Liu et al. 2019 minus its minimum (eq. 16). Exactly 0, with a gradient of exactly 0, at r = 1.
    """
    # in d = r - 1 a small r loses its digits, and log r those of an r near 1
    d, far = (ratio - 1.0).clamp_min(-0.5), ratio.clamp_min(_LEAST_RATIO)
    return 0.5 * torch.where(ratio < 0.5, far - 1.0 - far.log(), d - torch.log1p(d))


class _AdditiveKL(torch.autograd.Function):
    r"""``collapsed + excess`` for :math:`N(\theta, \sigma^2)` from :math:`N(0, v)`, with as little memory as can be.

    The derivatives of eq. (14) at fixed :math:`v` are :math:`\theta/v` in :math:`\theta`,
    :math:`\tfrac12(\sigma^2/v - 1)` in :math:`\log\sigma^2`, and :math:`(1 - (\theta^2 + \sigma^2)/v)/2v` in :math:`v`.
    Autograd's own way through the formula holds three times as many tensors of the weight's size, and on a CPU their
    allocation is most of a training step.
    """

    generate_vmap_rule = True  # over any of the inputs, but for v alone: work in place needs every batch dimension

    @staticmethod
    def forward(loc: Tensor, log_var: Tensor, variance: Tensor, prior_variance: Tensor) -> Tensor:
        tiny, most = torch.finfo(loc.dtype).tiny, torch.finfo(loc.dtype).max
        ratio = torch.addcmul(variance, loc, loc).div_(prior_variance).clamp_min_(tiny)
        # a variance that has underflown is no 0/0 at a mean of 0, where it means alpha = infinity
        inverse_alpha = (loc / variance.clamp_min(tiny)).mul_(loc).clamp_max_(most)
        # log(1 + 1/alpha) - log(ratio) as one logarithm, and what 1 + 1/alpha loses to rounding beside it: exact where the
        # ratio is 1, and half the cost of log1p and log in a compiled step
        total = inverse_alpha + 1.0
        lost = inverse_alpha.sub_(total.sub_(1.0)).div_(total.add_(1.0))
        logarithm = total.div_(ratio).clamp_max_(most).log_()
        return ratio.sub_(1.0).add_(logarithm).add_(lost).mul_(0.5)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        loc, log_var, variance, prior_variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the variance came in without its graph
            variance = log_var.exp()
        # products begin with grad, which has the batch dimensions of all inputs
        grad_loc = (grad * loc).div_(prior_variance)
        grad_log_var = (grad * variance).div_(prior_variance).sub_(grad).mul_(0.5)
        grad_prior = None
        if ctx.needs_input_grad[3]:
            ratio = torch.addcmul(variance, loc, loc).div_(prior_variance)
            grad_prior = (grad / prior_variance).mul_(1.0 - ratio).mul_(0.5)
        return grad_loc, grad_log_var, None, grad_prior


# apply() asks for the signature at every call, and finds it here without taking the function apart
_AdditiveKL.forward.__signature__ = inspect.signature(_AdditiveKL.forward)  # type: ignore[attr-defined]


@register_kl(AdditiveNormal, CentredNormal)  # type: ignore[untyped-decorator]
def _kl_additive_centred(q: AdditiveNormal, p: CentredNormal) -> Tensor:
    return _additive_kl(q.loc, q, p.variance)


@register_kl(AdditiveNormal, dist.Normal)  # type: ignore[untyped-decorator]
def _kl_additive_normal(q: AdditiveNormal, p: dist.Normal) -> Tensor:
    return _additive_kl(q.loc - p.loc, q, p.scale.square())


def _additive_kl(distance: Tensor, q: AdditiveNormal, prior_variance: Tensor) -> Tensor:
    tensors = (distance, q.log_var, q.variance.detach(), prior_variance)
    if not distance.shape == q.log_var.shape == prior_variance.shape:
        tensors = torch.broadcast_tensors(*tensors)
    return _AdditiveKL.apply(*tensors)  # type: ignore[no-any-return,no-untyped-call]


@register_kl(MultiplicativeNormal, dist.Normal)  # type: ignore[untyped-decorator]
def _kl_multiplicative_normal(q: MultiplicativeNormal, p: dist.Normal) -> Tensor:
    # A scale is the rounded root of a variance. d is within a few units of the last place of 0 at the optimum, where the
    # exact gradient in loc is 0 (Proposition 3) and the rounding error would be divided by loc.
    # Means are divided by the scale before they are squared: squares of small means lose their digits, and their inverse
    # overflows.
    distance = q.loc - p.loc
    ratio = q.log_alpha.exp() * (q.loc / p.scale).square() + (distance / p.scale).square()
    limits = torch.finfo(ratio.dtype)
    second_moment = torch.addcmul(q.variance, distance, distance).clamp_min(limits.tiny)
    at_optimum = (second_moment / p.scale.square().clamp_min(limits.tiny) - 1.0).abs() < 8 * limits.eps
    ratio = torch.where(at_optimum, 1.0, ratio)
    # around 0 alpha is the parameter itself, and no mean is too small; the inner where keeps 0/0 out of the gradient
    centred = p.loc == 0
    others = distance.square() / torch.where(centred, 1.0, q.variance)
    return collapsed(torch.where(centred, q.inverse_alpha, others)) + excess(ratio)


@register_kl(MeanFieldNormal, ImproperLogUniform)  # type: ignore[untyped-decorator]
def _kl_log_uniform(q: MeanFieldNormal, p: ImproperLogUniform) -> Tensor:
    return p.approximation(q.inverse_alpha)
