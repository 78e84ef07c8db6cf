r"""What a prior looks like, for any family: its marginal density, its shrinkage profile and its penalty.

Nothing here knows a family. A prior is run as the Pyro program that it is, with its scale :math:`\gamma` set to the points
of a grid; the run tells the variance :math:`v(\gamma)` of the weight and the density of :math:`\gamma` there, and what is
shown are integrals and minima over the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_vbd.distributions import base_distribution
from pyro_vbd.posterior.mean_field import AdditiveNormal
from pyro_vbd.priors import Prior

__all__ = ["Scales", "log_marginal", "penalty", "scales", "shrinkage"]

#: Points of the grid, evenly spaced in log gamma, and its ends where the support has none.
POINTS, LOWEST, HIGHEST = 40_001, 1e-24, 1e24

#: Draws whose median stands for the latents above gamma, where a prior has more than two levels.
DRAWS = 1001


@dataclass(frozen=True)
class Scales:
    """The scale of one weight on a grid, in float64."""

    #: Prior variance of the weight, of shape ``(K,)``.
    variance: Tensor
    #: log density of gamma in gamma's own coordinates (or log probability of an atom), of shape ``(K,)``.
    log_density: Tensor
    #: Probability that a point stands for, of shape ``(K,)``; the sum is 1.
    weight: Tensor


def scales(prior: Prior) -> Scales | None:
    """The variance of a weight under each value of its gamma, or None for a prior without one.

    Where a prior has latents above gamma (a global scale), they are held at the medians of their own priors.
    """
    with pyro.validation_enabled(False), torch.random.fork_rng():
        pyro.set_rng_seed(0)
        first = _run(prior, {}, 2)
        names = [name for name, site in first.items() if site["type"] == "sample" and name != "w"]
        if not names:
            return None
        # gamma is the latent with one value for each weight, the last of them: those above it are fewer or earlier
        gamma = max(names, key=lambda name: (first[name]["value"].numel(), names.index(name)))
        above = {name: _median(prior, name) for name in names if name != gamma}
        points, width = _grid(base_distribution(first[gamma]["fn"]))
        sites = _run(prior, {**above, gamma: points}, len(points))
    density = base_distribution(sites[gamma]["fn"]).log_prob(points)
    variance = base_distribution(sites["w"]["fn"]).variance.expand(points.shape)
    weight = (density + width).exp()
    return Scales(variance, density, weight / weight.sum())


def log_marginal(prior: Prior, w: Tensor) -> Tensor:
    r""":math:`\log p(w) = \log \int N(w | 0, v(\gamma)) \, p(\gamma) \, d\gamma`, in float64, of the shape of ``w``.

    An improper prior without a gamma gives its log density up to a constant.
    """
    found = scales(prior)
    w = w.double()
    if found is None:
        return base_distribution(_run(prior, {}, 1)["w"]["fn"]).log_prob(w.flatten()).reshape(w.shape)
    kept = found.weight > 0
    parts = Normal(0.0, found.variance[kept].sqrt()).log_prob(w.unsqueeze(-1)) + found.weight[kept].log()
    return parts.logsumexp(-1)


def shrinkage(prior: Prior, points: Tensor) -> Tensor | None:
    r"""Density of the shrinkage factor :math:`\kappa = 1/(1 + v)`; None for a prior without a gamma.

    An observation of the weight with noise of variance 1 is shrunk by the factor :math:`1 - \kappa`: at 1 the prior wipes
    it out, at 0 it leaves it alone (Carvalho, Polson and Scott 2010).

    Args:
        points: values of kappa between 0 and 1, rising; each stands for the cell around it.
    """
    found = scales(prior)
    if found is None:
        return None
    kappa, order = (1.0 / (1.0 + found.variance)).sort()
    weight = found.weight[order]
    half = points.double().diff() / 2
    edges = torch.cat([points[:1] - half[:1], points[:-1] + half, points[-1:] + half[-1:]]).clamp(0.0, 1.0)
    below = torch.from_numpy(np.interp(edges, kappa, weight.cumsum(0) - weight / 2))
    return below.diff() / edges.diff()


def penalty(prior: Prior, loc: float, log_alpha: Tensor) -> Tensor:
    r"""The KL of a weight's posterior :math:`N(\theta, \alpha\theta^2)`, with gamma where the loss is lowest.

    .. math:: \min_\gamma \Big[ \tfrac12 \log v(\gamma) + \frac{\theta^2 + \sigma^2}{2 v(\gamma)} - \log p(\gamma) \Big]
              - \tfrac12 \log\sigma^2 - \tfrac12

    Eqs. (14) to (16) of Liu et al. 2019 for any family; up to a constant. Without a gamma it is the KL itself.

    Args:
        loc: :math:`\theta`.
        log_alpha: of any shape.
    """
    log_var = log_alpha.double() + 2 * math.log(abs(loc))
    found = scales(prior)
    if found is None:
        weight = base_distribution(_run(prior, {}, 1)["w"]["fn"])
        q = AdditiveNormal(torch.full_like(log_var, loc), log_var)
        return kl_divergence(q, weight.expand(log_var.shape))
    allowed = found.log_density.isfinite()
    variance, log_density = found.variance[allowed], found.log_density[allowed]
    moment = (loc**2 + log_var.exp()).unsqueeze(-1)
    loss = 0.5 * variance.log() + moment / (2 * variance) - log_density
    return loss.min(-1).values - 0.5 * log_var - 0.5


def _run(prior: Prior, values: dict[str, Tensor], count: int) -> dict[str, Any]:
    """The sample sites of ``count`` weights under a prior, some latents held at given values."""
    like = torch.zeros(count, dtype=torch.float64)
    # the weight is given, for an improper prior cannot draw it
    program = poutine.condition(lambda: prior.sample("w", like), data={**values, "w": like})
    return dict(poutine.trace(program).get_trace().nodes)


def _median(prior: Prior, name: str) -> Tensor:
    draws = torch.stack([_run(prior, {}, 1)[name]["value"].reshape(-1)[0] for _ in range(DRAWS)])
    return draws.median()


def _grid(hyperprior: Any) -> tuple[Tensor, Tensor]:
    """Points of gamma's support, and the log width of each; atoms have none."""
    support = hyperprior.support
    if hyperprior.has_enumerate_support:
        atoms = hyperprior.enumerate_support(expand=False).reshape(-1).double().unique()
        return atoms, torch.zeros_like(atoms)
    ends = (("lower_bound", 0.0), ("upper_bound", math.inf))
    low, high = (float(torch.as_tensor(getattr(support, name, end)).flatten()[0]) for name, end in ends)
    low, high = max(low, LOWEST), min(high, HIGHEST)
    edges = torch.linspace(math.log(low), math.log(high), POINTS + 1, dtype=torch.float64).exp()
    return (edges[1:] * edges[:-1]).sqrt(), edges.diff().log()
