"""Where the posterior of a latent starts when nothing else is said: from its prior, or from the weights that it scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vbd.distributions import base_distribution
from pyro_vbd.posterior.hierarchy import Hierarchy
from pyro_vbd.posterior.mean_field import MeanFieldNormal
from pyro_vbd.posterior.site_posteriors import (
    FreePosterior,
    GaussianPosterior,
    PointPosterior,
    SitePosterior,
    dropout_rate,
    safe_log_var,
)
from pyro_vbd.random_state import forked_random_state

__all__ = ["matching_scale", "other_posterior", "prior_centre", "scale_posterior", "small_random", "weight_posterior"]


def weight_posterior(label: str, node: Mapping[str, Any], alpha: str | float, log_var: float) -> GaussianPosterior:
    """That of a weight: its means are the site's ``infer["init"]``, or small random numbers.

    Args:
        label: see :class:`~pyro_vbd.posterior.site_posteriors.SitePosterior`.
        node: the site.
        alpha: what shares a dropout rate; see :func:`~pyro_vbd.posterior.site_posteriors.dropout_rate`.
        log_var: where log variances start, if that is low enough for the means; a shared alpha starts at their mean rate.
    """
    loc = node["infer"].get("init")
    loc = small_random(node) if loc is None else loc
    return GaussianPosterior(label, loc, safe_log_var(loc, log_var), *dropout_rate(alpha, loc, log_var))


def other_posterior(label: str, node: Mapping[str, Any], scale: float) -> SitePosterior:
    """That of a latent that is neither a weight nor a scale of one: around the prior's centre, a deviation of ``scale``."""
    if base_distribution(node["fn"]).support is constraints.real:
        return GaussianPosterior(label, prior_centre(node), 2.0 * math.log(scale))
    return FreePosterior(label, prior_centre(node), node["fn"].support, scale)


def scale_posterior(label: str, node: Mapping[str, Any], start: Tensor, kind: str, scale: float) -> SitePosterior:
    """That of a weight's scale that is learned: a point, or (for ``"lognormal"``) a density.

    Raises:
        ValueError: if the prior has no density where it would start.
    """
    if not bool(node["fn"].log_prob(start).isfinite().all()):
        raise ValueError(
            f"the prior of {node['name']!r} has no density where it would start to be learned (a spike and slab, say): "
            "let it follow from the weights, by scale_posterior='delta' or 'exact' and hyperparameters that are numbers"
        )
    support = node["fn"].support
    return FreePosterior(label, start, support, scale) if kind == "lognormal" else PointPosterior(label, start, support)


def small_random(node: Mapping[str, Any]) -> Tensor:
    """Random means for a weight without any: of Glorot's scale, for which it does not matter which dimension is the input.

    Those of a vector of n have the scale 0.1 / sqrt(n).
    """
    value = node["value"].detach()
    if value.dim() > 1 and value.numel():
        scale = math.sqrt(2.0 / (value.size(0) + value.numel() // value.size(0)))
    else:
        scale = 0.1 / math.sqrt(max(value.numel(), 1))
    return torch.randn_like(value) * scale


@torch.no_grad()
def prior_centre(node: Mapping[str, Any]) -> Tensor:
    """The median of prior draws (of vectors, their mean): inside the support, and finite for heavy tails."""
    if "init" in node["infer"]:
        return node["infer"]["init"]  # type: ignore[no-any-return]
    try:
        with forked_random_state():
            draws = torch.stack([node["fn"].sample() for _ in range(15)])
    except NotImplementedError:  # an improper prior
        return node["value"].detach()  # type: ignore[no-any-return]
    return draws.mean(0) if base_distribution(node["fn"]).event_shape else draws.median(0).values


@torch.no_grad()
def matching_scale(node: Mapping[str, Any], hierarchy: Hierarchy, weights: Mapping[str, MeanFieldNormal]) -> Tensor:
    """Where a learned gamma starts: the scale that the weights' means and variances have now, shared among the factors."""
    site, shape = node["name"], node["value"].shape
    estimates = []
    for weight in hierarchy.acted_on(site):
        factor = weight.factor(site)
        mean_square = factor.total(weights[weight.site].second_moment / weight.constant.square())
        mean_square = mean_square / factor.total(torch.ones(weight.shape).to(mean_square))
        estimates.append(factor.of_variance(mean_square.pow(1.0 / len(weight.factors))))
    value = torch.stack(estimates).mean(0).reshape(shape)
    support = node["fn"].support
    inside = torch.distributions.biject_to(support)(torch.distributions.biject_to(support).inv(value))
    return torch.where(inside.isfinite() & support.check(value), value, prior_centre(node))
