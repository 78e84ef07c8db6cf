"""One weight under a prior, with a guide of it: what the checks of priors are made on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from pyro_vbd.distributions import base_distribution, unchecked
from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.guide import VBDGuide
from pyro_vbd.posterior.optimal_scale import OptimalScale
from pyro_vbd.posterior.scale_factors import Factor, Weight
from pyro_vbd.posterior.site_posteriors import GaussianPosterior
from pyro_vbd.priors.prior import Prior

__all__ = ["Case", "factor_of", "largest_z"]

_SHAPE = (5, 5)


class Case:
    """A weight under the prior, and a guide of it at random means and deviations, over three decades each."""

    def __init__(self, prior: Prior, dtype: torch.dtype = torch.float64, scale_posterior: str = "delta") -> None:
        pyro.clear_param_store()  # that of the check alone; a learned hyperparameter starts anew, in this dtype
        # drawn in double precision, so that a case is the same in every dtype
        size, spread = torch.rand(2, *_SHAPE, dtype=torch.float64) * 3.0
        init = (torch.randn(_SHAPE, dtype=torch.float64) * 10 ** (size - 2.0)).to(dtype)

        def model() -> Tensor:
            return prior.sample("w", init).sum()

        self.model, self.guide = model, VBDGuide(model, scale_posterior=scale_posterior)
        self.guide()
        posterior = self.guide.learned["w"]
        assert isinstance(posterior, GaussianPosterior)
        self.q = posterior
        self.q.log_var.data.copy_(2.0 * math.log(10.0) * (spread - 2.5))
        self.scales = [scale for scale in self.guide.optima.values() if isinstance(scale, OptimalScale)]

    def kl(self) -> Tensor:
        """The KL of all sites together."""
        return VBD_ELBO().terms(self.model, self.guide).kl

    def densities(self, values: Mapping[str, Tensor]) -> dict[str, Any]:
        """The elementwise distribution of each site that the model states, with its latents at ``values``, unvalidated.

        Checks ask for densities outside the support, and of one element.
        """
        nodes = poutine.trace(poutine.condition(self.model, dict(values))).get_trace().nodes
        return {name: unchecked(base_distribution(node["fn"])) for name, node in nodes.items() if node["type"] == "sample"}

    def loss_by_group(self, scale: OptimalScale, values: Mapping[str, Tensor]) -> Tensor:
        """J of each group at given gammas: E[-log p(W | gamma)] - log p(gamma)."""
        found, gamma = self.densities(values), values[scale.site]
        own, variance = found[scale.site], found["w"].scale.square()
        cross = 0.5 * (variance.log() + self.q.distribution().second_moment.detach() / variance)
        density = torch.where(own.support.check(gamma), own.log_prob(gamma), -math.inf)
        return factor_of(scale).total(cross) - density.reshape(-1)


def factor_of(scale: OptimalScale) -> Factor:
    """How the one weight that a scale acts on depends on it."""
    weight = scale.weights[0]
    assert isinstance(weight, Weight)
    return weight.factor(scale.site)


def largest_z(draws: Tensor, expected: Tensor) -> float:
    """The largest z-score of the means over the first dimension."""
    error = draws.std(0) / math.sqrt(len(draws))
    return float(((draws.mean(0) - expected).abs() / error.clamp_min(1e-300)).max())
