"""Gaussian weights, and whether draws have the moments that they should have."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor

DRAWS = 1000


def gaussian(*shape: int) -> GaussianTensor:
    """Leaves as loc and variance, so that gradients can be asked of them."""
    return GaussianTensor(torch.randn(shape).requires_grad_(), (0.1 + torch.rand(shape)).requires_grad_())


def fresh(weight: GaussianTensor) -> GaussianTensor:
    """The same Gaussian, not yet drawn."""
    return GaussianTensor(weight.loc, weight.variance)


def exact_moments(function: Callable[..., Tensor], weights: Sequence[GaussianTensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of a function that is linear in its weights, from its Jacobian: no rule of the library."""
    locs = tuple(weight.loc.detach() for weight in weights)
    jacobians = torch.func.jacrev(function, argnums=tuple(range(len(locs))))(*locs)
    mean = function(*locs)
    variance = torch.zeros_like(mean)
    for jacobian, weight in zip(jacobians, weights, strict=True):
        variance += (jacobian.square() * weight.variance.detach()).reshape(*mean.shape, -1).sum(-1)
    return mean, variance


def assert_moments(draws: Tensor, mean: Tensor, variance: Tensor) -> None:
    """z-scores of the draws' means and variances, over the leading dimension, lie within 4."""
    count = len(draws)
    certain = variance == 0
    assert torch.allclose(draws[:, certain], mean[certain].expand(count, -1), atol=1e-9)
    draws, mean, variance = draws[:, ~certain], mean[~certain], variance[~certain]
    z_mean = (draws.mean(0) - mean) / (variance / count).sqrt()
    z_variance = (draws.var(0) / variance - 1) / math.sqrt(2 / (count - 1))
    assert z_mean.abs().max() < 4, z_mean
    assert z_variance.abs().max() < 4, z_variance
