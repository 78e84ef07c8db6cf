"""q(gamma) as a function of the weights' posteriors: a delta at the closed-form optimum, or the exact posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vbd.distributions import base_distribution, map_tensors
from pyro_vbd.posterior.exact_scale import ExactScale
from pyro_vbd.posterior.mean_field import MeanFieldNormal
from pyro_vbd.posterior.scale_factors import Factor, Weight
from pyro_vbd.priors.evidence import Evidence
from pyro_vbd.priors.optimum import Optimum

__all__ = ["DeltaAt", "Exact", "OptimalScale", "ScaleRule"]

#: ``rule(hyperprior, sum_of_squares, count, factor) -> q(gamma)``, elementwise over groups.
ScaleRule = Callable[[Any, Tensor, Any, Factor], Any]


@dataclass(frozen=True)
class DeltaAt:
    """q(gamma) a delta at a registered minimiser (eq. 16 of Liu et al. 2019 for the uniform hyperprior)."""

    optimum: Optimum

    def __call__(self, hyperprior: Any, sum_of_squares: Tensor, count: Any, factor: Factor) -> dist.Delta:
        """The delta, elementwise over groups."""
        gamma = self.optimum(hyperprior, sum_of_squares, count)
        # Delta would make a tensor of gamma's size of a number
        return dist.Delta(gamma, gamma.new_zeros(()).expand(gamma.shape), validate_args=False)


@dataclass(frozen=True)
class Exact:
    """q(gamma) the exact posterior given q(W); see :class:`~pyro_vbd.posterior.exact_scale.ExactScale`."""

    evidence: Evidence | None

    def __call__(self, hyperprior: Any, sum_of_squares: Tensor, count: Any, factor: Factor) -> ExactScale:
        """The posterior, elementwise over groups."""
        return ExactScale(hyperprior, factor.variance, factor.of_variance, sum_of_squares, count, self.evidence)


class OptimalScale(nn.Module):
    r"""q of one gamma site given q(W) and the other factors of its weights' scales.

    With the others in c, a group of n weights enters through :math:`S = \sum_i (\theta_i^2 + \sigma_i^2)/c_i^2`.

    Args:
        site: name of gamma.
        prior: gamma's distribution in the model.
        weights: the weights that it acts on.
        rule: what makes q(gamma) of S and n.

    Gamma carries no gradient: at its optimum the derivative of the loss in it is 0 (the envelope theorem), or it is held
    by a bound.
    """

    def __init__(self, site: str, prior: Any, weights: list[Weight], rule: ScaleRule) -> None:
        super().__init__()
        self.site, self.weights, self._rule = site, nn.ModuleList(weights), rule
        self._uses = [(weight, weight.factor(site)) for weight in weights]
        self.shape: torch.Size = prior.shape()
        # a parameter that expand() has repeated is one number again
        self._hyperprior = map_tensors(base_distribution(prior), lambda v: v[(0,) * v.dim()] if not any(v.stride()) else v)
        self._kind = weights[0].constant.device, weights[0].constant.dtype
        counts = sum(
            weight.factor(site).total(torch.ones(weight.shape, device=weight.constant.device)) for weight in weights
        )
        assert isinstance(counts, Tensor)
        #: n, a number where all groups are of one size.
        self._count: float | Tensor = float(counts[0]) if bool((counts == counts[0]).all()) else counts.reshape(self.shape)

    @torch.no_grad()
    def forward(self, posteriors: Mapping[str, MeanFieldNormal], gammas: Mapping[str, Tensor]) -> Any:
        """q(gamma), of the shape of its site, from q of the weights and the values of the other gammas."""
        total: Tensor | None = None
        for weight, factor in self._uses:
            squares = posteriors[weight.site].second_moment
            others = weight.scale_without(self.site, gammas)
            part = factor.total(squares if others is None else squares / others.square())
            total = part if total is None else total + part
        assert total is not None
        total = total.reshape(self.shape)
        if (total.device, total.dtype) != self._kind:  # the guide has moved
            self._hyperprior = map_tensors(self._hyperprior, lambda v: v.to(total))
            self._kind = total.device, total.dtype
        count = self._count.to(total) if isinstance(self._count, Tensor) else self._count
        return self._rule(self._hyperprior, total, count, self._uses[0][1])
